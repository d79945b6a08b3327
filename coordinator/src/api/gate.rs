//! The gate before every call: who is it, and may it make this call at all?
//!
//! **Invariants.** A call without a row in the table gets in nowhere. Who calls is known from the
//! verified certificate of the connection alone, and is judged anew at every request: by the
//! certificate's end, by revocations, and by whether the principal still exists and is enabled.
//! A member that has just started and has not caught up does not judge: it is unavailable.

use super::refusal::Refusal;
use super::strangers::{Bounded, Strangers, Visit};
use super::table::{Need, need};
use crate::counters;
use crate::folder::FIRST_LIFE;
use crate::member::Member;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::{Code, Request, Status};
use tower::{Layer, Service};
use yard_common::ErrorCode;
use yard_common::id::{Incarnation, MemberId, NodeId, PrincipalId};
use yard_common::limits::STRANGER_CALL_MS;
use yard_core::command::{Object, Role};
use yard_core::state::State;
use yard_proto::convert::error::Refused;
use yard_proto::{LIFE, MEMBERS_INDEX};
use yard_runtime::identity::{Peer, Principal};
use yard_runtime::tls::Caller;

/// Who calls, after the gate. In the extensions of every request.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    peer: Option<Arc<Peer>>,
    need: Need,
}

impl Who {
    /// Who makes a request.
    pub(crate) fn of<T>(request: &Request<T>) -> Who {
        let known = request.extensions().get::<Who>().cloned();
        known.unwrap_or(Who { peer: None, need: Need::Known })
    }

    /// The user. The gate lets nobody else into calls that ask for one.
    pub(crate) fn user(&self) -> Result<PrincipalId, Refusal> {
        match self.principal() {
            Some(Principal::User(id)) => Ok(id),
            Some(Principal::Member(_) | Principal::Node(_)) | None => Err(not("a user")),
        }
    }

    /// The node whose agent calls.
    pub(crate) fn node(&self) -> Result<NodeId, Refusal> {
        match self.principal() {
            Some(Principal::Node(id)) => Ok(id),
            Some(Principal::Member(_) | Principal::User(_)) | None => Err(not("an agent")),
        }
    }

    /// The member.
    pub(crate) fn member(&self) -> Result<MemberId, Refusal> {
        match self.principal() {
            Some(Principal::Member(id)) => Ok(id),
            Some(Principal::Node(_) | Principal::User(_)) | None => Err(not("a member")),
        }
    }

    /// Judges anew whether the call may be made, for one that goes on for long.
    pub(crate) fn admitted(&self, member: &Member) -> Result<(), Refusal> {
        judge(member, self.need, self.peer.as_deref())
    }

    /// Its certificate.
    pub(crate) fn peer(&self) -> Result<Arc<Peer>, Refusal> {
        self.peer.clone().ok_or_else(|| not("a certificate"))
    }

    fn principal(&self) -> Option<Principal> {
        self.peer.as_ref().map(|peer| peer.principal)
    }
}

fn not(what: &str) -> Refusal {
    Refusal::new(Code::PermissionDenied, ErrorCode::NotAllowed, format!("this needs {what}"))
}

/// Puts the gate before a service.
#[derive(Clone)]
pub(crate) struct GateLayer {
    member: Arc<Member>,
    strangers: Strangers,
}

impl GateLayer {
    /// The gate of a member.
    pub(crate) fn new(member: Arc<Member>) -> GateLayer {
        GateLayer { member, strangers: Strangers::default() }
    }
}

/// The gate before a service.
#[derive(Clone)]
pub(crate) struct Gate<S> {
    member: Arc<Member>,
    strangers: Strangers,
    inner: S,
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        let (member, strangers) = (Arc::clone(&self.member), self.strangers.clone());
        Gate { member, strangers, inner }
    }
}

impl<S> Service<http::Request<Body>> for Gate<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<http::Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let member = &self.member;
        let caller = request.extensions().get::<Caller>().cloned();
        let peer = caller.as_ref().and_then(|caller| caller.peer.clone());
        if request.method() == http::Method::GET {
            let response = plain(member, request.uri().path(), peer.as_deref());
            return std::future::ready(Ok(response)).boxed();
        }
        let admitted = admit(member, request.uri().path(), peer.as_deref())
            .and_then(|need| same_life(member, need, request.headers()).map(|()| need))
            .and_then(|need| Ok((need, self.visit(caller.as_ref())?)));
        let (need, visit) = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => {
                let status = Status::from(refusal);
                member.counters.call(status.code());
                let mut response = status.into_http();
                tell_members(member, &mut response);
                return std::future::ready(Ok(response)).boxed();
            }
        };
        // Whoever has no certificate gets little room and little time.
        let limit = (need == Need::Token).then(|| Duration::from_millis(STRANGER_CALL_MS));
        if limit.is_some() {
            request = request.map(|body| Body::new(Bounded::new(body)));
        }
        request.extensions_mut().insert(Who { peer, need });
        let (member, answer) = (Arc::clone(member), self.inner.call(request));
        let counted = async move {
            let _visit = visit;
            let mut response = match limit {
                None => answer.await?,
                Some(limit) => match timeout(limit, answer).await {
                    Ok(response) => response?,
                    Err(_) => Status::deadline_exceeded("the request took too long").into_http(),
                },
            };
            let status = Status::from_header_map(response.headers());
            // Without a status in the head the call has begun, and may fail later.
            member.counters.call(status.map_or(Code::Ok, |status| status.code()));
            tell_members(&member, &mut response);
            Ok(response)
        };
        counted.boxed()
    }
}

impl<S> Gate<S> {
    /// Counts a call of somebody without a certificate; known callers are not counted.
    fn visit(&self, caller: Option<&Caller>) -> Result<Option<Visit>, Refusal> {
        let Some(stranger) = caller.filter(|caller| caller.peer.is_none()) else {
            return Ok(None);
        };
        match self.strangers.enter(stranger.address) {
            Some(visit) => Ok(Some(visit)),
            None => {
                let message = "too many calls at a time on a connection without a certificate";
                Err(Refusal::plain(Code::ResourceExhausted, message))
            }
        }
    }
}

/// Says as of which position of the log the members are, so that whoever knows an older list asks
/// for it, and of which life of the cluster this one is, so that whoever knows a later one does not
/// believe it.
fn tell_members(member: &Member, response: &mut http::Response<Body>) {
    let (_, state) = member.raft.state();
    let headers = response.headers_mut();
    headers.insert(MEMBERS_INDEX, state.membership.id.0.0.into());
    headers.insert(LIFE, member.life.0.into());
}

/// A member of another life of the cluster is no part of this one: not of its consensus, and not of
/// anything else, whatever its certificate says. One that does not say is of the first.
fn same_life(member: &Member, need: Need, headers: &http::HeaderMap) -> Result<(), Refusal> {
    let told = headers.get(LIFE).and_then(|told| told.to_str().ok()?.parse::<u32>().ok());
    let life = told.map_or(FIRST_LIFE, Incarnation);
    if need != Need::Member || life == member.life {
        return Ok(());
    }
    let message = format!(
        "member {} is of life {} of the cluster, and does not listen to one of life {life}",
        member.id, member.life
    );
    Err(Refusal::new(Code::FailedPrecondition, ErrorCode::NotAMember, message))
}

/// What the call needs, if a peer may make it.
fn admit(member: &Member, path: &str, peer: Option<&Peer>) -> Result<Need, Refusal> {
    let Some(need) = need(path) else {
        return Err(Refusal::plain(Code::Unimplemented, "there is no such call"));
    };
    judge(member, need, peer).map(|()| need)
}

fn judge(member: &Member, need: Need, peer: Option<&Peer>) -> Result<(), Refusal> {
    if need == Need::Token {
        return Ok(());
    }
    let Some(peer) = peer else {
        let message = "this call needs a certificate: log in, or join, with a token first";
        return Err(Refusal::plain(Code::Unauthenticated, message));
    };
    let (_, state) = member.raft.state();
    is_good(member, &state, peer)?;
    let allowed = match (need, peer.principal) {
        (Need::Token | Need::Known, _) => true,
        (Need::Agent, Principal::Node(_)) | (Need::Member, Principal::Member(_)) => true,
        (Need::User, Principal::User(_)) => true,
        (Need::Somewhere(role), Principal::User(id)) => has_somewhere(&state, id, role),
        // Which node is judged where the request is read.
        (Need::AgentOrCluster(_), Principal::Node(_)) => true,
        (Need::Cluster(role) | Need::AgentOrCluster(role), Principal::User(id)) => {
            state.principals.get(id).is_some_and(|user| user.has(role, None))
        }
        _ => false,
    };
    if allowed { Ok(()) } else { Err(not(&needed(need))) }
}

fn needed(need: Need) -> String {
    match need {
        Need::Token | Need::Known => "a certificate".into(),
        Need::User => "a user".into(),
        Need::Somewhere(role) => format!("a user with the role {role:?} in a workspace"),
        Need::Cluster(role) => format!("a user with the role {role:?} in the cluster"),
        Need::AgentOrCluster(role) => {
            format!("the agent of the node, or a user with the role {role:?} in the cluster")
        }
        Need::Agent => "the agent of a node".into(),
        Need::Member => "a member of the coordinator".into(),
    }
}

fn has_somewhere(state: &State, id: PrincipalId, role: Role) -> bool {
    let user = state.principals.get(id).filter(|user| !user.disabled);
    user.is_some_and(|user| user.grants.iter().any(|grant| grant.role >= role))
}

/// Whether a certificate still counts, and its principal still is one.
fn is_good(member: &Member, state: &State, peer: &Peer) -> Result<(), Refusal> {
    let revoked = |what: &str| {
        let message = format!("{what} is disabled or revoked");
        Refusal::new(Code::Unauthenticated, ErrorCode::Revoked, message)
    };
    if !peer.is_current(member.env.wall_ms()) {
        let message = "the certificate has run out; log in, or join, anew";
        return Err(Refused::plain(Code::Unauthenticated, message).with("expired", true).into());
    }
    // The state may lack whoever was added after the last snapshot, and know whoever was revoked
    // since. Other members come in: without them this one would never catch up.
    if !member.caught_up.is_done() && !matches!(peer.principal, Principal::Member(_)) {
        return Err(Refusal::unavailable(
            "this member has just started, and is not up to date yet",
        ));
    }
    if state.revocations.contains(&peer.serial) {
        return Err(revoked("the certificate"));
    }
    let exists = match peer.principal {
        Principal::User(id) => state.principals.get(id).is_some_and(|user| !user.disabled),
        Principal::Node(id) => state.nodes.get(id).is_some(),
        Principal::Member(id) => return is_member(member, state, id),
    };
    let name = || match peer.principal {
        Principal::User(id) => state.name_of(Object::User(id)),
        Principal::Node(id) => state.name_of(Object::Node(id)),
        Principal::Member(id) => state.name_of(Object::Member(id)),
    };
    if exists { Ok(()) } else { Err(revoked(&name())) }
}

/// Whether a member is one. It stops when it hears that it was removed, so that this is said by the
/// word of what is applied alone.
fn is_member(member: &Member, state: &State, id: MemberId) -> Result<(), Refusal> {
    let peers = member.raft.peers();
    if peers.contains_key(&id) {
        return Ok(());
    }
    if state.has_left(id) {
        let message = format!("member {id} was removed from the cluster");
        return Err(Refusal::new(Code::Unauthenticated, ErrorCode::NotAMember, message));
    }
    // One that is behind does not know whoever joined since, and its leader may be one of them:
    // numbers only rise.
    match peers.last_key_value().is_none_or(|(last, _)| id > *last) {
        true => Ok(()),
        false => Err(Refusal::unavailable(format!("member {id} is not known here yet"))),
    }
}

/// What is asked without gRPC: whether the member lives, whether it is of use, and its counters.
fn plain(member: &Member, path: &str, peer: Option<&Peer>) -> http::Response<Body> {
    let (status, kind, text) = match path {
        "/healthz" => (200, "text/plain", "ok\n".to_string()),
        "/readyz" if member.is_ready() => (200, "text/plain", "ready\n".to_string()),
        "/readyz" if member.leader().is_none() => {
            (503, "text/plain", "no leader is known\n".to_string())
        }
        "/readyz" | "/metrics" if !member.caught_up.is_done() => {
            (503, "text/plain", "not up to date yet\n".to_string())
        }
        "/metrics" => {
            let (_, state) = member.raft.state();
            match peer.map(|peer| is_good(member, &state, peer)) {
                Some(Ok(())) => {
                    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                    (200, kind, counters::text(member))
                }
                Some(Err(_)) | None => (403, "text/plain", "a certificate is needed\n".to_string()),
            }
        }
        _ => (404, "text/plain", "there are /healthz, /readyz and /metrics\n".to_string()),
    };
    let mut response = http::Response::new(body(text));
    *response.status_mut() =
        http::StatusCode::from_u16(status).expect("the numbers above are legal");
    let kind = http::HeaderValue::from_static(kind);
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

fn body(text: String) -> Body {
    Body::new(text)
}
