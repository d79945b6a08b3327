//! What a group may use, in the units of both versions.

use super::{CgroupError, CpuList, Group};
use std::fs;
use std::path::PathBuf;

/// The limits of one group. None: no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLimits {
    /// Bytes of memory. Nothing of it goes to swap.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Thousandths of a CPU, as a weight against other groups.
    pub cpu_milli: Option<u64>,
    /// How the CPUs are bounded.
    pub cpus: CpuBound,
}

/// How the CPUs of a group are bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CpuBound {
    /// By what others use alone.
    #[default]
    Free,
    /// By time on whatever CPU, as much as `cpu_milli` says.
    Time,
    /// To these CPUs.
    Own(CpuList),
}

/// Over how long time on CPUs is counted, in microseconds; the kernel's default.
const PERIOD_US: u64 = 100_000;

impl Group {
    /// The group of a controller of version 1.
    pub(super) fn controller(&self, name: &str) -> Option<&PathBuf> {
        self.v1.iter().find(|(v1, _)| v1 == name).map(|(_, path)| path)
    }

    pub(super) fn limit(&self, limits: &GroupLimits) -> Result<(), CgroupError> {
        if let Some(bytes) = limits.memory_bytes {
            self.limit_memory(bytes)?;
        }
        if let Some(pids) = limits.pids {
            if let Some(path) = self.file("pids.max") {
                set(path, pids)?;
            } else if let Some(at) = self.controller("pids") {
                // The shim is one of them.
                set(at.join("pids.max"), pids.saturating_add(1))?;
            }
        }
        if let Some(milli) = limits.cpu_milli {
            // The scales of both versions have their default at one CPU.
            if let Some(path) = self.file("cpu.weight") {
                set(path, (milli / 10).clamp(1, 10_000))?;
            } else if let Some(at) = self.controller("cpu") {
                let shares = milli.saturating_mul(1_024) / 1_000;
                set(at.join("cpu.shares"), shares.clamp(2, 262_144))?;
            }
        }
        match &limits.cpus {
            CpuBound::Free => Ok(()),
            CpuBound::Time => self.limit_time(limits.cpu_milli.unwrap_or(0)),
            CpuBound::Own(cpus) => self.pin(cpus),
        }
    }

    fn limit_memory(&self, bytes: u64) -> Result<(), CgroupError> {
        if let Some(path) = self.file("memory.max") {
            set(path, bytes)?;
            // What is swapped out is slow rather than ended, and slows the others down.
            self.file("memory.swap.max").map_or(Ok(()), |path| set(path, 0))?;
            // Ranks that lost one of their processes wait for it, or tell of something else.
            return self.file("memory.oom.group").map_or(Ok(()), |path| set(path, 1));
        }
        let Some(at) = self.controller("memory") else { return Ok(()) };
        set(at.join("memory.limit_in_bytes"), bytes)?;
        let both = at.join("memory.memsw.limit_in_bytes");
        if both.exists() {
            // Kernels without swap, or that do not count it, have no such file.
            set(both, bytes)?;
        }
        Ok(())
    }

    fn limit_time(&self, milli: u64) -> Result<(), CgroupError> {
        let quota_us = (milli.saturating_mul(PERIOD_US) / 1_000).max(1_000);
        if let Some(path) = self.file("cpu.max") {
            return set(path, format!("{quota_us} {PERIOD_US}"));
        }
        let path = self.controller("cpu").map(|at| at.join("cpu.cfs_quota_us"));
        match path.filter(|path| path.exists()) {
            Some(path) => set(path, quota_us),
            // A kernel without quotas.
            None => Ok(()),
        }
    }

    fn pin(&self, cpus: &CpuList) -> Result<(), CgroupError> {
        let v1 = self.controller("cpuset").map(|at| at.join("cpuset.cpus"));
        match self.file("cpuset.cpus").or(v1) {
            Some(path) => set(path, cpus),
            None => Ok(()),
        }
    }

    /// A file of version 2, if its controller is there.
    fn file(&self, name: &str) -> Option<PathBuf> {
        self.v2.as_ref().map(|at| at.join(name)).filter(|at| at.exists())
    }
}

fn set(path: PathBuf, value: impl ToString) -> Result<(), CgroupError> {
    match fs::write(&path, value.to_string()) {
        Ok(()) => Ok(()),
        Err(source) => Err(CgroupError { path, what: "set the limit", source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Support;

    fn written(files: &[&str], limits: &GroupLimits) -> impl Fn(&str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("57-0");
        fs::create_dir(&at).unwrap();
        for file in files {
            fs::write(at.join(file), "").unwrap();
        }
        let support = Support { v2: Some(directory.path().into()), ..Support::none() };
        support.group("57-0", limits).unwrap();
        move |file| {
            let _kept = &directory;
            fs::read_to_string(at.join(file)).unwrap()
        }
    }

    #[test]
    fn limits_of_version_2_are_written_in_its_units() {
        let limits = GroupLimits {
            memory_bytes: Some(1 << 30),
            pids: Some(64),
            cpu_milli: Some(2_000),
            cpus: CpuBound::Own("4-5".parse().unwrap()),
        };
        let files = [
            "memory.max",
            "memory.swap.max",
            "memory.oom.group",
            "pids.max",
            "cpu.weight",
            "cpu.max",
            "cpuset.cpus",
        ];
        let read = written(&files, &limits);
        assert_eq!(read("memory.max"), "1073741824");
        assert_eq!((read("memory.swap.max"), read("memory.oom.group")), ("0".into(), "1".into()));
        assert_eq!((read("pids.max"), read("cpu.weight")), ("64".into(), "200".into()));
        assert_eq!((read("cpuset.cpus"), read("cpu.max")), ("4-5".into(), String::new()));
    }

    #[test]
    fn a_fraction_of_a_cpu_is_time() {
        for (milli, expected) in
            [(500, "50000 100000"), (2_500, "250000 100000"), (1, "1000 100000")]
        {
            let cpus = CpuBound::Time;
            let limits = GroupLimits { cpu_milli: Some(milli), cpus, ..GroupLimits::default() };
            assert_eq!(written(&["cpu.max", "cpuset.cpus"], &limits)("cpu.max"), expected);
        }
    }

    #[test]
    fn what_the_machine_does_not_have_is_left_out() {
        let cpus = CpuBound::Own("0".parse().unwrap());
        let limits = GroupLimits { memory_bytes: Some(1), pids: Some(1), cpu_milli: Some(1), cpus };
        let read = written(&["memory.max"], &limits);
        assert_eq!(read("memory.max"), "1");
    }
}
