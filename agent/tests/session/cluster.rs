//! Members of one cluster, with the CAs that they have in common.

use crate::member::{Book, Event, Member, Will, said};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::Server;
use yard_common::id::{ClusterId, MemberId, Sequence};
use yard_core::agent::Report;
use yard_proto::internal::agent_service_server::AgentServiceServer;
use yard_proto::internal::coordinator_message::What as Told;
use yard_proto::internal::member_data::What as Want;
use yard_proto::internal::{AgentData, DataCall, Hello, Reported};
use yard_proto::v1::node_service_server::NodeServiceServer;
use yard_runtime::identity::{Authority, KeyRequest, Principal, Token, TokenKind};
use yard_runtime::tls::{Admit, Incoming, ServerTls};

/// No story takes this long. What waits longer fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The life of a certificate that nobody outlives.
pub(crate) const LONG_MS: u64 = 30 * 24 * 3_600_000;

pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A coordinator.
pub(crate) struct Cluster {
    pub(crate) book: Arc<Mutex<Book>>,
    pub(crate) wills: BTreeMap<u64, Arc<Mutex<Will>>>,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    _servers: JoinSet<()>,
}

impl Cluster {
    /// Members 1 to `count`.
    pub(crate) async fn start(count: u64) -> Cluster {
        let authority = Authority::create(ClusterId::from_u128(rand::random()), wall_ms()).unwrap();
        let trust = authority.trust().clone();
        let book = Book {
            authority,
            members: Vec::new(),
            tokens: BTreeMap::new(),
            nodes: BTreeMap::new(),
            maintenance: Vec::new(),
            joins_lost: 0,
            life_ms: LONG_MS,
            told_at_join: usize::MAX,
        };
        let book = Arc::new(Mutex::new(book));
        let (tell, events) = mpsc::unbounded_channel();
        let (mut wills, mut servers) = (BTreeMap::new(), JoinSet::new());
        for id in 1..=count {
            let key = KeyRequest::new().unwrap();
            let (principal, names) = (Principal::Member(MemberId(id)), ["localhost".to_string()]);
            let issued = book.lock().unwrap().authority.issue(
                key.der(),
                principal,
                &names,
                wall_ms(),
                LONG_MS,
            );
            let identity = key.complete(&issued.unwrap().certificate, trust.clone()).unwrap();
            let tls = ServerTls::new(&identity, Admit::Strangers).unwrap();
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let incoming = Incoming::bind(any, tls).await.unwrap();
            let address = incoming.local_addr().unwrap().to_string();
            book.lock().unwrap().members.push((id, address));
            let will = Arc::new(Mutex::new(Will::default()));
            wills.insert(id, will.clone());
            let member = Member { id, book: book.clone(), will, events: tell.clone() };
            let server = Server::builder()
                .add_service(AgentServiceServer::new(member.clone()))
                .add_service(NodeServiceServer::new(member))
                .serve_with_incoming(incoming);
            servers.spawn(async move { server.await.unwrap() });
        }
        Cluster { book, wills, events, _servers: servers }
    }

    /// A token that is good once.
    pub(crate) fn token(&self) -> Token {
        let mut book = self.book.lock().unwrap();
        let token = Token::mint(TokenKind::Join, book.authority.trust().fingerprint());
        book.tokens.insert(token.id, token.secret.sha256());
        token
    }

    pub(crate) fn address(&self, id: u64) -> String {
        let book = self.book.lock().unwrap();
        book.members.iter().find(|(member, _)| *member == id).unwrap().1.clone()
    }

    /// The next event that `pick` takes. Others are passed over.
    pub(crate) async fn next<T>(&mut self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = pick(self.events.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("it happens in time")
    }

    /// The next first word of an agent, and to whom.
    pub(crate) async fn hello(&mut self) -> (u64, Hello) {
        self.next(|event| match event {
            Event::Hello(member, hello, _) => Some((member, *hello)),
            _ => None,
        })
        .await
    }

    /// Says something on the present stream of a member.
    pub(crate) async fn say(&self, member: u64, what: Told) {
        let out = self.wills[&member].lock().unwrap().out.clone().unwrap();
        out.send(Ok(said(what))).await.unwrap();
    }

    /// Ends the present stream of a member without a word.
    pub(crate) async fn drop_stream(&self, member: u64) {
        let out = self.wills[&member].lock().unwrap().out.take().unwrap();
        out.send(Err(tonic::Status::unavailable("cut"))).await.unwrap();
    }

    /// Takes reports in order until one is the last that is waited for, and says that they are
    /// committed. Returns them with the numbers of their batches.
    pub(crate) async fn reports(
        &mut self,
        acknowledge: bool,
        mut last: impl FnMut(&Report) -> bool,
    ) -> Vec<(u64, Report)> {
        let mut all: Vec<(u64, Report)> = Vec::new();
        loop {
            let (member, nth, batch) = self
                .next(|event| match event {
                    Event::Reports(member, nth, batch) => Some((member, nth, batch)),
                    _ => None,
                })
                .await;
            let done = batch.iter().any(&mut last);
            let Sequence(sequence) = batch.last().unwrap().sequence;
            all.extend(batch.into_iter().map(|report| (nth, report)));
            if acknowledge {
                self.say(member, Told::Reported(Reported { sequence })).await;
            }
            if done {
                return all;
            }
        }
    }

    /// Asks the agent through a member, and gathers what it sends, the ticket first.
    pub(crate) async fn ask(&mut self, member: u64, want: Want) -> Vec<AgentData> {
        self.wills[&member].lock().unwrap().want = Some(want);
        let ticket = b"ticket".as_slice().into();
        let call = DataCall { ticket, address: self.address(member), member_id: member };
        self.say(member, Told::DataCall(call)).await;
        let mut all = Vec::new();
        loop {
            use yard_proto::internal::agent_data::What;
            let data = self.next(|event| match event {
                Event::Data(data) => Some(*data),
                _ => None,
            });
            let data = data.await;
            let over = matches!(data.what, Some(What::End(_) | What::Error(_)));
            all.push(data);
            if over {
                return all;
            }
        }
    }
}
