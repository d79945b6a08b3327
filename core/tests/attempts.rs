//! The life of attempts, told as stories.

mod support;

use support::*;
use yard_common::ExitCause;
use yard_common::cause::{LostReason, PrepareStep};
use yard_common::id::{AttemptNumber, TaskRange};
use yard_common::state::{JobState, NodeState, TaskState};
use yard_core::agent::{ChainLink, DesiredPhase, Exit, ReportKind};
use yard_core::command::*;
use yard_core::job::{After, IsolationClass};

const ALL: TaskRange = TaskRange { first: 0, len: 1 };

#[test]
fn a_task_runs_and_succeeds() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let job = lab.submit(single());
    assert_eq!(lab.state.pending.len(), 1);
    let allocation = lab.place(job, ALL, &[node]);
    let desired = lab.state.desired(node).unwrap();
    assert_eq!(desired.assignments[0].phase, DesiredPhase::Run, "nobody to wait for");
    lab.start(node, allocation, 1);
    assert_eq!(lab.state.jobs[job].state, JobState::Running);
    lab.exit(node, allocation, ExitCause::Exited(0));
    assert_eq!(lab.state.jobs[job].state, JobState::Succeeded);
    assert_eq!(lab.state.nodes[node].leftovers.len(), 1, "not seen reaped yet");
    lab.reap(node, allocation);
    assert!(lab.state.nodes[node].is_idle());
    assert!(lab.state.desired(node).unwrap().assignments.is_empty());
}

#[test]
fn a_gang_starts_when_all_are_ready_and_ends_with_the_first_failure() {
    let mut lab = Lab::new();
    let (a, b) = (lab.join("a", 4, &[]), lab.join("b", 4, &[]));
    let job = lab.submit(gang(2, 2));
    let allocation = lab.place(job, ALL, &[a, b]);
    lab.report(a, allocation, ReportKind::Ready);
    let phase = |lab: &Lab, node| lab.state.desired(node).unwrap().assignments[0].phase;
    assert_eq!(phase(&lab, a), DesiredPhase::Prepare);
    lab.report(b, allocation, ReportKind::Ready);
    assert_eq!((phase(&lab, a), phase(&lab, b)), (DesiredPhase::Start, DesiredPhase::Start));
    lab.start(a, allocation, 1);
    lab.start(b, allocation, 1);
    lab.exit(b, allocation, ExitCause::Exited(3));
    assert!(matches!(phase(&lab, a), DesiredPhase::Stop { cause: ExitCause::Exited(3), .. }));
    assert_eq!(lab.state.jobs[job].state, JobState::Stopping);
    lab.exit(a, allocation, ExitCause::StoppedWithGang);
    let status = lab.state.jobs[job].tasks.get(0).unwrap();
    assert_eq!(status.cause, Some(ExitCause::Exited(3)), "the first failure is the cause");
    assert_eq!(lab.state.jobs[job].state, JobState::Failed);
    lab.reap(a, allocation);
    lab.reap(b, allocation);
    assert!(lab.state.nodes[a].is_idle() && lab.state.nodes[b].is_idle());
}

#[test]
fn a_lost_node_leaves_its_share_in_doubt_and_the_task_moves() {
    let mut lab = Lab::new();
    let (a, b) = (lab.join("a", 4, &["h100"]), lab.join("b", 4, &["h100"]));
    let job = lab.submit(with_gpus(1));
    let share = |node| ShareChoice { node, group: 0, gpus: devices([0]) };
    let placement = |node| Placement { job, tasks: vec![ALL], shares: vec![share(node)] };
    let first = lab.try_place(placement(a)).unwrap();
    lab.start(a, first, 1);
    lab.lose(a);
    assert_eq!(lab.state.jobs[job].tasks.get(0).unwrap().cause, Some(ExitCause::NodeLost));
    assert!(lab.state.nodes[a].leftovers.iter().all(|(_, left)| left.in_doubt));
    lab.wait(60_000);
    let second = lab.try_place(placement(b)).unwrap();
    assert_eq!(lab.state.allocations[second].chain.to_string(), "0#2");
    let command = lab.report_of(a, first, ReportKind::Reaped);
    let stale = lab.refused(Actor::Node(a), command.clone());
    assert_eq!(stale, Rejection::Stale(Object::Node(a)), "a lost node comes back first");
    lab.bring_back(a);
    let desired = lab.state.desired(a).unwrap();
    assert!(
        matches!(desired.assignments[0].phase, DesiredPhase::Stop { grace_ms: 0, .. }),
        "nothing of the old attempt may remain, and the agent answers for it"
    );
    assert_eq!(lab.state.nodes[a].free_devices().len(), 0, "still in doubt");
    lab.ok(Actor::Node(a), command);
    assert_eq!(lab.state.nodes[a].free_devices().len(), 1);
    lab.run_to_end(b, second, ExitCause::Exited(0));
    assert_eq!(lab.state.jobs[job].state, JobState::Succeeded);
}

#[test]
fn a_strict_attempt_ends_when_nothing_of_it_is_left() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let mut plan = single();
    plan.isolation.class = IsolationClass::Strict;
    plan.retry.user = 1;
    plan.retry.backoff_min_ms = 0;
    let job = lab.submit(plan);
    let allocation = lab.place(job, ALL, &[node]);
    lab.start(node, allocation, 1);
    lab.exit(node, allocation, ExitCause::Exited(1));
    assert_eq!(lab.states(job), "0:Stopping", "a descendant of the rank may still run");
    lab.reap(node, allocation);
    assert_eq!(lab.states(job), "0:Queued");
    let allocation = lab.place(job, ALL, &[node]);
    lab.run_to_end(node, allocation, ExitCause::Exited(0));
    assert_eq!(lab.state.jobs[job].state, JobState::Succeeded);
}

#[test]
fn an_attempt_that_was_stopped_before_its_start_ends_for_the_cause_of_the_stop() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let job = lab.submit(single());
    let allocation = lab.place(job, ALL, &[node]);
    lab.wait(2_000_000);
    let chain = lab.state.allocations[allocation].chain.clone();
    lab.report(node, allocation, ReportKind::Recalled(chain));
    let status = *lab.state.jobs[job].tasks.get(0).unwrap();
    assert_eq!(status.cause, Some(ExitCause::PrepareFailed(PrepareStep::Barrier)));
    assert_eq!(status.tries.infra, 1, "or it would be tried without end");
    lab.reap(node, allocation);
    lab.wait(10_000);
    let allocation = lab.place(job, ALL, &[node]);
    let stop = Stop { allocation, cause: ExitCause::Preempted };
    lab.ok(Actor::Leader, Command::Plan(Plan { stops: vec![stop], ..Plan::default() }));
    let chain = lab.state.allocations[allocation].chain.clone();
    lab.report(node, allocation, ReportKind::Recalled(chain));
    let status = *lab.state.jobs[job].tasks.get(0).unwrap();
    assert_eq!((lab.states(job).as_str(), status.tries.reclaimed), ("0:Queued", 0));
}

#[test]
fn a_reboot_clears_all_doubt() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let job = lab.submit(single());
    let allocation = lab.place(job, ALL, &[node]);
    lab.start(node, allocation, 1);
    let inventory = inventory("a", 4, &[], 2);
    lab.ok(Actor::Node(node), Command::Node(NodeCommand::Update { node, inventory }));
    assert!(lab.state.nodes[node].is_idle());
    assert_eq!(lab.states(job), "0:Backoff");
    lab.wait(10_000);
    assert_eq!(lab.states(job), "0:Queued");
}

#[test]
fn a_tolerant_job_is_left_alone_for_hours() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let mut plan = single();
    plan.isolation.class = IsolationClass::Tolerant;
    let job = lab.submit(plan);
    let allocation = lab.place(job, ALL, &[node]);
    lab.start(node, allocation, 1);
    lab.lose(node);
    assert_eq!(lab.state.jobs[job].state, JobState::Running);
    lab.wait(3_600_000);
    lab.bring_back(node);
    assert_eq!(lab.state.desired(node).unwrap().assignments.len(), 1, "it simply goes on");
    lab.lose(node);
    lab.wait(7 * 3_600_000);
    assert_eq!(lab.state.jobs[job].state, JobState::Queued);
}

#[test]
fn a_cancel_wins_over_everything_but_an_end() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let job = lab.submit(single());
    let allocation = lab.place(job, ALL, &[node]);
    lab.start(node, allocation, 1);
    let stop = Stop { allocation, cause: ExitCause::Preempted };
    let plan = Plan { stops: vec![stop], ..Plan::default() };
    lab.ok(Actor::Leader, Command::Plan(plan));
    lab.cancel(job, None);
    lab.exit(node, allocation, ExitCause::Exited(0));
    assert_eq!(lab.state.jobs[job].state, JobState::Cancelled, "the cancel was answered first");
    let cancel = JobCommand::Cancel { job, tasks: None, reason: String::new() };
    let again = lab.refused(lab.user(), Command::Job(cancel));
    assert_eq!(again.code(), yard_common::ErrorCode::WrongState);
}

#[test]
fn work_that_was_done_before_a_preemption_counts() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let job = lab.submit(single());
    let allocation = lab.place(job, ALL, &[node]);
    lab.start(node, allocation, 1);
    let stop = Stop { allocation, cause: ExitCause::Preempted };
    lab.ok(Actor::Leader, Command::Plan(Plan { stops: vec![stop], ..Plan::default() }));
    lab.exit(node, allocation, ExitCause::Exited(0));
    assert_eq!(lab.state.jobs[job].state, JobState::Succeeded);
}

#[test]
fn a_chain_runs_in_turn_and_its_tail_comes_back() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let job = lab.submit(array(10));
    let allocation = lab.place(job, TaskRange { first: 0, len: 6 }, &[node]);
    lab.start(node, allocation, 1);
    lab.exit(node, allocation, ExitCause::Exited(0));
    lab.start(node, allocation, 1);
    lab.exit(node, allocation, ExitCause::Exited(1));
    lab.start(node, allocation, 1);
    assert_eq!(lab.states(job), "0:Succeeded 1:Failed 2:Running 3-5:Preparing 6-9:Queued");
    lab.cancel(job, Some(TaskRange { first: 4, len: 3 }));
    assert_eq!(lab.state.desired(node).unwrap().assignments[0].keep, 3);
    let tail = lab.state.allocations[allocation].chain.slice(3, 6);
    lab.report(node, allocation, ReportKind::Recalled(tail));
    let states = "0:Succeeded 1:Failed 2:Running 3:Queued 4-5:Cancelled 6:Cancelled 7-9:Queued";
    assert_eq!(lab.states(job), states);
    lab.exit(node, allocation, ExitCause::Exited(0));
    lab.reap(node, allocation);
    assert!(lab.state.nodes[node].is_idle());
    assert_eq!(lab.state.jobs[job].tasks.counts().of(TaskState::Succeeded), 2);
}

#[test]
fn no_more_of_an_array_starts_when_too_many_failed() {
    let mut lab = Lab::new();
    let node = lab.join("a", 8, &[]);
    let mut plan = array(100);
    plan.array.as_mut().unwrap().failures_max = Some(2);
    let job = lab.submit(plan);
    let tasks = |first, len| TaskRange { first, len };
    let other = lab.place(job, tasks(10, 1), &[node]);
    lab.start(node, other, 1);
    let chain = lab.place(job, tasks(0, 6), &[node]);
    for _ in 0..2 {
        assert!(!lab.state.jobs[job].has_failed_too_often());
        lab.start(node, chain, 1);
        lab.exit(node, chain, ExitCause::Exited(1));
    }
    // What runs goes on, and so does the one that comes next: its node may have started it.
    let states = "0-1:Failed 2-5:Preparing 6-9:Cancelled 10:Running 11-99:Cancelled";
    assert_eq!(lab.states(job), states);
    lab.start(node, chain, 1);
    assert_eq!(lab.state.desired(node).unwrap().assignments[1].keep, 3);
    let tail = lab.state.allocations[chain].chain.slice(3, 6);
    lab.report(node, chain, ReportKind::Recalled(tail));
    assert_eq!(
        lab.states(job),
        "0-1:Failed 2:Running 3-5:Cancelled 6-9:Cancelled 10:Running 11-99:Cancelled"
    );
    lab.exit(node, chain, ExitCause::Exited(0));
    lab.exit(node, other, ExitCause::Exited(0));
    assert_eq!(lab.state.jobs[job].tasks.counts().of(TaskState::Succeeded), 2);
    assert_eq!(lab.state.jobs[job].state, JobState::Failed);
    assert_eq!(lab.state.jobs[job].cancels, [], "nobody asked for it");
}

#[test]
fn who_cancelled_is_remembered_and_why() {
    let mut lab = Lab::new();
    let job = lab.submit(array(100));
    for task in 0..10 {
        let (tasks, reason) = (Some(TaskRange::one(task)), format!("no {task}"));
        lab.job(JobCommand::Cancel { job, tasks, reason });
    }
    let cancel = lab.state.jobs[job].cancel_of(9).unwrap();
    assert_eq!((cancel.by, &*cancel.reason), (lab.user(), "no 9"));
    lab.cancel(job, None);
    assert_eq!(&*lab.state.jobs[job].cancel_of(9).unwrap().reason, "no 9", "the first one counts");
    assert_eq!(&*lab.state.jobs[job].cancel_of(99).unwrap().reason, "");
    assert_eq!(lab.state.jobs[job].cancels.len(), yard_common::limits::CANCELS_KEPT_MAX);
}

#[test]
fn infrastructure_pays_for_itself() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let job = lab.submit(single());
    let allocation = lab.place(job, ALL, &[node]);
    lab.exit(node, allocation, ExitCause::PrepareFailed(PrepareStep::Mount));
    let status = *lab.state.jobs[job].tasks.get(0).unwrap();
    assert_eq!((status.tries.infra, status.tries.user), (1, 0));
    assert_eq!(lab.states(job), "0:Backoff");
}

#[test]
fn a_node_that_fails_several_jobs_in_a_row_is_cordoned() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    for _ in 0..2 {
        let job = lab.submit(single());
        let allocation = lab.place(job, ALL, &[node]);
        lab.exit(node, allocation, ExitCause::PrepareFailed(PrepareStep::GpuCheck));
        lab.reap(node, allocation);
    }
    assert!(lab.state.nodes[node].cordoned);
    lab.ok(lab.user(), Command::Node(NodeCommand::Undrain(node)));
    assert!(!lab.state.nodes[node].cordoned);
}

#[test]
fn what_never_became_ready_is_given_up() {
    let mut lab = Lab::new();
    let (a, b) = (lab.join("a", 4, &[]), lab.join("b", 4, &[]));
    let job = lab.submit(gang(2, 1));
    let allocation = lab.place(job, ALL, &[a, b]);
    lab.report(a, allocation, ReportKind::Ready);
    lab.wait(2_000_000);
    let barrier = ExitCause::PrepareFailed(PrepareStep::Barrier);
    assert_eq!(lab.state.allocations[allocation].cause, Some(barrier));
    for node in [a, b] {
        let chain = lab.state.allocations[allocation].chain.clone();
        lab.report(node, allocation, ReportKind::Recalled(chain));
    }
    assert_eq!(lab.states(job), "0:Backoff");
    assert_eq!(lab.state.jobs[job].tasks.get(0).unwrap().cause, Some(barrier));
}

#[test]
fn the_time_limit_counts_from_the_start() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let mut plan = single();
    plan.time_limit_ms = Some(50_000);
    let job = lab.submit(plan);
    let allocation = lab.place(job, ALL, &[node]);
    lab.wait(40_000);
    lab.start(node, allocation, 1);
    lab.wait(40_000);
    let longer = Adjust { time_limit_ms: Some(60_000), ..Adjust::default() };
    lab.job(JobCommand::Adjust { job, change: longer });
    lab.wait(15_000);
    assert_eq!(lab.state.jobs[job].state, JobState::Running);
    lab.wait(5_000);
    assert_eq!(lab.state.allocations[allocation].cause, Some(ExitCause::TimedOut));
}

#[test]
fn dependencies_start_end_and_cascade() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let first = lab.submit(single());
    let after = |ok: Vec<_>, failed: Vec<_>| After { ok, failed, ..After::default() };
    let good = lab.submit(support_plan(after(vec![first], vec![])));
    let bad = lab.submit(support_plan(after(vec![], vec![first])));
    let chained = lab.submit(support_plan(after(vec![bad], vec![])));
    assert_eq!(lab.states(good), "0:Blocked");
    let allocation = lab.place(first, ALL, &[node]);
    lab.run_to_end(node, allocation, ExitCause::Exited(0));
    assert_eq!(lab.states(good), "0:Queued");
    assert_eq!(lab.states(bad), "0:Failed", "it asked for a failure that cannot come any more");
    assert_eq!(lab.states(chained), "0:Failed", "and so on down the line");
    let cause = lab.state.jobs[chained].tasks.get(0).unwrap().cause;
    assert_eq!(cause, Some(ExitCause::DependencyFailed));
}

#[test]
fn arrays_wait_for_each_other_index_by_index() {
    let mut lab = Lab::new();
    let node = lab.join("a", 8, &[]);
    let first = lab.submit(array(4));
    let mut plan = array(4);
    plan.after.each = vec![first];
    let second = lab.submit(plan);
    let allocation = lab.place(first, TaskRange { first: 0, len: 3 }, &[node]);
    for cause in [ExitCause::Exited(0), ExitCause::Exited(9), ExitCause::Exited(0)] {
        lab.start(node, allocation, 1);
        lab.exit(node, allocation, cause);
    }
    assert_eq!(lab.states(second), "0:Queued 1:Failed 2:Queued 3:Blocked");
    lab.cancel(first, None);
    assert_eq!(lab.states(second), "0:Queued 1:Failed 2:Queued 3:Failed");
}

#[test]
fn a_visit_is_written_down_and_changes_nothing() {
    let mut lab = Lab::new();
    let job = lab.submit(single());
    let visit = |task| Command::Job(JobCommand::Visit { job, task, visit: Visit::Forward(6_006) });
    assert_eq!(visit(0).family(), "forward");
    let before = (lab.state.jobs[job].revision, lab.states(job));
    assert_eq!(lab.ok(lab.user(), visit(0)), Reply::Job(job));
    assert_eq!((lab.state.jobs[job].revision, lab.states(job)), before);
    let refused = lab.refused(lab.user(), visit(1));
    assert_eq!(refused.code(), yard_common::ErrorCode::InvalidArgument);
    lab.cancel(job, None);
    let refused = lab.refused(lab.user(), visit(0));
    assert_eq!(refused.code(), yard_common::ErrorCode::WrongState);
}

#[test]
fn holds_suspensions_and_requeues() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let job = lab.submit(single());
    lab.job(JobCommand::Hold { job, reason: "wait for data".into() });
    assert_eq!((lab.states(job).as_str(), lab.state.pending.len()), ("0:Blocked", 0));
    lab.job(JobCommand::Release(job));
    let allocation = lab.place(job, ALL, &[node]);
    lab.start(node, allocation, 1);
    lab.job(JobCommand::Suspend { job, reason: "night".into() });
    lab.exit(node, allocation, ExitCause::Suspended);
    lab.reap(node, allocation);
    assert_eq!(lab.states(job), "0:Blocked");
    lab.job(JobCommand::Resume(job));
    let allocation = lab.place(job, ALL, &[node]);
    lab.start(node, allocation, 1);
    lab.job(JobCommand::Requeue { job, tasks: None });
    lab.exit(node, allocation, ExitCause::Requeued);
    assert_eq!(lab.states(job), "0:Queued");
    assert_eq!(lab.state.jobs[job].tasks.get(0).unwrap().attempt.0, 2);
}

#[test]
fn duplicate_and_late_reports_change_nothing() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let job = lab.submit(single());
    let allocation = lab.place(job, ALL, &[node]);
    lab.start(node, allocation, 1);
    let exit = lab.state.allocations[allocation].chain.0[0];
    let exit = yard_core::agent::Exit {
        link: exit,
        cause: ExitCause::Exited(5),
        status: None,
        rank: Some(0),
    };
    let command = lab.report_of(node, allocation, ReportKind::Exited(vec![exit]));
    lab.ok(Actor::Node(node), command.clone());
    let before = lab.state.jobs[job].tasks.get(0).copied();
    lab.ok(Actor::Node(node), command);
    lab.report(node, allocation, ReportKind::Exited(vec![exit]));
    assert_eq!(lab.state.jobs[job].tasks.get(0).copied(), before);
}

#[test]
fn a_report_that_was_refused_is_not_overtaken_by_the_next() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let mut plan = single();
    plan.isolation.class = IsolationClass::Tolerant;
    let job = lab.submit(plan);
    let allocation = lab.place(job, ALL, &[node]);
    lab.start(node, allocation, 1);
    let link = lab.state.allocations[allocation].chain.0[0];
    let exit =
        yard_core::agent::Exit { link, cause: ExitCause::Exited(0), status: None, rank: None };
    let exited = lab.report_of(node, allocation, ReportKind::Exited(vec![exit]));
    let reaped = lab.report_of(node, allocation, ReportKind::Reaped);
    lab.lose(node);
    lab.refused(Actor::Node(node), exited.clone());
    lab.bring_back(node);
    let reported = Reply::Reported(yard_common::id::Sequence(1));
    assert_eq!(lab.ok(Actor::Node(node), reaped.clone()), reported);
    lab.ok(Actor::Node(node), exited);
    lab.ok(Actor::Node(node), reaped);
    assert_eq!(lab.state.jobs[job].state, JobState::Succeeded);
    assert!(lab.state.nodes[node].is_idle());
}

#[test]
fn an_agent_that_knows_nothing_is_believed() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let job = lab.submit(single());
    let allocation = lab.place(job, ALL, &[node]);
    lab.start(node, allocation, 1);
    lab.exit(node, allocation, ExitCause::Lost(LostReason::Unknown));
    assert_eq!(lab.states(job), "0:Backoff", "never success, never invented");
}

#[test]
fn a_drained_node_empties_at_its_deadline() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let job = lab.submit(single());
    let allocation = lab.place(job, ALL, &[node]);
    lab.start(node, allocation, 1);
    let plan = DrainPlan { in_ms: 1_000, deadline_ms: Some(9_000), reason: "disk".into() };
    lab.ok(lab.user(), Command::Node(NodeCommand::Drain { node, plan }));
    lab.wait(5_000);
    assert_eq!(lab.state.jobs[job].state, JobState::Running);
    lab.wait(5_000);
    assert_eq!(lab.state.allocations[allocation].cause, Some(ExitCause::Drained));
    lab.exit(node, allocation, ExitCause::Drained);
    lab.reap(node, allocation);
    assert_eq!(lab.states(job), "0:Queued");
    lab.ok(lab.user(), Command::Node(NodeCommand::Remove(node)));
    assert!(lab.state.nodes.get(node).is_none());
}

#[test]
fn silence_during_maintenance_means_nothing() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let maintenance = NodeCommand::Maintenance { node, for_ms: 120_000 };
    lab.ok(Actor::Node(node), Command::Node(maintenance));
    let lease = lab.state.nodes[node].lease;
    let suspect = NodeCommand::Suspect { node, lease };
    let refused = lab.refused(Actor::Leader, Command::Node(suspect.clone()));
    assert_eq!(refused.code(), yard_common::ErrorCode::WrongState);
    lab.wait(121_000);
    lab.ok(Actor::Leader, Command::Node(suspect));
    assert_eq!(lab.state.nodes[node].state, NodeState::Suspect);
}

#[test]
fn an_agent_that_is_back_gets_work_and_keeps_its_time() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let does = |lab: &mut Lab, command| lab.ok(Actor::Node(node), Command::Node(command));
    does(&mut lab, NodeCommand::Maintenance { node, for_ms: 120_000 });
    let until_ms = lab.state.nodes[node].maintenance_until_ms;
    assert!(!lab.state.nodes[node].takes_work(lab.state.now_ms()));
    lab.wait(5_000);
    does(&mut lab, NodeCommand::Back(node));
    assert!(lab.state.nodes[node].takes_work(lab.state.now_ms()));
    let job = lab.submit(single());
    lab.place(job, ALL, &[node]);
    // Silence keeps more work away; what ran when it left counts on the time for all that.
    let lease = lab.state.nodes[node].lease;
    lab.ok(Actor::Leader, Command::Node(NodeCommand::Suspect { node, lease }));
    let membership = lab.state.membership.id;
    let lost = Command::Node(NodeCommand::Lost(yard_core::lease::Lost { node, lease, membership }));
    let refused = lab.refused(Actor::Leader, lost.clone());
    assert_eq!(refused.code(), yard_common::ErrorCode::WrongState);
    // To leave again for less than is left takes nothing back.
    does(&mut lab, NodeCommand::Maintenance { node, for_ms: 1_000 });
    assert_eq!(lab.state.nodes[node].maintenance_until_ms, until_ms);
    lab.refused(Actor::Leader, Command::Node(NodeCommand::Returned { node, lease }));
    lab.wait(116_000);
    lab.ok(Actor::Leader, lost);
    // Nothing to come back from.
    lab.ok(Actor::Node(node), Command::Node(NodeCommand::Back(node)));
    assert!(!lab.state.nodes[node].back);
}

fn support_plan(after: After) -> yard_core::job::JobPlan {
    yard_core::job::JobPlan { after, ..single() }
}

#[test]
fn a_start_before_the_gang_is_ready_is_not_believed() {
    let mut lab = Lab::new();
    let (a, b) = (lab.join("a", 4, &[]), lab.join("b", 4, &[]));
    let job = lab.submit(gang(2, 2));
    let allocation = lab.place(job, ALL, &[a, b]);
    lab.start(a, allocation, 1);
    assert_eq!(lab.states(job), "0:Preparing");
    lab.wait(3_600_000);
    assert_eq!(lab.state.jobs[job].state, JobState::Stopping, "b never became ready");
}

#[test]
fn a_cancel_leaves_the_others_of_a_backoff_their_timer() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let mut plan = array(4);
    plan.retry.user = 1;
    let job = lab.submit(plan);
    let all = TaskRange { first: 0, len: 4 };
    let allocation = lab.place(job, all, &[node]);
    lab.start(node, allocation, 4);
    let link = ChainLink { tasks: all, attempt: AttemptNumber(1) };
    let exit = Exit { link, cause: ExitCause::Exited(1), status: None, rank: None };
    lab.report(node, allocation, ReportKind::Exited(vec![exit]));
    assert_eq!(lab.states(job), "0-3:Backoff", "they failed in one report");
    lab.cancel(job, Some(TaskRange { first: 0, len: 2 }));
    lab.wait(60_000);
    assert_eq!(lab.states(job), "0-1:Cancelled 2-3:Queued");
}

#[test]
fn promises_go_with_their_task_and_their_node() {
    let mut lab = Lab::new();
    let (a, b) = (lab.join("a", 4, &[]), lab.join("b", 4, &[]));
    let job = lab.submit(array(3));
    let promise = |task, node| Promise { job, task, nodes: vec![node], from_ms: 0 };
    let promises = vec![promise(0, a), promise(1, a), promise(2, b)];
    lab.ok(Actor::Leader, Command::Plan(Plan { promises, ..Plan::default() }));
    lab.cancel(job, Some(TaskRange::one(0)));
    let plan = DrainPlan { in_ms: 0, deadline_ms: None, reason: String::new() };
    lab.ok(lab.user(), Command::Node(NodeCommand::Drain { node: b, plan }));
    lab.ok(lab.user(), Command::Node(NodeCommand::Remove(b)));
    let left: Vec<_> = lab.state.reservations.iter().map(|(key, _)| key.1).collect();
    assert_eq!(left, [1]);
}

#[test]
fn a_report_beyond_a_gap_waits_until_the_gap_is_filled() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let job = lab.submit(single());
    let allocation = lab.place(job, TaskRange::one(0), &[node]);
    let chain = lab.state.allocations[allocation].chain.clone();
    let started = lab.report_of(node, allocation, ReportKind::Started(chain));
    let reaped = lab.report_of(node, allocation, ReportKind::Reaped);
    let before = lab.state.nodes[node].reported;
    assert_eq!(lab.ok(Actor::Node(node), reaped), Reply::Reported(before), "nothing of it counts");
    assert!(lab.state.allocations.contains(allocation));
    assert_ne!(lab.ok(Actor::Node(node), started), Reply::Reported(before));
}
