//! Deliberate bugs, to test the tests: each is one line of the core, or of what drives it here,
//! behind `mutant!("name")`. The simulator must find every one of them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One deliberate bug.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Its name in `mutant!("..")`.
    pub name: &'static str,
    /// What it breaks.
    pub breaks: &'static str,
    /// The invariant that should notice it first; others may be faster.
    pub caught_by: &'static str,
}

const fn mutant(name: &'static str, breaks: &'static str, caught_by: &'static str) -> Mutant {
    Mutant { name, breaks, caught_by }
}

/// All of them. The weaker rules for leases are rejected by the exhaustive check of the core
/// (`core/tests/lease_model`), which reaches what takes thousands of seeds here.
pub const MUTANTS: &[Mutant] = &[
    mutant("ack_one_enough", "a holder counts on the answer of one member", "no_overlap_strict"),
    mutant("attempt_reused", "a retry has the number of the attempt before", "attempts_rise"),
    mutant("cancel_lost", "a cancel of what runs is a requeue", "cancel_sticks"),
    mutant("clock_falls", "time is what the last leader says", "time_never_falls"),
    mutant("dedup_forgets", "a request is not remembered", "requests_idempotent"),
    mutant("dependency_any", "a failure satisfies whoever waits for success", "waits_respected"),
    mutant("doubt_forgotten", "a lost node's share is free at once", "reaped_before_granted"),
    mutant("drain_ignored", "nodes that are drained take work", "waits_respected"),
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
    mutant("quota_released_twice", "an ended allocation is taken off twice", "no_panic"),
    mutant("throttle_ignored", "arrays run more tasks than they may", "limits_kept"),
    mutant("unknown_is_success", "what nobody saw ended well", "exit_status_true"),
    mutant("usage_forgotten", "what is lost is not billed", "usage_adds_up"),
];

/// Seeds that each mutant gets at most.
const SEEDS: &str = "1000";

/// What came of one mutant.
#[derive(Debug)]
pub enum Verdict {
    /// Noticed, with the line that tells of it.
    Caught(String),
    /// Not noticed.
    Missed,
}

/// Builds the simulator with all deliberate bugs in it, each asleep.
///
/// # Errors
/// If cargo cannot be started, or its build fails, with what it said.
pub fn build(root: &Path) -> std::io::Result<PathBuf> {
    let build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--profile", "mutant", "-p", "yard-sim"])
        .args(["--features", "mutants", "--target-dir", "target"])
        .current_dir(root)
        .output()?;
    if !build.status.success() {
        let text = String::from_utf8_lossy(&build.stderr).into_owned();
        return Err(std::io::Error::other(text));
    }
    Ok(root.join("target/mutant/yard-sim"))
}

/// Wakes one bug and runs seeds until it is caught.
///
/// # Errors
/// If the program cannot be started.
pub fn try_mutant(program: &Path, name: &str, threads: usize) -> std::io::Result<Verdict> {
    let run = Command::new(program)
        .args(["run", "--mutant", name, "--seeds", SEEDS, "--threads", &threads.to_string()])
        .output()?;
    let text = String::from_utf8_lossy(&run.stdout);
    let found = text.lines().find(|line| line.starts_with("broken "));
    Ok(found.map_or(Verdict::Missed, |line| Verdict::Caught(line.into())))
}

/// Wakes a bug in this process.
///
/// # Errors
/// If this build has none of that name.
pub fn wake(name: &str) -> Result<(), String> {
    if !MUTANTS.iter().any(|mutant| mutant.name == name) {
        return Err(format!("--mutant: there is no '{name}'; sim/src/mutants.rs lists them"));
    }
    #[cfg(feature = "mutants")]
    yard_core::mutant::choose(name);
    let awake = cfg!(feature = "mutants");
    awake.then_some(()).ok_or_else(|| "--mutant: build with --features mutants".into())
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
