//! Directories for temporary files that an attempt has for itself on a node: what it leaves there
//! nobody else finds, and it goes with the attempt.

use super::account::Account;
use super::orders::Site;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::path::{Path, PathBuf};

/// Where programs expect a directory that they share with everybody. The first is the place for
/// temporary files.
const SHARED: [&str; 2] = ["/tmp", "/var/tmp"];
/// Memory that programs share by name.
const MEMORY: &str = "/dev/shm";

/// Gives the shim, and so all that it starts, directories of its own in the places that are shared.
/// Returns where temporary files go: `own`, by its usual name if it could get that.
///
/// Only root can do so, for others. Where something that the job needs lies in one of the places,
/// they stay as they are.
pub(super) fn tmp(site: &Site, account: &Account, own: &Path, workdir: &Path) -> PathBuf {
    let needed = [Path::new(&site.root), Path::new(&site.program), Path::new(&account.home)];
    let is_needed = needed.into_iter().chain([workdir]).any(is_shared);
    if account.identity.is_none() || site.jobs_as_agent || is_needed {
        return own.to_path_buf();
    }
    match enter(own) {
        Ok(()) => SHARED[0].into(),
        Err(errno) => {
            eprintln!("shim: no /tmp of the job's own: {errno}");
            own.to_path_buf()
        }
    }
}

fn is_shared(path: &Path) -> bool {
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    SHARED.iter().chain([&MEMORY]).any(|place| real.starts_with(place))
}

fn enter(own: &Path) -> nix::Result<()> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    // What is mounted on the machine later shows here too; what is mounted here, nowhere else.
    mount(NONE, "/", NONE, MsFlags::MS_SLAVE | MsFlags::MS_REC, NONE)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    // Its pages count as memory of whoever writes them, and so does its bound.
    if Path::new(MEMORY).is_dir() {
        mount(Some("tmpfs"), MEMORY, Some("tmpfs"), flags, Some("mode=1777"))?;
    }
    // The usual name last: it stands for the whole.
    for place in SHARED.iter().rev().filter(|place| Path::new(place).is_dir()) {
        mount(Some(own), *place, NONE, MsFlags::MS_BIND, NONE)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_shared_place_is_seen_behind_links() {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        assert!(is_shared(directory.path()));
        assert!(!is_shared(Path::new("/usr")) && !is_shared(Path::new("/tmpfiles")));
        let home = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let link = home.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).unwrap();
        assert!(is_shared(&link));
    }
}
