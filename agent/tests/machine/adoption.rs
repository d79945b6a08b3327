//! Agents and shims that are killed: ranks go on, statuses are exact, and what cannot be known is
//! lost.

use crate::world::{
    Agent, HOST, Heard, LONG_MS, Node, Root, assignment, eventually, id, lives, one, output, set,
    shim_directory, wanted,
};
use std::path::Path;
use yard_agent::logs::{Kind, Writer};
use yard_agent::shim::record::History;
use yard_common::ExitCause;
use yard_common::cause::LostReason;
use yard_common::id::{AttemptNumber, TaskRange};
use yard_core::agent::{Chain, ChainLink, DesiredPhase};

fn chain(len: u32) -> Chain {
    Chain(vec![ChainLink { tasks: TaskRange { first: 0, len }, attempt: AttemptNumber(1) }])
}

/// The process of a shim: it holds its directory as its working directory.
fn shim_of(root: &Path, allocation: u64) -> i32 {
    let directory = shim_directory(root, allocation);
    let mut found = None;
    eventually("the shim runs", || {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        found = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok()).find(|pid| {
            let at = std::fs::read_link(format!("/proc/{pid}/cwd"));
            let runs = std::fs::read_link(format!("/proc/{pid}/exe"));
            at.is_ok_and(|at| at == directory) && runs.is_ok_and(|exe| exe == Path::new(HOST))
        });
        found.is_some()
    });
    found.unwrap()
}

/// An agent is killed after each number of reports that it makes, the next one goes on.
#[test]
fn agents_may_die_after_any_report() {
    let root = Root::new();
    let gate = root.path().join("gate");
    let yaml = format!(
        "command: 'echo $$; while [ ! -e {}.$YARD_TASK_INDEX ]; do sleep 0.01; done; \
         exit $((YARD_TASK_INDEX * 50))'\narray: 0-5",
        gate.display()
    );
    let desired = set(1, vec![wanted(1, chain(6), DesiredPhase::Run)]);
    let details = [(id(1), assignment(&yaml))];
    let mut heard = Heard::default();
    let mut agent = Agent::start(root.path());
    agent.lease(LONG_MS);
    agent.desire(&desired, &details);
    for task in 0..6u32 {
        agent.until(&mut heard, |heard| heard.started(id(1)) == task + 1);
        agent.kill();
        // What the rank does meanwhile, nobody hears of but the shim.
        let out = || output(root.path(), task, Writer::Rank(0), Kind::Out);
        eventually("the rank runs", || out().ends_with('\n'));
        let pid: i32 = out().trim().parse().unwrap();
        assert!(lives(pid), "the rank did not outlive its agent");
        let gone_before = task % 2 == 0;
        if gone_before {
            std::fs::write(format!("{}.{task}", gate.display()), "").unwrap();
            eventually("the rank is gone", || !lives(pid));
        }
        agent = Agent::start(root.path());
        // It says the same again, as a coordinator does after a reconnect.
        agent.lease(LONG_MS);
        agent.desire(&desired, &details);
        if !gone_before {
            assert!(lives(pid), "the rank did not outlive the adoption");
            std::fs::write(format!("{}.{task}", gate.display()), "").unwrap();
        }
        agent.until(&mut heard, |heard| heard.causes(id(1)).len() as u32 > task);
    }
    agent.until(&mut heard, |heard| heard.is_reaped(id(1)));
    let codes = [0, 50, 100, 150, 200, 250];
    assert_eq!(heard.causes(id(1)), codes.map(ExitCause::Exited));
    assert_eq!(heard.started(id(1)), 6);
    for task in 0..6 {
        let out = output(root.path(), task, Writer::Rank(0), Kind::Out);
        assert_eq!(out.lines().count(), 1, "task {task} ran more than once");
    }
}

/// An agent is killed at once after it was told what to do, whatever it has done by then.
#[test]
fn agents_may_die_in_the_middle_of_a_start() {
    let root = Root::new();
    let mut heard = Heard::default();
    for round in 1..=20u64 {
        let log = root.path().join(format!("ran.{round}"));
        let yaml = format!("command: 'echo x >>{}; exit 3'", log.display());
        let desired = set(round, vec![wanted(round, one(), DesiredPhase::Run)]);
        let details = [(id(round), assignment(&yaml))];
        let mut agent = Agent::start(root.path());
        agent.lease(LONG_MS);
        agent.desire(&desired, &details);
        for _ in 0..round * 2_000 {
            std::hint::spin_loop();
        }
        // Rounds of various length, so that the end comes at various points.
        let directory = shim_directory(root.path(), round);
        match round % 4 {
            0 => {}
            // It may have run and be gone before we look.
            1 => eventually("the directory is there", || directory.exists() || log.exists()),
            2 => {
                let record = directory.join("record");
                eventually("the record is there", || record.exists() || log.exists());
            }
            _ => eventually("it ran", || log.exists()),
        }
        agent.kill();
        let mut agent = Agent::start(root.path());
        agent.lease(LONG_MS);
        agent.desire(&desired, &details);
        agent.until(&mut heard, |heard| heard.is_reaped(id(round)));
        assert_eq!(heard.causes(id(round)), [ExitCause::Exited(3)], "round {round}");
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "x\n", "round {round}");
        agent.kill();
    }
}

#[tokio::test]
async fn a_planned_stop_touches_no_rank() {
    let mut node = Node::start().await;
    node.run(1, "command: echo $$; exec sleep 1000").await;
    node.until(|heard| heard.started(id(1)) == 1).await;
    eventually("the rank runs", || node.output(0, Writer::Rank(0), Kind::Out).ends_with('\n'));
    let pid: i32 = node.output(0, Writer::Rank(0), Kind::Out).trim().parse().unwrap();
    let Node { root, handle, .. } = node;
    handle.shutdown().await.unwrap();
    assert!(lives(pid));
    let mut agent = Agent::start(root.path());
    agent.desire(&set(2, Vec::new()), &[]);
    let mut heard = Heard::default();
    agent.until(&mut heard, |heard| heard.is_reaped(id(1)));
    assert!(!lives(pid));
}

/// With control groups, and without any.
#[test]
fn a_shim_that_dies_leaves_nothing_behind() {
    for cgroup in [None, Some("none")] {
        let root = Root::new();
        let name = crate::world::group_name(root.path());
        let mut agent = Agent::with_cgroup(root.path(), cgroup.unwrap_or(&name));
        let yaml = "command: 'setsid sleep 1000 & echo $!; sleep 1000'\narray: 0-2";
        let desired = set(1, vec![wanted(1, chain(3), DesiredPhase::Run)]);
        agent.lease(LONG_MS);
        agent.desire(&desired, &[(id(1), assignment(yaml))]);
        let mut heard = Heard::default();
        agent.until(&mut heard, |heard| heard.started(id(1)) == 1);
        let out = || output(root.path(), 0, Writer::Rank(0), Kind::Out);
        eventually("the daemon runs", || out().ends_with('\n'));
        let daemon = out().trim().parse().unwrap();
        let shim = nix::unistd::Pid::from_raw(shim_of(root.path(), 1));
        nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
        agent.until(&mut heard, |heard| heard.is_reaped(id(1)));
        assert!(!lives(daemon), "the daemon outlived the shim and the report");
        assert_eq!(heard.causes(id(1)), [ExitCause::Lost(LostReason::Shim)]);
        agent.kill();
    }
}

/// Agent and shim die together: the next agent finds what they left.
#[test]
fn a_shim_that_died_while_no_agent_ran_is_found() {
    let root = Root::new();
    let mut agent = Agent::start(root.path());
    let desired = set(1, vec![wanted(1, one(), DesiredPhase::Run)]);
    agent.lease(LONG_MS);
    agent.desire(&desired, &[(id(1), assignment("command: setsid sleep 1000 & echo $!; sleep 9"))]);
    let mut heard = Heard::default();
    agent.until(&mut heard, |heard| heard.started(id(1)) == 1);
    let out = || output(root.path(), 0, Writer::Rank(0), Kind::Out);
    eventually("the daemon runs", || out().ends_with('\n'));
    let daemon = out().trim().parse().unwrap();
    let shim = nix::unistd::Pid::from_raw(shim_of(root.path(), 1));
    agent.kill();
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
    let mut agent = Agent::start(root.path());
    agent.until(&mut heard, |heard| heard.is_reaped(id(1)));
    assert_eq!(heard.causes(id(1)), [ExitCause::Lost(LostReason::Shim)]);
    assert!(!lives(daemon));
    agent.kill();
}

#[test]
fn the_record_says_what_ran() {
    let root = Root::new();
    let mut agent = Agent::start(root.path());
    let desired = set(1, vec![wanted(1, one(), DesiredPhase::Run)]);
    agent.lease(LONG_MS);
    agent.desire(&desired, &[(id(1), assignment("ranks_per_node: 2\ncommand: exec sleep 1000"))]);
    let mut heard = Heard::default();
    agent.until(&mut heard, |heard| heard.started(id(1)) == 1);
    let history = History::read(&shim_directory(root.path(), 1).join("record")).unwrap();
    assert_eq!((history.starting, history.started, history.len), (1, 1, 1));
    assert_eq!(history.processes.len(), 2);
    assert!(history.processes.iter().all(|main| lives(main.pid)));
    agent.desire(&set(2, Vec::new()), &[]);
    agent.until(&mut heard, |heard| heard.is_reaped(id(1)));
    agent.kill();
}

/// Two agents would give orders to the same shims.
#[tokio::test]
async fn a_directory_has_one_agent() {
    let node = Node::start().await;
    let cgroups = yard_agent::cgroup::Support::none();
    let options = crate::world::options(node.root.path(), "n2", cgroups);
    let second = yard_agent::driver::Driver::start(options).await;
    assert!(matches!(second, Err(yard_agent::driver::DriverError::InUse { .. })), "{second:?}");
}
