//! Every way to be refused, each with a command that is, and the words that people read.

mod support;

use std::collections::BTreeSet;
use support::*;
use yard_common::ErrorCode;
use yard_common::gpu::GpuGrant;
use yard_common::id::*;
use yard_common::limits;
use yard_core::command::*;

/// One refusal of each kind, with its text.
fn refusals() -> Vec<(Rejection, &'static str)> {
    let mut lab = Lab::new();
    let user = lab.user();
    let node = lab.join("a", 1, &[]);
    let job = lab.submit(single());
    let queue = lab.queue;
    let holder = |lab: &mut Lab, command| lab.refused(user, Command::Holder(command));
    let jobs = |lab: &mut Lab, command| lab.refused(user, Command::Job(command));
    let mut all = Vec::new();

    let absent = Holder::RemoveQueue(QueueId(404));
    all.push((holder(&mut lab, absent), "queue 404 does not exist"));
    let taken = Holder::AddWorkspace("default".into());
    all.push((holder(&mut lab, taken), "workspace 0 exists already"));
    let by_agent = lab.refused(Actor::Node(node), Command::Plan(Plan::default()));
    all.push((by_agent, "this needs the leader"));
    all.push((jobs(&mut lab, JobCommand::Release(job)), "job 0 is not held"));
    let stays = Holder::RemoveQueue(queue);
    all.push((holder(&mut lab, stays), "queue 0 is in use: what is called default stays"));
    let name = Holder::SetSetting("A".into(), None);
    let text = "name: not a legal name: 1 to 63 of a-z, 0-9 and -, the first of them no -";
    all.push((holder(&mut lab, name), text));

    let new = || Box::new(Submit { ..lab.submission(single()) });
    let replace = JobCommand::Replace { job, revision: 9, new: new() };
    all.push((jobs(&mut lab, replace), "job 0 changed since it was read; read it again"));
    let stale = NodeCommand::Returned { node, lease: LeaseId(404) };
    let stale = lab.refused(Actor::Leader, Command::Node(stale));
    all.push((stale, "node 0 was replaced by a newer one"));
    let share = ShareChoice { node, group: 0, gpus: GpuGrant::NONE };
    let big = lab.submit(gang(1, 2));
    let placement = Placement { job: big, tasks: vec![TaskRange::one(0)], shares: vec![share] };
    let unfit = lab.try_place(placement).expect_err("one CPU is too few");
    all.push((unfit, "the placement does not fit: node a: Cpus"));
    let login = Access::RedeemLogin { token: TokenId::from_u128(1), secret_sha256: [0; 32] };
    let bad = lab.refused(Actor::Bearer, Command::Access(login));
    all.push((bad, "the token is not valid"));
    let level = Command::Cluster(Cluster::RaiseFeatureLevel(raise_to(9)));
    let level = lab.refused(Actor::Leader, level);
    all.push((level, "this needs feature level 8, the cluster is at 0"));

    let one = HolderLimit { jobs: Some(1), ..HolderLimit::default() };
    let set = Holder::SetLimit(LimitScope::Queue(queue), Some(one));
    lab.ok(user, Command::Holder(set));
    all.push((submit(&mut lab), "jobs that have not ended would pass its limit of 1"));
    let closed = QueueChange { accepts: false, ..QueueChange::default() };
    lab.ok(user, Command::Holder(Holder::SetQueue(queue, closed)));
    all.push((submit(&mut lab), "queue 0 takes no jobs at present"));
    let other = lab.add_user("bob", Vec::new());
    let Actor::User(bob) = other else { panic!("bob is a user") };
    let disable = Access::DisableUser { user: bob, disabled: true };
    lab.ok(user, Command::Access(disable));
    let revoked = lab.refused(other, Command::Plan(Plan::default()));
    all.push((revoked, "user 1 is disabled or revoked"));
    lab.leader = LeaderId { term: 0, member: MemberId(9) };
    let fenced = lab.refused(Actor::Leader, Command::Cluster(Cluster::Tick));
    all.push((fenced, "another leader has started; ask it"));
    all
}

fn submit(lab: &mut Lab) -> Rejection {
    let request = lab.request();
    let submit = Command::Job(JobCommand::Submit(Box::new(lab.submission(single()))));
    lab.apply(lab.user(), Some(request), submit).reply.expect_err("no room, or closed")
}

#[test]
fn each_refusal_says_what_is_wrong() {
    for (rejection, text) in refusals() {
        assert_eq!(rejection.to_string(), text);
    }
}

#[test]
fn people_are_told_names() {
    let mut lab = Lab::new();
    let (user, queue) = (lab.user(), lab.queue);
    let node = lab.join("a", 1, &[]);
    let refusals = [
        (Command::Node(NodeCommand::Undrain(node)), "node a is neither drained nor cordoned"),
        (
            Command::Holder(Holder::RemoveQueue(queue)),
            "queue default is in use: what is called default stays",
        ),
        (
            Command::Holder(Holder::AddWorkspace("default".into())),
            "workspace default exists already",
        ),
        (Command::Holder(Holder::RemoveQueue(QueueId(404))), "queue 404 does not exist"),
    ];
    for (command, text) in refusals {
        assert_eq!(lab.refused(user, command).told(&lab.state), text);
    }
}

#[test]
fn each_code_of_the_state_has_its_refusal() {
    let seen: BTreeSet<ErrorCode> = refusals().iter().map(|(why, _)| why.code()).collect();
    let of_state = ErrorCode::ALL.iter().filter(|code| (2000..3000).contains(&code.number()));
    let unseen: Vec<_> = of_state.filter(|code| !seen.contains(code)).collect();
    assert!(unseen.is_empty(), "{unseen:?}");
}

#[test]
fn bounds_hold_to_the_last_one() {
    let mut lab = Lab::new();
    let user = lab.user();
    lab.audit = false;
    let fill = limits::HOLDERS_MAX - lab.state.workspaces.len();
    for number in 0..fill {
        lab.ok(user, Command::Holder(Holder::AddWorkspace(format!("w{number}"))));
    }
    let full = lab.refused(user, Command::Holder(Holder::AddWorkspace("one-more".into())));
    let limit = limits::HOLDERS_MAX as u64;
    assert_eq!(full, Rejection::LimitReached { what: "workspaces".into(), limit });
}

#[test]
fn a_request_is_answered_once_and_means_one_thing() {
    let mut lab = Lab::new();
    let (user, request) = (lab.user(), Some(RequestId::from_u128(4_711)));
    let add = |name: &str| Command::Holder(Holder::AddWorkspace(name.into()));
    let first = lab.apply(user, request, add("vision")).reply;
    assert!(first.is_ok());
    assert_eq!(lab.apply(user, request, add("vision")).reply, first, "the same answer");
    let other = lab.apply(user, request, add("speech")).reply;
    assert_eq!(other, Err(Rejection::AlreadyExists(Object::Definition)));
    let bob = lab.add_user("bob", vec![Grant { workspace: None, role: Role::Admin }]);
    assert!(lab.apply(bob, request, add("speech")).reply.is_ok(), "requests are of their actor");
    lab.wait(limits::DEDUP_LIFE_MS + 1);
    let late = lab.apply(user, request, add("vision")).reply;
    assert_eq!(late.unwrap_err().code(), ErrorCode::AlreadyExists, "forgotten: it is a new one");
}

#[test]
fn a_replaced_job_is_forgotten_with_all_its_answers() {
    let mut lab = Lab::new();
    let job = lab.submit(single());
    let (request, new) = (lab.request(), Box::new(lab.submission(gang(2, 1))));
    let replace = Command::Job(JobCommand::Replace { job, revision: 0, new });
    let answer = lab.apply(lab.user(), Some(request), replace.clone()).reply;
    assert_eq!(answer, Ok(Reply::Job(job)));
    assert_eq!(lab.apply(lab.user(), Some(request), replace).reply, answer);
    lab.cancel(job, None);
    lab.wait(limits::ENDED_LIFE_MS + 1);
    lab.wait(1);
    assert!(lab.state.jobs.is_empty());
    assert!(lab.state.dedup.is_empty(), "no answer leads to what is gone");
}

#[test]
fn the_indices_of_an_array_stay_while_another_waits_for_them() {
    let mut lab = Lab::new();
    let first = lab.submit(array(3));
    let after = yard_core::job::After { each: vec![first], ..Default::default() };
    let waiter = lab.submit(yard_core::job::JobPlan { after, ..array(3) });
    let mut replace = |revision, plan| {
        let new = Box::new(lab.submission(plan));
        let command = Command::Job(JobCommand::Replace { job: first, revision, new });
        lab.apply(lab.user(), None, command).reply
    };
    let why = format!("job {waiter} waits for it index by index; keep its indices");
    assert_eq!(replace(0, single()), Err(Rejection::InUse(Object::Job(first), why)));
    assert_eq!(replace(0, array(3)), Ok(Reply::Job(first)));
}
