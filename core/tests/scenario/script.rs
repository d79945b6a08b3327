//! What the commands of a script do.
//!
//! ```text
//! user NAME                          pool NAME
//! queue NAME priority=5 pools=a,b [stopped]
//! limit queue=Q|owner=U|workspace=W|each=Q gpus=8 tasks=4 cpus=16     (none: removes it)
//! join NAMES.. cpus=8 memory=64GiB gpus=h100:8,a100:2 pool=P rack=r1 labels=k:v
//! submit NAME nodes=2..4 cpus=4 memory=1GiB gpus=h100:8 array=0-99%4 priority=5 limit=1h
//!        queue=Q owner=U pool=P within=rack prefer=rack only=a,b exclude=c labels=k:v
//!        after=JOB [exclusive] [hold]     (groups of a gang: NAME / ps cpus=2 / worker gpus=8)
//! plan       shows what the next round starts        commit     and lets it happen
//! end ALLOCATION.. [code=1] [tasks=2]   its next tasks run to their end
//! wait 10s      drain NODE in=1h     undrain NODE     lose NODE     return NODE
//! cancel JOB    hold JOB    release JOB    close QUEUE    open QUEUE
//! explain JOB [TASK]    jobs    nodes    events
//! ```

use super::show;
use super::words::{Words, array, duration_ms, gpus, span};
use crate::support::{self, Lab};
use std::collections::BTreeMap;
use yard_common::ExitCause;
use yard_common::amount::{Amounts, Bytes};
use yard_common::gpu::{GPU_PARTS, GpuDevice};
use yard_common::id::*;
use yard_core::agent::{AssignmentId, ChainLink, Exit, Report, ReportKind};
use yard_core::command::*;
use yard_core::job::{Array, Ask, Group, JobPlan};
use yard_core::scheduler::{self, Budget, Cache, Planned, Policy};

pub(crate) struct Script {
    pub(crate) lab: Lab,
    cache: Cache,
    policy: Policy,
    sequences: BTreeMap<NodeId, u64>,
    /// The commands so far, for who has to find out what went wrong.
    pub(crate) lines: Vec<String>,
}

impl Script {
    pub(crate) fn new() -> Script {
        let policy = Policy::default();
        Script {
            lab: Lab::new(),
            cache: Cache::default(),
            policy,
            sequences: BTreeMap::new(),
            lines: Vec::new(),
        }
    }

    /// Runs one command, and returns what it has to tell.
    pub(crate) fn run(&mut self, line: &str) -> String {
        self.lines.push(line.to_string());
        let (name, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let words = Words::new(rest);
        let first = words.plain.first().copied().unwrap_or_default();
        match name {
            "user" => self.user(first),
            "pool" => self.holder(Holder::AddPool(first.into(), PoolChange::default())),
            "queue" => self.queue(first, &words),
            "limit" => self.limit(&words),
            "join" => words.plain.iter().for_each(|name| self.join(name, &words)),
            "submit" => return self.submit(rest),
            "plan" => {
                let planned = self.plan();
                return show::plan(&self.lab.state, &planned);
            }
            "commit" => return self.commit(),
            "end" => {
                words.plain.iter().for_each(|id| self.end(id.parse().expect("a number"), &words))
            }
            "wait" => self.lab.wait(duration_ms(first)),
            "drain" | "undrain" | "lose" | "return" => self.node(name, first, &words),
            "cancel" | "hold" | "release" => self.job(name, first),
            "close" | "open" => self.switch(first, name == "open"),
            "explain" => return self.explain(&words),
            "jobs" => return show::jobs(&self.lab.state),
            "nodes" => return show::nodes(&self.lab.state),
            "events" => return show::events(self.lab.events()),
            other => panic!("no such command: {other}"),
        }
        String::new()
    }

    fn holder(&mut self, command: Holder) {
        self.lab.ok(self.lab.user(), Command::Holder(command));
    }

    fn user(&mut self, name: &str) {
        let grants = vec![Grant { workspace: None, role: Role::Admin }];
        let add = Access::AddUser { name: name.into(), unix: Some(name.into()), grants };
        self.lab.ok(self.lab.user(), Command::Access(add));
    }

    fn queue_id(&self, name: &str) -> QueueId {
        self.lab.state.queues.find(name).expect(name)
    }

    fn node_id(&self, name: &str) -> NodeId {
        self.lab.state.nodes.find(name).expect(name)
    }

    fn pool_id(&self, name: &str) -> PoolId {
        self.lab.state.pools.find(name).expect(name)
    }

    fn owner(&self, words: &Words<'_>) -> PrincipalId {
        let find = |name| self.lab.state.principals.find(name).expect(name);
        words.get("owner").map_or(self.lab.admin, find)
    }

    fn queue(&mut self, name: &str, words: &Words<'_>) {
        let priority = words.get("priority").map_or(0, |text| text.parse().expect("a number"));
        let pools = words.list("pools").iter().map(|pool| self.pool_id(pool)).collect();
        let starts = !words.has("stopped");
        let change = QueueChange { priority, pools, starts, ..QueueChange::default() };
        self.holder(Holder::AddQueue(name.into(), change));
    }

    fn switch(&mut self, name: &str, starts: bool) {
        let id = self.queue_id(name);
        let change = QueueChange { starts, ..self.lab.state.queues[id].set.clone() };
        self.holder(Holder::SetQueue(id, change));
    }

    fn limit(&mut self, words: &Words<'_>) {
        let workspace = |name| self.lab.state.workspaces.find(name).expect(name);
        let scope = match (words.get("queue"), words.get("each"), words.get("workspace")) {
            (Some(name), _, _) => LimitScope::Queue(self.queue_id(name)),
            (_, Some(name), _) => LimitScope::EachOwner(self.queue_id(name)),
            (_, _, Some(name)) => LimitScope::Workspace(workspace(name)),
            (None, None, None) => LimitScope::Owner(self.owner(words)),
        };
        let count = |key: &str| words.get(key).map(|text| text.parse::<u64>().expect("a number"));
        let limit = HolderLimit {
            amounts: Amounts { cpu_milli: words.number("cpus", 0) * 1000, ..Amounts::ZERO },
            gpu_parts: count("gpus").map(|gpus| gpus * u64::from(GPU_PARTS)),
            tasks: count("tasks"),
            jobs: None,
        };
        let limit = (!words.has("none")).then_some(limit);
        self.holder(Holder::SetLimit(scope, limit));
    }

    fn join(&mut self, name: &str, words: &Words<'_>) {
        let (token, secret_sha256) = (TokenId::from_u128(9), [7; 32]);
        let scope = Scope::Join(words.get("pool").map_or(self.lab.pool, |name| self.pool_id(name)));
        let add = Access::AddToken { token, secret_sha256, scope, life_ms: 60_000 };
        self.lab.ok(self.lab.user(), Command::Access(add));
        let cpus = words.number("cpus", 8);
        let mut inventory = support::inventory(name, cpus, &[], 1);
        inventory.devices =
            words.list("gpus").iter().flat_map(|text| devices(name, text)).collect();
        inventory.labels = words.labels("labels");
        inventory.labels.extend(words.get("rack").map(|rack| ("rack".into(), rack.into())));
        inventory.labels.sort();
        if let Some(bytes) = words.bytes("memory") {
            inventory.amounts.memory_bytes = bytes;
        }
        let name = name.to_string();
        let join = NodeCommand::Join { token, secret_sha256, name, inventory };
        self.lab.ok(Actor::Bearer, Command::Node(join));
    }

    fn submit(&mut self, text: &str) -> String {
        let mut parts = text.split(" / ");
        let head = Words::new(parts.next().unwrap_or_default());
        let mut plan = support::single();
        plan.name = head.plain[0].into();
        plan.shape.groups = parts.map(|part| group(&Words::new(part))).collect();
        if plan.shape.groups.is_empty() {
            plan.shape.groups = vec![Group { name: "main".into(), ..group(&head) }];
        }
        self.fill(&mut plan, &head);
        let queue = head.get("queue").map_or(self.lab.queue, |name| self.queue_id(name));
        let submit = Submit { queue, ..self.lab.submission(plan) };
        let (owner, request) = (self.owner(&head), self.lab.request());
        let command = Command::Job(JobCommand::Submit(Box::new(submit)));
        match self.lab.apply(Actor::User(owner), Some(request), command).reply {
            Ok(Reply::Job(job)) => format!("job {job}\n"),
            other => format!("{other:?}\n"),
        }
    }

    fn fill(&self, plan: &mut JobPlan, words: &Words<'_>) {
        plan.shape.exclusive = words.has("exclusive");
        plan.shape.pool = words.get("pool").map(|name| self.pool_id(name));
        plan.shape.place.within = words.get("within").map(String::from);
        plan.shape.place.prefer = words.get("prefer").map(String::from);
        plan.shape.place.only_nodes = words.list("only");
        plan.shape.place.exclude_nodes = words.list("exclude");
        plan.shape.place.labels = words.labels("labels");
        plan.priority = words.get("priority").map_or(0, |text| text.parse().expect("a number"));
        plan.time_limit_ms = words.duration_ms("limit");
        plan.hold = words.has("hold");
        plan.after.ok =
            words.list("after").iter().map(|id| JobId(id.parse().expect("a number"))).collect();
        plan.array = words.get("array").map(|text| {
            let (tasks, running_max) = array(text);
            Array { tasks, running_max, failures_max: None, shown: Vec::new() }
        });
    }

    /// Plans as much as it takes.
    pub(crate) fn plan(&mut self) -> Planned {
        self.plan_within(Budget::UNLIMITED)
    }

    /// Plans with the cache and without, and holds the plan against the rules.
    pub(crate) fn plan_within(&mut self, budget: Budget) -> Planned {
        let (state, now_ms) = (&self.lab.state, self.lab.now_ms);
        let planned = scheduler::plan(&mut self.cache, state, now_ms, &self.policy, budget);
        let mut none = Cache::default();
        let fresh = scheduler::plan(&mut none, state, now_ms, &self.policy, budget);
        assert_eq!(planned, fresh, "a plan with the cache equals a plan without it");
        let violations = scheduler::lint(state, now_ms, &self.policy, &planned);
        assert!(violations.is_empty(), "{}\n{planned:#?}\n{violations:#?}", self.lines.join("\n"));
        planned
    }

    fn commit(&mut self) -> String {
        let planned = self.plan();
        match self.lab.ok(Actor::Leader, Command::Plan(planned.plan.clone())) {
            Reply::Planned { placements } => {
                show::committed(&self.lab.state, &planned, &placements)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Runs the next tasks of an allocation to their end, and lets its resources go with the last.
    fn end(&mut self, id: u64, words: &Words<'_>) {
        let (id, code) = (AllocationId(id), words.number("code", 0) as i32);
        let allocation = self.lab.state.allocations[id].clone();
        let tasks = words.number("tasks", allocation.left().len().into()) as u32;
        let chain = allocation.chain.slice(allocation.ended, allocation.ended + tasks);
        let exit = |link: &ChainLink| Exit {
            link: *link,
            cause: ExitCause::Exited(code),
            status: None,
            rank: None,
        };
        let exits: Vec<_> = chain.0.iter().map(exit).collect();
        let last = allocation.left().len() == tasks;
        let gang = allocation.shares.len() > 1;
        let steps = [
            gang.then_some(ReportKind::Ready),
            Some(ReportKind::Started(chain)),
            Some(ReportKind::Exited(exits)),
            last.then_some(ReportKind::Reaped),
        ];
        for what in steps.into_iter().flatten() {
            for share in &allocation.shares {
                let sequence = self.sequences.entry(share.node).or_default();
                *sequence += 1;
                let sequence = Sequence(*sequence);
                let assignment = AssignmentId { allocation: id, group: share.group };
                let reports = vec![Report { sequence, assignment, what: what.clone() }];
                let report = NodeReport { node: share.node, reports };
                self.lab.ok(Actor::Node(share.node), Command::Report(report));
            }
        }
    }

    fn node(&mut self, verb: &str, name: &str, words: &Words<'_>) {
        let node = self.node_id(name);
        let command = match verb {
            "drain" => {
                let in_ms = words.duration_ms("in").unwrap_or(0);
                let plan = DrainPlan { in_ms, deadline_ms: None, reason: "repair".into() };
                NodeCommand::Drain { node, plan }
            }
            "undrain" => NodeCommand::Undrain(node),
            "lose" => return self.lab.lose(node),
            _ => return self.lab.bring_back(node),
        };
        self.lab.ok(self.lab.user(), Command::Node(command));
    }

    fn job(&mut self, verb: &str, id: &str) {
        let (job, reason) = (JobId(id.parse().expect("a number")), "as asked".to_string());
        self.lab.job(match verb {
            "cancel" => JobCommand::Cancel { job, tasks: None, reason },
            "hold" => JobCommand::Hold { job, reason },
            _ => JobCommand::Release(job),
        });
    }

    fn explain(&self, words: &Words<'_>) -> String {
        let number =
            |at: usize| words.plain.get(at).map_or(0, |text| text.parse().expect("a number"));
        let (job, task) = (JobId(number(0)), number(1) as TaskIndex);
        let (state, now_ms) = (&self.lab.state, self.lab.now_ms);
        let explanation = scheduler::explain(state, now_ms, &self.policy, job, task);
        format!("{}\n", explanation.expect("the task exists"))
    }
}

fn group(words: &Words<'_>) -> Group {
    let (nodes_min, nodes_max) = span(words.get("nodes").unwrap_or("1"));
    let cpus: u64 = words.number("cpus", 1);
    Group {
        name: words.plain[0].into(),
        nodes_min,
        nodes_max,
        cpus: Ask::Exactly(cpus * 1000),
        memory: Ask::Exactly(words.bytes("memory").unwrap_or(1 << 30)),
        gpus: words.get("gpus").map(gpus).unwrap_or_default(),
        ..support::group(1, 1)
    }
}

/// `h100:8` or `mig-1g.10gb:4`
fn devices(node: &str, text: &str) -> Vec<GpuDevice> {
    let (model, count) = text.split_once(':').expect("devices are model:count");
    let mig = model.strip_prefix("mig-").map(|profile| profile.parse().expect("a MIG profile"));
    let model = if mig.is_some() { "a100" } else { model };
    let device = |position| GpuDevice {
        uuid: format!("GPU-{node}-{text}-{position}"),
        model: model.into(),
        memory: Bytes(80 << 30),
        mig,
        healthy: true,
    };
    (0..count.parse().expect("a count")).map(device).collect::<Vec<_>>()
}
