//! The control stream: sets come, reports go, and what breaks begins anew.

use crate::cluster::Cluster;
use crate::member::Event;
use crate::node::{Root, detail, id, joined, set, started, told};
use yard_common::ExitCause;
use yard_common::id::{Generation, Incarnation, LeaseId};
use yard_core::agent::{Fence, ReportKind};
use yard_core::command::Inventory;
use yard_proto::internal::coordinator_message::What as Told;
use yard_proto::internal::{self, Goodbye};
use yard_proto::wire::Payload;

fn closed(event: Event) -> Option<()> {
    matches!(event, Event::Closed).then_some(())
}

fn fence(generation: u64) -> Fence {
    Fence { incarnation: Incarnation(1), generation: Generation(generation) }
}

/// Whom a member names as the leader, none: itself; and the life that it is of.
fn lead(cluster: &Cluster, member: u64, leader: Option<u64>, life: u32) {
    let mut will = cluster.wills[&member].lock().unwrap();
    (will.leader, will.life) = (leader, life);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_becomes_a_process_and_its_end_is_told() {
    let (root, mut cluster) = (Root::new(), Cluster::start(1).await);
    joined(&root, &cluster).await;
    let handle = started(&root).await;
    let (member, hello) = cluster.hello().await;
    let inventory = Inventory::from_payload(&hello.inventory).unwrap();
    assert_eq!((inventory.devices.len(), &*inventory.address), (2, "127.0.0.1"));
    assert_eq!(Fence::from_payload(&hello.fence).unwrap(), fence(1));
    // Details come ahead of their set, with one that nothing can be made of.
    let mut bad = detail(58, "exit 0");
    bad.gpu_uuids = vec!["none of ours".into()];
    let ahead =
        internal::Desired { payload: Default::default(), details: vec![detail(57, "exit 3"), bad] };
    cluster.say(member, Told::Desired(ahead)).await;
    cluster.say(member, told(&set(2, &[57, 58]), Vec::new())).await;
    let mut reaped = 0;
    let all = cluster.reports(true, |report| {
        reaped += u32::from(report.what == ReportKind::Reaped);
        reaped == 2
    });
    let all = all.await;
    let sequences: Vec<u64> = all.iter().map(|(_, report)| report.sequence.0).collect();
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
    let batches: Vec<u64> = all.iter().map(|(nth, _)| *nth).collect();
    assert!(batches[0] == 1 && batches.windows(2).all(|w| w[1] == w[0] || w[1] == w[0] + 1));
    let cause = |allocation| {
        all.iter().find_map(|(_, report)| match &report.what {
            ReportKind::Exited(exits) if report.assignment == id(allocation) => {
                Some(exits[0].cause)
            }
            _ => None,
        })
    };
    assert_eq!(cause(57), Some(ExitCause::Exited(3)), "{all:#?}");
    // The other failed by itself.
    assert!(matches!(cause(58), Some(ExitCause::PrepareFailed(_))), "{:?}", cause(58));
    handle.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_acknowledged_comes_again_in_order() {
    let (root, mut cluster) = (Root::new(), Cluster::start(1).await);
    joined(&root, &cluster).await;
    let handle = started(&root).await;
    let (member, _) = cluster.hello().await;
    cluster.say(member, told(&set(2, &[57]), vec![detail(57, "exit 0")])).await;
    let reaped = |report: &yard_core::agent::Report| report.what == ReportKind::Reaped;
    let first = cluster.reports(false, reaped).await;
    cluster.drop_stream(member).await;
    let (_, hello) = cluster.hello().await;
    assert_eq!(hello.sent, 0);
    assert_eq!(Fence::from_payload(&hello.fence).unwrap(), fence(2));
    let again = cluster.reports(true, reaped).await;
    assert_eq!(again[0].0, 1, "batches count from 1 on each stream");
    let bare = |all: Vec<(u64, yard_core::agent::Report)>| -> Vec<_> {
        all.into_iter().map(|(_, report)| report).collect()
    };
    assert_eq!(bare(first), bare(again));
    // What is acknowledged does not come again: the first batch is of the next assignment.
    cluster.say(member, told(&set(3, &[58]), vec![detail(58, "exit 0")])).await;
    cluster.drop_stream(member).await;
    cluster.hello().await;
    cluster.say(member, told(&set(4, &[58]), vec![detail(58, "exit 0")])).await;
    let next = cluster.reports(true, reaped).await;
    assert!(next.iter().all(|(_, report)| report.assignment == id(58)), "{next:?}");
    handle.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_ends_the_stream_and_harms_nothing() {
    let (root, mut cluster) = (Root::new(), Cluster::start(1).await);
    joined(&root, &cluster).await;
    let handle = started(&root).await;
    let (member, _) = cluster.hello().await;
    let gate = root.path().join("gate");
    let command = format!("until test -e {}; do sleep 0.02; done; exit 5", gate.display());
    cluster.say(member, told(&set(2, &[57]), vec![detail(57, &command)])).await;
    cluster.reports(true, |report| matches!(report.what, ReportKind::Started(_))).await;
    let mut beyond = set(3, &[57]);
    beyond.assignments[0].keep = 9;
    let beyond = minicbor::to_vec(&beyond).unwrap();
    let garbage = [b"\xff\xfe\xfd".to_vec(), vec![0x9f; 100_000], beyond];
    for payload in garbage {
        let payload = payload.into();
        cluster.say(member, Told::Desired(internal::Desired { payload, details: vec![] })).await;
        cluster.next(closed).await;
        let (_, hello) = cluster.hello().await;
        assert_eq!(Fence::from_payload(&hello.fence).unwrap(), fence(2));
    }
    // A message with nothing in it is none either.
    let out = cluster.wills[&member].lock().unwrap().out.clone().unwrap();
    out.send(Ok(internal::CoordinatorMessage { what: None })).await.unwrap();
    cluster.next(closed).await;
    cluster.hello().await;
    std::fs::write(&gate, "").unwrap();
    let ended = cluster.reports(true, |report| report.what == ReportKind::Reaped).await;
    let exited = |(_, report): &(u64, yard_core::agent::Report)| match &report.what {
        ReportKind::Exited(exits) => Some(exits[0].cause),
        _ => None,
    };
    assert_eq!(ended.iter().find_map(exited), Some(ExitCause::Exited(5)));
    handle.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_found_through_the_others() {
    let (root, mut cluster) = (Root::new(), Cluster::start(3).await);
    for other in [1, 2] {
        cluster.wills[&other].lock().unwrap().leader = Some(3);
    }
    joined(&root, &cluster).await;
    let handle = started(&root).await;
    assert_eq!(cluster.hello().await.0, 3);
    // It steps down, and the next one takes over.
    cluster.wills[&2].lock().unwrap().leader = None;
    let next = internal::MemberAddress { member_id: 2, address: cluster.address(2) };
    let goodbye = Goodbye { leader: Some(next), reason: "stepping down".into() };
    cluster.say(3, Told::Goodbye(goodbye)).await;
    assert_eq!(cluster.hello().await.0, 2);
    // One that falls silent is left for the next.
    cluster.wills[&2].lock().unwrap().silent = true;
    assert_eq!(cluster.hello().await.0, 3);
    handle.stop().await.unwrap();
}

/// A backup was restored, and a member of before still runs: whoever leads there is left for the
/// next, and what it says is not heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_a_former_life_is_left() {
    let (root, mut cluster) = (Root::new(), Cluster::start(2).await);
    lead(&cluster, 1, Some(2), 9);
    lead(&cluster, 2, None, 9);
    joined(&root, &cluster).await;
    let handle = started(&root).await;
    assert_eq!(cluster.hello().await.0, 2);
    for (generation, former) in [(1, 0), (2, 8)] {
        let mut restored = set(generation, &[]);
        restored.fence.incarnation = Incarnation(9);
        cluster.say(2, told(&restored, Vec::new())).await;
        cluster.drop_stream(2).await;
        let (member, hello) = cluster.hello().await;
        let obeyed = Fence::from_payload(&hello.fence).unwrap();
        assert_eq!((member, obeyed), (2, restored.fence));
        // All name the one of before, which may not even say which life it is of.
        lead(&cluster, 1, None, former);
        lead(&cluster, 2, Some(1), 9);
        cluster.drop_stream(2).await;
        for _ in 0..2 {
            assert_eq!(cluster.hello().await.0, 1, "it is asked, and left again");
        }
        lead(&cluster, 2, None, 9);
        while cluster.hello().await.0 != 2 {}
    }
    handle.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_lease_comes_with_its_set_and_outlives_the_agent() {
    let (root, mut cluster) = (Root::new(), Cluster::start(1).await);
    joined(&root, &cluster).await;
    let handle = started(&root).await;
    let (member, _) = cluster.hello().await;
    let mut newer = set(2, &[]);
    newer.lease = LeaseId(4);
    cluster.say(member, told(&newer, Vec::new())).await;
    let of_four = |event| match event {
        Event::Renewed(_, renewal) => (renewal.lease == LeaseId(4)).then_some(()),
        _ => None,
    };
    cluster.next(of_four).await;
    // An older set brings nothing back.
    cluster.say(member, told(&set(1, &[]), Vec::new())).await;
    handle.stop().await.unwrap();
    while cluster.events.try_recv().is_ok() {}
    let handle = started(&root).await;
    let first = cluster
        .next(|event| match event {
            Event::Renewed(_, renewal) => Some(renewal.lease),
            _ => None,
        })
        .await;
    assert_eq!(first, LeaseId(4));
    handle.stop().await.unwrap();
}
