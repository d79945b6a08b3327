//! One run: a cluster, clients and faults from a seed; then both checkers.

use crate::agent::Agent;
use crate::calls::moves;
use crate::client::Client;
use crate::env::WallClock;
use crate::faults::{DELAY_MS, Fault, plan};
use crate::made::{MEMBERS, Made, NODES, host, machine};
use crate::member::Member;
use crate::net::Sent;
use crate::world::World;
use futures_util::FutureExt;
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, SystemTime};
use turmoil::Sim;
use yard_common::id::MemberId;
use yard_coordinator::Handle;
use yard_coordinator::env::Crash;
use yard_coordinator::proposer::Leadership;
use yard_integration::history::History;
use yard_integration::linear::Bounds;
use yard_integration::model::Record;
use yard_integration::objects::{self, Sight};
use yard_integration::replay::{self, Needs};

/// Clients of a run.
const CLIENTS: u32 = 3;
/// How long it may take after the last fault until every client got its answers, in milliseconds.
const LIVE_MS: u64 = 20_000;
/// How long it may take from there until all members have the same state, in milliseconds.
const AGREE_MS: u64 = 5_000;
/// What a run must have in it to prove anything.
const NEEDS: Needs = Needs { answered_min: 100, unknown_max: 60 };

/// What a run left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) messages: Vec<Sent>,
    pub(crate) history: History,
    pub(crate) log: Vec<Record>,
    pub(crate) sights: Vec<Sight>,
    pub(crate) state: Vec<u8>,
    /// From the last fault until every client got its answers, and until all members were the same.
    pub(crate) live_after_ms: u64,
    pub(crate) same_after_ms: u64,
    /// When leaders were killed on purpose.
    pub(crate) kills_ms: Vec<u64>,
}

impl Ran {
    /// How long after this time the first change was answered that was not on its way already.
    pub(crate) fn back_after_ms(&self, from_ms: u64) -> u64 {
        let changes = self.history.operations.iter().filter(|one| !one.call.is_read());
        let ends = changes.filter_map(|one| one.ended).map(|ended| ended.at_ms);
        // What was answered before the end arrives a few milliseconds later.
        let after = ends.filter(|at_ms| *at_ms > from_ms + 5 * DELAY_MS).min();
        after.map_or(u64::MAX, |at_ms| at_ms - from_ms)
    }
}

/// Tells how to run a seed again, if the test fails.
struct Telltale(u64);

impl Drop for Telltale {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!(
                "to run it again: YARD_SEED={seed} cargo test -p yard-integration --test turmoil \
                 the_seed_that_is_asked_for -- --nocapture"
            );
        }
    }
}

struct Run<'a> {
    sim: Sim<'a>,
    world: World,
    members: Vec<Member>,
    plan: VecDeque<(u64, Fault)>,
    /// When leaders were killed.
    kills_ms: Vec<u64>,
}

/// Runs a seed and checks what came of it.
pub(crate) fn run(seed: u64) -> Ran {
    let _telltale = Telltale(seed);
    run_plan(seed, plan(seed), |_| ())
}

/// Runs a seed with faults of one's own. `before`: what is done to the cluster before it starts.
pub(crate) fn run_plan(seed: u64, plan: Vec<(u64, Fault)>, before: fn(&Made)) -> Ran {
    let made = Made::new(seed);
    before(&made);
    let world = World::default();
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(SystemTime::UNIX_EPOCH)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(0))
        .max_message_latency(Duration::from_millis(DELAY_MS))
        .simulation_duration(Duration::from_secs(3_600))
        .tcp_capacity(4_096)
        .enable_random_order()
        .build();
    let mut members = Vec::new();
    for id in 1..=MEMBERS {
        let wall = WallClock::default();
        let member = Member { id, folder: made.folder(id), disk: made.disk(id), wall };
        let (software, lives, world) = (member.clone(), Rc::new(Cell::new(0)), world.clone());
        sim.host(host(id), move || {
            let life = lives.replace(lives.get() + 1);
            software.clone().live(world.clone(), seed ^ id << 32 ^ life << 48)
        });
        members.push(member);
    }
    for number in 0..CLIENTS {
        let client = Client::new(number, CLIENTS, seed, &made.admin, world.clone());
        sim.client(format!("c{number}"), client.run());
    }
    for (node, identity) in (0..NODES).zip(&made.agents) {
        let world = world.clone();
        let agent = move || Agent::new(node, seed, identity, world.clone()).run();
        sim.host(machine(node), agent);
    }
    let mut run = Run { sim, world, members, plan: plan.into(), kills_ms: Vec::new() };
    let live_after_ms = run.drive();
    let state = run.agree();
    let same_after_ms = run.now_ms() - run.world.healed_ms().expect("it is live");
    let ran = Ran {
        messages: run.world.trace.messages(),
        history: run.world.recorder.history(),
        log: run.world.log(),
        sights: run.world.sights(),
        state,
        live_after_ms,
        same_after_ms,
        kills_ms: run.kills_ms,
    };
    check(&ran);
    ran
}

fn check(ran: &Ran) {
    let told = || ran.history.operations.iter().map(|one| format!("\n  {one}")).collect::<String>();
    replay::check(&ran.history, &ran.log, NEEDS).unwrap_or_else(|wrong| {
        panic!("{wrong}\nthe history:{}", told());
    });
    let found = objects::check(&ran.history, &ran.sights, moves, Bounds::default());
    let checked = found.unwrap_or_else(|found| panic!("{found}\nthe history:{}", told()));
    assert!(checked.jobs >= 10 && ran.sights.len() >= 10, "{checked:?}");
}

impl Run<'_> {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.sim.elapsed().as_millis()).unwrap()
    }

    fn step(&mut self) -> bool {
        let over = self.sim.step();
        if let Some(wrong) = self.world.wrong() {
            panic!("at {} ms: {wrong}", self.now_ms());
        }
        over.unwrap_or_else(|error| panic!("at {} ms: {error}", self.now_ms()))
    }

    /// Lets it go wrong and get well; how long it took until all clients were served again.
    fn drive(&mut self) -> u64 {
        while !self.world.joined() {
            self.step();
            assert!(self.now_ms() < 60_000, "the members do not find each other");
        }
        let began_ms = self.now_ms();
        let healed_ms = began_ms + self.plan.back().map_or(0, |(last_ms, _)| *last_ms);
        loop {
            let now_ms = self.now_ms();
            while let Some((_, fault)) =
                self.plan.pop_front_if(|(at_ms, _)| began_ms + *at_ms <= now_ms)
            {
                self.inject(fault);
            }
            if now_ms >= healed_ms && self.world.healed_ms().is_none() {
                assert!(self.plan.is_empty(), "{:?}", self.plan);
                self.world.heal(now_ms);
            }
            if self.step() {
                return self.now_ms() - healed_ms;
            }
            assert!(now_ms < healed_ms + LIVE_MS, "not live {LIVE_MS} ms after the last fault");
        }
    }

    fn inject(&mut self, fault: Fault) {
        let name = |member: u64| host(member);
        match fault {
            Fault::Kill(member, crash) => self.kill(member, crash),
            Fault::KillLeader(crash) => {
                if let Some((leader, _)) = self.leader() {
                    self.kills_ms.push(self.now_ms());
                    self.kill(leader, crash);
                }
            }
            Fault::StartAll => (1..=MEMBERS).for_each(|member| {
                if !self.sim.is_host_running(name(member)) {
                    self.sim.bounce(name(member));
                }
            }),
            Fault::Break(member, steps) => {
                let disk = &self.members[member as usize - 1].disk;
                disk.fail_at(disk.steps() + steps);
                self.world.let_end(member);
            }
            Fault::Start(member) => self.sim.bounce(name(member)),
            Fault::Hold(one, other) => self.sim.hold(name(one), name(other)),
            Fault::Release(one, other) => self.sim.release(name(one), name(other)),
            Fault::Cut(one, other) => self.sim.partition(name(one), name(other)),
            Fault::CutOneWay(one, other) => self.sim.partition_oneway(name(one), name(other)),
            Fault::Mend(one, other) => self.sim.repair(name(one), name(other)),
            Fault::Isolate(member) => {
                self.others(member).for_each(|other| self.sim.partition(name(member), other));
            }
            Fault::Rejoin(member) => {
                self.others(member).for_each(|other| self.sim.repair(name(member), other));
            }
            Fault::Lose(node) => (1..=MEMBERS).for_each(|member| {
                self.sim.partition(machine(node), name(member));
            }),
            Fault::Find(node) => (1..=MEMBERS).for_each(|member| {
                self.sim.repair(machine(node), name(member));
            }),
            Fault::Delay(ms) => self.sim.set_max_message_latency(Duration::from_millis(ms)),
            Fault::Step(member, by_ms) => self.members[member as usize - 1].wall.step(by_ms),
            Fault::Transfer(member) => {
                if let Some((_, leader)) = self.leader() {
                    // It is asked; whether it does, and when, is its own business.
                    let _ = leader.raft().transfer_leadership(MemberId(member)).now_or_never();
                }
            }
            Fault::Snapshot(member) => {
                if let Some(handle) = self.world.running().get(&member) {
                    let _ = handle.raft().take_snapshot().now_or_never();
                }
            }
        }
    }

    /// Kills a member: its process, or its machine, of which nobody hears anything any more.
    fn kill(&mut self, member: u64, crash: Crash) {
        let off = crash != Crash::Process;
        if off {
            self.others(member).for_each(|other| self.sim.partition(host(member), other));
        }
        // Before its software is dropped: it is as if it had stopped in the midst of it.
        self.members[member as usize - 1].disk.crash(crash);
        self.world.dies(member);
        self.sim.crash(host(member));
        if off {
            self.others(member).for_each(|other| self.sim.repair(host(member), other));
        }
    }

    /// The member that leads, as far as it knows.
    fn leader(&self) -> Option<(u64, Handle)> {
        let leads = |now: &Leadership| matches!(now, Leadership::Leader { .. });
        let mut running = self.world.running().into_iter();
        running.find(|(_, handle)| leads(&handle.raft().leadership().borrow()))
    }

    fn others(&self, member: u64) -> impl Iterator<Item = String> + use<> {
        let members = (1..=MEMBERS).filter(move |other| *other != member).map(host);
        let clients = (0..CLIENTS).map(|client| format!("c{client}"));
        members.chain(clients).chain((0..NODES).map(machine))
    }

    /// Waits until all members have the same state, byte for byte, and gives it.
    fn agree(&mut self) -> Vec<u8> {
        let until_ms = self.now_ms() + AGREE_MS;
        loop {
            let running = self.world.running();
            let states: Vec<_> = running.values().map(|handle| handle.raft().state()).collect();
            let same = states.iter().all(|(index, _)| *index == states[0].0);
            if states.len() == MEMBERS as usize && same {
                let bytes: Vec<_> = states.iter().map(|(_, state)| state.to_bytes()).collect();
                assert!(bytes.iter().all(|one| *one == bytes[0]), "the members differ");
                assert_eq!(states[0].1.check(), []);
                return bytes.into_iter().next().unwrap();
            }
            assert!(self.now_ms() < until_ms, "the members do not come together");
            self.step();
        }
    }
}
