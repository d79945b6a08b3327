//! What a dead shim leaves behind: found through its cgroup, its record and its mark, and killed.

use crate::cgroup::Group;
use crate::process;
use crate::shim::record::MainProcess;
use crate::sys;
use yard_common::limits::{KILL_LOOK_MS_MAX, STUCK_MS};

/// The first pause between two looks; each look goes over every process of the machine.
const LOOK_MS: u64 = 5;

/// The processes of an assignment without a shim.
#[derive(Debug)]
pub(crate) struct Remains {
    group: Group,
    mark: String,
    mains: Vec<MainProcess>,
    /// When they were killed first.
    since_ms: u64,
    /// When it is looked again, and how long after the last time.
    next_ms: u64,
    pause_ms: u64,
    left: Vec<i32>,
}

impl Remains {
    pub(crate) fn new(group: Group, mark: String, mains: Vec<MainProcess>) -> Remains {
        let since_ms = sys::boot_ms();
        let (next_ms, pause_ms, left) = (0, LOOK_MS, Vec::new());
        Remains { group, mark, mains, since_ms, next_ms, pause_ms, left }
    }

    /// Kills what is left, if it is time to look. Returns whether nothing was.
    ///
    /// Without a cgroup, a process that left its session and cleared its environment is not
    /// found; the inventory says that there are none.
    pub(crate) fn kill(&mut self) -> bool {
        let now_ms = sys::boot_ms();
        if now_ms < self.next_ms {
            return false;
        }
        self.next_ms = now_ms + self.pause_ms;
        self.pause_ms = (2 * self.pause_ms).min(KILL_LOOK_MS_MAX);
        let mut left = self.group.members();
        left.extend(process::marked(&self.mark));
        let is_same = |main: &&MainProcess| {
            process::fact(main.pid).is_some_and(|fact| fact.started == main.started && !fact.zombie)
        };
        left.extend(self.mains.iter().filter(is_same).map(|main| main.pid));
        if left.is_empty() {
            self.group.remove();
            return true;
        }
        self.group.kill();
        process::kill_all(&left);
        self.left = left;
        false
    }

    /// What does not end, for people.
    pub(crate) fn stuck(&self) -> Option<String> {
        let is_stuck = sys::boot_ms() >= self.since_ms + STUCK_MS;
        is_stuck.then(|| process::describe(&self.left))
    }
}
