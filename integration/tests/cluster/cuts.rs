//! Three coordinators on three machines, and every way in which links between them can be cut.

use crate::world::network::Network;
use crate::world::yard::{Running, Yard};
use crate::world::{Home, await_some, await_true, private_folder};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The machine of the user, to which no link is ever cut.
const USER: u8 = 4;
/// How long nothing may be acknowledged where no majority is connected.
const SILENCE: Duration = Duration::from_millis(800);
/// How soon somebody writes again, whatever was cut.
const HEALED: Duration = Duration::from_secs(10);
/// The links between three machines, in one direction each.
const LINKS: [(u8, u8); 6] = [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)];

/// Links that are cut, as bits of [`LINKS`].
type Pattern = u8;

/// Three coordinators, each on a machine of its own.
struct Trio {
    network: Network,
    home: Home,
    members: Vec<Running>,
    cut: Pattern,
    /// What was acknowledged: name and number.
    acked: BTreeMap<String, u64>,
    asked: u32,
}

impl Trio {
    fn start() -> Trio {
        let (network, home) = (Network::new(USER), Home::new());
        let mut trio =
            Trio { network, home, members: Vec::new(), cut: 0, acked: BTreeMap::new(), asked: 0 };
        let folder = |machine: u8| trio.home.path(&format!("m{machine}")).display().to_string();
        let (first, second, third) = (folder(1), folder(2), folder(3));
        private_folder(&trio.home.path("config"));
        trio.on(1, &["coordinator", "init", &trio.at(1), "--folder", &first]).ok();
        trio.run(1, &first);
        let status = ["cluster", "status"];
        await_true("the first member serves", || trio.on(USER, &status).run().code == 0);
        for (machine, folder) in [(2, second), (3, third)] {
            let token = trio.on(USER, &["cluster", "token"]).ok().out.trim().to_string();
            let address = trio.at(machine);
            let words = ["coordinator", "join", &trio.at(1), "-", "--address", &address];
            let words = [&words[..], &["--folder", &folder]].concat();
            trio.on(machine, &words).input(&token).ok();
            trio.run(machine, &folder);
        }
        trio.await_whole();
        trio
    }

    fn at(&self, machine: u8) -> String {
        format!("{}:7100", self.network.address(machine))
    }

    /// `yard` on a machine.
    fn on(&self, machine: u8, words: &[&str]) -> Yard {
        self.home.yard(words).within(&self.network.within(machine).each_ref().map(String::as_str))
    }

    fn run(&mut self, machine: u8, folder: &str) {
        let listen = self.at(machine);
        let words = ["coordinator", "run", "--folder", folder, "--listen", &listen];
        let running = self.on(machine, &words).spawn();
        self.members.push(running);
    }

    fn status(&self) -> Option<Value> {
        let ran = self.on(USER, &["cluster", "status", "-o", "json"]).run();
        (ran.code == 0).then(|| ran.json())
    }

    /// Waits until one leads, and the others vote and have everything.
    fn await_whole(&self) {
        await_true("three members are up to date", || {
            let Some(status) = self.status() else { return false };
            let members = status["members"].as_array().cloned().unwrap_or_default();
            let fine = |member: &&Value| {
                let votes = ["Leader", "Follower"].iter().any(|role| member["role"] == *role);
                votes && member["lag_entries"] == 0
            };
            status["leader"].is_u64() && members.iter().filter(fine).count() == 3
        });
    }

    /// Cuts these links, and no others.
    fn cut(&mut self, pattern: Pattern) {
        for (bit, (from, to)) in LINKS.into_iter().enumerate() {
            match (self.cut >> bit & 1, pattern >> bit & 1) {
                (0, 1) => self.network.cut(from, to),
                (1, 0) => self.network.heal(from, to),
                _ => {}
            }
        }
        self.cut = pattern;
    }

    /// Begins to submit a job with a name of its own.
    fn submit(&mut self) -> (String, Running) {
        self.asked += 1;
        let name = format!("j{}", self.asked);
        let running = self.on(USER, &["submit", "--name", &name, "--", "true"]).spawn();
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
    let mut trio = Trio::start();
    let (mut longest, mut healed) = (Duration::ZERO, Duration::ZERO);
    for pattern in patterns {
        let leader = await_some("a leader", || trio.status()?["leader"].as_u64());
        let cut = LINKS.iter().enumerate().filter(|(bit, _)| pattern >> bit & 1 == 1);
        let cut: Vec<String> = cut.map(|(_, (from, to))| format!("{from}>{to}")).collect();
        let what = format!("with {} cut, when {leader} led", cut.join(" "));
        trio.cut(pattern);
        match has_majority(pattern) {
            true => {
                let took = trio.must_ack(&what);
                println!("{what}: {took:?}");
                longest = longest.max(took);
            }
            false => trio.must_not_ack(&what),
        }
        trio.cut(0);
        healed = healed.max(trio.must_ack(&format!("after it healed, {what}")));
        trio.await_whole();
    }
    println!("longest with a majority {longest:?}, longest after healing {healed:?}");
    assert!(longest.max(healed) < HEALED, "{longest:?} with a majority, {healed:?} after");
    let jobs = trio.on(USER, &["ls", "--all", "-o", "json"]).ok().json();
    let jobs = jobs["items"].as_array().cloned().unwrap_or_default();
    for (name, number) in &trio.acked {
        let same: Vec<&Value> = jobs.iter().filter(|job| job["name"] == **name).collect();
        assert_eq!(same.len(), 1, "{name} was acknowledged once");
        assert_eq!(same[0]["id"], *number);
    }
}
