//! Jobs that a test holds in its hand: they write down who they are, and end when told, as told.

use super::process::{Process, await_pids};
use super::{Cluster, Home};
use std::fs;
use std::path::PathBuf;

/// A job that waits behind a gate.
pub(crate) struct Gate {
    folder: PathBuf,
}

impl Gate {
    /// A closed one. `name` is unique within the test.
    pub(crate) fn new(cluster: &Cluster, name: &str) -> Gate {
        Gate::at(&cluster.home, name)
    }

    /// A closed one in a home.
    pub(crate) fn at(home: &Home, name: &str) -> Gate {
        let folder = home.path(&format!("gate-{name}"));
        fs::create_dir(&folder).expect("a folder can be made");
        Gate { folder }
    }

    /// The command for `bash -c`: each start of a rank adds a line with its id to the file of the
    /// rank; it ends with the code that it finds in the gate.
    pub(crate) fn script(&self) -> String {
        let folder = self.folder.display();
        format!(
            "echo $$ >> {folder}/$YARD_RANK; \
             until [ -s {folder}/open ]; do sleep 0.03; done; exit $(cat {folder}/open)"
        )
    }

    /// Submits it as a small job, with further flags.
    pub(crate) fn submit(&self, cluster: &Cluster, flags: &[&str]) -> u64 {
        let script = self.script();
        cluster.submit(&[flags, &["--", "bash", "-c", &script]].concat())
    }

    /// Ids of all starts of a rank; waits until there are so many.
    pub(crate) fn starts(&self, rank: u32, count: usize) -> Vec<i32> {
        await_pids(&self.folder.join(rank.to_string()), count)
    }

    /// The only process that a rank ever had.
    ///
    /// # Panics
    /// If it was started again, or has ended.
    pub(crate) fn only_process(&self, rank: u32) -> Process {
        let pids = self.starts(rank, 1);
        assert_eq!(pids.len(), 1, "rank {rank} was started again: {pids:?}");
        Process::find(pids[0]).unwrap_or_else(|| panic!("rank {rank} has ended"))
    }

    /// Lets the ranks end with this code.
    pub(crate) fn open(&self, code: u8) {
        let part = self.folder.join("open.part");
        fs::write(&part, format!("{code}\n")).expect("a file can be written");
        fs::rename(part, self.folder.join("open")).expect("a file can be renamed");
    }
}
