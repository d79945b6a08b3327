//! Workspaces, pools, queues, limits, settings and volumes, told as stories.

mod support;

use support::*;
use yard_common::ErrorCode;
use yard_common::id::*;
use yard_common::limits;
use yard_core::command::*;

#[track_caller]
fn operator(lab: &mut Lab, command: Holder) -> Reply {
    lab.ok(lab.user(), Command::Holder(command))
}

#[track_caller]
fn refused(lab: &mut Lab, command: Holder) -> Rejection {
    lab.refused(lab.user(), Command::Holder(command))
}

#[track_caller]
fn made(lab: &mut Lab, command: Holder) -> Object {
    match operator(lab, command) {
        Reply::Made(object) => object,
        other => panic!("{other:?}"),
    }
}

fn add_pool(lab: &mut Lab, name: &str) -> PoolId {
    match made(lab, Holder::AddPool(name.into(), PoolChange::default())) {
        Object::Pool(id) => id,
        other => panic!("{other:?}"),
    }
}

fn add_queue(lab: &mut Lab, name: &str) -> QueueId {
    match made(lab, Holder::AddQueue(name.into(), QueueChange::default())) {
        Object::Queue(id) => id,
        other => panic!("{other:?}"),
    }
}

fn add_workspace(lab: &mut Lab, name: &str) -> WorkspaceId {
    match made(lab, Holder::AddWorkspace(name.into())) {
        Object::Workspace(id) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_are_legal_and_taken_once() {
    let mut lab = Lab::new();
    let add: [fn(String) -> Holder; 3] = [
        Holder::AddWorkspace,
        |name| Holder::AddPool(name, PoolChange::default()),
        |name| Holder::AddQueue(name, QueueChange::default()),
    ];
    for add in add {
        operator(&mut lab, add("mine".into()));
        let taken = refused(&mut lab, add("mine".into()));
        assert_eq!(taken.code(), ErrorCode::AlreadyExists);
        let illegal = refused(&mut lab, add("Not Legal".into()));
        assert_eq!(illegal.code(), ErrorCode::InvalidArgument);
        assert!(!illegal.to_string().contains("Not Legal"), "hostile text is not repeated");
    }
}

#[test]
fn what_is_called_default_stays() {
    let mut lab = Lab::new();
    for remove in [
        Holder::RemoveWorkspace(lab.workspace),
        Holder::RemovePool(lab.pool),
        Holder::RemoveQueue(lab.queue),
    ] {
        assert_eq!(refused(&mut lab, remove).code(), ErrorCode::InUse);
    }
}

#[test]
fn what_does_not_exist_is_not_found() {
    let mut lab = Lab::new();
    let (pool, queue, set) = (PoolId(404), QueueId(404), PoolChange::default());
    for command in [
        Holder::RemoveWorkspace(WorkspaceId(404)),
        Holder::SetPool(pool, set),
        Holder::RemovePool(pool),
        Holder::SetQueue(queue, QueueChange::default()),
        Holder::SetQueue(lab.queue, QueueChange { pools: vec![pool], ..QueueChange::default() }),
        Holder::RemoveQueue(queue),
        Holder::SetLimit(LimitScope::EachOwner(queue), None),
        Holder::SetLimit(LimitScope::Owner(PrincipalId(404)), None),
        Holder::SetLimit(LimitScope::Workspace(WorkspaceId(404)), None),
        Holder::SetSetting("absent".into(), None),
        Holder::SetMount(MountId(404), String::new()),
        Holder::RemoveMount(MountId(404)),
        Holder::SetSetup(pool, None),
    ] {
        let why = refused(&mut lab, command.clone());
        assert_eq!(why.code(), ErrorCode::NotFound, "{command:?}");
    }
}

#[test]
fn a_workspace_with_something_in_it_stays() {
    let mut lab = Lab::new();
    let id = add_workspace(&mut lab, "vision");
    let grants = vec![Grant { workspace: Some(id), role: Role::User }];
    let bob = lab.add_user("bob", grants);
    operator(&mut lab, Holder::SetLimit(LimitScope::Workspace(id), Some(HolderLimit::default())));
    let remove = Holder::RemoveWorkspace(id);
    let (name, definition) = ("data".to_string(), "nfs".to_string());
    let mount = made(&mut lab, Holder::AddMount { workspace: id, name, definition });
    assert_eq!(refused(&mut lab, remove.clone()).code(), ErrorCode::InUse);
    let Object::Mount(mount) = mount else { panic!("{mount:?}") };
    operator(&mut lab, Holder::RemoveMount(mount));
    let home = std::mem::replace(&mut lab.workspace, id);
    let job = lab.submit_as(bob, single());
    lab.workspace = home;
    assert_eq!(refused(&mut lab, remove.clone()).code(), ErrorCode::InUse);
    lab.cancel(job, None);
    assert_eq!(refused(&mut lab, remove.clone()).code(), ErrorCode::InUse, "ended, not forgotten");
    lab.wait(limits::ENDED_LIFE_MS + 1);
    operator(&mut lab, remove);
    assert_eq!(lab.state.holdings.limits().count(), 0, "its limit goes with it");
    let Actor::User(bob) = bob else { panic!("bob is a user") };
    assert!(lab.state.principals[bob].grants.is_empty(), "and the roles in it");
}

#[test]
fn a_pool_that_is_named_stays() {
    let mut lab = Lab::new();
    let pool = add_pool(&mut lab, "gpus");
    let remove = Holder::RemovePool(pool);
    let default = std::mem::replace(&mut lab.pool, pool);
    let node = lab.join("a", 4, &[]);
    lab.pool = default;
    assert!(refused(&mut lab, remove.clone()).to_string().contains("1 nodes"));
    let plan = DrainPlan { in_ms: 0, deadline_ms: None, reason: String::new() };
    lab.ok(lab.user(), Command::Node(NodeCommand::Drain { node, plan }));
    lab.ok(lab.user(), Command::Node(NodeCommand::Remove(node)));
    let (queue, names) = (lab.queue, QueueChange { pools: vec![pool], ..QueueChange::default() });
    operator(&mut lab, Holder::SetQueue(queue, names));
    assert!(refused(&mut lab, remove.clone()).to_string().contains("queue default names it"));
    operator(&mut lab, Holder::SetQueue(queue, QueueChange::default()));
    let mut plan = single();
    plan.any_of = vec![plan.shape.clone()];
    plan.any_of[0].pool = Some(pool);
    let job = lab.submit(plan);
    assert!(refused(&mut lab, remove.clone()).to_string().contains("job 0 names it"));
    lab.cancel(job, None);
    let (scope, life_ms) = (Scope::Join(pool), 60_000);
    let (token, secret_sha256) = (TokenId::from_u128(99), [0; 32]);
    let add = Access::AddToken { token, secret_sha256, scope, life_ms };
    lab.ok(lab.user(), Command::Access(add));
    operator(&mut lab, remove);
    assert!(lab.state.tokens.is_empty(), "nobody can join it any more");
}

#[test]
fn a_queue_with_jobs_stays() {
    let mut lab = Lab::new();
    let queue = add_queue(&mut lab, "night");
    for scope in [LimitScope::Queue(queue), LimitScope::EachOwner(queue)] {
        operator(&mut lab, Holder::SetLimit(scope, Some(HolderLimit::default())));
    }
    let default = std::mem::replace(&mut lab.queue, queue);
    let job = lab.submit(single());
    lab.queue = default;
    assert_eq!(refused(&mut lab, Holder::RemoveQueue(queue)).code(), ErrorCode::InUse);
    lab.cancel(job, None);
    lab.wait(limits::ENDED_LIFE_MS + 1);
    operator(&mut lab, Holder::RemoveQueue(queue));
    assert_eq!(lab.state.holdings.limits().count(), 0);
}

#[test]
fn queues_are_set_to_what_makes_sense() {
    let mut lab = Lab::new();
    let (queue, pool, default) = (lab.queue, lab.pool, QueueChange::default());
    let day_ms = 24 * 3_600_000;
    for bad in [
        QueueChange { priority: 1_001, ..default.clone() },
        QueueChange { job_priority_max: -1_001, ..default.clone() },
        QueueChange { time_limit_max_ms: Some(0), ..default.clone() },
        QueueChange { time_limit_max_ms: Some(u64::MAX), ..default.clone() },
        QueueChange { time_limit_default_ms: Some(0), ..default.clone() },
        QueueChange {
            time_limit_default_ms: Some(day_ms + 1),
            time_limit_max_ms: Some(day_ms),
            ..default.clone()
        },
        QueueChange { pools: vec![pool, pool], ..default.clone() },
    ] {
        for command in
            [Holder::SetQueue(queue, bad.clone()), Holder::AddQueue("new".into(), bad.clone())]
        {
            let why = refused(&mut lab, command);
            assert_eq!(why.code(), ErrorCode::InvalidArgument, "{bad:?}");
        }
    }
    let good = QueueChange {
        priority: -1_000,
        job_priority_max: 1_000,
        time_limit_default_ms: Some(day_ms),
        time_limit_max_ms: Some(day_ms),
        pools: vec![pool],
        ..default
    };
    operator(&mut lab, Holder::SetQueue(queue, good.clone()));
    assert_eq!(lab.state.queues[queue].set, good);
}

#[test]
fn leases_of_pools_are_those_that_the_lease_allows() {
    let mut lab = Lab::new();
    let set = |lease_ms| PoolChange { description: "rack 1".into(), lease_ms };
    let pool = lab.pool;
    for bad in [1, 999, 60_001, u64::MAX] {
        let why = refused(&mut lab, Holder::SetPool(pool, set(bad)));
        assert_eq!(why.code(), ErrorCode::InvalidArgument, "{bad}");
    }
    for good in [0, 1_000, 60_000] {
        operator(&mut lab, Holder::SetPool(pool, set(good)));
    }
    assert_eq!(lab.state.lease_ms(pool), 60_000);
    let wordy = PoolChange { description: "x".repeat(limits::REASON_BYTES_MAX + 1), lease_ms: 0 };
    let why = refused(&mut lab, Holder::SetPool(pool, wordy));
    assert_eq!(why.code(), ErrorCode::InvalidArgument);
}

#[test]
fn a_limit_bounds_what_comes_after_it() {
    let mut lab = Lab::new();
    lab.submit(single());
    let one = HolderLimit { jobs: Some(1), ..HolderLimit::default() };
    let scope = LimitScope::Owner(lab.admin);
    operator(&mut lab, Holder::SetLimit(scope, Some(one)));
    let request = lab.request();
    let submit = Command::Job(JobCommand::Submit(Box::new(lab.submission(single()))));
    let full = lab.apply(lab.user(), Some(request), submit.clone()).reply;
    assert_eq!(full.unwrap_err().code(), ErrorCode::LimitReached);
    operator(&mut lab, Holder::SetLimit(scope, None));
    assert!(lab.apply(lab.user(), Some(request), submit).reply.is_ok());
}

#[test]
fn settings_and_volumes_are_bounded_texts() {
    let mut lab = Lab::new();
    let workspace = lab.workspace;
    let long = "x".repeat(limits::DEFINITION_BYTES_MAX + 1);
    let setting = |value: &str| Holder::SetSetting("motd".into(), Some(value.into()));
    assert_eq!(refused(&mut lab, setting(&long)).code(), ErrorCode::InvalidArgument);
    operator(&mut lab, setting("hello"));
    operator(&mut lab, setting("hello again"));
    assert_eq!(lab.state.settings.get(&"motd".into()).map(|it| &**it), Some("hello again"));
    operator(&mut lab, Holder::SetSetting("motd".into(), None));
    assert!(lab.state.settings.is_empty());
    let mount = |definition: &str| {
        let (name, definition) = ("data".to_string(), definition.to_string());
        Holder::AddMount { workspace, name, definition }
    };
    assert_eq!(refused(&mut lab, mount(&long)).code(), ErrorCode::InvalidArgument);
    let Object::Mount(id) = made(&mut lab, mount("nfs")) else { panic!("a volume") };
    assert_eq!(refused(&mut lab, mount("smb")), Rejection::AlreadyExists(Object::Mount(id)));
    operator(&mut lab, Holder::SetMount(id, "smb".into()));
    assert_eq!(&*lab.state.mounts[id].definition, "smb");
    operator(&mut lab, Holder::RemoveMount(id));
    assert_eq!(lab.state.workspaces[workspace].holds, 0);
}
