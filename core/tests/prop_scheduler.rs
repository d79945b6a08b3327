//! Random lives of a cluster, written as scripts: every plan in them is held against the linter,
//! against a plan without cache, and against what explanations say about each waiting task.
//!
//! A failure prints the script that leads to it, ready to become a scenario.

mod scenario;
mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use scenario::Script;
use std::collections::BTreeSet;
use yard_common::PendingReason;
use yard_common::gpu::GpuCount;
use yard_common::id::*;
use yard_common::state::{NodeState, TaskState};
use yard_core::command::{Actor, Command, Placement};
use yard_core::fit::{self, Demand};
use yard_core::job::Group;
use yard_core::scheduler::{self, Budget, Outlook, Planned, Policy};
use yard_core::state::{Holding, Holdings, Job, Node, Phase, State};

/// How each life begins.
const START: [&str; 6] = [
    "user ann",
    "user bob",
    "pool old",
    "queue high priority=10",
    "queue old-only pools=old",
    "join n0 cpus=4 rack=r0 gpus=h100:4",
];

/// A step; what its numbers mean depends on the state that it meets.
type Step = (u8, u16, u16, u16);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec((0..40u8, any::<u16>(), any::<u16>(), any::<u16>()), 10..60)
}

fn pick<T>(of: &[T], by: u16) -> Option<&T> {
    of.get(usize::from(by) % of.len().max(1))
}

/// A job that is not impossible on machines of `join`, most of the time.
fn submit((_, a, b, c): Step, jobs: usize) -> String {
    let nodes = ["1", "1", "1", "2", "3", "1..3", "2..4"][usize::from(a % 7)];
    let gpus = ["0", "0", "1", "2", "4", "0.5", "0.3", "h100:1", "a100/h100:2", "mig-1g.10gb:1"]
        [usize::from(b % 10)];
    let cpus = 1 + a / 7 % 4;
    let extra = [
        "",
        "",
        "",
        "",
        "exclusive",
        "within=rack",
        "prefer=rack",
        "labels=disk:fast",
        "exclude=n1",
        "only=n0,n2",
        "pool=old",
        "limit=10m",
        "limit=1h",
    ][usize::from(c % 13)];
    let array = ["", "", "", "array=0-6", "array=0-29%3", "array=0-49"][usize::from(b / 10 % 6)];
    let queue = ["default", "default", "high", "old-only"][usize::from(c / 13 % 4)];
    let owner = ["ann", "bob"][usize::from(c / 52 % 2)];
    let priority = [0, 0, 5, -5][usize::from(a / 28 % 4)];
    let base = format!("submit j{jobs} priority={priority} queue={queue} owner={owner}");
    match a / 112 % 6 {
        0 => format!("{base} {extra} / ps cpus=1 / worker nodes=2 cpus={cpus} gpus={gpus}"),
        _ => format!("{base} nodes={nodes} cpus={cpus} gpus={gpus} {extra} {array}"),
    }
}

fn join((_, a, b, c): Step, nodes: usize) -> String {
    let gpus = ["", "", "gpus=h100:4", "gpus=a100:2", "gpus=a100:1,h100:2", "gpus=mig-1g.10gb:3"]
        [usize::from(b % 6)];
    let disk = ["", "labels=disk:fast"][usize::from(c % 2)];
    let pool = ["", "", "pool=old"][usize::from(c / 2 % 3)];
    format!("join n{nodes} cpus={} rack=r{} {gpus} {disk} {pool}", 2 + a % 7, b / 6 % 3)
}

/// The command that a step stands for, if it makes sense in the state that it meets.
fn command(step: Step, script: &Script) -> Option<String> {
    let (kind, a, b, _) = step;
    let state = &script.lab.state;
    let jobs: Vec<JobId> = state.jobs.iter().map(|(id, _)| id).collect();
    let live: Vec<&JobId> = jobs.iter().filter(|id| state.jobs[**id].ended.is_none()).collect();
    let held = |held: &&&JobId| state.jobs[***held].waits.held.is_some();
    let nodes: Vec<&Node> = state.nodes.iter().map(|(_, node)| node).collect();
    let of_state = |wanted: &[NodeState]| {
        let found = nodes.iter().filter(|node| wanted.contains(&node.state));
        pick(&found.collect::<Vec<_>>(), a).map(|node| node.name.to_string())
    };
    match kind {
        0..=12 => Some(submit(step, jobs.len())),
        13..=15 => (nodes.len() < 9).then(|| join(step, nodes.len())),
        16..=23 => Some("commit".into()),
        24..=28 => {
            let ids: Vec<_> = state.allocations.iter().filter(|(_, it)| ends(state, it)).collect();
            let (id, _) = pick(&ids, a)?;
            Some(format!("end {id} tasks=1 code={}", u16::from(b % 4 == 0)))
        }
        29 => pick(&nodes, a).map(|node| format!("drain {} in={}m", node.name, b % 3 * 20)),
        30 => {
            let drained = nodes.iter().filter(|node| node.drain.is_some() || node.cordoned);
            pick(&drained.collect::<Vec<_>>(), a).map(|node| format!("undrain {}", node.name))
        }
        31 => of_state(&[NodeState::Up, NodeState::Suspect]).map(|name| format!("lose {name}")),
        32 | 33 => of_state(&[NodeState::Lost]).map(|name| format!("return {name}")),
        34 => Some(format!("limit owner=ann gpus={} tasks={}", a % 9, b % 9)),
        35 => Some(format!("limit each=default cpus={} tasks={}", 4 + a % 12, 2 + b % 5)),
        36 => Some(format!("{} high", ["close", "open"][usize::from(a % 2)])),
        37 => Some(format!("wait {}s", 1 + a % 900)),
        38 => pick(&live, a).map(|job| format!("{} {job}", ["cancel", "hold"][usize::from(b % 2)])),
        _ => {
            let held: Vec<_> = live.iter().filter(held).collect();
            pick(&held, a).map(|job| format!("release {job}"))
        }
    }
}

/// Whether all of its nodes can report, and it was not asked to stop.
fn ends(state: &State, allocation: &yard_core::state::Allocation) -> bool {
    let up = |node| state.nodes[node].state == NodeState::Up;
    allocation.cause.is_none()
        && allocation.shares.iter().all(|share| up(share.node) && !share.is_over())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_plan_of_a_random_life_is_legal_and_explained(steps in steps()) {
        let mut script = Script::new();
        for line in START {
            script.run(line);
        }
        for (at, step) in steps.iter().enumerate() {
            if let Some(line) = command(*step, &script) {
                script.run(&line);
            }
            if let Err(problem) = check(&mut script, at) {
                prop_assert!(false, "{}\n{problem}", script.lines.join("\n"));
            }
        }
    }
}

fn check(script: &mut Script, at: usize) -> Result<(), String> {
    let planned = script.plan();
    let _ = script.plan_within(Budget(at as u64 * 7 % 60));
    let (state, now_ms) = (&script.lab.state, script.lab.now_ms);
    if !at.is_multiple_of(5) {
        return Ok(());
    }
    for (id, job) in state.jobs.iter() {
        let first = |(run, status): (TaskRange, &yard_core::state::TaskStatus)| {
            status.phase.state().is_pending().then_some(run.first)
        };
        for task in job.tasks.iter().filter_map(first).take(3) {
            explained(state, now_ms, &planned, id, task)?;
        }
    }
    Ok(())
}

/// Holds an explanation against the plan, and against what each reason implies.
fn explained(
    state: &State,
    now_ms: u64,
    planned: &Planned,
    id: JobId,
    task: TaskIndex,
) -> Result<(), String> {
    let policy = Policy::default();
    let found = scheduler::explain(state, now_ms, &policy, id, task).expect("the task exists");
    let world = World { state, now_ms, planned };
    let has = |placement: &Placement| {
        placement.job == id && placement.tasks.iter().any(|range| range.contains(task))
    };
    let starts = planned.plan.placements.iter().any(has);
    let sound = match found.outlook {
        Outlook::Starts => starts,
        Outlook::NotPending => false,
        Outlook::Waits(reason) => !starts && world.implied(id, task, reason),
    };
    if sound { Ok(()) } else { Err(format!("the plan: {planned:#?}\nexplained as: {found}")) }
}

/// A state, and the plan for it.
struct World<'a> {
    state: &'a State,
    now_ms: u64,
    planned: &'a Planned,
}

impl World<'_> {
    /// Whether everything holds that a reason implies; for most reasons, that and no more.
    fn implied(&self, id: JobId, task: TaskIndex, reason: PendingReason) -> bool {
        let job = &self.state.jobs[id];
        let phase = job.tasks.get(task).expect("the task exists").phase;
        let own = if job.waits.held.is_some() {
            Some(PendingReason::Held)
        } else if let Phase::Backoff(_) = phase {
            Some(PendingReason::Backoff)
        } else if !self.state.queues[job.queue].set.starts {
            Some(PendingReason::QueueClosed)
        } else {
            let max = job.plan.array.as_ref().and_then(|array| array.running_max);
            let placed = self.planned.plan.placements.iter().filter(|p| p.job == id).count();
            let throttled =
                max.is_some_and(|max| job.allocations as usize + placed >= max as usize);
            throttled.then_some(PendingReason::ArrayThrottle)
        };
        if let Some(own) = own {
            return reason == own;
        }
        // Limits may be used up by the round itself, so one that is far away proves nothing.
        match reason {
            PendingReason::QueueLimit
            | PendingReason::OwnerLimit
            | PendingReason::WorkspaceLimit => {
                // Whole machines may pass a limit that what was asked for does not.
                self.state.shapes.get(job.shape).exclusive
                    || self.is_limited(job, &self.holdings_after())
            }
            _ => !self.is_limited(job, &self.state.holdings) && self.implied_machines(id, reason),
        }
    }

    fn implied_machines(&self, id: JobId, reason: PendingReason) -> bool {
        let job = &self.state.jobs[id];
        let single = self.state.shapes.get(job.shape).groups.len() == 1;
        let nodes = || self.state.nodes.iter().map(|(_, node)| node);
        let silent = |node: &Node| matches!(node.state, NodeState::Suspect | NodeState::Lost);
        let sound = |node: &Node| {
            node.state == NodeState::Up
                && !node.cordoned
                && node.drain.is_none()
                && node.leftovers.is_empty()
        };
        let possible = self.corners(job).iter().any(|corner| self.is_enough(job, corner));
        match reason {
            PendingReason::Unsatisfiable => !(single && possible),
            _ if single && !possible => false,
            PendingReason::NodesInDoubt => nodes().any(|n| silent(n) || !n.leftovers.is_empty()),
            PendingReason::PlannedDrain => {
                nodes().any(|node| node.drain.as_ref().is_some_and(|d| d.at_ms > self.now_ms))
            }
            PendingReason::Priority => self.ahead(id).iter().any(|other| self.compete(id, *other)),
            PendingReason::Resources if nodes().all(sound) => {
                // In a sound cluster whoever waits for machines keeps all that it could use.
                let waits = |other: &JobId| self.waits_for_machines(*other);
                !self.ahead(id).iter().any(|other| waits(other) && self.compete(id, *other))
            }
            PendingReason::Resources => true,
            _ => false,
        }
    }

    /// Pending jobs before another, with tasks that the plan leaves behind.
    fn ahead(&self, id: JobId) -> Vec<JobId> {
        let turn = |id: JobId| {
            let job = &self.state.jobs[id];
            let queue = self.state.queues[job.queue].set.priority;
            (std::cmp::Reverse(queue), std::cmp::Reverse(job.plan.priority), id)
        };
        let starts = |job: &Job| self.state.queues[job.queue].set.starts;
        let left = |id: JobId, job: &Job| {
            let mine = self.planned.plan.placements.iter().filter(|p| p.job == id);
            let placed: u32 = mine.flat_map(|p| &p.tasks).map(|range| range.len).sum();
            job.tasks.counts().of(TaskState::Queued) > placed
        };
        let jobs = self.state.jobs.iter();
        jobs.filter(|(other, job)| turn(*other) < turn(id) && starts(job) && left(*other, job))
            .map(|(other, _)| other)
            .collect()
    }

    fn waits_for_machines(&self, id: JobId) -> bool {
        let job = &self.state.jobs[id];
        let mine = self.planned.plan.placements.iter().filter(|p| p.job == id);
        let gone =
            |task: &TaskIndex| mine.clone().flat_map(|p| &p.tasks).any(|r| r.contains(*task));
        let queued = job.tasks.queued().flat_map(|(run, _)| run.indices());
        let Some(task) = queued.into_iter().find(|task| !gone(task)) else { return false };
        let found = scheduler::explain(self.state, self.now_ms, &Policy::default(), id, task);
        let reason = found.and_then(|found| found.reason());
        matches!(reason, Some(PendingReason::Resources | PendingReason::Priority))
    }

    /// Whether some node could run both.
    fn compete(&self, one: JobId, other: JobId) -> bool {
        let usable = |id: JobId| -> BTreeSet<NodeId> {
            let job = &self.state.jobs[id];
            let (corners, groups) = (self.corners(job), &self.state.shapes.get(job.shape).groups);
            let enough = corners.iter().filter(|corner| self.is_enough(job, corner));
            enough.flat_map(|corner| self.usable(job, corner, groups)).collect()
        };
        !usable(one).is_disjoint(&usable(other))
    }

    fn corners(&self, job: &Job) -> Vec<Corner> {
        let shape = self.state.shapes.get(job.shape);
        let nodes = || self.state.nodes.iter().map(|(_, node)| node);
        let gpus = shape.groups.iter().any(|group| group.gpus.count != GpuCount::None);
        let device = |node: &Node| -> BTreeSet<Option<String>> {
            node.healthy().map(|(_, device)| Some(device.model.clone())).collect()
        };
        let mut models: BTreeSet<_> = nodes().flat_map(device).collect();
        if !gpus && !shape.exclusive {
            models.clear();
        }
        if !gpus {
            models.insert(None);
        }
        let rack = |node: &Node| {
            let level = shape.place.within.as_ref()?;
            fit::label_of(node, level).map(String::from)
        };
        let racks: BTreeSet<_> = nodes().map(rack).collect();
        let pools: BTreeSet<_> = nodes().map(|node| node.pool).collect();
        let mut corners = Vec::new();
        for pool in pools {
            for model in &models {
                let corner = |rack: &Option<String>| Corner {
                    pool,
                    model: model.clone(),
                    rack: rack.clone(),
                };
                corners.extend(racks.iter().map(corner));
            }
        }
        corners
    }

    /// The nodes of a corner that could run a share of some group, were they empty.
    fn usable(&self, job: &Job, corner: &Corner, groups: &[Group]) -> Vec<NodeId> {
        let shape = self.state.shapes.get(job.shape);
        let floor = self.state.pools[corner.pool].floor.unwrap_or_default();
        let pools = &self.state.queues[job.queue].set.pools;
        let could = |node: &Node, group: &Group| {
            let first = node.healthy().next().map(|(_, device)| &device.model);
            let demand = Demand::of(shape, group, &floor);
            (!shape.exclusive || first == corner.model.as_ref())
                && fit::ever(&demand, corner.model.as_deref(), node).is_ok()
        };
        let here = |node: &Node| match &shape.place.within {
            Some(level) => fit::label_of(node, level) == corner.rack.as_deref(),
            None => true,
        };
        let nodes = self.state.nodes.iter().filter(|(_, node)| {
            node.pool == corner.pool
                && node.state != NodeState::Removed
                && here(node)
                && fit::allowed(shape, pools, node).is_ok()
                && groups.iter().any(|group| could(node, group))
        });
        nodes.map(|(id, _)| id).collect()
    }

    /// Whether a corner has as many nodes for each group as it needs.
    fn is_enough(&self, job: &Job, corner: &Corner) -> bool {
        let groups = &self.state.shapes.get(job.shape).groups;
        groups.iter().all(|group| {
            self.usable(job, corner, std::slice::from_ref(group)).len() >= group.nodes_min as usize
        })
    }

    /// Whether a limit is in the way of the smallest gang, in every pool that it may use.
    fn is_limited(&self, job: &Job, holdings: &Holdings) -> bool {
        let shape = self.state.shapes.get(job.shape);
        let queue = &self.state.queues[job.queue].set;
        let pools = self.state.pools.iter().map(|(id, _)| id);
        let mut mine = pools.filter(|pool| {
            shape.pool.is_none_or(|only| only == *pool)
                && (queue.pools.is_empty() || queue.pools.contains(pool))
        });
        let passes = |pool: PoolId| {
            let floor = self.state.pools[pool].floor.unwrap_or_default();
            let mut least = Holding { tasks: 1, ..Holding::default() };
            for group in &shape.groups {
                for _ in 0..group.nodes_min {
                    least.amounts =
                        least.amounts.checked_add(&group.amounts(&floor)).expect("small amounts");
                    least.gpu_parts += group.gpus.parts();
                }
            }
            holdings.excess(&State::payers(job), &least).is_some()
        };
        mine.all(passes)
    }

    /// What is held when the plan is committed.
    fn holdings_after(&self) -> Holdings {
        let mut lab = support::Lab::of(self.state.clone(), self.now_ms);
        lab.ok(Actor::Leader, Command::Plan(self.planned.plan.clone()));
        lab.state.holdings
    }
}

/// A pool, a GPU model, a rack.
struct Corner {
    pool: PoolId,
    model: Option<String>,
    rack: Option<String>,
}
