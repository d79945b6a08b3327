//! Agents and shims that are killed between any two system calls of a start and an exit. A tracer
//! kills them right before the call, so that every step is cut from the one before it.

use crate::world::{
    Agent, Heard, LONG_MS, Root, assignment, eventually, id, lives, one, set, wanted,
};
use std::process::{Child, Command, Stdio};
use yard_common::ExitCause;
use yard_common::cause::LostReason;
use yard_core::agent::DesiredPhase;

/// What ranks do, and what is reported of it.
const ENDS: [(&str, ExitCause); 6] = [
    ("exit 0", ExitCause::Exited(0)),
    ("exit 1", ExitCause::Exited(1)),
    ("exit 255", ExitCause::Exited(255)),
    ("kill -SEGV $$", ExitCause::Signaled(11)),
    ("kill -KILL $$", ExitCause::Signaled(9)),
    ("head -c 200m /dev/zero | tail; kill -KILL $$", ExitCause::OutOfMemory),
];

/// Kills threads right before a call of theirs.
struct Tracer(Child);

impl Tracer {
    fn attach(threads: &[i32], call: &str, nth: u32) -> Tracer {
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"]);
        strace.arg(format!("inject={call}:signal=SIGKILL:when={nth}"));
        strace.args(threads.iter().flat_map(|thread| ["-p".to_string(), thread.to_string()]));
        let mut child = strace.stderr(Stdio::null()).spawn().expect("strace is installed");
        eventually("the tracer is attached", || {
            assert!(child.try_wait().unwrap().is_none(), "it cannot trace");
            threads.iter().all(|thread| {
                let status = std::fs::read_to_string(format!("/proc/{thread}/status"));
                // One that has ended needs no tracer.
                status.is_ok_and(|text| !text.contains("TracerPid:\t0\n")) || !lives(*thread)
            })
        });
        Tracer(child)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Threads of a process with this name.
fn threads(pid: u32, name: &str) -> Vec<i32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let tids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    tids.filter(|tid| {
        let found = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm"));
        found.is_ok_and(|comm| comm.trim() == name)
    })
    .collect()
}

fn children(pid: u32) -> Vec<i32> {
    let of = |tid: i32| std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/children"));
    let lists = threads(pid, "yard-driver").into_iter().filter_map(|tid| of(tid).ok());
    let lists: Vec<String> = lists.collect();
    lists.iter().flat_map(|list| list.split_whitespace()).filter_map(|p| p.parse().ok()).collect()
}

/// Runs a job under a tracer, and again with a next agent if the first one dies. Returns how it
/// ended, and which processes ran.
fn run(
    command: &str,
    whom: impl Fn(&Agent) -> Vec<i32>,
    call: &str,
    nth: u32,
) -> (ExitCause, usize) {
    let root = Root::new();
    let log = root.path().join("ran");
    let mut detail = assignment(&format!("command: 'echo $$ >>{}; {command}'", log.display()));
    detail.amounts.memory_bytes = 32 << 20;
    let desired = set(1, vec![wanted(1, one(), DesiredPhase::Run)]);
    let details = [(id(1), detail)];
    let mut heard = Heard::default();
    let mut agent = Agent::start(root.path());
    eventually("the agent has started", || {
        let standing_by = children(agent.pid());
        // They have entered their groups when they wait for the agent.
        !threads(agent.pid(), "yard-driver").is_empty() && standing_by.len() >= 4
    });
    {
        let _tracer = Tracer::attach(&whom(&agent), call, nth);
        agent.lease(LONG_MS);
        agent.desire(&desired, &details);
        if !agent.until_or_death(&mut heard, |heard| heard.is_reaped(id(1))) {
            agent.kill();
            agent = Agent::start(root.path());
            agent.lease(LONG_MS);
            agent.desire(&desired, &details);
            agent.until(&mut heard, |heard| heard.is_reaped(id(1)));
        }
    }
    agent.kill();
    let ran = std::fs::read_to_string(&log).unwrap_or_default();
    for pid in ran.lines() {
        assert!(!lives(pid.parse().unwrap()), "{call} {nth}: {pid} was left behind");
    }
    let causes = heard.causes(id(1));
    assert_eq!(causes.len(), 1, "{call} {nth}: {causes:?}");
    (causes[0], ran.lines().count())
}

/// Calls of one kind, from the first to the last that are cut off.
fn each(kinds: &[(&'static str, u32)]) -> Vec<(&'static str, u32)> {
    kinds.iter().flat_map(|(call, last)| (1..=*last).map(|nth| (*call, nth))).collect()
}

#[test]
fn agents_may_die_between_any_two_steps() {
    let kinds = [("fdatasync", 3), ("mkdir", 1), ("rename", 2), ("sendmsg", 1), ("write", 6)];
    for ((call, nth), (command, expected)) in each(&kinds).into_iter().zip(ENDS.iter().cycle()) {
        let driver = |agent: &Agent| threads(agent.pid(), "yard-driver");
        let (cause, ran) = run(command, driver, call, nth);
        assert_eq!((cause, ran), (*expected, 1), "before {call} {nth}: {command}");
    }
}

#[test]
fn shims_may_die_between_any_two_steps() {
    let kinds = [
        ("read", 2),
        ("socket", 1),
        ("openat", 8),
        ("clone3", 1),
        ("write", 6),
        ("waitid", 4),
        ("fdatasync", 1),
    ];
    for ((call, nth), (command, expected)) in each(&kinds).into_iter().zip(ENDS.iter().cycle()) {
        let (cause, ran) = run(command, |agent| children(agent.pid()), call, nth);
        let lost = cause == ExitCause::Lost(LostReason::Shim);
        assert!(lost || (cause, ran) == (*expected, 1), "before {call} {nth}: {cause}, {command}");
        assert!(ran <= 1, "before {call} {nth}: it ran {ran} times");
    }
}
