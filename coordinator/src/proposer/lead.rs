//! The task that proposes, as long as this member leads.

use super::batch::{Answer, Proposal, Waiters, encode, gather};
use super::handle::ProposeError;
use super::room::Room;
use crate::env::Env;
use crate::raft::{Consensus, NotDone, Outcomes, Role, Roles, Shared};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use yard_common::id::{LeaderId, LogIndex, MemberId};
use yard_common::limits::BATCHES_IN_FLIGHT_MAX;
use yard_core::command::{Actor, Cluster, Command, Rejection, Stamp};

/// How often a leader looks whether a majority still answers it.
const LEASE_LOOK: Duration = Duration::from_millis(200);
/// So many looks without an answer, one after the other, and the leader is cut off: longer than
/// the disks of others usually make it wait.
const CUT_OFF_LOOKS: u32 = 8;
/// Pause before a leader tries again to commit its first entry: it has no lease before a majority
/// has answered it, and until then nobody can write.
const BARRIER_AGAIN: Duration = Duration::from_millis(5);

/// Who leads, as far as this member knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This member leads, and its first entry is applied: the work of a leader may begin.
    Leader {
        /// Its id. What it does ends with this id.
        id: LeaderId,
        /// Where its first entry is.
        barrier: LogIndex,
        /// The time that it stamps commands with.
        clock: LeaderClock,
    },
    /// Another member leads, or nobody, or this one and does not work yet.
    Follower {
        /// The leader, if it is known and another.
        leader: Option<MemberId>,
    },
}

impl Leadership {
    /// Whether it is known that another member than this one leads: what this one was asked it may
    /// never answer.
    #[must_use]
    pub fn is_past(&self, leader: MemberId) -> bool {
        match self {
            Leadership::Leader { .. } => true,
            Leadership::Follower { leader: Some(now) } => *now != leader,
            Leadership::Follower { leader: None } => false,
        }
    }
}

/// The cluster's time, as its leader counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderClock {
    /// The cluster's time when the leader began to work.
    base_ms: u64,
    /// The leader's boot clock then.
    boot_ms: u64,
}

impl LeaderClock {
    /// The cluster's time, when the boot clock shows this.
    #[must_use]
    pub fn cluster_ms(&self, boot_ms: u64) -> u64 {
        self.base_ms.saturating_add(boot_ms.saturating_sub(self.boot_ms))
    }
}

/// What this member leads as.
struct Lead {
    id: LeaderId,
    /// None before its first entry is applied.
    clock: Option<LeaderClock>,
}

/// An entry whose fate is known.
struct Landed {
    leader: LeaderId,
    bytes: u64,
    waiters: Option<Waiters>,
    outcome: Result<(LogIndex, Outcomes), NotDone>,
}

/// The task.
pub(super) struct Proposer {
    pub(super) consensus: Consensus,
    pub(super) env: Arc<dyn Env>,
    pub(super) shared: Shared,
    pub(super) room: Room,
    pub(super) queue: mpsc::Receiver<Proposal>,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) stop: CancellationToken,
}

/// What changes while the task runs.
struct Running {
    proposer: Proposer,
    roles: Roles,
    lead: Option<Lead>,
    known: Option<MemberId>,
    /// A proposal that did not fit into the last entry.
    left_over: Option<Proposal>,
    in_flight: FuturesUnordered<BoxFuture<'static, Landed>>,
    /// Bytes of these entries: the log may not know yet that they are to be written.
    in_flight_bytes: u64,
    /// Looks at which no majority answered, one after the other.
    unanswered: u32,
}

impl Proposer {
    /// Runs until it is stopped.
    pub(super) async fn run(self) {
        let roles = self.consensus.roles();
        let in_flight = FuturesUnordered::new();
        let mut running = Running {
            proposer: self,
            roles,
            lead: None,
            known: None,
            left_over: None,
            in_flight,
            in_flight_bytes: 0,
            unanswered: 0,
        };
        running.follow_role().await;
        running.work().await;
        running.end();
    }
}

impl Running {
    async fn work(&mut self) {
        let stop = self.proposer.stop.clone();
        let mut looks = interval(LEASE_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Who was elected and may not work yet lets callers wait a moment.
            let takes = match &self.lead {
                None => true,
                Some(lead) => lead.clock.is_some() && self.in_flight.len() < BATCHES_IN_FLIGHT_MAX,
            };
            let queue = &mut self.proposer.queue;
            let left_over = &mut self.left_over;
            let next = async move {
                match left_over.take() {
                    Some(proposal) => Some(proposal),
                    None => queue.recv().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                more = self.roles.changed() => match more {
                    true => self.follow_role().await,
                    false => return,
                },
                _ = looks.tick(), if self.lead.is_some() || !self.in_flight.is_empty() => {
                    self.refuse_if_cut_off(takes);
                }
                Some(landed) = self.in_flight.next() => self.land(landed).await,
                proposal = next, if takes => match proposal {
                    Some(proposal) => self.take(proposal).await,
                    None => return,
                },
            }
        }
    }

    /// The role may have changed.
    async fn follow_role(&mut self) {
        match self.roles.current() {
            Role::Leads(id) if self.lead.as_ref().is_some_and(|lead| lead.id == id) => (),
            Role::Leads(id) => {
                self.lead = Some(Lead { id, clock: None });
                self.unanswered = 0;
                self.announce(None, None);
                self.raise_barrier(id, Duration::ZERO);
            }
            Role::Follows(known) => {
                self.lead = None;
                self.known = known;
                self.announce(None, known);
            }
        }
    }

    /// A leader that no majority answers goes on leading, for all it knows; one that was deposed
    /// may not hear from its successor what became of its entries. Who waits for it should ask
    /// elsewhere: those behind commands that it cannot commit at once, and those whose commands
    /// are on their way when it is clear that it is cut off. These may take effect yet.
    fn refuse_if_cut_off(&mut self, takes: bool) {
        if self.proposer.consensus.holds_lease() {
            self.unanswered = 0;
            return;
        }
        self.unanswered += 1;
        let is_cut_off = self.unanswered >= CUT_OFF_LOOKS;
        if !takes || is_cut_off {
            let left_over = self.left_over.take();
            let waiting = std::iter::from_fn(|| self.proposer.queue.try_recv().ok());
            for proposal in left_over.into_iter().chain(waiting) {
                proposal.refuse(ProposeError::NotLeader { hint: None });
            }
        }
        let may_work_yet = self.lead.as_ref().is_some_and(|lead| lead.clock.is_none());
        if is_cut_off && !may_work_yet {
            // Whoever waits hears that nobody can say yet what comes of it.
            self.in_flight.clear();
            self.in_flight_bytes = 0;
        }
    }

    fn announce(&self, leads: Option<(LeaderId, LogIndex, LeaderClock)>, known: Option<MemberId>) {
        let now = match leads {
            Some((id, barrier, clock)) => Leadership::Leader { id, barrier, clock },
            None => Leadership::Follower { leader: known },
        };
        self.proposer.leadership.send_if_modified(|told| {
            let news = *told != now;
            *told = now;
            news
        });
    }

    fn stamp(&self, clock: Option<&LeaderClock>) -> Stamp {
        let env = &self.proposer.env;
        let cluster_ms = match clock {
            Some(clock) => clock.cluster_ms(env.boot_ms()),
            None => self.proposer.shared.state().1.now_ms(),
        };
        Stamp { cluster_ms, wall_ms: env.wall_ms() }
    }

    /// Proposes the first entry of this leader.
    fn raise_barrier(&mut self, leader: LeaderId, pause: Duration) {
        let (answer, _) = oneshot::channel();
        let command = minicbor::to_vec(Command::Cluster(Cluster::LeaderStarted));
        let command = command.expect("writing to memory does not fail");
        let barrier =
            Proposal { actor: Actor::Leader, request: None, command, answer, permit: None };
        let (bytes, _) = encode(vec![barrier], leader, self.stamp(None));
        let consensus = self.proposer.consensus.clone();
        let land = async move {
            tokio::time::sleep(pause).await;
            let outcome = match consensus.propose(leader, bytes).await {
                Ok(proposed) => proposed.outcome().await,
                Err(error) => Err(error),
            };
            Landed { leader, bytes: 0, waiters: None, outcome }
        };
        self.in_flight.push(land.boxed());
    }

    /// Proposes a command, and those that wait behind it.
    async fn take(&mut self, first: Proposal) {
        let Some(Lead { id, clock }) = &self.lead else {
            return first.refuse(ProposeError::NotLeader { hint: self.known });
        };
        let (leader, stamp) = (*id, self.stamp(clock.as_ref()));
        // On a disk that is almost full one that does not fit must not take others with it.
        let batch = match self.proposer.room.is_low() {
            true => vec![first],
            false => gather(first, &mut self.proposer.queue, &mut self.left_over),
        };
        let (bytes, waiters) = encode(batch, leader, stamp);
        let len = bytes.len() as u64;
        if !self.proposer.room.fits(self.in_flight_bytes + len) {
            return answer_all(waiters, ProposeError::DiskFull);
        }
        match self.proposer.consensus.propose(leader, bytes).await {
            Ok(proposed) => {
                let land = async move {
                    let outcome = proposed.outcome().await;
                    Landed { leader, bytes: len, waiters: Some(waiters), outcome }
                };
                self.in_flight_bytes += len;
                self.in_flight.push(land.boxed());
            }
            Err(error) => answer_all(waiters, explain(error, None)),
        }
    }

    /// The fate of an entry is known.
    async fn land(&mut self, landed: Landed) {
        let Landed { leader, bytes, waiters, outcome } = landed;
        let known = self.known;
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
        match (waiters, outcome) {
            (Some(waiters), Ok((_, outcomes))) => {
                assert_eq!(waiters.len(), outcomes.len(), "every command has an outcome");
                for (waiter, outcome) in waiters.into_iter().zip(outcomes) {
                    // Whoever asked may be gone.
                    let _ = waiter.send(translate(outcome, known));
                }
            }
            (Some(waiters), Err(error)) => answer_all(waiters, explain(error, known)),
            (None, outcome) => self.barrier_landed(leader, outcome),
        }
    }

    fn barrier_landed(&mut self, leader: LeaderId, outcome: Result<(LogIndex, Outcomes), NotDone>) {
        let Some(lead) = self.lead.as_mut().filter(|lead| lead.id == leader) else { return };
        let state = self.proposer.shared.state().1;
        let started = state.leader == Some(leader);
        match outcome {
            // Refused, and yet there: an earlier try was not lost after all.
            Ok((barrier, _)) if started => {
                let boot_ms = self.proposer.env.boot_ms();
                let clock = LeaderClock { base_ms: state.now_ms(), boot_ms };
                lead.clock = Some(clock);
                tracing::info!(%leader, %barrier, "leads");
                self.announce(Some((leader, barrier, clock)), None);
            }
            Ok(_) | Err(NotDone::Stopped) => (),
            // It may lack its lease for a moment; if it leads no more, the role says so.
            Err(NotDone::NotLeader(_) | NotDone::Unknown) => {
                self.raise_barrier(leader, BARRIER_AGAIN);
            }
        }
    }

    /// Answers everyone who still waits.
    fn end(mut self) {
        self.announce(None, None);
        self.proposer.queue.close();
        let left_over = self.left_over.take();
        let waiting = std::iter::from_fn(|| self.proposer.queue.try_recv().ok());
        for proposal in left_over.into_iter().chain(waiting) {
            proposal.refuse(ProposeError::Stopped);
        }
        // What is in flight may take effect yet; its waiters see that nobody will tell them.
    }
}

/// Why an entry was not proposed, as its callers see it.
fn explain(error: NotDone, known: Option<MemberId>) -> ProposeError {
    match error {
        NotDone::NotLeader(hint) => ProposeError::NotLeader { hint: hint.or(known) },
        NotDone::Unknown => ProposeError::Unknown,
        NotDone::Stopped => ProposeError::Stopped,
    }
}

fn answer_all(waiters: Waiters, error: ProposeError) {
    for waiter in waiters {
        // Whoever asked may be gone.
        let _ = waiter.send(Err(error));
    }
}

/// An outcome as its caller sees it.
fn translate(
    outcome: Result<yard_core::command::Reply, Rejection>,
    known: Option<MemberId>,
) -> Answer {
    match outcome {
        // It came after the first entry of another leader, and had no effect.
        Err(Rejection::StaleLeader) => Err(ProposeError::NotLeader { hint: known }),
        outcome => Ok(outcome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_core::command::Reply;

    #[test]
    fn a_command_that_came_after_another_leader_had_no_effect() {
        let known = Some(MemberId(2));
        let stale = translate(Err(Rejection::StaleLeader), known);
        assert_eq!(stale, Err(ProposeError::NotLeader { hint: known }));
        assert_eq!(translate(Err(Rejection::BadToken), known), Ok(Err(Rejection::BadToken)));
        assert_eq!(translate(Ok(Reply::Done), known), Ok(Ok(Reply::Done)));
    }

    #[test]
    fn the_clusters_time_never_falls() {
        let clock = LeaderClock { base_ms: 100, boot_ms: 7_000 };
        assert_eq!((clock.cluster_ms(7_050), clock.cluster_ms(6_000)), (150, 100));
        assert_eq!(clock.cluster_ms(u64::MAX), u64::MAX - 6_900);
    }
}
