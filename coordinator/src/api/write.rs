//! Writes: a command goes to the leader, whoever was asked, until it is known what came of it.

use super::Api;
use super::gate::Who;
use super::refusal::Refusal;
use crate::peers::{Asked, PeerError};
use crate::proposer::{Leadership, ProposeError};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Code;
use yard_common::ErrorCode;
use yard_common::id::{LogIndex, MemberId, RequestId};
use yard_common::limits::{COMMAND_BYTES_MAX, FORWARD_TRIES_MAX};
use yard_core::command::{Actor, Command, Rejection, Reply};
use yard_proto::convert;
use yard_proto::convert::error::Refused;
use yard_proto::v1;
use yard_proto::wire::{Forward, Forwarded};
use yard_runtime::backoff::Backoff;

/// How long a write may take, all tries together.
const PATIENCE: Duration = Duration::from_secs(10);
/// When to ask again while the disk is full, in milliseconds.
const DISK_FULL_MS: u64 = 5_000;

/// What came of a command, and where it stands in the log.
pub(super) struct Written {
    /// Everybody who has applied this sees it.
    pub(super) index: LogIndex,
    /// The answer.
    pub(super) reply: Reply,
}

/// What came of one try.
enum Try {
    Answered(LogIndex, Result<Reply, Rejection>),
    /// It had no effect; somebody else leads, or nobody.
    Elsewhere,
    /// It may have had an effect.
    Unknown,
    Refused(Refusal),
}

impl Api {
    /// Asks for a change as a user. The request id makes a retry harmless.
    pub(super) async fn change(
        &self,
        who: &Who,
        request_id: &[u8],
        command: Command,
    ) -> Result<Written, Refusal> {
        let user = who.user()?;
        self.write(Actor::User(user), request_id, command).await
    }

    /// The id of a request that the client gave none, since it may be asked again.
    pub(super) fn any_request_id(&self) -> bytes::Bytes {
        let bits = u128::from(self.env.random()) << 64 | u128::from(self.env.random());
        convert::request_id_bytes(RequestId::from_u128(bits))
    }

    /// Asks for a change that answers nothing.
    pub(super) async fn changed(
        &self,
        who: &Who,
        request_id: &[u8],
        command: Command,
    ) -> Result<v1::Changed, Refusal> {
        let written = self.change(who, request_id, command).await?;
        Ok(v1::Changed { applied_index: written.index.0 })
    }

    /// Asks for a change. It is applied here, too, when this returns.
    pub(super) async fn write(
        &self,
        actor: Actor,
        request_id: &[u8],
        command: Command,
    ) -> Result<Written, Refusal> {
        let request = convert::request_id(request_id)?;
        tokio::select! {
            // Nothing that is decided elsewhere from here on is heard of any more.
            () = self.stop.cancelled() => Err(stopping()),
            written = self.write_as(actor, request, command) => written,
        }
    }

    async fn write_as(
        &self,
        actor: Actor,
        request: RequestId,
        command: Command,
    ) -> Result<Written, Refusal> {
        let deadline = Instant::now() + PATIENCE;
        let answered = timeout_at(deadline, self.try_until_known(actor, request, command)).await;
        let (index, outcome) = answered.unwrap_or_else(|_| Err(unknown()))?;
        let reply = outcome.map_err(|rejection| Refusal::told(&rejection, &self.raft.state().1))?;
        // A state that is behind what was just answered would contradict it.
        match timeout_at(deadline, self.applied(index)).await {
            Ok(true) => Ok(Written { index, reply }),
            Ok(false) | Err(_) => Err(unknown()),
        }
    }

    async fn try_until_known(
        &self,
        actor: Actor,
        request: RequestId,
        command: Command,
    ) -> Result<(LogIndex, Result<Reply, Rejection>), Refusal> {
        let forward = Forward { actor, request: Some(request), command };
        let mut pause = Backoff::new(20, 500);
        let mut leadership = self.raft.leadership();
        let until = Instant::now() + self.pace.search();
        for _ in 0..FORWARD_TRIES_MAX {
            let now = *leadership.borrow_and_update();
            let mut later = leadership.clone();
            let tried = match now {
                Leadership::Leader { .. } => self.try_here(&forward).await,
                // A leader that is gone holds up nobody once there is another one.
                Leadership::Follower { leader: Some(leader) } => tokio::select! {
                    tried = timeout_at(until, self.try_at(leader, &forward)) => {
                        tried.unwrap_or(Try::Unknown)
                    }
                    _ = later.wait_for(|now| now.is_past(leader)) => Try::Unknown,
                },
                Leadership::Follower { leader: None } => Try::Elsewhere,
            };
            match tried {
                Try::Answered(index, outcome) => return Ok((index, outcome)),
                Try::Refused(refusal) => return Err(refusal),
                // The same request takes effect once, so that it can be asked again either way.
                Try::Elsewhere | Try::Unknown => {}
            }
            if Instant::now() >= until {
                break;
            }
            // Whether it changed or the time is over: the next try sees.
            let _ = timeout(pause.next(self.env.random()), leadership.changed()).await;
        }
        Err(unknown())
    }

    async fn try_here(&self, forward: &Forward) -> Try {
        let Forward { actor, request, command } = forward;
        match self.raft.propose(*actor, *request, command).await {
            Ok(outcome) => Try::Answered(self.raft.state().0, outcome),
            Err(ProposeError::NotLeader { .. }) => Try::Elsewhere,
            Err(ProposeError::Unknown) => Try::Unknown,
            Err(error @ ProposeError::TooLarge { .. }) => Try::Refused(too_large(&error)),
            Err(error @ ProposeError::Overloaded) => Try::Refused(busy(error.to_string(), 50)),
            Err(error @ ProposeError::DiskFull) => Try::Refused(disk_full(&error)),
            Err(error @ ProposeError::Stopped) => {
                Try::Refused(Refusal::unavailable(error.to_string()))
            }
        }
    }

    async fn try_at(&self, leader: MemberId, forward: &Forward) -> Try {
        // The leader would say so in the words of members.
        if let Err(refusal) = check_size(&forward.command) {
            return Try::Refused(refusal);
        }
        // One of an earlier version could not even read it.
        if self.raft.check_level(&forward.command).is_err() {
            // This member may not have heard yet of a raise that is acknowledged.
            if let Err(refusal) = self.fresh(LogIndex(0)).await {
                return Try::Refused(refusal);
            }
            if let Err(rejection) = self.raft.check_level(&forward.command) {
                return Try::Refused(rejection.into());
            }
        }
        let Some(address) = self.address_of(leader) else { return Try::Elsewhere };
        match self.peers.forward(leader, &address.address, forward).await {
            Ok(Asked::Answer(Forwarded { index, outcome })) => Try::Answered(index, outcome),
            Ok(Asked::NotLeader) | Err(PeerError::Address(_)) => Try::Elsewhere,
            Err(PeerError::Busy { retry_after_ms }) => {
                Try::Refused(busy("the leader is busy".into(), retry_after_ms))
            }
            Err(PeerError::Payload(error)) => Try::Refused(error.into()),
            Err(PeerError::Call(status)) if is_disk_full(&status) => {
                Try::Refused(disk_full(&ProposeError::DiskFull))
            }
            Err(error) => {
                tracing::debug!(%leader, %error, "a command was not forwarded");
                Try::Unknown
            }
        }
    }
}

/// Refuses what no leader would take.
fn check_size(command: &Command) -> Result<(), Refusal> {
    let bytes = minicbor::to_vec(command).map_or(usize::MAX, |bytes| bytes.len());
    if bytes > COMMAND_BYTES_MAX {
        return Err(too_large(&ProposeError::TooLarge { bytes }));
    }
    Ok(())
}

fn too_large(error: &ProposeError) -> Refusal {
    Refusal::new(Code::InvalidArgument, ErrorCode::LimitReached, error.to_string())
}

/// The disks have no room. It passes by itself once somebody has made some.
pub(super) fn disk_full(error: &ProposeError) -> Refusal {
    let message = format!("{error}; `yard cluster status` says on which coordinator");
    let refused = Refused::new(Code::ResourceExhausted, ErrorCode::DiskFull, message);
    refused.retry_after(DISK_FULL_MS).into()
}

fn is_disk_full(status: &tonic::Status) -> bool {
    Refused::read(status).reason == ErrorCode::DiskFull.to_string()
}

fn busy(message: String, retry_after_ms: u64) -> Refusal {
    Refused::plain(Code::ResourceExhausted, message).retry_after(retry_after_ms).into()
}

fn stopping() -> Refusal {
    Refusal::plain(
        Code::Unavailable,
        "this member is stopping; ask another one, as the same request",
    )
}

fn unknown() -> Refusal {
    Refusal::unavailable(
        "no leader answered in time; whether it takes effect is not known: ask again with the \
         same request id",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;
    use yard_common::id::JobId;
    use yard_core::command::JobCommand;

    #[test]
    fn what_no_leader_takes_is_refused_alike_everywhere() {
        let hold = |bytes| {
            let reason = "x".repeat(bytes);
            Command::Job(JobCommand::Hold { job: JobId(1), reason })
        };
        assert!(check_size(&hold(COMMAND_BYTES_MAX - 100)).is_ok());
        let refused = Status::from(check_size(&hold(COMMAND_BYTES_MAX)).unwrap_err());
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(Refused::read(&refused).reason, ErrorCode::LimitReached.to_string());
    }
}
