//! Control groups: what the machine offers, and one group per assignment.
//!
//! Version 2 is used wherever it is mounted, with or without controllers: it can kill a group at
//! once and says when it is empty. Limits come from its controllers, or from those of version 1.
//! Without either, ranks are found as descendants of their shim, which is their subreaper.

mod cpus;
mod devices;
mod limits;

pub(crate) use cpus::Topology;
pub use cpus::{CpuList, CpuListError};
pub use devices::GpuNodes;
pub use limits::{CpuBound, GroupLimits};

use crate::sys;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Controllers that are used, of whichever version has them.
const CONTROLLERS: [&str; 4] = ["memory", "pids", "cpu", "cpuset"];
/// What keeps GPUs apart where version 2 cannot.
const DEVICES: &str = "devices";
/// What gives CPUs to a job for itself.
const CPUSET: &str = "cpuset";

/// What went wrong with a group.
#[derive(Debug, Error)]
#[error("cgroup {path}: {what}")]
pub struct CgroupError {
    /// Which file or directory.
    pub path: PathBuf,
    /// What was tried.
    pub what: &'static str,
    /// The system's answer.
    #[source]
    pub source: io::Error,
}

/// What the machine offers to this agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Support {
    /// Where groups of version 2 are made.
    pub v2: Option<PathBuf>,
    /// Controllers of version 2 that the groups get.
    pub controllers: Vec<String>,
    /// Controllers of version 1, and where their groups are made.
    pub v1: Vec<(String, PathBuf)>,
    /// Whether groups of version 2 may have programs that keep GPUs apart.
    pub programs: bool,
    /// Whether jobs are kept from the addresses that they shall not reach.
    pub refuses: bool,
}

/// The group of one assignment's ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    v2: Option<PathBuf>,
    v1: Vec<(String, PathBuf)>,
}

/// What the processes of a group use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in microseconds.
    pub cpu_us: u64,
    /// Memory now, with the page cache that counts for it; none: nobody counts it.
    pub memory_bytes: Option<u64>,
    /// The most that it ever was.
    pub memory_peak_bytes: Option<u64>,
    /// Read from disks.
    pub read_bytes: Option<u64>,
    /// Written to disks.
    pub written_bytes: Option<u64>,
    /// How many they are.
    pub processes: u32,
}

/// The way into a group of version 2.
#[derive(Debug)]
pub struct Entrance {
    /// Its directory, for kernels that start a process in it; none: they must not.
    pub(crate) directory: Option<OwnedFd>,
    /// Where a process writes `0` to enter it, for others.
    pub(crate) procs: OwnedFd,
}

impl Support {
    /// Nothing is used: processes are found through `/proc`.
    #[must_use]
    pub fn none() -> Support {
        Support::default()
    }

    /// Looks at what is mounted and may be written. `name` tells the groups of this agent from
    /// those of others on the machine.
    #[must_use]
    pub fn detect(name: &str) -> Support {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Support::from_mounts(&mounts, name)
    }

    fn from_mounts(mounts: &str, name: &str) -> Support {
        let mut support = Support::default();
        for line in mounts.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let (mut left, mut right) = (left.split(' '), right.split(' '));
            let (Some(at), Some(kind)) = (left.nth(4), right.next()) else { continue };
            let group = Path::new(at).join(name);
            if kind == "cgroup2" && support.v2.is_none() && usable(&group) {
                support.controllers = enable_controllers(Path::new(at), &group);
                support.v2 = Some(group);
            } else if kind == "cgroup" {
                let options: Vec<&str> = right.nth(1).unwrap_or_default().split(',').collect();
                let mut wanted = CONTROLLERS.iter().chain([&DEVICES]);
                let wanted = wanted.find(|controller| options.contains(*controller));
                if let Some(controller) = wanted.filter(|_| usable(&group))
                    && (*controller != CPUSET || open_cpuset(Path::new(at), &group).is_ok())
                {
                    support.v1.push(((*controller).to_string(), group));
                }
            }
        }
        support.programs = support.v2.is_some() && sys::can_filter_devices();
        if support.programs {
            support.forget(DEVICES);
        }
        support
    }

    /// CPUs are a weight here, and no bound.
    pub fn forget_cpus(&mut self) {
        self.controllers.retain(|name| name != CPUSET);
        self.forget(CPUSET);
    }

    fn forget(&mut self, controller: &str) {
        let gone = self.v1.extract_if(.., |(name, _)| name == controller);
        // If it is in use, it is another agent's too.
        gone.for_each(|(_, group)| drop(fs::remove_dir(group)));
    }

    /// Keeps all groups of this agent from these addresses, and from no others.
    pub fn refuse(&mut self, addresses: &[IpAddr]) {
        let refused = match &self.v2 {
            Some(at) => fs::File::open(at).and_then(|group| {
                // Those of version 1 have nothing of the kind.
                sys::refuse_addresses(group.as_fd(), addresses)
            }),
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        if let Err(error) = &refused
            && !addresses.is_empty()
        {
            tracing::warn!(%error, ?addresses, "jobs are not kept from these addresses");
        }
        self.refuses = refused.is_ok() || addresses.is_empty();
    }

    /// Whether a job can have CPUs for itself.
    pub(crate) fn has_cpusets(&self) -> bool {
        let v2 = self.controllers.iter().any(|name| name == CPUSET);
        v2 || self.v1.iter().any(|(name, _)| name == CPUSET)
    }

    /// Whether a job can be kept from the GPUs of others.
    fn keeps_gpus_apart(&self) -> bool {
        self.programs || self.v1.iter().any(|(name, _)| name == DEVICES)
    }

    /// What is used, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let gpus = if self.keeps_gpus_apart() { "" } else { "; GPUs not kept apart" };
        let addresses = if self.refuses { "" } else { "; no address refused" };
        format!("{}{gpus}{addresses}", self.describe_limits())
    }

    fn describe_limits(&self) -> String {
        let v1: Vec<&str> = self.v1.iter().map(|(name, _)| name.as_str()).collect();
        match (&self.v2, v1.is_empty()) {
            (Some(_), _) if !self.controllers.is_empty() => {
                format!("v2 ({})", self.controllers.join(", "))
            }
            (Some(_), true) => "v2 without controllers: no limits".to_string(),
            (Some(_), false) => format!("v1 ({}), v2 for kill and emptiness", v1.join(", ")),
            (None, false) => format!("v1 ({})", v1.join(", ")),
            (None, true) => "none: process groups and /proc".to_string(),
        }
    }

    /// Removes all groups of this agent, which are empty: the machine leaves its cluster.
    pub fn remove(&self) {
        self.remove_empty(|_| true);
        for root in self.roots() {
            let _ = fs::remove_dir(root);
        }
    }

    fn roots(&self) -> impl Iterator<Item = &PathBuf> {
        self.v2.iter().chain(self.v1.iter().map(|(_, path)| path))
    }

    /// Makes the group of an assignment, or finds it.
    ///
    /// # Errors
    /// If a directory cannot be made or a limit not be set.
    pub fn group(&self, tag: &str, limits: &GroupLimits) -> Result<Group, CgroupError> {
        let group = self.find(tag);
        for path in group.v2.iter().chain(group.v1.iter().map(|(_, path)| path)) {
            make(path)?;
        }
        group.limit(limits)?;
        Ok(group)
    }

    /// Makes groups of version 1 alone, without limits.
    ///
    /// # Errors
    /// If a directory cannot be made.
    pub(crate) fn group_v1(&self, tag: &str) -> Result<Group, CgroupError> {
        let group = self.find(tag);
        group.v1().try_for_each(|path| make(path))?;
        Ok(group)
    }

    /// Removes the groups that are called so and are empty.
    pub(crate) fn remove_empty(&self, is_called: impl Fn(&str) -> bool) {
        for root in self.roots() {
            let inner = fs::read_dir(root).into_iter().flatten().filter_map(Result::ok);
            let called = inner.filter(|entry| is_called(&entry.file_name().to_string_lossy()));
            // What is no group cannot be removed.
            called.for_each(|entry| drop(fs::remove_dir(entry.path())));
        }
    }

    /// The group of an assignment, whether or not it exists.
    #[must_use]
    pub fn find(&self, tag: &str) -> Group {
        Group {
            v2: self.v2.as_ref().map(|path| path.join(tag)),
            v1: self.v1.iter().map(|(name, path)| (name.clone(), path.join(tag))).collect(),
        }
    }
}

/// Makes a directory and says whether processes could be put into it.
fn usable(group: &Path) -> bool {
    let there = fs::create_dir_all(group).is_ok();
    there && fs::OpenOptions::new().write(true).open(group.join("cgroup.procs")).is_ok()
}

/// Hands controllers down to the groups of assignments, as far as the system lets us.
fn enable_controllers(root: &Path, group: &Path) -> Vec<String> {
    let enable = |at: &Path| {
        for controller in CONTROLLERS {
            let _ = fs::write(at.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    };
    enable(root);
    enable(group);
    let there = fs::read_to_string(group.join("cgroup.subtree_control")).unwrap_or_default();
    let there: Vec<&str> = there.split_whitespace().collect();
    let there = CONTROLLERS.iter().filter(|name| there.contains(*name));
    there.map(|name| (*name).to_string()).collect()
}

/// Gives the group of a cpuset of version 1 what its parent has, and has those in it do the same:
/// no process may enter one without CPUs.
fn open_cpuset(root: &Path, group: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        fs::write(group.join(file), fs::read_to_string(root.join(file))?)?;
    }
    fs::write(group.join("cgroup.clone_children"), "1")
}

/// A number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

/// The sum of the numbers behind a name, wherever it stands.
fn sum_of(text: &str, name: &str) -> u64 {
    let words = text.split_whitespace().filter_map(|word| word.strip_prefix(name));
    words.filter_map(|number| number.parse::<u64>().ok()).sum()
}

/// Moves this process into a group.
pub(crate) fn enter(at: &Path) -> Result<(), CgroupError> {
    let path = at.join("cgroup.procs");
    fs::write(&path, "0").map_err(|source| CgroupError { path, what: "enter", source })
}

fn make(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(CgroupError { path: path.into(), what: "make", source })
        }
        _ => Ok(()),
    }
}

impl Group {
    /// The groups of version 1, which a shim enters for all that it will start: they inherit them
    /// for nothing, while each move costs milliseconds.
    pub(crate) fn v1(&self) -> impl Iterator<Item = &PathBuf> {
        self.v1.iter().map(|(_, at)| at)
    }

    /// The group of version 2.
    pub(crate) fn v2(&self) -> Option<&PathBuf> {
        self.v2.as_ref()
    }

    /// Gives the groups of version 1 the name of another assignment. Those of version 2 keep theirs
    /// for life.
    ///
    /// # Errors
    /// If one cannot be renamed; those before it have the new name.
    pub(crate) fn rename_v1(&self, to: &Group) -> Result<(), CgroupError> {
        self.v1.iter().zip(&to.v1).try_for_each(|((_, from), (_, to))| {
            let failed = |source| CgroupError { path: from.clone(), what: "rename", source };
            fs::rename(from, to).map_err(failed)
        })
    }

    /// Moves this process into the group of version 2, unless that is one that it has entered.
    ///
    /// # Errors
    /// If it cannot be entered.
    pub(crate) fn enter_v2(&self, entered: &[PathBuf]) -> Result<(), CgroupError> {
        self.v2.iter().filter(|at| !entered.contains(at)).try_for_each(|at| enter(at))
    }

    /// The group of version 2, in which processes are started.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open_v2(&self) -> Result<Option<Entrance>, CgroupError> {
        let Some(at) = &self.v2 else { return Ok(None) };
        let failed = |path: PathBuf| move |source| CgroupError { path, what: "open", source };
        let procs = at.join("cgroup.procs");
        let directory = Some(fs::File::open(at).map_err(failed(at.clone()))?.into());
        let opened = fs::OpenOptions::new().write(true).open(&procs);
        Ok(Some(Entrance { directory, procs: opened.map_err(failed(procs))?.into() }))
    }

    fn directories(&self) -> impl Iterator<Item = &PathBuf> {
        self.v2.iter().chain(self.v1.iter().map(|(_, path)| path))
    }

    /// Processes in the group; zombies left out where the kernel does so.
    #[must_use]
    pub fn members(&self) -> Vec<i32> {
        let Some(at) = self.directories().next() else { return Vec::new() };
        let text = fs::read_to_string(at.join("cgroup.procs")).unwrap_or_default();
        // A shim is in the groups of version 1 itself.
        let own = std::process::id() as i32;
        text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != own).collect()
    }

    /// Kills every process of the group, once. Those that fork meanwhile need another call.
    pub fn kill(&self) {
        let at_once = self.v2.as_ref().map(|at| fs::write(at.join("cgroup.kill"), "1"));
        if !matches!(at_once, Some(Ok(()))) {
            crate::process::kill_all(&self.members());
        }
    }

    /// Whether it is a group at all: without any, its processes are found in another way.
    pub(crate) fn is_there(&self) -> bool {
        self.directories().next().is_some()
    }

    /// What these processes of it use, as far as the kernel counts it. CPU time of processes that
    /// are gone counts where there are groups of version 2.
    #[must_use]
    pub fn usage(&self, members: &[i32]) -> Usage {
        let v1 = |name: &str| self.v1.iter().find(|(v1, _)| v1 == name).map(|(_, path)| path);
        let read = |at: Option<&PathBuf>, file: &str| fs::read_to_string(at?.join(file)).ok();
        let number = |at: Option<&PathBuf>, file: &str| read(at, file)?.trim().parse::<u64>().ok();
        let (v2, memory) = (self.v2.as_ref(), v1("memory"));
        let counted = read(v2, "cpu.stat").and_then(|text| field(&text, "usage_usec "));
        let disks = read(v2, "io.stat");
        let disk = |name: &str| disks.as_deref().map(|text| sum_of(text, name));
        Usage {
            cpu_us: counted
                .unwrap_or_else(|| members.iter().map(|p| crate::process::cpu_us(*p)).sum()),
            memory_bytes: number(v2, "memory.current")
                .or_else(|| number(memory, "memory.usage_in_bytes")),
            memory_peak_bytes: number(v2, "memory.peak")
                .or_else(|| number(memory, "memory.max_usage_in_bytes")),
            read_bytes: disk("rbytes="),
            written_bytes: disk("wbytes="),
            processes: u32::try_from(members.len()).unwrap_or(u32::MAX),
        }
    }

    /// How many processes of the group the kernel has killed for lack of memory.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let v2 = self.v2.as_ref().map(|at| at.join("memory.events"));
        let v1 = self.v1.iter().find(|(name, _)| name == "memory");
        let v1 = v1.map(|(_, at)| at.join("memory.oom_control"));
        let count = |path: PathBuf| {
            let text = fs::read_to_string(path).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
            line.trim().parse::<u64>().ok()
        };
        v2.and_then(count).or_else(|| v1.and_then(count)).unwrap_or(0)
    }

    /// Removes the group. Whether nothing of it is left: what holds a process stays.
    pub fn remove(&self) -> bool {
        let gone = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
        // Each is tried, whatever became of those before.
        let left = self.directories().filter(|at| !fs::remove_dir(at).map_or_else(gone, |()| true));
        left.count() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_said() {
        let v1 = vec![("memory".to_string(), PathBuf::from("/m")), ("pids".into(), "/p".into())];
        let cases = [
            (
                Support::none(),
                "none: process groups and /proc; GPUs not kept apart; no address refused",
            ),
            (
                Support { v1: v1.clone(), refuses: true, ..Support::none() },
                "v1 (memory, pids); GPUs not kept apart",
            ),
            (
                Support { v1, v2: Some("/c".into()), programs: true, ..Support::none() },
                "v1 (memory, pids), v2 for kill and emptiness; no address refused",
            ),
            (
                Support {
                    v2: Some("/c".into()),
                    controllers: vec!["memory".into()],
                    programs: true,
                    refuses: true,
                    ..Support::none()
                },
                "v2 (memory)",
            ),
        ];
        for (support, text) in cases {
            assert_eq!(support.describe(), text);
        }
    }

    #[test]
    fn mounts_that_cannot_be_written_are_not_used() {
        let line = "30 24 0:26 / /nowhere/at/all rw shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(Support::from_mounts(line, "yard"), Support::none());
    }

    #[test]
    fn what_the_kernel_killed_for_memory_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let support = Support { v2: Some(directory.path().into()), ..Support::none() };
        let at = directory.path().join("57-0");
        fs::create_dir(&at).unwrap();
        fs::write(at.join("memory.events"), "low 0\noom 3\noom_kill 2\n").unwrap();
        assert_eq!(support.find("57-0").oom_kills(), 2);
        let io = "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=5 wbytes=0 rios=1\n";
        let files = [
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
            ("memory.current", "4096\n"),
            ("memory.peak", "8192\n"),
            ("io.stat", io),
            ("cgroup.procs", "1\n2\n"),
        ];
        for (file, text) in files {
            fs::write(at.join(file), text).unwrap();
        }
        let used = Usage {
            cpu_us: 1_500,
            memory_bytes: Some(4_096),
            memory_peak_bytes: Some(8_192),
            read_bytes: Some(15),
            written_bytes: Some(20),
            processes: 2,
        };
        let group = support.find("57-0");
        assert_eq!(group.usage(&group.members()), used);
        assert_eq!(Support::none().find("57-0").usage(&[]), Usage::default());
    }
}
