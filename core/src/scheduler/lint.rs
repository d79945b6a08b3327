//! A linter for plans: the rules that every legal plan obeys, checked the slow and obvious way.
//!
//! It shares the predicates of [`crate::fit`] with the planner and nothing else: no index, no
//! line, no cache. Tests and the simulator hold each plan against it.

use super::{Planned, Policy};
use crate::command::Placement;
use crate::fit::{self, Demand, Room, Unfit};
use crate::job::Shape;
use crate::retry::Tries;
use crate::state::{Excess, Holding, Holdings, Job, Node, Phase, State};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use yard_common::Amounts;
use yard_common::gpu::GpuGrant;
use yard_common::id::{JobId, NodeId, PoolId, TaskIndex};
use yard_common::limits::PLAN_PLACEMENTS_MAX;
use yard_common::state::TaskState;

mod waiting;

/// A rule that a plan breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The job whose placement, or lack of one, breaks it.
    pub job: JobId,
    /// The rule.
    pub rule: Rule,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// More placements than one plan may hold.
    TooMany(usize),
    /// It is not pending, or its queue starts nothing.
    NotPending,
    /// It was placed after a job that is behind it.
    OutOfOrder,
    /// A task is not queued, or placed twice.
    Task(TaskIndex),
    /// A chain that is too long, of a gang, or with a task that was tried before.
    Chain,
    /// More tasks of the array run than it allows.
    Throttle(u32),
    /// A limit is passed.
    Limit(Excess),
    /// A group has too few or too many nodes, or one of them twice.
    Group(u8),
    /// The nodes are of two pools, values of the topology level, or GPU models.
    Apart,
    /// A node cannot take its share.
    Unfit(NodeId, Unfit),
    /// A node that a job ahead waits for.
    Overtakes(NodeId, JobId),
    /// It has to wait although it would fit.
    PassedOver,
}

/// Every rule that a plan breaks; nothing for a legal one.
#[must_use]
pub fn lint(view: &State, now_ms: u64, policy: &Policy, planned: &Planned) -> Vec<Violation> {
    let placements = &planned.plan.placements;
    let mut check = Check::new(view, now_ms, policy);
    if let Some(last) = placements.get(PLAN_PLACEMENTS_MAX) {
        check.report(last.job, Rule::TooMany(placements.len()));
    }
    let order = check.order();
    let place = |job: JobId| order.iter().position(|other| *other == job);
    for pair in placements.windows(2) {
        if place(pair[0].job) > place(pair[1].job) {
            check.report(pair[1].job, Rule::OutOfOrder);
        }
    }
    for placement in placements.iter().filter(|placement| place(placement.job).is_none()) {
        check.report(placement.job, Rule::NotPending);
    }
    // A plan that was cut short says nothing about the last job that it placed and those behind.
    let last = placements.last().and_then(|placement| place(placement.job));
    let considered = if planned.complete { order.len() } else { last.unwrap_or(0) };
    for (at, id) in order.iter().enumerate() {
        let (job, mut taken) = (&view.jobs[*id], BTreeSet::new());
        for (nth, placement) in placements.iter().filter(|p| p.job == *id).enumerate() {
            check.placement(job, placement, nth, &mut taken);
        }
        let placed = placements.iter().filter(|placement| placement.job == *id).count();
        let waits = job.tasks.counts().of(TaskState::Queued) as usize > taken.len();
        if at < considered && waits && !check.is_throttled(job, placed) {
            check.waiting(*id, job);
        }
    }
    check.found
}

/// The state of the world after the placements that were checked so far.
struct Check<'a> {
    view: &'a State,
    now_ms: u64,
    policy: &'a Policy,
    /// What is left on nodes, and the allocations that came in.
    rooms: BTreeMap<NodeId, (Room, usize)>,
    holdings: Holdings,
    /// Nodes that jobs wait for.
    claimed: BTreeMap<NodeId, JobId>,
    /// Nodes that gangs of several groups may wait for: to decide that means to search.
    unsure: BTreeSet<NodeId>,
    found: Vec<Violation>,
}

impl<'a> Check<'a> {
    fn new(view: &'a State, now_ms: u64, policy: &'a Policy) -> Check<'a> {
        Check {
            view,
            now_ms,
            policy,
            rooms: BTreeMap::new(),
            holdings: view.holdings.clone(),
            claimed: BTreeMap::new(),
            unsure: BTreeSet::new(),
            found: Vec::new(),
        }
    }

    fn report(&mut self, job: JobId, rule: Rule) {
        self.found.push(Violation { job, rule });
    }

    /// All pending jobs of queues that start tasks, in the order in which they are served.
    fn order(&self) -> Vec<JobId> {
        let jobs = self.view.jobs.iter().filter(|(_, job)| {
            job.tasks.counts().of(TaskState::Queued) > 0 && self.view.queues[job.queue].set.starts
        });
        let mut jobs: Vec<_> = jobs
            .map(|(id, job)| {
                let queue = self.view.queues[job.queue].set.priority;
                (Reverse(queue), Reverse(job.plan.priority), id)
            })
            .collect();
        jobs.sort_unstable();
        jobs.into_iter().map(|(_, _, id)| id).collect()
    }

    fn is_throttled(&self, job: &Job, placed: usize) -> bool {
        let max = job.plan.array.as_ref().and_then(|array| array.running_max);
        max.is_some_and(|max| job.allocations as usize + placed >= max as usize)
    }

    fn shape(&self, job: &Job) -> &'a Shape {
        self.view.shapes.get(job.shape)
    }

    fn demand(&self, shape: &'a Shape, group: usize, pool: PoolId) -> Demand<'a> {
        let floor = self.view.pools[pool].floor.unwrap_or_default();
        Demand::of(shape, &shape.groups[group], &floor)
    }

    fn room(&self, id: NodeId, node: &Node) -> (Room, usize) {
        self.rooms.get(&id).cloned().unwrap_or_else(|| (Room::of(node), 0))
    }

    /// Whether a node takes one more allocation, apart from what is free.
    fn open(&self, id: NodeId, node: &Node, job: &Job) -> Result<(), Unfit> {
        let came = self.room(id, node).1;
        let held = node.allocations.len() + node.leftovers.len() + came;
        if held >= yard_common::limits::NODE_ASSIGNMENTS_MAX {
            return Err(Unfit::Full);
        }
        fit::open(node, self.now_ms, job.plan.time_limit_ms)
    }

    fn placement(
        &mut self,
        job: &Job,
        placement: &Placement,
        nth: usize,
        taken: &mut BTreeSet<TaskIndex>,
    ) {
        let (id, shape) = (placement.job, self.shape(job));
        if self.is_throttled(job, nth) {
            self.report(id, Rule::Throttle(job.allocations));
        }
        self.tasks(job, placement, taken);
        let mut holding = Holding { tasks: 1, ..Holding::default() };
        let mut came = BTreeSet::new();
        for share in &placement.shares {
            let Some(node) = self.view.nodes.get(share.node) else {
                self.report(id, Rule::Unfit(share.node, Unfit::NotUp));
                continue;
            };
            if let Some(ahead) = self.claimed.get(&share.node).copied() {
                self.report(id, Rule::Overtakes(share.node, ahead));
            }
            let demand = self.demand(shape, usize::from(share.group), node.pool);
            let pools = &self.view.queues[job.queue].set.pools;
            let (mut room, count) = self.room(share.node, node);
            let first = came.insert(share.node);
            let open = if first { self.open(share.node, node, job) } else { Ok(()) };
            let fits = fit::allowed(shape, pools, node)
                .and(open)
                .and_then(|()| room.take(&demand, node, &share.gpus));
            if let Err(why) = fits {
                self.report(id, Rule::Unfit(share.node, why));
                continue;
            }
            self.rooms.insert(share.node, (room, count + usize::from(first)));
            let sum = holding.amounts.checked_add(&demand.amounts_on(node));
            holding.amounts = sum.unwrap_or(Amounts::ZERO);
            holding.gpu_parts += share.gpus.total_parts();
        }
        self.gang(shape, placement);
        if let Some(excess) = self.holdings.excess(&State::payers(job), &holding) {
            self.report(id, Rule::Limit(excess));
        }
        self.holdings.add(&State::payers(job), &holding);
    }

    fn tasks(&mut self, job: &Job, placement: &Placement, taken: &mut BTreeSet<TaskIndex>) {
        let tasks: Vec<_> = placement.tasks.iter().flat_map(|range| range.indices()).collect();
        let status = |task: &TaskIndex| job.tasks.get(*task);
        let is_chain = tasks.len() > 1;
        let fresh = |task| status(task).is_some_and(|status| status.tries == Tries::default());
        if tasks.is_empty()
            || tasks.len() > self.policy.chain_max as usize
            || is_chain && !(job.plan.chains() && tasks.iter().all(fresh))
        {
            self.report(placement.job, Rule::Chain);
        }
        for task in tasks {
            let queued = status(&task).is_some_and(|status| status.phase == Phase::Queued);
            if !taken.insert(task) || !queued {
                self.report(placement.job, Rule::Task(task));
            }
        }
    }

    /// All or nothing, and together.
    fn gang(&mut self, shape: &Shape, placement: &Placement) {
        for (at, group) in shape.groups.iter().enumerate() {
            let of_group = placement.shares.iter().filter(|share| usize::from(share.group) == at);
            let nodes: Vec<NodeId> = of_group.map(|share| share.node).collect();
            let distinct: BTreeSet<_> = nodes.iter().collect();
            let count = nodes.len() as u32;
            if distinct.len() != nodes.len()
                || !(group.nodes_min..=group.nodes_max).contains(&count)
            {
                self.report(placement.job, Rule::Group(u8::try_from(at).unwrap_or(u8::MAX)));
            }
        }
        let view = self.view;
        let shares = || {
            let known = |share: &crate::command::ShareChoice| {
                view.nodes.get(share.node).map(|node| (node, share.gpus))
            };
            placement.shares.iter().filter_map(known)
        };
        let pools: BTreeSet<_> = shares().map(|(node, _)| node.pool).collect();
        let model = |(node, gpus): (&'a Node, GpuGrant)| fit::model_of(node, &gpus);
        let models: BTreeSet<_> = shares().filter_map(model).collect();
        let within = shape.place.within.as_deref();
        let level = |(node, _)| within.and_then(|level| fit::label_of(node, level));
        let values: BTreeSet<_> = shares().map(level).collect();
        if pools.len() > 1 || models.len() > 1 || values.len() > 1 {
            self.report(placement.job, Rule::Apart);
        }
        let sorted = placement.shares.is_sorted_by_key(|share| share.group);
        if !sorted || placement.shares.iter().any(|s| usize::from(s.group) >= shape.groups.len()) {
            self.report(placement.job, Rule::Group(u8::MAX));
        }
    }
}
