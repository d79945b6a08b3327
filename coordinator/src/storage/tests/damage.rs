//! Damage of every kind to every byte of a small data set: it is refused, or it does no harm.

use super::*;
use std::fmt;

/// A small folder with something in every file, all of it acked.
struct Small {
    disk: MemoryDisk,
    seen: Seen,
    promises: Vec<PromiseRecord>,
}

/// Bytes of its snapshot.
const SNAPSHOT: [u8; 300] = [5; 300];

impl Small {
    async fn new() -> Small {
        let disk = MemoryDisk::default();
        let store = open(&disk).await.unwrap();
        Step::Vote(1).run(&store.log).await.unwrap();
        for index in 1..20 {
            append(&store.log, vec![entry(1, index)]).await.unwrap();
        }
        for node in 3..5 {
            let record = PromiseRecord { node: NodeId(node), lease: LeaseId(4) };
            store.promises.persist(vec![record]).await.unwrap();
        }
        write_snapshot(&store.snapshots, 2, &SNAPSHOT);
        store.reserve.make(3_000).unwrap();
        let (seen, promises) = (seen(&store.log).await, store.promises.all());
        close(store).await;
        let logs = disk.names().iter().filter(|name| name.starts_with("log-")).count();
        assert!(logs >= 3, "{:?}", disk.names());
        Small { disk, seen, promises }
    }

    fn last_log(&self) -> String {
        self.disk.names().into_iter().rfind(|name| name.starts_with("log-")).unwrap()
    }

    /// Opens the folder with other bytes in one file. True: it was refused. Whatever is believed
    /// must be all that was acked.
    async fn is_refused(&self, name: &str, bytes: &[u8], case: impl fmt::Display) -> bool {
        let disk = self.disk.copy();
        disk.write(name, bytes);
        let store = match open(&disk).await {
            Ok(store) => store,
            Err(error) => {
                assert!(error.is_of_content(), "{name}: {case}: {error}");
                assert_eq!(disk.read(name).as_deref(), Some(bytes), "{name}: {case}: changed");
                return true;
            }
        };
        assert_eq!(seen(&store.log).await, self.seen, "{name}: {case}");
        assert_eq!(store.promises.all(), self.promises, "{name}: {case}");
        assert_eq!(store.snapshots.found().unwrap().read().unwrap(), SNAPSHOT, "{name}: {case}");
        // What was repaired can be written to, and is read again.
        let next = entry(2, 20);
        append(&store.log, vec![next.clone()]).await.unwrap();
        close(store).await;
        let again = open(&disk).await.unwrap();
        assert_eq!(seen(&again.log).await.entries.last(), Some(&next), "{name}: {case}");
        false
    }
}

/// Bytes of a file up to the last that is not zero.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[tokio::test]
async fn a_byte_that_is_flipped_zeroed_or_set_is_refused_or_harmless() {
    let small = Small::new().await;
    let (mut refused, mut harmless) = (0, 0);
    for name in small.disk.names() {
        let bytes = small.disk.read(&name).unwrap();
        let used = used(&bytes);
        // What is behind the last frame is all alike: a part of it will do.
        for at in 0..bytes.len().min(used + 64) {
            let old = bytes[at];
            for new in [old ^ 1 << (at % 8), 0, 0xff] {
                let mut bad = bytes.clone();
                bad[at] = new;
                let case = format!("{old:#x} at {at} is {new:#x}");
                let known = small.is_refused(&name, &bad, case).await;
                let counts = if known { &mut refused } else { &mut harmless };
                *counts += u64::from(new != old);
                let flipped = new == old ^ 1 << (at % 8) && at < used;
                assert!(known || !flipped, "{name}: a flipped bit at {at} was believed");
            }
        }
    }
    eprintln!("{refused} damaged bytes refused, {harmless} harmless");
    assert!(refused > 8_000, "{refused}");
}

#[tokio::test]
async fn a_file_that_is_cut_anywhere_is_refused_or_harmless() {
    let small = Small::new().await;
    let mut refused = 0;
    for name in small.disk.names() {
        let bytes = small.disk.read(&name).unwrap();
        let used = used(&bytes);
        for cut in (0..bytes.len()).filter(|cut| *cut < used + 600) {
            let known = small.is_refused(&name, &bytes[..cut], format!("cut at {cut}")).await;
            assert!(known || cut >= used || name == "reserve", "{name}: cut at {cut}");
            refused += u64::from(known);
        }
    }
    assert!(refused > 3_000, "{refused}");
}

#[tokio::test]
async fn a_sector_that_was_never_written_is_dropped_only_at_the_end() {
    let small = Small::new().await;
    let last = small.last_log();
    let mut torn = 0;
    for name in small.disk.names() {
        let bytes = small.disk.read(&name).unwrap();
        // From every byte on: a frame begins anywhere in a sector.
        for from in 0..used(&bytes) {
            let mut bad = bytes.clone();
            let end = bad.len().min((from / 512 + 1) * 512);
            bad[from..end].fill(0);
            let disk = small.disk.copy();
            disk.write(&name, &bad);
            let Ok(store) = open(&disk).await else { continue };
            // A crash leaves the same behind, if it comes before the sector is written: nobody can
            // tell, but at the end of the log only.
            let found = seen(&store.log).await;
            let whole = &small.seen.entries;
            let lost = whole.len() - found.entries.len();
            assert_eq!(found.entries[..], whole[..found.entries.len()], "{name} at {from}");
            assert!(lost == 0 || name == last, "{name} at {from}: {lost}");
            torn += lost;
        }
    }
    assert!(torn > 0, "the last frame can be torn");
}

#[tokio::test]
async fn a_missing_file_is_refused() {
    let small = Small::new().await;
    for name in small.disk.names() {
        let less = small.disk.copy();
        less.remove(&name);
        let names = less.names();
        // They can be made anew.
        if name == "reserve" || name.starts_with("snapshot") {
            continue;
        }
        let error = open(&less).await.err().unwrap_or_else(|| panic!("nobody missed {name}"));
        assert!(error.is_of_content(), "{name}: {error}");
        assert_eq!(less.names(), names, "nothing was changed");
    }
}

#[tokio::test]
async fn a_snapshot_that_the_log_relies_on_is_missed() {
    let disk = MemoryDisk::default();
    let path = Path::new("data");
    let store = Store::open(&env(&disk), path, identity()).await.unwrap();
    append(&store.log, (1..9).map(|index| entry(1, index)).collect()).await.unwrap();
    write_snapshot(&store.snapshots, 5, b"five");
    store.log.purge(position(1, 5)).await.unwrap();
    append(&store.log, vec![entry(1, 9)]).await.unwrap();
    close(store).await;
    let name = disk.names().into_iter().find(|name| name.starts_with("snapshot")).unwrap();
    assert!(Store::open(&env(&disk.copy()), path, identity()).await.is_ok());
    disk.remove(&name);
    let error = Store::open(&env(&disk), path, identity()).await.err().unwrap();
    assert!(matches!(error, StorageError::Missing { .. }), "{error}");
}

#[tokio::test]
async fn files_of_others_are_refused() {
    let small = Small::new().await;
    let store = open(&small.disk).await.unwrap();
    assert!(matches!(open(&small.disk).await.err(), Some(StorageError::Locked)));
    close(store).await;
    let others = [
        Identity { member: MemberId(2), ..identity() },
        Identity { incarnation: Incarnation(2), ..identity() },
        Identity { cluster: ClusterId::from_u128(8), ..identity() },
    ];
    for other in others {
        let foreign = MemoryDisk::default();
        let path = Path::new("data");
        let made = Store::open_with(&env(&foreign), path, other, SIZES).await.unwrap();
        write_snapshot(&made.snapshots, 2, &SNAPSHOT);
        close(made).await;
        for name in foreign.names() {
            let mixed = small.disk.copy();
            mixed.write(&name, &foreign.read(&name).unwrap());
            let error = open(&mixed).await.err().unwrap();
            assert!(matches!(error, StorageError::OtherIdentity { .. }), "{name}: {error}");
            assert!(error.is_of_content());
        }
    }
}

#[tokio::test]
async fn an_old_file_among_new_ones_is_refused() {
    let small = Small::new().await;
    let old = small.disk.copy();
    let store = open(&small.disk).await.unwrap();
    for index in 20..40 {
        append(&store.log, vec![entry(1, index)]).await.unwrap();
    }
    close(store).await;
    for name in old.names().into_iter().filter(|name| name.starts_with("log-")) {
        let before = old.read(&name).unwrap();
        if small.disk.read(&name).unwrap() == before {
            continue;
        }
        let mixed = small.disk.copy();
        mixed.write(&name, &before);
        assert!(open(&mixed).await.is_err(), "{name} of before was believed");
    }
}
