//! Deliberate bugs, to test the tests: each is one line of the core, or of what drives it here,
//! behind `cfg(mutant = "name")`. The simulator must find every one of them.
//!
//! A mutant is built by this very program, which cargo calls in place of the compiler for the
//! crates of the workspace: it adds the `--cfg`. So the dependencies are built once for all.
//! Building takes most of the time; `scripts/test` runs none of them, `yard-sim mutants` all.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One deliberate bug.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Its name in `cfg(mutant = "..")`.
    pub name: &'static str,
    /// What it breaks.
    pub breaks: &'static str,
    /// The invariant that should notice it first; others may be faster.
    pub caught_by: &'static str,
}

const fn mutant(name: &'static str, breaks: &'static str, caught_by: &'static str) -> Mutant {
    Mutant { name, breaks, caught_by }
}

/// All of them.
pub const MUTANTS: &[Mutant] = &[
    mutant("ack_one_enough", "a holder counts on the answer of one member", "no_overlap_strict"),
    mutant("ack_at_reply", "a lease counts from the answer", "no_overlap_strict"),
    mutant("attempt_reused", "a retry has the number of the attempt before", "attempts_rise"),
    mutant("cancel_lost", "a cancel of what runs is a requeue", "cancel_sticks"),
    mutant("clock_falls", "time is what the last leader says", "time_never_falls"),
    mutant("dedup_forgets", "a request is not remembered", "requests_idempotent"),
    mutant("dependency_any", "a failure satisfies whoever waits for success", "waits_respected"),
    mutant("doubt_forgotten", "a lost node's share is free at once", "reaped_before_granted"),
    mutant("drain_ignored", "nodes that are drained take work", "waits_respected"),
    mutant("fence_by_term", "leaders of one term are the same", "leader_fenced"),
    mutant("fence_ignored", "an agent obeys sets that are older", "fences_rise"),
    mutant("fence_not_persisted", "a restart forgets which set was obeyed", "fences_rise"),
    mutant(
        "freed_before_reaped",
        "a share is free when its ranks have ended",
        "reaped_before_granted",
    ),
    mutant("full_is_never", "what finds no room now never will", "pending_reason_matches"),
    mutant(
        "gang_released_partly",
        "the share of a node that failed is dropped",
        "gang_all_or_nothing",
    ),
    mutant("hash_by_member", "the hash depends on who led", "replicas_agree"),
    mutant("hold_ignored", "held jobs start", "waits_respected"),
    mutant(
        "infra_pays_user",
        "faults of machines spend the user's budget",
        "retries_within_budget",
    ),
    mutant("leader_not_fenced", "commands of deposed leaders count", "leader_fenced"),
    mutant("lost_is_success", "an attempt on a lost node ended well", "exit_status_true"),
    mutant("no_wait_after_restart", "a restarted member promises at once", "no_overlap_strict"),
    mutant(
        "promise_forgotten",
        "a restarted member answers what it promised away",
        "no_overlap_strict",
    ),
    mutant(
        "promise_not_kept",
        "a member answers leases that it promised away",
        "no_overlap_strict",
    ),
    mutant("quota_released_twice", "an ended allocation is taken off twice", "no_panic"),
    mutant("report_twice", "a report counts each time that it comes", "state_check"),
    mutant("start_without_lease", "ranks start after the lease has ended", "no_overlap_strict"),
    mutant("throttle_ignored", "arrays run more tasks than they may", "limits_kept"),
    mutant("unknown_is_success", "what nobody saw ended well", "exit_status_true"),
    mutant("usage_forgotten", "what is lost is not billed", "usage_adds_up"),
];

/// Seeds that each mutant gets at most.
const SEEDS: &str = "400";

/// What came of one mutant.
#[derive(Debug)]
pub enum Verdict {
    /// Noticed, with the last line that tells of it.
    Caught(String),
    /// Not noticed.
    Missed,
    /// Could not be built.
    Unbuilt(String),
}

/// Builds a mutant and runs it until it is caught.
///
/// # Errors
/// If the compiler or the program cannot be started at all.
pub fn try_mutant(name: &str, root: &Path, threads: usize) -> std::io::Result<Verdict> {
    let target = root.join("target/mutants");
    let wrapper = wrapper_for(name, &target)?;
    let build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--profile", "mutant", "-p", "yard-sim"])
        .current_dir(root)
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTC_WORKSPACE_WRAPPER", &wrapper)
        .output()?;
    if !build.status.success() {
        let text = String::from_utf8_lossy(&build.stderr);
        return Ok(Verdict::Unbuilt(text.lines().take(8).collect::<Vec<_>>().join("\n")));
    }
    let threads = threads.to_string();
    let run = Command::new(target.join("mutant/yard-sim"))
        .args(["run", "--seeds", SEEDS, "--threads", &threads])
        .output()?;
    if run.status.success() {
        return Ok(Verdict::Missed);
    }
    let text = String::from_utf8_lossy(&run.stdout);
    let found = text.lines().find(|line| line.starts_with("broken "));
    Ok(match found {
        Some(line) => Verdict::Caught(line.into()),
        None => Verdict::Missed,
    })
}

/// A program of its own name for each mutant, as cargo tells builds apart by it.
fn wrapper_for(name: &str, target: &Path) -> std::io::Result<PathBuf> {
    let folder = target.join("wrappers");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{PREFIX}{name}"));
    if !path.exists() {
        std::fs::copy(std::env::current_exe()?, &path)?;
    }
    Ok(path)
}

const PREFIX: &str = "rustc-with-mutant-";

/// If this program was called by cargo in place of the compiler: compiles, with the mutant in.
#[must_use]
pub fn compile_if_wrapper() -> Option<i32> {
    let mut args = std::env::args_os();
    let own = PathBuf::from(args.next()?);
    let name = own.file_name()?.to_str()?.strip_prefix(PREFIX)?.to_string();
    let status = Command::new(args.next()?)
        .args(args)
        .arg("--cfg")
        .arg(format!("mutant=\"{name}\""))
        .status();
    Some(status.ok().and_then(|status| status.code()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_enough_to_be_read_and_has_no_twins() {
        let mut names: Vec<_> = MUTANTS.iter().map(|mutant| mutant.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), MUTANTS.len());
        assert!(names.len() >= 20);
    }
}
