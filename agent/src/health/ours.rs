//! Whose a process is: one of an attempt of ours, or somebody else's.

use std::path::{Path, PathBuf};

/// Ancestors that are looked at: a chain of processes may be long, and may change meanwhile.
const ANCESTORS_MAX: usize = 64;

/// What tells the processes of attempts from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ours {
    /// The name of the agent's control group.
    group: Option<String>,
    /// Our own program, which runs as `PROGRAM shim`.
    program: PathBuf,
    proc: PathBuf,
}

impl Ours {
    pub(crate) fn new(group: Option<String>, program: PathBuf) -> Ours {
        Ours { group, program, proc: PathBuf::from("/proc") }
    }

    /// Whether a process runs that is not of an attempt. One that has ended is nobody's, and one
    /// that cannot be looked at gets the benefit of the doubt.
    pub(crate) fn is_foreign(&self, pid: u32) -> bool {
        let home = self.proc.join(pid.to_string());
        if let (Some(name), Ok(groups)) =
            (&self.group, std::fs::read_to_string(home.join("cgroup")))
            && groups.lines().any(|line| line.split('/').any(|part| part == name))
        {
            return false;
        }
        home.exists() && !self.has_shim_above(pid)
    }

    /// Whether a shim is among the ancestors: it takes in whatever its ranks leave behind.
    fn has_shim_above(&self, pid: u32) -> bool {
        let mut pid = pid;
        for _ in 0..ANCESTORS_MAX {
            if self.is_shim(pid) {
                return true;
            }
            match self.parent(pid) {
                None => return true,
                Some(0 | 1) => return false,
                Some(parent) => pid = parent,
            }
        }
        false
    }

    fn is_shim(&self, pid: u32) -> bool {
        let words = std::fs::read(self.proc.join(pid.to_string()).join("cmdline"));
        let Ok(words) = words else { return false };
        let mut words = words.split(|byte| *byte == 0);
        let program = words.next().map(|word| Path::new(std::str::from_utf8(word).unwrap_or("")));
        let same = program.is_some_and(|program| program.file_name() == self.program.file_name());
        same && words.next() == Some(b"shim")
    }

    /// The parent; none if the process is gone.
    fn parent(&self, pid: u32) -> Option<u32> {
        let stat = std::fs::read_to_string(self.proc.join(pid.to_string()).join("stat")).ok()?;
        // The name may have spaces and brackets in it.
        let (_, rest) = stat.rsplit_once(')')?;
        rest.split_whitespace().nth(1)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A made-up `/proc`: id, parent, words, groups.
    fn made(processes: &[(u32, u32, &str, &str)]) -> (tempfile::TempDir, Ours) {
        let folder = tempfile::tempdir().unwrap();
        for (pid, parent, words, groups) in processes {
            let home = folder.path().join(pid.to_string());
            std::fs::create_dir(&home).unwrap();
            std::fs::write(home.join("cmdline"), words.replace(' ', "\0")).unwrap();
            std::fs::write(home.join("stat"), format!("{pid} (a) b) S {parent} 1 1")).unwrap();
            std::fs::write(home.join("cgroup"), groups).unwrap();
        }
        let proc = folder.path().to_path_buf();
        let ours = Ours { group: Some("yard-n1".into()), program: "/usr/bin/yard".into(), proc };
        (folder, ours)
    }

    #[test]
    fn ranks_are_told_by_their_group_or_their_shim() {
        let (_folder, ours) = made(&[
            (10, 1, "/usr/bin/yard shim /sys/a", "0::/system.slice"),
            (11, 10, "python train.py", "0::/user.slice"),
            (12, 1, "python train.py", "4:memory:/yard-n1/a57\n0::/x"),
            (13, 1, "python train.py", "4:memory:/yard-n10/a57\n0::/x"),
            (14, 1, "/usr/bin/yard agent run", "0::/x"),
            (15, 14, "python shim", "0::/x"),
        ]);
        let foreign: Vec<u32> = (11..=16).filter(|pid| ours.is_foreign(*pid)).collect();
        assert_eq!(foreign, [13, 14, 15], "16 has ended");
    }
}
