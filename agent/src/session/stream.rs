//! One control stream: from its first word to its end.
//!
//! **Invariants:** batches of reports are numbered from 1 and go out in order. Desired sets are
//! obeyed one after another; while one is being written, pings go on. What cannot be read ends the
//! stream and changes nothing.

use super::data::DataCalls;
use super::lease::{Succession, held_now, times_of};
use super::memory::LeaseFile;
use super::told::wall_ms;
use super::{Fatal, Shared, data, detail, health, link};
use crate::driver::DriverError;
use crate::launch::Assignment;
use crate::setup::Heard;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use yard_common::condition::ConditionKind;
use yard_common::id::{Incarnation, Sequence};
use yard_common::limits::{
    CLOCK_OFF_MS, DETAILS_AHEAD_BYTES_MAX, NODE_ASSIGNMENTS_MAX, REPORTS_PER_BATCH_MAX,
    STREAM_QUEUE_LEN_MAX,
};
use yard_core::agent::{AssignmentId, Desired, Report};
use yard_core::command::Inventory;
use yard_proto::convert::setup_told;
use yard_proto::internal;
use yard_proto::internal::agent_message::What as Out;
use yard_proto::internal::coordinator_message::What as In;
use yard_proto::internal::{
    AgentMessage, CoordinatorMessage, Goodbye, Hello, Ping, Reports, Welcome,
};
use yard_proto::v1;
use yard_proto::wire::{Payload, PayloadError};
use yard_runtime::identity::Tree;
use yard_runtime::tls::Expect;

/// How long a member may take until it answers the first word.
const WELCOME: Duration = Duration::from_millis(1_500);
/// How often the agent says that it still is there.
const PING: Duration = Duration::from_millis(500);
/// How often the agent tells what its machine is like, at most.
const FACTS: Duration = Duration::from_secs(5);
/// Silence after which the leader counts as gone: two pings may be lost in a slow moment.
const SILENCE: Duration = Duration::from_millis(1_500);

/// Why a stream ended.
#[derive(Debug, Error)]
pub(super) enum StreamError {
    /// The address cannot be any.
    #[error("the address is none: {0}")]
    Address(#[from] yard_runtime::tls::ConnectError),
    /// Nobody took it.
    #[error("{}", link::told(.0))]
    Status(Box<tonic::Status>),
    /// The member says that it is over.
    #[error("{}", goodbye(.0))]
    Goodbye(Goodbye),
    /// The leader is gone.
    #[error("the leader is silent")]
    Silent,
    /// It was closed.
    #[error("the stream was closed")]
    Closed,
    /// The member is of a life of the cluster that is over: a backup was restored since.
    #[error(
        "the member is of life {found} of the cluster, and this node obeys life {obeyed}: a \
             backup was restored since"
    )]
    FormerLife {
        /// The life of the member.
        found: Incarnation,
        /// The life that the node obeys.
        obeyed: Incarnation,
    },
    /// A message without anything in it, or before its time.
    #[error("the leader broke the protocol: {0}")]
    Protocol(&'static str),
    /// A message that cannot be read.
    #[error("the leader sent what cannot be read: {0}")]
    Payload(#[from] PayloadError),
    /// A setup that breaks a bound.
    #[error("the leader sent a setup that breaks a bound: {0}")]
    Setup(String),
    /// Too much ahead of a set.
    #[error("the details ahead of a set have {0} bytes, at most {DETAILS_AHEAD_BYTES_MAX}")]
    Details(usize),
    /// A set that the driver refuses.
    #[error("the set is refused: {0}")]
    Refused(DriverError),
    /// The driver has given the stream up.
    #[error("the stream does not take the reports that it asked for")]
    Slow,
    /// The certificate is another, and the stream is opened anew with it.
    #[error("the certificate has changed")]
    Certificate,
    /// The agent cannot go on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

fn goodbye(goodbye: &Goodbye) -> String {
    let reason = if goodbye.reason.is_empty() { "no reason given" } else { &goodbye.reason };
    format!("the member says goodbye: {reason}")
}

impl From<DriverError> for StreamError {
    fn from(error: DriverError) -> StreamError {
        match error {
            DriverError::Ended | DriverError::Store(_) => StreamError::Fatal(Fatal::Driver),
            // Nothing of the set was taken, and the leader tells it again.
            error => StreamError::Refused(error),
        }
    }
}

/// A set on its way through the driver.
type Obeying = Pin<Box<dyn Future<Output = Result<(), StreamError>> + Send>>;

/// An open stream.
struct Stream<'a> {
    shared: &'a Arc<Shared>,
    calls: &'a mut DataCalls,
    out: mpsc::Sender<AgentMessage>,
    /// Opened by the first welcome.
    reports: Option<mpsc::Receiver<Report>>,
    /// A batch that waits for room.
    batch: Option<Vec<Report>>,
    /// Batches that were sent.
    sent: u64,
    lease_ms: u64,
    /// The life of the cluster that the member is of.
    life: Incarnation,
    /// When the machine was last told of.
    facts_at: Option<Instant>,
    /// Details that came ahead of their set, with their bytes.
    ahead: BTreeMap<AssignmentId, Assignment>,
    ahead_bytes: usize,
}

/// Opens a stream to the member at an address and serves it to its end. `welcomed` is when the
/// leader took it.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    calls: &mut DataCalls,
    address: &str,
    welcomed: &mut Option<Instant>,
) -> StreamError {
    let (out, queue) = mpsc::channel(STREAM_QUEUE_LEN_MAX);
    let mut stream = Stream {
        shared,
        calls,
        out,
        reports: None,
        batch: None,
        sent: 0,
        lease_ms: yard_common::limits::LEASE_MS,
        life: Incarnation(0),
        facts_at: None,
        ahead: BTreeMap::new(),
        ahead_bytes: 0,
    };
    // From before the first word on: whatever changes later is told, or ends the stream.
    let mut news = News::of(shared);
    match stream.open(address, queue).await {
        Ok(mut inbound) => match stream.work(&mut inbound, &mut news, welcomed).await {
            Ok(never) => match never {},
            Err(error) => error,
        },
        Err(error) => error,
    }
}

/// What may change while a stream is open.
struct News {
    inventory: watch::Receiver<Inventory>,
    certificate: watch::Receiver<u64>,
    facts: watch::Receiver<v1::NodeFacts>,
}

impl News {
    fn of(shared: &Shared) -> News {
        let (mut inventory, mut certificate) =
            (shared.inventory.clone(), shared.certificate.clone());
        inventory.mark_unchanged();
        certificate.mark_unchanged();
        // They are told once the stream is welcome.
        let mut facts = shared.facts.clone();
        facts.mark_changed();
        News { inventory, certificate, facts }
    }
}

impl Stream<'_> {
    async fn open(
        &mut self,
        address: &str,
        queue: mpsc::Receiver<AgentMessage>,
    ) -> Result<Streaming<CoordinatorMessage>, StreamError> {
        let mut client = link::client(address, &self.shared.tls, Expect::Any(Tree::Member))?;
        // The first word is there before the stream is: whoever serves it may wait for it.
        let hello = self.hello()?;
        self.out.try_send(hello).map_err(|_| StreamError::Closed)?;
        let opened = timeout(WELCOME, client.control(ReceiverStream::new(queue))).await;
        let opened = opened.map_err(|_| StreamError::Silent)?;
        opened.map(tonic::Response::into_inner).map_err(|s| StreamError::Status(Box::new(s)))
    }

    /// Works until the stream ends.
    async fn work(
        &mut self,
        inbound: &mut Streaming<CoordinatorMessage>,
        news: &mut News,
        welcomed: &mut Option<Instant>,
    ) -> Result<std::convert::Infallible, StreamError> {
        let (mut pings, mut heard) = (pings(), Instant::now());
        let mut obeying: Option<Obeying> = None;
        let out = self.out.clone();
        loop {
            let patience = if welcomed.is_some() { SILENCE } else { WELCOME };
            tokio::select! {
                done = async { obeying.as_mut().expect("asked for above").await },
                    if obeying.is_some() =>
                {
                    obeying = None;
                    done?;
                    // While the set was written, nobody listened.
                    heard = Instant::now();
                }
                message = inbound.message(), if obeying.is_none() => {
                    let message = message.map_err(|s| StreamError::Status(Box::new(s)))?;
                    let what = message.ok_or(StreamError::Closed)?.what;
                    let what = what.ok_or(StreamError::Protocol("a message without content"))?;
                    obeying = self.hear(what, welcomed).await?;
                    // Not before: a slow disk here must not pass for a silent leader.
                    heard = Instant::now();
                }
                () = tokio::time::sleep_until(heard + patience), if obeying.is_none() => {
                    return Err(StreamError::Silent);
                }
                room = out.reserve(), if self.batch.is_some() => {
                    let room = room.map_err(|_| StreamError::Closed)?;
                    if let Some(batch) = self.batch.take() {
                        self.sent += 1;
                        let payload = batch.to_payload()?;
                        room.send(told(Out::Reports(Reports { nth: self.sent, payload })));
                    }
                }
                batch = next_batch(&mut self.reports), if self.batch.is_none() => {
                    self.batch = Some(batch?);
                }
                _ = pings.tick() => self.ping()?,
                changed = news.inventory.changed() => {
                    if changed.is_err() {
                        return Err(StreamError::Closed);
                    }
                    let hello = self.hello()?;
                    out.send(hello).await.map_err(|_| StreamError::Closed)?;
                }
                changed = news.facts.changed(), if welcomed.is_some() && self.is_facts_time() => {
                    self.facts_at = Some(Instant::now());
                    changed.map_err(|_| StreamError::Closed)?;
                    let facts = Some(news.facts.borrow_and_update().clone());
                    // Where there is no room, the next ones do.
                    let _ = out.try_send(told(Out::Facts(internal::Facts { facts })));
                }
                changed = news.certificate.changed() => {
                    return Err(changed.map_or(StreamError::Closed, |()| StreamError::Certificate));
                }
            }
        }
    }

    /// Takes one message. A set is obeyed by what is returned.
    async fn hear(
        &mut self,
        what: In,
        welcomed: &mut Option<Instant>,
    ) -> Result<Option<Obeying>, StreamError> {
        match what {
            In::Welcome(welcome) => {
                self.welcome(welcome).await?;
                welcomed.get_or_insert_with(Instant::now);
            }
            In::Goodbye(goodbye) => return Err(StreamError::Goodbye(goodbye)),
            In::Members(members) => self.learn(&members).await?,
            In::Pong(_) => {}
            In::Desired(_) | In::Reported(_) | In::DataCall(_) | In::Setup(_)
                if welcomed.is_none() =>
            {
                return Err(StreamError::Protocol("it came before the welcome"));
            }
            In::Desired(desired) => return self.desired(desired),
            In::Reported(reported) => {
                self.shared.driver.acknowledged(Sequence(reported.sequence)).await?;
            }
            In::DataCall(call) => self.calls.answer(call),
            In::Setup(setup) => self.hear_setup(setup)?,
        }
        Ok(None)
    }

    async fn welcome(&mut self, welcome: Welcome) -> Result<(), StreamError> {
        // A member that does not say knows the first life alone.
        let found = Incarnation(welcome.incarnation.max(1));
        let obeyed = self.shared.fence.borrow().incarnation;
        if found < obeyed {
            return Err(StreamError::FormerLife { found, obeyed });
        }
        self.compare_clocks(welcome.wall_ms);
        self.life = found;
        if welcome.lease_ms > 0 {
            self.lease_ms = welcome.lease_ms;
        }
        if let Some(members) = &welcome.members {
            self.learn(members).await?;
        }
        // Once for each stream: it asks for everything that is not acknowledged.
        if self.reports.is_none() {
            let committed = Sequence(welcome.reported_sequence);
            self.shared.driver.acknowledged(committed).await?;
            self.reports = Some(self.shared.driver.connected().await?);
        }
        Ok(())
    }

    /// Tells if this machine's clock is far from the member's. Nothing depends on either.
    fn compare_clocks(&self, member_wall_ms: u64) {
        let off_ms = wall_ms().abs_diff(member_wall_ms);
        let is_off = member_wall_ms > 0 && off_ms > CLOCK_OFF_MS;
        let why = format!("{} s from the clock of the coordinator", off_ms / 1_000);
        health::tell(&self.shared.findings, ConditionKind::ClockOff, is_off.then_some(why));
    }

    /// Hands on what the pool wants. The text is with it if the agent has not got it.
    fn hear_setup(&self, told: internal::PoolSetup) -> Result<(), StreamError> {
        let pool = told.pool.clone();
        let (id, setup) = setup_told(told).map_err(StreamError::Setup)?;
        let before = self.shared.setup.borrow().wanted.clone();
        let after = before.after(self.life, id, setup, pool);
        match after.map_err(StreamError::Protocol)? {
            Some(wanted) => {
                self.shared.setup.send_replace(Heard { wanted, is_confirmed: true });
            }
            None => tracing::debug!(%id, "an old setup is not heard"),
        }
        Ok(())
    }

    async fn learn(&self, members: &internal::Members) -> Result<(), StreamError> {
        Ok(self.shared.rosters.learn(members).await.map_err(Fatal::from)?)
    }

    /// Reads a set with its details; both are whole before anything of them is used.
    fn desired(&mut self, message: internal::Desired) -> Result<Option<Obeying>, StreamError> {
        let set = match message.payload.is_empty() {
            true => None,
            false => Some(Desired::from_payload(&message.payload)?),
        };
        for one in message.details {
            self.keep_detail(one)?;
        }
        let Some(set) = set else { return Ok(None) };
        self.ahead_bytes = 0;
        let details = std::mem::take(&mut self.ahead).into_iter().collect();
        Ok(Some(Box::pin(obey(self.shared.clone(), set, details, self.lease_ms))))
    }

    /// Keeps the details of one assignment until its set is there. Those that cannot be used are
    /// left out: then that assignment fails, and no other.
    fn keep_detail(&mut self, one: internal::Detail) -> Result<(), StreamError> {
        self.ahead_bytes += prost::Message::encoded_len(&one);
        if self.ahead_bytes > DETAILS_AHEAD_BYTES_MAX || self.ahead.len() >= NODE_ASSIGNMENTS_MAX {
            return Err(StreamError::Details(self.ahead_bytes));
        }
        let inventory = self.shared.inventory.borrow();
        let allocation = one.allocation_id;
        let read = detail::id(&one).and_then(|id| Ok((id, detail::assignment(one, &inventory)?)));
        drop(inventory);
        match read {
            Ok((id, assignment)) => {
                self.ahead.insert(id, assignment);
            }
            Err(error) => tracing::error!(allocation, %error, "details are refused"),
        }
        Ok(())
    }

    /// Whether the machine was not told of for a while.
    fn is_facts_time(&self) -> bool {
        self.facts_at.is_none_or(|at| at.elapsed() >= FACTS)
    }

    fn hello(&self) -> Result<AgentMessage, StreamError> {
        let inventory = self.shared.inventory.borrow().clone();
        Ok(told(Out::Hello(Hello {
            inventory: inventory.to_payload()?,
            fence: self.shared.fence.borrow().to_payload()?,
            held_lease_id: held_now(&self.shared.held.borrow()).map(|lease| lease.0),
            sent: self.sent,
            agent_version: inventory.version,
            setup: Some(self.shared.setup.borrow().wanted.id.into()),
        })))
    }

    /// Says that the agent is there. Where there is no room, others words say it.
    fn ping(&self) -> Result<(), StreamError> {
        let ping = Ping {
            held_lease_id: held_now(&self.shared.held.borrow()).map(|lease| lease.0),
            sent: self.sent,
            fence: self.shared.fence.borrow().to_payload()?,
        };
        match self.out.try_send(told(Out::Ping(ping))) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(StreamError::Closed),
        }
    }
}

fn told(what: Out) -> AgentMessage {
    AgentMessage { what: Some(what) }
}

fn pings() -> Interval {
    let mut pings = interval(PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings
}

/// The next reports, as many as there are; waits for ever before the stream is welcome. May be
/// dropped while it waits.
async fn next_batch(
    reports: &mut Option<mpsc::Receiver<Report>>,
) -> Result<Vec<Report>, StreamError> {
    let Some(reports) = reports else { return std::future::pending().await };
    let mut batch = vec![reports.recv().await.ok_or(StreamError::Slow)?];
    while batch.len() < REPORTS_PER_BATCH_MAX {
        let Ok(report) = reports.try_recv() else { break };
        batch.push(report);
    }
    Ok(batch)
}

/// Lets a set be obeyed, and goes over to the lease that it brings.
async fn obey(
    shared: Arc<Shared>,
    set: Desired,
    details: Vec<(AssignmentId, Assignment)>,
    lease_ms: u64,
) -> Result<(), StreamError> {
    let (fence, lease, check) = (set.fence, set.lease, set.check);
    let obeyed = *shared.fence.borrow();
    let newer = fence > obeyed;
    let before = shared.held.borrow().id;
    let succeeds = newer && lease > before;
    if succeeds {
        // First of all: after a crash the lease is known from the set that was obeyed.
        let (memory, file) = (shared.memory.clone(), LeaseFile { fence, lease, before });
        let saved = tokio::task::spawn_blocking(move || memory.save_lease(&file)).await;
        saved.expect("writing a file does not panic").map_err(Fatal::from)?;
    }
    let noted = details.iter().filter(|(_, assignment)| data::needs_note(assignment));
    let notes: Vec<_> =
        noted.map(|(id, assignment)| (*id, assignment.job, assignment.first_rank())).collect();
    if newer && check > *shared.asked.borrow() {
        // First: the set is not told again to an agent that has obeyed it.
        let memory = shared.memory.clone();
        let saved = tokio::task::spawn_blocking(move || memory.save_asked(check)).await;
        saved.expect("writing a file does not panic").map_err(Fatal::from)?;
    }
    shared.driver.desired(set, details).await?;
    for (id, job, first_rank) in notes {
        if let Err(error) = data::note(&shared.paths, id, job, first_rank) {
            tracing::warn!(assignment = %id, %error, "its output will not be found by rank");
        }
    }
    if !newer {
        return Ok(());
    }
    shared.fence.send_replace(fence);
    shared.asked.send_if_modified(|asked| {
        let more = check > *asked;
        *asked = check.max(*asked);
        more
    });
    if succeeds {
        tracing::info!(%lease, "the node goes over to a new lease");
        let succession = Succession { lease, times: times_of(lease_ms) };
        let sent = shared.successions.send(succession).await;
        sent.map_err(|_| StreamError::Closed)?;
    }
    Ok(())
}
