//! What cleans up after a test that cannot do it itself: one that is killed, as by a runner that
//! has waited for too long.
//!
//! A shell waits at a pipe whose other end only the test has. A test that ends in order says so.
//! Otherwise the pipe ends without a word, and the shell does what it was told. It is in a process
//! group of its own: runners kill that of the test.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Ends everything that was started with a path of `$FOLDER`, and removes the folder. A cluster of
/// `yard dev` is reset, as its ranks have no such path.
const HOME: &str = r#"
end_all() {
    for file in $(printf '%s\n' "$FOLDER" | grep -lsaF -f - /proc/[0-9]*/cmdline); do
        pid="${file#/proc/}"
        kill -9 "${pid%/cmdline}" 2>/dev/null
    done
}
end_all
"$PROGRAM" dev reset --yes
end_all
rm -rf -- "$FOLDER"
"#;

/// Removes the namespaces `$NAMES`.
const NETWORK: &str = r#"for name in $NAMES; do ip netns del "$name"; done"#;

/// Takes away what is mounted in `$FOLDER`, and removes it. What waited there ended with the test.
const MOUNTS: &str = r#"
for part in "$FOLDER"/*; do umount -l "$part"; done
rm -rf --one-file-system -- "$FOLDER"
"#;

/// A shell that cleans up unless it is told that nothing is left.
#[derive(Debug)]
pub(crate) struct Guard(Child);

impl Guard {
    /// Of a folder that is the home of a test, with the program that it runs.
    pub(crate) fn of_home(folder: &OsStr, program: &OsStr, vars: &[(&str, &OsStr)]) -> Guard {
        let all = [&[("FOLDER", folder), ("PROGRAM", program)], vars].concat();
        Guard::start(HOME, &all)
    }

    /// Of namespaces, with spaces between their names.
    pub(crate) fn of_network(names: &str) -> Guard {
        Guard::start(NETWORK, &[("NAMES", OsStr::new(names))])
    }

    /// Of a folder in which file systems are mounted.
    pub(crate) fn of_mounts(folder: &OsStr) -> Guard {
        Guard::start(MOUNTS, &[("FOLDER", folder)])
    }

    fn start(work: &str, vars: &[(&str, &OsStr)]) -> Guard {
        let script = format!("read -r told && exit 0\n{work}");
        let mut shell = Command::new("sh");
        // Nothing of the test is in its words, or in what it holds.
        shell.args(["-c", &script]).envs(vars.iter().copied()).current_dir("/").process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Guard(shell.spawn().expect("a shell can be started"))
    }

    /// Ends as with a test that is killed, and waits until it is done.
    fn abandon(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().expect("a child can be waited for");
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            // One that is gone needs no word.
            let _ = pipe.write_all(b"over\n");
        }
        let _ = self.0.wait();
    }
}

mod tests {
    use super::*;
    use crate::world::process::Process;
    use crate::world::{Home, await_true, private_folder};

    #[test]
    fn what_a_killed_test_leaves_goes() {
        // The home is removed by the guard here, as the test that owns it would be dead.
        let home = Home::new();
        let folder = home.path("killed");
        private_folder(&folder);
        let file = folder.join("log");
        std::fs::write(&file, "").expect("a file can be written");
        let mut left = Command::new("tail").arg("-f").arg(&file).spawn().expect("tail is there");
        let process = Process::find(left.id() as i32).expect("it runs");
        let words = |part: &str| home.path(part).into_os_string();
        let (config, data) = (words("config"), words("data"));
        let vars: [(&str, &OsStr); 2] = [("XDG_CONFIG_HOME", &config), ("XDG_DATA_HOME", &data)];
        let kept = Guard::of_home(folder.as_os_str(), OsStr::new("true"), &vars);
        drop(kept);
        assert!(process.lives() && folder.exists(), "a test that ends in order looks after itself");
        Guard::of_home(folder.as_os_str(), OsStr::new("true"), &vars).abandon();
        let _ = left.wait();
        await_true("the process is gone", || !process.lives());
        assert!(!folder.exists());
    }

    #[test]
    fn the_network_of_a_killed_test_goes() {
        let name = format!("yard-guard-{}", std::process::id());
        let is_there = || std::path::Path::new("/run/netns").join(&name).exists();
        let made = Command::new("ip").args(["netns", "add", &name]).status();
        assert!(made.expect("ip is installed").success() && is_there());
        Guard::of_network(&format!("{name} yard-that-never-was")).abandon();
        assert!(!is_there());
    }
}
