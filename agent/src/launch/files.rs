//! Directories and files of an attempt.
//!
//! Output goes to a directory that the job cannot write: so a file in it can be opened as root
//! without meeting a link that somebody planted.

use super::account::Account;
use super::assignment::Assignment;
use super::error::PrepareError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where the output of one task goes.
#[derive(Clone, Debug)]
pub(crate) struct TaskFiles {
    /// The directory of the attempt on this node.
    pub(crate) directory: PathBuf,
    /// Nodes and ranks, in the form that Open MPI reads.
    pub(crate) hostfile: PathBuf,
}

/// Makes the scratch directory of an assignment, which belongs to the job's user.
pub(super) fn make_scratch(path: &Path, account: &Account) -> Result<(), PrepareError> {
    if let Some(parent) = path.parent() {
        make_dir(parent, 0o711)?;
    }
    make_dir(path, 0o700)?;
    let tmp = path.join("tmp");
    make_dir(&tmp, 0o700)?;
    // Some programs want it as everybody's is. Nobody else comes through the directory above.
    let opened = fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777));
    opened.map_err(|source| PrepareError::Scratch { path: tmp.clone(), source })?;
    give(&tmp, account.uid, account.gid)?;
    give(path, account.uid, account.gid)
}

/// Writes nodes and ranks down, in the form that Open MPI reads.
pub(super) fn write_hostfile(path: &Path, assignment: &Assignment) -> Result<(), PrepareError> {
    let lines = assignment.nodes.iter().map(|node| format!("{} slots={}\n", node.name, node.ranks));
    let failed = |source| PrepareError::Scratch { path: path.into(), source };
    fs::write(path, lines.collect::<String>()).map_err(failed)
}

/// Makes the directory of a task's output, readable for the job's user alone.
pub(super) fn make_task(
    directory: PathBuf,
    hostfile: &Path,
    account: &Account,
) -> Result<TaskFiles, PrepareError> {
    if let Some(parent) = directory.parent() {
        make_dir(parent, 0o711)?;
    }
    make_dir(&directory, 0o750)?;
    give_group(&directory, account.gid)?;
    Ok(TaskFiles { directory, hostfile: hostfile.into() })
}

impl TaskFiles {
    /// Writes down for people what the task does not get.
    pub(super) fn note(&self, notes: &[String]) {
        if notes.is_empty() {
            return;
        }
        // Beside what preparing wrote. Without it the task runs as well.
        let file = open_stream(&self.directory.join("prepare.err"));
        let _ = file.and_then(|mut file| file.write_all((notes.join("\n") + "\n").as_bytes()));
    }

    /// The two files of a stream's owner: a rank, or the launcher.
    pub(crate) fn streams(&self, owner: &str) -> [PathBuf; 2] {
        [self.directory.join(format!("{owner}.out")), self.directory.join(format!("{owner}.err"))]
    }
}

/// Opens an output file for appending.
pub(crate) fn open_stream(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640).custom_flags(nix::libc::O_NOFOLLOW);
    options.open(path)
}

/// Makes an output file that the job's user may open by itself.
pub(super) fn make_stream(path: &Path, account: &Account) -> Result<(), PrepareError> {
    let failed = |source| PrepareError::Scratch { path: path.into(), source };
    open_stream(path).map_err(failed)?;
    give(path, account.uid, account.gid)
}

fn make_dir(path: &Path, mode: u32) -> Result<(), PrepareError> {
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| PrepareError::Scratch { path: path.into(), source })
}

fn give(path: &Path, uid: u32, gid: u32) -> Result<(), PrepareError> {
    change_owner(path, Some(uid), gid)
}

fn give_group(path: &Path, gid: u32) -> Result<(), PrepareError> {
    change_owner(path, None, gid)
}

/// Only root gives away; anybody else keeps what is theirs anyway.
fn change_owner(path: &Path, uid: Option<u32>, gid: u32) -> Result<(), PrepareError> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, uid, Some(gid))
        .map_err(|source| PrepareError::Scratch { path: path.into(), source })
}
