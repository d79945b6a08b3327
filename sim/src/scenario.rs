//! What a seed draws before anything happens: sizes, speeds, and which faults there are.

use crate::faults::{KINDS, Kind};
use crate::rng::Rng;

/// The frame of a run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// Voters at the begin.
    pub voters: usize,
    /// Members that may replace others.
    pub spares: usize,
    /// Machines.
    pub machines: usize,
    /// Clients, the operator included.
    pub clients: usize,
    /// Kinds of faults, some more often than others.
    pub kinds: Vec<Kind>,
    /// Longest time between two faults.
    pub calm_ms: u64,
    /// Longest outage.
    pub outage_ms: u64,
    /// Whether members vote for anybody, even under a leader that they hear.
    pub rude_elections: bool,
    /// Whether this run is about leases: strict tasks that run for long, on machines that some of
    /// the members hear and others do not. Rules about overlaps are seldom put to the test else.
    pub lease_trouble: bool,
    /// Entries after which a member takes a snapshot and drops its log.
    pub snapshot_every: u64,
    /// Tasks of a chain at most.
    pub chain_max: u32,
    /// Commands that a run is to apply: clients ask for new things until what they asked for is
    /// likely to take it there, and faults go on until it is.
    pub commands: u64,
}

/// Applied commands of a seed at least.
pub const COMMANDS_MIN: u64 = 2_000;
/// Tasks of a seed that end, at least.
pub const TASKS_MIN: u64 = 50;
/// Faults of a seed at least.
pub const FAULTS_MIN: u64 = 20;

/// What puts leases to the test.
const LEASE_KINDS: [Kind; 6] = [
    Kind::MachineCut,
    Kind::MachineCut,
    Kind::OneWay,
    Kind::MemberCrash,
    Kind::MemberPower,
    Kind::Storm,
];

impl Scenario {
    /// The frame of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Scenario {
        let mut rng = Rng::new(seed, 1);
        let mut kinds: Vec<Kind> = KINDS.into_iter().filter(|_| rng.chance(450)).collect();
        while kinds.len() < 3 {
            kinds.push(rng.pick(&KINDS));
        }
        let lease_trouble = rng.chance(200);
        if lease_trouble {
            kinds.retain(|kind| LEASE_KINDS.contains(kind));
            kinds.extend(LEASE_KINDS);
        }
        Scenario {
            seed,
            lease_trouble,
            voters: rng.pick(&[3, 3, 3, 5]),
            spares: 2,
            machines: rng.between(8, 11) as usize,
            clients: 4,
            kinds,
            calm_ms: rng.pick(&[1_200, 2_500, 5_000]),
            outage_ms: if lease_trouble { 12_000 } else { rng.pick(&[2_000, 12_000, 95_000]) },
            rude_elections: rng.chance(300),
            snapshot_every: rng.pick(&[250, 600, 1_000_000]),
            chain_max: rng.pick(&[1, 4, 16]),
            commands: COMMANDS_MIN,
        }
    }
}
