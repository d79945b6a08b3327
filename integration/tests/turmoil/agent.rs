//! A machine with GPUs whose agent speaks the protocol and runs nothing: it says when ranks would
//! have started and ended, and sees for itself who holds each GPU.

use crate::chance::Chance;
use crate::client::now_ms;
use crate::made::{MEMBERS, PORT, address, host};
use crate::net::{self, Wires};
use crate::world::World;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use yard_common::gpu::GpuDevice;
use yard_common::id::{BootId, LeaseId, NodeId, Sequence};
use yard_common::{Amounts, Bytes, ExitCause};
use yard_core::agent::{
    AssignmentId, Chain, Desired, DesiredAssignment, DesiredPhase, Exit, Fence, Report, ReportKind,
};
use yard_core::command::Inventory;
use yard_core::lease::{LeaseTimes, Refusal, Renewal};
use yard_integration::model::Gpu;
use yard_integration::objects::GpuStep;
use yard_proto::internal::agent_message::What as Say;
use yard_proto::internal::agent_service_client::AgentServiceClient;
use yard_proto::internal::coordinator_message::What;
use yard_proto::internal::renew_response::Answer;
use yard_proto::internal::{self, AgentMessage, CoordinatorMessage};
use yard_proto::wire::Payload;
use yard_runtime::identity::{Identity, Tree};
use yard_runtime::tls::{ClientTls, Expect, channel_over};

/// GPUs of each machine.
pub(crate) const GPUS: u32 = 2;
/// Period of pings, and of renewals.
const PING: Duration = Duration::from_millis(1_000);
const RENEW: Duration = Duration::from_millis(500);
/// How long it waits for a word of the member that it talks to.
const SILENT: Duration = Duration::from_secs(3);

/// What a machine has.
pub(crate) fn inventory(node: u32) -> Inventory {
    let device = |device| GpuDevice {
        uuid: format!("gpu-{node}-{device}"),
        model: "h100".into(),
        memory: Bytes(80 << 30),
        mig: None,
        healthy: true,
    };
    Inventory {
        boot: BootId::from_u128(u128::from(node) + 1),
        amounts: Amounts { cpu_milli: 16_000, memory_bytes: 64 << 30, disk_bytes: 100 << 30 },
        devices: (0..GPUS).map(device).collect(),
        labels: Vec::new(),
        address: format!("n{node}.lan"),
        version: "0.1.0".into(),
        conditions: Vec::new(),
        checked: 0,
        setup: None,
    }
}

/// What of an assignment is on the machine.
enum Work {
    /// Ranks that end by themselves then.
    Runs { chain: Chain, gpus: Vec<Gpu>, until: Instant },
    /// Nothing is left.
    Over,
}

/// The agent.
pub(crate) struct Agent {
    node: u32,
    chance: Chance,
    world: World,
    calls: Calls,
    lease: Arc<AtomicU64>,
    fence: Fence,
    works: BTreeMap<AssignmentId, Work>,
    /// Devices of assignments, as they were told.
    devices: BTreeMap<(u64, u32), Vec<String>>,
    /// Reports that nobody has acknowledged.
    reports: Vec<Report>,
    sequence: u64,
}

/// Connections to members.
#[derive(Clone)]
struct Calls {
    tls: Arc<ClientTls>,
    wires: Wires,
}

impl Calls {
    fn client(&self, member: u64) -> AgentServiceClient<Channel> {
        let wires = self.wires.clone();
        let dial = move |host, port| net::dial(host, port, wires.clone());
        let expect = Expect::Any(Tree::Member);
        AgentServiceClient::new(channel_over(&address(member), &self.tls, expect, dial).unwrap())
    }
}

/// An open control stream.
struct Stream {
    to: mpsc::Sender<AgentMessage>,
    from: tonic::Streaming<CoordinatorMessage>,
    batches: u64,
    /// Up to which report everything was sent on this stream.
    sent: u64,
}

impl Agent {
    pub(crate) fn new(node: u32, seed: u64, identity: &Identity, world: World) -> Agent {
        let wires = Wires::new(world.trace.clone());
        Agent {
            node,
            chance: Chance::new(seed, &format!("agent {node}")),
            calls: Calls { tls: ClientTls::new(identity).unwrap(), wires },
            world,
            lease: Arc::new(AtomicU64::new(1)),
            fence: Fence::NONE,
            works: BTreeMap::new(),
            devices: BTreeMap::new(),
            reports: Vec::new(),
            sequence: 0,
        }
    }

    /// Runs until the run is over.
    pub(crate) async fn run(mut self) -> turmoil::Result {
        let renewals = renew(self.node, self.calls.clone(), Arc::clone(&self.lease));
        tokio::select! {
            () = renewals => unreachable!("it goes on"),
            () = self.serve() => unreachable!("it goes on"),
        }
    }

    /// Talks to one member after the other until it finds the leader, again and again.
    async fn serve(&mut self) {
        let mut member = u64::from(self.node) % MEMBERS + 1;
        loop {
            let leader = match timeout(SILENT, self.connect(member)).await {
                Ok(Ok(stream)) => self.talk(stream).await,
                Ok(Err(_)) | Err(_) => None,
            };
            let named = (1..=MEMBERS).find(|id| leader == Some(format!("{}:{PORT}", host(*id))));
            member = named.unwrap_or(member % MEMBERS + 1);
            sleep(Duration::from_millis(self.chance.within(20, 150))).await;
            self.end_what_is_due();
        }
    }

    async fn connect(&self, member: u64) -> Result<Stream, tonic::Status> {
        let (to, messages) = mpsc::channel(64);
        let hello = internal::Hello {
            inventory: inventory(self.node).to_payload().unwrap(),
            fence: self.fence.to_payload().unwrap(),
            held_lease_id: Some(self.lease.load(Ordering::Relaxed)),
            sent: 0,
            agent_version: "0.1.0".into(),
            setup: None,
        };
        let hello = AgentMessage { what: Some(Say::Hello(hello)) };
        to.try_send(hello).expect("there is room");
        let mut client = self.calls.client(member);
        let from = client.control(ReceiverStream::new(messages)).await?.into_inner();
        Ok(Stream { to, from, batches: 0, sent: 0 })
    }

    /// Talks until the stream ends; who leads, if it was told.
    async fn talk(&mut self, mut stream: Stream) -> Option<String> {
        let mut pings = interval(PING);
        let mut heard = Instant::now();
        let mut welcome = false;
        loop {
            self.end_what_is_due();
            if welcome {
                self.tell(&mut stream)?;
            }
            let due = self.next_end().unwrap_or(Instant::now() + PING);
            tokio::select! {
                biased;
                message = stream.from.message() => {
                    heard = Instant::now();
                    match message.ok()??.what? {
                        What::Welcome(_) => welcome = true,
                        What::Desired(desired) => self.obey(desired),
                        What::Reported(told) => {
                            self.reports.retain(|report| report.sequence.0 > told.sequence);
                        }
                        What::Goodbye(told) => return told.leader.map(|leader| leader.address),
                        What::DataCall(_) | What::Members(_) | What::Pong(_) | What::Setup(_) => (),
                    }
                }
                _ = pings.tick() => {
                    if heard.elapsed() > SILENT {
                        return None;
                    }
                    let held_lease_id = Some(self.lease.load(Ordering::Relaxed));
                    let fence = self.fence.to_payload().unwrap();
                    let ping = internal::Ping { held_lease_id, sent: stream.batches, fence };
                    stream.say(Say::Ping(ping))?;
                }
                () = sleep_until(due) => (),
            }
        }
    }

    /// Sends what was not sent on this stream.
    fn tell(&mut self, stream: &mut Stream) -> Option<()> {
        let new = self.reports.iter().filter(|report| report.sequence.0 > stream.sent);
        let new: Vec<Report> = new.cloned().collect();
        let Some(last) = new.last() else { return Some(()) };
        stream.sent = last.sequence.0;
        stream.batches += 1;
        let (nth, payload) = (stream.batches, new.to_payload().unwrap());
        stream.say(Say::Reports(internal::Reports { nth, payload }))
    }

    fn report(&mut self, assignment: AssignmentId, what: ReportKind) {
        self.sequence += 1;
        self.reports.push(Report { sequence: Sequence(self.sequence), assignment, what });
    }

    fn obey(&mut self, told: internal::Desired) {
        for detail in told.details {
            self.devices.insert((detail.allocation_id, detail.group), detail.gpu_uuids);
        }
        let desired = Desired::from_payload(&told.payload).unwrap();
        if desired.fence <= self.fence {
            return;
        }
        self.fence = desired.fence;
        self.lease.fetch_max(desired.lease.0, Ordering::Relaxed);
        for assignment in &desired.assignments {
            self.take(assignment);
        }
        // What is not in the set is released.
        let wanted = |id: &AssignmentId| desired.assignments.iter().any(|one| one.id == *id);
        let gone: Vec<_> = self.works.keys().filter(|id| !wanted(id)).copied().collect();
        for id in gone {
            if let Some(Work::Runs { gpus, .. }) = self.works.remove(&id) {
                self.see(&gpus, GpuStep::Freed(id.allocation.0));
            }
        }
    }

    fn take(&mut self, assignment: &DesiredAssignment) {
        let (id, chain) = (assignment.id, assignment.chain.clone());
        match (self.works.get(&id), assignment.phase) {
            (None, DesiredPhase::Run) => {
                let gpus = self.gpus_of(id);
                self.see(&gpus, GpuStep::Granted(id.allocation.0));
                self.report(id, ReportKind::Started(chain.clone()));
                let until = Instant::now() + Duration::from_millis(self.chance.within(20, 600));
                self.works.insert(id, Work::Runs { chain, gpus, until });
            }
            (None, DesiredPhase::Stop { .. }) => {
                self.report(id, ReportKind::Recalled(chain));
                self.report(id, ReportKind::Reaped);
                self.works.insert(id, Work::Over);
            }
            (Some(Work::Runs { .. }), DesiredPhase::Stop { cause, .. }) => self.end(id, cause),
            (None, DesiredPhase::Prepare | DesiredPhase::Start) => {
                panic!("no job of this test is a gang: {assignment:?}")
            }
            (Some(_), _) => (),
        }
    }

    fn gpus_of(&self, id: AssignmentId) -> Vec<Gpu> {
        let told = self.devices.get(&(id.allocation.0, u32::from(id.group)));
        let place = |uuid: &String| uuid.rsplit('-').next().unwrap().parse().unwrap();
        let gpu = |uuid| Gpu { node: self.node, device: place(uuid) };
        told.expect("details come with the set").iter().map(gpu).collect()
    }

    fn see(&self, gpus: &[Gpu], step: GpuStep) {
        gpus.iter().for_each(|gpu| self.world.see(*gpu, step, now_ms()));
    }

    fn next_end(&self) -> Option<Instant> {
        let until = |work: &Work| match work {
            Work::Runs { until, .. } => Some(*until),
            Work::Over => None,
        };
        self.works.values().filter_map(until).min()
    }

    fn end_what_is_due(&mut self) {
        let due =
            |work: &Work| matches!(work, Work::Runs { until, .. } if *until <= Instant::now());
        let all: Vec<_> =
            self.works.iter().filter(|(_, work)| due(work)).map(|(id, _)| *id).collect();
        for id in all {
            self.end(id, ExitCause::Exited(0));
        }
    }

    /// The ranks end, and nothing is left.
    fn end(&mut self, id: AssignmentId, cause: ExitCause) {
        let Some(Work::Runs { chain, gpus, .. }) = self.works.insert(id, Work::Over) else {
            return;
        };
        let exit = |link| Exit { link, cause, status: None, rank: Some(0) };
        self.report(id, ReportKind::Exited(chain.0.into_iter().map(exit).collect()));
        self.see(&gpus, GpuStep::Freed(id.allocation.0));
        self.report(id, ReportKind::Reaped);
    }
}

impl Stream {
    /// None: the stream is over, or nobody reads it.
    fn say(&self, what: Say) -> Option<()> {
        self.to.try_send(AgentMessage { what: Some(what) }).ok()
    }
}

/// Renews the lease with every member.
async fn renew(node: u32, calls: Calls, lease: Arc<AtomicU64>) {
    let mut ticks = interval(RENEW);
    let mut clients: Vec<_> = (1..=MEMBERS).map(|member| (calls.client(member), 0)).collect();
    loop {
        ticks.tick().await;
        let renewal = Renewal {
            node: NodeId(node),
            lease: LeaseId(lease.load(Ordering::Relaxed)),
            sent_ms: now_ms(),
            lease_ms: LeaseTimes::DEFAULT.lease_ms(),
        };
        let request = internal::RenewRequest { renewal: renewal.to_payload().unwrap() };
        let asks = clients.iter_mut().zip(1..).map(|((client, failures), member)| {
            let (request, calls, lease) = (request.clone(), calls.clone(), Arc::clone(&lease));
            async move {
                let answer = timeout(RENEW - Duration::from_millis(100), client.renew(request));
                let Ok(Ok(told)) = answer.await else {
                    *failures += 1;
                    // It may sit behind a broken connection.
                    if *failures >= 3 {
                        (*client, *failures) = (calls.client(member), 0);
                    }
                    return;
                };
                *failures = 0;
                if let Some(Answer::Refusal(refusal)) = told.into_inner().answer
                    && let Refusal::OtherLease { current } =
                        Refusal::from_payload(&refusal).unwrap()
                {
                    lease.fetch_max(current.0, Ordering::Relaxed);
                }
            }
        });
        join_all(asks).await;
    }
}
