//! What there is: a line for each GPU, of words `key=value`.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A GPU of a script. Displays as its line, and is read from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its UUID.
    pub uuid: String,
    /// Its name; no spaces in the file.
    pub name: String,
    /// Memory in bytes.
    pub memory: u64,
    /// Of it in use.
    pub used: u64,
    /// Errors of memory that were not corrected.
    pub uncorrected: u64,
    /// Whether pages of memory wait for a reset to be retired.
    pub pending: bool,
    /// Rows of memory that others are to take the place of: 1 waits for a reset, 2 failed.
    pub remap: u32,
    /// What the driver says that it needs, as NVML numbers it.
    pub recovery: u32,
    /// Bits of what limits its clocks, as NVML has them.
    pub throttle: u64,
    /// Lanes of its PCI link.
    pub width: u32,
    /// Whether every call about it says that it is lost.
    pub lost: bool,
    /// Whether every call about it waits until this ends.
    pub hang: bool,
    /// Profiles of the MIG instances that it is split into; none: it is whole.
    pub mig: Vec<String>,
    /// Processes on it.
    pub pids: Vec<u32>,
    /// Errors that it reports: a number that rises, and the XID.
    pub xids: Vec<(u32, u32)>,
}

impl Gpu {
    /// A GPU of 80 GiB that is well.
    #[must_use]
    pub fn new(number: u32) -> Gpu {
        Gpu {
            uuid: format!("GPU-00000000-0000-0000-0000-{number:012}"),
            name: "NVIDIA H100 80GB HBM3".into(),
            memory: 80 << 30,
            used: 0,
            uncorrected: 0,
            pending: false,
            remap: 0,
            recovery: 0,
            throttle: 0,
            width: 16,
            lost: false,
            hang: false,
            mig: Vec::new(),
            pids: Vec::new(),
            xids: Vec::new(),
        }
    }

    /// Its MIG instances, as GPUs of their own. Nothing runs on them.
    #[must_use]
    pub fn instances(&self) -> Vec<Gpu> {
        let instance = |(at, profile): (usize, &String)| {
            let gib = profile.split(['.', 'g']).nth(2).and_then(|gib| gib.parse::<u64>().ok());
            Gpu {
                uuid: format!("{}-{at}", self.uuid.replacen("GPU", "MIG", 1)),
                name: format!("{} MIG {profile}", self.name),
                memory: gib.unwrap_or(1) << 30,
                used: 0,
                mig: Vec::new(),
                pids: Vec::new(),
                ..self.clone()
            }
        };
        self.mig.iter().enumerate().map(instance).collect()
    }

    fn read(line: &str) -> Gpu {
        let mut gpu = Gpu::new(0);
        for word in line.split_whitespace() {
            let Some((key, value)) = word.split_once('=') else { continue };
            let number = value.parse::<u64>().unwrap_or(0);
            match key {
                "uuid" => gpu.uuid = value.into(),
                "name" => gpu.name = value.replace('_', " "),
                "memory" => gpu.memory = number,
                "used" => gpu.used = number,
                "uncorrected" => gpu.uncorrected = number,
                "pending" => gpu.pending = number > 0,
                "remap" => gpu.remap = u32::try_from(number).unwrap_or(0),
                "recovery" => gpu.recovery = u32::try_from(number).unwrap_or(0),
                "throttle" => gpu.throttle = number,
                "width" => gpu.width = u32::try_from(number).unwrap_or(0),
                "lost" => gpu.lost = number > 0,
                "hang" => gpu.hang = number > 0,
                "mig" => gpu.mig = list(value).map(String::from).collect(),
                "pids" => gpu.pids = list(value).filter_map(|pid| pid.parse().ok()).collect(),
                "xids" => gpu.xids = list(value).filter_map(pair).collect(),
                _ => {}
            }
        }
        gpu
    }

    fn line(&self) -> String {
        let name = self.name.replace(' ', "_");
        let mut line = format!("uuid={} name={name} memory={}", self.uuid, self.memory);
        let numbers = [
            ("used", self.used),
            ("uncorrected", self.uncorrected),
            ("pending", self.pending.into()),
            ("remap", self.remap.into()),
            ("recovery", self.recovery.into()),
            ("throttle", self.throttle),
            ("width", self.width.into()),
            ("lost", self.lost.into()),
            ("hang", self.hang.into()),
        ];
        for (key, value) in numbers {
            // Writing to memory does not fail.
            let _ = write!(line, " {key}={value}");
        }
        let pids: Vec<String> = self.pids.iter().map(u32::to_string).collect();
        let xids: Vec<String> = self.xids.iter().map(|(nth, xid)| format!("{nth}:{xid}")).collect();
        let (pids, xids, mig) = (pids.join(","), xids.join(","), self.mig.join(","));
        let _ = write!(line, " mig={mig} pids={pids} xids={xids}");
        line
    }
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').filter(|one| !one.is_empty())
}

fn pair(text: &str) -> Option<(u32, u32)> {
    let (nth, xid) = text.split_once(':')?;
    Some((nth.parse().ok()?, xid.parse().ok()?))
}

/// A file of GPUs, as a test writes it.
#[derive(Clone, Debug)]
pub struct Script {
    path: PathBuf,
    /// The GPUs.
    pub gpus: Vec<Gpu>,
}

impl Script {
    /// So many GPUs that are well, in a new file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(path: &Path, count: u32) -> io::Result<Script> {
        let script = Script { path: path.into(), gpus: (0..count).map(Gpu::new).collect() };
        script.write()?;
        Ok(script)
    }

    /// Writes the file anew, as one step.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self) -> io::Result<()> {
        let lines: Vec<String> = self.gpus.iter().map(Gpu::line).collect();
        let part = self.path.with_extension("part");
        fs::write(&part, lines.join("\n") + "\n")?;
        fs::rename(part, &self.path)
    }

    /// Changes GPUs and writes the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn change(&mut self, change: impl FnOnce(&mut Vec<Gpu>)) -> io::Result<()> {
        change(&mut self.gpus);
        self.write()
    }

    /// A GPU reports an error.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn raise(&mut self, gpu: usize, xid: u32) -> io::Result<()> {
        let all = self.gpus.iter().flat_map(|gpu| &gpu.xids);
        let nth = all.map(|(nth, _)| nth).max().map_or(1, |last| last + 1);
        self.gpus[gpu].xids.push((nth, xid));
        self.write()
    }

    /// Whether somebody has waited for errors.
    #[must_use]
    pub fn is_listened_to(&self) -> bool {
        listening(&self.path).exists()
    }
}

/// Where it is noted that somebody waits for errors.
fn listening(path: &Path) -> PathBuf {
    path.with_extension("listening")
}

fn path() -> Option<PathBuf> {
    std::env::var_os("YARD_FAKE_NVML").map(PathBuf::from)
}

/// The GPUs that there are now.
pub(crate) fn gpus() -> Vec<Gpu> {
    let text = path().and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.filter(|line| !line.starts_with('#')).map(Gpu::read).collect()
}

/// Notes that somebody waits for errors.
pub(crate) fn note_listener() {
    if let Some(path) = path() {
        let _ = fs::write(listening(&path), "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back() {
        let mut gpu = Gpu::new(3);
        (gpu.used, gpu.hang, gpu.pids) = (7, true, vec![1, 2]);
        gpu.xids = vec![(1, 79)];
        assert_eq!(Gpu::read(&gpu.line()), gpu);
        assert_eq!(Gpu::read("uuid=a what=ever x"), Gpu { uuid: "a".into(), ..Gpu::new(0) });
    }
}
