//! A crash before and after every step of everything that a store does: what was acked is there.

use super::*;

/// What was acked to whoever uses the store.
#[derive(Clone, Debug, Default, PartialEq)]
struct Acked {
    entries: u64,
    promises: Vec<PromiseRecord>,
    snapshot: u64,
}

/// Many bytes, so that few of them fill a file.
fn promise(node: u32) -> PromiseRecord {
    PromiseRecord { node: NodeId(u32::MAX - node), lease: LeaseId(u64::MAX - 1) }
}

/// Fills the file of promises.
async fn promise_on(disk: &MemoryDisk, acked: &mut Acked) -> Result<(), StorageError> {
    let store = open(disk).await?;
    for round in 0..3 {
        let records: Vec<_> = (0..8).map(|nth| promise(5_000 + 8 * round + nth)).collect();
        store.promises.persist(records.clone()).await?;
        acked.promises.extend(records);
    }
    close(store).await;
    Ok(())
}

/// A folder whose file of promises has room for a few more.
async fn begun() -> (MemoryDisk, Acked) {
    let disk = MemoryDisk::default();
    let store = open(&disk).await.unwrap();
    let promises: Vec<_> = (0..4_080).map(promise).collect();
    store.promises.persist(promises.clone()).await.unwrap();
    close(store).await;
    (disk, Acked { promises, ..Acked::default() })
}

/// A life with snapshots, promises, and a full disk.
async fn live(disk: &MemoryDisk, acked: &mut Acked) -> Result<(), StorageError> {
    let store = open(disk).await?;
    store.reserve.make(4_000)?;
    for round in 0..3 {
        for _ in 0..6 {
            append(&store.log, vec![entry(1, acked.entries + 1)]).await?;
            acked.entries += 1;
        }
        let record = promise(round);
        store.promises.persist(vec![record]).await?;
        acked.promises.push(record);
        let last = acked.entries - 2;
        let meta =
            SnapshotMeta { last: position(1, last), members: Members::default(), members_at: None };
        let mut writer = store.snapshots.create(meta)?;
        writer.write(&[round as u8; 100])?;
        let written = writer.finish()?;
        store.snapshots.adopt(&written)?;
        acked.snapshot = last;
        store.snapshots.keep_only(&written)?;
        store.log.purge(position(1, last)).await?;
    }
    disk.set_capacity(Some(disk.used_bytes()));
    while store.reserve.bytes() > 0 {
        append(&store.log, vec![entry(1, acked.entries + 1)]).await?;
        acked.entries += 1;
    }
    append(&store.log, vec![entry(1, acked.entries + 1)]).await?;
    acked.entries += 1;
    close(store).await;
    Ok(())
}

/// Lets a life end at each of its steps, in every way, and checks what is there then.
async fn end_at_every_step<F>(begun: &MemoryDisk, before: &Acked, steps_min: u64, live: F)
where
    F: AsyncFn(&MemoryDisk, &mut Acked) -> Result<(), StorageError>,
{
    let whole = begun.copy();
    live(&whole, &mut before.clone()).await.unwrap();
    let steps = whole.steps();
    assert!(steps > steps_min, "{steps}");
    for at in 1..=steps {
        for crash in [Crash::Process, Crash::Nothing, Crash::Some(at), Crash::Some(at + 1_000)] {
            let disk = begun.copy();
            disk.fail_at(at);
            let mut acked = before.clone();
            let ended = live(&disk, &mut acked).await;
            assert!(ended.is_err() || at == steps, "step {at}");
            disk.crash(crash);
            let case = format!("step {at}, {crash:?}, {} entries acked", acked.entries);
            let store = open(&disk).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            check(&store, &acked, &case).await;
            // What was read is relied on, so the next loss of power must not take it.
            let (found, promises) = (seen(&store.log).await, store.promises.all());
            disk.crash(Crash::Nothing);
            close(store).await;
            let again = open(&disk).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(seen(&again.log).await, found, "{case}");
            assert_eq!(again.promises.all(), promises, "{case}");
            close(again).await;
        }
    }
}

async fn check(store: &Store, acked: &Acked, case: &str) {
    let last = store.log.ends().1.map_or(0, |last| last.index.0);
    assert!((acked.entries..=acked.entries + 1).contains(&last), "{case}: {last}");
    for found in seen(&store.log).await.entries {
        assert_eq!(found, entry(1, found.position.index.0), "{case}");
    }
    let promises: BTreeSet<NodeId> = store.promises.all().iter().map(|one| one.node).collect();
    assert!(acked.promises.iter().all(|one| promises.contains(&one.node)), "{case}");
    let snapshot = store.snapshots.found().map_or(0, |found| found.meta().last.index.0);
    assert!(snapshot >= acked.snapshot, "{case}: {snapshot}");
    if let Some(found) = store.snapshots.found() {
        assert_eq!(found.read().unwrap().len(), 100, "{case}");
    }
    let purged = store.log.ends().0.map_or(0, |purged| purged.index.0);
    assert!(purged <= snapshot, "{case}: what was dropped is in no snapshot");
}

#[tokio::test]
async fn nothing_acked_is_lost_wherever_it_comes() {
    end_at_every_step(&MemoryDisk::default(), &Acked::default(), 100, live).await;
}

#[tokio::test]
async fn no_promise_is_lost_while_their_file_is_written_anew() {
    let (begun, before) = begun().await;
    end_at_every_step(&begun, &before, 5, promise_on).await;
}

#[tokio::test]
async fn a_promise_on_a_full_disk_can_be_made_later() {
    let (disk, acked) = begun().await;
    let store = open(&disk).await.unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    let records: Vec<_> = (5_000..6_000).map(promise).collect();
    for _ in 0..2 {
        let error = store.promises.persist(records.clone()).await.unwrap_err();
        assert!(error.is_full(), "{error}");
    }
    close(store).await;
    let store = open(&disk).await.unwrap();
    assert_eq!(store.promises.all().len(), acked.promises.len(), "none of them was made");
    disk.set_capacity(None);
    store.promises.persist(records).await.unwrap();
    assert_eq!(store.promises.all().len(), acked.promises.len() + 1_000);
}

#[tokio::test]
async fn a_full_disk_takes_what_the_reserve_has_room_for() {
    let disk = MemoryDisk::default();
    let store = open(&disk).await.unwrap();
    store.reserve.make(6_000).unwrap();
    disk.set_capacity(Some(disk.used_bytes() + 100));
    assert!(store.reserve.make(1).is_ok(), "it is there already");
    let mut acked = 0;
    let error = loop {
        match append(&store.log, vec![entry(1, acked + 1)]).await {
            Ok(()) => acked += 1,
            Err(error) => break error,
        }
    };
    assert!(error.is_full(), "{error}");
    assert!(acked > 30, "{acked} entries of 100 bytes and more");
    assert_eq!((store.reserve.bytes(), store.reserve.free_bytes().unwrap()), (0, 100));
    close(store).await;
    let store = open(&disk).await.unwrap();
    assert_eq!(seen(&store.log).await.entries.len() as u64, acked);
    assert!(store.reserve.make(6_000).err().is_some_and(|error| error.is_full()));
    assert!(!disk.names().iter().any(|name| name.ends_with(".tmp")), "{:?}", disk.names());
    disk.set_capacity(None);
    append(&store.log, vec![entry(1, acked + 1)]).await.unwrap();
    store.reserve.make(6_000).unwrap();
    assert_eq!(store.reserve.bytes(), 6_000);
}
