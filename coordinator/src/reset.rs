//! `yard coordinator reset`: the end of a member's folder.
//!
//! **Invariants.** A folder whose process runs is left alone. What comes after it is another
//! member: its number is never used again, since the others may remember a vote of the one that is
//! gone. No link is followed. Whatever a crash leaves of a folder starts no member: the certificate
//! goes before the log, without which the member would have forgotten its votes.

use crate::folder::Places;
use crate::place::plain;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use yard_common::id::{ClusterId, MemberId};
use yard_runtime::files::{self, FileError, FolderLock};
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
    /// What it leads to would stay, or be removed elsewhere.
    #[error("{} is a link; remove what it leads to by hand, and then the link", .0.display())]
    Link(PathBuf),
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
    let folder = &plain(folder);
    refuse_link(folder)?;
    if !folder.is_dir() {
        return Err(ResetError::Absent(folder.to_path_buf()));
    }
    let places = Places::of(folder);
    for part in [&places.authority, &places.identity, &places.data] {
        refuse_link(part)?;
    }
    // The last is what a crash in the middle may leave.
    if !places.identity.is_dir() && !places.data.is_dir() && !places.life.exists() {
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

fn refuse_link(path: &Path) -> Result<(), ResetError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => Err(ResetError::Link(path.to_path_buf())),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Removes the folder of a member: its certificate, its copy of the log, the keys of the CAs.
///
/// # Errors
/// If it runs, or the folder cannot be removed.
pub fn reset(folder: &Path) -> Result<Resident, ResetError> {
    let folder = &plain(folder);
    let found = resident(folder)?;
    let Places { authority, identity, data, .. } = Places::of(folder);
    let _lock = match data.is_dir() {
        true => Some(FolderLock::take(&data).map_err(ResetError::Runs)?),
        false => None,
    };
    // The keys first: what is left after a crash opens nothing. Then what makes a member of it.
    for part in [authority, identity] {
        remove(&part)?;
        let flushed = files::flush_folder(folder);
        flushed.map_err(|error| ResetError::Remove(part, io::Error::other(error)))?;
    }
    remove(folder)?;
    Ok(found)
}

fn remove(part: &Path) -> Result<(), ResetError> {
    match std::fs::remove_dir_all(part) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ResetError::Remove(part.to_path_buf(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn member(root: &Path) -> PathBuf {
        let folder = root.join("member");
        for part in ["authority", "identity", "data"] {
            fs::create_dir_all(folder.join(part)).unwrap();
            fs::write(folder.join(part).join("file"), "").unwrap();
        }
        folder
    }

    #[test]
    fn what_a_crash_leaves_can_be_removed_and_starts_nothing() {
        let root = tempfile::tempdir().unwrap();
        let folder = member(root.path());
        fs::remove_dir_all(folder.join("authority")).unwrap();
        fs::remove_dir_all(folder.join("identity")).unwrap();
        let left = reset(&folder).unwrap();
        assert_eq!(left, Resident { cluster: None, member: None });
        assert!(!folder.exists());
        fs::create_dir(&folder).unwrap();
        assert!(matches!(reset(&folder), Err(ResetError::Foreign(_))));
        fs::write(folder.join("life"), "1").unwrap();
        reset(&folder).unwrap();
        assert!(matches!(reset(&folder), Err(ResetError::Absent(_))));
    }

    #[test]
    fn links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let folder = member(root.path());
        symlink(&folder, root.path().join("link")).unwrap();
        for link in ["link", "link/", "link/."] {
            let refused = reset(&root.path().join(link));
            assert!(matches!(refused, Err(ResetError::Link(_))), "{link}: {refused:?}");
        }
        let kept = root.path().join("kept");
        for part in ["authority", "identity", "data"] {
            fs::rename(folder.join(part), &kept).unwrap();
            symlink(&kept, folder.join(part)).unwrap();
            assert!(matches!(reset(&folder), Err(ResetError::Link(_))), "{part}");
            fs::remove_file(folder.join(part)).unwrap();
            fs::rename(&kept, folder.join(part)).unwrap();
        }
        for part in ["authority", "identity", "data"] {
            assert!(folder.join(part).join("file").exists(), "{part}");
        }
        reset(&folder).unwrap();
    }
}
