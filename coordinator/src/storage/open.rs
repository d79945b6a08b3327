//! Opens the folder of a member, or makes it.

use super::StorageError;
use super::frame;
use super::log::Log;
use super::promises::{self, Promises};
use super::record::{FORMAT, Identity, Meta, SegmentHead, to_bytes};
use super::replay::replay;
use super::reserve::Reserve;
use super::segment::{Segment, Sizes, check_head, name_of, number_of};
use super::snapshot::{self, Snapshots};
use super::writer::Writer;
use crate::env::{Env, Folder, Guard, run_blocking};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use yard_common::id::LogIndex;
use yard_common::limits::LOG_JOBS_MAX;

/// Locked by the process that uses the folder.
const LOCK: &str = "lock";
/// Says whose folder it is.
const META: &str = "meta";
/// Files that are not complete yet end in this.
pub(super) const TEMPORARY: &str = ".tmp";

/// Everything that a member has on its disk.
pub struct Store {
    /// The log and the vote.
    pub log: Log,
    /// Snapshots.
    pub snapshots: Snapshots,
    /// Promises about leases.
    pub promises: Promises,
    /// What is kept for a full disk.
    pub reserve: Reserve,
    /// Ends when the last clone of the log is gone and everything is written; to be awaited by the
    /// owner.
    pub writer: BoxFuture<'static, ()>,
    /// Keeps other processes out. To be dropped last.
    pub guard: Box<dyn Guard>,
}

impl Store {
    /// Opens the folder, which is made if it does not exist.
    ///
    /// # Errors
    /// If another process has it, if it belongs to another member, if anything in it is damaged or
    /// missing, or if the file system refuses.
    pub async fn open(
        env: &Arc<dyn Env>,
        path: &Path,
        identity: Identity,
    ) -> Result<Store, StorageError> {
        let store = Store::open_with(env, path, identity, Sizes::DEFAULT).await?;
        let held = store.snapshots.found().map_or(LogIndex(0), |found| found.meta().last.index);
        // What was dropped from the log must be in a snapshot.
        if store.log.ends().0.is_some_and(|purged| purged.index > held) {
            return Err(StorageError::Missing { file: "the last snapshot".into() });
        }
        Ok(store)
    }

    pub(super) async fn open_with(
        env: &Arc<dyn Env>,
        path: &Path,
        identity: Identity,
        sizes: Sizes,
    ) -> Result<Store, StorageError> {
        let (inner, path) = (Arc::clone(env), path.to_path_buf());
        run_blocking(&**env, move || open(&inner, &path, identity, sizes)).await
    }
}

fn open(
    env: &Arc<dyn Env>,
    path: &Path,
    identity: Identity,
    sizes: Sizes,
) -> Result<Store, StorageError> {
    let shown = path.display().to_string();
    let folder = env.folder(path).map_err(StorageError::io("open", &shown))?;
    let guard = folder.lock(LOCK).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => StorageError::Locked,
        _ => StorageError::io("lock", LOCK)(error),
    })?;
    let mut names = folder.list().map_err(StorageError::io("list", &shown))?;
    if names.iter().any(|name| name == META) {
        check_meta(&*folder, &identity)?;
        for name in names.extract_if(.., |name| name.ends_with(TEMPORARY)) {
            folder.remove(&name).map_err(StorageError::io("remove", &name))?;
        }
    } else {
        create(&*folder, &names, &identity, sizes)?;
        names = folder.list().map_err(StorageError::io("list", &shown))?;
    }
    // Names that a killed process gave may not be on the disk yet.
    folder.sync().map_err(StorageError::io("sync", &shown))?;
    let snapshots = Snapshots::open(env, &folder, identity, &names)?;
    let promises = Promises::open(env, &folder, identity)?;
    let reserve = Reserve::open(&folder, &names)?;
    let (log, writer) = open_log(env, &folder, identity, sizes, &names, &reserve)?;
    let writer = env.worker("log", writer).map_err(StorageError::io("start", "the writer"))?;
    Ok(Store { log, snapshots, promises, reserve, writer, guard })
}

fn open_log(
    env: &Arc<dyn Env>,
    folder: &Arc<dyn Folder>,
    identity: Identity,
    sizes: Sizes,
    names: &[String],
    reserve: &Reserve,
) -> Result<(Log, BoxFuture<'static, ()>), StorageError> {
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    let replayed = replay(&**folder, &identity, &numbers, sizes.grow)?;
    let index = Arc::new(Mutex::new(replayed.index));
    let busy_since_ms = Arc::new(AtomicU64::new(0));
    let left = Arc::new(AtomicU64::new(replayed.current.left()));
    let queued = Arc::new(AtomicU64::new(0));
    let kept_vote = Arc::new(Mutex::new(replayed.durable.vote));
    let writer = Writer {
        env: Arc::clone(env),
        folder: Arc::clone(folder),
        identity,
        sizes,
        index: Arc::clone(&index),
        busy_since_ms: Arc::clone(&busy_since_ms),
        reserve: reserve.clone(),
        left: Arc::clone(&left),
        queued: Arc::clone(&queued),
        full: replayed.full,
        current: replayed.current,
        highest: replayed.highest,
        durable: replayed.durable,
        failed: None,
    };
    let (jobs, queue) = mpsc::channel(LOG_JOBS_MAX);
    let env = Arc::clone(env);
    let log = Log { env, index, jobs, busy_since_ms, left, queued, kept_vote };
    Ok((log, writer.run(queue).boxed()))
}

fn check_meta(folder: &dyn Folder, identity: &Identity) -> Result<(), StorageError> {
    let file = folder.open(META).map_err(StorageError::io("open", META))?;
    let bytes = file.read_all().map_err(StorageError::io("read", META))?;
    let scan = frame::scan(META, &bytes, Some(0))?;
    let damaged = |what| StorageError::Damaged { file: META.into(), offset: 0, what };
    let body =
        scan.bodies.first().filter(|_| !scan.torn).ok_or_else(|| damaged("it is cut off"))?;
    let meta: Meta = minicbor::decode(&bytes[body.clone()])
        .map_err(|_| damaged("it has a form that is not known"))?;
    check_head(META, meta.format, &meta.identity, identity)
}

/// Makes the files of a new member. The one that says that they are there comes last.
fn create(
    folder: &dyn Folder,
    names: &[String],
    identity: &Identity,
    sizes: Sizes,
) -> Result<(), StorageError> {
    // What a crash in here leaves may go; a folder that has lost its `meta` may not.
    let leftover = |name: &String| {
        *name == LOCK || *name == promises::NAME || *name == name_of(1) || name.ends_with(TEMPORARY)
    };
    if !names.iter().all(leftover) || has_records(folder, names)? {
        return Err(StorageError::Missing { file: META.into() });
    }
    for name in names.iter().filter(|name| *name != LOCK) {
        folder.remove(name).map_err(StorageError::io("remove", name))?;
    }
    let head = SegmentHead {
        format: FORMAT,
        identity: *identity,
        number: 1,
        vote: None,
        purged: None,
        last: LogIndex(0),
        length: sizes.grow,
    };
    Segment::create(folder, head, 0, sizes.grow)?;
    promises::create(folder, identity, &[])?;
    let meta = to_bytes(&Meta { format: FORMAT, identity: *identity });
    snapshot::write_whole(folder, META, &[&meta], 0)
}

/// Whether the log holds more than its head.
fn has_records(folder: &dyn Folder, names: &[String]) -> Result<bool, StorageError> {
    let name = name_of(1);
    if !names.contains(&name) {
        return Ok(false);
    }
    let file = folder.open(&name).map_err(StorageError::io("open", &name))?;
    let bytes = file.read_all().map_err(StorageError::io("read", &name))?;
    Ok(frame::scan(&name, &bytes, Some(0))?.bodies.len() > 1)
}
