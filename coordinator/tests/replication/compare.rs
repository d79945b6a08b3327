//! Members that differ, and members that come back with less than they had.

use crate::cluster::{ids, leader_of, three};
use crate::support::{ADMIN, Member, Net, add_user, has_user};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use yard_common::ErrorCode;
use yard_common::id::MemberId;
use yard_coordinator::env::{Crash, MemoryDisk};
use yard_coordinator::raft::FatalError;

async fn add(member: &Member, name: &str) {
    member.handle.propose(ADMIN, None, &add_user(name)).await.unwrap().unwrap();
}

/// Waits until a member has stopped by itself; what ended it, and after how long.
async fn ends(member: Member, within: Duration) -> (Arc<FatalError>, Duration) {
    let began = Instant::now();
    let ended = timeout(within, member.wait()).await;
    let ended = ended.unwrap_or_else(|_| panic!("after {within:?} it still goes on"));
    (ended.unwrap_err(), began.elapsed())
}

/// Members 1, 2 and 3, led by 1, of which some take one command for another. `as_user`: what the
/// user `right` is called there.
async fn with_odd_ones(odd: &[u64], as_user: &'static str) -> (Net, Vec<Member>) {
    let net = Net::default();
    let members = three(&net).await;
    members[0].leads().await;
    add(&members[0], "first").await;
    for odd in odd {
        net.change(MemberId(*odd), "right", as_user);
    }
    add(&members[0], "right").await;
    (net, members)
}

/// What differs in a reply: there is such a user already.
const REPLY: &str = "first";
/// What differs in a record alone.
const RECORD: &str = "wrong";

#[tokio::test(start_paused = true)]
async fn a_member_with_other_replies_stops_within_two_seconds() {
    let (_net, mut members) = with_odd_ones(&[3], REPLY).await;
    let (error, took) = ends(members.remove(2), Duration::from_secs(2)).await;
    assert!(matches!(*error, FatalError::Differs { .. }), "{error}");
    assert!(error.to_string().contains("replies and events"), "{error}");
    assert_eq!((error.code(), error.is_of_content()), (Some(ErrorCode::MembersDiffer), false));
    eprintln!("found after {took:?}");
    let told = members[0].handle.difference().expect("an alarm");
    assert!(told.contains("replies and events"), "{told}");
    add(&members[0], "after").await;
    assert!(members.iter().all(|member| member.handle.fatal().is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_leader_with_other_replies_than_a_majority_stops_as_well() {
    let (_net, mut members) = with_odd_ones(&[2, 3], REPLY).await;
    let (error, _) = ends(members.remove(0), Duration::from_secs(2)).await;
    assert!(matches!(*error, FatalError::Differs { .. }), "{error}");
    let rest: Vec<&Member> = members.iter().collect();
    let leader = rest[leader_of(&rest).await];
    add(leader, "after").await;
    assert!(!has_user(&leader.handle.state().1, "right"), "what the majority made of it stands");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_nobody_reads_is_found_within_a_minute() {
    let (_net, mut members) = with_odd_ones(&[3], RECORD).await;
    // Nothing happens that would show it.
    let (error, took) = ends(members.remove(2), Duration::from_secs(60)).await;
    assert!(matches!(*error, FatalError::Differs { .. }), "{error}");
    assert!(error.to_string().contains("principals"), "{error}");
    eprintln!("found after {took:?}");
    add(&members[0], "after").await;
    assert!(members.iter().all(|member| member.handle.fatal().is_none()));
}

#[tokio::test(start_paused = true)]
async fn of_two_that_differ_the_leader_goes_on() {
    let net = Net::default();
    let first = Member::start(&net, 1, &MemoryDisk::default()).await;
    first.init().await.unwrap();
    let second = Member::start(&net, 2, &MemoryDisk::default()).await;
    first.handle.add_learner(second.id, second.peer()).await.unwrap();
    first.handle.change_membership(ids(&[1, 2])).await.unwrap();
    add(&first, "first").await;
    net.change(second.id, "right", REPLY);
    add(&first, "right").await;
    let (error, _) = ends(second, Duration::from_secs(2)).await;
    assert!(matches!(*error, FatalError::Differs { .. }), "{error}");
    assert!(first.handle.fatal().is_none());
}

#[tokio::test(start_paused = true)]
async fn without_a_third_opinion_the_follower_stops_and_nothing_is_committed() {
    let (net, mut members) = with_odd_ones(&[2], RECORD).await;
    net.cut(MemberId(3), true);
    let (error, _) = ends(members.remove(1), Duration::from_secs(90)).await;
    assert!(matches!(*error, FatalError::Differs { .. }), "{error}");
    let leader = members[0].handle.clone();
    let ask = async move { leader.propose(ADMIN, None, &add_user("after")).await };
    let answer = timeout(Duration::from_secs(5), ask).await;
    assert!(!matches!(answer, Ok(Ok(_))), "one of three decides nothing: {answer:?}");
}

#[tokio::test(start_paused = true)]
async fn members_that_agree_go_on_however_busy_they_are() {
    let net = Net::default();
    let members = three(&net).await;
    members[0].leads().await;
    let began = Instant::now();
    let mut asked = 0;
    while began.elapsed() < Duration::from_secs(12) {
        add(&members[0], &format!("user-{asked}")).await;
        tokio::time::sleep(Duration::from_millis(asked % 40)).await;
        asked += 1;
    }
    for member in &members {
        let (equal, unequal) = member.handle.compared();
        assert_eq!((member.handle.fatal().is_none(), unequal), (true, 0));
        assert!(equal > 40, "{} has compared {equal} slices only", member.id);
    }
}

/// Starts member 3 of three anew, on a copy of its disk from before what was acked since.
async fn comes_back_with_an_old_copy(elections: bool) {
    let net = Net::default();
    let mut members = three(&net).await;
    members[0].leads().await;
    add(&members[0], "before").await;
    let disk = members.remove(2).kill(Crash::Process).await;
    let old = disk.copy();
    let third = Member::start(&net, 3, &disk).await;
    // Its word is needed for these.
    net.cut(MemberId(2), true);
    for nth in 0..5 {
        add(&members[0], &format!("user-{nth}")).await;
    }
    net.cut(MemberId(2), false);
    let leader = if elections { &members[1] } else { &members[0] };
    if elections {
        members[0].handle.transfer_leadership(MemberId(2)).await.unwrap();
        leader.leads().await;
        add(leader, "of-another-leader").await;
        // It tells what it has voted.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    third.kill(Crash::Process).await;
    let third = Member::start(&net, 3, &old).await;
    let (error, _) = ends(third, Duration::from_secs(2)).await;
    assert!(matches!(*error, FatalError::OldCopy { .. }), "{error}");
    assert!(error.is_of_content() && error.code() == Some(ErrorCode::FolderOutdated));
    let leader = leader.leads().await.member;
    add(members.iter().find(|member| member.id == leader).unwrap(), "after").await;
    assert!(members.iter().all(|member| member.handle.fatal().is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_lacks_what_it_acked_is_turned_away() {
    comes_back_with_an_old_copy(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_has_forgotten_its_vote_is_turned_away() {
    comes_back_with_an_old_copy(true).await;
}
