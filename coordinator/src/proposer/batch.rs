//! Commands on their way into one entry.

use super::handle::ProposeError;
use bytes::Bytes;
use minicbor::Encoder;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use yard_common::id::{LeaderId, RequestId};
use yard_common::limits::{BATCH_BYTES_MAX, BATCH_COMMANDS_MAX};
use yard_core::command::{Actor, Envelope, Rejection, Reply, Stamp};

/// What a caller learns.
pub(super) type Answer = Result<Result<Reply, Rejection>, ProposeError>;

/// A command that waits to be proposed.
pub(super) struct Proposal {
    pub(super) actor: Actor,
    pub(super) request: Option<RequestId>,
    /// The command, encoded by whoever asks.
    pub(super) command: Vec<u8>,
    pub(super) answer: oneshot::Sender<Answer>,
    /// Its share of the bytes that may wait.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// Who waits for the commands of an entry, in order.
pub(super) type Waiters = Vec<oneshot::Sender<Answer>>;

impl Proposal {
    /// Says that it was not proposed.
    pub(super) fn refuse(self, error: ProposeError) {
        // Whoever asked may be gone.
        let _ = self.answer.send(Err(error));
    }
}

/// As much as fits into an entry: the first proposal, and what waits behind it.
pub(super) fn gather(
    first: Proposal,
    queue: &mut mpsc::Receiver<Proposal>,
    left_over: &mut Option<Proposal>,
) -> Vec<Proposal> {
    let mut bytes = first.command.len();
    let mut batch = vec![first];
    while batch.len() < BATCH_COMMANDS_MAX
        && let Ok(next) = queue.try_recv()
    {
        if bytes + next.command.len() > BATCH_BYTES_MAX {
            *left_over = Some(next);
            break;
        }
        bytes += next.command.len();
        batch.push(next);
    }
    batch
}

/// The bytes of an entry: a list of pairs of envelope and command.
pub(super) fn encode(batch: Vec<Proposal>, leader: LeaderId, stamp: Stamp) -> (Bytes, Waiters) {
    let room: usize = batch.iter().map(|proposal| proposal.command.len() + 64).sum();
    let mut bytes = Vec::with_capacity(room);
    let mut waiters = Vec::with_capacity(batch.len());
    let infallible = "writing to memory does not fail";
    Encoder::new(&mut bytes).array(batch.len() as u64).expect(infallible);
    for Proposal { actor, request, command, answer, permit } in batch {
        let envelope = Envelope { actor, leader, stamp, request };
        Encoder::new(&mut bytes).array(2).expect(infallible);
        minicbor::encode(&envelope, &mut bytes).expect(infallible);
        bytes.extend_from_slice(&command);
        waiters.push(answer);
        drop(permit);
    }
    (bytes.into(), waiters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::MemberId;
    use yard_core::command::{Cluster, Command};

    fn proposal(command: &Command) -> Proposal {
        let (answer, _) = oneshot::channel();
        let command = minicbor::to_vec(command).unwrap();
        Proposal { actor: Actor::Leader, request: None, command, answer, permit: None }
    }

    #[test]
    fn an_entry_is_the_cbor_of_its_pairs() {
        let commands = [Command::Cluster(Cluster::Tick), Command::Cluster(Cluster::LeaderStarted)];
        let leader = LeaderId { term: 3, member: MemberId(2) };
        let stamp = Stamp { cluster_ms: 5, wall_ms: 7 };
        let (bytes, waiters) = encode(commands.iter().map(proposal).collect(), leader, stamp);
        assert_eq!(waiters.len(), 2);
        let envelope = Envelope { actor: Actor::Leader, leader, stamp, request: None };
        let pairs: Vec<(Envelope, Command)> =
            commands.into_iter().map(|command| (envelope.clone(), command)).collect();
        assert_eq!(bytes, minicbor::to_vec(&pairs).unwrap());
        assert_eq!(minicbor::decode::<Vec<(Envelope, Command)>>(&bytes).unwrap(), pairs);
    }

    #[test]
    fn an_entry_takes_what_fits() {
        let (send, mut queue) = mpsc::channel(2_000);
        let mut left_over = None;
        for _ in 0..BATCH_COMMANDS_MAX + 3 {
            send.try_send(proposal(&Command::Cluster(Cluster::Tick))).ok().unwrap();
        }
        let first = queue.try_recv().unwrap();
        assert_eq!(gather(first, &mut queue, &mut left_over).len(), BATCH_COMMANDS_MAX);
        let first = queue.try_recv().unwrap();
        assert_eq!(gather(first, &mut queue, &mut left_over).len(), 3);
        let big = || {
            let mut big = proposal(&Command::Cluster(Cluster::Tick));
            big.command = vec![0; BATCH_BYTES_MAX / 2 + 1];
            big
        };
        send.try_send(big()).ok().unwrap();
        assert_eq!(gather(big(), &mut queue, &mut left_over).len(), 1);
        assert!(left_over.is_some(), "it waits for the next entry");
    }
}
