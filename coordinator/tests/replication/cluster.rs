//! Three members: elections, changes of the leader, and members that come late.

use crate::support::{ADMIN, Member, Net, add_user, has_user, request};
use std::collections::BTreeSet;
use std::time::Duration;
use yard_common::id::MemberId;
use yard_coordinator::env::{Crash, MemoryDisk};
use yard_coordinator::proposer::{Leadership, ProposeError, ReadError};

/// Members 1, 2 and 3, led by 1.
pub(crate) async fn three(net: &Net) -> Vec<Member> {
    let mut members = Vec::new();
    for id in 1..=3 {
        members.push(Member::start(net, id, &MemoryDisk::default()).await);
    }
    members[0].init().await.unwrap();
    for member in &members[1..] {
        members[0].handle.add_learner(member.id, member.peer()).await.unwrap();
    }
    members[0].handle.change_membership(ids(&[1, 2, 3])).await.unwrap();
    members
}

pub(crate) fn ids(ids: &[u64]) -> BTreeSet<MemberId> {
    ids.iter().copied().map(MemberId).collect()
}

/// Waits until one of these members leads.
pub(crate) async fn leader_of(members: &[&Member]) -> usize {
    loop {
        for (at, member) in members.iter().enumerate() {
            let now = *member.handle.leadership().borrow();
            if matches!(now, Leadership::Leader { .. }) {
                return at;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn members_agree_through_changes_of_the_leader() {
    let net = Net::default();
    let members = three(&net).await;
    let mut asked = 0;
    for round in 0..6 {
        let leads = leader_of(&members.iter().collect::<Vec<_>>()).await;
        let leader = &members[leads];
        for _ in 0..10 {
            let name = format!("user-{asked}");
            match leader.handle.propose(ADMIN, request(asked), &add_user(&name)).await {
                Ok(outcome) => assert!(outcome.is_ok(), "{outcome:?}"),
                Err(error) => panic!("the leader is well: {error}"),
            }
            asked += 1;
        }
        let next = &members[(leads + 1) % 3];
        if round % 2 == 0 {
            leader.handle.transfer_leadership(next.id).await.unwrap();
            next.leads().await;
        } else {
            let old = leader.leads().await;
            net.cut(leader.id, true);
            let rest: Vec<&Member> = members.iter().filter(|m| m.id != leader.id).collect();
            let new = rest[leader_of(&rest).await].leads().await;
            assert!(new > old, "{new} {old}");
            net.cut(leader.id, false);
            // The old one learns of it.
            let mut leadership = leader.handle.leadership();
            let follows =
                |now: &Leadership| matches!(now, Leadership::Follower { leader: Some(_) });
            leadership.wait_for(follows).await.unwrap();
        }
    }
    let leads = leader_of(&members.iter().collect::<Vec<_>>()).await;
    let index = members[leads].handle.read_barrier().await.unwrap();
    let first = members[0].applied(index).await;
    for member in &members {
        let state = member.applied(index).await;
        assert_eq!(state.principals.iter().count(), 61);
        assert_eq!(state.membership.voters, ids(&[1, 2, 3]));
        assert_eq!((state.history_hash, state.digest), (first.history_hash, first.digest));
        assert_eq!(state.check(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_answers_everyone_who_asked() {
    let net = Net::default();
    let members = three(&net).await;
    let (old, rest) = (&members[0], [&members[1], &members[2]]);
    old.leads().await;
    net.cut(old.id, true);
    let mut asked = Vec::new();
    for nth in 0..200 {
        let handle = old.handle.clone();
        let ask = async move {
            let name = format!("user-{nth}");
            handle.propose(ADMIN, request(nth), &add_user(&name)).await
        };
        asked.push(tokio::spawn(ask));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let read = old.handle.clone();
    let read = tokio::spawn(async move { read.read_barrier().await });
    let new = rest[leader_of(&rest).await];
    let name = "user-of-the-new-leader";
    new.handle.propose(ADMIN, request(999), &add_user(name)).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let early = asked.iter().filter(|ask| ask.is_finished()).count();
    assert!(early >= 100, "who waits behind a leader that is cut off is told: {early}");
    net.cut(old.id, false);
    let mut told = BTreeSet::new();
    for (nth, ask) in asked.into_iter().enumerate() {
        let answer = ask.await.unwrap();
        told.insert(format!("{answer:?}").split([' ', '(', '{']).nth(1).unwrap_or("").to_string());
        let state = new.handle.state().1;
        match answer {
            Ok(outcome) => assert!(outcome.is_ok() && has_user(&state, &format!("user-{nth}"))),
            Err(ProposeError::Unknown) => (),
            Err(ProposeError::NotLeader { .. }) => {
                assert!(!has_user(&state, &format!("user-{nth}")), "user-{nth} has no effect");
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(told.contains("NotLeader"), "{told:?}");
    let read = read.await.unwrap();
    assert!(matches!(read, Err(ReadError::NotLeader { .. })), "{read:?}");
    let index = new.handle.read_barrier().await.unwrap();
    assert!(has_user(&old.applied(index).await, name));
}

#[tokio::test(start_paused = true)]
async fn who_asked_a_leader_that_is_cut_off_soon_hears_that_nobody_knows() {
    let net = Net::default();
    let members = three(&net).await;
    let old = &members[0];
    old.leads().await;
    net.cut(old.id, true);
    // It holds its lease yet, and proposes.
    let command = add_user("on-its-way");
    let asked = old.handle.propose(ADMIN, request(1), &command);
    let answer = tokio::time::timeout(Duration::from_millis(2_500), asked).await;
    assert_eq!(answer.expect("it is answered soon"), Err(ProposeError::Unknown));
    // Nothing more is taken, and the next question is answered at once.
    let late = add_user("too-late");
    let asked = old.handle.propose(ADMIN, request(2), &late);
    let answer = tokio::time::timeout(Duration::from_millis(300), asked).await;
    assert_eq!(answer.expect("it is answered"), Err(ProposeError::NotLeader { hint: None }));
    net.cut(old.id, false);
    let rest = [&members[1], &members[2]];
    let new = rest[leader_of(&rest).await];
    let again = new.handle.propose(ADMIN, request(1), &command).await.unwrap();
    assert!(again.is_ok(), "the same request takes effect once: {again:?}");
    let index = new.handle.read_barrier().await.unwrap();
    let state = old.applied(index).await;
    assert!(has_user(&state, "on-its-way") && !has_user(&state, "too-late"));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_told_of_another_and_gets_no_entries_soon_says_that_nobody_knows() {
    let net = Net::default();
    let members = three(&net).await;
    let (old, rest) = (&members[0], [&members[1], &members[2]]);
    old.leads().await;
    net.mute(old.id, true);
    let (handle, command) = (old.handle.clone(), add_user("on-its-way"));
    let ask = async move { handle.propose(ADMIN, request(1), &command).await };
    let asked = tokio::spawn(tokio::time::timeout(Duration::from_secs(3), ask));
    let new = rest[leader_of(&rest).await];
    let mut leadership = old.handle.leadership();
    let follows = leadership.wait_for(|now| *now == Leadership::Follower { leader: Some(new.id) });
    let follows = tokio::time::timeout(Duration::from_secs(1), follows).await;
    follows.expect("it hears the new leader").unwrap();
    assert!(!asked.is_finished(), "its entry may have reached others");
    let answer = asked.await.unwrap();
    assert_eq!(answer.expect("it is answered soon"), Err(ProposeError::Unknown));
    net.mute(old.id, false);
    let command = add_user("on-its-way");
    let again = new.handle.propose(ADMIN, request(1), &command).await.unwrap();
    assert!(again.is_ok(), "the same request takes effect once: {again:?}");
    let index = new.handle.read_barrier().await.unwrap();
    assert!(has_user(&old.applied(index).await, "on-its-way"));
}

/// A member alone, whose log begins behind a snapshot.
async fn one_with_a_snapshot(net: &Net) -> Member {
    let first = Member::start(net, 1, &MemoryDisk::default()).await;
    first.init().await.unwrap();
    for nth in 0..1_050 {
        let name = format!("user-{nth}");
        first.handle.propose(ADMIN, None, &add_user(&name)).await.unwrap().unwrap();
    }
    let (index, _) = first.handle.state();
    first.handle.take_snapshot().await.unwrap();
    while first.handle.snapshot().is_none_or(|(at, _)| at < index) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Let it purge what the snapshot holds.
    tokio::time::sleep(Duration::from_millis(100)).await;
    first
}

#[tokio::test(start_paused = true)]
async fn a_member_that_comes_late_gets_a_snapshot() {
    let net = Net::default();
    let first = one_with_a_snapshot(&net).await;
    let second = Member::start(&net, 2, &MemoryDisk::default()).await;
    first.handle.add_learner(second.id, second.peer()).await.unwrap();
    assert!(second.handle.snapshot().is_some(), "the log alone does not reach back that far");
    first.handle.change_membership(ids(&[1, 2])).await.unwrap();
    first.handle.propose(ADMIN, None, &add_user("last")).await.unwrap().unwrap();
    let (index, expected) = first.handle.state();
    let state = second.applied(index).await;
    assert_eq!(state.history_hash, expected.history_hash);
    let disk = second.kill(Crash::Nothing).await;
    let second = Member::start(&net, 2, &disk).await;
    let state = second.applied(index).await;
    assert_eq!(state.history_hash, expected.history_hash);
    assert_eq!(state.check(), []);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_comes_in_survives_a_crash_at_any_step() {
    let net = Net::default();
    let first = one_with_a_snapshot(&net).await;
    let mut failed = 0;
    for step in (12..40).step_by(2) {
        let (id, disk) = (step, MemoryDisk::default());
        let late = Member::start(&net, id, &disk).await;
        disk.fail_at(step);
        let (handle, peer) = (first.handle.clone(), late.peer());
        let adding = tokio::spawn(async move { handle.add_learner(MemberId(id), peer).await });
        tokio::time::sleep(Duration::from_secs(3)).await;
        failed += u32::from(late.handle.fatal().is_some());
        let disk = late.kill(Crash::Some(step)).await;
        let late = Member::start(&net, id, &disk).await;
        let (index, expected) = first.handle.state();
        let state = late.applied(index).await;
        assert_eq!(state.history_hash, expected.history_hash, "step {step}");
        assert!(state.to_bytes() == expected.to_bytes(), "step {step}");
        // Whether the first try or a later one: it is a learner now.
        drop(adding.await);
        late.stop().await.unwrap();
    }
    assert!(failed > 5, "{failed} of the disks failed");
}

#[tokio::test(start_paused = true)]
async fn a_minority_that_dies_costs_less_than_a_second() {
    let net = Net::default();
    let mut members = three(&net).await;
    members[0].leads().await;
    members[0].handle.propose(ADMIN, None, &add_user("before")).await.unwrap().unwrap();
    let died = tokio::time::Instant::now();
    let disk = members.remove(0).kill(Crash::Nothing).await;
    let rest: Vec<&Member> = members.iter().collect();
    let new = rest[leader_of(&rest).await];
    new.handle.propose(ADMIN, None, &add_user("after")).await.unwrap().unwrap();
    let took = died.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    let index = new.handle.read_barrier().await.unwrap();
    let old = Member::start(&net, 1, &disk).await;
    let state = old.applied(index).await;
    assert!(has_user(&state, "before") && has_user(&state, "after"));
}
