//! Every command by every kind of actor: who is let in, and what the others are told.

mod support;

use std::collections::BTreeSet;
use support::*;
use yard_common::id::*;
use yard_core::command::*;
use yard_core::lease::{Lift, Lost};

/// The actors, one letter each.
struct Cast {
    lab: Lab,
    actors: Vec<(char, Actor)>,
    node: NodeId,
    job: JobId,
    token: TokenId,
    home: WorkspaceId,
}

const SECRET: [u8; 32] = [9; 32];

/// `L`eader, `B`earer, agent of the `n`ode and of a`m`other; users: `A`dmin and `O`perator of the
/// cluster; in the job's workspace `a`dmin, `o`perator, its owner `u`, another user `w`, `v`iewer;
/// a `f`ormer owner of another job without a role, and a user of a f`e`rent workspace.
fn cast() -> Cast {
    let mut lab = Lab::new();
    let (node, other) = (lab.join("a", 4, &[]), lab.join("b", 4, &[]));
    let home = lab.workspace;
    let away = match lab.ok(lab.user(), Command::Holder(Holder::AddWorkspace("away".into()))) {
        Reply::Made(Object::Workspace(id)) => id,
        other => panic!("{other:?}"),
    };
    let mut actors = vec![
        ('L', Actor::Leader),
        ('B', Actor::Bearer),
        ('n', Actor::Node(node)),
        ('m', Actor::Node(other)),
    ];
    for (letter, workspace, role) in [
        ('A', None, Role::Admin),
        ('O', None, Role::Operator),
        ('a', Some(home), Role::Admin),
        ('o', Some(home), Role::Operator),
        ('u', Some(home), Role::User),
        ('w', Some(home), Role::User),
        ('v', Some(home), Role::Viewer),
        ('f', Some(home), Role::User),
        ('e', Some(away), Role::Admin),
    ] {
        let name = format!("user-{}{letter}", if letter.is_uppercase() { "cluster-" } else { "" });
        let name = name.to_lowercase();
        let grants = vec![Grant { workspace, role }];
        actors.push((letter, lab.add_user(&name, grants)));
    }
    let actor =
        |letter| actors.iter().find(|(it, _)| *it == letter).expect("a letter of the cast").1;
    let job = lab.submit_as(actor('u'), single());
    let token = TokenId::from_u128(77);
    let Actor::User(former) = actor('f') else { panic!("f is a user") };
    let (scope, life_ms) = (Scope::Login(former), 60_000);
    let add = Access::AddToken { token, secret_sha256: SECRET, scope, life_ms };
    lab.ok(lab.user(), Command::Access(add));
    let set = Access::SetUser { user: former, unix: None, grants: Vec::new() };
    lab.ok(lab.user(), Command::Access(set));
    Cast { lab, actors, node, job, token, home }
}

/// Who may ask for it, as letters. Written apart from the table in apply; a new command does not
/// compile without a row here.
fn who(command: &Command) -> &'static str {
    match command {
        Command::Plan(_) => "L",
        Command::Report(_) => "n",
        Command::Cluster(command) => match command {
            Cluster::Initialise { .. }
            | Cluster::LeaderStarted
            | Cluster::Tick
            | Cluster::Restored { .. }
            | Cluster::RaiseFeatureLevel(_)
            | Cluster::Members { .. }
            | Cluster::MemberLeft(_) => "L",
            Cluster::AddMember(_) | Cluster::RemoveMember(_) => "A",
        },
        Command::Access(command) => match command {
            Access::AddUser { .. }
            | Access::SetUser { .. }
            | Access::DisableUser { .. }
            | Access::DropToken(_)
            | Access::Revoke { .. } => "A",
            Access::AddToken { scope: Scope::Join(_) | Scope::Renew(_), .. } => "AO",
            Access::AddToken { scope: Scope::Login(_) | Scope::Member, .. } => "A",
            Access::RedeemLogin { .. } | Access::JoinMember { .. } => "B",
            Access::PutSecret { .. } | Access::DropSecret { .. } => "Aa",
        },
        Command::Holder(command) => match command {
            Holder::AddWorkspace(_)
            | Holder::RemoveWorkspace(_)
            | Holder::SetSetup(..)
            | Holder::SetSetting(..) => "A",
            Holder::AddPool(..)
            | Holder::SetPool(..)
            | Holder::RemovePool(_)
            | Holder::AddQueue(..)
            | Holder::SetQueue(..)
            | Holder::RemoveQueue(_)
            | Holder::SetLimit(..)
            | Holder::AddMount { .. }
            | Holder::SetMount(..)
            | Holder::RemoveMount(_) => "AO",
        },
        Command::Node(command) => match command {
            NodeCommand::Join { .. } => "B",
            NodeCommand::Update { .. } => "n",
            NodeCommand::Maintenance { .. } | NodeCommand::Back(_) => "nAO",
            NodeCommand::Suspect { .. }
            | NodeCommand::Lost(_)
            | NodeCommand::Returned { .. }
            | NodeCommand::Lift(_) => "L",
            NodeCommand::Drain { .. }
            | NodeCommand::Undrain(_)
            | NodeCommand::ConfirmDead(_)
            | NodeCommand::Remove(_)
            | NodeCommand::DrainGpu { .. }
            | NodeCommand::UndrainGpu { .. }
            | NodeCommand::Check(_) => "AO",
        },
        Command::Job(command) => match command {
            JobCommand::Submit(_) => "AOaouw",
            JobCommand::Replace { .. }
            | JobCommand::Adjust { .. }
            | JobCommand::Cancel { .. }
            | JobCommand::Requeue { .. }
            | JobCommand::Hold { .. }
            | JobCommand::Release(_)
            | JobCommand::Suspend { .. }
            | JobCommand::Resume(_) => "AOaou",
            JobCommand::Visit { .. } => "Aau",
        },
    }
}

fn access_commands(cast: &Cast) -> Vec<Command> {
    let (user, workspace) = (PrincipalId(1), cast.home);
    let (token, secret_sha256, life_ms) = (TokenId::from_u128(5), [0; 32], 1_000);
    let add = |scope| Access::AddToken { token, secret_sha256, scope, life_ms };
    let all = vec![
        Access::AddUser { name: "new".into(), unix: None, grants: Vec::new() },
        Access::SetUser { user, unix: None, grants: Vec::new() },
        Access::DisableUser { user, disabled: true },
        add(Scope::Join(cast.lab.pool)),
        add(Scope::Renew(cast.node)),
        add(Scope::Login(user)),
        add(Scope::Member),
        Access::DropToken(cast.token),
        Access::DropToken(TokenId::from_u128(404)),
        Access::RedeemLogin { token: cast.token, secret_sha256: SECRET },
        Access::Revoke { serial: vec![1], reason: "lost".into(), expires_wall_ms: u64::MAX },
        Access::PutSecret { workspace, name: "s".into(), ciphertext: vec![1], version: 1 },
        Access::DropSecret { workspace, name: "s".into() },
        Access::JoinMember {
            token,
            secret_sha256,
            key_sha256: [1; 32],
            address: "a:1".into(),
            level_max: FeatureLevel(0),
        },
    ];
    all.into_iter().map(Command::Access).collect()
}

fn holder_commands(cast: &Cast) -> Vec<Command> {
    let (pool, queue, workspace, mount) = (cast.lab.pool, cast.lab.queue, cast.home, MountId(0));
    let (name, definition) = ("data".to_string(), String::new());
    let all = vec![
        Holder::AddWorkspace("new".into()),
        Holder::RemoveWorkspace(workspace),
        Holder::AddPool("new".into(), PoolChange::default()),
        Holder::SetPool(pool, PoolChange::default()),
        Holder::RemovePool(pool),
        Holder::AddQueue("new".into(), QueueChange::default()),
        Holder::SetQueue(queue, QueueChange::default()),
        Holder::RemoveQueue(queue),
        Holder::SetLimit(LimitScope::Queue(queue), None),
        Holder::SetSetting("key".into(), None),
        Holder::AddMount { workspace, name, definition },
        Holder::SetMount(mount, String::new()),
        Holder::RemoveMount(mount),
        Holder::SetSetup(pool, None),
    ];
    all.into_iter().map(Command::Holder).collect()
}

fn node_commands(cast: &Cast) -> Vec<Command> {
    let (node, lease) = (cast.node, cast.lab.state.nodes[cast.node].lease);
    let membership = cast.lab.state.membership.id;
    let inventory = inventory("a", 4, &[], 1);
    let (token, secret_sha256, name) = (cast.token, SECRET, "c".to_string());
    let plan = DrainPlan { in_ms: 0, deadline_ms: None, reason: String::new() };
    let all = vec![
        NodeCommand::Join { token, secret_sha256, name, inventory: inventory.clone() },
        NodeCommand::Update { node, inventory },
        NodeCommand::Maintenance { node, for_ms: 1_000 },
        NodeCommand::Back(node),
        NodeCommand::Suspect { node, lease },
        NodeCommand::Lost(Lost { node, lease, membership }),
        NodeCommand::Returned { node, lease },
        NodeCommand::Lift(Lift { node, lease }),
        NodeCommand::Drain { node, plan },
        NodeCommand::Undrain(node),
        NodeCommand::ConfirmDead(node),
        NodeCommand::Remove(node),
        NodeCommand::DrainGpu { node, gpu: "g".into(), reason: String::new() },
        NodeCommand::UndrainGpu { node, gpu: "g".into() },
        NodeCommand::Check(node),
    ];
    all.into_iter().map(Command::Node).collect()
}

fn job_commands(cast: &Cast, job: JobId) -> Vec<Command> {
    let new = Box::new(cast.lab.submission(single()));
    let reason = String::new;
    let all = vec![
        JobCommand::Replace { job, revision: 0, new },
        JobCommand::Adjust { job, change: Adjust::default() },
        JobCommand::Cancel { job, tasks: None, reason: reason() },
        JobCommand::Requeue { job, tasks: None },
        JobCommand::Hold { job, reason: reason() },
        JobCommand::Release(job),
        JobCommand::Suspend { job, reason: reason() },
        JobCommand::Resume(job),
        JobCommand::Visit { job, task: 0, visit: Visit::Exec },
    ];
    all.into_iter().map(Command::Job).collect()
}

fn commands(cast: &Cast) -> Vec<Command> {
    let voters = BTreeSet::from([MemberId(1)]);
    let (cluster, admin) = (ClusterId::from_u128(1), "x".to_string());
    let node = cast.node;
    let mut all = vec![
        Command::Plan(Plan::default()),
        Command::Report(NodeReport { node, reports: Vec::new() }),
        Command::Cluster(Cluster::Initialise { cluster, admin, unix: None }),
        Command::Cluster(Cluster::LeaderStarted),
        Command::Cluster(Cluster::Tick),
        Command::Cluster(Cluster::Restored { incarnation: Incarnation(2), after_ms: 0 }),
        Command::Cluster(Cluster::RaiseFeatureLevel(raise_to(1))),
        Command::Cluster(Cluster::Members { voters, joint: None }),
        Command::Cluster(Cluster::MemberLeft(MemberId(1))),
        Command::Cluster(Cluster::AddMember(MemberId(1))),
        Command::Cluster(Cluster::RemoveMember(MemberId(1))),
        Command::Job(JobCommand::Submit(Box::new(cast.lab.submission(single())))),
    ];
    all.extend(access_commands(cast));
    all.extend(holder_commands(cast));
    all.extend(node_commands(cast));
    all.extend(job_commands(cast, cast.job));
    all
}

#[test]
fn every_command_lets_in_whom_the_table_names() {
    let mut cast = cast();
    let clean = cast.lab.state.clone();
    for command in commands(&cast) {
        let expected: BTreeSet<char> = who(&command).chars().collect();
        for (letter, actor) in cast.actors.clone() {
            let reply = cast.lab.apply(actor, None, command.clone()).reply;
            let hidden = Err(Rejection::NotFound(Object::Job(cast.job)));
            let refused = matches!(reply, Err(Rejection::NotAllowed(_))) || reply == hidden;
            let let_in = expected.contains(&letter);
            assert_eq!(!refused, let_in, "{command:?} by {letter}: {reply:?}");
            cast.lab.state = clean.clone();
        }
    }
}

#[test]
fn a_foreign_job_is_like_an_absent_one() {
    let mut cast = cast();
    let absent = JobId(404);
    for letter in ['f', 'e'] {
        let actor = cast.actors.iter().find(|(it, _)| *it == letter).unwrap().1;
        let pairs = job_commands(&cast, cast.job).into_iter().zip(job_commands(&cast, absent));
        for (foreign, missing) in pairs {
            let foreign = cast.lab.refused(actor, foreign);
            let missing = cast.lab.refused(actor, missing);
            assert_eq!(foreign, Rejection::NotFound(Object::Job(cast.job)));
            assert_eq!(missing, Rejection::NotFound(Object::Job(absent)));
        }
    }
}

#[test]
fn who_may_not_drop_a_token_does_not_learn_whether_it_exists() {
    let mut cast = cast();
    let operator = cast.actors.iter().find(|(it, _)| *it == 'O').unwrap().1;
    let login = cast.lab.refused(operator, Command::Access(Access::DropToken(cast.token)));
    let absent = Access::DropToken(TokenId::from_u128(404));
    assert_eq!(login, cast.lab.refused(operator, Command::Access(absent)));
}

#[test]
fn an_owner_who_only_views_may_not_change_the_job() {
    let mut cast = cast();
    let owner = cast.actors.iter().find(|(it, _)| *it == 'u').unwrap().1;
    let Actor::User(user) = owner else { panic!("the owner is a user") };
    let grants = vec![Grant { workspace: Some(cast.home), role: Role::Viewer }];
    cast.lab.ok(cast.lab.user(), Command::Access(Access::SetUser { user, unix: None, grants }));
    let refused = cast.lab.refused(owner, Command::Job(JobCommand::Release(cast.job)));
    assert_eq!(
        refused.to_string(),
        "this needs the owner of job 0, or the role Operator in its workspace"
    );
}

#[test]
fn disabled_users_and_unknown_actors_are_shut_out() {
    let mut cast = cast();
    let admin = cast.actors.iter().find(|(it, _)| *it == 'A').unwrap().1;
    let Actor::User(user) = admin else { panic!("the admin is a user") };
    let disable = |disabled| Command::Access(Access::DisableUser { user, disabled });
    cast.lab.ok(cast.lab.user(), disable(true));
    for command in commands(&cast) {
        let refused = cast.lab.refused(admin, command.clone());
        assert_eq!(refused, Rejection::Revoked(Object::User(user)), "{command:?}");
    }
    cast.lab.ok(cast.lab.user(), disable(false));
    cast.lab.ok(admin, Command::Holder(Holder::AddWorkspace("again".into())));
    for (actor, object) in [
        (Actor::User(PrincipalId(404)), Object::User(PrincipalId(404))),
        (Actor::Node(NodeId(404)), Object::Node(NodeId(404))),
    ] {
        let refused = cast.lab.refused(actor, Command::Cluster(Cluster::Tick));
        assert_eq!(refused, Rejection::NotFound(object));
    }
}

#[test]
fn of_two_leaders_in_one_term_the_first_is_fenced_once_the_second_has_started() {
    let mut lab = Lab::new();
    let first = lab.leader;
    let second = LeaderId { member: MemberId(first.member.0 + 1), ..first };
    lab.leader = second;
    lab.ok(Actor::Leader, Command::Cluster(Cluster::LeaderStarted));
    lab.leader = first;
    let late = Holder::AddWorkspace("late".into());
    assert_eq!(lab.refused(lab.user(), Command::Holder(late)), Rejection::StaleLeader);
    let again = Command::Cluster(Cluster::LeaderStarted);
    assert_eq!(lab.refused(Actor::Leader, again), Rejection::StaleLeader);
}
