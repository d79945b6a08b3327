//! How much the state holds, and how quickly it changes. Prints `name value unit` lines.
//!
//! Questions: how many task transitions a second does one core apply, also while a clone is held
//! for a snapshot? What does a clone cost at a million jobs? What do a million jobs, and arrays of
//! a million tasks in several conditions, take in memory and in a snapshot?

// A benchmark measures time, which `core` itself may not look at.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, unused_crate_dependencies)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;
use support::*;
use yard_common::ExitCause;
use yard_common::gpu::GpuGrant;
use yard_common::id::*;
use yard_core::agent::{AssignmentId, Chain, ChainLink, Exit, Report, ReportKind};
use yard_core::command::*;
use yard_core::state::State;

const MILLION: u32 = 1_000_000;

fn main() {
    // Memory is measured in a process of its own for each case: freed memory is used again.
    let case = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    match case.as_deref() {
        Some("array_transitions") => array_transitions(),
        Some("job_transitions") => job_transitions(),
        Some("million_jobs") => million_jobs(),
        Some("untouched") => array_memory("untouched", None),
        Some("one_percent_failed") => array_memory("one_percent_failed", Some(100)),
        Some("every_second_failed") => array_memory("every_second_failed", Some(2)),
        Some(other) => panic!("no such case: {other}"),
        None => {
            array_transitions();
            job_transitions();
            for case in ["million_jobs", "untouched", "one_percent_failed", "every_second_failed"] {
                let this = std::env::current_exe().expect("the path of this program");
                let status = std::process::Command::new(this).arg(case).status();
                assert!(status.is_ok_and(|status| status.success()), "{case} failed");
            }
        }
    }
}

fn print(name: &str, value: f64, unit: &str) {
    println!("{name} {value:.3} {unit}");
}

/// Resident memory of this process in bytes.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|p| p.parse().ok()).unwrap_or(0.0);
    pages * 4096.0
}

fn lab(nodes: u32) -> (Lab, Vec<NodeId>) {
    let mut lab = Lab::new();
    lab.audit = false;
    let nodes = (0..nodes).map(|i| lab.join(&format!("n{i}"), 64, &[])).collect();
    (lab, nodes)
}

/// Takes a clone every so often, and keeps it until the next: what a snapshot in progress does.
#[derive(Default)]
struct Snapshots {
    every: Option<u32>,
    held: Option<State>,
    seen: u32,
}

impl Snapshots {
    fn step(&mut self, state: &State) {
        self.seen += 1;
        if self.every.is_some_and(|every| self.seen % every == 1) {
            self.held = Some(state.clone());
        }
    }
}

/// Runs one chain of an array to its end. `range` tasks end in one range each: 1 is the worst.
fn run_chain(lab: &mut Lab, job: JobId, node: NodeId, first: u32, range: u32, bad: u32) {
    let count = 250;
    let allocation = lab.place(job, TaskRange { first, len: count }, &[node]);
    let link = ChainLink { tasks: TaskRange { first, len: count }, attempt: AttemptNumber(1) };
    lab.report(node, allocation, ReportKind::Started(Chain(vec![link])));
    let exits = (first..first + count).step_by(range as usize).map(|first| {
        let fails = bad > 0 && first.wrapping_mul(2_654_435_761) % bad == 0;
        let cause = ExitCause::Exited(i32::from(fails));
        let link = ChainLink { tasks: TaskRange { first, len: range }, ..link };
        Exit { link, cause, status: None, rank: None }
    });
    lab.report(node, allocation, ReportKind::Exited(exits.collect()));
    lab.reap(node, allocation);
}

/// Transitions of array tasks: queued, preparing, running, succeeded are three each.
fn array_transitions() {
    for (name, range, every) in [
        ("apply_array_tasks_one_by_one", 1, None),
        ("apply_array_tasks_one_by_one_clone_held", 1, Some(1_000)),
        ("apply_array_tasks_in_ranges", 250, None),
    ] {
        let (mut lab, nodes) = lab(1_000);
        let job = lab.submit(array(MILLION));
        let mut snapshots = Snapshots { every, ..Snapshots::default() };
        let began = Instant::now();
        for (i, first) in (0..MILLION).step_by(250).enumerate() {
            run_chain(&mut lab, job, nodes[i % nodes.len()], first, range, 0);
            snapshots.step(&lab.state);
        }
        let seconds = began.elapsed().as_secs_f64();
        print(name, 3.0 * f64::from(MILLION) / seconds, "transitions/s");
    }
}

/// Transitions of separate jobs: a plan places a round of them, and each node reports once what
/// started, ended and was reaped there.
fn job_transitions() {
    for (name, batch, every) in [
        ("apply_separate_jobs_one_by_one", 1, None),
        ("apply_separate_jobs_in_batches", 64, None),
        ("apply_separate_jobs_in_batches_clone_held", 64, Some(50)),
    ] {
        let (mut lab, nodes) = lab(1_000);
        let count = 200_000;
        let jobs: Vec<_> = (0..count).map(|_| lab.submit(single())).collect();
        let mut snapshots = Snapshots { every, ..Snapshots::default() };
        let began = Instant::now();
        let mut commands = 0;
        for (i, jobs) in jobs.chunks(batch).enumerate() {
            run_batch(&mut lab, jobs, nodes[i % nodes.len()]);
            commands += 2;
            snapshots.step(&lab.state);
        }
        let seconds = began.elapsed().as_secs_f64();
        print(name, 3.0 * f64::from(count) / seconds, "transitions/s");
        print(&format!("{name}_commands"), f64::from(commands) / seconds, "commands/s");
    }
}

/// Places jobs on one node, and lets it report all that happens to them.
fn run_batch(lab: &mut Lab, jobs: &[JobId], node: NodeId) {
    let first = lab.state.allocations.next_id().0;
    let share = ShareChoice { node, group: 0, gpus: GpuGrant::NONE };
    let placement =
        |job: &JobId| Placement { job: *job, tasks: vec![TaskRange::one(0)], shares: vec![share] };
    let plan = Plan { placements: jobs.iter().map(placement).collect(), ..Plan::default() };
    lab.ok(Actor::Leader, Command::Plan(plan));
    let link = ChainLink { tasks: TaskRange::one(0), attempt: AttemptNumber(1) };
    let exit = Exit { link, cause: ExitCause::Exited(0), status: None, rank: None };
    let mut reports = Vec::with_capacity(3 * jobs.len());
    for allocation in (first..).take(jobs.len()) {
        let assignment = AssignmentId { allocation: AllocationId(allocation), group: 0 };
        for what in [
            ReportKind::Started(Chain(vec![link])),
            ReportKind::Exited(vec![exit]),
            ReportKind::Reaped,
        ] {
            reports.push(Report { sequence: lab.next_sequence(node), assignment, what });
        }
    }
    lab.ok(Actor::Node(node), Command::Report(NodeReport { node, reports }));
}

fn million_jobs() {
    let before = resident();
    let (mut lab, _) = lab(10);
    let began = Instant::now();
    for i in 0..MILLION {
        let mut plan = single();
        plan.name = format!("job-{i}").into();
        let request = lab.request();
        let mut submit = lab.submission(plan);
        submit.spec = format!(
            r#"{{"name":"job-{i}","command":"python3 train.py --seed {i}","time_limit":"2h"}}"#
        )
        .into();
        let command = Command::Job(JobCommand::Submit(Box::new(submit)));
        let _ = lab.apply(lab.user(), Some(request), command);
    }
    print("submit_separate_jobs", f64::from(MILLION) / began.elapsed().as_secs_f64(), "jobs/s");
    lab.last = None;
    print("memory_million_jobs", (resident() - before) / f64::from(1 << 20), "MiB");
    let began = Instant::now();
    let clones: Vec<_> = (0..1_000).map(|_| lab.state.clone()).collect();
    print("clone_million_jobs", began.elapsed().as_secs_f64() * 1e3 / 1_000.0, "ms");
    drop(clones);
    let held = lab.state.clone();
    let began = Instant::now();
    lab.submit(single());
    print("first_submit_after_clone", began.elapsed().as_secs_f64() * 1e3, "ms");
    drop(held);
    snapshot("million_jobs", &lab.state);
}

fn snapshot(name: &str, state: &State) {
    let began = Instant::now();
    let bytes = state.to_bytes();
    let seconds = began.elapsed().as_secs_f64();
    print(&format!("snapshot_{name}"), bytes.len() as f64 / f64::from(1 << 20), "MiB");
    print(&format!("snapshot_{name}_write"), seconds * 1e3, "ms");
    let began = Instant::now();
    let read = State::from_bytes(&bytes).map(|state| state.jobs.len());
    assert_eq!(read.ok(), Some(state.jobs.len()));
    print(&format!("snapshot_{name}_read"), began.elapsed().as_secs_f64() * 1e3, "ms");
}

/// An array of a million tasks of which one in `bad` failed, all others succeeded.
fn array_memory(name: &str, bad: Option<u32>) {
    let (mut lab, nodes) = lab(100);
    let before = resident();
    let job = lab.submit(array(MILLION));
    if let Some(bad) = bad {
        for (i, first) in (0..MILLION).step_by(250).enumerate() {
            run_chain(&mut lab, job, nodes[i % nodes.len()], first, 1, bad);
        }
    }
    lab.last = None;
    let runs = lab.state.jobs[job].tasks.run_count();
    print(&format!("memory_array_{name}"), (resident() - before) / f64::from(1 << 20), "MiB");
    print(&format!("runs_array_{name}"), runs as f64, "runs");
    snapshot(&format!("array_{name}"), &lab.state);
}
