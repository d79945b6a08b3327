//! An agent that speaks the protocol and runs nothing.

use crate::cluster::{Cluster, PATIENCE, request_id};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use yard_common::Amounts;
use yard_common::ExitCause;
use yard_common::id::{BootId, LeaseId, NodeId, Sequence};
use yard_core::agent::{Desired, DesiredAssignment, DesiredPhase, Exit, Fence, Report, ReportKind};
use yard_core::command::{Inventory, SetupId};
use yard_core::lease::Renewal;
use yard_proto::internal::agent_message::What as Say;
use yard_proto::internal::agent_service_client::AgentServiceClient;
use yard_proto::internal::coordinator_message::What;
use yard_proto::internal::renew_response::Answer;
use yard_proto::internal::{self, AgentMessage, CoordinatorMessage, Detail};
use yard_proto::wire::Payload;
use yard_runtime::identity::{Identity, KeyRequest, Token};

const GIB: u64 = 1 << 30;

/// A machine that joined.
pub(crate) struct Agent {
    pub(crate) identity: Identity,
    pub(crate) node: NodeId,
    pub(crate) inventory: Inventory,
    lease: LeaseId,
    lease_ms: u64,
    /// The last report that it made.
    pub(crate) sequence: u64,
    /// The set that it obeys.
    pub(crate) fence: Fence,
    renewals: JoinSet<()>,
}

/// The control stream of an agent.
pub(crate) struct Stream {
    to: mpsc::Sender<AgentMessage>,
    from: Streaming<CoordinatorMessage>,
    sent: u64,
}

pub(crate) fn inventory(name: &str) -> Inventory {
    Inventory {
        boot: BootId::from_u128(1),
        amounts: Amounts { cpu_milli: 4_000, memory_bytes: 8 * GIB, disk_bytes: 100 * GIB },
        devices: Vec::new(),
        labels: Vec::new(),
        address: format!("{name}.lan"),
        version: "0.1.0".into(),
        conditions: Vec::new(),
        checked: 0,
        setup: None,
    }
}

/// Joins with a token.
pub(crate) async fn join(cluster: &Cluster, token: &Token, name: &str) -> Result<Agent, Status> {
    let (channel, tls) = cluster.stranger();
    let key = KeyRequest::new().unwrap();
    let inventory = inventory(name);
    let request = internal::JoinRequest {
        request_id: request_id(),
        token_id: token.id.to_u128().to_be_bytes().to_vec().into(),
        token_secret: Some(token.secret.reveal().to_string().into()),
        csr_der: key.der().to_vec().into(),
        name: name.into(),
        inventory: inventory.to_payload().unwrap(),
    };
    let joined = AgentServiceClient::new(channel).join(request).await?.into_inner();
    let certificate = &joined.certificate.unwrap().chain_der[0];
    let identity = key.complete(certificate, tls.learned().unwrap()).unwrap();
    Ok(Agent {
        identity,
        node: NodeId(joined.node_id),
        inventory,
        lease: LeaseId(joined.lease_id),
        lease_ms: joined.lease_ms,
        sequence: 0,
        fence: Fence::NONE,
        renewals: JoinSet::new(),
    })
}

impl Agent {
    /// A machine with a fresh token.
    pub(crate) async fn new(cluster: &Cluster, name: &str) -> Agent {
        let token = cluster.admin().join_token().await;
        let mut agent = join(cluster, &token, name).await.unwrap();
        agent.keep_alive(cluster);
        agent
    }

    /// Renews its lease from now on.
    pub(crate) fn keep_alive(&mut self, cluster: &Cluster) {
        let mut client = AgentServiceClient::new(cluster.channel(&self.identity));
        let renewal =
            Renewal { node: self.node, lease: self.lease, sent_ms: 1, lease_ms: self.lease_ms };
        let payload = renewal.to_payload().unwrap();
        self.renewals.spawn(async move {
            loop {
                let request = internal::RenewRequest { renewal: payload.clone() };
                // While the member restarts there is nobody to ask.
                let _ = client.renew(request).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }

    /// Asks for its lease once, or for another one.
    pub(crate) async fn renew(&self, cluster: &Cluster, lease: u64) -> Answer {
        let lease = LeaseId(lease);
        let renewal = Renewal { node: self.node, lease, sent_ms: 77, lease_ms: self.lease_ms };
        let request = internal::RenewRequest { renewal: renewal.to_payload().unwrap() };
        self.client(cluster).renew(request).await.unwrap().into_inner().answer.unwrap()
    }

    pub(crate) fn client(&self, cluster: &Cluster) -> AgentServiceClient<Channel> {
        AgentServiceClient::new(cluster.channel(&self.identity))
    }

    /// Opens its control stream, and says hello.
    pub(crate) async fn connect(&self, cluster: &Cluster) -> Stream {
        self.connect_with(cluster, self.hello(SetupId::default())).await
    }

    /// What it says first, with this setup of its pool at hand.
    pub(crate) fn hello(&self, held: SetupId) -> Say {
        Say::Hello(internal::Hello {
            inventory: self.inventory.to_payload().unwrap(),
            fence: self.fence.to_payload().unwrap(),
            held_lease_id: Some(self.lease.0),
            sent: 0,
            agent_version: "0.1.0".into(),
            setup: Some(held.into()),
        })
    }

    /// Opens its control stream with this word.
    pub(crate) async fn connect_with(&self, cluster: &Cluster, first: Say) -> Stream {
        let (to, messages) = mpsc::channel(16);
        to.send(AgentMessage { what: Some(first) }).await.unwrap();
        let stream = self.client(cluster).control(ReceiverStream::new(messages)).await.unwrap();
        Stream { to, from: stream.into_inner(), sent: 0 }
    }

    fn report(&mut self, assignment: &DesiredAssignment, what: ReportKind) -> Report {
        self.sequence += 1;
        Report { sequence: Sequence(self.sequence), assignment: assignment.id, what }
    }

    /// Everything that one assignment of one node has to tell when it runs and ends.
    pub(crate) fn run(&mut self, assignment: &DesiredAssignment, cause: ExitCause) -> Vec<Report> {
        assert_eq!(assignment.phase, DesiredPhase::Run);
        let exit = |link| Exit { link, cause, status: None, rank: Some(0) };
        let exits = assignment.chain.0.iter().copied().map(exit).collect();
        vec![
            self.report(assignment, ReportKind::Started(assignment.chain.clone())),
            self.report(assignment, ReportKind::Exited(exits)),
            self.report(assignment, ReportKind::Reaped),
        ]
    }
}

impl Stream {
    pub(crate) async fn say(&mut self, what: Say) {
        self.to.send(AgentMessage { what: Some(what) }).await.unwrap();
    }

    /// Says that the agent is there, and waits until all that it said was heard.
    pub(crate) async fn ping(&mut self, agent: &Agent) {
        let fence = agent.fence.to_payload().unwrap();
        let held_lease_id = Some(agent.lease.0);
        self.say(Say::Ping(internal::Ping { held_lease_id, sent: self.sent, fence })).await;
        loop {
            match self.next().await {
                Some(What::Pong(_)) => return,
                Some(_) => {}
                None => panic!("the stream ended"),
            }
        }
    }

    /// Sends reports as the next batch.
    pub(crate) async fn report(&mut self, reports: &Vec<Report>) {
        self.sent += 1;
        self.report_as(self.sent, reports).await;
    }

    /// Sends reports as some batch.
    pub(crate) async fn report_as(&mut self, nth: u64, reports: &Vec<Report>) {
        let payload = reports.to_payload().unwrap();
        self.say(Say::Reports(internal::Reports { nth, payload })).await;
    }

    /// The next message; none: the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<What> {
        let next = timeout(PATIENCE, self.from.message()).await.unwrap();
        next.ok().flatten().map(|message| message.what.unwrap())
    }

    pub(crate) async fn welcome(&mut self) -> internal::Welcome {
        match self.next().await {
            Some(What::Welcome(welcome)) => welcome,
            other => panic!("{other:?} instead of a welcome"),
        }
    }

    /// The next desired set that has something in it, with the details that came with it.
    pub(crate) async fn desired(&mut self) -> (Desired, Vec<Detail>) {
        loop {
            match self.next().await {
                Some(What::Desired(told)) => {
                    let desired = Desired::from_payload(&told.payload).unwrap();
                    if !desired.assignments.is_empty() {
                        return (desired, told.details);
                    }
                }
                Some(What::Goodbye(goodbye)) => panic!("{goodbye:?}"),
                Some(_) => {}
                None => panic!("the stream ended"),
            }
        }
    }

    /// Waits until all reports up to this one are acknowledged.
    pub(crate) async fn acknowledged(&mut self, upto: u64) {
        loop {
            match self.next().await {
                Some(What::Reported(reported)) if reported.sequence >= upto => return,
                Some(What::Goodbye(goodbye)) => panic!("{goodbye:?}"),
                Some(_) => {}
                None => panic!("the stream ended"),
            }
        }
    }

    /// Ends the stream, and waits until the member has seen it.
    pub(crate) async fn leave(self) {
        let Stream { to, mut from, .. } = self;
        drop(to);
        while let Ok(Some(_)) = timeout(PATIENCE, from.message()).await.unwrap() {}
    }

    /// Waits for the goodbye, and says why it came.
    pub(crate) async fn goodbye(&mut self) -> String {
        loop {
            match self.next().await {
                Some(What::Goodbye(goodbye)) => {
                    assert!(self.next().await.is_none(), "a goodbye is the last word");
                    return goodbye.reason;
                }
                Some(_) => {}
                None => panic!("the stream ended without a goodbye"),
            }
        }
    }
}
