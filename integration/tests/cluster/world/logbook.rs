//! The logs that members kept on their disks, read after the fact and told in the words of the
//! model.
//!
//! A member may run meanwhile: its folder is copied first, as a crash would leave it.

use crate::teller::Teller;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use yard_common::id::{Incarnation, LogIndex};
use yard_coordinator::env::{Env, SystemEnv};
use yard_coordinator::resident;
use yard_coordinator::storage::{Entry, Identity, Payload, Store};
use yard_core::command::{Actor, Cluster, Command, Envelope, Stamp};
use yard_core::state::State;
use yard_integration::model::Record;

/// Bytes of entries that are read at a time.
const READ_BYTES_MAX: usize = 1 << 20;

/// A log from its first entry on, by index.
pub(crate) type Logbook = BTreeMap<u64, Entry>;

/// Reads the log of a member. `copy`: a folder that does not exist yet.
///
/// # Panics
/// If the folder is damaged, or its log does not begin at the beginning.
pub(crate) async fn read(folder: &Path, copy: &Path) -> Logbook {
    let data = copy.join("data");
    fs::create_dir_all(&data).expect("a folder can be made");
    for entry in fs::read_dir(folder.join("data")).expect("it has data") {
        let from = entry.expect("it can be listed").path();
        // What the member writes for a moment may be gone by now.
        let _ = fs::copy(&from, data.join(from.file_name().expect("it has a name")));
    }
    let known = resident(folder).expect("it is a member's");
    let identity = Identity {
        cluster: known.cluster.expect("its certificate tells"),
        incarnation: Incarnation(1),
        member: known.member.expect("its certificate tells"),
    };
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    let store = Store::open(&env, &data, identity).await;
    let Store { log, snapshots, promises, reserve, writer, guard } =
        store.unwrap_or_else(|error| panic!("{}: {error:?}", folder.display()));
    let (purged, last) = log.ends();
    assert_eq!(purged, None, "the beginning of the log is in a snapshot");
    let end = LogIndex(last.map_or(0, |last| last.index.0) + 1);
    let mut book = Logbook::new();
    let mut next = LogIndex(1);
    while next < end {
        let entries = log.read(next, end, READ_BYTES_MAX).await.expect("it can be read");
        assert!(!entries.is_empty(), "entry {next} is there");
        for entry in entries {
            next = LogIndex(entry.position.index.0 + 1);
            book.insert(entry.position.index.0, entry);
        }
    }
    drop((log, snapshots, promises, reserve));
    writer.await;
    drop(guard);
    book
}

/// The first entry up to an index that two members do not have in common.
pub(crate) fn differ(one: &Logbook, other: &Logbook, upto: u64) -> Option<u64> {
    (1..=upto).find(|index| {
        let (one, other) = (one.get(index), other.get(index));
        one.is_none() || one != other
    })
}

/// Applies a log, and tells it in the words of the model.
pub(crate) fn tell(book: &Logbook, upto: u64) -> Vec<Record> {
    let mut state = State::default();
    let mut teller = Teller::default();
    for (index, entry) in book.range(..=upto) {
        let mut commands: Vec<(Envelope, Command)> = match &entry.payload {
            Payload::Blank | Payload::Members(_) => Vec::new(),
            Payload::Commands(bytes) => minicbor::decode(bytes).expect("it is a list of commands"),
        };
        if let Payload::Members(members) = &entry.payload {
            let stamp = Stamp { cluster_ms: state.now_ms(), wall_ms: state.clock.wall_ms };
            let leader = entry.position.leader;
            let envelope = Envelope { actor: Actor::Leader, leader, stamp, request: None };
            let (voters, joint) = (members.voters.clone(), members.joint.clone());
            commands.push((envelope, Command::Cluster(Cluster::Members { voters, joint })));
        }
        for (envelope, command) in &commands {
            let applied = state.apply(LogIndex(*index), envelope, command);
            teller.tell(*index, envelope, command, &applied);
        }
    }
    assert_eq!(state.check(), []);
    teller.into_records()
}
