//! Renewals, certificates, and leaving on purpose.

use crate::cluster::{Cluster, PATIENCE};
use crate::member::Event;
use crate::node::{Root, detail, id, joined, options, set, started, told};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use yard_agent::lease_file::LeaseFile;
use yard_agent::service::Service;
use yard_common::id::{BootId, LeaseId, NodeId};
use yard_core::agent::{Lease, ReportKind};
use yard_core::lease::Renewal;
use yard_runtime::identity::Identity;

fn renewed(event: Event) -> Option<(u64, Renewal)> {
    match event {
        Event::Renewed(member, renewal) => Some((member, renewal)),
        _ => None,
    }
}

/// The deadlines that shims see.
fn deadlines(root: &Root) -> Lease {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let boot = u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap();
    let file = LeaseFile::create(&root.path().join("lease"), BootId::from_u128(boot)).unwrap();
    file.read().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_reach_every_member_and_a_stuck_one_delays_nobody() {
    let (root, mut cluster) = (Root::new(), Cluster::start(3).await);
    // The leader tells of the others.
    cluster.book.lock().unwrap().told_at_join = 1;
    cluster.wills[&2].lock().unwrap().stuck = true;
    joined(&root, &cluster).await;
    let handle = started(&root).await;
    let mut heard = BTreeSet::new();
    while heard.len() < 3 {
        let (member, renewal) = cluster.next(renewed).await;
        assert_eq!((renewal.node, renewal.lease), (NodeId(7), LeaseId(1)));
        assert_eq!(renewal.lease_ms, 3_000);
        heard.insert(member);
    }
    // With one of three stuck, and each of the others sending on without it.
    let mut last = [0; 2];
    for (at, member) in [1u64, 3].into_iter().enumerate() {
        for _ in 0..4 {
            let (_, renewal) =
                cluster.next(|e| renewed(e).filter(|(found, _)| *found == member)).await;
            assert!(renewal.sent_ms > last[at], "a renewal is sent once to each");
            last[at] = renewal.sent_ms;
        }
    }
    assert!(handle.holds_lease());
    let lease = deadlines(&root);
    assert_eq!(lease.id, LeaseId(1));
    assert!(lease.strict_ms >= last[0], "{lease:?}");
    assert_eq!(lease.fenced_ms - lease.strict_ms, 57_000);
    handle.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_of_members_is_no_lease() {
    let (root, mut cluster) = (Root::new(), Cluster::start(3).await);
    for stuck in [2, 3] {
        cluster.wills[&stuck].lock().unwrap().stuck = true;
    }
    joined(&root, &cluster).await;
    let handle = started(&root).await;
    for _ in 0..3 {
        cluster.next(|e| renewed(e).filter(|(member, _)| *member == 1)).await;
    }
    assert!(!handle.holds_lease());
    cluster.wills[&3].lock().unwrap().stuck = false;
    while !handle.holds_lease() {
        cluster.next(renewed).await;
    }
    handle.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_replaced_in_place() {
    let (root, mut cluster) = (Root::new(), Cluster::start(1).await);
    // It begins an hour in the past, so that two thirds and a tenth of it are over.
    cluster.book.lock().unwrap().life_ms = 10 * 60_000;
    joined(&root, &cluster).await;
    let folder = root.path().join("identity");
    let before = Identity::load(&folder).unwrap().peer().serial.clone();
    let handle = started(&root).await;
    cluster.next(|event| matches!(event, Event::Certificate).then_some(())).await;
    // The stream comes again under the new one.
    let serial = cluster
        .next(|event| match event {
            Event::Hello(_, _, serial) if serial != before => Some(serial),
            _ => None,
        })
        .await;
    let after = Identity::load(&folder).unwrap().peer().clone();
    assert_eq!(after.serial, serial);
    assert_eq!(after.principal.number(), 7);
    handle.reload().unwrap();
    handle.stop().await.unwrap();
}

/// What the agent asked for when it left or came back, the nth time.
async fn asked(cluster: &Cluster, nth: usize) -> (u64, bool) {
    let found = async {
        loop {
            if let Some(found) = cluster.book.lock().unwrap().maintenance.get(nth) {
                return *found;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, found).await.expect("it asks in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_goes_on_while_the_agent_is_away() {
    let (root, mut cluster) = (Root::new(), Cluster::start(1).await);
    joined(&root, &cluster).await;
    let handle = started(&root).await;
    let (member, _) = cluster.hello().await;
    let gate = root.path().join("gate");
    let command = format!("until test -e {}; do sleep 0.02; done; exit 3", gate.display());
    cluster.say(member, told(&set(2, &[57]), vec![detail(57, &command)])).await;
    let begun = cluster.reports(true, |r| matches!(r.what, ReportKind::Started(_))).await;
    assert_eq!(begun[0].1.assignment, id(57));
    handle.leave().await.unwrap();
    assert_eq!(asked(&cluster, 0).await, (120_000, false));
    let lease = deadlines(&root);
    let left_ms = lease.maintenance_ms - yard_agent::boot_ms();
    assert!((60_000..120_000).contains(&left_ms), "{lease:?}");
    // It ends meanwhile, and the next agent tells how.
    std::fs::write(&gate, "").unwrap();
    let handle = Service::start(options(&root)).await.unwrap();
    let (_, hello) = cluster.hello().await;
    assert_eq!(hello.sent, 0);
    let ended = cluster.reports(true, |r| matches!(r.what, ReportKind::Reaped)).await;
    let exits = ended.iter().find_map(|(_, report)| match &report.what {
        ReportKind::Exited(exits) => Some(exits.clone()),
        _ => None,
    });
    assert_eq!(exits.unwrap()[0].cause, yard_common::ExitCause::Exited(3));
    // Ranks count on what was granted, so it is not given back; but there is work again.
    assert_eq!(asked(&cluster, 1).await, (0, true));
    cluster.say(member, told(&set(3, &[]), Vec::new())).await;
    // Whoever starts from now on reads of that time as well.
    handle.leave().await.unwrap();
    assert_eq!(asked(&cluster, 2).await, (120_000, false));
    let handle = started(&root).await;
    assert_eq!(asked(&cluster, 3).await, (0, true));
    // Once nobody counts on it any more, all of it is given back.
    handle.leave().await.unwrap();
    assert_eq!(asked(&cluster, 4).await, (120_000, false));
    std::fs::remove_file(root.path().join("lease")).unwrap();
    let handle = started(&root).await;
    assert_eq!(asked(&cluster, 5).await, (0, false));
    handle.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_leaves_while_it_says_that_it_is_back_says_so_again() {
    let (root, cluster) = (Root::new(), Cluster::start(1).await);
    joined(&root, &cluster).await;
    started(&root).await.leave().await.unwrap();
    assert_eq!(asked(&cluster, 0).await, (120_000, false));
    cluster.wills[&1].lock().unwrap().back_waits = true;
    let handle = started(&root).await;
    assert_eq!(asked(&cluster, 1).await, (0, false));
    handle.leave().await.unwrap();
    assert_eq!(asked(&cluster, 2).await, (120_000, false));
    let handle = started(&root).await;
    assert_eq!(asked(&cluster, 3).await, (0, false));
    handle.stop().await.unwrap();
}
