//! `yard coordinator join`: a machine becomes a member of the coordinator.
//!
//! The token names the cluster's CAs; a server that does not show them hears nothing, the secret
//! least of all. The key is on disk before anything is sent: a retry, also after a crash, asks
//! with the same one, and finds the same member.

use crate::build::Build;
use crate::folder::{Places, write_life};
use crate::place::{Place, PlaceError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};
use yard_common::id::{ClusterId, Incarnation, MemberId, RequestId, TokenId};
use yard_common::limits::{CONFIG_FILE_BYTES_MAX, LABEL_BYTES_MAX, MEMBERS_MAX};
use yard_proto::LIFE;
use yard_proto::convert::error::Refused;
use yard_proto::convert::{self, ConvertError};
use yard_proto::internal::member_service_client::MemberServiceClient;
use yard_proto::internal::{JoinMemberRequest, JoinMemberResponse};
use yard_proto::v1;
use yard_runtime::backoff::Backoff;
use yard_runtime::files::{self, FileError};
use yard_runtime::identity::{
    Authority, Identity, IdentityError, KeyRequest, Principal, Token, TokenKind,
};
use yard_runtime::tls::{self, ClientTls, ConnectError, FirstError, first_contact};

/// How long a member may take to let a machine in.
const ANSWER: Duration = Duration::from_secs(15);
/// The first and the longest wait before the next round of tries.
const WAIT_MS: (u64, u64) = (100, 2_000);
/// The key of a machine that has not joined yet.
const KEY_FILE: &str = "request.key";
/// With which token, and as which request, the machine asks or has asked.
const TOKEN_FILE: &str = "joined-with";

/// What it takes to join.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// The folder of the new member; must not exist, or be empty.
    pub folder: PathBuf,
    /// The token.
    pub token: Token,
    /// Where members are: `host:port`.
    pub members: Vec<String>,
    /// Host and port by which everybody is to reach the new one.
    pub address: String,
    /// How long to go on when nobody answers.
    pub patience: Duration,
    /// What the program understands.
    pub build: Build,
}

/// A machine that has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its number.
    pub member: MemberId,
}

/// Why a machine did not join.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The token is for something else.
    #[error(
        "this token is not one that a coordinator joins with; ask for one with \
             `yard cluster token`"
    )]
    OtherToken,
    /// Too many addresses, or none.
    #[error("{0} addresses of coordinators; give at least one, and at most {MEMBERS_MAX}")]
    Addresses(usize),
    /// The own address is not `host:port`, or too long.
    #[error("the address of the new member is not legal")]
    Address(#[source] ConnectError),
    /// The folder.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A file.
    #[error("a file of the folder failed")]
    File(#[from] FileError),
    /// Keys and certificates.
    #[error("what came cannot be used")]
    Identity(#[from] IdentityError),
    /// Whoever answers there is not the cluster of the token.
    #[error("the secret was not sent")]
    Foreign(#[source] FirstError),
    /// Nobody let the machine in, in all the time that was given.
    #[error("nobody lets this machine in: {last}")]
    Nobody {
        /// The last that was heard.
        last: String,
    },
    /// The cluster refuses.
    #[error("the cluster refuses: {}{}", .0.message, page(&.0.reason))]
    Refused(Box<Refused>),
    /// The answer is not whole.
    #[error("the answer has no {0}")]
    Missing(&'static str),
    /// The answer cannot be read.
    #[error("the answer cannot be read")]
    Convert(#[from] ConvertError),
    /// The answer speaks of somebody else.
    #[error("the answer is for {found}, and the certificate for {certified}")]
    Mixed {
        /// Of the answer.
        found: Principal,
        /// Of the certificate.
        certified: Principal,
    },
}

fn page(code: &str) -> String {
    if code.is_empty() { String::new() } else { format!(" ({code})") }
}

/// Joins, or finds out that the machine has joined with this token before.
///
/// # Errors
/// If it did not join. Unless all members refused, it may be tried again with the same token: also
/// after an address that was another cluster's, or of a former life of this one, since one before
/// it may have let the machine in.
pub async fn join(options: JoinOptions) -> Result<Joined, JoinError> {
    check(&options)?;
    let place = Place::of(&options.folder, "join")?;
    if let Some(joined) = joined_before(&options) {
        return Ok(joined);
    }
    place.check()?;
    let _lock = place.begin()?;
    let request = request(place.beside(), options.token.id)?;
    let answer = match ask_all(&options, &request).await {
        Ok(answer) => answer,
        Err(Out { error, by_all }) => {
            // Whoever was asked before, or did not answer, may have let the machine in by this key.
            if by_all && request.is_new {
                place.clear()?;
            }
            return Err(error);
        }
    };
    let joined = keep(place.beside(), request.key, answer)?;
    place.put()?;
    // Only now: a try that is cut off before needs it. The identity has it from here on.
    let key_file = options.folder.join(KEY_FILE);
    let failed = |source| PlaceError::Io { path: key_file.clone(), step: "remove", source };
    std::fs::remove_file(&key_file).map_err(failed)?;
    Ok(joined)
}

fn check(options: &JoinOptions) -> Result<(), JoinError> {
    if options.token.kind != TokenKind::Member {
        return Err(JoinError::OtherToken);
    }
    let count = options.members.len();
    if count == 0 || count > MEMBERS_MAX {
        return Err(JoinError::Addresses(count));
    }
    tls::endpoint(&options.address).map_err(JoinError::Address)?;
    if options.address.len() > LABEL_BYTES_MAX {
        let address = options.address.clone();
        return Err(JoinError::Address(ConnectError::Address(address)));
    }
    Ok(())
}

/// Who the folder makes of this machine, if it is complete and came of this token.
fn joined_before(options: &JoinOptions) -> Option<Joined> {
    let (token, _) = read_token(&options.folder)?;
    let identity = Identity::load(&Places::of(&options.folder).identity).ok()?;
    let peer = identity.peer();
    match peer.principal {
        Principal::Member(member) if token == options.token.id => {
            Some(Joined { cluster: peer.cluster, member })
        }
        Principal::Member(_) | Principal::Node(_) | Principal::User(_) => None,
    }
}

fn read_token(folder: &Path) -> Option<(TokenId, RequestId)> {
    let text = files::read_text(&folder.join(TOKEN_FILE), CONFIG_FILE_BYTES_MAX).ok()?;
    let (token, request) = text.trim().split_once(' ')?;
    Some((token.parse().ok()?, request.parse().ok()?))
}

/// How the machine asks.
struct Request {
    id: RequestId,
    key: KeyRequest,
    /// Whether nobody was asked with this key before.
    is_new: bool,
}

/// The request of an earlier try with this token, or a new one, which is then on disk.
fn request(folder: &Path, token: TokenId) -> Result<Request, JoinError> {
    let key_file = folder.join(KEY_FILE);
    let found = read_token(folder).filter(|(found, _)| *found == token);
    if let Some((_, id)) = found
        && let Ok(key) = KeyRequest::load(&key_file)
    {
        return Ok(Request { id, key, is_new: false });
    }
    let (id, key) = (RequestId::from_u128(rand::random()), KeyRequest::new()?);
    key.save(&key_file)?;
    let text = format!("{token} {id}\n");
    // Last: with it the request is complete.
    files::write_durably(&folder.join(TOKEN_FILE), text.as_bytes(), files::PRIVATE)?;
    Ok(Request { id, key, is_new: true })
}

/// What a member gave, over a connection that was verified.
struct Answer {
    response: JoinMemberResponse,
    tls: Arc<ClientTls>,
}

/// Why one member did not let the machine in.
enum Failure {
    /// It is no use to go on.
    Final(JoinError),
    /// It refuses, and says of which life of the cluster it is.
    Refused(Incarnation, Box<Refused>),
    /// Another member, or a later time, may do.
    Again(String),
}

/// Why nobody let the machine in.
struct Out {
    error: JoinError,
    /// Whether each member that was named refused.
    by_all: bool,
}

impl From<JoinError> for Out {
    fn from(error: JoinError) -> Out {
        Out { error, by_all: false }
    }
}

async fn ask_all(options: &JoinOptions, request: &Request) -> Result<Answer, Out> {
    let mut backoff = Backoff::new(WAIT_MS.0, WAIT_MS.1);
    let begun = Instant::now();
    loop {
        let mut refusals = Vec::new();
        let mut last = String::new();
        for address in &options.members {
            match ask(options, request, address).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error.into()),
                Err(Failure::Refused(life, refused)) => refusals.push((life, refused)),
                Err(Failure::Again(text)) => last = text,
            }
        }
        let by_all = refusals.len() == options.members.len();
        // One of a former life knows nothing of the tokens of this one.
        if let Some((_, refused)) = refusals.into_iter().max_by_key(|(life, _)| *life) {
            return Err(Out { error: JoinError::Refused(refused), by_all });
        }
        let wait = backoff.next(rand::random());
        if begun.elapsed() + wait > options.patience {
            return Err(JoinError::Nobody { last }.into());
        }
        sleep(wait).await;
    }
}

async fn ask(options: &JoinOptions, request: &Request, address: &str) -> Result<Answer, Failure> {
    let contact = first_contact(address, options.token.fingerprint).await;
    let (channel, tls): (Channel, _) = contact.map_err(|error| match error {
        FirstError::Foreign { .. } => Failure::Final(JoinError::Foreign(error)),
        FirstError::Unreachable { .. } => Failure::Again(error.to_string()),
    })?;
    let message = JoinMemberRequest {
        request_id: convert::request_id_bytes(request.id),
        token_id: convert::token_id_bytes(options.token.id),
        token_secret: Some(v1::Secret::from(options.token.secret.reveal().to_string())),
        csr_der: request.key.der().to_vec().into(),
        address: options.address.clone(),
        version: options.build.version.into(),
        feature_level_max: options.build.feature_level_max.0,
    };
    let mut client = MemberServiceClient::new(channel);
    match timeout(ANSWER, client.join(message)).await {
        Err(_) => Err(Failure::Again(format!("{address} does not answer"))),
        Ok(Ok(response)) => Ok(Answer { response: response.into_inner(), tls }),
        Ok(Err(status)) => Err(judged(address, &status)),
    }
}

/// What a status means: most of them pass.
fn judged(address: &str, status: &Status) -> Failure {
    match status.code() {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Aborted
        | Code::ResourceExhausted
        | Code::Unknown
        | Code::Internal => {
            Failure::Again(format!("{address}: {}: {}", status.code(), status.message()))
        }
        _ => {
            let told = status.metadata().get(LIFE);
            let life = told.and_then(|told| told.to_str().ok()?.parse().ok());
            Failure::Refused(Incarnation(life.unwrap_or(0)), Box::new(Refused::read(status)))
        }
    }
}

/// Writes down who the machine is now.
fn keep(folder: &Path, key: KeyRequest, answer: Answer) -> Result<Joined, JoinError> {
    let Answer { response, tls } = answer;
    let trust = tls.learned().ok_or(JoinError::Missing("authority"))?;
    let certificate = response.certificate.as_ref().ok_or(JoinError::Missing("certificate"))?;
    let leaf = certificate.chain_der.first().ok_or(JoinError::Missing("certificate"))?;
    let identity = key.complete(leaf, trust.clone())?;
    let member = MemberId(response.member_id);
    let (found, certified) = (Principal::Member(member), identity.peer().principal);
    if found != certified {
        return Err(JoinError::Mixed { found, certified });
    }
    let cluster = convert::cluster_id(&response.cluster_id)?;
    if cluster != trust.cluster() {
        return Err(IdentityError::BadBundle("it is of another cluster").into());
    }
    // A member that does not say has never heard of another life than the first.
    let life = Incarnation(response.incarnation.max(1));
    let keys: Vec<&str> = response.authority_key_pem.iter().map(|key| &*key.text).collect();
    let authority = Authority::from_keys(&trust, &keys)?;
    let places = Places::of(folder);
    // What a try left that was cut off here.
    for old in [&places.authority, &places.identity] {
        if old.exists() {
            let failed = |source| PlaceError::Io { path: old.clone(), step: "remove", source };
            std::fs::remove_dir_all(old).map_err(failed)?;
        }
    }
    authority.save(&places.authority)?;
    identity.save(&places.identity)?;
    write_life(&places, life)?;
    Ok(Joined { cluster, member })
}
