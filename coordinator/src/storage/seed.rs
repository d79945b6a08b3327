//! Makes the folder of a member that begins with a state instead of an empty log.

use super::StorageError;
use super::open::Store;
use super::record::{Entry, Identity, Members, Payload, Position, SnapshotMeta, Vote};
use crate::env::{Env, run_blocking};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::oneshot;
use yard_common::id::{LeaderId, LogIndex};

/// Puts a state, and after it the entry that makes `members` the members, into a folder that has
/// nothing yet. `last` is what the state stands for; the log goes on after it.
///
/// # Errors
/// Those of the file system, or if the folder has anything in it.
pub(crate) async fn seed(
    env: &Arc<dyn Env>,
    path: &Path,
    identity: Identity,
    (last, state): (Position, Vec<u8>),
    members: Members,
) -> Result<(), StorageError> {
    let Store { log, snapshots, writer, guard, .. } = Store::open(env, path, identity).await?;
    let meta = SnapshotMeta { last, members: members.clone(), members_at: Some(last) };
    let written = run_blocking(&**env, move || {
        let mut writer = snapshots.create(meta)?;
        writer.write(&state)?;
        let snapshot = writer.finish()?;
        snapshots.adopt(&snapshot)
    });
    written.await?;
    // The first leader of the new log; nobody votes in a term that is over.
    let leader = LeaderId { term: last.leader.term + 1, member: identity.member };
    log.save_vote(Vote { leader, committed: false }).await?;
    log.purge(last).await?;
    let position = Position { leader, index: LogIndex(last.index.0 + 1) };
    let entry = Entry { position, payload: Payload::Members(members) };
    let (done, durable) = oneshot::channel();
    let done = move |outcome| {
        // Whoever waits is below.
        let _ = done.send(outcome);
    };
    log.append(vec![entry], Box::new(done)).await?;
    let outcome = durable.await.unwrap_or(Err(StorageError::Closed));
    drop(log);
    writer.await;
    drop(guard);
    outcome
}
