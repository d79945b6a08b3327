//! A cluster in one value: applies commands the way a log would, and audits the state after each.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use yard_common::ExitCause;
use yard_common::amount::Amounts;
use yard_common::gpu::{DeviceSet, GpuCount, GpuDevice, GpuGrant, GpuRequest};
use yard_common::id::*;
use yard_common::{Bytes, gpu::GPU_PARTS};
use yard_core::agent::{AssignmentId, ChainLink, Exit, Report, ReportKind};
use yard_core::command::*;
use yard_core::event::{Applied, Event};
use yard_core::job::*;
use yard_core::retry::RetryPolicy;
use yard_core::state::State;

pub const GIB: u64 = 1 << 30;

/// A raise of the feature level in a cluster without members.
pub fn raise_to(level: u32) -> Raise {
    let level = FeatureLevel(level);
    Raise { level, version: "0.1.0".into(), understood_by: Default::default() }
}

pub struct Lab {
    pub state: State,
    pub now_ms: u64,
    pub admin: PrincipalId,
    pub pool: PoolId,
    pub queue: QueueId,
    pub workspace: WorkspaceId,
    pub leader: LeaderId,
    pub last: Option<Applied>,
    /// Whether the whole state is audited after each command.
    pub audit: bool,
    /// What was applied, if it is recorded.
    pub log: Option<Vec<(LogIndex, Envelope, Command)>>,
    requests: u128,
    sequences: BTreeMap<NodeId, u64>,
}

impl Lab {
    /// A fresh cluster with its administrator, and the workspace, pool and queue `default`.
    pub fn new() -> Lab {
        let mut lab = Lab {
            state: State::default(),
            now_ms: 1_000,
            admin: PrincipalId(0),
            pool: PoolId(0),
            queue: QueueId(0),
            workspace: WorkspaceId(0),
            leader: LeaderId { term: 1, member: MemberId(1) },
            last: None,
            audit: true,
            log: None,
            requests: 1,
            sequences: BTreeMap::new(),
        };
        lab.ok(Actor::Leader, Command::Cluster(Cluster::LeaderStarted));
        let cluster = ClusterId::from_u128(7);
        let admin = "root-admin".to_string();
        let initialise = Cluster::Initialise { cluster, admin, unix: Some("ada".into()) };
        lab.ok(Actor::Leader, Command::Cluster(initialise));
        lab
    }

    /// Goes on from a state.
    pub fn of(state: State, now_ms: u64) -> Lab {
        let leader = state.leader.expect("the state has a leader");
        let (pool, queue, workspace) = (PoolId(0), QueueId(0), WorkspaceId(0));
        Lab {
            state,
            now_ms,
            admin: PrincipalId(0),
            pool,
            queue,
            workspace,
            leader,
            last: None,
            audit: true,
            log: None,
            requests: 1 << 64,
            sequences: BTreeMap::new(),
        }
    }

    /// Applies a command.
    pub fn apply(&mut self, actor: Actor, request: Option<RequestId>, command: Command) -> Applied {
        let _ = self.apply_to_state(actor, request, &command);
        self.last.clone().expect("a command was applied")
    }

    fn apply_to_state(
        &mut self,
        actor: Actor,
        request: Option<RequestId>,
        command: &Command,
    ) -> Result<Reply, Rejection> {
        let stamp = Stamp { cluster_ms: self.now_ms, wall_ms: 1_800_000_000_000 + self.now_ms };
        let envelope = Envelope { actor, leader: self.leader, stamp, request };
        let index = LogIndex(self.state.applied.0 + 1);
        let applied = self.state.apply(index, &envelope, command);
        if let Some(log) = &mut self.log {
            log.push((index, envelope, command.clone()));
        }
        if self.audit {
            let violations = self.state.check();
            assert!(violations.is_empty(), "after {command:?}:\n{violations:#?}");
        }
        let reply = applied.reply.clone();
        self.last = Some(applied);
        reply
    }

    /// Applies a command that must be accepted.
    #[track_caller]
    pub fn ok(&mut self, actor: Actor, command: Command) -> Reply {
        match self.apply_to_state(actor, None, &command) {
            Ok(reply) => reply,
            Err(why) => panic!("{command:?} was refused: {why}"),
        }
    }

    /// Applies a command that must be refused.
    #[track_caller]
    pub fn refused(&mut self, actor: Actor, command: Command) -> Rejection {
        match self.apply_to_state(actor, None, &command) {
            Ok(reply) => panic!("{command:?} was accepted: {reply:?}"),
            Err(why) => why,
        }
    }

    pub fn user(&self) -> Actor {
        Actor::User(self.admin)
    }

    /// Lets time pass, and timers fire.
    pub fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
        self.ok(Actor::Leader, Command::Cluster(Cluster::Tick));
    }

    /// A machine joins the default pool.
    pub fn join(&mut self, name: &str, cpus: u64, gpus: &[&str]) -> NodeId {
        let secret = [7; 32];
        let token = TokenId::from_u128(self.state.nodes.records().next_id().0 as u128 + 1);
        let scope = Scope::Join(self.pool);
        let add = Access::AddToken { token, secret_sha256: secret, scope, life_ms: 60_000 };
        self.ok(self.user(), Command::Access(add));
        let inventory = inventory(name, cpus, gpus, 1);
        let name = name.to_string();
        let join = NodeCommand::Join { token, secret_sha256: secret, name, inventory };
        match self.ok(Actor::Bearer, Command::Node(join)) {
            Reply::Node { node, .. } => node,
            other => panic!("{other:?}"),
        }
    }

    pub fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId::from_u128(self.requests)
    }

    /// Submits a job that must be accepted.
    #[track_caller]
    pub fn submit(&mut self, plan: JobPlan) -> JobId {
        let request = self.request();
        let submit = self.submission(plan);
        let command = Command::Job(JobCommand::Submit(Box::new(submit)));
        match self.apply(self.user(), Some(request), command).reply {
            Ok(Reply::Job(job)) => job,
            other => panic!("{other:?}"),
        }
    }

    /// Submits a job of another user, which must be accepted.
    #[track_caller]
    pub fn submit_as(&mut self, actor: Actor, plan: JobPlan) -> JobId {
        let request = self.request();
        let command = Command::Job(JobCommand::Submit(Box::new(self.submission(plan))));
        match self.apply(actor, Some(request), command).reply {
            Ok(Reply::Job(job)) => job,
            other => panic!("{other:?}"),
        }
    }

    /// A new user with these roles.
    #[track_caller]
    pub fn add_user(&mut self, name: &str, grants: Vec<Grant>) -> Actor {
        let add = Access::AddUser { name: name.into(), unix: None, grants };
        match self.ok(self.user(), Command::Access(add)) {
            Reply::Made(Object::User(user)) => Actor::User(user),
            other => panic!("{other:?}"),
        }
    }

    pub fn submission(&self, plan: JobPlan) -> Submit {
        let (workspace, queue) = (self.workspace, self.queue);
        Submit { workspace, queue, experiment: None, plan, spec: "{}".into() }
    }

    #[track_caller]
    pub fn job(&mut self, command: JobCommand) -> Reply {
        self.ok(self.user(), Command::Job(command))
    }

    #[track_caller]
    pub fn cancel(&mut self, job: JobId, tasks: Option<TaskRange>) {
        self.job(JobCommand::Cancel { job, tasks, reason: String::new() });
    }

    /// Places tasks of a job on nodes, one share each of group 0, without GPUs.
    #[track_caller]
    pub fn place(&mut self, job: JobId, tasks: TaskRange, nodes: &[NodeId]) -> AllocationId {
        let share = |node: &NodeId| ShareChoice { node: *node, group: 0, gpus: GpuGrant::NONE };
        let shares = nodes.iter().map(share).collect();
        self.try_place(Placement { job, tasks: vec![tasks], shares }).unwrap()
    }

    pub fn try_place(&mut self, placement: Placement) -> Result<AllocationId, Rejection> {
        let plan = Plan { placements: vec![placement], ..Plan::default() };
        match self.ok(Actor::Leader, Command::Plan(plan)) {
            Reply::Planned { placements } => placements[0].clone(),
            other => panic!("{other:?}"),
        }
    }

    /// A node reports something of group 0.
    #[track_caller]
    pub fn report(&mut self, node: NodeId, allocation: AllocationId, what: ReportKind) -> Reply {
        let command = self.report_of(node, allocation, what);
        self.ok(Actor::Node(node), command)
    }

    pub fn report_of(
        &mut self,
        node: NodeId,
        allocation: AllocationId,
        what: ReportKind,
    ) -> Command {
        let sequence = self.next_sequence(node);
        let assignment = AssignmentId { allocation, group: 0 };
        let reports = vec![Report { sequence, assignment, what }];
        Command::Report(NodeReport { node, reports })
    }

    pub fn next_sequence(&mut self, node: NodeId) -> Sequence {
        let sequence = self.sequences.entry(node).or_insert(0);
        *sequence += 1;
        Sequence(*sequence)
    }

    /// The next tasks of a chain start.
    #[track_caller]
    pub fn start(&mut self, node: NodeId, allocation: AllocationId, count: u32) {
        let it = &self.state.allocations[allocation];
        let from = if it.shares.len() == 1 { it.started } else { 0 };
        let chain = it.chain.slice(from, from + count);
        self.report(node, allocation, ReportKind::Started(chain));
    }

    /// The next task of a chain, or the share of a gang, ends.
    #[track_caller]
    pub fn exit(&mut self, node: NodeId, allocation: AllocationId, cause: ExitCause) {
        let (index, attempt) = self.state.allocations[allocation].left().tasks().next().unwrap();
        let link = ChainLink { tasks: TaskRange::one(index), attempt };
        let exit = Exit { link, cause, status: None, rank: None };
        self.report(node, allocation, ReportKind::Exited(vec![exit]));
    }

    #[track_caller]
    pub fn reap(&mut self, node: NodeId, allocation: AllocationId) {
        self.report(node, allocation, ReportKind::Reaped);
    }

    /// Starts, ends and reaps an attempt on one node.
    #[track_caller]
    pub fn run_to_end(&mut self, node: NodeId, allocation: AllocationId, cause: ExitCause) {
        self.start(node, allocation, 1);
        self.exit(node, allocation, cause);
        self.reap(node, allocation);
    }

    pub fn lose(&mut self, node: NodeId) {
        let (lease, membership) = (self.state.nodes[node].lease, self.state.membership.id);
        let lost = yard_core::lease::Lost { node, lease, membership };
        self.ok(Actor::Leader, Command::Node(NodeCommand::Lost(lost)));
    }

    pub fn bring_back(&mut self, node: NodeId) {
        let lease = self.state.nodes[node].lease;
        self.ok(Actor::Leader, Command::Node(NodeCommand::Returned { node, lease }));
    }

    /// What the last command led to.
    pub fn events(&self) -> &[Event] {
        self.last.as_ref().map_or(&[], |applied| &applied.events)
    }

    /// The states of all tasks of a job, as `Queued Running ..`.
    pub fn states(&self, job: JobId) -> String {
        let states = self.state.jobs[job]
            .tasks
            .iter()
            .map(|(run, status)| format!("{run}:{}", status.phase.state()));
        states.collect::<Vec<_>>().join(" ")
    }
}

/// A machine with 4 GiB of memory a CPU, and GPUs of 80 GiB.
pub fn inventory(name: &str, cpus: u64, gpus: &[&str], boot: u128) -> Inventory {
    let device = |(position, model): (usize, &&str)| GpuDevice {
        uuid: format!("GPU-{name}-{position}"),
        model: (*model).to_string(),
        memory: Bytes(80 * GIB),
        mig: None,
        healthy: true,
    };
    Inventory {
        boot: BootId::from_u128(boot),
        amounts: Amounts {
            cpu_milli: cpus * 1000,
            memory_bytes: cpus * 4 * GIB,
            disk_bytes: 100 * GIB,
        },
        devices: gpus.iter().enumerate().map(device).collect(),
        labels: vec![("rack".into(), "r1".into())],
        address: name.into(),
        version: "0.1.0".into(),
        conditions: Vec::new(),
        checked: 0,
        setup: None,
    }
}

/// A job of one task on one node with one CPU.
pub fn single() -> JobPlan {
    JobPlan {
        name: "job".into(),
        shape: Shape {
            pool: None,
            exclusive: false,
            groups: vec![group(1, 1)],
            place: Place::default(),
        },
        priority: 0,
        time_limit_ms: None,
        not_before_wall_ms: None,
        after: After::default(),
        hold: false,
        preemptible: None,
        retry: RetryPolicy::default(),
        grace_ms: 30_000,
        prepare_ms: 900_000,
        isolation: Isolation { class: IsolationClass::Fenced, lease_ms: None },
        decides: Decides::EveryRank,
        array: None,
        any_of: Vec::new(),
        stall_kill_ms: None,
    }
}

/// A gang of nodes with so many CPUs each.
pub fn gang(nodes: u32, cpus: u64) -> JobPlan {
    let mut plan = single();
    plan.shape.groups = vec![group(nodes, cpus)];
    plan
}

/// An array of so many tasks on one node with one CPU.
pub fn array(len: u32) -> JobPlan {
    let tasks = TaskRange { first: 0, len };
    let array = Some(Array { tasks, running_max: None, failures_max: None, shown: Vec::new() });
    JobPlan { array, ..single() }
}

/// A job of one node with so many GPUs.
pub fn with_gpus(count: u16) -> JobPlan {
    let mut plan = single();
    plan.shape.groups[0].gpus = GpuRequest { count: GpuCount::Whole(count), ..GpuRequest::NONE };
    plan
}

pub fn group(nodes: u32, cpus: u64) -> Group {
    Group {
        name: "main".into(),
        nodes_min: nodes,
        nodes_max: nodes,
        ranks_per_node: 1,
        cpus: Ask::Exactly(cpus * 1000),
        memory: Ask::Exactly(GIB),
        disk: Bytes(0),
        gpus: GpuRequest::NONE,
    }
}

/// Whole devices by position.
pub fn devices(positions: impl IntoIterator<Item = usize>) -> GpuGrant {
    GpuGrant::whole(positions.into_iter().collect::<DeviceSet>())
}

/// Half of a device.
pub fn half(position: usize) -> GpuGrant {
    GpuGrant::part(position, GPU_PARTS / 2)
}
