//! Lives of jobs, from the submit to the exit.

use crate::agent::Agent;
use crate::cluster::{Cluster, PATIENCE};
use tokio::time::timeout;
use yard_common::ExitCause;
use yard_common::id::{AllocationId, AttemptNumber, BootId, LeaseId, Sequence, TaskRange};
use yard_common::limits::CHAIN_TASKS_MAX;
use yard_common::state::JobState;
use yard_core::agent::{AssignmentId, ChainLink, Exit, Report, ReportKind};
use yard_core::lease::{Ack, Refusal, Renewal};
use yard_proto::internal::RenewRequest;
use yard_proto::internal::renew_response::Answer;
use yard_proto::v1;
use yard_proto::wire::Payload;

const JOB: &str = "name: hello\ncommand: echo hi\nenv: { LR: '0.1' }\n";

#[tokio::test]
async fn a_job_goes_from_submit_to_success() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let mut agent = Agent::new(&cluster, "n1").await;
    let mut stream = agent.connect(&cluster).await;
    let welcome = stream.welcome().await;
    assert_eq!((welcome.member_id, welcome.reported_sequence), (1, 0));
    assert_eq!(welcome.members.unwrap().members[0].address, cluster.address());

    let submitted = admin.submit(JOB).await.unwrap();
    assert!(submitted.warnings.is_empty(), "{:?}", submitted.warnings);
    let (desired, details) = stream.desired().await;
    let [assignment] = &desired.assignments[..] else { panic!("{desired:?}") };
    assert_eq!(assignment.job.0, submitted.job_id);
    let [detail] = &details[..] else { panic!("{details:?}") };
    assert_eq!(detail.allocation_id, assignment.id.allocation.0);
    assert_eq!((detail.job_name.as_str(), detail.owner.as_str()), ("hello", "ada"));
    assert_eq!((detail.workspace.as_str(), detail.gang.len()), ("default", 1));
    assert!(detail.spec.contains("\"workdir\":\"/srv\""), "{}", detail.spec);

    let reports = agent.run(assignment, ExitCause::Exited(0));
    stream.report(&reports).await;
    stream.acknowledged(agent.sequence).await;
    admin.wait_for(&submitted, JobState::Succeeded).await;
    let job = admin.job(submitted.job_id).await.unwrap();
    assert_eq!(job.state(), v1::JobState::Succeeded);
    assert_eq!(job.attempt, 1);
    cluster.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_jobs_and_finds_the_agent_again() {
    let cluster = Cluster::start().await;
    let mut agent = Agent::new(&cluster, "n1").await;
    let mut stream = agent.connect(&cluster).await;
    let submitted = cluster.admin().submit(JOB).await.unwrap();
    let (desired, _) = stream.desired().await;
    agent.fence = desired.fence;
    let held = cluster.admin().submit("name: later\nhold: true\ncommand: 'true'\n").await.unwrap();

    let cluster = cluster.restart().await;
    let reason = stream.goodbye().await;
    assert!(reason.contains("stopping"), "{reason}");
    let mut admin = cluster.admin();
    assert_eq!(admin.job(held.job_id).await.unwrap().held.unwrap(), "submitted with hold");

    // What it ran meanwhile it tells the next time, once.
    let mut stream = agent.connect(&cluster).await;
    stream.welcome().await;
    let reports = agent.run(&desired.assignments[0], ExitCause::Exited(0));
    stream.report(&reports).await;
    stream.acknowledged(agent.sequence).await;
    stream.report(&reports).await;
    stream.acknowledged(agent.sequence).await;
    assert_eq!(admin.job(submitted.job_id).await.unwrap().state(), v1::JobState::Succeeded);
    cluster.stop().await;
}

#[tokio::test]
async fn a_failure_is_explained_and_its_attempts_are_listed() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let mut agent = Agent::new(&cluster, "n1").await;
    let mut stream = agent.connect(&cluster).await;
    let submitted = admin.submit("name: bad\ncommand: 'false'\n").await.unwrap();
    let (desired, _) = stream.desired().await;
    let reports = agent.run(&desired.assignments[0], ExitCause::Exited(3));
    stream.report(&reports).await;
    admin.wait_for(&submitted, JobState::Failed).await;
    let request = v1::ExplainRequest { job_id: submitted.job_id, task_index: None };
    let explained = admin.jobs.explain(request).await.unwrap().into_inner();
    let failure = explained.explanation.unwrap().failure.unwrap();
    assert_eq!((failure.attempt, failure.rank, failure.node.as_str()), (1, Some(0), "n1"));
    assert_eq!(failure.cause.unwrap().number, 3);
    assert_eq!(failure.next, v1::NextStep::None as i32);
    let request = v1::AttemptsRequest { job_id: submitted.job_id, ..Default::default() };
    let attempts = admin.jobs.attempts(request).await.unwrap().into_inner().attempts;
    assert_eq!(attempts.len(), 1);
    assert_eq!((attempts[0].attempt, attempts[0].state()), (1, v1::AttemptState::Ended));
    assert_eq!(attempts[0].shares[0].node, "n1");
    let (started, ended) = (attempts[0].started.unwrap(), attempts[0].ended.unwrap());
    assert!(attempts[0].granted_cluster_ms.unwrap() <= started.cluster_ms);
    assert!(started.cluster_ms <= ended.cluster_ms && started.wall_ms > 0);
    let hint = format!("yard logs {} --stderr", submitted.job_id);
    assert!(failure.hint.ends_with(&hint), "{}", failure.hint);
    cluster.stop().await;
}

#[tokio::test]
async fn a_job_that_fits_nowhere_waits_and_says_why() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let agent = Agent::new(&cluster, "n1").await;
    let submitted = admin.submit("name: big\nnodes: 3\ncommand: 'true'\n").await.unwrap();
    let [warning] = &submitted.warnings[..] else { panic!("{:?}", submitted.warnings) };
    assert!(warning.message.contains("1 of the 1 machines"), "{}", warning.message);
    let request = v1::ExplainRequest { job_id: submitted.job_id, task_index: None };
    let explained = admin.jobs.explain(request).await.unwrap().into_inner();
    let explanation = explained.explanation.unwrap();
    assert_eq!(explanation.reason(), v1::PendingReason::Unsatisfiable);
    assert!(!explanation.constraints[0].text.is_empty());

    // A dry run tells the same, and takes nothing.
    let request = v1::SubmitRequest {
        spec: "name: big\nnodes: 3\ncommand: 'true'\n".into(),
        dry_run: true,
        ..Default::default()
    };
    let rehearsed = admin.jobs.submit(request).await.unwrap().into_inner();
    assert_eq!((rehearsed.job_id, rehearsed.warnings.len()), (0, 1));
    assert!(rehearsed.resolved_spec.contains("nodes: 3"), "{}", rehearsed.resolved_spec);
    let listed = admin.jobs.list(v1::ListJobsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.jobs.len(), 1);
    assert_eq!(listed.jobs[0].reason(), v1::PendingReason::Unsatisfiable);
    // What would fit waits for something else, which only the scheduler knows.
    let small = admin.submit("name: small\ncommand: 'true'\n").await.unwrap();
    assert_ne!(admin.job(small.job_id).await.unwrap().reason(), v1::PendingReason::Unsatisfiable);
    drop(agent);
    cluster.stop().await;
}

#[tokio::test]
async fn rows_reach_the_agent_and_a_file_of_them_is_refused() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let refused = admin.submit("command: a\narray: { each: p.jsonl }\n").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("the client reads it"), "{}", refused.message());
    let agent = Agent::new(&cluster, "n1").await;
    let mut stream = agent.connect(&cluster).await;
    let submitted =
        admin.submit("command: a\narray: { each: [{lr: 1}, {lr: 2}] }\n").await.unwrap();
    let (_, details) = stream.desired().await;
    let tasks = details.iter().flat_map(|detail| &detail.tasks);
    let told: Vec<&str> = tasks.map(|task| task.parameters[0].value.as_str()).collect();
    assert_eq!(told[0], "1", "{told:?}");
    assert_eq!(admin.job(submitted.job_id).await.unwrap().task_count, 2);
    cluster.stop().await;
}

#[tokio::test]
async fn time_goes_on_while_nothing_happens() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    admin.submit(JOB).await.unwrap();
    let mut last = 0;
    // The clocks of a test run on by themselves; nothing is applied between two looks.
    let moved = async {
        loop {
            let listed = admin.jobs.list(v1::ListJobsRequest::default()).await.unwrap();
            let now_ms = listed.into_inner().page.unwrap().now.unwrap().cluster_ms;
            if last > 0 && now_ms > last {
                return;
            }
            last = now_ms.max(1);
        }
    };
    timeout(PATIENCE, moved).await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn a_machine_that_booted_anew_gets_no_set_from_before() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let mut agent = Agent::new(&cluster, "n1").await;
    let mut stream = agent.connect(&cluster).await;
    let submitted = admin.submit(JOB).await.unwrap();
    let (before, _) = stream.desired().await;
    drop(stream);
    // The machine lost power before it obeyed.
    agent.inventory.boot = BootId::from_u128(2);
    let mut stream = agent.connect(&cluster).await;
    stream.welcome().await;
    let (after, _) = stream.desired().await;
    assert!(after.fence > before.fence);
    let old = before.assignments[0].id;
    assert!(after.assignments.iter().all(|one| one.id != old), "{after:?}");
    let job = admin.job(submitted.job_id).await.unwrap();
    assert_eq!(job.attempt, 2);
    cluster.stop().await;
}

#[tokio::test]
async fn a_gap_in_the_reports_ends_the_stream() {
    let cluster = Cluster::start().await;
    let agent = Agent::new(&cluster, "n1").await;
    let mut stream = agent.connect(&cluster).await;
    stream.welcome().await;
    stream.report_as(2, &Vec::new()).await;
    let reason = stream.goodbye().await;
    assert_eq!(reason, "batch 2 came where 1 was due");
    // A newer stream ends the one before.
    let mut first = agent.connect(&cluster).await;
    first.welcome().await;
    let mut second = agent.connect(&cluster).await;
    second.welcome().await;
    assert!(first.goodbye().await.contains("newer stream"));
    cluster.stop().await;
}

#[tokio::test]
async fn a_watch_goes_on_after_a_restart() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let first = admin.submit("name: a\nhold: true\ncommand: 'true'\n").await.unwrap();
    admin.submit("name: b\nhold: true\ncommand: 'true'\n").await.unwrap();
    admin.wait_for(&first, JobState::Queued).await;
    let cluster = cluster.restart().await;
    let mut admin = cluster.admin();
    // The log was replayed: what happened before the restart can still be watched.
    admin.wait_for(&first, JobState::Queued).await;
    let request = v1::EventsRequest { from_index: 0, kinds: Vec::new() };
    let mut events = admin.cluster.events(request).await.unwrap().into_inner();
    let third = admin.submit("name: c\nhold: true\ncommand: 'true'\n").await.unwrap();
    let event = loop {
        match events.message().await.unwrap().unwrap().what.unwrap() {
            v1::watch_response::What::Event(event) => break event,
            // How far it is.
            v1::watch_response::What::Progress(_) => {}
            v1::watch_response::What::Compacted(gone) => panic!("{gone:?}"),
        }
    };
    assert_eq!(event.index, third.applied_index);
    cluster.stop().await;
}

#[tokio::test]
async fn a_lease_is_renewed_for_its_node_and_no_other() {
    let cluster = Cluster::start().await;
    let agent = Agent::new(&cluster, "n1").await;
    let other = Agent::new(&cluster, "n2").await;
    let Answer::Ack(ack) = agent.renew(&cluster, 1).await else { panic!("refused") };
    let ack = Ack::from_payload(&ack).unwrap();
    assert_eq!((ack.node, ack.lease, ack.sent_ms), (agent.node, LeaseId(1), 77));
    assert!(ack.membership.is_alone());
    let Answer::Refusal(refusal) = agent.renew(&cluster, 2).await else { panic!("acked") };
    let refusal = Refusal::from_payload(&refusal).unwrap();
    assert_eq!(refusal, Refusal::OtherLease { current: LeaseId(1) });
    let renewal = Renewal { node: other.node, lease: LeaseId(1), sent_ms: 1, lease_ms: 3_000 };
    let request = RenewRequest { renewal: renewal.to_payload().unwrap() };
    let refused = agent.client(&cluster).renew(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    cluster.stop().await;
}

#[tokio::test]
async fn tasks_of_an_array_are_called_as_people_call_them() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    for (array, shown) in [("5-9", vec![(5, 5)]), ("0-2,8", vec![(0, 3), (8, 1)])] {
        let spec = format!("name: a\nhold: true\narray: '{array}'\ncommand: 'true'\n");
        let job_id = admin.submit(&spec).await.unwrap().job_id;
        let request = v1::ListTasksRequest { job_id, ..Default::default() };
        let listed = admin.jobs.list_tasks(request).await.unwrap().into_inner();
        let ranges: Vec<_> = listed.runs.iter().map(|run| run.tasks.unwrap()).collect();
        let ranges: Vec<_> = ranges.iter().map(|range| (range.first, range.len)).collect();
        assert_eq!(ranges, shown, "{array}");
        let tasks = Some(v1::TaskRange { first: 8, len: 1 });
        let cancel = v1::CancelRequest {
            request_id: crate::cluster::request_id(),
            job_id,
            tasks,
            reason: String::new(),
        };
        let cancelled = admin.jobs.cancel(cancel).await.unwrap().into_inner();
        assert_eq!(cancelled.tasks, 1, "{array}");
        let request = v1::ListTasksRequest { job_id, tasks, ..Default::default() };
        let listed = admin.jobs.list_tasks(request).await.unwrap().into_inner();
        assert_eq!(listed.runs[0].state(), v1::TaskState::Cancelled, "{array}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn many_ranges_in_one_message_are_taken_in_parts() {
    let cluster = Cluster::start().await;
    let agent = Agent::new(&cluster, "n1").await;
    let mut stream = agent.connect(&cluster).await;
    stream.welcome().await;
    // Of an allocation that is long gone: they count, and change nothing.
    let assignment = AssignmentId { allocation: AllocationId(77), group: 0 };
    let exit = |task| Exit {
        link: ChainLink { tasks: TaskRange::one(task), attempt: AttemptNumber(1) },
        cause: ExitCause::Exited(i32::try_from(task % 7).unwrap()),
        status: None,
        rank: Some(0),
    };
    let exits: Vec<Exit> = (0..CHAIN_TASKS_MAX).map(exit).collect();
    let report = |sequence| Report {
        sequence: Sequence(sequence),
        assignment,
        what: ReportKind::Exited(exits.clone()),
    };
    let reports: Vec<Report> = (1..=11).map(report).collect();
    stream.report(&reports).await;
    stream.acknowledged(11).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_watch_of_a_job_hears_when_its_machines_are_free() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let mut agent = Agent::new(&cluster, "n1").await;
    let mut stream = agent.connect(&cluster).await;
    let submitted = admin.submit(JOB).await.unwrap();
    let (desired, _) = stream.desired().await;
    let reports = agent.run(&desired.assignments[0], ExitCause::Exited(0));
    stream.report(&reports).await;
    let request = v1::WatchJobsRequest {
        from_index: submitted.applied_index,
        job_ids: vec![submitted.job_id],
        ..Default::default()
    };
    let mut watch = admin.jobs.watch(request).await.unwrap().into_inner();
    let allocation = desired.assignments[0].id.allocation.0;
    let freed = async {
        loop {
            let told = watch.message().await.unwrap().unwrap();
            let Some(v1::watch_response::What::Event(event)) = told.what else { continue };
            if let Some(v1::event::What::Freed(freed)) = event.what {
                return freed.allocation_id;
            }
        }
    };
    assert_eq!(timeout(PATIENCE, freed).await.expect("it is told"), allocation);
    cluster.stop().await;
}

#[tokio::test]
async fn a_quiet_watch_is_told_how_far_it_is_while_much_else_happens() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let quiet = admin.submit("name: a\nhold: true\ncommand: 'true'\n").await.unwrap();
    let request = v1::WatchJobsRequest {
        from_index: quiet.applied_index + 1,
        job_ids: vec![quiet.job_id],
        ..Default::default()
    };
    let mut watch = admin.jobs.watch(request).await.unwrap().into_inner();
    // At once, of what had happened by then.
    let told = timeout(PATIENCE, watch.message()).await.expect("in time").unwrap().unwrap();
    let Some(v1::watch_response::What::Progress(progress)) = told.what else { panic!("{told:?}") };
    assert_eq!(progress.applied_index, quiet.applied_index);
    let busy = async {
        loop {
            admin.submit("name: b\nhold: true\ncommand: 'true'\n").await.unwrap();
        }
    };
    let told = tokio::select! {
        told = timeout(PATIENCE, watch.message()) => told.expect("in time").unwrap().unwrap(),
        () = busy => unreachable!(),
    };
    let Some(v1::watch_response::What::Progress(progress)) = told.what else { panic!("{told:?}") };
    assert!(progress.applied_index > quiet.applied_index + 1, "{progress:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_rank_that_an_agent_made_up_is_not_told() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let mut agent = Agent::new(&cluster, "n1").await;
    let mut stream = agent.connect(&cluster).await;
    let submitted = admin.submit(JOB).await.unwrap();
    let (desired, _) = stream.desired().await;
    let mut reports = agent.run(&desired.assignments[0], ExitCause::Exited(3));
    for report in &mut reports {
        if let ReportKind::Exited(exits) = &mut report.what {
            exits[0].rank = Some(u32::MAX);
        }
    }
    stream.report(&reports).await;
    admin.wait_for(&submitted, JobState::Failed).await;
    let request = v1::ExplainRequest { job_id: submitted.job_id, task_index: None };
    let explained = admin.jobs.explain(request).await.unwrap().into_inner();
    let failure = explained.explanation.unwrap().failure.unwrap();
    assert_eq!((failure.rank, failure.node.as_str()), (None, "n1"));
    cluster.stop().await;
}
