//! Random lives of a small cluster. After every command the whole state is audited by
//! `State::check`, the slow and obvious version of all books; a state that went through a
//! snapshot goes on exactly like the one that did not; refused commands change nothing.

// A test that cannot go on says so by failing.
#![allow(clippy::unwrap_used)]

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use support::*;
use yard_common::ExitCause;
use yard_common::cause::{LostReason, PrepareStep};
use yard_common::condition::ConditionKind;
use yard_common::id::*;
use yard_core::agent::ReportKind;
use yard_core::command::*;
use yard_core::job::{IsolationClass, JobPlan};
use yard_core::state::State;

/// One thing that happens; numbers pick among what exists.
#[derive(Clone, Debug)]
enum Op {
    Submit { kind: u8, after: u8 },
    Place { job: u8, node: u8, chain: u8 },
    Progress { allocation: u8, how: u8 },
    Job { job: u8, what: u8, task: u8 },
    Node { node: u8, what: u8 },
    Wait { seconds: u16 },
    Restore { seconds: u16 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => any::<(u8, u8)>().prop_map(|(kind, after)| Op::Submit { kind, after }),
        6 => any::<(u8, u8, u8)>().prop_map(|(job, node, chain)| Op::Place { job, node, chain }),
        12 => any::<(u8, u8)>().prop_map(|(allocation, how)| Op::Progress { allocation, how }),
        4 => any::<(u8, u8, u8)>().prop_map(|(job, what, task)| Op::Job { job, what, task }),
        3 => any::<(u8, u8)>().prop_map(|(node, what)| Op::Node { node, what }),
        3 => (0..2_000u16).prop_map(|seconds| Op::Wait { seconds }),
        1 => (0..2_000u16).prop_map(|seconds| Op::Restore { seconds }),
    ]
}

fn pick<T: Copy>(from: &[T], number: u8) -> Option<T> {
    from.get(usize::from(number) % from.len().max(1)).copied()
}

fn plan_of(kind: u8) -> JobPlan {
    let mut plan = match kind % 6 {
        0 => single(),
        1 => gang(2, 2),
        2 => array(u32::from(kind % 40) + 2),
        3 => with_gpus(1),
        4 => gang(3, 1),
        _ => {
            let mut plan = array(12);
            plan.array.as_mut().unwrap().failures_max = Some(2);
            plan.array.as_mut().unwrap().running_max = Some(2);
            plan
        }
    };
    plan.retry.user = u16::from(kind % 3);
    plan.priority = i32::from(kind % 5) - 2;
    plan.time_limit_ms = kind.is_multiple_of(4).then_some(600_000);
    plan.stall_kill_ms = kind.is_multiple_of(3).then_some(20_000);
    plan.isolation.class = match kind % 7 {
        0 => IsolationClass::Tolerant,
        1 | 2 => IsolationClass::Strict,
        _ => IsolationClass::Fenced,
    };
    plan
}

struct World {
    lab: Lab,
    nodes: Vec<NodeId>,
    jobs: Vec<JobId>,
    boots: u128,
}

impl World {
    fn new() -> World {
        let mut lab = Lab::new();
        let nodes = (0..4).map(|i| lab.join(&format!("n{i}"), 4, &["h100", "h100"])).collect();
        World { lab, nodes, jobs: Vec::new(), boots: 10 }
    }

    fn allocations(&self) -> Vec<AllocationId> {
        self.lab.state.allocations.iter().map(|(id, _)| id).collect()
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Submit { kind, after } => self.submit(kind, after),
            Op::Place { job, node, chain } => self.place(job, node, chain),
            Op::Progress { allocation, how } => {
                if let Some(id) = pick(&self.allocations(), allocation) {
                    self.progress(id, how);
                }
            }
            Op::Job { job, what, task } => self.change_job(job, what, task),
            Op::Node { node, what } => self.change_node(node, what),
            Op::Wait { seconds } => self.lab.wait(u64::from(seconds) * 1_000),
            Op::Restore { seconds } => {
                let incarnation = Incarnation(self.lab.state.incarnation.0 + 1);
                let restored =
                    Cluster::Restored { incarnation, after_ms: u64::from(seconds) * 1_000 };
                self.lab.ok(Actor::Leader, Command::Cluster(restored));
                assert!(self.lab.state.nodes.iter().all(|(_, node)| node.resync));
            }
        }
    }

    fn submit(&mut self, kind: u8, after: u8) {
        let mut plan = plan_of(kind);
        let same_range = |job: &JobId| {
            self.lab.state.jobs.get(*job).is_some_and(|job| job.tasks.range() == plan.tasks())
        };
        match (after % 8, pick(&self.jobs, after)) {
            (0, Some(job)) => plan.after.ok = vec![job],
            (1, Some(job)) => plan.after.any = vec![job],
            (2, Some(job)) => plan.after.failed = vec![job],
            (3, Some(job)) if same_range(&job) => plan.after.each = vec![job],
            _ => (),
        }
        let request = self.lab.request();
        let submit = Command::Job(JobCommand::Submit(Box::new(self.lab.submission(plan))));
        let user = self.lab.user();
        if let Ok(Reply::Job(job)) = self.lab.apply(user, Some(request), submit.clone()).reply {
            self.jobs.push(job);
            let again = self.lab.apply(user, Some(request), submit).reply;
            assert_eq!(again, Ok(Reply::Job(job)), "a retry finds the same job");
        }
    }

    /// Tries to place; the state says whether it fits.
    fn place(&mut self, job: u8, node: u8, chain: u8) {
        let Some(job) = pick(&self.jobs, job) else { return };
        let Some(record) = self.lab.state.jobs.get(job) else { return };
        let shape = record.plan.shape.clone();
        let Some((run, _)) = record.tasks.queued().next() else { return };
        let len = if shape.is_single_node() { run.len.min(u32::from(chain % 5) + 1) } else { 1 };
        let gpus = shape.groups[0].gpus.parts() > 0;
        let count = shape.groups[0].nodes_min as usize;
        let start = usize::from(node) % self.nodes.len();
        let chosen = self.nodes.iter().cycle().skip(start).take(count);
        let shares = chosen.map(|node| ShareChoice {
            node: *node,
            group: 0,
            gpus: if gpus { devices([usize::from(chain) % 2]) } else { devices([]) },
        });
        let tasks = vec![TaskRange { first: run.first, len }];
        let placement = Placement { job, tasks, shares: shares.collect() };
        let _ = self.lab.try_place(placement);
    }

    /// One node of an allocation goes one step on, as an agent would.
    fn progress(&mut self, id: AllocationId, how: u8) {
        let it = self.lab.state.allocations[id].clone();
        let Some(share) = it.shares.get(usize::from(how) % it.shares.len()) else { return };
        let (node, alone) = (share.node, it.shares.len() == 1);
        if self.lab.state.nodes[node].state == yard_common::state::NodeState::Lost {
            return;
        }
        let cause = match how % 11 {
            0..=4 => ExitCause::Exited(0),
            5 => ExitCause::Exited(1),
            6 => ExitCause::OutOfMemory,
            7 => ExitCause::Lost(LostReason::Shim),
            8 => ExitCause::PrepareFailed(PrepareStep::Mount),
            _ => ExitCause::Signaled(11),
        };
        match how / 11 % 8 {
            0 => drop(self.lab.report(node, id, ReportKind::Ready)),
            1 if it.started < it.keep || !alone => self.lab.start(node, id, 1),
            4 if alone && it.keep < it.len => {
                let tail = it.chain.slice(it.keep.max(it.started), it.len);
                self.lab.report(node, id, ReportKind::Recalled(tail));
            }
            5 => self.lab.reap(node, id),
            6 => {
                let for_ms = u64::from(how) * 100;
                self.lab.report(node, id, ReportKind::Silent { for_ms });
            }
            7 => drop(self.lab.report(node, id, ReportKind::Active)),
            _ if !it.left().is_empty() => self.lab.exit(node, id, cause),
            _ => (),
        }
    }

    fn change_job(&mut self, job: u8, what: u8, task: u8) {
        let Some(job) = pick(&self.jobs, job) else { return };
        let tasks =
            what.is_multiple_of(2).then(|| TaskRange { first: u32::from(task % 6), len: 3 });
        let reason = String::new();
        let change = Adjust {
            priority: Some(i32::from(task % 9) - 4),
            time_limit_ms: Some(u64::from(task) * 1_000 + 1),
            running_max: None,
        };
        let command = match what / 2 % 8 {
            0 | 1 => JobCommand::Cancel { job, tasks, reason },
            2 => JobCommand::Requeue { job, tasks },
            3 => JobCommand::Hold { job, reason },
            4 => JobCommand::Release(job),
            5 => JobCommand::Suspend { job, reason },
            6 => JobCommand::Resume(job),
            _ => JobCommand::Adjust { job, change },
        };
        let user = self.lab.user();
        self.try_command(user, Command::Job(command));
    }

    fn change_node(&mut self, node: u8, what: u8) {
        let Some(node) = pick(&self.nodes, node) else { return };
        let record = &self.lab.state.nodes[node];
        let (lease, membership) = (record.lease, self.lab.state.membership.id);
        let plan = DrainPlan {
            in_ms: u64::from(what) * 100,
            deadline_ms: what.is_multiple_of(3).then_some(60_000),
            reason: String::new(),
        };
        let gpu = || format!("GPU-n{}-{}", node.0, what % 3);
        let command = match what % 14 {
            0 => NodeCommand::Suspect { node, lease },
            1 | 2 => NodeCommand::Lost(yard_core::lease::Lost { node, lease, membership }),
            3 | 4 => NodeCommand::Returned { node, lease },
            5 => NodeCommand::Lift(yard_core::lease::Lift { node, lease }),
            6 => NodeCommand::Drain { node, plan },
            7 => NodeCommand::Undrain(node),
            8 => NodeCommand::DrainGpu { node, gpu: gpu(), reason: String::new() },
            9 => NodeCommand::UndrainGpu { node, gpu: gpu() },
            10 => NodeCommand::Check(node),
            11 => return self.change_health(node, what),
            12 => return self.change_setup(what),
            _ => {
                self.boots += 1;
                let inventory = inventory(&format!("n{}", node.0), 4, &["h100"; 2], self.boots);
                NodeCommand::Update { node, inventory }
            }
        };
        let actor = match &command {
            NodeCommand::Update { .. } => Actor::Node(node),
            NodeCommand::Drain { .. }
            | NodeCommand::Undrain(_)
            | NodeCommand::DrainGpu { .. }
            | NodeCommand::UndrainGpu { .. }
            | NodeCommand::Check(_) => self.lab.user(),
            _ => Actor::Leader,
        };
        self.try_command(actor, Command::Node(command));
    }

    /// The pool wants another setup, or none.
    fn change_setup(&mut self, what: u8) {
        let setup = Setup {
            command: format!("echo {}", what % 3),
            variables: Vec::new(),
            timeout_ms: 1_000,
        };
        let setup = Some(setup).filter(|_| !what.is_multiple_of(5));
        let command = Command::Holder(Holder::SetSetup(self.lab.pool, setup));
        self.try_command(self.lab.user(), command);
    }

    /// The node does the check that it was asked for, and finds other things wrong than before.
    fn change_health(&mut self, node: NodeId, what: u8) {
        let Some(found) = self.lab.state.nodes.get(node) else { return };
        let mut inventory = (*found.facts).clone();
        inventory.checked = found.check;
        let id = self.lab.state.pools[found.pool].setup_id;
        let stages = [SetupStage::Running, SetupStage::Failed, SetupStage::Done];
        let stage = stages[usize::from(what) % stages.len()];
        inventory.setup = Some(SetupReport { id, stage, since_wall_ms: 1 });
        let kinds = [ConditionKind::GpuFault, ConditionKind::CheckFailed, ConditionKind::ClockOff];
        let some = kinds.into_iter().filter(|kind| what.is_multiple_of(2 + *kind as u8));
        let condition = |kind| Condition {
            kind,
            device: (kind == ConditionKind::GpuFault).then_some(0),
            since_wall_ms: 1,
            why: String::new(),
            until_boot: false,
        };
        inventory.conditions = some.map(condition).collect();
        inventory.conditions.sort_by_key(|one| (one.kind, one.device));
        for device in inventory.devices.iter_mut().take(1) {
            device.healthy = !inventory.conditions.iter().any(|one| one.device == Some(0));
        }
        let command = Command::Node(NodeCommand::Update { node, inventory });
        self.try_command(Actor::Node(node), command);
    }

    /// Applies a command that may be refused; then nothing may have changed but the clock and
    /// what it let happen.
    fn try_command(&mut self, actor: Actor, command: Command) {
        let before = tables(&self.lab.state);
        if self.lab.apply(actor, None, command).reply.is_err() {
            assert_eq!(tables(&self.lab.state), before, "a refused command left a trace");
        }
    }
}

/// The tables without position, clock and hashes.
fn tables(state: &State) -> Vec<u8> {
    let blank = State::default();
    let mut state = state.clone();
    state.applied = blank.applied;
    state.clock = blank.clock;
    state.history_hash = 0;
    state.digest = blank.digest;
    state.to_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_life_keeps_the_books(ops in vec(op(), 1..120)) {
        let mut world = World::new();
        for op in &ops {
            world.step(op);
        }
    }

    #[test]
    fn a_snapshot_goes_on_like_the_original(ops in vec(op(), 1..80), at in 0..80usize) {
        let mut world = World::new();
        world.lab.audit = false;
        let mut copy = None;
        for (i, op) in ops.iter().enumerate() {
            if i == at.min(ops.len() - 1) {
                copy = Some(State::from_bytes(&world.lab.state.to_bytes()).unwrap());
            }
            world.lab.log = Some(Vec::new());
            world.step(op);
            for (index, envelope, command) in world.lab.log.iter().flatten() {
                if let Some(copy) = &mut copy {
                    let _ = copy.apply(*index, envelope, command);
                }
            }
        }
        let copy = copy.unwrap();
        prop_assert_eq!(copy.history_hash, world.lab.state.history_hash);
        prop_assert_eq!(copy.digest, world.lab.state.digest);
        prop_assert!(copy.to_bytes() == world.lab.state.to_bytes());
    }
}
