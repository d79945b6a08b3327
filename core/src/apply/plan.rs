//! Commits what the scheduler decided: every placement is checked again, and taken whole or not
//! at all.

use super::Context;
use crate::agent::{Chain, ChainLink};
use crate::command::{Object, Placement, Plan, Promise, Rejection, Reply, ShareChoice};
use crate::event::Event;
use crate::fit::{self, Demand, Room, Unfit};
use crate::job::{Decides, IsolationClass, Shape};
use crate::mutant;
use crate::state::{Allocation, Holding, Job, Phase, Share, State, TaskStatus, Timer};
use std::collections::BTreeMap;
use yard_common::ExitCause;
use yard_common::id::{AllocationId, AttemptNumber, NodeId, PoolId, TaskRange};
use yard_common::limits::{BARRIER_SLACK_MS, CHAIN_TASKS_MAX, GANG_NODES_MAX, PLAN_PLACEMENTS_MAX};
use yard_common::state::{AssignmentState, AttemptState};

/// A placement that was checked: all that is left is to take it.
struct Checked {
    /// The tasks with the attempts that are minted for them.
    chain: Chain,
    shares: Vec<Share>,
    holding: Holding,
}

impl State {
    pub(super) fn run_plan(
        &mut self,
        context: &mut Context,
        plan: &Plan,
    ) -> Result<Reply, Rejection> {
        if plan.placements.len() > PLAN_PLACEMENTS_MAX {
            let problem = format!("{} in one plan", plan.placements.len());
            return Err(Rejection::invalid("placements", problem));
        }
        if plan
            .stops
            .iter()
            .any(|stop| !matches!(stop.cause, ExitCause::Preempted | ExitCause::Resized))
        {
            return Err(Rejection::invalid("stops", "a plan stops for Preempted or Resized only"));
        }
        for stop in &plan.stops {
            if self.allocations.contains(stop.allocation) {
                self.begin_stop(context, stop.allocation, stop.cause);
            }
        }
        let placed = plan.placements.iter().map(|placement| self.place(context, placement));
        let placements = placed.collect();
        self.reservations = Default::default();
        for promise in &plan.promises {
            self.promise(promise);
        }
        Ok(Reply::Planned { placements })
    }

    /// Keeps a promise in the books, if it still makes sense.
    fn promise(&mut self, promise: &Promise) {
        let job = self.jobs.get(promise.job);
        let status = job.and_then(|job| job.tasks.get(promise.task));
        let waits = status.is_some_and(|status| status.phase == Phase::Queued);
        if waits && promise.nodes.iter().all(|node| self.nodes.get(*node).is_some()) {
            self.reservations.insert((promise.job, promise.task), promise.clone());
        }
    }

    /// Starts one attempt, or one chain of attempts.
    fn place(
        &mut self,
        context: &mut Context,
        placement: &Placement,
    ) -> Result<AllocationId, Rejection> {
        let checked = self.check_placement(context.now_ms, placement)?;
        let id = self.allocations.next_id();
        let job = &self.jobs[placement.job];
        let (payers, shape) = (State::payers(job), job.shape);
        let prepare_ms = job.plan.prepare_ms.saturating_add(BARRIER_SLACK_MS);
        let strict = job.plan.isolation.class == IsolationClass::Strict;
        let first_rank_decides = job.plan.decides == Decides::FirstRank;
        for share in &checked.shares {
            let node = &mut self.nodes[share.node];
            node.take(&share.amounts, &share.gpus);
            node.allocations.insert(id, ());
        }
        self.holdings.add(&payers, &checked.holding);
        self.shapes.share(shape);
        self.jobs[placement.job].allocations += 1;
        for link in &checked.chain.0 {
            let (job, tasks, attempt) = (placement.job, link.tasks, link.attempt);
            context.events.push(Event::Granted { allocation: id, job, tasks, attempt });
            // Tasks with the same next attempt may differ in what their last ones left behind.
            let mut from = tasks.first;
            while let Some((run, status)) = self.jobs[job].tasks.next_run(from, tasks.end()) {
                from = run.end();
                let new = TaskStatus { phase: Phase::Preparing(id), attempt, ..status };
                self.set_tasks(context, job, run, new);
            }
            self.drop_promises(job, tasks);
        }
        // One node has no gang to wait for: it starts as soon as it is prepared.
        let alone = checked.shares.len() == 1;
        let state = if alone { AttemptState::Running } else { AttemptState::Preparing };
        let deadline_ms = context.now_ms.saturating_add(prepare_ms);
        self.timers.set(deadline_ms, Timer::Deadline(id));
        self.allocations.push(Allocation {
            job: placement.job,
            shape,
            len: checked.chain.len(),
            keep: checked.chain.len(),
            chain: checked.chain,
            started: 0,
            ended: 0,
            shares: checked.shares,
            state,
            cause: None,
            granted_ms: context.now_ms,
            deadline_ms: Some(deadline_ms),
            cancelled: Vec::new(),
            first_rank_decides,
            strict,
            stall_ms: None,
        });
        self.push_desired(context, id);
        Ok(id)
    }

    /// Checks a placement against the state as it is now.
    fn check_placement(&self, now_ms: u64, placement: &Placement) -> Result<Checked, Rejection> {
        let object = Object::Job(placement.job);
        let job = self.jobs.get(placement.job).ok_or(Rejection::NotFound(object))?;
        let waits = job.waits.any() && !mutant!("hold_ignored");
        if waits || !self.queues[job.queue].set.starts {
            return Err(Rejection::DoesNotFit("its job or queue starts nothing now".into()));
        }
        let shape = self.shapes.get(job.shape);
        let chain = check_chain(job, &placement.tasks)?;
        let running_max = job.plan.array.as_ref().and_then(|array| array.running_max);
        let throttled = running_max.is_some_and(|max| job.allocations >= max);
        if throttled && !mutant!("throttle_ignored") {
            return Err(Rejection::DoesNotFit("as many tasks of the array run as may".into()));
        }
        let shares = self.check_shares(now_ms, job, shape, &placement.shares)?;
        let holding = Holding {
            amounts: shares.iter().try_fold(yard_common::Amounts::ZERO, |sum, share| {
                sum.checked_add(&share.amounts).ok_or(unfit("amounts", Unfit::CpusEver))
            })?,
            gpu_parts: shares.iter().map(|share| share.gpus.total_parts()).sum(),
            tasks: 1,
            jobs: 0,
        };
        if let Some(excess) = self.holdings.excess(&State::payers(job), &holding) {
            return Err(Rejection::LimitReached { what: excess.what.into(), limit: excess.limit });
        }
        Ok(Checked { chain, shares, holding })
    }

    /// Checks that the shares make up the gang, and that each fits its node.
    fn check_shares(
        &self,
        now_ms: u64,
        job: &Job,
        shape: &Shape,
        choices: &[ShareChoice],
    ) -> Result<Vec<Share>, Rejection> {
        check_groups(shape, choices)?;
        let first = choices.first().and_then(|choice| self.nodes.get(choice.node));
        let first = first.ok_or(Rejection::DoesNotFit("the first node does not exist".into()))?;
        let floor = self.pools[first.pool].floor.unwrap_or_default();
        let within = shape.place.within.as_deref();
        let same_place = within.and_then(|level| fit::label_of(first, level));
        let queue_pools = &self.queues[job.queue].set.pools;
        // Only groups can share a node; the shares of one lie on different ones.
        let mut rooms: BTreeMap<NodeId, Room> = BTreeMap::new();
        let shared = shape.groups.len() > 1;
        let mut model = None;
        let mut shares = Vec::with_capacity(choices.len());
        for choice in choices {
            let node = self.nodes.get(choice.node);
            let node = node.ok_or(Rejection::DoesNotFit("a node does not exist".into()))?;
            let name = &node.name;
            check_pool(first.pool, node.pool)?;
            if within.is_some_and(|level| fit::label_of(node, level) != same_place) {
                return Err(unfit(name, Unfit::Label));
            }
            fit::allowed(shape, queue_pools, node).map_err(|why| unfit(name, why))?;
            fit::open(node, now_ms, job.plan.time_limit_ms).map_err(|why| unfit(name, why))?;
            let group = &shape.groups[usize::from(choice.group)];
            let demand = Demand::of(shape, group, &floor);
            let mut alone = None;
            let room = match shared {
                true => rooms.entry(choice.node).or_insert_with(|| Room::of(node)),
                false => alone.insert(Room::of(node)),
            };
            room.take(&demand, node, &choice.gpus).map_err(|why| unfit(name, why))?;
            let its_model = fit::model_of(node, &choice.gpus);
            if its_model.is_some() && *model.get_or_insert(its_model) != its_model {
                return Err(unfit(name, Unfit::GpuKind));
            }
            shares.push(Share {
                node: choice.node,
                group: choice.group,
                amounts: demand.amounts_on(node),
                gpus: choice.gpus,
                state: AssignmentState::Preparing,
                exit: None,
                silent_ms: None,
            });
        }
        Ok(shares)
    }
}

/// A node that does not take its share.
fn unfit(node: &str, why: Unfit) -> Rejection {
    Rejection::DoesNotFit(format!("node {node}: {why:?}"))
}

/// A gang lies in one pool: amounts that are left to the cluster are a share of its nodes.
fn check_pool(first: PoolId, pool: PoolId) -> Result<(), Rejection> {
    if first == pool {
        Ok(())
    } else {
        Err(Rejection::DoesNotFit("the nodes of a gang are of one pool".into()))
    }
}

/// Checks that the tasks all wait in the queue, and mints their attempts.
fn check_chain(job: &Job, tasks: &[TaskRange]) -> Result<Chain, Rejection> {
    let mut chain = Chain::default();
    let mut end = None;
    for range in tasks {
        let count = chain.len().saturating_add(range.len);
        if range.len == 0 || end.is_some_and(|end| range.first < end) || count > CHAIN_TASKS_MAX {
            let problem = "ranges of a chain rise, are not empty, and hold few tasks";
            return Err(Rejection::invalid("tasks", problem));
        }
        end = Some(range.end());
        let mut covered = 0;
        for (run, status) in job.tasks.within(*range) {
            if status.phase != Phase::Queued {
                let what = format!("task {run} is {}", status.phase.state());
                return Err(Rejection::DoesNotFit(what));
            }
            covered += run.len;
            let attempt = AttemptNumber(match status.attempt.0 {
                // The bug: a retry looks like the attempt before it.
                number if mutant!("attempt_reused") => number.max(1),
                number => number + 1,
            });
            match chain.0.last_mut() {
                Some(last) if last.attempt == attempt && last.tasks.end() == run.first => {
                    last.tasks.len += run.len;
                }
                Some(_) | None => chain.0.push(ChainLink { tasks: run, attempt }),
            }
        }
        if covered != range.len {
            return Err(Rejection::DoesNotFit(format!("no such tasks: {range}")));
        }
    }
    match chain.len() {
        0 => Err(Rejection::invalid("tasks", "a placement has at least one task")),
        1 => Ok(chain),
        _ if job.plan.chains() => Ok(chain),
        _ => Err(Rejection::invalid("tasks", "only tasks of one node, not strict, form a chain")),
    }
}

/// Checks that every group has as many machines as it asks for, each at most once.
fn check_groups(shape: &Shape, choices: &[ShareChoice]) -> Result<(), Rejection> {
    if choices.len() > GANG_NODES_MAX as usize {
        return Err(Rejection::invalid("shares", "more nodes than a gang may have"));
    }
    if !choices.is_sorted_by_key(|choice| choice.group) {
        return Err(Rejection::invalid("shares", "shares come group by group"));
    }
    let key = |choice: &ShareChoice| (choice.group, choice.node);
    // The scheduler names them in order, in which equal ones would be neighbours.
    if !choices.is_sorted_by(|a, b| key(a) < key(b)) {
        let mut seen: Vec<_> = choices.iter().map(key).collect();
        seen.sort_unstable();
        if seen.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Rejection::invalid("shares", "the machines of a group are different"));
        }
    }
    for (position, group) in shape.groups.iter().enumerate() {
        let of_group = choices.iter().filter(|choice| usize::from(choice.group) == position);
        let count = of_group.count() as u64;
        if count < u64::from(group.nodes_min) || count > u64::from(group.nodes_max) {
            let what = format!("group {} has {count} nodes", group.name);
            return Err(Rejection::DoesNotFit(what));
        }
    }
    match choices.last() {
        Some(last) if usize::from(last.group) >= shape.groups.len() => {
            Err(Rejection::invalid("shares", "there is no such group"))
        }
        Some(_) => Ok(()),
        None => Err(Rejection::invalid("shares", "a placement has at least one node")),
    }
}
