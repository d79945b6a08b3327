//! One member: what it acked is there after every kind of end.

use crate::support::{ADMIN, Member, Net, Replica, add_user, has_user, replay, request};
use yard_common::id::{ClusterId, LogIndex};
use yard_coordinator::env::{Crash, MemoryDisk};
use yard_coordinator::proposer::{Leadership, ProposeError};
use yard_coordinator::raft::FatalError;
use yard_core::command::{Actor, Cluster, Command, Rejection, Reply};
use yard_core::state::State;

#[tokio::test(start_paused = true)]
async fn the_state_is_the_same_after_a_restart() {
    let (net, disk) = (Net::default(), MemoryDisk::default());
    let member = Member::start(&net, 1, &disk).await;
    let (_, state, mut updates) = member.handle.subscribe();
    let mut replica = Replica(state);
    assert!(matches!(member.init().await, Ok(Reply::Made(_))));
    for nth in 0..20 {
        let name = format!("user-{nth}");
        let outcome = member.handle.propose(ADMIN, request(nth), &add_user(&name)).await;
        assert!(matches!(outcome, Ok(Ok(Reply::Made(_)))), "{outcome:?}");
    }
    let again = member.handle.propose(ADMIN, request(3), &add_user("user-3")).await;
    assert!(matches!(again, Ok(Ok(Reply::Made(_)))), "the same request has the same answer");
    let refused = member.handle.propose(ADMIN, request(90), &add_user("user-3")).await;
    assert!(matches!(refused, Ok(Err(Rejection::AlreadyExists(_)))), "{refused:?}");
    let (index, before) = member.handle.state();
    replay(&mut replica, &mut updates, index).await;
    assert_eq!(replica.0.history_hash, before.history_hash);
    member.stop().await.unwrap();

    let member = Member::start(&net, 1, &disk).await;
    let (_, state, mut updates) = member.handle.subscribe();
    let mut replica = Replica(state);
    member.leads().await;
    replay(&mut replica, &mut updates, index).await;
    assert_eq!(replica.0.to_bytes(), before.to_bytes(), "byte for byte");
    assert_eq!(member.handle.state().1.check(), []);
    member.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_takes_the_place_of_the_log() {
    let (net, disk) = (Net::default(), MemoryDisk::default());
    let member = Member::start(&net, 1, &disk).await;
    member.init().await.unwrap();
    member.handle.propose(ADMIN, None, &add_user("before")).await.unwrap().unwrap();
    let (index, before) = member.handle.state();
    member.handle.take_snapshot().await.unwrap();
    while member.handle.snapshot().is_none_or(|(at, _)| at < index) {
        tokio::task::yield_now().await;
    }
    member.handle.propose(ADMIN, None, &add_user("after")).await.unwrap().unwrap();
    let disk = member.kill(Crash::Nothing).await;

    let member = Member::start(&net, 1, &disk).await;
    let (found, state) = member.handle.state();
    assert_eq!((found, state.to_bytes() == before.to_bytes()), (index, true));
    member.leads().await;
    let state = member.handle.state().1;
    assert!(has_user(&state, "before") && has_user(&state, "after"));
    assert_eq!(state.check(), []);
}

#[tokio::test(start_paused = true)]
async fn what_was_acked_survives_a_crash_at_any_step() {
    let (net, disk) = (Net::default(), MemoryDisk::default());
    let member = Member::start(&net, 1, &disk).await;
    member.init().await.unwrap();
    let begun = member.kill(Crash::Nothing).await;
    for step in 1..60 {
        let disk = begun.copy();
        disk.fail_at(step);
        let mut acked = Vec::new();
        let mut tried = 0;
        if let Ok(member) = Member::try_start(&net, 1, &disk).await {
            let mut leadership = member.handle.leadership();
            let leads = leadership.wait_for(|now| matches!(now, Leadership::Leader { .. })).await;
            drop(leads);
            for nth in 0..10 {
                let name = format!("user-{nth}");
                tried = nth + 1;
                match member.handle.propose(ADMIN, request(nth), &add_user(&name)).await {
                    Ok(outcome) => {
                        outcome.unwrap();
                        acked.push(name);
                    }
                    Err(ProposeError::Overloaded | ProposeError::TooLarge { .. }) => {
                        panic!("there was room")
                    }
                    Err(_) => break,
                }
                if nth == 4 {
                    member.handle.take_snapshot().await.ok();
                }
            }
            if acked.len() < 10 {
                let error = member.wait().await.unwrap_err();
                assert!(matches!(*error, FatalError::Storage(_)), "{error}");
            } else {
                member.stop().await.ok();
            }
        }
        disk.crash(Crash::Some(step));
        let member = Member::start(&net, 1, &disk).await;
        member.leads().await;
        let state = member.handle.state().1;
        for name in &acked {
            assert!(has_user(&state, name), "step {step}: {name} was acked");
        }
        let users = state.principals.iter().count() as u128 - 1;
        assert!(users <= tried, "step {step}: {users} users, {tried} were asked for");
        assert_eq!(state.check(), []);
        member.kill(Crash::Nothing).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_begins_once() {
    let (net, disk) = (Net::default(), MemoryDisk::default());
    let member = Member::start(&net, 1, &disk).await;
    let early = member.handle.propose(ADMIN, None, &add_user("early")).await;
    assert_eq!(early, Err(ProposeError::NotLeader { hint: None }));
    assert!(member.handle.read_barrier().await.is_err());
    member.init().await.unwrap();
    assert!(matches!(member.init().await, Err(Rejection::WrongState(..))));
    let (index, state) = member.handle.state();
    assert_eq!(state.cluster, Some(ClusterId::from_u128(7)));
    assert_eq!(member.handle.read_barrier().await, Ok(index));
    // Blank, members, LeaderStarted in some order; then the commands.
    assert!(state.membership.is_alone() && state.membership.id.0 > LogIndex(0));
}

#[tokio::test(start_paused = true)]
async fn the_clusters_time_follows_the_leaders_monotonic_clock() {
    let (net, disk) = (Net::default(), MemoryDisk::default());
    let member = Member::start(&net, 1, &disk).await;
    member.init().await.unwrap();
    let tick = Command::Cluster(Cluster::Tick);
    let began = member.handle.cluster_ms().unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    member.handle.propose(Actor::Leader, None, &tick).await.unwrap().unwrap();
    let stood = member.handle.state().1.now_ms();
    assert_eq!(stood, began + 5_000);
    let disk = member.kill(Crash::Process).await;
    tokio::time::sleep(std::time::Duration::from_secs(3_600)).await;
    let member = Member::start(&net, 1, &disk).await;
    member.leads().await;
    let now = member.handle.cluster_ms().unwrap();
    assert!(now < stood + 1_000, "an hour without a leader does not count: {now}");
    assert!(member.handle.state().1.clock.wall_ms > 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_flush_ends_the_member_and_nothing_is_acked_after_it() {
    let (net, disk) = (Net::default(), MemoryDisk::default());
    let member = Member::start(&net, 1, &disk).await;
    member.init().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    // A write, and the flush of it; after that the disk seems to work again.
    disk.fail_once_at(disk.steps() + 2);
    let handle = member.handle.clone();
    let lost = handle.propose(ADMIN, None, &add_user("lost")).await;
    assert!(matches!(lost, Err(ProposeError::Unknown | ProposeError::Stopped)), "{lost:?}");
    let error = member.wait().await.unwrap_err();
    assert!(matches!(*error, FatalError::Storage(_)), "{error}");
    assert!(!error.is_of_content(), "to start again is worth a try");
    let late = handle.propose(ADMIN, None, &add_user("late")).await;
    assert_eq!(late, Err(ProposeError::Stopped));
}

#[tokio::test(start_paused = true)]
async fn what_breaks_stops_the_member() {
    let (net, disk) = (Net::default(), MemoryDisk::default());
    let member = Member::start(&net, 1, &disk).await;
    member.init().await.unwrap();
    member.handle.fail(FatalError::Consensus("a test".into()));
    let handle = member.handle.clone();
    let error = member.wait().await.unwrap_err();
    assert_eq!(error.to_string(), "the consensus stopped: a test");
    let late = handle.propose(ADMIN, None, &add_user("late")).await;
    assert_eq!(late, Err(ProposeError::Stopped));
    assert!(handle.fatal().is_some());
    let _: State = handle.state().1;
}
