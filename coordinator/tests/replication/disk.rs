//! Disks that are full.

use crate::cluster::{leader_of, three};
use crate::support::{ADMIN, Member, Net, add_user, has_user};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use yard_common::id::JobId;
use yard_coordinator::env::{Crash, MemoryDisk};
use yard_coordinator::proposer::ProposeError;
use yard_core::command::{Command, JobCommand};

/// Longer than it may take until everything is well again.
const BACK: Duration = Duration::from_secs(10);

/// Something that is no new work, and takes much of the log.
fn no_new_work() -> Command {
    Command::Job(JobCommand::Hold { job: JobId(9), reason: "x".repeat(8 << 10) })
}

/// From now on nothing more fits.
fn fill(disk: &MemoryDisk) {
    disk.set_capacity(Some(disk.used_bytes()));
}

/// Waits until new work is refused.
async fn refuses(member: &Member) {
    let asks = async {
        let mut nth = 0;
        loop {
            nth += 1;
            let asked = member.handle.propose(ADMIN, None, &add_user(&format!("more-{nth}"))).await;
            match asked {
                Ok(_) => {}
                Err(ProposeError::DiskFull) => return,
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(BACK, asks).await.unwrap();
}

/// Waits until new work is taken, on whichever member.
async fn takes(members: &[&Member], name: &str) -> Duration {
    let began = Instant::now();
    loop {
        let leader = members[leader_of(members).await];
        if let Ok(Ok(_)) = leader.handle.propose(ADMIN, None, &add_user(name)).await {
            return began.elapsed();
        }
        assert!(began.elapsed() < BACK, "still nothing new is taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn alone_it_keeps_room_for_what_ends_and_comes_back_by_itself() {
    let (net, disk) = (Net::default(), MemoryDisk::default());
    let member = Member::start(&net, 1, &disk).await;
    member.init().await.unwrap();
    member.handle.propose(ADMIN, None, &add_user("before")).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    fill(&disk);
    refuses(&member).await;
    assert!(member.handle.disks()[&member.id].is_full);
    let mut acked = 0;
    // Until the reserve is used up, too.
    loop {
        match member.handle.propose(ADMIN, None, &no_new_work()).await {
            Ok(_) => {}
            Err(ProposeError::DiskFull) => break,
            Err(error) => panic!("{error}"),
        }
        acked += 1;
    }
    assert!(acked > 40, "{acked} ends of things, then nothing");
    let before = member.handle.state().1;
    // It lives, and starts again as it is.
    let disk = member.kill(Crash::Nothing).await;
    let member = Member::start(&net, 1, &disk).await;
    member.leads().await;
    assert_eq!(member.handle.state().1.principals.iter().count(), before.principals.iter().count());
    refuses(&member).await;
    assert!(member.handle.fatal().is_none());
    disk.set_capacity(None);
    let took = takes(&[&member], "after").await;
    eprintln!("{acked} ends of things on a full disk; back after {took:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    fill(&disk);
    refuses(&member).await;
    assert!(member.handle.propose(ADMIN, None, &no_new_work()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_burst_that_the_reserve_cannot_take_ends_nobody() {
    let (net, disk) = (Net::default(), MemoryDisk::default());
    let member = Member::start(&net, 1, &disk).await;
    member.init().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    fill(&disk);
    refuses(&member).await;
    // Each of them would fit alone.
    let burst = (0..200).map(|_| {
        let handle = member.handle.clone();
        tokio::spawn(async move { handle.propose(ADMIN, None, &no_new_work()).await })
    });
    let (mut taken, mut refused) = (0, 0);
    for asked in burst.collect::<Vec<_>>() {
        match asked.await.unwrap() {
            Ok(_) => taken += 1,
            Err(ProposeError::DiskFull) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
    assert!(member.handle.fatal().is_none());
    disk.set_capacity(None);
    takes(&[&member], "after").await;
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_finds_no_room_costs_nothing() {
    let (net, disk) = (Net::default(), MemoryDisk::default());
    let member = Member::start(&net, 1, &disk).await;
    member.init().await.unwrap();
    member.handle.take_snapshot().await.unwrap();
    let first = loop {
        match member.handle.snapshot() {
            Some((index, _)) => break index,
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    for nth in 0..50 {
        member.handle.propose(ADMIN, None, &add_user(&format!("u{nth}"))).await.unwrap().unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    disk.set_capacity(Some(disk.used_bytes() + 200));
    member.handle.take_snapshot().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(member.handle.snapshot().map(|(index, _)| index), Some(first));
    assert!(!disk.names().iter().any(|name| name.ends_with(".tmp")), "{:?}", disk.names());
    disk.set_capacity(None);
    member.handle.take_snapshot().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(member.handle.snapshot().is_some_and(|(index, _)| index > first));
    assert!(member.handle.fatal().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_disk_is_full_hands_over_to_one_with_room() {
    let net = Net::default();
    let members = three(&net).await;
    members[0].leads().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    fill(&members[0].disk);
    let rest: Vec<&Member> = members[1..].iter().collect();
    let leader = timeout(BACK, leader_of(&rest)).await.unwrap();
    let took = takes(&[rest[leader]], "after").await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(rest[leader].handle.disks()[&members[0].id].is_full, "the others know of it");
    // It takes what the others commit, as long as its reserve lasts, and then goes without.
    for _ in 0..150 {
        assert!(rest[leader].handle.propose(ADMIN, None, &no_new_work()).await.is_ok());
    }
    rest[leader].handle.propose(ADMIN, None, &add_user("last")).await.unwrap().unwrap();
    assert!(members.iter().all(|member| member.handle.fatal().is_none()));
    members[0].disk.set_capacity(None);
    let index = rest[leader].handle.read_barrier().await.unwrap();
    let state = timeout(BACK, members[0].applied(index)).await.unwrap();
    assert!(has_user(&state, "last"), "it has caught up");
}

#[tokio::test(start_paused = true)]
async fn when_a_majority_is_full_nothing_new_is_taken_until_it_is_not() {
    let net = Net::default();
    let members = three(&net).await;
    members[0].leads().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    fill(&members[1].disk);
    fill(&members[2].disk);
    refuses(&members[0]).await;
    for _ in 0..10 {
        assert!(members[0].handle.propose(ADMIN, None, &no_new_work()).await.is_ok());
    }
    members[1].disk.set_capacity(None);
    members[2].disk.set_capacity(None);
    let took = takes(&members.iter().collect::<Vec<_>>(), "after").await;
    eprintln!("back after {took:?}");
    assert!(members.iter().all(|member| member.handle.fatal().is_none()));
}
