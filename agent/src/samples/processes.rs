//! One look at the processes of an assignment: which rank each belongs to, and what it has used.

use crate::process;
use std::collections::BTreeMap;
use yard_common::limits::RANKS_PER_NODE_MAX;
use yard_core::stall::Signs;

/// Where a process says which rank it is of, the first that it has: those that Open MPI starts know
/// no other.
const RANK: [&str; 2] = ["YARD_RANK", "OMPI_COMM_WORLD_RANK"];
/// Generations between a process and the one that says which rank it is of, at most.
const GENERATIONS_MAX: usize = 64;

/// Which rank processes belong to. It is looked up once for each: what a process was started with
/// stays, unless it writes over it.
#[derive(Clone, Debug, Default)]
pub(super) struct Family(BTreeMap<i32, Member>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    /// Tells it from a later one of the same id.
    started: u64,
    rank: Option<u32>,
}

/// What was seen of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Each process, with its rank.
    pub(super) pids: Vec<(i32, Option<u32>)>,
    /// Of all of them together; without output and network.
    pub(super) all: Signs,
    /// Of each rank that has a process.
    pub(super) ranks: BTreeMap<u32, Signs>,
    /// To and from disks.
    pub(super) read_bytes: u64,
    pub(super) written_bytes: u64,
}

impl Family {
    /// Looks at these processes, and forgets all others.
    pub(super) fn look(&mut self, pids: &[i32]) -> Seen {
        let used = pids.iter().filter_map(|pid| Some((*pid, process::used(*pid)?)));
        let used: BTreeMap<i32, process::Used> = used.collect();
        let same = |pid: i32, member: &Member| {
            used.get(&pid).is_some_and(|used| used.started == member.started)
        };
        self.0.retain(|pid, member| same(*pid, member));
        let mut seen = Seen::default();
        for (pid, one) in &used {
            let rank = self.rank_of(*pid, &used);
            self.0.insert(*pid, Member { started: one.started, rank });
            seen.pids.push((*pid, rank));
            add(&mut seen.all, one);
            seen.read_bytes = seen.read_bytes.saturating_add(one.read_bytes);
            seen.written_bytes = seen.written_bytes.saturating_add(one.written_bytes);
            let known = seen.ranks.len();
            if let Some(rank) = rank
                && (seen.ranks.contains_key(&rank) || known < RANKS_PER_NODE_MAX as usize)
            {
                add(seen.ranks.entry(rank).or_default(), one);
            }
        }
        seen
    }

    /// The rank of a process, or of the first of those above it that says so.
    fn rank_of(&self, pid: i32, used: &BTreeMap<i32, process::Used>) -> Option<u32> {
        let mut at = pid;
        for _ in 0..GENERATIONS_MAX {
            let own = match self.0.get(&at) {
                Some(member) => member.rank,
                None => process::variable(at, &RANK).and_then(|rank| rank.parse().ok()),
            };
            if own.is_some() {
                return own;
            }
            at = used.get(&at)?.parent;
        }
        None
    }
}

fn add(signs: &mut Signs, used: &process::Used) {
    signs.cpu_us = signs.cpu_us.saturating_add(used.cpu_us);
    signs.io_bytes = signs.io_bytes.saturating_add(used.io_bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, Command, Stdio};

    /// A rank that has a child, which does not say whose it is; both wait to be told to end.
    fn rank(number: u32) -> (Child, i32) {
        let script = "env -u YARD_RANK cat <&0 & echo $!; wait";
        let mut child = Command::new("bash")
            .args(["-c", script])
            .env("YARD_RANK", number.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        (child, line.trim().parse().unwrap())
    }

    #[test]
    fn processes_belong_to_the_rank_that_started_them() {
        let (mut first, of_first) = rank(3);
        let (mut second, of_second) = rank(4);
        let pids = [first.id() as i32, of_first, second.id() as i32, of_second];
        let mut family = Family::default();
        let seen = family.look(&pids);
        let ranks: BTreeMap<i32, Option<u32>> = seen.pids.iter().copied().collect();
        let expected = pids.into_iter().zip([3, 3, 4, 4].map(Some)).collect();
        assert_eq!(ranks, expected);
        assert_eq!(seen.ranks.keys().copied().collect::<Vec<_>>(), [3, 4]);
        // What one of them moves is seen of its rank alone.
        first.stdin.as_mut().unwrap().write_all(&[b'x'; 50_000]).unwrap();
        let moved = |seen: &Seen, rank: u32| seen.ranks[&rank].io_bytes;
        let later = loop {
            let later = family.look(&pids);
            if moved(&later, 3) >= moved(&seen, 3) + 50_000 {
                break later;
            }
            std::thread::yield_now();
        };
        assert!(moved(&later, 4) < moved(&seen, 4) + 50_000, "{later:?}");
        drop(first.stdin.take());
        first.wait().unwrap();
        let later = family.look(&pids);
        assert_eq!(later.ranks.keys().copied().collect::<Vec<_>>(), [4], "it is gone");
        drop(second.stdin.take());
        second.wait().unwrap();
        assert_eq!(family.look(&pids), Seen::default());
        assert!(family.0.is_empty(), "what is gone is forgotten");
    }
}
