//! The client against real servers on real connections: logging in, finding the leader, trying
//! again with the same request id, and giving up.
#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::{Code, Request, Response, Status, async_trait};
use yard_client::{Client, ClientError, Options, login};
use yard_common::ErrorCode;
use yard_common::id::{ClusterId, MemberId, PrincipalId};
use yard_proto::convert::error::Refused;
use yard_proto::v1::user_service_server::{UserService, UserServiceServer};
use yard_proto::v1::*;
use yard_runtime::identity::{
    Authority, CERTIFICATE_LIFE_MS, Identity, KeyRequest, Principal, Secret, Token, TokenKind,
};
use yard_runtime::shutdown::{CancellationToken, Tasks};
use yard_runtime::tls::{Admit, Caller, Incoming, ServerTls};

const MEMBER: Principal = Principal::Member(MemberId(1));
const USER: Principal = Principal::User(PrincipalId(3));

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn authority() -> Arc<Authority> {
    Arc::new(Authority::create(ClusterId::from_u128(1), now_ms()).unwrap())
}

fn identity(authority: &Authority, principal: Principal) -> Identity {
    let key = KeyRequest::new().unwrap();
    let life = CERTIFICATE_LIFE_MS;
    let issued = authority.issue(key.der(), principal, &[], now_ms(), life).unwrap();
    key.complete(&issued.certificate, authority.trust().clone()).unwrap()
}

/// What a member does, and what it saw.
#[derive(Default)]
struct Script {
    /// Answers of `Add`, from the last to the first; then it works.
    answers: Vec<Status>,
    /// The member that leads, if it is another one.
    leader: Option<String>,
    /// Request ids of `Add`, in order.
    ids: Vec<Vec<u8>>,
    /// Calls of `WhoAmI`.
    asked: usize,
    /// Secrets that came in.
    secrets: Vec<Option<Secret>>,
}

struct Fake {
    authority: Arc<Authority>,
    script: Arc<Mutex<Script>>,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

/// Calls that these tests do not make, as `async_trait` would write them.
macro_rules! unused {
    ($($name:ident($request:ident) -> $response:ident;)+) => {$(
        fn $name<'a, 'b>(&'a self, _: Request<$request>) -> Answer<'b, $response>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async { Err(Status::unimplemented("not in this test")) })
        }
    )+};
}

#[async_trait]
impl UserService for Fake {
    async fn who_am_i(
        &self,
        request: Request<WhoAmIRequest>,
    ) -> Result<Response<WhoAmIResponse>, Status> {
        let mut script = self.script.lock().unwrap();
        script.asked += 1;
        if let Some(leader) = &script.leader {
            let code = ErrorCode::StaleLeader;
            let refused = Refused::new(Code::Unavailable, code, "this member does not lead");
            return Err(refused.with("leader", leader).into());
        }
        let caller: &Caller = request.extensions().get().unwrap();
        let name = caller.peer.as_ref().unwrap().principal.to_string();
        let user = User { name, ..User::default() };
        Ok(Response::new(WhoAmIResponse { user: Some(user), ..WhoAmIResponse::default() }))
    }

    async fn add(&self, request: Request<AddUserRequest>) -> Result<Response<Changed>, Status> {
        let mut script = self.script.lock().unwrap();
        script.ids.push(request.into_inner().request_id.to_vec());
        match script.answers.pop() {
            Some(status) => Err(status),
            None => Ok(Response::new(Changed { applied_index: 7 })),
        }
    }

    async fn login(
        &self,
        request: Request<LoginRequest>,
    ) -> Result<Response<CertificateResponse>, Status> {
        let caller: Caller = request.extensions().get::<Caller>().unwrap().clone();
        assert!(caller.peer.is_none(), "who logs in has no certificate yet");
        let request = request.into_inner();
        let secret = Secret::from_text(&request.token_secret.unwrap().text);
        self.script.lock().unwrap().secrets.push(secret);
        let life = CERTIFICATE_LIFE_MS;
        let issued = self.authority.issue(&request.csr_der, USER, &[], now_ms(), life);
        let certificate = issued.map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(CertificateResponse {
            chain_der: vec![certificate.certificate.into()],
            name: "ann".into(),
            ..CertificateResponse::default()
        }))
    }

    unused! {
        list(ListUsersRequest) -> ListUsersResponse;
        get(GetUserRequest) -> GetUserResponse;
        set(SetUserRequest) -> Changed;
        disable(DisableUserRequest) -> Changed;
        create_login_token(CreateLoginTokenRequest) -> CreateLoginTokenResponse;
        drop_token(DropTokenRequest) -> Changed;
        renew_certificate(RenewCertificateRequest) -> CertificateResponse;
        revoke(RevokeRequest) -> Changed;
    }
}

/// A member that follows a script. It ends with the tasks.
async fn member(
    tasks: &mut Tasks,
    authority: &Arc<Authority>,
    script: Script,
) -> (SocketAddr, Arc<Mutex<Script>>) {
    let tls = ServerTls::new(&identity(authority, MEMBER), Admit::Strangers).unwrap();
    let incoming = Incoming::bind("127.0.0.1:0".parse().unwrap(), tls).await.unwrap();
    let address = incoming.local_addr().unwrap();
    let script = Arc::new(Mutex::new(script));
    let fake = Fake { authority: authority.clone(), script: script.clone() };
    let server = tonic::transport::Server::builder().add_service(UserServiceServer::new(fake));
    tasks.spawn("member", async move {
        server.serve_with_incoming(incoming).await.unwrap();
    });
    (address, script)
}

fn client(authority: &Authority, addresses: &[SocketAddr], patience: Duration) -> Client {
    let addresses = addresses.iter().map(ToString::to_string).collect();
    let options = Options::new(addresses, identity(authority, USER));
    Client::connect(&Options { patience, ..options }).unwrap()
}

const PATIENT: Duration = Duration::from_secs(60);

fn tasks() -> Tasks {
    Tasks::new(CancellationToken::new())
}

#[tokio::test]
async fn hints_lead_to_the_leader_and_are_remembered() {
    let (authority, mut tasks) = (authority(), tasks());
    let (leader, _) = member(&mut tasks, &authority, Script::default()).await;
    let follower = Script { leader: Some(leader.to_string()), ..Script::default() };
    let (follower, asked) = member(&mut tasks, &authority, follower).await;
    // The leader is no address of the client: it learns it.
    let client = client(&authority, &[follower], PATIENT);
    for _ in 0..3 {
        let answer = client.who_am_i(WhoAmIRequest {}).await.unwrap();
        assert_eq!(answer.user.unwrap().name, "user/3");
    }
    assert_eq!(asked.lock().unwrap().asked, 1);
}

#[tokio::test]
async fn a_change_is_tried_again_with_the_same_id() {
    let (authority, mut tasks) = (authority(), tasks());
    let stale = Refused::new(Code::Unavailable, ErrorCode::StaleLeader, "replaced");
    let answers = vec![Status::unavailable("no leader"), stale.into()];
    let (address, script) =
        member(&mut tasks, &authority, Script { answers, ..Script::default() }).await;
    let client = client(&authority, &[address], PATIENT);
    let request = AddUserRequest { user: "ben".into(), ..AddUserRequest::default() };
    assert_eq!(client.add_user(request.clone()).await.unwrap().applied_index, 7);
    client.add_user(request).await.unwrap();
    let ids = script.lock().unwrap().ids.clone();
    assert_eq!(ids.len(), 4);
    assert!(ids[0].len() == 16 && ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
    assert_ne!(ids[2], ids[3], "another request has another id");
}

#[tokio::test]
async fn a_decision_is_final() {
    let (authority, mut tasks) = (authority(), tasks());
    let no = Refused::new(Code::PermissionDenied, ErrorCode::NotAllowed, "not yours");
    let script = Script { answers: vec![no.into()], ..Script::default() };
    let (address, script) = member(&mut tasks, &authority, script).await;
    let client = client(&authority, &[address], PATIENT);
    let error = client.add_user(AddUserRequest::default()).await.unwrap_err();
    assert!(matches!(&error, ClientError::Denied(no) if no.code.as_deref() == Some("Y2003")));
    assert_eq!(script.lock().unwrap().ids.len(), 1);
}

#[tokio::test]
async fn a_refusal_of_a_former_life_is_not_believed() {
    let (authority, mut tasks) = (authority(), tasks());
    let of_life = |life: u32, status: Refused| {
        let mut status = Status::from(status);
        status.metadata_mut().insert(yard_proto::LIFE, life.into());
        status
    };
    let revoked = || Refused::new(Code::Unauthenticated, ErrorCode::Revoked, "you are revoked");
    let script = |life| Script { answers: vec![of_life(life, revoked())], ..Script::default() };
    let (former, heard) = member(&mut tasks, &authority, script(1)).await;
    let (present, _) = member(&mut tasks, &authority, Script::default()).await;
    let addresses = [former, present].iter().map(ToString::to_string).collect();
    let options = Options { life: 7, ..Options::new(addresses, identity(&authority, USER)) };
    let client = Client::connect(&options).unwrap();
    assert_eq!(client.add_user(AddUserRequest::default()).await.unwrap().applied_index, 7);
    assert_eq!(heard.lock().unwrap().ids.len(), 1, "it was asked first");
    // Of the life that is known, or a later one, it is.
    let (present, _) = member(&mut tasks, &authority, script(8)).await;
    let options = Options { life: 7, ..Options::new(vec![present.to_string()], options.identity) };
    let error = Client::connect(&options).unwrap().add_user(AddUserRequest::default()).await;
    assert!(matches!(error, Err(ClientError::Denied(_))), "{error:?}");
}

#[tokio::test]
async fn a_member_that_is_gone_is_passed_over_or_named() {
    let (authority, mut tasks) = (authority(), tasks());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    let (address, _) = member(&mut tasks, &authority, Script::default()).await;
    let reaches = client(&authority, &[gone, address], PATIENT);
    assert!(reaches.who_am_i(WhoAmIRequest {}).await.is_ok());
    let lost = client(&authority, &[gone], Duration::ZERO);
    match lost.who_am_i(WhoAmIRequest {}).await.unwrap_err() {
        ClientError::Unreachable(tried) => {
            assert_eq!(tried.len(), 1);
            assert_eq!(tried[0].0, gone.to_string());
            assert!(tried[0].1.contains("refused"), "{tried:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn members_that_name_each_other_are_not_asked_for_ever() {
    let (authority, mut tasks) = (authority(), tasks());
    let (one, at_one) = member(&mut tasks, &authority, Script::default()).await;
    let follower = Script { leader: Some(one.to_string()), ..Script::default() };
    let (two, _) = member(&mut tasks, &authority, follower).await;
    at_one.lock().unwrap().leader = Some(two.to_string());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    // A third, whom no hint leads to, is asked as well before the call gives up.
    let client = client(&authority, &[one, two, gone], Duration::from_millis(200));
    let asked = client.who_am_i(WhoAmIRequest {});
    let error = tokio::time::timeout(Duration::from_secs(10), asked).await.expect("it ends");
    assert!(matches!(error, Err(ClientError::TimedOut(_))), "{error:?}");
}

#[tokio::test]
async fn a_token_becomes_an_identity() {
    let (authority, mut tasks) = (authority(), tasks());
    let (address, script) = member(&mut tasks, &authority, Script::default()).await;
    let token = Token::mint(TokenKind::Login, authority.trust().fingerprint());
    let logged_in = login(&address.to_string(), &token.reveal()).await.unwrap();
    assert_eq!(logged_in.name, "ann");
    assert_eq!(logged_in.identity.peer().principal, USER);
    assert_eq!(script.lock().unwrap().secrets, [Some(token.secret)]);
    let options = Options::new(vec![address.to_string()], logged_in.identity);
    let client = Client::connect(&options).unwrap();
    let answer = client.who_am_i(WhoAmIRequest {}).await.unwrap();
    assert_eq!(answer.user.unwrap().name, "user/3");
}

#[tokio::test]
async fn another_cluster_never_sees_the_secret() {
    let (ours, theirs, mut tasks) = (authority(), authority(), tasks());
    let (address, script) = member(&mut tasks, &theirs, Script::default()).await;
    let token = Token::mint(TokenKind::Login, ours.trust().fingerprint());
    let error = login(&address.to_string(), &token.reveal()).await.unwrap_err();
    assert!(matches!(error, ClientError::Distrusted(_)), "{error:?}");
    assert!(error.to_string().contains("fingerprint"), "{error}");
    assert!(script.lock().unwrap().secrets.is_empty());
    let wrong = Token::mint(TokenKind::Join, ours.trust().fingerprint());
    let error = login(&address.to_string(), &wrong.reveal()).await.unwrap_err();
    assert!(matches!(error, ClientError::Token(_)), "{error:?}");
}
