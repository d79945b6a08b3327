//! Users, tokens, refused certificates, secrets, and the cluster itself, told as stories.

mod support;

use std::collections::BTreeSet;
use support::*;
use yard_common::ErrorCode;
use yard_common::id::*;
use yard_common::limits;
use yard_common::state::{JobState, NodeState};
use yard_core::command::*;
use yard_core::state::{SecretKey, State};

const SECRET: [u8; 32] = [3; 32];

fn everywhere(role: Role) -> Vec<Grant> {
    vec![Grant { workspace: None, role }]
}

fn user_of(actor: Actor) -> PrincipalId {
    match actor {
        Actor::User(user) => user,
        other => panic!("{other:?} is no user"),
    }
}

#[track_caller]
fn admin(lab: &mut Lab, command: Access) -> Reply {
    lab.ok(lab.user(), Command::Access(command))
}

#[track_caller]
fn refused(lab: &mut Lab, command: Access) -> ErrorCode {
    lab.refused(lab.user(), Command::Access(command)).code()
}

fn token(number: u128, scope: Scope) -> Access {
    let token = TokenId::from_u128(number);
    Access::AddToken { token, secret_sha256: SECRET, scope, life_ms: 60_000 }
}

fn redeem(number: u128, secret_sha256: [u8; 32]) -> Command {
    Command::Access(Access::RedeemLogin { token: TokenId::from_u128(number), secret_sha256 })
}

#[test]
fn a_cluster_begins_with_an_admin_and_defaults() {
    let lab = Lab::new();
    let state = &lab.state;
    assert_eq!(state.workspaces.find("default"), Some(lab.workspace));
    assert_eq!(state.pools.find("default"), Some(lab.pool));
    assert_eq!(state.queues.find("default"), Some(lab.queue));
    let admin = &state.principals[lab.admin];
    assert_eq!(admin.grants, everywhere(Role::Admin));
    assert_eq!(admin.unix.as_deref(), Some("ada"));
}

#[test]
fn a_cluster_is_initialised_once_and_with_legal_names() {
    let mut lab = Lab::new();
    let initialise = |admin: &str, unix: &str| {
        let (cluster, unix) = (ClusterId::from_u128(8), Some(unix.to_string()));
        Command::Cluster(Cluster::Initialise { cluster, admin: admin.into(), unix })
    };
    let again = lab.refused(Actor::Leader, initialise("eve", "eve"));
    assert_eq!(again.code(), ErrorCode::WrongState);
    lab.state = State::default();
    lab.ok(Actor::Leader, Command::Cluster(Cluster::LeaderStarted));
    for (admin, unix) in [("Eve", "eve"), ("", "eve"), ("eve", "root"), ("eve", "0")] {
        let why = lab.refused(Actor::Leader, initialise(admin, unix));
        assert_eq!(why.code(), ErrorCode::InvalidArgument, "{admin} {unix}");
        assert!(lab.state.cluster.is_none() && lab.state.principals.is_empty());
    }
    let early = lab.refused(Actor::Leader, Command::Cluster(Cluster::Tick));
    assert_eq!(early.to_string(), "the cluster is not initialised yet");
    lab.ok(Actor::Leader, initialise("eve", "eve"));
}

#[test]
fn a_new_leader_shuts_the_old_one_out() {
    let mut lab = Lab::new();
    let old = lab.leader;
    lab.leader = LeaderId { term: 1, member: MemberId(2) };
    let user = lab.user();
    let by_user = lab.refused(user, Command::Cluster(Cluster::LeaderStarted));
    assert_eq!(by_user, Rejection::StaleLeader, "a user moves no fence");
    lab.ok(Actor::Leader, Command::Cluster(Cluster::LeaderStarted));
    lab.leader = old;
    for command in [Cluster::Tick, Cluster::LeaderStarted] {
        let stale = lab.refused(Actor::Leader, Command::Cluster(command));
        assert_eq!(stale, Rejection::StaleLeader);
    }
}

#[test]
fn the_log_tells_its_members_before_there_is_a_cluster() {
    let mut lab = Lab::new();
    lab.state = State::default();
    let voters: BTreeSet<_> = (1..=3).map(MemberId).collect();
    let members = |voters, joint| Command::Cluster(Cluster::Members { voters, joint });
    lab.ok(Actor::Leader, members(voters.clone(), None));
    assert_eq!(lab.state.membership.id.0, lab.state.applied);
    let more: BTreeSet<_> = (3..=5).map(MemberId).collect();
    lab.ok(Actor::Leader, members(voters.clone(), Some(more)));
    assert!(lab.state.membership.is_voter(MemberId(5)));
    let crowd = (0..10).map(MemberId).collect();
    for (voters, joint) in [(crowd, None), (BTreeSet::new(), None), (voters, Some(BTreeSet::new()))]
    {
        let why = lab.refused(Actor::Leader, members(voters, joint));
        assert_eq!(why.code(), ErrorCode::InvalidArgument);
    }
    assert!(lab.state.membership.is_voter(MemberId(5)), "as it was");
}

#[test]
fn feature_levels_rise_one_by_one() {
    let mut lab = Lab::new();
    let raise = |level| Command::Cluster(Cluster::RaiseFeatureLevel(raise_to(level)));
    let skipped = lab.refused(Actor::Leader, raise(2));
    assert_eq!(skipped.to_string(), "this needs feature level 1, the cluster is at 0");
    lab.ok(Actor::Leader, raise(1));
    let unnamed = Raise { version: String::new(), ..raise_to(2) };
    let unnamed = Command::Cluster(Cluster::RaiseFeatureLevel(unnamed));
    assert_eq!(lab.refused(Actor::Leader, unnamed).code(), ErrorCode::InvalidArgument);
    lab.ok(Actor::Leader, raise(2));
    for level in [2, 1, 0] {
        let back = lab.refused(Actor::Leader, raise(level));
        assert_eq!(back.code(), ErrorCode::WrongState, "{level}");
    }
}

#[test]
fn a_restore_voids_all_that_agents_hold() {
    let mut lab = Lab::new();
    let (a, b) = (lab.join("a", 4, &[]), lab.join("b", 4, &[]));
    let job = lab.submit(gang(2, 2));
    let allocation = lab.place(job, TaskRange::one(0), &[a, b]);
    admin(&mut lab, token(9, Scope::Member));
    let (fence, lease) = (lab.state.desired(a).unwrap().fence, lab.state.nodes[a].lease);
    let reply = lab.ok(Actor::Leader, restored(9, 0));
    assert_eq!(reply, Reply::Incarnation(Incarnation(9)));
    assert!(!lab.state.allocations.contains(allocation));
    assert_eq!(lab.state.jobs[job].state, JobState::Queued);
    assert!(lab.state.tokens.is_empty(), "they may have been used after the backup");
    let node = &lab.state.nodes[a];
    assert!(node.lease > lease && node.lease.0 == Incarnation(9).first_number());
    assert!(node.leftovers.iter().all(|(_, left)| left.in_doubt) && !node.is_idle());
    assert!(lab.state.desired(a).unwrap().fence > fence);
    assert_eq!(node.state, NodeState::Up);
    let back = State::from_bytes(&lab.state.to_bytes()).unwrap();
    assert_eq!(back.to_bytes(), lab.state.to_bytes());
}

fn restored(life: u32, after_ms: u64) -> Command {
    Command::Cluster(Cluster::Restored { incarnation: Incarnation(life), after_ms })
}

/// Whatever was given out after the backup, by the cluster that was lost or by an earlier restore
/// of the same backup, is given out by nobody else.
#[test]
fn a_restored_cluster_gives_out_no_id_of_a_former_life() {
    let mut lab = Lab::new();
    let a = lab.join("a", 4, &[]);
    let job = lab.submit(gang(1, 1));
    let backup = lab.state.clone();
    let life = |lab: &mut Lab, life: u32, after_ms: u64| {
        lab.state = backup.clone();
        lab.ok(Actor::Leader, restored(life, after_ms));
        assert_eq!(lab.state.nodes.find("a"), Some(a));
        let job = lab.submit(gang(1, 1));
        let allocation = lab.place(job, TaskRange::one(0), &[a]);
        let node = lab.join("b", 4, &[]);
        let add = Access::AddUser { name: "eve".into(), unix: None, grants: Vec::new() };
        admin(lab, add);
        let user = lab.state.principals.find("eve").unwrap();
        (job.0, allocation.0, node.0, user.0)
    };
    let first = life(&mut lab, 1_700_000_000, 3_600_000);
    let second = life(&mut lab, 1_700_000_060, 3_660_000);
    assert_eq!(first.0, 37_010_000, "a million, and ten thousand for each second, rounded up");
    assert!(first.0 > job.0);
    assert_eq!(second.0 - first.0, 600_000);
    assert_eq!(first.1, 1_700_000_000 << 20);
    assert_eq!(second.1 - first.1, 60 << 20);
    assert_eq!((second.2 - first.2, second.3 - first.3), (240, 240));
    assert!(first.2 - a.0 > 24_400 && first.3 > 24_400);
    let far = life(&mut lab, 1_900_000_000, u64::MAX);
    assert_eq!(far.0, 4_000_000_000_000_000);
}

#[test]
fn lives_only_rise() {
    let mut lab = Lab::new();
    lab.ok(Actor::Leader, restored(5, 0));
    for life in [0, 1, 5] {
        let why = lab.refused(Actor::Leader, restored(life, 0));
        assert_eq!(why.code(), ErrorCode::InvalidArgument, "{life}");
    }
    lab.ok(Actor::Leader, restored(6, 0));
}

#[test]
fn users_have_legal_and_unique_names() {
    let mut lab = Lab::new();
    let add = |name: &str, unix: Option<&str>| Access::AddUser {
        name: name.into(),
        unix: unix.map(String::from),
        grants: Vec::new(),
    };
    admin(&mut lab, add("bob", Some("_bob-2")));
    assert_eq!(refused(&mut lab, add("bob", None)), ErrorCode::AlreadyExists);
    for name in ["", "Bob", "-bob", "b b", "bob\n"] {
        assert_eq!(refused(&mut lab, add(name, None)), ErrorCode::InvalidArgument, "{name:?}");
    }
    let long = "a".repeat(33);
    for unix in ["", "root", "0", "1000", "-x", "Bob", "a b", "a\n", "a.b", "ä", &long] {
        let code = refused(&mut lab, add("eve", Some(unix)));
        assert_eq!(code, ErrorCode::InvalidArgument, "{unix:?}");
    }
    admin(&mut lab, add("eve", Some(&long[..32])));
}

#[test]
fn roles_are_one_in_each_place_that_exists() {
    let mut lab = Lab::new();
    let here = Some(lab.workspace);
    let add = |grants| Access::AddUser { name: "bob".into(), unix: None, grants };
    let grant = |workspace, role| Grant { workspace, role };
    let twice = vec![grant(here, Role::User), grant(here, Role::Admin)];
    assert_eq!(refused(&mut lab, add(twice)), ErrorCode::InvalidArgument);
    let nowhere = vec![grant(Some(WorkspaceId(404)), Role::User)];
    assert_eq!(refused(&mut lab, add(nowhere)), ErrorCode::NotFound);
    let many = (0..=limits::GRANTS_MAX as u32).map(|id| grant(Some(WorkspaceId(id)), Role::User));
    assert_eq!(refused(&mut lab, add(many.collect())), ErrorCode::InvalidArgument);
    admin(&mut lab, add(vec![grant(here, Role::User), grant(None, Role::Viewer)]));
}

#[test]
fn the_last_admin_stays() {
    let mut lab = Lab::new();
    let first = lab.admin;
    let demote = |user| Access::SetUser { user, unix: None, grants: Vec::new() };
    let disable = |user| Access::DisableUser { user, disabled: true };
    assert_eq!(refused(&mut lab, demote(first)), ErrorCode::WrongState);
    assert_eq!(refused(&mut lab, disable(first)), ErrorCode::WrongState);
    let here = vec![Grant { workspace: Some(lab.workspace), role: Role::Admin }];
    lab.add_user("of-a-workspace", here);
    let second = user_of(lab.add_user("second", everywhere(Role::Admin)));
    admin(&mut lab, disable(second));
    assert_eq!(refused(&mut lab, demote(first)), ErrorCode::WrongState, "the other is disabled");
    admin(&mut lab, Access::DisableUser { user: second, disabled: false });
    admin(&mut lab, demote(first));
    let why = lab.refused(Actor::User(second), Command::Access(disable(second)));
    assert_eq!(why.code(), ErrorCode::WrongState);
}

#[test]
fn a_token_works_once() {
    let mut lab = Lab::new();
    let bob = user_of(lab.add_user("bob", Vec::new()));
    admin(&mut lab, token(1, Scope::Login(bob)));
    let wrong = lab.refused(Actor::Bearer, redeem(1, [4; 32]));
    assert_eq!(wrong, Rejection::BadToken);
    assert_eq!(lab.ok(Actor::Bearer, redeem(1, SECRET)), Reply::Login(bob));
    assert_eq!(lab.refused(Actor::Bearer, redeem(1, SECRET)), Rejection::BadToken);
    assert!(lab.state.timers.is_empty());
}

#[test]
fn whatever_is_wrong_with_a_token_the_answer_is_the_same() {
    let mut lab = Lab::new();
    let bob = user_of(lab.add_user("bob", Vec::new()));
    let node = lab.join("a", 1, &[]);
    admin(&mut lab, token(1, Scope::Login(bob)));
    let pool = lab.pool;
    admin(&mut lab, token(2, Scope::Join(pool)));
    admin(&mut lab, token(3, Scope::Member));
    admin(&mut lab, token(4, Scope::Renew(node)));
    for (number, secret) in [(404, SECRET), (1, [0; 32]), (2, SECRET), (3, SECRET), (4, SECRET)] {
        let why = lab.refused(Actor::Bearer, redeem(number, secret));
        assert_eq!(why, Rejection::BadToken, "token {number}");
    }
    let join = |number| {
        let inventory = inventory("b", 1, &[], 1);
        let (token, name) = (TokenId::from_u128(number), "b".to_string());
        Command::Node(NodeCommand::Join { token, secret_sha256: SECRET, name, inventory })
    };
    for number in [1, 3, 4, 404] {
        assert_eq!(lab.refused(Actor::Bearer, join(number)), Rejection::BadToken);
    }
    lab.now_ms += 59_999;
    lab.ok(Actor::Bearer, join(2));
    lab.now_ms += 1;
    let late = lab.refused(Actor::Bearer, redeem(1, SECRET));
    assert_eq!(late, Rejection::BadToken, "its last millisecond is over");
    assert!(lab.state.tokens.is_empty(), "and its timer has fired");
}

#[test]
fn a_bearer_without_a_token_learns_no_names() {
    let mut lab = Lab::new();
    lab.join("a", 1, &[]);
    for name in ["a", "b", "not a name"] {
        let (token, inventory) = (TokenId::from_u128(404), inventory("a", 1, &[], 1));
        let name = name.to_string();
        let join = NodeCommand::Join { token, secret_sha256: SECRET, name, inventory };
        assert_eq!(lab.refused(Actor::Bearer, Command::Node(join)), Rejection::BadToken);
    }
}

#[test]
fn tokens_are_for_what_exists_and_for_a_while() {
    let mut lab = Lab::new();
    for scope in
        [Scope::Join(PoolId(404)), Scope::Renew(NodeId(404)), Scope::Login(PrincipalId(404))]
    {
        assert_eq!(refused(&mut lab, token(1, scope)), ErrorCode::NotFound, "{scope:?}");
    }
    for life_ms in [0, limits::TOKEN_LIFE_MS_MAX + 1, u64::MAX] {
        let token = TokenId::from_u128(1);
        let add = Access::AddToken { token, secret_sha256: SECRET, scope: Scope::Member, life_ms };
        assert_eq!(refused(&mut lab, add), ErrorCode::InvalidArgument, "{life_ms}");
    }
    admin(&mut lab, token(1, Scope::Member));
    assert_eq!(refused(&mut lab, token(1, Scope::Member)), ErrorCode::AlreadyExists);
    let drop = Access::DropToken(TokenId::from_u128(1));
    admin(&mut lab, drop.clone());
    assert_eq!(refused(&mut lab, drop), ErrorCode::NotFound);
}

#[test]
fn a_disabled_user_leaves_no_tokens_behind() {
    let mut lab = Lab::new();
    let eve = lab.add_user("eve", everywhere(Role::Admin));
    let bob = user_of(lab.add_user("bob", Vec::new()));
    admin(&mut lab, token(1, Scope::Login(user_of(eve))));
    admin(&mut lab, token(2, Scope::Login(bob)));
    lab.ok(eve, Command::Access(token(3, Scope::Login(bob))));
    let user = user_of(eve);
    admin(&mut lab, Access::DisableUser { user, disabled: true });
    let left: Vec<_> = lab.state.tokens.iter().map(|(id, _)| *id).collect();
    assert_eq!(left, [TokenId::from_u128(2)]);
    assert_eq!(refused(&mut lab, token(4, Scope::Login(user))), ErrorCode::Revoked);
}

#[test]
fn refused_certificates_are_forgotten_once_they_have_ended() {
    let mut lab = Lab::new();
    let revoke = |serial: &[u8], expires_wall_ms| Access::Revoke {
        serial: serial.to_vec(),
        reason: "laptop lost".into(),
        expires_wall_ms,
    };
    let now_ms = 1_800_000_000_000;
    admin(&mut lab, revoke(&[1], now_ms + 5_000));
    admin(&mut lab, revoke(&[2], now_ms + 50_000));
    assert_eq!(refused(&mut lab, revoke(&[2], u64::MAX)), ErrorCode::AlreadyExists);
    lab.wait(10_000);
    assert_eq!(lab.state.revocations.len(), 2);
    admin(&mut lab, revoke(&[3], now_ms + 50_000));
    let left: Vec<_> = lab.state.revocations.iter().map(|(serial, _)| serial[0]).collect();
    assert_eq!(left, [2, 3]);
    for serial in [&[][..], &[0; limits::SERIAL_BYTES_MAX + 1]] {
        let code = refused(&mut lab, revoke(serial, u64::MAX));
        assert_eq!(code, ErrorCode::InvalidArgument, "{} bytes", serial.len());
    }
    let reason = "x".repeat(limits::REASON_BYTES_MAX + 1);
    let wordy = Access::Revoke { serial: vec![9], reason, expires_wall_ms: u64::MAX };
    assert_eq!(refused(&mut lab, wordy), ErrorCode::InvalidArgument);
}

#[test]
fn a_secret_is_the_version_that_was_sealed() {
    let mut lab = Lab::new();
    let workspace = lab.workspace;
    let put = |version, byte: u8| {
        let (name, ciphertext) = ("wandb".to_string(), vec![byte; 40]);
        Access::PutSecret { workspace, name, ciphertext, version }
    };
    assert_eq!(refused(&mut lab, put(0, 1)), ErrorCode::Changed);
    assert_eq!(refused(&mut lab, put(2, 1)), ErrorCode::Changed);
    admin(&mut lab, put(1, 1));
    assert_eq!(refused(&mut lab, put(1, 2)), ErrorCode::Changed, "another writer was first");
    admin(&mut lab, put(2, 2));
    let key = SecretKey { workspace, name: "wandb".into() };
    let secret = &lab.state.secrets.get(&key).unwrap();
    assert_eq!((secret.version, secret.ciphertext[0]), (2, 2));
    assert_eq!(lab.state.workspaces[workspace].holds, 1);
    let drop = |name: &str| Access::DropSecret { workspace, name: name.into() };
    assert_eq!(refused(&mut lab, drop("other")), ErrorCode::NotFound);
    admin(&mut lab, drop("wandb"));
    assert_eq!(lab.state.workspaces[workspace].holds, 0);
}

#[test]
fn secrets_have_names_bounds_and_workspaces() {
    let mut lab = Lab::new();
    let put = |workspace, name: &str, bytes| {
        let (name, ciphertext) = (name.to_string(), vec![0; bytes]);
        Access::PutSecret { workspace, name, ciphertext, version: 1 }
    };
    let here = lab.workspace;
    assert_eq!(refused(&mut lab, put(WorkspaceId(404), "a", 1)), ErrorCode::NotFound);
    for (name, bytes) in [("A", 1), ("a", 0), ("a", limits::SECRET_BYTES_MAX + 1)] {
        let code = refused(&mut lab, put(here, name, bytes));
        assert_eq!(code, ErrorCode::InvalidArgument, "{name} {bytes}");
    }
}

#[test]
fn debug_output_shows_no_secret() {
    let secret_sha256 = [0xab; 32];
    let (token, workspace) = (TokenId::from_u128(1), WorkspaceId(0));
    let (scope, name, ciphertext) = (Scope::Member, "s".to_string(), vec![0xab; 16]);
    for command in [
        Access::AddToken { token, secret_sha256, scope, life_ms: 1 },
        Access::RedeemLogin { token, secret_sha256 },
        Access::JoinMember {
            token,
            secret_sha256,
            key_sha256: secret_sha256,
            address: "a:1".into(),
            level_max: FeatureLevel(0),
        },
        Access::PutSecret { workspace, name, ciphertext, version: 1 },
    ] {
        let text = format!("{command:?} {:?}", Command::Access(command.clone()));
        assert!(!text.contains("171") && !text.contains("ab, ab"), "{text}");
    }
}
