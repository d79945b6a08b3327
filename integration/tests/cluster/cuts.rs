//! Three coordinators on three machines, and every way in which links between them can be cut.

use crate::world::await_some;
use crate::world::trio::{Setup, Trio};
use crate::world::yard::Running;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long nothing may be acknowledged where no majority is connected.
const SILENCE: Duration = Duration::from_millis(800);
/// How soon somebody writes again, whatever was cut.
const HEALED: Duration = Duration::from_secs(10);
/// The links between three machines, in one direction each.
const LINKS: [(u8, u8); 6] = [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)];

/// Links that are cut, as bits of [`LINKS`].
type Pattern = u8;

/// Three coordinators whose links can be cut.
struct Net {
    trio: Trio,
    cut: Pattern,
    /// What was acknowledged: name and number.
    acked: BTreeMap<String, u64>,
    asked: u32,
}

impl Net {
    fn start() -> Net {
        let trio = Trio::start(Setup::default());
        Net { trio, cut: 0, acked: BTreeMap::new(), asked: 0 }
    }

    /// Cuts these links, and no others.
    fn cut(&mut self, pattern: Pattern) {
        for (bit, (from, to)) in LINKS.into_iter().enumerate() {
            match (self.cut >> bit & 1, pattern >> bit & 1) {
                (0, 1) => self.trio.network.cut(from, to),
                (1, 0) => self.trio.network.heal(from, to),
                _ => {}
            }
        }
        self.cut = pattern;
    }

    /// Begins to submit a job with a name of its own.
    fn submit(&mut self) -> (String, Running) {
        self.asked += 1;
        let name = format!("j{}", self.asked);
        let running = self.trio.yard(&["submit", "--name", &name, "--", "true"]).spawn();
        (name, running)
    }

    /// Submits until one is acknowledged. How long that took.
    fn must_ack(&mut self, when: &str) -> Duration {
        let began = Instant::now();
        let (name, number) = await_some(&format!("a submit is acknowledged {when}"), || {
            let (name, running) = self.submit();
            let ran = running.end();
            (ran.code == 0).then(|| (name, ran.out.trim().parse().expect("its number")))
        });
        self.acked.insert(name, number);
        began.elapsed()
    }

    /// Makes sure that nothing is acknowledged.
    fn must_not_ack(&mut self, when: &str) {
        let (_, mut running) = self.submit();
        let until = Instant::now() + SILENCE;
        while Instant::now() < until {
            let ended = running.has_ended();
            assert_ne!(ended, Some(0), "a submit was acknowledged {when}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The bit of a link.
fn bit(link: (u8, u8)) -> usize {
    LINKS.iter().position(|known| *known == link).expect("a link")
}

/// Whether two members hear each other.
fn has_majority(pattern: Pattern) -> bool {
    let cut = |link: (u8, u8)| pattern >> bit(link) & 1 == 1;
    [(1, 2), (1, 3), (2, 3)].into_iter().any(|(a, b)| !cut((a, b)) && !cut((b, a)))
}

/// The same pattern with other numbers for the machines.
fn renamed(pattern: Pattern, names: [u8; 3]) -> Pattern {
    let name = |machine: u8| names[usize::from(machine) - 1];
    let cut = LINKS.into_iter().enumerate().filter(|(bit, _)| pattern >> bit & 1 == 1);
    cut.fold(0, |renamed, (_, (from, to))| renamed | 1 << bit((name(from), name(to))))
}

/// One pattern of each kind: machines have no names of their own.
fn kinds() -> Vec<Pattern> {
    let orders = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];
    let least = |pattern| orders.map(|names| renamed(pattern, names)).into_iter().min();
    (0..64).filter(|pattern| least(*pattern) == Some(*pattern)).collect()
}

#[test]
fn there_are_sixteen_kinds_of_cuts() {
    assert_eq!(kinds().len(), 16);
    assert!(has_majority(0) && !has_majority(63));
    assert_eq!((0..64).filter(|pattern| !has_majority(*pattern)).count(), 27);
}

/// `YARD_ALL_CUTS=1`: all 64 instead of one of each kind.
#[test]
fn whatever_is_cut_a_connected_majority_goes_on_and_nobody_else() {
    let all = std::env::var_os("YARD_ALL_CUTS").is_some();
    let patterns = if all { (0..64).collect() } else { kinds() };
    let mut net = Net::start();
    let (mut longest, mut healed) = (Duration::ZERO, Duration::ZERO);
    for pattern in patterns {
        let leader = net.trio.leader();
        let cut = LINKS.iter().enumerate().filter(|(bit, _)| pattern >> bit & 1 == 1);
        let cut: Vec<String> = cut.map(|(_, (from, to))| format!("{from}>{to}")).collect();
        let what = format!("with {} cut, when {leader} led", cut.join(" "));
        net.cut(pattern);
        match has_majority(pattern) {
            true => {
                let took = net.must_ack(&what);
                println!("{what}: {took:?}");
                longest = longest.max(took);
            }
            false => net.must_not_ack(&what),
        }
        net.cut(0);
        healed = healed.max(net.must_ack(&format!("after it healed, {what}")));
        net.trio.await_whole();
    }
    println!("longest with a majority {longest:?}, longest after healing {healed:?}");
    assert!(longest.max(healed) < HEALED, "{longest:?} with a majority, {healed:?} after");
    let jobs = net.trio.yard(&["ls", "--all", "-o", "json"]).ok().json();
    let jobs = jobs["items"].as_array().cloned().unwrap_or_default();
    for (name, number) in &net.acked {
        let same: Vec<&Value> = jobs.iter().filter(|job| job["name"] == **name).collect();
        assert_eq!(same.len(), 1, "{name} was acknowledged once");
        assert_eq!(same[0]["id"], *number);
    }
}
