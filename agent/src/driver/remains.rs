//! What a dead shim leaves behind: found through its cgroup, its record and its mark, and killed.

use crate::cgroup::Group;
use crate::process;
use crate::shim::record::MainProcess;

/// The processes of an assignment without a shim.
#[derive(Debug)]
pub(crate) struct Remains {
    group: Group,
    mark: String,
    mains: Vec<MainProcess>,
}

impl Remains {
    pub(crate) fn new(group: Group, mark: String, mains: Vec<MainProcess>) -> Remains {
        Remains { group, mark, mains }
    }

    /// Kills what is left. Returns whether nothing was.
    ///
    /// Without a cgroup, a process that left its session and cleared its environment is not
    /// found; the inventory says that there are none.
    pub(crate) fn kill(&self) -> bool {
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
        false
    }
}
