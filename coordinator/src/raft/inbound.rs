//! Messages that other members send.

use super::transport::Question;
use super::types::{
    Config, entry_to_raft, members_are_sound, position_to_ours, position_to_raft, vote_to_ours,
    vote_to_raft,
};
use super::wire::{
    AppendAsk, AppendSay, SnapshotAsk, SnapshotSay, TransferAsk, TransferSay, VoteAsk, VoteSay,
    pack,
};
use super::{RaftNode, machine};
use crate::env::run_blocking;
use crate::proposer::Room;
use crate::storage::{
    Payload, Position, SnapshotMeta, SnapshotWriter, Snapshots, StorageError, Vote,
};
use bytes::Bytes;
use minicbor::Decode;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    VoteRequest,
};
use std::fmt::Display;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::Mutex;
use yard_common::limits::MEMBER_MESSAGE_BYTES_MAX;

/// Why a message of a member got no answer.
#[derive(Debug, Error)]
pub enum AnswerError {
    /// It is too long.
    #[error("a message of {0} bytes; at most {MEMBER_MESSAGE_BYTES_MAX} are taken")]
    TooLong(usize),
    /// It does not make sense, or a newer version sent it.
    #[error("a message of a form that is not known: {0}")]
    Unknown(String),
    /// The disk has no room for it.
    #[error("the disk of this member is full")]
    Full,
    /// This member has stopped, or its disk refused.
    #[error("this member cannot answer: {0}")]
    Stopped(String),
}

/// The snapshot that is coming in.
#[derive(Clone)]
pub(super) struct Incoming {
    room: Room,
    snapshots: Snapshots,
    /// Locked while a piece is being written: all transfers have the same file.
    receiving: Arc<Mutex<Option<Receiving>>>,
}

struct Receiving {
    vote: Vote,
    meta: SnapshotMeta,
    next: u64,
    writer: SnapshotWriter,
}

fn unknown(error: impl Display) -> AnswerError {
    AnswerError::Unknown(error.to_string())
}

fn stopped(error: impl Display) -> AnswerError {
    AnswerError::Stopped(error.to_string())
}

/// A message. Positions before the first entry would not be one.
fn unpack<'b, T: Decode<'b, ()>>(body: &'b [u8]) -> Result<T, AnswerError> {
    if body.len() > MEMBER_MESSAGE_BYTES_MAX {
        return Err(AnswerError::TooLong(body.len()));
    }
    minicbor::decode(body).map_err(unknown)
}

fn check<'p>(positions: impl IntoIterator<Item = &'p Position>) -> Result<(), AnswerError> {
    let sound = positions.into_iter().all(|position| position.index.0 > 0);
    if sound { Ok(()) } else { Err(unknown("a position before the first entry")) }
}

/// Answers a message.
pub(super) async fn answer(
    raft: &RaftNode,
    incoming: &Incoming,
    question: Question,
    body: &[u8],
) -> Result<Bytes, AnswerError> {
    match question {
        Question::Append => {
            let ask: AppendAsk = unpack(body)?;
            // A heartbeat needs no room, and neither does a vote.
            if !ask.entries.is_empty() && !incoming.room.fits(body.len() as u64) {
                return Err(AnswerError::Full);
            }
            append(raft, ask).await
        }
        Question::Vote => vote(raft, unpack(body)?, false).await,
        Question::PreVote => vote(raft, unpack(body)?, true).await,
        Question::Snapshot => incoming.take(raft, unpack(body)?).await,
        Question::Transfer => transfer(raft, unpack(body)?).await,
        Question::Compare => Err(unknown("it is not for the consensus")),
    }
}

async fn append(raft: &RaftNode, ask: AppendAsk) -> Result<Bytes, AnswerError> {
    check(ask.previous.iter().chain(&ask.commit))?;
    check(ask.entries.iter().map(|entry| &entry.position))?;
    for entry in &ask.entries {
        if let Payload::Members(members) = &entry.payload
            && !members_are_sound(members)
        {
            return Err(unknown("members without an address"));
        }
    }
    let request = AppendEntriesRequest::<Config> {
        vote: vote_to_raft(ask.vote),
        prev_log_id: ask.previous.map(position_to_raft),
        entries: ask.entries.into_iter().map(entry_to_raft).collect(),
        leader_commit: ask.commit.map(position_to_raft),
    };
    let say = match raft.append_entries(request).await.map_err(stopped)? {
        AppendEntriesResponse::Success => AppendSay::All,
        AppendEntriesResponse::PartialSuccess(last) => {
            AppendSay::UpTo(last.as_ref().map(position_to_ours))
        }
        AppendEntriesResponse::Conflict => AppendSay::Conflict,
        AppendEntriesResponse::HigherVote(vote) => AppendSay::HigherVote(vote_to_ours(&vote)),
    };
    Ok(pack(&say))
}

async fn vote(raft: &RaftNode, ask: VoteAsk, would: bool) -> Result<Bytes, AnswerError> {
    check(&ask.last)?;
    let last = ask.last.map(position_to_raft);
    let mut request = VoteRequest::<Config>::new(vote_to_raft(ask.vote), last);
    request.leadership_transfer = ask.transfer;
    let response = match would {
        true => raft.pre_vote(request).await,
        false => raft.vote(request).await,
    };
    let response = response.map_err(stopped)?;
    let say = VoteSay {
        vote: vote_to_ours(&response.vote),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(position_to_ours),
    };
    Ok(pack(&say))
}

async fn transfer(raft: &RaftNode, ask: TransferAsk) -> Result<Bytes, AnswerError> {
    check(&ask.last)?;
    let last = ask.last.map(position_to_raft);
    let request = TransferLeaderRequest::<Config>::new(vote_to_raft(ask.from), ask.to.0, last);
    let position = |id: Option<_>| id.as_ref().map(position_to_ours);
    let say = match raft.handle_transfer_leader(request).await.map_err(stopped)? {
        Ok(()) => TransferSay::Yes,
        Err(TransferLeaderError::VoteChanged { expected, actual }) => TransferSay::OtherVote {
            expected: vote_to_ours(&expected),
            actual: vote_to_ours(&actual),
        },
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            TransferSay::NotFlushed { expected: position(expected), actual: position(actual) }
        }
    };
    Ok(pack(&say))
}

impl Incoming {
    pub(super) fn new(snapshots: Snapshots, room: Room) -> Incoming {
        Incoming { room, snapshots, receiving: Arc::new(Mutex::new(None)) }
    }

    /// Takes a piece of a snapshot.
    async fn take(&self, raft: &RaftNode, ask: SnapshotAsk) -> Result<Bytes, AnswerError> {
        check([&ask.meta.last].into_iter().chain(&ask.meta.members_at))?;
        if !members_are_sound(&ask.meta.members) {
            return Err(unknown("members without an address"));
        }
        let (vote, last, snapshots) = (ask.vote, ask.last, self.snapshots.clone());
        let mut slot = self.receiving.lock().await;
        let fits = |r: &Receiving| r.vote == vote && r.meta == ask.meta && r.next == ask.chunk;
        let receiving = slot.take().filter(fits);
        if receiving.is_none() && ask.chunk != 0 {
            return Ok(pack(&SnapshotSay::Again));
        }
        // One that has begun goes on: its own file is part of what takes the room.
        if receiving.is_none() && self.room.is_low() {
            return Err(AnswerError::Full);
        }
        let write = move || {
            let mut receiving = match receiving {
                Some(receiving) => receiving,
                None => {
                    let writer = snapshots.create(ask.meta.clone())?;
                    Receiving { vote, meta: ask.meta, next: 0, writer }
                }
            };
            receiving.writer.write(&ask.bytes)?;
            receiving.next += 1;
            Ok::<_, StorageError>(receiving)
        };
        let receiving = run_blocking(&**self.snapshots.env(), write).await.map_err(stopped)?;
        if !last {
            *slot = Some(receiving);
            return Ok(pack(&SnapshotSay::Next));
        }
        let finish = move || receiving.writer.finish();
        let snapshot = run_blocking(&**self.snapshots.env(), finish).await.map_err(stopped)?;
        drop(slot);
        let snapshot = machine::to_raft(snapshot);
        let installed = raft.install_full_snapshot(vote_to_raft(vote), snapshot).await;
        let vote = vote_to_ours(&installed.map_err(stopped)?.vote);
        Ok(pack(&SnapshotSay::Done(vote)))
    }
}
