//! Files beneath a directory of an attempt: opened so that no link leads anywhere else.
//!
//! **Invariant:** the agent may be root, the directory the job's. So every path is resolved by the
//! kernel beneath an open directory, through no link and onto no other file system's magic. What is
//! opened is a plain file, and where the job can make hard links, it is opened as the directory's
//! owner, and is that user's own.

use super::DataError;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::unistd::{Gid, Uid, geteuid, setfsgid, setfsuid};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use yard_common::limits::FILE_PATH_BYTES_MAX;

/// Who makes the entries of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maker {
    /// The agent alone: they may be given to the job's user, and are as they were made.
    Agent,
    /// The job: a hard link may be to a file that it cannot read.
    Job,
}

/// An open directory, and whose files are read in it; none: anybody's.
#[derive(Debug)]
pub(super) struct Root {
    directory: File,
    owner: Option<Owner>,
}

/// The user of a job.
#[derive(Clone, Copy, Debug)]
struct Owner {
    uid: u32,
    gid: u32,
}

/// This thread opens files as somebody else until it is dropped. An agent that is root so opens
/// nothing that the job's user could not.
struct Disguise {
    uid: Uid,
    gid: Gid,
}

impl Disguise {
    /// As the user of a job; nothing to do where the agent is no root.
    fn of(owner: Owner) -> Option<Disguise> {
        geteuid().is_root().then(|| {
            // The group first: the user may not change it.
            let gid = setfsgid(Gid::from_raw(owner.gid));
            Disguise { uid: setfsuid(Uid::from_raw(owner.uid)), gid }
        })
    }
}

impl Drop for Disguise {
    fn drop(&mut self) {
        setfsuid(self.uid);
        setfsgid(self.gid);
    }
}

impl Root {
    /// Opens a directory whose parents only the agent can change.
    pub(super) fn open(path: &Path, maker: Maker) -> Result<Root, DataError> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(nix::libc::O_DIRECTORY | nix::libc::O_NOFOLLOW);
        let directory = options.open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                DataError::not_found("the attempt has no such directory on this node")
            }
            _ => DataError::io(format!("the directory cannot be opened: {error}")),
        })?;
        let found = directory.metadata().map_err(|e| DataError::io(e.to_string()))?;
        let owner = (maker == Maker::Job).then(|| Owner { uid: found.uid(), gid: found.gid() });
        Ok(Root { directory, owner })
    }

    /// Opens a directory beneath it.
    pub(super) fn directory(&self, path: &str) -> Result<File, DataError> {
        self.resolve(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
    }

    /// Opens a plain file beneath it.
    pub(super) fn file(&self, path: &str) -> Result<File, DataError> {
        // A pipe must not hang whoever opens it.
        let file = self.resolve(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        let found = file.metadata().map_err(|e| DataError::io(e.to_string()))?;
        if !found.is_file() {
            return Err(DataError::not_allowed(format!("{path} is no plain file")));
        }
        if self.owner.is_some_and(|owner| owner.uid != found.uid()) {
            return Err(DataError::not_allowed(format!("{path} belongs to somebody else")));
        }
        Ok(file)
    }

    fn resolve(&self, path: &str, flags: OFlag) -> Result<File, DataError> {
        let path = relative(path)?;
        let beneath = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(beneath);
        let shown = path.display();
        let _disguise = self.owner.and_then(Disguise::of);
        match openat2(&self.directory, &path, how) {
            Ok(fd) => Ok(File::from(fd)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {
                Err(DataError::not_found(format!("there is no {shown}")))
            }
            Err(Errno::ELOOP | Errno::EXDEV) => {
                Err(DataError::not_allowed(format!("{shown} leads through a link or elsewhere")))
            }
            Err(Errno::ENOSYS) => {
                Err(DataError::not_allowed("this kernel cannot open files safely; 5.6 can"))
            }
            Err(Errno::EACCES | Errno::EPERM) => {
                Err(DataError::not_allowed(format!("the job's user may not read {shown}")))
            }
            Err(errno) => Err(DataError::io(format!("{shown} cannot be opened: {errno}"))),
        }
    }
}

/// A path through which nothing but an open file leads: for listings of what is open.
pub(super) fn path_of(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// The path as it is given to the kernel; empty is the root itself.
fn relative(path: &str) -> Result<PathBuf, DataError> {
    if path.len() > FILE_PATH_BYTES_MAX {
        return Err(DataError::limit(format!("a path of more than {FILE_PATH_BYTES_MAX} bytes")));
    }
    if path.contains('\0') {
        return Err(DataError::not_allowed("the path has a zero byte"));
    }
    let path = Path::new(path);
    let stays = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if !path.components().all(stays) {
        return Err(DataError::not_allowed("the path leaves its directory"));
    }
    Ok(if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_path_buf() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use yard_proto::internal::DataErrorKind;

    fn root() -> (tempfile::TempDir, Root) {
        root_of(Maker::Job)
    }

    fn root_of(maker: Maker) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("root");
        std::fs::create_dir_all(at.join("sub")).unwrap();
        std::fs::write(at.join("sub/a"), "inside").unwrap();
        std::fs::write(directory.path().join("secret"), "outside").unwrap();
        symlink("../secret", at.join("link")).unwrap();
        symlink("sub", at.join("dir")).unwrap();
        nix::unistd::mkfifo(&at.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let root = Root::open(&at, maker).unwrap();
        (directory, root)
    }

    #[test]
    fn files_inside_are_read() {
        let (_directory, root) = root();
        for path in ["sub/a", "./sub/a", "sub//a"] {
            let mut text = String::new();
            root.file(path).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "inside", "{path}");
        }
        root.directory("").unwrap();
        root.directory("sub").unwrap();
    }

    #[test]
    fn a_file_of_somebody_else_is_read_only_where_the_job_makes_none() {
        for (maker, is_read) in [(Maker::Agent, true), (Maker::Job, false)] {
            let (_directory, mut root) = root_of(maker);
            // As if the directory were another's: only root could give the file away.
            root.owner = root.owner.map(|owner| Owner { uid: owner.uid + 1, ..owner });
            assert_eq!(root.file("sub/a").is_ok(), is_read, "{maker:?}");
        }
    }

    #[test]
    fn root_opens_what_the_user_of_the_job_may_open() {
        if !geteuid().is_root() {
            return;
        }
        let nobody = 65_534;
        let (_directory, root) = root();
        let path = path_of(&root.directory);
        for name in ["sub/a", "sub", ""] {
            std::os::unix::fs::chown(path.join(name), Some(nobody), Some(nobody)).unwrap();
        }
        std::fs::write(path.join("sub/kept"), "of root alone").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path.join("sub/kept"), mode).unwrap();
        let root =
            Root { directory: root.directory, owner: Some(Owner { uid: nobody, gid: nobody }) };
        root.file("sub/a").unwrap();
        let refused = root.file("sub/kept").unwrap_err();
        assert_eq!(refused.message, "the job's user may not read sub/kept");
        // And is itself again afterwards.
        assert!(path.join("sub/kept").metadata().is_ok() && geteuid().is_root());
        std::fs::read(path.join("sub/kept")).unwrap();
    }

    /// A kernel may forbid a user to make links to files of others; they are made as root here, as
    /// a user could on other kernels.
    #[test]
    fn a_hard_link_to_a_file_of_somebody_else_is_not_read() {
        if !geteuid().is_root() {
            return;
        }
        let nobody = 65_534;
        let (directory, root) = root();
        let path = path_of(&root.directory);
        for name in ["sub", ""] {
            std::os::unix::fs::chown(path.join(name), Some(nobody), Some(nobody)).unwrap();
        }
        let owner = Some(Owner { uid: nobody, gid: nobody });
        let root = Root { directory: root.directory, owner };
        // One that only root can read, and one that everybody can: neither is the job's.
        for (mode, why) in [
            (0o600, "the job's user may not read sub/hard"),
            (0o644, "sub/hard belongs to somebody else"),
        ] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(directory.path().join("secret"), mode).unwrap();
            std::fs::hard_link(directory.path().join("secret"), path.join("sub/hard")).unwrap();
            assert_eq!(root.file("sub/hard").unwrap_err().message, why);
            std::fs::remove_file(path.join("sub/hard")).unwrap();
        }
        // A second name of a file of the job's own does no harm.
        std::os::unix::fs::chown(path.join("sub/a"), Some(nobody), Some(nobody)).unwrap();
        std::fs::hard_link(path.join("sub/a"), path.join("sub/second")).unwrap();
        root.file("sub/second").unwrap();
    }

    #[test]
    fn nothing_leads_outside() {
        let (directory, root) = root();
        let absolute = directory.path().join("secret").display().to_string();
        let long = "x/".repeat(FILE_PATH_BYTES_MAX);
        for (path, kind) in [
            ("../secret", DataErrorKind::NotAllowed),
            ("sub/../../secret", DataErrorKind::NotAllowed),
            ("link", DataErrorKind::NotAllowed),
            ("dir/a", DataErrorKind::NotAllowed),
            (&absolute, DataErrorKind::NotAllowed),
            ("/proc/self/environ", DataErrorKind::NotAllowed),
            ("pipe", DataErrorKind::NotAllowed),
            ("sub", DataErrorKind::NotAllowed),
            ("a\0b", DataErrorKind::NotAllowed),
            (&long, DataErrorKind::Limit),
            ("none", DataErrorKind::NotFound),
            ("sub/a/b", DataErrorKind::NotFound),
        ] {
            assert_eq!(root.file(path).unwrap_err().kind, kind, "{path}");
        }
        assert_eq!(root.directory("dir").unwrap_err().kind, DataErrorKind::NotAllowed);
        // A link in place of the directory itself.
        symlink(directory.path(), directory.path().join("planted")).unwrap();
        assert!(Root::open(&directory.path().join("planted"), Maker::Job).is_err());
    }
}
