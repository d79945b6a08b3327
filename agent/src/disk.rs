//! How much of the disk a directory takes, and how much of it is left.
//!
//! **Invariant:** what is measured belongs to a job, and whoever measures may be root. Nothing is
//! opened but directories, each beneath the one above by a name that is no link; no other file
//! system is entered, since a job may mount one that never answers.

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::fs::{openat2, statvfs, statx};
use rustix::io::Errno;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use yard_common::limits::{DISK_DEPTH_MAX, DISK_ENTRY_BYTES, DISK_RESERVE_PERCENT};

/// Whether so little of a disk is free that nothing new may come to it. A disk that cannot be asked
/// is not short of room.
pub(crate) fn is_scarce(at: &Path) -> bool {
    let Ok(found) = statvfs(at) else { return false };
    // What is reserved for root is free to nobody else.
    let usable = found.f_blocks.saturating_sub(found.f_bfree - found.f_bavail.min(found.f_bfree));
    let percent = u64::from(DISK_RESERVE_PERCENT);
    let short = |free: u64, all: u64| free.saturating_mul(100) < all.saturating_mul(percent);
    short(found.f_bavail, usable) || short(found.f_favail, found.f_files)
}

/// Bytes on disk below a directory, itself left out; no more is counted once they exceed
/// `bytes_max`. What cannot be read, or is gone by now, counts nothing. Files that are open but
/// have no name are not seen; those with two names count twice. A tree that is deeper than
/// `DISK_DEPTH_MAX` is beyond any bound.
pub(crate) fn usage(at: &Path, bytes_max: u64) -> u64 {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(root) = rustix::fs::openat(CWD, at, flags, Mode::empty()) else { return 0 };
    let Ok(root) = Dir::new(root) else { return 0 };
    let (mut open, mut sum) = (vec![root], 0u64);
    while let Some(directory) = open.last_mut() {
        if sum > bytes_max {
            break;
        }
        let Some(Ok(entry)) = directory.read() else {
            open.pop();
            continue;
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(above) = directory.fd() else { continue };
        sum = sum.saturating_add(size(above, name));
        if !matches!(entry.file_type(), FileType::Directory | FileType::Unknown) {
            continue;
        }
        if let Ok(below) = enter(above, name) {
            if open.len() >= DISK_DEPTH_MAX {
                return u64::MAX;
            }
            open.extend(Dir::new(below));
        }
    }
    sum
}

fn size(above: BorrowedFd<'_>, name: &std::ffi::CStr) -> u64 {
    // What is mounted there is not asked.
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let found = statx(above, name, flags, StatxFlags::BLOCKS);
    found.map_or(0, |found| (found.stx_blocks.saturating_mul(512)).max(DISK_ENTRY_BYTES))
}

fn enter(above: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    openat2(above, name, flags, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_lies_below_is_counted_and_links_lead_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        assert_eq!(usage(at, u64::MAX), 0);
        fs::create_dir_all(at.join("a/b")).unwrap();
        fs::write(at.join("a/b/file"), vec![1; 100_000]).unwrap();
        let before = usage(at, u64::MAX);
        assert!((100_000..200_000).contains(&before), "{before}");
        std::os::unix::fs::symlink("/usr", at.join("link")).unwrap();
        std::os::unix::fs::symlink("..", at.join("a/b/up")).unwrap();
        fs::File::create(at.join("hole")).unwrap().set_len(1 << 40).unwrap();
        let after = usage(at, u64::MAX);
        assert!((before..before + 3 * 8_192).contains(&after), "{after} after {before}");
        assert_eq!(usage(&at.join("link"), u64::MAX), 0);
        assert_eq!(usage(&at.join("missing"), u64::MAX), 0);
    }

    #[test]
    fn files_without_bytes_fill_a_disk_too() {
        let directory = tempfile::tempdir().unwrap();
        for name in 0..100 {
            fs::write(directory.path().join(name.to_string()), "").unwrap();
        }
        assert!(usage(directory.path(), u64::MAX) >= 100 * DISK_ENTRY_BYTES);
        let bound = 10 * DISK_ENTRY_BYTES;
        let counted = usage(directory.path(), bound);
        assert!((bound..bound + 8_192 + DISK_ENTRY_BYTES).contains(&counted), "{counted}");
    }

    #[test]
    fn a_tree_without_end_is_beyond_any_bound() {
        let directory = tempfile::tempdir().unwrap();
        let mut at = directory.path().to_path_buf();
        (0..DISK_DEPTH_MAX + 1).for_each(|_| at.push("d"));
        fs::create_dir_all(&at).unwrap();
        assert_eq!(usage(directory.path(), u64::MAX), u64::MAX);
    }

    #[test]
    fn this_disk_has_room() {
        assert!(!is_scarce(Path::new("/proc")), "a file system without blocks");
        assert!(!is_scarce(Path::new("/no/such/disk")));
    }
}
