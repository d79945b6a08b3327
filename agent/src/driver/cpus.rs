//! Who has which CPUs for itself.
//!
//! A choice is written into the directory of the shim before there is one; so it is as old as the
//! shim, and an agent that comes later finds it there.

use crate::cgroup::{CpuList, Topology};
use crate::shim::CPUS;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use yard_core::agent::AssignmentId;

/// The CPUs of the machine, and those that are taken.
#[derive(Debug, Default)]
pub(super) struct Cpus {
    topology: Topology,
    taken: BTreeMap<AssignmentId, CpuList>,
}

impl Cpus {
    /// Of this machine, where nobody has any yet.
    pub(super) fn read() -> Cpus {
        let usable = CpuList::of_this_process();
        let topology = Topology::read(Path::new("/sys/devices/system"), &usable);
        Cpus { topology, taken: BTreeMap::new() }
    }

    /// Takes in what was chosen for an assignment whose shim is there.
    pub(super) fn found(&mut self, id: AssignmentId, directory: &Path) {
        let text = std::fs::read_to_string(directory.join(CPUS)).ok();
        if let Some(cpus) = text.and_then(|text| text.parse().ok()) {
            self.taken.insert(id, cpus);
        }
    }

    /// Chooses so many thousandths of a CPU. Parts of one are nobody's own; nor are more than there
    /// are, as on a machine with two agents.
    ///
    /// # Errors
    /// If the choice cannot be written down.
    pub(super) fn choose(&mut self, id: AssignmentId, milli: u64, to: &Path) -> io::Result<()> {
        if !milli.is_multiple_of(1_000) {
            return Ok(());
        }
        let mut taken = CpuList::default();
        self.taken.values().for_each(|cpus| taken.add(cpus));
        let count = usize::try_from(milli / 1_000).unwrap_or(usize::MAX);
        let Some(cpus) = self.topology.choose(&taken, count) else { return Ok(()) };
        std::fs::write(to.join(CPUS), cpus.to_string())?;
        self.taken.insert(id, cpus);
        Ok(())
    }

    /// It is gone.
    pub(super) fn forget(&mut self, id: AssignmentId) {
        self.taken.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::AllocationId;

    #[test]
    fn what_was_chosen_is_found_again_and_given_to_nobody_else() {
        let id = |number| AssignmentId { allocation: AllocationId(number), group: 0 };
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut cpus = Cpus::read();
        cpus.choose(id(1), 1_500, a.path()).unwrap();
        assert!(!a.path().join(CPUS).exists(), "parts of a CPU are nobody's own");
        cpus.choose(id(1), 1_000, a.path()).unwrap();
        let first = std::fs::read_to_string(a.path().join(CPUS)).unwrap();
        let mut next = Cpus::read();
        next.found(id(1), a.path());
        let all = CpuList::of_this_process().len() as u64;
        next.choose(id(2), all * 1_000, b.path()).unwrap();
        assert!(!b.path().join(CPUS).exists(), "one of them is taken");
        if all > 1 {
            next.choose(id(2), (all - 1) * 1_000, b.path()).unwrap();
            let mut both: CpuList =
                std::fs::read_to_string(b.path().join(CPUS)).unwrap().parse().unwrap();
            assert_eq!(both.len() as u64, all - 1);
            both.add(&first.parse().unwrap());
            assert_eq!(both, CpuList::of_this_process());
        }
        next.forget(id(1));
        next.choose(id(3), 1_000, a.path()).unwrap();
        assert_eq!(std::fs::read_to_string(a.path().join(CPUS)).unwrap(), first);
    }
}
