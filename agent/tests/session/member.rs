//! A member that does what the test says, and tells what it hears.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use yard_common::ErrorCode;
use yard_common::id::{LogIndex, MemberId, NodeId, RequestId, TokenId};
use yard_core::agent::Report;
use yard_core::lease::{Ack, Membership, MembershipId, Renewal};
use yard_proto::convert;
use yard_proto::convert::error::Refused;
use yard_proto::internal::agent_message::What as Heard;
use yard_proto::internal::agent_service_server::AgentService;
use yard_proto::internal::coordinator_message::What as Told;
use yard_proto::internal::member_data::What as Want;
use yard_proto::internal::{
    AgentCertificate, AgentData, AgentMessage, CoordinatorMessage, CopyLogsRequest,
    CopyLogsResponse, Goodbye, Hello, JoinRequest, JoinResponse, LogCopy, MemberAddress,
    MemberData, Members, Pong, RenewAgentCertificateRequest, RenewRequest, RenewResponse, Welcome,
    renew_response,
};
use yard_proto::v1;
use yard_proto::v1::node_service_server::NodeService;
use yard_proto::wire::Payload;
use yard_runtime::identity::{Authority, Principal, Secret};
use yard_runtime::tls::Caller;

/// What a member heard. Where there is one, the first number is its own.
#[derive(Debug)]
pub(crate) enum Event {
    Join(RequestId),
    Renewed(u64, Renewal),
    /// With the serial number of the certificate that the agent showed.
    Hello(u64, Box<Hello>, Vec<u8>),
    Reports(u64, u64, Vec<Report>),
    Closed,
    Data(Box<AgentData>),
    Certificate,
    /// What a member was brought.
    Copies(Vec<LogCopy>),
}

/// What all members know.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) authority: Authority,
    /// Members, with their addresses.
    pub(crate) members: Vec<(u64, String)>,
    /// Tokens that are not used yet.
    pub(crate) tokens: BTreeMap<TokenId, [u8; 32]>,
    /// Nodes by the request that made them.
    pub(crate) nodes: BTreeMap<RequestId, u32>,
    /// What agents asked for when they left and came back: how long, or that they are back.
    pub(crate) maintenance: Vec<(u64, bool)>,
    /// Answers to joins that get lost, after the effect.
    pub(crate) joins_lost: u32,
    /// Life of the certificates that are given out.
    pub(crate) life_ms: u64,
    /// Members that are told to those who join; the leader tells of the rest.
    pub(crate) told_at_join: usize,
}

/// What the test wants of one member.
#[derive(Debug, Default)]
pub(crate) struct Will {
    /// Renewals are never answered.
    pub(crate) stuck: bool,
    /// Pings are not answered.
    pub(crate) silent: bool,
    /// What gives time back is answered once the agent leaves again.
    pub(crate) back_waits: bool,
    /// Another one leads.
    pub(crate) leader: Option<u64>,
    /// The life of the cluster that it is of; 0: it does not say.
    pub(crate) life: u32,
    /// What goes to the agent on the present stream.
    pub(crate) out: Option<mpsc::Sender<Result<CoordinatorMessage, Status>>>,
    /// What the next data stream is asked.
    pub(crate) want: Option<Want>,
    /// What follows that, whatever the agent says.
    pub(crate) more: Vec<Want>,
}

/// The services of one member.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) book: Arc<Mutex<Book>>,
    pub(crate) will: Arc<Mutex<Will>>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
}

pub(crate) fn said(what: Told) -> CoordinatorMessage {
    CoordinatorMessage { what: Some(what) }
}

impl Member {
    fn tell(&self, event: Event) {
        // The test may be over.
        let _ = self.events.send(event);
    }

    fn members(&self, count: usize, index: u64) -> Members {
        let book = self.book.lock().unwrap();
        let one = |(id, at): &(u64, String)| MemberAddress { member_id: *id, address: at.clone() };
        Members { members: book.members.iter().take(count).map(one).collect(), index }
    }

    fn issue(&self, csr: &[u8], node: u32) -> Result<AgentCertificate, Status> {
        let book = self.book.lock().unwrap();
        let now_ms = crate::cluster::wall_ms();
        let principal = Principal::Node(NodeId(node));
        let issued = book.authority.issue(csr, principal, &[], now_ms, book.life_ms);
        let issued = issued.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let trust = book.authority.trust().certificates();
        Ok(AgentCertificate {
            chain_der: vec![issued.certificate.into()],
            trust_der: trust.iter().map(|der| Bytes::copy_from_slice(der)).collect(),
            expires_wall_ms: issued.peer.not_after_wall_ms,
        })
    }

    /// Waits until what was asked is overtaken, or whoever was overtaken has heard.
    async fn answer_late(&self, asked: (u64, bool)) {
        let moment = std::time::Duration::from_millis(20);
        match asked.0 {
            0 => {
                while self.book.lock().unwrap().maintenance.last() == Some(&asked) {
                    tokio::time::sleep(moment).await;
                }
            }
            _ => tokio::time::sleep(10 * moment).await,
        }
    }

    /// Which node a join makes or finds.
    fn redeem(&self, request: &JoinRequest) -> Result<u32, Status> {
        let refused = || {
            let code = ErrorCode::BadToken;
            Status::from(Refused::new(
                tonic::Code::PermissionDenied,
                code,
                "the token is not valid",
            ))
        };
        let id = convert::request_id(&request.request_id).map_err(|_| refused())?;
        let token = convert::token_id(&request.token_id).map_err(|_| refused())?;
        let secret = request.token_secret.as_ref().and_then(|s| Secret::from_text(&s.text));
        let secret = secret.ok_or_else(refused)?;
        let mut book = self.book.lock().unwrap();
        if let Some(node) = book.nodes.get(&id) {
            return Ok(*node);
        }
        if book.tokens.get(&token) != Some(&secret.sha256()) {
            return Err(refused());
        }
        book.tokens.remove(&token);
        let node = book.nodes.len() as u32 + 7;
        book.nodes.insert(id, node);
        Ok(node)
    }
}

fn node_of<T>(request: &Request<T>) -> Result<(u32, Vec<u8>), Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    let peer = caller.and_then(|caller| caller.peer);
    match peer.as_ref().map(|peer| peer.principal) {
        Some(Principal::Node(node)) => Ok((node.0, peer.unwrap().serial.clone())),
        _ => Err(Status::unauthenticated("no node")),
    }
}

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AgentService for Member {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let request = request.into_inner();
        let id = convert::request_id(&request.request_id).unwrap();
        self.tell(Event::Join(id));
        let node_id = self.redeem(&request)?;
        {
            let mut book = self.book.lock().unwrap();
            if book.joins_lost > 0 {
                book.joins_lost -= 1;
                return Err(Status::unavailable("the answer got lost"));
            }
        }
        let told = self.book.lock().unwrap().told_at_join;
        let cluster = self.book.lock().unwrap().authority.trust().cluster();
        Ok(Response::new(JoinResponse {
            certificate: Some(self.issue(&request.csr_der, node_id)?),
            node_id,
            lease_id: 1,
            generation: 1,
            cluster_id: convert::cluster_id_bytes(cluster),
            incarnation: 1,
            members: Some(self.members(told, 1)),
            lease_ms: 3_000,
        }))
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        let (node, _) = node_of(&request)?;
        let renewal = Renewal::from_payload(&request.into_inner().renewal).unwrap();
        assert_eq!(renewal.node, NodeId(node));
        self.tell(Event::Renewed(self.id, renewal));
        if self.will.lock().unwrap().stuck {
            return std::future::pending().await;
        }
        let all = self.book.lock().unwrap().members.clone();
        let voters = all.iter().map(|(id, _)| MemberId(*id));
        let ack = Ack {
            member: MemberId(self.id),
            node: renewal.node,
            lease: renewal.lease,
            sent_ms: renewal.sent_ms,
            membership: Membership::of(MembershipId(LogIndex(1)), voters),
        };
        let answer = renew_response::Answer::Ack(ack.to_payload().unwrap());
        Ok(Response::new(RenewResponse { answer: Some(answer) }))
    }

    type ControlStream = Out<CoordinatorMessage>;

    async fn control(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let (_, serial) = node_of(&request)?;
        let mut inbound = request.into_inner();
        let (out, queue) = mpsc::channel(64);
        let leader = self.will.lock().unwrap().leader;
        if let Some(leader) = leader {
            let at = self.book.lock().unwrap().members.clone();
            let (member_id, address) = at.into_iter().find(|(id, _)| *id == leader).unwrap();
            let leader = Some(MemberAddress { member_id, address });
            let goodbye = Goodbye { leader, reason: "another one leads".into() };
            out.send(Ok(said(Told::Goodbye(goodbye)))).await.unwrap();
            return Ok(Response::new(Box::pin(ReceiverStream::new(queue))));
        }
        let welcome = Welcome {
            term: 1,
            member_id: self.id,
            members: Some(self.members(usize::MAX, 2)),
            lease_ms: 3_000,
            reported_sequence: 0,
            incarnation: self.will.lock().unwrap().life,
            wall_ms: 0,
        };
        self.will.lock().unwrap().out = Some(out.clone());
        let member = self.clone();
        tokio::spawn(async move {
            let mut welcome = Some(welcome);
            while let Some(Ok(message)) = inbound.next().await {
                match message.what.unwrap() {
                    Heard::Hello(hello) => {
                        // First of all: the test may say something once it knows of the stream.
                        if let Some(welcome) = welcome.take() {
                            let _ = out.send(Ok(said(Told::Welcome(welcome)))).await;
                        }
                        member.tell(Event::Hello(member.id, Box::new(hello), serial.clone()));
                    }
                    Heard::Reports(reports) => {
                        let batch = Vec::<Report>::from_payload(&reports.payload).unwrap();
                        member.tell(Event::Reports(member.id, reports.nth, batch));
                    }
                    Heard::Facts(_) => {}
                    Heard::Ping(_) if member.will.lock().unwrap().silent => {}
                    Heard::Ping(_) => {
                        let _ = out.send(Ok(said(Told::Pong(Pong {})))).await;
                    }
                }
            }
            member.tell(Event::Closed);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }

    type DataStream = Out<MemberData>;

    async fn data(
        &self,
        request: Request<Streaming<AgentData>>,
    ) -> Result<Response<Self::DataStream>, Status> {
        node_of(&request)?;
        let mut inbound = request.into_inner();
        let (out, queue) = mpsc::channel(1);
        let (want, more) = {
            let mut will = self.will.lock().unwrap();
            (will.want.take(), std::mem::take(&mut will.more))
        };
        let member = self.clone();
        tokio::spawn(async move {
            let said = async {
                for what in [want].into_iter().chain(more.into_iter().map(Some)) {
                    let _ = out.send(Ok(MemberData { what })).await;
                }
            };
            let heard = async {
                while let Some(Ok(data)) = inbound.next().await {
                    member.tell(Event::Data(Box::new(data)));
                }
            };
            tokio::join!(said, heard);
            drop(out);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewAgentCertificateRequest>,
    ) -> Result<Response<AgentCertificate>, Status> {
        let (node, _) = node_of(&request)?;
        self.tell(Event::Certificate);
        self.book.lock().unwrap().life_ms = crate::cluster::LONG_MS;
        Ok(Response::new(self.issue(&request.into_inner().csr_der, node)?))
    }

    async fn copy_logs(
        &self,
        request: Request<CopyLogsRequest>,
    ) -> Result<Response<CopyLogsResponse>, Status> {
        node_of(&request)?;
        self.tell(Event::Copies(request.into_inner().copies));
        Ok(Response::new(CopyLogsResponse::default()))
    }
}

/// The service, with calls that no agent makes.
macro_rules! node_service {
    ($($name:ident: $request:ident -> $response:ident;)+) => {
        #[tonic::async_trait]
        impl NodeService for Member {
            async fn maintenance(
                &self,
                request: Request<v1::MaintenanceRequest>,
            ) -> Result<Response<v1::Changed>, Status> {
                node_of(&request)?;
                let request = request.into_inner();
                assert_eq!(request.node, crate::node::NAME);
                let asked = (request.for_ms, request.back);
                self.book.lock().unwrap().maintenance.push(asked);
                if self.will.lock().unwrap().back_waits {
                    self.answer_late(asked).await;
                }
                Ok(Response::new(v1::Changed { applied_index: 3 }))
            }

            type SetupLogStream = tokio_stream::Empty<Result<v1::SetupLogResponse, Status>>;

            async fn setup_log(
                &self,
                _request: Request<v1::SetupLogRequest>,
            ) -> Result<Response<Self::SetupLogStream>, Status> {
                Err(Status::unimplemented("no agent asks for this"))
            }

            $(async fn $name(
                &self,
                _request: Request<v1::$request>,
            ) -> Result<Response<v1::$response>, Status> {
                Err(Status::unimplemented("no agent asks for this"))
            })+
        }
    };
}

node_service! {
    list: ListNodesRequest -> ListNodesResponse;
    get: GetNodeRequest -> GetNodeResponse;
    drain: DrainRequest -> Changed;
    undrain: UndrainRequest -> Changed;
    confirm_dead: ConfirmDeadRequest -> Changed;
    check: CheckNodeRequest -> Changed;
    remove: RemoveNodeRequest -> Changed;
    create_join_token: CreateJoinTokenRequest -> CreateJoinTokenResponse;
}
