//! Processes that stand by to be shims: they serve the next jobs, and stay with nobody.

use crate::world::{
    Agent, Heard, LONG_MS, Root, assignment, cgroups, eventually, id, lives, one, set,
    shim_directory, wanted,
};
use std::path::{Path, PathBuf};
use yard_agent::cgroup::GroupLimits;
use yard_common::ExitCause;
use yard_common::limits::SHIMS_READY;
use yard_core::agent::DesiredPhase;

/// What a process has started.
fn children(pid: u32) -> Vec<i32> {
    let mut all = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(text.split_whitespace().map(|child| child.parse::<i32>().unwrap()));
    }
    all
}

/// Waits until all stand by, and gives them.
fn standing_by(agent: &Agent) -> Vec<i32> {
    let mut found = Vec::new();
    eventually("all stand by", || {
        found = children(agent.pid());
        found.retain(|pid| lives(*pid));
        found.len() == SHIMS_READY
    });
    found
}

/// Groups of those that stand by.
fn groups(root: &Path) -> usize {
    let roots = cgroups(root).v1;
    let names = roots.iter().flat_map(|(_, at)| std::fs::read_dir(at).unwrap().flatten());
    names.filter(|entry| entry.file_name().to_string_lossy().starts_with("ready-")).count()
}

/// Runs one job to its end. Returns its shim.
fn run(agent: &mut Agent, heard: &mut Heard, root: &Path, allocation: u64) -> i32 {
    let gate = root.join(format!("gate-{allocation}"));
    let yaml = format!("command: 'while [ ! -e {} ]; do sleep 0.01; done'", gate.display());
    let wanted = wanted(allocation, one(), DesiredPhase::Run);
    agent.desire(&set(allocation, vec![wanted]), &[(id(allocation), assignment(&yaml))]);
    agent.until(heard, |heard| heard.started(id(allocation)) == 1);
    let directory = shim_directory(root, allocation);
    let at = |pid: i32| std::fs::read_link(format!("/proc/{pid}/cwd"));
    let shim =
        children(agent.pid()).into_iter().find(|pid| at(*pid).is_ok_and(|at| at == directory));
    std::fs::write(gate, "").unwrap();
    agent.until(heard, |heard| heard.is_reaped(id(allocation)));
    assert_eq!(heard.causes(id(allocation)), [ExitCause::Exited(0)]);
    shim.expect("the shim is a child of the agent")
}

#[test]
fn a_job_gets_one_that_stood_by() {
    let root = Root::new();
    let mut agent = Agent::start(root.path());
    agent.lease(LONG_MS);
    let mut heard = Heard::default();
    let mut allocation = 0;
    // One that is still about to stand by is not waited for.
    eventually("a job gets one", || {
        allocation += 1;
        let before = standing_by(&agent);
        before.contains(&run(&mut agent, &mut heard, root.path(), allocation))
    });
    agent.kill();
}

#[test]
fn jobs_run_without_them() {
    let root = Root::new();
    let mut agent = Agent::start(root.path());
    agent.lease(LONG_MS);
    let mut heard = Heard::default();
    for allocation in 1..=3 {
        for pid in standing_by(&agent) {
            let dead = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(dead, nix::sys::signal::Signal::SIGKILL).unwrap();
            eventually("it is gone", || !lives(pid));
        }
        run(&mut agent, &mut heard, root.path(), allocation);
    }
    standing_by(&agent);
    agent.kill();
}

#[test]
fn they_end_with_their_agent() {
    let root = Root::new();
    let agent = Agent::start(root.path());
    let pids = standing_by(&agent);
    agent.kill();
    eventually("they are gone", || !pids.iter().any(|pid| lives(*pid)));
    let agent = Agent::start(root.path());
    standing_by(&agent);
    let each = cgroups(root.path()).v1.len();
    assert_eq!(groups(root.path()), SHIMS_READY * each, "those of the first agent are removed");
    agent.leave();
    assert_eq!(groups(root.path()), 0);
}

/// Groups of assignments: those whose names begin with a digit.
fn groups_of_jobs(root: &Path) -> Vec<PathBuf> {
    let support = cgroups(root);
    let roots = support.v2.iter().chain(support.v1.iter().map(|(_, at)| at));
    let all = roots.flat_map(|at| std::fs::read_dir(at).unwrap().flatten().map(|one| one.path()));
    let is_tag =
        |at: &PathBuf| at.file_name().unwrap().to_string_lossy().starts_with(char::is_numeric);
    all.filter(is_tag).collect()
}

#[test]
fn the_groups_of_a_job_go_when_its_shim_is_gone() {
    let root = Root::new();
    let mut agent = Agent::start(root.path());
    agent.lease(LONG_MS);
    let mut heard = Heard::default();
    let support = cgroups(root.path());
    run(&mut agent, &mut heard, root.path(), 1);
    agent.desire(&set(2, Vec::new()), &[]);
    eventually("they are gone", || groups_of_jobs(root.path()).is_empty());
    // One that another agent started.
    let gate = root.path().join("gate");
    let yaml = format!("command: 'while [ ! -e {} ]; do sleep 0.01; done'", gate.display());
    let wanted = wanted(3, one(), DesiredPhase::Run);
    agent.desire(&set(3, vec![wanted]), &[(id(3), assignment(&yaml))]);
    agent.until(&mut heard, |heard| heard.started(id(3)) == 1);
    let each = usize::from(support.v2.is_some()) + support.v1.len();
    assert_eq!(groups_of_jobs(root.path()).len(), each);
    agent.kill();
    let mut agent = Agent::start(root.path());
    std::fs::write(gate, "").unwrap();
    agent.until(&mut heard, |heard| heard.is_reaped(id(3)));
    agent.desire(&set(4, Vec::new()), &[]);
    eventually("they are gone", || groups_of_jobs(root.path()).is_empty());
    agent.leave();
    // What an agent left that died before it removed them.
    let left = support.group("9-0", &GroupLimits::default()).unwrap();
    assert_eq!(groups_of_jobs(root.path()).len(), each);
    let agent = Agent::start(root.path());
    eventually("they are gone", || groups_of_jobs(root.path()).is_empty());
    assert!(left.remove(), "nothing of it is there");
    agent.leave();
}
