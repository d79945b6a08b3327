//! The account of a daemon, and what is handed to it.

use super::plan::Came;
use crate::failure::{Failure, exit};
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;
use std::process::{Command, Stdio};

/// Names of accounts are no longer.
const NAME_BYTES_MAX: usize = 32;

/// The numbers of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Refuses what is no name of an account, before it meets a program or a unit file.
pub(super) fn check_name(name: &str) -> Result<(), Failure> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    match begins && name.len() <= NAME_BYTES_MAX && name.chars().all(legal) {
        true => Ok(()),
        false => {
            let hint = "write small letters, digits, - and _, a letter first";
            Err(Failure::usage(format!("{name:?} is no name of an account"), hint))
        }
    }
}

/// An account of this machine, wherever its names come from.
pub(crate) fn find(name: &str) -> Result<Option<Account>, Failure> {
    let ran = Command::new("getent").args(["passwd", name]).stdin(Stdio::null()).output();
    let ran = ran.map_err(|error| missing("getent", &error))?;
    Ok(read(&String::from_utf8_lossy(&ran.stdout), name))
}

/// The account of this name among lines such as those of `/etc/passwd`.
fn read(lines: &str, name: &str) -> Option<Account> {
    let fields = |line: &str| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        found.then_some(Account { uid, gid })
    };
    lines.lines().find_map(fields)
}

/// Makes a system account, on the machine whose files lie below `root`.
pub(super) fn make(root: &Path, name: &str, home: &Path) -> Result<Came, Failure> {
    let here = root == Path::new("/");
    let known = match here {
        true => find(name)?.is_some(),
        false => {
            let lines = std::fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
            read(&lines, name).is_some()
        }
    };
    if known {
        return Ok(Came::Same);
    }
    let mut command = Command::new("useradd");
    if !here {
        command.arg("--root").arg(root);
    }
    command.args(["--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]);
    command.arg("--home-dir").arg(home).arg(name).stdin(Stdio::null());
    let ran = command.output().map_err(|error| missing("useradd", &error))?;
    if ran.status.success() {
        return Ok(Came::Changed);
    }
    let said = String::from_utf8_lossy(&ran.stderr).trim().to_string();
    let hint = "make it by hand, and name it: --user NAME";
    Err(Failure::new(exit::REFUSED, format!("the account {name} cannot be made: {said}"), hint))
}

fn missing(program: &str, error: &io::Error) -> Failure {
    let hint = "install it, or put the directory that it is in on PATH";
    Failure::new(exit::REFUSED, format!("{program} cannot be run: {error}"), hint)
}

/// Hands a directory that this process made, with all that is in it, to an account.
///
/// The directory itself goes last: until then nobody but root gets into it, so nothing in it can
/// be another thing than it was looked at as. One that is the account's already is left alone.
pub(crate) fn hand_over(directory: &Path, to: Account) -> io::Result<()> {
    let found = std::fs::symlink_metadata(directory)?;
    if found.uid() == to.uid {
        return Ok(());
    }
    if found.mode() & 0o077 != 0 {
        let text = format!("{} is open to others", directory.display());
        return Err(io::Error::other(text));
    }
    below(directory, to)
}

fn below(path: &Path, to: Account) -> io::Result<()> {
    if std::fs::symlink_metadata(path)?.is_dir() {
        for entry in std::fs::read_dir(path)? {
            below(&entry?.path(), to)?;
        }
    }
    lchown(path, Some(to.uid), Some(to.gid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn accounts_are_found_by_their_whole_name() {
        let lines = "root:x:0:0:root:/root:/bin/bash\nyard:x:998:997::/nonexistent:/sbin/nologin\n";
        assert_eq!(read(lines, "yard"), Some(Account { uid: 998, gid: 997 }));
        assert_eq!(read(lines, "yar"), None);
        assert_eq!(read("yard:x:many:1::/:", "yard"), None);
        assert_eq!(find("root").unwrap(), Some(Account { uid: 0, gid: 0 }));
        assert_eq!(find("no-such-account").unwrap(), None);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in ["yard", "_yard-2"] {
            check_name(name).unwrap();
        }
        for name in ["", "2yard", "Yard", "ya rd", "yard%u", "-r", &"y".repeat(33)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_directory_that_is_open_is_not_handed_over() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::fs::metadata(folder.path()).unwrap();
        let (uid, gid) = (own.uid(), own.gid());
        hand_over(folder.path(), Account { uid, gid }).unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let other = Account { uid: uid + 1, gid };
        assert!(hand_over(folder.path(), other).is_err());
    }

    #[test]
    fn all_of_a_directory_is_handed_over_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        if std::fs::metadata(folder.path()).unwrap().uid() != 0 {
            return;
        }
        let closed = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(folder.path(), closed).unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/b"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("a/c")).unwrap();
        hand_over(folder.path(), Account { uid: 1, gid: 1 }).unwrap();
        for path in ["", "a", "a/b", "a/c"] {
            let found = std::fs::symlink_metadata(folder.path().join(path)).unwrap();
            assert_eq!((found.uid(), found.gid()), (1, 1), "{path}");
        }
        assert_eq!(std::fs::metadata(outside.path()).unwrap().uid(), 0);
    }
}
