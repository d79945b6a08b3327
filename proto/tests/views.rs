//! What people and agents are told of a state, from submission through the scheduler to the end.

#![allow(missing_docs, clippy::unwrap_used)]

use yard_common::gpu::GpuDevice;
use yard_common::id::*;
use yard_common::spec::JobSpec;
use yard_common::{Amounts, Bytes, ExitCause, PendingReason};
use yard_core::agent::{AssignmentId, ChainLink, Exit, Report, ReportKind};
use yard_core::command::*;
use yard_core::event::Event;
use yard_core::job::{Context, compile};
use yard_core::scheduler::{self, Budget, Cache, Constraint, Explanation, Policy, explain, plan};
use yard_core::state::State;
use yard_proto::convert::{self, ConvertError, page};
use yard_proto::v1::constraint::What;
use yard_proto::{internal, v1};

const GIB: u64 = 1 << 30;

/// A cluster in one value.
struct Lab {
    state: State,
    now_ms: u64,
    events: Vec<Event>,
}

impl Lab {
    fn new() -> Lab {
        let mut lab = Lab { state: State::default(), now_ms: 1_000, events: Vec::new() };
        lab.ok(Actor::Leader, Command::Cluster(Cluster::LeaderStarted));
        let cluster = ClusterId::from_u128(7);
        let initialise =
            Cluster::Initialise { cluster, admin: "ada".into(), unix: Some("ada1".into()) };
        lab.ok(Actor::Leader, Command::Cluster(initialise));
        lab
    }

    #[track_caller]
    fn ok(&mut self, actor: Actor, command: Command) -> Reply {
        let leader = LeaderId { term: 1, member: MemberId(1) };
        let stamp = Stamp { cluster_ms: self.now_ms, wall_ms: 1_800_000_000_000 + self.now_ms };
        let index = LogIndex(self.state.applied.0 + 1);
        let request = Some(RequestId::from_u128(index.0.into()));
        let envelope = Envelope { actor, leader, stamp, request };
        let applied = self.state.apply(index, &envelope, &command);
        self.events = applied.events;
        applied.reply.unwrap_or_else(|why| panic!("{command:?} was refused: {why}"))
    }

    fn join(&mut self, name: &str, gpus: usize) -> NodeId {
        let token = TokenId::from_u128(self.state.applied.0.into());
        let secret_sha256 = [7; 32];
        let scope = Scope::Join(PoolId(0));
        let add = Access::AddToken { token, secret_sha256, scope, life_ms: 60_000 };
        self.ok(Actor::User(PrincipalId(0)), Command::Access(add));
        let device = |at| GpuDevice {
            uuid: format!("GPU-{name}-{at}"),
            model: "h100".into(),
            memory: Bytes(80 * GIB),
            mig: None,
            healthy: true,
        };
        let inventory = Inventory {
            boot: BootId::from_u128(1),
            amounts: Amounts { cpu_milli: 8_000, memory_bytes: 32 * GIB, disk_bytes: 100 * GIB },
            devices: (0..gpus).map(device).collect(),
            labels: vec![("rack".into(), "r1".into())],
            address: format!("{name}.lan"),
            version: "0.1.0".into(),
            conditions: Vec::new(),
            checked: 0,
            setup: None,
        };
        let name = name.to_string();
        let join = NodeCommand::Join { token, secret_sha256, name, inventory };
        match self.ok(Actor::Bearer, Command::Node(join)) {
            Reply::Node { node, .. } => node,
            other => panic!("{other:?}"),
        }
    }

    fn submit(&mut self, yaml: &str) -> JobId {
        let spec = JobSpec::from_yaml(yaml).unwrap();
        let context = Context { pool: None, wall_ms: 0, rows: 0 };
        let submit = Submit {
            workspace: WorkspaceId(0),
            queue: QueueId(0),
            experiment: Some("digits".into()),
            plan: compile(&spec, &context),
            spec: spec.to_json().into(),
        };
        let command = Command::Job(JobCommand::Submit(Box::new(submit)));
        match self.ok(Actor::User(PrincipalId(0)), command) {
            Reply::Job(job) => job,
            other => panic!("{other:?}"),
        }
    }

    /// A round of the scheduler; answers what it placed.
    fn schedule(&mut self) -> Vec<AllocationId> {
        let policy = Policy::default();
        let (view, cache) = (self.state.clone(), &mut Cache::default());
        let planned = plan(cache, &view, self.now_ms, &policy, Budget::UNLIMITED);
        match self.ok(Actor::Leader, Command::Plan(planned.plan)) {
            Reply::Planned { placements } => placements.into_iter().map(Result::unwrap).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn report(&mut self, node: NodeId, allocation: AllocationId, what: ReportKind) {
        let sequence = Sequence(self.state.nodes[node].reported.0 + 1);
        let assignment = AssignmentId { allocation, group: 0 };
        let reports = vec![Report { sequence, assignment, what }];
        self.ok(Actor::Node(node), Command::Report(NodeReport { node, reports }));
    }

    fn job(&self, id: JobId) -> v1::Job {
        convert::job(&self.state, id, &self.state.jobs[id])
    }

    fn runs(&self, id: JobId) -> Vec<v1::TaskRun> {
        let job = &self.state.jobs[id];
        let (runs, next) = convert::task_runs(&self.state, job, job.tasks.range(), |_| true, 100);
        assert_eq!(next, None);
        runs
    }
}

const GANG: &str = "
name: llama-ft
nodes: 2
ranks_per_node: 2
resources: { gpus: 2, cpus: 2, memory: 4GiB }
time_limit: 2h
command: python3 train.py
";

#[test]
fn a_gang_from_queue_to_nodes() {
    let mut lab = Lab::new();
    let nodes = [lab.join("n1", 4), lab.join("n2", 4)];
    let id = lab.submit(GANG);
    let job = lab.job(id);
    assert_eq!((&*job.name, &*job.owner, &*job.workspace), ("llama-ft", "ada", "default"));
    assert_eq!((&*job.queue, &*job.experiment, &*job.pool), ("default", "digits", ""));
    assert_eq!((job.state(), job.nodes, job.gpu_parts), (v1::JobState::Queued, 2, 40_000));
    assert_eq!(job.counts.unwrap().queued, 1);
    assert_eq!(job.time_limit_ms, Some(7_200_000));
    assert_eq!(job.submitted.unwrap().wall_ms, 1_800_000_001_000);

    let allocation = lab.schedule()[0];
    let job = lab.job(id);
    assert_eq!((job.state(), job.attempt), (v1::JobState::Preparing, 1));
    assert_eq!((job.nodes_held, job.nodes_held_count), (vec!["n1".into(), "n2".into()], 2));
    let attempts = convert::attempts(&lab.state, allocation, &lab.state.allocations[allocation]);
    let [attempt] = &attempts[..] else { panic!("{attempts:?}") };
    assert_eq!((attempt.attempt, attempt.state()), (1, v1::AttemptState::Preparing));
    let shares: Vec<_> = attempt
        .shares
        .iter()
        .map(|s| (&*s.node, s.first_rank, s.ranks, s.gpu_uuids.len()))
        .collect();
    assert_eq!(shares, [("n1", 0, 2, 2), ("n2", 2, 2, 2)]);

    let node = convert::node(&lab.state, nodes[0], &lab.state.nodes[nodes[0]], Some(40));
    assert_eq!((&*node.name, node.gpus.len(), node.gpus_free, node.gpus_bad), ("n1", 4, 2, 0));
    assert_eq!((node.silent_ms, node.conditions.len()), (Some(40), 0));
    assert_eq!((node.shares.len(), node.shares[0].job_id), (1, id.0));
    assert_eq!(node.used.unwrap().cpu_milli, 2_000);
}

#[test]
fn an_agent_is_told_all_of_its_share() {
    let mut lab = Lab::new();
    let nodes = [lab.join("n1", 4), lab.join("n2", 4)];
    let id = lab.submit(GANG);
    let allocation = lab.schedule()[0];
    let assignment = AssignmentId { allocation, group: 0 };
    let detail = convert::detail::detail(&lab.state, nodes[1], assignment).unwrap();
    assert_eq!((detail.job_id, &*detail.job_name, &*detail.owner), (id.0, "llama-ft", "ada"));
    assert_eq!((&*detail.unix_login, &*detail.experiment), ("ada1", "digits"));
    assert_eq!((detail.node_rank, &*detail.group_name), (1, "main"));
    assert_eq!(detail.spec, lab.state.jobs[id].spec.to_string());
    assert!(detail.gpu_uuids.iter().all(|uuid| uuid.starts_with("GPU-n2-")));
    assert_eq!((detail.gpu_uuids.len(), detail.gpu_parts_each), (2, 10_000));
    let gang: Vec<_> =
        detail.gang.iter().map(|n| (&*n.address, n.ranks, n.first_rank, n.gpus)).collect();
    assert_eq!(gang, [("n1.lan", 2, 0, 2), ("n2.lan", 2, 2, 2)]);
    assert_eq!((detail.task_count, detail.tasks.len()), (1, 1));
    assert_eq!(detail.tasks[0].last_cause, None);
    let elsewhere = AssignmentId { allocation, group: 3 };
    assert_eq!(convert::detail::detail(&lab.state, nodes[1], elsewhere), None);
}

#[test]
fn details_that_do_not_fit_beside_the_set_come_ahead() {
    let mut lab = Lab::new();
    let node = lab.join("n1", 0);
    let set = lab.state.desired(node).unwrap();
    let detail = internal::Detail { spec: "x".repeat(3 << 20), ..internal::Detail::default() };
    let messages = convert::detail::messages(&set, vec![detail; 5]).unwrap();
    let counts: Vec<_> = messages.iter().map(|m| (m.payload.is_empty(), m.details.len())).collect();
    assert_eq!(counts, [(true, 2), (true, 2), (false, 1)]);
    let whole = convert::detail::messages(&set, Vec::new()).unwrap();
    assert_eq!(whole.len(), 1);
}

#[test]
fn tasks_are_told_as_people_count_them() {
    let mut lab = Lab::new();
    let node = lab.join("n1", 0);
    let id = lab.submit("command: 'true'\nresources: { cpus: 8 }\narray: '0,8-10'\n");
    let job = lab.job(id);
    assert!(job.is_array && job.task_count == 4);
    let ranges = |runs: &[v1::TaskRun]| -> Vec<(u32, u32)> {
        runs.iter().map(|run| run.tasks.unwrap()).map(|tasks| (tasks.first, tasks.len)).collect()
    };
    assert_eq!(ranges(&lab.runs(id)), [(0, 1), (8, 3)]);
    let told = convert::event(
        &lab.state,
        &Event::Tasks {
            job: id,
            tasks: TaskRange { first: 0, len: 2 },
            state: yard_common::state::TaskState::Queued,
            cause: None,
        },
    );
    assert_eq!(told.len(), 2, "{told:?}");

    let allocation = lab.schedule()[0];
    let assignment = AssignmentId { allocation, group: 0 };
    let detail = convert::detail::detail(&lab.state, node, assignment).unwrap();
    let tasks: Vec<_> =
        detail.tasks.iter().map(|t| (t.tasks.unwrap().first, t.shown_first)).collect();
    assert_eq!(tasks, [(0, 0), (1, 8)], "the chain has half of the tasks");

    // The first fails, and is told with its cause; the rest of the chain goes on.
    let chain = lab.state.allocations[allocation].chain.clone();
    lab.report(node, allocation, ReportKind::Started(chain.slice(0, 1)));
    let attempts = convert::attempts(&lab.state, allocation, &lab.state.allocations[allocation]);
    let told: Vec<_> = attempts
        .iter()
        .map(|a| (a.tasks.unwrap().first, a.tasks.unwrap().len, a.state()))
        .collect();
    assert_eq!(told, [(0, 1, v1::AttemptState::Running), (8, 1, v1::AttemptState::Preparing)]);
    let link = ChainLink { tasks: TaskRange::one(0), attempt: AttemptNumber(1) };
    let cause = ExitCause::Exited(3);
    let exit = Exit { link, cause, status: None, rank: Some(0) };
    lab.report(node, allocation, ReportKind::Exited(vec![exit]));
    let ended = lab.events.iter().flat_map(|event| convert::event(&lab.state, event));
    let is_end = |what: &v1::event::What| {
        matches!(what, v1::event::What::AttemptEnded(end)
            if end.tasks.unwrap().first == 0 && end.cause == Some(cause.into()))
    };
    assert!(ended.into_iter().any(|what| is_end(&what)), "{:?}", lab.events);
    assert_eq!(lab.job(id).cause, Some(cause.into()));
    let first = &lab.runs(id)[0];
    assert_eq!((first.state(), first.cause), (v1::TaskState::Failed, Some(cause.into())));
}

#[test]
fn a_sweep_tells_the_parameters_of_each_task() {
    let mut lab = Lab::new();
    let node = lab.join("n1", 0);
    let yaml = "command: train\nresources: { cpus: 8 }\nsweep: { LR: [0.1, 0.2], SEED: 0..1 }\n";
    let id = lab.submit(yaml);
    let allocation = lab.schedule()[0];
    let assignment = AssignmentId { allocation, group: 0 };
    let detail = convert::detail::detail(&lab.state, node, assignment).unwrap();
    let told: Vec<_> = detail
        .tasks
        .iter()
        .map(|task| {
            let pairs = task.parameters.iter().map(|p| format!("{}={}", p.key, p.value));
            (task.shown_first, pairs.collect::<Vec<_>>().join(" "))
        })
        .collect();
    let expected = [(0, "LR=0.1 SEED=0"), (1, "LR=0.1 SEED=1")];
    let expected: Vec<_> = expected.iter().map(|(at, text)| (*at, (*text).to_string())).collect();
    assert_eq!(told, expected, "the chain has half of the tasks");
    assert_eq!(lab.job(id).task_count, 4);
}

#[test]
fn a_task_of_rows_has_those_of_its_index() {
    let mut lab = Lab::new();
    let node = lab.join("n1", 0);
    let yaml = "command: train\nresources: { cpus: 8 }\n\
        array: { indices: \"1,3\", each: [{LR: a}, {LR: b}, {LR: c}, {LR: d}] }\n";
    let id = lab.submit(yaml);
    let mut told = Vec::new();
    for allocation in lab.schedule() {
        let assignment = AssignmentId { allocation, group: 0 };
        let detail = convert::detail::detail(&lab.state, node, assignment).unwrap();
        told.extend(detail.tasks.iter().map(|task| {
            let position = task.tasks.unwrap().first;
            (position, task.shown_first, task.parameters[0].value.clone())
        }));
        // The rows of all tasks are not sent with each of them.
        assert!(detail.spec.contains(r#""each":"rows""#), "{}", detail.spec);
        let spec = yard_common::spec::JobSpec::from_json(&detail.spec).unwrap();
        assert_eq!(spec.task_count(), Some(2));
    }
    assert_eq!(told, [(0, 1, "b".to_string())], "the chain has half of the tasks");
    assert_eq!(lab.job(id).task_count, 2);
    let spec = yard_common::spec::JobSpec::from_yaml(yaml).unwrap();
    assert_eq!(convert::parameters(&spec, 3)[0].value, "d");
    assert!(convert::parameters(&spec, 4).is_empty());
}

#[test]
fn an_explanation_has_names_and_numbers() {
    let mut lab = Lab::new();
    lab.join("n1", 1);
    let id = lab.submit("name: big\nresources: { gpus: 8 }\ncommand: train\n");
    assert!(lab.schedule().is_empty());
    let policy = Policy::default();
    let found = explain(&lab.state, lab.now_ms, &policy, id, 0).unwrap();
    let message = convert::explanation(&lab.state, &found, lab.now_ms, &|_| true);
    assert_eq!(message.outlook(), v1::Outlook::Waits);
    assert_eq!(message.reason(), PendingReason::Unsatisfiable.into());
    let groups = message.constraints.iter().find_map(|constraint| match &constraint.what {
        Some(v1::constraint::What::Nodes(list)) => Some(&list.groups),
        _ => None,
    });
    let [group] = &groups.unwrap()[..] else { panic!("{message:?}") };
    assert_eq!((group.wanted, group.nodes, group.ever, group.gpu_parts), (1, 1, 0, 80_000));
    assert_eq!(group.unfit[0].why(), v1::Unfit::GpusEver);
    assert!(message.constraints.iter().all(|constraint| !constraint.text.is_empty()));
    let place = message.constraints.iter().find_map(|constraint| match &constraint.what {
        Some(v1::constraint::What::Position(place)) => Some(place),
        _ => None,
    });
    assert_eq!(place.unwrap().queue, "default");
}

#[test]
fn jobs_that_the_caller_may_not_see_are_counted() {
    let mut lab = Lab::new();
    let id = lab.submit("command: train\n");
    let holder = |job, nodes, gpu_parts| scheduler::Holder { job: JobId(job), nodes, gpu_parts };
    let constraints = vec![
        Constraint::HeldBy(vec![holder(7, 2, 10), holder(id.0, 1, 0), holder(8, 1, 5)]),
        Constraint::Claimed(vec![(JobId(7), 2), (id, 1)]),
        Constraint::Dependency(vec![JobId(7)]),
    ];
    let task = TaskId { job: id, index: 0 };
    let found = explain(&lab.state, lab.now_ms, &Policy::default(), id, 0).unwrap();
    let found = Explanation { task, constraints, ..found };
    let message = convert::explanation(&lab.state, &found, lab.now_ms, &|job| job == id);
    let [held, claimed, waits] = &message.constraints[..] else { panic!("{message:?}") };
    let Some(What::HeldBy(holders)) = &held.what else { panic!("{held:?}") };
    let ids: Vec<u64> = holders.holders.iter().map(|holder| holder.job_id).collect();
    let hidden = holders.hidden.unwrap();
    assert_eq!((ids, hidden.jobs, hidden.nodes, hidden.gpu_parts), (vec![id.0], 2, 3, 15));
    let Some(What::Claimed(claims)) = &claimed.what else { panic!("{claimed:?}") };
    assert_eq!((claims.claims.len(), claims.hidden.unwrap().nodes), (1, 2));
    let Some(What::Dependency(jobs)) = &waits.what else { panic!("{waits:?}") };
    assert_eq!((jobs.job_ids.len(), jobs.hidden), (0, 1));
    assert!(message.constraints.iter().all(|told| !told.text.contains('7')), "{message:?}");
}

#[test]
fn a_reason_is_seen_without_the_scheduler() {
    let mut lab = Lab::new();
    let id = lab.submit("command: train\nhold: true\n");
    let job = lab.job(id);
    assert_eq!(job.reason(), v1::PendingReason::Held);
    assert!(job.held.is_some() && job.suspended.is_none());
    lab.ok(Actor::User(PrincipalId(0)), Command::Job(JobCommand::Release(id)));
    assert_eq!(lab.job(id).reason(), v1::PendingReason::Unspecified);
}

#[test]
fn holders_are_told_and_set_by_name() {
    let mut lab = Lab::new();
    let admin = Actor::User(PrincipalId(0));
    let queue = QueueId(0);
    let told = convert::queue(&lab.state, queue, &lab.state.queues[queue]);
    let mut settings = told.settings.unwrap();
    settings.pools = vec!["default".into()];
    settings.priority = -3;
    let change = convert::queue_change(&lab.state, &settings).unwrap();
    lab.ok(admin, Command::Holder(Holder::SetQueue(queue, change)));
    let told = convert::queue(&lab.state, queue, &lab.state.queues[queue]);
    assert_eq!(told.settings.unwrap(), settings);
    settings.pools.push("nowhere".into());
    let error = convert::queue_change(&lab.state, &settings).unwrap_err();
    assert_eq!(error, ConvertError::NoSuch { what: "pool", name: "nowhere".into() });

    let scope = LimitScope::EachOwner(queue);
    let told = convert::limit_scope(&lab.state, scope);
    assert_eq!(convert::limit_scope_of(&lab.state, Some(&told)), Ok(scope));
    let missing = convert::limit_scope_of(&lab.state, None);
    assert_eq!(missing, Err(ConvertError::Missing { field: "scope" }));

    let user = convert::user(&lab.state, PrincipalId(0), &lab.state.principals[PrincipalId(0)]);
    assert_eq!((&*user.name, &*user.unix_login), ("ada", "ada1"));
    let grants = convert::grants(&lab.state, &user.grants).unwrap();
    assert_eq!(grants, lab.state.principals[PrincipalId(0)].grants);
    let unknown = v1::Grant { workspace: String::new(), role: 77 };
    assert!(convert::grants(&lab.state, &[unknown]).is_err());
}

#[test]
fn names_and_numbers_of_nothing_are_refused() {
    let lab = Lab::new();
    assert_eq!(convert::queue_id(&lab.state, "default"), Ok(QueueId(0)));
    let long = "x".repeat(1_000_000);
    let error = convert::node_id(&lab.state, &long).unwrap_err();
    assert!(error.to_string().len() < 100);
    assert!(convert::job_id(&lab.state, u64::MAX).is_err());
    assert!(convert::job_id(&lab.state, 0).is_err());
}

#[test]
fn pages_are_bounded_and_go_on() {
    let page =
        |size, after_key: &str| v1::Page { size, after_key: after_key.into(), applied_index: 9 };
    assert_eq!(page::rows_max(None), yard_common::limits::PAGE_ROWS_MAX);
    assert_eq!(page::rows_max(Some(&page(10, ""))), 10);
    let most = page::rows_max(Some(&page(u32::MAX, "")));
    assert_eq!(most, yard_common::limits::PAGE_ROWS_MAX);
    assert_eq!(page::after_number::<u64>(Some(&page(0, "41"))), Ok(Some(41)));
    assert_eq!(page::after_number::<u64>(None), Ok(None));
    assert_eq!(page::after_number::<u64>(Some(&page(0, "x"))), Err(ConvertError::BadKey));
    assert_eq!(page::index_min(Some(&page(0, ""))), 9);
    let lab = Lab::new();
    let info = page::info(&lab.state, Some("812".into()));
    assert_eq!((info.applied_index, &*info.next_key), (lab.state.applied.0, "812"));
}
