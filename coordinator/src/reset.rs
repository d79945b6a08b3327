//! `yard coordinator reset`: the end of a member's folder.
//!
//! **Invariant.** A folder whose process runs is left alone. What comes after it is another member:
//! its number is never used again, since the others may remember a vote of the one that is gone.

use crate::folder::Places;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use yard_common::id::{ClusterId, MemberId};
use yard_runtime::files::{FileError, FolderLock};
use yard_runtime::identity::{Identity, Principal};

/// What a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// The cluster; none: the folder does not tell.
    pub cluster: Option<ClusterId>,
    /// The member.
    pub member: Option<MemberId>,
}

/// Why a folder is not removed.
#[derive(Debug, Error)]
pub enum ResetError {
    /// There is no such folder.
    #[error("there is no folder {}", .0.display())]
    Absent(PathBuf),
    /// It is not that of a member.
    #[error("{} is not the folder of a coordinator; remove it by hand if that is meant",
        .0.display())]
    Foreign(PathBuf),
    /// Its process runs.
    #[error("the coordinator runs; stop it first")]
    Runs(#[source] FileError),
    /// It cannot be removed.
    #[error("cannot remove {}", .0.display())]
    Remove(PathBuf, #[source] io::Error),
}

/// Whose folder it is.
///
/// # Errors
/// If there is none, or nothing in it is a member's.
pub fn resident(folder: &Path) -> Result<Resident, ResetError> {
    if !folder.is_dir() {
        return Err(ResetError::Absent(folder.to_path_buf()));
    }
    let places = Places::of(folder);
    if !places.identity.is_dir() && !places.data.is_dir() {
        return Err(ResetError::Foreign(folder.to_path_buf()));
    }
    // One that cannot be read is a reason to reset, not one against it.
    let identity = Identity::load(&places.identity).ok();
    let peer = identity.as_ref().map(Identity::peer);
    let member = peer.and_then(|peer| match peer.principal {
        Principal::Member(member) => Some(member),
        Principal::Node(_) | Principal::User(_) => None,
    });
    Ok(Resident { cluster: peer.map(|peer| peer.cluster), member })
}

/// Removes the folder of a member: its certificate, its copy of the log, the keys of the CAs.
///
/// # Errors
/// If it runs, or the folder cannot be removed.
pub fn reset(folder: &Path) -> Result<Resident, ResetError> {
    let found = resident(folder)?;
    let data = Places::of(folder).data;
    let _lock = match data.is_dir() {
        true => Some(FolderLock::take(&data).map_err(ResetError::Runs)?),
        false => None,
    };
    // The keys first: what is left after a crash opens nothing.
    for part in [Places::of(folder).authority, folder.to_path_buf()] {
        match std::fs::remove_dir_all(&part) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ResetError::Remove(part, error)),
        }
    }
    Ok(found)
}
