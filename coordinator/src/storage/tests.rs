mod crash;
mod damage;

use super::segment::Sizes;
use super::*;
use crate::env::{Crash, Env, MemoryDisk, SystemEnv, TestEnv};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::oneshot;
use yard_common::id::{ClusterId, Incarnation, LeaderId, LeaseId, LogIndex, MemberId, NodeId};
use yard_core::lease::PromiseRecord;

fn identity() -> Identity {
    let (cluster, incarnation) = (ClusterId::from_u128(7), Incarnation(1));
    Identity { cluster, incarnation, member: MemberId(1) }
}

/// So that a few entries fill a file.
const SIZES: Sizes = Sizes { segment: 1_000, grow: 700 };

fn env(disk: &MemoryDisk) -> Arc<dyn Env> {
    Arc::new(TestEnv::new(disk.clone(), 1, 1_000))
}

async fn open(disk: &MemoryDisk) -> Result<Store, StorageError> {
    Store::open_with(&env(disk), Path::new("data"), identity(), SIZES).await
}

/// Closes a store as a process that ends well does.
async fn close(store: Store) {
    let Store { log, writer, guard, .. } = store;
    drop(log);
    writer.await;
    drop(guard);
}

fn leader(term: u64) -> LeaderId {
    LeaderId { term, member: MemberId(1) }
}

fn position(term: u64, index: u64) -> Position {
    Position { leader: leader(term), index: LogIndex(index) }
}

fn entry(term: u64, index: u64) -> Entry {
    let payload = match index % 4 {
        0 => Payload::Blank,
        1 => Payload::Members(Members {
            voters: BTreeSet::from([MemberId(1)]),
            joint: None,
            peers: BTreeMap::from([(MemberId(1), Peer { address: "a:1".into() })]),
        }),
        _ => Payload::Commands(Bytes::from(vec![index as u8 | 1; 100 + index as usize])),
    };
    Entry { position: position(term, index), payload }
}

async fn append(log: &Log, entries: Vec<Entry>) -> Result<(), StorageError> {
    let (done, durable) = oneshot::channel();
    let done = move |outcome| done.send(outcome).unwrap();
    log.append(entries, Box::new(done)).await?;
    durable.await.unwrap()
}

/// What can be seen of a log.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    vote: Option<Vote>,
    purged: Option<Position>,
    entries: Vec<Entry>,
}

async fn seen(log: &Log) -> Seen {
    let entries = log.read(LogIndex(0), LogIndex(u64::MAX), usize::MAX).await.unwrap();
    Seen { vote: log.vote(), purged: log.ends().0, entries }
}

/// One thing that is asked of a log.
#[derive(Clone, Debug)]
enum Step {
    Vote(u64),
    Append(u64, std::ops::Range<u64>),
    Truncate(u64),
    Purge(u64, u64),
}

/// A life of a log: overwritten entries, files that fill up, a log that a snapshot overtakes.
fn life() -> Vec<Step> {
    vec![
        Step::Vote(1),
        Step::Append(1, 1..6),
        Step::Append(1, 6..14),
        Step::Truncate(9),
        Step::Vote(2),
        Step::Append(2, 10..30),
        Step::Purge(1, 8),
        Step::Append(2, 30..34),
        Step::Purge(2, 29),
        Step::Vote(3),
        Step::Truncate(32),
        Step::Append(3, 33..36),
        Step::Purge(4, 90),
        Step::Append(4, 91..95),
    ]
}

impl Step {
    /// Does it, and waits until it is durable.
    async fn run(&self, log: &Log) -> Result<(), StorageError> {
        match self {
            Step::Vote(term) => {
                log.save_vote(Vote { leader: leader(*term), committed: true }).await
            }
            Step::Append(term, range) => {
                append(log, range.clone().map(|index| entry(*term, index)).collect()).await
            }
            Step::Truncate(after) => log.truncate_after(LogIndex(*after)).await,
            Step::Purge(term, index) => {
                log.purge(position(*term, *index)).await?;
                append(log, Vec::new()).await
            }
        }
    }

    /// What it does, in the slow and obvious way.
    fn model(&self, seen: &mut Seen) {
        match self {
            Step::Vote(term) => {
                seen.vote = Some(Vote { leader: leader(*term), committed: true });
            }
            Step::Append(term, range) => {
                seen.entries.extend(range.clone().map(|index| entry(*term, index)));
            }
            Step::Truncate(after) => seen.entries.retain(|e| e.position.index.0 <= *after),
            Step::Purge(term, upto) => {
                seen.entries.retain(|e| e.position.index.0 > *upto);
                seen.purged = Some(position(*term, *upto));
            }
        }
    }
}

#[tokio::test]
async fn a_log_is_the_same_after_every_step_and_every_opening() {
    let disk = MemoryDisk::default();
    let mut expected = Seen::default();
    for step in life() {
        let store = open(&disk).await.unwrap();
        step.run(&store.log).await.unwrap();
        step.model(&mut expected);
        assert_eq!(seen(&store.log).await, expected, "{step:?}");
        close(store).await;
        let again = open(&disk).await.unwrap();
        assert_eq!(seen(&again.log).await, expected, "{step:?}, opened again");
        close(again).await;
    }
    let logs: Vec<_> = disk.names().into_iter().filter(|n| n.starts_with("log-")).collect();
    assert!(!logs[0].ends_with("01"), "files of purged entries go: {logs:?}");
}

#[tokio::test]
async fn a_crash_at_any_step_loses_nothing_that_was_acked() {
    let whole = MemoryDisk::default();
    let store = open(&whole).await.unwrap();
    let mut states = vec![Seen::default()];
    for step in life() {
        step.run(&store.log).await.unwrap();
        let mut next = states.last().unwrap().clone();
        step.model(&mut next);
        states.push(next);
    }
    let steps = whole.steps();
    assert!(steps > 40, "{steps}");
    for at in 1..=steps {
        let crashes = [Crash::Process, Crash::Nothing, Crash::Some(at), Crash::Some(at + 1_000)];
        for crash in crashes {
            let disk = MemoryDisk::default();
            disk.fail_at(at);
            let mut acked = 0;
            if let Ok(store) = open(&disk).await {
                for step in life() {
                    if step.run(&store.log).await.is_err() {
                        break;
                    }
                    acked += 1;
                }
                assert!(step_fails(&store.log).await, "nothing is written after a failure");
            }
            disk.crash(crash);
            let case = format!("step {at}, {crash:?}, {acked} acked");
            let store = open(&disk).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            let found = seen(&store.log).await;
            let possible = &states[acked..states.len().min(acked + 2)];
            assert!(possible.contains(&found), "{case}: {found:?}");
            let next = found.entries.last().map(|e| e.position).max(found.purged);
            let next = entry(9, next.map_or(1, |last| last.index.0 + 1));
            append(&store.log, vec![next.clone()]).await.unwrap();
            close(store).await;
            let again = open(&disk).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(seen(&again.log).await.entries.last(), Some(&next), "{case}");
        }
    }
}

async fn step_fails(log: &Log) -> bool {
    append(log, Vec::new()).await.is_err()
}

#[tokio::test]
async fn a_failed_flush_is_never_tried_again() {
    let disk = MemoryDisk::default();
    let store = open(&disk).await.unwrap();
    append(&store.log, vec![entry(1, 1)]).await.unwrap();
    // A write, and the flush of it.
    disk.fail_once_at(disk.steps() + 2);
    let failed = append(&store.log, vec![entry(1, 2)]).await;
    assert!(matches!(failed, Err(StorageError::Io { step: "sync", .. })), "{failed:?}");
    let steps = disk.steps();
    assert!(append(&store.log, vec![entry(1, 3)]).await.is_err());
    let vote = Vote { leader: leader(5), committed: false };
    assert!(store.log.save_vote(vote).await.is_err());
    assert_eq!(disk.steps(), steps, "the disk is left alone");
}

fn write_snapshot(snapshots: &Snapshots, index: u64, bytes: &[u8]) -> Snapshot {
    let meta =
        SnapshotMeta { last: position(1, index), members: Members::default(), members_at: None };
    let mut writer = snapshots.create(meta).unwrap();
    for part in bytes.chunks(1_000_003) {
        writer.write(part).unwrap();
    }
    let written = writer.finish().unwrap();
    assert!(snapshots.adopt(&written).is_ok(), "it gets its name");
    written
}

#[tokio::test]
async fn a_snapshot_comes_back_chunk_by_chunk() {
    let disk = MemoryDisk::default();
    let store = open(&disk).await.unwrap();
    let bytes: Vec<u8> = (0..2_600_000u32).map(|nth| (nth / 7) as u8).collect();
    write_snapshot(&store.snapshots, 3, b"old");
    let made = write_snapshot(&store.snapshots, 9, &bytes);
    assert_eq!((made.chunks(), made.bytes()), (3, 2_600_000));
    assert!(made.read().unwrap() == bytes);
    let empty = write_snapshot(&store.snapshots, 10, b"");
    assert_eq!((empty.chunks(), empty.read().unwrap().len()), (0, 0));
    store.snapshots.keep_only(&made).unwrap();
    let temporary = || disk.names().iter().filter(|name| name.ends_with(".tmp")).count();
    let begun = store.snapshots.create(made.meta().clone()).unwrap();
    let unwanted = store.snapshots.create(made.meta().clone()).unwrap().finish().unwrap();
    assert_eq!(temporary(), 2);
    drop((begun, unwanted));
    assert_eq!(temporary(), 0);
    std::mem::forget(store.snapshots.create(made.meta().clone()).unwrap());
    close(store).await;
    let again = open(&disk).await.unwrap();
    let found = again.snapshots.found().unwrap();
    assert_eq!(found.meta(), made.meta());
    assert!(found.read().unwrap() == bytes);
    let left: Vec<_> = disk.names().into_iter().filter(|n| n.starts_with("snapshot")).collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn promises_outlive_a_crash_and_only_rise() {
    let disk = MemoryDisk::default();
    let store = open(&disk).await.unwrap();
    let record = |node, lease| PromiseRecord { node: NodeId(node), lease: LeaseId(lease) };
    store.promises.persist(vec![record(1, 5), record(2, 1)]).await.unwrap();
    store.promises.persist(vec![record(1, 3)]).await.unwrap();
    let acked = disk.steps();
    disk.fail_at(acked + 2);
    assert!(store.promises.persist(vec![record(9, 9)]).await.is_err());
    assert!(store.promises.persist(vec![]).await.is_err(), "no second try");
    disk.crash(Crash::Nothing);
    let again = open(&disk).await.unwrap();
    assert_eq!(again.promises.all(), [record(1, 5), record(2, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_disk_keeps_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    let path = folder.path().join("data");
    let mut expected = Seen::default();
    for step in life() {
        let store = Store::open_with(&env, &path, identity(), SIZES).await.unwrap();
        let second = Store::open_with(&env, &path, identity(), SIZES).await;
        assert!(matches!(second.err(), Some(StorageError::Locked)));
        step.run(&store.log).await.unwrap();
        step.model(&mut expected);
        close(store).await;
    }
    let store = Store::open_with(&env, &path, identity(), SIZES).await.unwrap();
    assert_eq!(seen(&store.log).await, expected);
}
