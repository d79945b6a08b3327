//! Machines join as members of the coordinator, vote, and leave, told as stories.

mod support;

use std::collections::BTreeSet;
use support::*;
use yard_common::ErrorCode;
use yard_common::id::*;
use yard_common::limits::MEMBERS_MAX;
use yard_core::command::*;
use yard_core::state::State;

const SECRET: [u8; 32] = [3; 32];
const KEY: [u8; 32] = [4; 32];

fn ids(numbers: &[u64]) -> BTreeSet<MemberId> {
    numbers.iter().copied().map(MemberId).collect()
}

/// What the log says of its members.
fn members(lab: &mut Lab, voters: &[u64], joint: Option<&[u64]>) {
    let joint = joint.map(ids);
    lab.ok(Actor::Leader, Command::Cluster(Cluster::Members { voters: ids(voters), joint }));
}

fn lab() -> Lab {
    let mut lab = Lab::new();
    members(&mut lab, &[1], None);
    lab
}

fn token(lab: &mut Lab, number: u128) -> TokenId {
    let token = TokenId::from_u128(number);
    let (secret_sha256, scope, life_ms) = (SECRET, Scope::Member, 60_000);
    let add = Access::AddToken { token, secret_sha256, scope, life_ms };
    lab.ok(lab.user(), Command::Access(add));
    token
}

fn join(token: TokenId, key_sha256: [u8; 32], address: &str) -> Command {
    join_with(token, key_sha256, address, 0)
}

/// Of a program that understands levels up to this one.
fn join_with(token: TokenId, key_sha256: [u8; 32], address: &str, level: u32) -> Command {
    Command::Access(Access::JoinMember {
        token,
        secret_sha256: SECRET,
        key_sha256,
        address: address.to_string(),
        level_max: FeatureLevel(level),
    })
}

fn joined(lab: &mut Lab, number: u128) -> MemberId {
    let token = token(lab, number);
    let address = format!("m{number}:7100");
    match lab.ok(Actor::Bearer, join(token, [number as u8; 32], &address)) {
        Reply::Member(id) => id,
        other => panic!("{other:?}"),
    }
}

fn admin(command: Cluster) -> Command {
    Command::Cluster(command)
}

#[test]
fn a_machine_gets_a_number_that_nobody_ever_had() {
    let mut lab = lab();
    assert_eq!(joined(&mut lab, 1), MemberId(2));
    assert_eq!(joined(&mut lab, 2), MemberId(3));
    // Gone before it ever voted.
    lab.ok(lab.user(), admin(Cluster::RemoveMember(MemberId(3))));
    lab.ok(Actor::Leader, admin(Cluster::MemberLeft(MemberId(3))));
    assert!(lab.state.members.get(&MemberId(3)).is_none());
    assert_eq!(joined(&mut lab, 3), MemberId(4));
    // Numbers that the log knows count, however they came there.
    members(&mut lab, &[1, 2], Some(&[1, 2, 9]));
    assert_eq!(joined(&mut lab, 4), MemberId(10));
    let state = State::from_bytes(&lab.state.to_bytes()).unwrap();
    assert_eq!((state.members, state.member_last), (lab.state.members.clone(), 10));
}

#[test]
fn a_state_of_before_members_could_join_gives_nobody_the_number_of_a_voter() {
    let mut lab = lab();
    lab.state.member_last = 0;
    assert_eq!(joined(&mut lab, 1), MemberId(2));
}

#[test]
fn a_join_may_be_asked_again_with_the_same_key_while_the_token_would_be_good() {
    let mut lab = lab();
    let token = token(&mut lab, 1);
    let first = lab.ok(Actor::Bearer, join(token, KEY, "b:7100"));
    assert_eq!(lab.ok(Actor::Bearer, join(token, KEY, "b:7100")), first);
    assert_eq!(lab.state.members.len(), 1);
    // Another machine that found the token.
    let other = lab.refused(Actor::Bearer, join(token, [9; 32], "c:7100"));
    assert_eq!(other, Rejection::BadToken);
    lab.wait(60_000);
    assert_eq!(lab.refused(Actor::Bearer, join(token, KEY, "b:7100")), Rejection::BadToken);
    assert_eq!(lab.state.members.len(), 1, "it stays a member");
}

#[test]
fn a_member_that_is_to_leave_does_not_come_back_with_its_token() {
    let mut lab = lab();
    let token = token(&mut lab, 1);
    lab.ok(Actor::Bearer, join(token, KEY, "b:7100"));
    lab.ok(lab.user(), admin(Cluster::RemoveMember(MemberId(2))));
    assert_eq!(lab.refused(Actor::Bearer, join(token, KEY, "b:7100")), Rejection::BadToken);
}

#[test]
fn a_restored_cluster_has_no_members_that_joined_and_uses_no_number_again() {
    let mut lab = lab();
    joined(&mut lab, 1);
    let restored = Cluster::Restored { incarnation: Incarnation(2), after_ms: 0 };
    lab.ok(Actor::Leader, Command::Cluster(restored));
    assert!(lab.state.members.is_empty());
    assert_eq!(joined(&mut lab, 2), MemberId(3));
}

#[test]
fn a_bad_request_costs_no_token() {
    let mut lab = lab();
    joined(&mut lab, 1);
    let good = token(&mut lab, 7);
    let taken = lab.refused(Actor::Bearer, join(good, KEY, "m1:7100"));
    assert_eq!(taken.code(), ErrorCode::InvalidArgument);
    for address in ["", &"x".repeat(254)] {
        let why = lab.refused(Actor::Bearer, join(good, KEY, address));
        assert_eq!(why.code(), ErrorCode::InvalidArgument);
    }
    let wrong = Access::JoinMember {
        token: good,
        secret_sha256: [0; 32],
        key_sha256: KEY,
        address: "m1:7100".into(),
        level_max: FeatureLevel(0),
    };
    // Whoever has no token does not learn which addresses are taken.
    assert_eq!(lab.refused(Actor::Bearer, Command::Access(wrong)), Rejection::BadToken);
    let login = TokenId::from_u128(8);
    let (scope, life_ms) = (Scope::Login(lab.admin), 60_000);
    let add = Access::AddToken { token: login, secret_sha256: SECRET, scope, life_ms };
    lab.ok(lab.user(), Command::Access(add));
    assert_eq!(lab.refused(Actor::Bearer, join(login, KEY, "b:7100")), Rejection::BadToken);
    lab.ok(Actor::Bearer, join(good, KEY, "b:7100"));
}

#[test]
fn there_is_room_for_as_many_as_agents_can_know() {
    let mut lab = lab();
    for number in 1..MEMBERS_MAX as u128 {
        joined(&mut lab, number);
    }
    let last = token(&mut lab, 999);
    let why = lab.refused(Actor::Bearer, join(last, KEY, "late:7100"));
    assert_eq!(why.code(), ErrorCode::LimitReached);
}

#[test]
fn members_vote_and_leave_as_asked_and_the_last_voter_stays() {
    let mut lab = lab();
    let second = joined(&mut lab, 1);
    lab.ok(lab.user(), admin(Cluster::AddMember(second)));
    assert!(lab.state.members.get(&second).unwrap().votes);
    lab.ok(lab.user(), admin(Cluster::AddMember(MemberId(1))));
    let absent = lab.refused(lab.user(), admin(Cluster::AddMember(MemberId(9))));
    assert_eq!(absent, Rejection::NotFound(Object::Member(MemberId(9))));
    // It listens, and does not vote yet.
    let last = lab.refused(lab.user(), admin(Cluster::RemoveMember(MemberId(1))));
    assert_eq!(last.code(), ErrorCode::WrongState);
    members(&mut lab, &[1], Some(&[1, 2]));
    members(&mut lab, &[1, 2], None);
    lab.ok(lab.user(), admin(Cluster::RemoveMember(MemberId(1))));
    lab.ok(lab.user(), admin(Cluster::RemoveMember(MemberId(1))));
    let last = lab.refused(lab.user(), admin(Cluster::RemoveMember(second)));
    assert_eq!(last.code(), ErrorCode::WrongState, "the other one leaves already");
    let leaving = lab.refused(lab.user(), admin(Cluster::AddMember(MemberId(1))));
    assert_eq!(leaving, Rejection::NotFound(Object::Member(MemberId(1))));
    // While the change is under way it is still known as one that leaves.
    members(&mut lab, &[1, 2], Some(&[2]));
    let early = lab.refused(Actor::Leader, admin(Cluster::MemberLeft(MemberId(1))));
    assert_eq!(early.code(), ErrorCode::WrongState);
    members(&mut lab, &[2], None);
    assert!(lab.state.members.get(&MemberId(1)).unwrap().leaves);
    lab.ok(Actor::Leader, admin(Cluster::MemberLeft(MemberId(1))));
    assert!(lab.state.members.get(&MemberId(1)).is_none());
    let stays = lab.refused(Actor::Leader, admin(Cluster::MemberLeft(second)));
    assert_eq!(stays.code(), ErrorCode::WrongState);
    let gone = lab.refused(lab.user(), admin(Cluster::RemoveMember(MemberId(1))));
    assert_eq!(gone, Rejection::NotFound(Object::Member(MemberId(1))));
}

#[test]
fn the_level_rises_only_with_every_member_and_who_joins_then_must_understand_it() {
    let mut lab = Lab::new();
    let voters: std::collections::BTreeSet<_> = [MemberId(1), MemberId(2)].into();
    let members = Cluster::Members { voters: voters.clone(), joint: None };
    lab.ok(Actor::Leader, Command::Cluster(members));
    let third = joined(&mut lab, 1);
    let raise = |understood_by: &std::collections::BTreeSet<MemberId>| {
        let raise = Raise { understood_by: understood_by.clone(), ..raise_to(1) };
        Command::Cluster(Cluster::RaiseFeatureLevel(raise))
    };
    // It joined after the others were asked.
    let early = lab.refused(Actor::Leader, raise(&voters));
    assert_eq!(early.to_string(), "member 3 is not known to understand feature level 1");
    let all = voters.iter().copied().chain([third]).collect();
    lab.ok(Actor::Leader, raise(&all));
    assert_eq!((lab.state.feature_level.0, &*lab.state.level_version), (1, "0.1.0"));

    let token = token(&mut lab, 9);
    let old = lab.refused(Actor::Bearer, join_with(token, KEY, "d:7100", 0));
    assert_eq!(old.to_string(), "level_max: 0; the cluster is at 1");
    // The token is as good as before.
    lab.ok(Actor::Bearer, join_with(token, KEY, "d:7100", 1));
}

#[test]
fn a_member_that_is_to_leave_holds_no_level_up() {
    let mut lab = Lab::new();
    let voters = [MemberId(1), MemberId(2)].into();
    lab.ok(Actor::Leader, Command::Cluster(Cluster::Members { voters, joint: None }));
    lab.ok(lab.user(), Command::Cluster(Cluster::RemoveMember(MemberId(2))));
    assert_eq!(lab.state.must_understand(), [MemberId(1)].into());
}
