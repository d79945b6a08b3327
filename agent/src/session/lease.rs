//! Renewals: the node's lease, with every member, before anything else.
//!
//! One task owns the holder and makes the renewals; each member has a task and a connection of its
//! own, which takes the newest renewal whenever it is free. So a member that does not answer
//! delays nobody, and misses renewals instead of piling them up.
//!
//! **Invariants:** an answer counts for the member that the connection belongs to, and for no
//! other, whatever it says. Deadlines go to the driver when they change, the newest one at once.

use super::link;
use super::roster::Roster;
use crate::sys::boot_ms;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use yard_common::id::{LeaseId, MemberId};
use yard_common::limits::STREAM_QUEUE_LEN_MAX;
use yard_core::agent::Lease;
use yard_core::lease::{Ack, Deadline, Holder, LeaseTimes, Refusal, Renewal};
use yard_proto::internal::{RenewRequest, renew_response::Answer};
use yard_proto::wire::{Payload, PayloadError};
use yard_runtime::identity::Principal;
use yard_runtime::shutdown::{CancellationToken, Tasks};
use yard_runtime::tls::{ClientTls, Expect};

/// How long a member may take to answer. It is far below a lease, so that a connection that hangs
/// is replaced while the lease still lives.
const ANSWER: Duration = Duration::from_millis(1_000);
/// How soon a member is asked again that is busy with a change of the membership.
const UNSETTLED: Duration = Duration::from_millis(50);
/// How long a kill may take to reach the last process, as in the default times.
const KILL_MS: u64 = 200;
/// How long the tasks of members may take to end.
const GRACE: Duration = Duration::from_secs(1);

/// The times of a lease of this length; those of the design if no lease can be so long.
pub(crate) fn times_of(lease_ms: u64) -> LeaseTimes {
    // Six renewals to a lease, as in the default: two may be lost.
    LeaseTimes::new(lease_ms, lease_ms / 6, KILL_MS).unwrap_or_else(|error| {
        tracing::warn!(%error, "the length of the lease is refused");
        LeaseTimes::DEFAULT
    })
}

/// The lease, if it is held now.
pub(crate) fn held_now(lease: &Lease) -> Option<LeaseId> {
    (boot_ms() < lease.strict_ms).then_some(lease.id)
}

/// The deadlines of a lease for which no majority has answered yet.
pub(crate) fn not_held(id: LeaseId) -> Lease {
    Lease { id, strict_ms: 0, fenced_ms: 0, tolerant_ms: 0, maintenance_ms: 0 }
}

/// The node goes over to another lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Succession {
    pub(crate) lease: LeaseId,
    pub(crate) times: LeaseTimes,
}

/// What a member said to a renewal.
#[derive(Debug)]
struct Said {
    member: MemberId,
    answer: Result<Ack, Refusal>,
}

/// What keeps the lease.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) holder: Holder,
    pub(crate) times: LeaseTimes,
    pub(crate) tls: Arc<ClientTls>,
    pub(crate) roster: watch::Receiver<Roster>,
    /// Raised with each new certificate: connections are made anew.
    pub(crate) certificate: watch::Receiver<u64>,
    pub(crate) successions: mpsc::Receiver<Succession>,
    /// What the holder has reached.
    pub(crate) held: watch::Sender<Lease>,
}

/// The task of one member.
#[derive(Debug)]
struct Tended {
    address: String,
    stop: CancellationToken,
}

impl Keeper {
    /// Renews until it is stopped.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let renewals = watch::Sender::new(self.holder.renewal(boot_ms()));
        let (answers, mut said) = mpsc::channel(STREAM_QUEUE_LEN_MAX);
        let mut tasks = Tasks::new(stop.child_token());
        let mut tended = BTreeMap::new();
        let mut ticks = ticks(&self.times);
        self.tend(&mut tended, &mut tasks, &renewals, &answers);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = ticks.tick() => {
                    renewals.send_replace(self.holder.renewal(boot_ms()));
                }
                Some(succession) = self.successions.recv() => {
                    self.holder.succeed(succession.lease, succession.times);
                    self.publish();
                    if self.holder.lease() == succession.lease {
                        self.times = succession.times;
                        ticks = self::ticks(&self.times);
                    }
                }
                Some(said) = said.recv() => self.hear(said),
                changed = self.roster.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.tend(&mut tended, &mut tasks, &renewals, &answers);
                }
                Some(ended) = tasks.next_ended() => {
                    tracing::debug!(task = ended.name, outcome = ?ended.outcome, "a task ended");
                }
            }
        }
        for late in tasks.stop(GRACE).await {
            tracing::warn!(task = late.name, outcome = ?late.outcome, "a task did not end");
        }
    }

    /// Sees to it that each member of the list has its task, and nobody else.
    fn tend(
        &mut self,
        tended: &mut BTreeMap<MemberId, Tended>,
        tasks: &mut Tasks,
        renewals: &watch::Sender<Renewal>,
        answers: &mpsc::Sender<Said>,
    ) {
        let roster = self.roster.borrow_and_update().clone();
        tended.retain(|id, task| {
            let stays = roster.members.iter().any(|(m, at)| m == id && *at == task.address);
            if !stays {
                task.stop.cancel();
            }
            stays
        });
        for (member, address) in roster.members {
            if tended.contains_key(&member) {
                continue;
            }
            let stop = tasks.token().child_token();
            let mut renewals = renewals.subscribe();
            // The present one is for it as well.
            renewals.mark_changed();
            let line = Line {
                member,
                address: address.clone(),
                tls: self.tls.clone(),
                renewals,
                certificate: self.certificate.clone(),
                answers: answers.clone(),
                client: None,
                answered: None,
            };
            tasks.spawn("renewals with a member", line.run(stop.clone()));
            tended.insert(member, Tended { address, stop });
        }
    }

    fn hear(&mut self, said: Said) {
        match said.answer {
            Ok(ack) if ack.member != said.member => {
                tracing::warn!(member = %said.member, "it answers in another's name");
            }
            Ok(ack) => {
                if self.holder.on_ack(&ack, boot_ms()) {
                    self.publish();
                }
            }
            // The member's task asks again by itself.
            Err(Refusal::Unsettled) => {}
            Err(refusal) => {
                tracing::debug!(member = %said.member, ?refusal, "a renewal is refused");
            }
        }
    }

    fn publish(&self) {
        let deadline_ms = |deadline| self.holder.deadline_ms(deadline).unwrap_or(0);
        let new = Lease {
            id: self.holder.lease(),
            strict_ms: deadline_ms(Deadline::Strict),
            fenced_ms: deadline_ms(Deadline::Fenced),
            tolerant_ms: deadline_ms(Deadline::Tolerant),
            maintenance_ms: 0,
        };
        self.held.send_if_modified(|held| {
            let changed = *held != new;
            *held = new;
            changed
        });
    }
}

fn ticks(times: &LeaseTimes) -> tokio::time::Interval {
    let mut ticks = interval(Duration::from_millis(times.renew_ms()));
    // After a pause of the machine one renewal is as good as the many that were missed.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Renewals with one member.
struct Line {
    member: MemberId,
    address: String,
    tls: Arc<ClientTls>,
    renewals: watch::Receiver<Renewal>,
    certificate: watch::Receiver<u64>,
    answers: mpsc::Sender<Said>,
    client: Option<link::Client>,
    /// Whether the last renewal was answered; none before the first.
    answered: Option<bool>,
}

/// Why a renewal has no answer.
#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error("the address is none")]
    Address(#[from] yard_runtime::tls::ConnectError),
    #[error("it does not answer within {} ms", ANSWER.as_millis())]
    Late,
    #[error("{}", link::told(.0))]
    Status(Box<tonic::Status>),
    #[error("its answer cannot be read: {0}")]
    Payload(#[from] PayloadError),
    #[error("its answer is empty")]
    Empty,
}

impl Line {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.renewals.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            let renewed = tokio::select! {
                () = stop.cancelled() => return,
                renewed = self.renew() => renewed,
            };
            self.note(renewed.as_ref().err());
            let Ok(answer) = renewed else {
                // Whatever is wrong with the connection, the next one is another.
                self.client = None;
                continue;
            };
            if answer == Err(Refusal::Unsettled) {
                self.renewals.mark_changed();
                sleep(UNSETTLED).await;
            }
            let said = Said { member: self.member, answer };
            if self.answers.send(said).await.is_err() {
                return;
            }
        }
    }

    async fn renew(&mut self) -> Result<Result<Ack, Refusal>, RenewError> {
        if self.certificate.has_changed().unwrap_or(false) {
            self.certificate.mark_unchanged();
            self.client = None;
        }
        let client = match &mut self.client {
            Some(client) => client,
            None => {
                let expect = Expect::Only(Principal::Member(self.member));
                self.client.insert(link::client(&self.address, &self.tls, expect)?)
            }
        };
        let renewal = *self.renewals.borrow_and_update();
        let request = RenewRequest { renewal: renewal.to_payload()? };
        let answered = timeout(ANSWER, client.renew(request)).await;
        let answered = answered.map_err(|_| RenewError::Late)?;
        let response = answered.map_err(|status| RenewError::Status(Box::new(status)))?;
        match response.into_inner().answer.ok_or(RenewError::Empty)? {
            Answer::Ack(bytes) => Ok(Ok(Ack::from_payload(&bytes)?)),
            Answer::Refusal(bytes) => Ok(Err(Refusal::from_payload(&bytes)?)),
        }
    }

    /// Tells of the first answer, the first silence, and nothing in between.
    fn note(&mut self, error: Option<&RenewError>) {
        let answers = error.is_none();
        if self.answered.replace(answers) == Some(answers) {
            return;
        }
        let (member, address) = (self.member, &self.address);
        match error {
            None => tracing::info!(%member, address, "renewals are answered"),
            Some(error) => tracing::warn!(%member, address, %error, "renewals are not answered"),
        }
    }
}
