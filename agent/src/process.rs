//! What `/proc` says of processes: who descends from whom, and who carries a mark.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::Read;
use yard_common::id::BootId;

/// The facts of one process that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Its parent.
    pub parent: i32,
    /// Its session.
    pub session: i32,
    /// When it started, in ticks since the boot: tells it from a later one of the same id.
    pub started: u64,
    /// Whether only its wait status is left.
    pub zombie: bool,
}

/// The facts of a process; none if there is no such process.
#[must_use]
pub fn fact(pid: i32) -> Option<Fact> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    Some(Fact {
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// CPU time of a process and of its children that were waited for, in microseconds; 0 if it is
/// gone.
pub(crate) fn cpu_us(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, rest)) = text.rsplit_once(") ") else { return 0 };
    // utime, stime, cutime, cstime, in ticks: a hundred of them are a second on every Linux.
    let ticks = rest.split(' ').skip(11).take(4).filter_map(|ticks| ticks.parse::<u64>().ok());
    ticks.sum::<u64>().saturating_mul(10_000)
}

/// What one process has used, and its children that were waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Its parent.
    pub(crate) parent: i32,
    /// When it started, in ticks since the boot.
    pub(crate) started: u64,
    /// CPU time in microseconds.
    pub(crate) cpu_us: u64,
    /// Bytes that it read and wrote, whatever from and to; 0: the kernel does not tell.
    pub(crate) io_bytes: u64,
    /// Those of them that came from disks.
    pub(crate) read_bytes: u64,
    /// Those that went to disks.
    pub(crate) written_bytes: u64,
}

/// What a process has used; none if it is gone.
pub(crate) fn used(pid: i32) -> Option<Used> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let ticks = (11..15).filter_map(number).fold(0, u64::saturating_add);
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let count = |name: &str| {
        let found = io.lines().find_map(|line| line.strip_prefix(name));
        found.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    Some(Used {
        parent: fields.get(1)?.parse().ok()?,
        started: number(19)?,
        cpu_us: ticks.saturating_mul(10_000),
        io_bytes: count("rchar:").saturating_add(count("wchar:")),
        read_bytes: count("read_bytes:"),
        written_bytes: count("write_bytes:"),
    })
}

/// The value of the first of these variables that a process was started with.
pub(crate) fn variable(pid: i32, names: &[&str]) -> Option<String> {
    let bytes = environment(pid)?;
    let entries = || bytes.split(|byte| *byte == 0).filter_map(|entry| str::from_utf8(entry).ok());
    let value = |name: &&str| {
        entries().find_map(|entry| entry.strip_prefix(*name)?.strip_prefix('=').map(str::to_string))
    };
    names.iter().find_map(value)
}

/// Every process of the machine.
pub(crate) fn all() -> BTreeMap<i32, Fact> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| Some((pid, fact(pid)?))).collect()
}

/// Every living process below this one, itself left out.
pub(crate) fn descendants(of: i32) -> Vec<i32> {
    let all = all();
    let below = |pid: i32| {
        let mut at = pid;
        // A chain of parents is no longer than there are processes.
        for _ in 0..all.len() {
            match all.get(&at) {
                Some(fact) if fact.parent == of => return true,
                Some(fact) => at = fact.parent,
                None => return false,
            }
        }
        false
    };
    all.iter().filter(|(_, fact)| !fact.zombie).map(|(pid, _)| *pid).filter(|p| below(*p)).collect()
}

/// Direct children of a process of one thread, zombies too.
pub(crate) fn children(of: i32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children"));
    match list {
        Ok(list) => list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect(),
        // A kernel without that file.
        Err(_) => all().iter().filter(|(_, fact)| fact.parent == of).map(|(pid, _)| *pid).collect(),
    }
}

/// Sends a signal by its number; a process that is gone already does not matter.
pub(crate) fn send(pid: i32, signal: i32) {
    if let Ok(signal) = Signal::try_from(signal) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Living processes that were started with this variable in their environment. What cleared it is
/// not found.
pub(crate) fn marked(variable: &str) -> Vec<i32> {
    let found =
        all().into_iter().filter(|(pid, fact)| !fact.zombie && has_variable(*pid, variable));
    found.map(|(pid, _)| pid).collect()
}

fn has_variable(pid: i32, variable: &str) -> bool {
    let bytes = environment(pid).unwrap_or_default();
    bytes.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
}

/// What a process was started with; none if that cannot be read.
fn environment(pid: i32) -> Option<Vec<u8>> {
    let mut file = std::fs::File::open(format!("/proc/{pid}/environ")).ok()?;
    let mut bytes = Vec::new();
    // The kernel bounds an environment by a quarter of the stack.
    let _ = file.read_to_end(&mut bytes);
    Some(bytes)
}

/// Kills processes; those that are gone already do not matter.
pub(crate) fn kill_all(pids: &[i32]) {
    for pid in pids {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
}

/// What processes wait for, for people: of a few of them.
pub(crate) fn describe(pids: &[i32]) -> String {
    const SHOWN: usize = 4;
    let mut pids = pids.to_vec();
    pids.sort_unstable();
    pids.dedup();
    let one = |pid: &i32| {
        let read = |file: &str| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let shown = text.trim().chars().filter(|letter| !letter.is_control());
            shown.take(32).collect::<String>()
        };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        let state = state.unwrap_or('?');
        format!("{} ({pid}) in state {state}, {}", read("comm"), read("wchan"))
    };
    let shown: Vec<String> = pids.iter().take(SHOWN).map(one).collect();
    let more = match pids.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!("{}{more}", shown.join("; "))
}

/// This boot of the kernel.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn boot_id() -> std::io::Result<BootId> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let value = u128::from_str_radix(&digits, 16).map_err(std::io::Error::other)?;
    Ok(BootId::from_u128(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_its_facts() {
        let own = std::process::id() as i32;
        let fact = fact(own).unwrap();
        assert_eq!(fact.parent, nix::unistd::getppid().as_raw());
        assert!(!fact.zombie && fact.started > 0);
        assert!(descendants(fact.parent).contains(&own));
    }

    #[test]
    fn what_a_process_waits_for_is_said() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id() as i32;
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !describe(&[pid, pid]).starts_with(&format!("sleep ({pid}) in state S")) {
            assert!(std::time::Instant::now() < end, "{}", describe(&[pid]));
            std::thread::yield_now();
        }
        assert!(describe(&[pid, 1, 2, 3, 4, 5]).ends_with("; and 2 more"));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_boot_has_an_id() {
        assert_ne!(boot_id().unwrap().to_u128(), 0);
    }
}
