//! A backup of the cluster, for whoever may have the keys of its CAs.
//!
//! Any member writes it: of the state as it is after everything that was answered before. It is
//! encoded from a clone, one piece ahead of whoever reads it.

use super::Api;
use super::gate::Who;
use super::refusal::Refusal;
use crate::backup::{self, BackupHead};
use crate::env::run_blocking;
use crate::sessions::Answers;
use crate::storage::Position;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::Status;
use yard_common::id::{LeaderId, LogIndex, MemberId};
use yard_common::limits::{BACKUP_PIECES_MAX, BACKUPS_MAX};
use yard_core::state::State;
use yard_proto::v1;

impl Api {
    pub(super) async fn save_snapshot(
        &self,
        who: &Who,
        _: v1::SaveSnapshotRequest,
    ) -> Result<Answers<v1::SnapshotPiece>, Refusal> {
        self.authority()?;
        let turn = Arc::clone(&self.backups).try_acquire_owned().map_err(|_| {
            let message = format!("{BACKUPS_MAX} backup is being written by this member already");
            Refusal::unavailable(message)
        })?;
        self.fresh(LogIndex(0)).await?;
        let (index, state) = self.raft.state();
        let head = self.backup_head(index, &state);
        tracing::info!(user = %who.user()?, %index, "a backup of the cluster is handed out");
        let (pieces, mut queue) = mpsc::channel::<Bytes>(BACKUP_PIECES_MAX);
        let api = self.clone();
        let write = move || {
            // Held by the thread that writes: whoever asked may be gone long before it notices.
            let _turn = turn;
            let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
            let sink = |piece: Vec<u8>| pieces.blocking_send(piece.into()).map_err(gone);
            let authority = api.authority.as_ref().ok_or(io::ErrorKind::NotFound)?;
            backup::write(&head, authority, &state, sink)
        };
        let env = Arc::clone(&self.env);
        let written = async move { run_blocking::<(), io::Error>(&*env, write).await };
        let failed = stream::once(written.boxed()).filter_map(async |written| {
            let error = written.err()?;
            Some(Err(Status::unavailable(format!("the backup was not completed: {error}"))))
        });
        let pieces = stream::poll_fn(move |context| queue.poll_recv(context));
        let pieces = pieces.map(|data| Ok(v1::SnapshotPiece { data }));
        let stop = self.stop.clone();
        let ends = async move { stop.cancelled().await };
        let all = stream::select(pieces, failed).take_until(Box::pin(ends));
        Ok(self.while_admitted(who, None, Box::pin(all)))
    }

    fn backup_head(&self, index: LogIndex, state: &State) -> BackupHead {
        let none = LeaderId { term: 0, member: MemberId(0) };
        let peers = self.raft.peers().into_iter();
        let jobs = state.jobs.len() as u64;
        BackupHead {
            cluster: self.cluster,
            incarnation: state.incarnation,
            last: Position { leader: state.leader.unwrap_or(none), index },
            wall_ms: self.env.wall_ms(),
            version: self.build.version.into(),
            feature_level: state.feature_level,
            members: peers.map(|(id, peer)| (id, peer.address)).collect(),
            jobs,
            jobs_live: jobs.saturating_sub(state.ended.len() as u64),
            nodes: state.nodes.len() as u64,
        }
    }
}
