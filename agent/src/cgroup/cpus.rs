//! Which CPUs a job has for itself.
//!
//! A choice keeps what it takes together: in one NUMA node if one has room, and there in the node
//! with the least room left over; whole cores before halves of them.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use yard_common::limits::NODE_CPU_MILLI_MAX;

/// CPUs by the numbers of the kernel; as text `0-3,8`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuList(BTreeSet<u32>);

/// A text that is no list of CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no list of CPUs such as 0-3,8")]
pub struct CpuListError;

impl CpuList {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds those of another list.
    pub(crate) fn add(&mut self, other: &CpuList) {
        self.0.extend(&other.0);
    }

    /// The CPUs that this process may use.
    pub(crate) fn of_this_process() -> CpuList {
        use nix::sched::{CpuSet, sched_getaffinity};
        let set =
            sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap_or_else(|_| CpuSet::new());
        let is_in = |cpu: &u32| set.is_set(*cpu as usize).unwrap_or(false);
        CpuList((0..CpuSet::count() as u32).filter(is_in).collect())
    }
}

impl FromStr for CpuList {
    type Err = CpuListError;

    fn from_str(text: &str) -> Result<CpuList, CpuListError> {
        let mut list = BTreeSet::new();
        let number = |text: &str| text.parse::<u32>().map_err(|_| CpuListError);
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if u64::from(last) >= NODE_CPU_MILLI_MAX / 1_000 {
                return Err(CpuListError);
            }
            list.extend(first..=last);
        }
        Ok(CpuList(list))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.0.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if(|next| *next == last + 1) {
                last = next;
            }
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

/// How the CPUs of a machine belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Topology {
    /// The CPUs of each NUMA node.
    nodes: Vec<CpuList>,
    /// The CPUs of each core.
    cores: Vec<CpuList>,
}

impl Topology {
    /// As the kernel shows it below `/sys`, of the CPUs that may be used.
    pub(crate) fn read(devices: &Path, usable: &CpuList) -> Topology {
        let list = |path: &Path| -> Option<CpuList> {
            let list: CpuList = std::fs::read_to_string(path).ok()?.parse().ok()?;
            Some(CpuList(list.0.intersection(&usable.0).copied().collect()))
        };
        let online = std::fs::read_to_string(devices.join("node/online")).unwrap_or_default();
        let online: CpuList = online.parse().unwrap_or_default();
        let of_node = |node: &u32| list(&devices.join(format!("node/node{node}/cpulist")));
        let nodes = online.0.iter().filter_map(of_node);
        let mut nodes: Vec<CpuList> = nodes.filter(|cpus| !cpus.is_empty()).collect();
        if nodes.is_empty() {
            nodes.push(usable.clone());
        }
        let (mut cores, mut seen) = (Vec::new(), BTreeSet::new());
        for cpu in &usable.0 {
            let path = devices.join(format!("cpu/cpu{cpu}/topology/thread_siblings_list"));
            let core = list(&path).unwrap_or_else(|| CpuList(BTreeSet::from([*cpu])));
            if seen.insert(core.0.first().copied()) {
                cores.push(core);
            }
        }
        Topology { nodes, cores }
    }

    /// So many CPUs that nobody has taken; none if there are not enough.
    pub(crate) fn choose(&self, taken: &CpuList, count: usize) -> Option<CpuList> {
        let free = |of: &CpuList| -> BTreeSet<u32> { &of.0 - &taken.0 };
        let rooms: Vec<BTreeSet<u32>> = self.nodes.iter().map(free).collect();
        let fitting = rooms.iter().filter(|room| room.len() >= count);
        let room = match fitting.min_by_key(|room| room.len()) {
            Some(room) => room.clone(),
            None => rooms.iter().flatten().copied().collect(),
        };
        if room.len() < count || count == 0 {
            return None;
        }
        // Cores of which nothing is taken first: two jobs on one core slow each other down. Then
        // what others left of a core, then half a core, if it must be.
        let is_whole = |core: &&CpuList| core.0.is_subset(&room);
        let (whole, broken): (Vec<&CpuList>, Vec<&CpuList>) = self.cores.iter().partition(is_whole);
        let mut order: Vec<u32> = Vec::new();
        for core in whole {
            if order.len() + core.len() <= count {
                order.extend(&core.0);
            }
        }
        let broken = broken.into_iter().flat_map(|core| &core.0).filter(|cpu| room.contains(*cpu));
        let rest: Vec<u32> = broken.chain(&room).copied().collect();
        for cpu in rest {
            if !order.contains(&cpu) {
                order.push(cpu);
            }
        }
        Some(CpuList(order.into_iter().take(count).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> CpuList {
        text.parse().unwrap()
    }

    #[test]
    fn lists_are_read_and_written() {
        for text in ["", "0", "0-3", "0-1,3,8-9"] {
            assert_eq!(list(text).to_string(), text);
        }
        assert_eq!(list("3,1,2\n").to_string(), "1-3");
        for text in ["a", "1-", "-1", "1-99999999", "1,,x"] {
            assert_eq!(text.parse::<CpuList>(), Err(CpuListError), "{text}");
        }
    }

    /// Two nodes of four cores each; the second half of the numbers are second threads.
    fn machine() -> Topology {
        let cores = (0..8).map(|core| list(&format!("{core},{}", core + 8))).collect();
        Topology { nodes: vec![list("0-3,8-11"), list("4-7,12-15")], cores }
    }

    #[test]
    fn whole_cores_of_one_node_are_chosen_first() {
        for (taken, count, expected) in [
            ("", 2, "0,8"),
            ("", 3, "0-1,8"),
            ("", 8, "0-3,8-11"),
            // The node in which less is left over.
            ("0,8", 2, "1,9"),
            ("0,8", 8, "4-7,12-15"),
            // The other half of a core that is in use already.
            ("0", 1, "8"),
            ("0", 3, "1,8-9"),
            // No node has room: all of them together.
            ("0,4", 9, "1-3,5,8-11,13"),
            ("0-15", 1, "none"),
            ("1-15", 2, "none"),
        ] {
            let chosen = machine().choose(&list(taken), count);
            let expected = (expected != "none").then(|| list(expected));
            assert_eq!(chosen, expected, "{count} beside {taken:?}");
        }
    }

    #[test]
    fn this_machine_has_a_topology() {
        let usable = CpuList::of_this_process();
        let found = Topology::read(Path::new("/sys/devices/system"), &usable);
        let sum = |lists: &[CpuList]| lists.iter().map(CpuList::len).sum::<usize>();
        assert_eq!((sum(&found.nodes), sum(&found.cores)), (usable.len(), usable.len()));
        assert_eq!(found.choose(&CpuList::default(), usable.len()), Some(usable));
        let bare = Topology::read(Path::new("/nowhere"), &list("2-3"));
        assert_eq!(bare.choose(&list("2"), 1), Some(list("3")));
    }
}
