//! How long a round of the scheduler takes. Prints `name value unit` lines, each the best of some
//! runs: what else goes on on a machine only adds to the time.
//!
//! Questions, each at 10,000 nodes and 100,000 pending jobs: what does a round cost with an empty
//! cache, when it fills the plan, when everything waits, and when nothing closes early? What does
//! a round after one event cost: a job submitted, a job ended, a node drained? What if no two jobs
//! are alike?

// A benchmark measures time, which `core` itself may not look at.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, unused_crate_dependencies)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;
use support::*;
use yard_common::amount::Amounts;
use yard_common::gpu::{GpuCount, GpuRequest};
use yard_common::id::*;
use yard_core::agent::ReportKind;
use yard_core::command::*;
use yard_core::job::{Ask, JobPlan};
use yard_core::scheduler::{Budget, Cache, Planned, Policy, explain, plan};

const NODES: u32 = 10_000;
const JOBS: u32 = 100_000;
const RUNS: usize = 9;

fn main() {
    // All cases, or one by name.
    let only = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let cases: [(&str, fn()); 5] = [
        ("fill", fills_the_plan),
        ("busy", || everything_waits(false)),
        ("unlike", || everything_waits(true)),
        ("limited", limits_hold_all_back),
        ("array", big_array),
    ];
    for (name, case) in cases {
        if only.as_deref().is_none_or(|only| only == name) {
            case();
        }
    }
}

fn print(name: &str, times_ms: Vec<f64>) {
    let best = times_ms.into_iter().min_by(f64::total_cmp).expect("there were runs");
    println!("{name} {best:.3} ms");
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed().as_secs_f64() * 1000.0)
}

fn round(lab: &Lab, cache: &mut Cache) -> Planned {
    plan(cache, &lab.state, lab.now_ms, &Policy::default(), Budget::UNLIMITED)
}

/// Rounds with an empty cache.
fn measure_cold(name: &str, lab: &Lab) {
    let times = (0..RUNS).map(|_| timed(|| round(lab, &mut Cache::default())).1);
    print(name, times.collect());
}

/// Rounds with a warm cache, each after one event. What is planned is committed, untimed.
fn measure_warm(
    name: &str,
    lab: &mut Lab,
    cache: &mut Cache,
    mut event: impl FnMut(&mut Lab, usize),
) {
    let _ = round(lab, cache);
    let times = (0..RUNS).map(|run| {
        event(lab, run);
        let (planned, ms) = timed(|| round(lab, cache));
        commit(lab, planned);
        ms
    });
    let times = times.collect();
    print(name, times);
}

fn commit(lab: &mut Lab, planned: Planned) {
    if !planned.plan.is_empty() {
        lab.ok(Actor::Leader, Command::Plan(planned.plan));
    }
}

/// Machines of three kinds in racks of 32: eight H100, four A100, no GPU.
fn cluster() -> Lab {
    let mut lab = Lab::new();
    lab.audit = false;
    for i in 0..NODES {
        let gpus: &[&str] = match i % 5 {
            0..=2 => &["h100"; 8],
            3 => &["a100"; 4],
            _ => &[],
        };
        lab.join(&format!("n{i}"), 64, gpus);
    }
    lab
}

fn users(lab: &mut Lab, count: u32) -> Vec<PrincipalId> {
    let mut ids = Vec::new();
    for i in 0..count {
        let grants = vec![Grant { workspace: None, role: Role::Admin }];
        let add = Access::AddUser { name: format!("u{i}"), unix: None, grants };
        lab.ok(lab.user(), Command::Access(add));
        ids.push(lab.state.principals.find(&format!("u{i}")).expect("just added"));
    }
    ids
}

/// One of ten shapes: from a part of a GPU to gangs of 16 whole machines.
fn job(kind: u32) -> JobPlan {
    let mut plan = single();
    let group = &mut plan.shape.groups[0];
    let (nodes, cpus, gpus) = match kind % 10 {
        0 => (1, 4, GpuCount::Part(5_000)),
        1..=3 => (1, 8, GpuCount::Whole(1)),
        4 | 5 => (1, 16, GpuCount::Whole(2)),
        6 => (1, 32, GpuCount::Whole(4)),
        7 => (1, 64, GpuCount::Whole(8)),
        8 => (16, 64, GpuCount::Whole(8)),
        _ => (1, 4, GpuCount::None),
    };
    (group.nodes_min, group.nodes_max) = (nodes, nodes);
    (group.cpus, group.memory) = (Ask::Exactly(cpus * 1000), Ask::Exactly(GIB));
    group.gpus = GpuRequest { count: gpus, ..GpuRequest::NONE };
    plan.priority = (kind / 10 % 3) as i32;
    plan
}

fn submit_as(lab: &mut Lab, owner: PrincipalId, plan: JobPlan) {
    let (submit, request) = (lab.submission(plan), lab.request());
    let command = Command::Job(JobCommand::Submit(Box::new(submit)));
    let reply = lab.apply(Actor::User(owner), Some(request), command).reply;
    assert!(reply.is_ok(), "{reply:?}");
}

/// A hundred thousand jobs of ten shapes and twenty owners.
fn submit_many(lab: &mut Lab, owners: &[PrincipalId], unlike: bool) {
    for i in 0..JOBS {
        let mut plan = job(i);
        if unlike {
            plan.time_limit_ms = Some(3_600_000 + u64::from(i));
        }
        submit_as(lab, owners[i as usize / 10 % owners.len()], plan);
    }
}

fn fill(lab: &mut Lab) {
    for _ in 0..NODES {
        let mut whole = single();
        whole.shape.exclusive = true;
        whole.priority = 100;
        lab.submit(whole);
    }
    let mut cache = Cache::default();
    loop {
        let planned = round(lab, &mut cache);
        if planned.plan.is_empty() {
            return;
        }
        commit(lab, planned);
    }
}

/// Ends the first allocation that is still there: its node is free again.
fn end_one(lab: &mut Lab) {
    let first = lab.state.allocations.iter().next().map(|(id, it)| (id, it.shares[0].node));
    let (id, node) = first.expect("something runs");
    lab.run_to_end(node, id, yard_common::ExitCause::Exited(0));
}

fn fills_the_plan() {
    let mut lab = cluster();
    let owners = users(&mut lab, 20);
    submit_many(&mut lab, &owners, false);
    let planned = round(&lab, &mut Cache::default());
    println!("plan_fill_placements {} count", planned.plan.placements.len());
    measure_cold("plan_fill_cold", &lab);
}

/// Every machine is taken; what waits claims them all.
fn everything_waits(unlike: bool) {
    let prefix = if unlike { "plan_unlike" } else { "plan_busy" };
    let mut lab = cluster();
    let owners = users(&mut lab, 20);
    fill(&mut lab);
    submit_many(&mut lab, &owners, unlike);
    if unlike {
        let drain =
            DrainPlan { in_ms: 90 * 24 * 3_600_000, deadline_ms: None, reason: String::new() };
        lab.ok(lab.user(), Command::Node(NodeCommand::Drain { node: NodeId(5), plan: drain }));
    }
    measure_cold(&format!("{prefix}_cold"), &lab);
    let mut cache = Cache::default();
    let name = |what: &str| format!("{prefix}_after_{what}");
    measure_warm(&name("submit"), &mut lab, &mut cache, |lab, run| {
        lab.submit(job(run as u32));
    });
    measure_warm(&name("end"), &mut lab, &mut cache, |lab, _| end_one(lab));
    measure_warm(&name("drain"), &mut lab, &mut cache, |lab, run| {
        let plan = DrainPlan { in_ms: 0, deadline_ms: None, reason: String::new() };
        let node = NodeId(9_000 + run as u32);
        lab.ok(lab.user(), Command::Node(NodeCommand::Drain { node, plan }));
    });
    if !unlike {
        let last = JobId(lab.state.jobs.next_id().0 - 1);
        let policy = Policy::default();
        let times = (0..3).map(|_| timed(|| explain(&lab.state, lab.now_ms, &policy, last, 0)).1);
        print("explain_last", times.collect());
    }
}

/// All owners have reached their limits, so nothing is ever claimed and every line is looked at.
fn limits_hold_all_back() {
    let mut lab = cluster();
    let owners = users(&mut lab, 20);
    for owner in &owners {
        let limit =
            HolderLimit { amounts: Amounts::ZERO, tasks: Some(0), ..HolderLimit::default() };
        let set = Holder::SetLimit(LimitScope::Owner(*owner), Some(limit));
        lab.ok(lab.user(), Command::Holder(set));
    }
    submit_many(&mut lab, &owners, false);
    measure_cold("plan_limited_cold", &lab);
    measure_warm("plan_limited_after_submit", &mut lab, &mut Cache::default(), |lab, run| {
        submit_as(lab, owners[run], job(1));
    });
}

/// One array of a hundred thousand tasks, dealt out to an empty cluster and as places come free.
fn big_array() {
    let mut lab = cluster();
    lab.submit(array(JOBS));
    measure_cold("plan_array_cold", &lab);
    let mut cache = Cache::default();
    let planned = round(&lab, &mut cache);
    commit(&mut lab, planned);
    measure_warm("plan_array_after_end", &mut lab, &mut cache, |lab, _| {
        let first = lab.state.allocations.iter().next();
        let (id, it) = first.map(|(id, it)| (id, it.clone())).expect("something runs");
        let (node, chain) = (it.shares[0].node, it.chain.clone());
        lab.report(node, id, ReportKind::Started(chain.clone()));
        let exit = |link: &yard_core::agent::ChainLink| yard_core::agent::Exit {
            link: *link,
            cause: yard_common::ExitCause::Exited(0),
            status: None,
            rank: None,
        };
        lab.report(node, id, ReportKind::Exited(chain.0.iter().map(exit).collect()));
        lab.reap(node, id);
    });
}
