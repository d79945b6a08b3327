//! Output in a directory of the user's, `logs.dir`: usually one that all machines share.
//!
//! Ranks write to the node's own files and notice nothing of it. A small process of our own, which
//! is the job's user from its first step on, writes there what the agent sends it. So a share that
//! is slow, full or gone holds up nobody but that process, and root follows no path of a job.
//!
//! `yard deliver DIR FOLDER NODE` makes the folder before the first task, as the user that the shim
//! started it as. `yard deliver` is the process that writes; its first message says for whom.

mod message;
mod place;
mod program;

pub(crate) use message::{Answer, ToWriter, read_frame, write_frame};
pub use program::main;

use crate::logs::{Kind, Writer};
use crate::sys::Identity;
use minicbor::{Decode, Encode};
use std::fs;
use std::io;
use std::path::Path;
use yard_common::limits::{DELIVERY_NOTE_BYTES_MAX, FILE_PATH_BYTES_MAX};
use yard_runtime::files;

/// Lies beside the output of an attempt until all of it is delivered.
const NOTE: &str = "delivery";

/// Where output goes, and as whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(crate) struct Target {
    /// An absolute directory.
    #[n(0)]
    pub(crate) dir: String,
    /// User, group and all groups; none: the agent is that user itself.
    #[n(1)]
    pub(crate) who: Option<(u32, u32, Vec<u32>)>,
    /// Mode bits that new files do not get.
    #[n(2)]
    pub(crate) umask: u32,
}

impl Target {
    pub(crate) fn new(dir: String, who: Option<&Identity>, umask: u32) -> Target {
        let who = who.map(|who| (who.uid, who.gid, who.groups.clone()));
        Target { dir, who, umask }
    }
}

/// What becomes of the output of one attempt on this node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Delivery {
    /// Where to.
    #[n(0)]
    pub(crate) target: Target,
    /// The folder of the attempt below it.
    #[n(1)]
    pub(crate) folder: String,
    /// The node's name.
    #[n(2)]
    pub(crate) node: String,
    /// What a rank may have on the node, once all is delivered.
    #[n(3)]
    pub(crate) bytes_max: u64,
}

impl Delivery {
    /// Notes it beside the output, unless that has been done.
    pub(crate) fn note(&self, attempt: &Path) -> io::Result<()> {
        let path = attempt.join(NOTE);
        if path.exists() {
            return Ok(());
        }
        fs::write(path, minicbor::to_vec(self).map_err(io::Error::other)?)
    }

    /// What is noted beside the output of an attempt; none: nothing is to be delivered any more.
    pub(crate) fn noted(attempt: &Path) -> Option<Delivery> {
        let bytes = files::read(&attempt.join(NOTE), DELIVERY_NOTE_BYTES_MAX).ok()?;
        minicbor::decode(&bytes).ok()
    }

    /// All is delivered.
    pub(crate) fn over(attempt: &Path) -> io::Result<()> {
        match fs::remove_file(attempt.join(NOTE)) {
            // All of the output went meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// The path of a stream below the target. Ranks are counted over the whole gang; whatever else
    /// writes does so on each node.
    pub(crate) fn path(&self, writer: Writer, kind: Kind) -> String {
        let Delivery { folder, node, .. } = self;
        let kind = match kind {
            Kind::Out => "out",
            Kind::Err => "err",
        };
        match writer {
            Writer::Rank(rank) => format!("{folder}/{rank}.{kind}"),
            Writer::Launcher => format!("{folder}/launcher-{node}.{kind}"),
            Writer::Prepare => format!("{folder}/prepare-{node}.{kind}"),
        }
    }
}

/// Whether a path can only lead below where it begins.
fn is_below(path: &str) -> bool {
    let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    path.len() <= FILE_PATH_BYTES_MAX && path.split('/').all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_until_all_is_delivered() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        assert_eq!(Delivery::noted(at), None);
        let who = Identity { uid: 7, gid: 8, groups: vec![8, 9] };
        let target = Target::new("/share".into(), Some(&who), 0o022);
        let (folder, node) = ("8/attempt-1".into(), "n1".into());
        let delivery = Delivery { target, folder, node, bytes_max: 1 << 20 };
        delivery.note(at).unwrap();
        let other = Delivery { node: "n2".into(), ..delivery.clone() };
        other.note(at).unwrap();
        assert_eq!(Delivery::noted(at), Some(delivery));
        Delivery::over(at).unwrap();
        assert_eq!(Delivery::noted(at), None);
    }

    #[test]
    fn no_two_nodes_write_one_file() {
        let target = Target::new("/share".into(), None, 0);
        let (folder, node) = ("8/attempt-1".into(), "n1".into());
        let delivery = Delivery { target, folder, node, bytes_max: 1 << 20 };
        for (writer, kind, path) in [
            (Writer::Rank(12), Kind::Out, "8/attempt-1/12.out"),
            (Writer::Launcher, Kind::Err, "8/attempt-1/launcher-n1.err"),
            (Writer::Prepare, Kind::Out, "8/attempt-1/prepare-n1.out"),
        ] {
            assert_eq!(delivery.path(writer, kind), path);
            assert!(is_below(path));
        }
        for path in ["", "/a", "a//b", "../a", "a/..", "./a", "a\0b"] {
            assert!(!is_below(path), "{path:?}");
        }
    }
}
