//! `yard agent join`: a machine becomes a node.
//!
//! The token names the cluster's CAs; a server that does not show them hears nothing, the secret
//! least of all. The request is on disk before it is sent: a retry, also after a crash, asks for
//! the very same and finds the same node.

use crate::cgroup::Support;
use crate::health::{self, Ours};
use crate::inventory::{self, InventoryError};
use crate::session::MemoryError;
use crate::session::certificate::{self, CertificateError};
use crate::session::memory::{JoinFile, Memory, NodeFile};
use crate::session::roster::Roster;
use crate::session::{facts, link};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;
use yard_common::id::{ClusterId, Generation, Incarnation, LeaseId, NodeId, RequestId};
use yard_common::limits::{LABEL_BYTES_MAX, MEMBERS_MAX};
use yard_proto::convert::error::Refused;
use yard_proto::convert::{self, ConvertError};
use yard_proto::internal::{JoinRequest, JoinResponse};
use yard_proto::v1;
use yard_proto::wire::{Payload, PayloadError};
use yard_runtime::backoff::Backoff;
use yard_runtime::files::{FileError, FolderLock};
use yard_runtime::identity::{IdentityError, KeyRequest, Principal, Token, TokenKind};
use yard_runtime::tls::{ClientTls, FirstError, first_contact};

/// How long a member may take to let a machine in.
const ANSWER: Duration = Duration::from_secs(15);
/// The first and the longest wait before the next round of tries.
const WAIT_MS: (u64, u64) = (100, 2_000);

/// What it takes to join.
#[derive(Clone, Debug)]
pub struct Options {
    /// The agent's directory; absolute.
    pub directory: PathBuf,
    /// The token.
    pub token: Token,
    /// Where members may be: `host:port`.
    pub addresses: Vec<String>,
    /// The name that the node is to have.
    pub name: String,
    /// Address that other nodes reach this one by; none: its host name.
    pub address: Option<String>,
    /// Labels, sorted by key.
    pub labels: Vec<(String, String)>,
    /// Pretend to have so many GPUs: for `yard dev` alone.
    pub gpus_fake: Option<u16>,
    /// How GPUs are asked for.
    pub health: health::Options,
    /// How long to go on when nobody answers.
    pub patience: Duration,
}

/// A machine that has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its number.
    pub node: NodeId,
    /// Its name.
    pub name: String,
}

impl From<NodeFile> for Joined {
    fn from(file: NodeFile) -> Joined {
        Joined { cluster: file.cluster, node: file.node, name: file.name }
    }
}

/// Who the machine is, if it has joined.
///
/// # Errors
/// If the file that says so cannot be read.
pub fn joined(directory: &Path) -> Result<Option<Joined>, JoinError> {
    Ok(Memory::new(directory).node()?.map(Joined::from))
}

/// Why a machine did not join.
#[derive(Debug, Error)]
pub enum JoinError {
    /// There can be no thread.
    #[error("no thread can be started")]
    Threads(#[source] std::io::Error),
    /// The token is for something else.
    #[error("this token is not one that a machine joins with; ask for one with `yard node invite`")]
    OtherToken,
    /// Too many addresses, or none.
    #[error("{0} addresses of the coordinator; give at least one, and at most {MEMBERS_MAX}")]
    Addresses(usize),
    /// The directory is that of a node already.
    #[error(
        "{directory} belongs to node {name} of cluster {cluster}; move it away to join as another"
    )]
    Taken {
        /// The directory.
        directory: PathBuf,
        /// The node.
        name: String,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// An agent runs there, or another one joins.
    #[error("the directory is in use")]
    InUse(#[source] FileError),
    /// A file of the agent failed.
    #[error("what the agent knows of itself cannot be kept")]
    Memory(#[from] MemoryError),
    /// The machine cannot be described.
    #[error("the machine cannot be described")]
    Inventory(#[from] InventoryError),
    /// The inventory is longer than any machine's.
    #[error("the machine has more than can be told")]
    Payload(#[from] PayloadError),
    /// No key.
    #[error("no key can be made")]
    Key(#[source] IdentityError),
    /// Whoever answers there is not the cluster of the token. The secret was not sent.
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
    /// What the cluster answered cannot be used.
    #[error("the answer cannot be used")]
    Certificate(#[source] Box<dyn Error + Send + Sync>),
    /// The answer is not whole.
    #[error("the answer cannot be read: {0}")]
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

impl From<CertificateError> for JoinError {
    fn from(error: CertificateError) -> JoinError {
        JoinError::Certificate(Box::new(error))
    }
}

fn page(code: &str) -> String {
    if code.is_empty() { String::new() } else { format!(" ({code})") }
}

/// Joins, or finds out that the machine has joined with this token before.
///
/// # Errors
/// If it did not join. It may be tried again with the same token.
pub async fn join(options: Options) -> Result<Joined, JoinError> {
    if options.token.kind != TokenKind::Join {
        return Err(JoinError::OtherToken);
    }
    let count = options.addresses.len();
    let legal = |address: &String| address.len() <= LABEL_BYTES_MAX + 6;
    if count == 0 || count > MEMBERS_MAX || !options.addresses.iter().all(legal) {
        return Err(JoinError::Addresses(count));
    }
    let memory = Memory::create(&options.directory)?;
    let _lock = FolderLock::take(memory.folder()).map_err(JoinError::InUse)?;
    if let Some(node) = memory.node()? {
        if node.token == options.token.id {
            return Ok(node.into());
        }
        let (name, cluster) = (node.name, node.cluster);
        return Err(JoinError::Taken { directory: options.directory, name, cluster });
    }
    let request = request(&memory, &options).await?;
    let answer = ask_all(&options, &request).await?;
    keep(&memory, &options, request, answer)
}

/// The request of an earlier try with this token, or a new one, which is then on disk.
async fn request(memory: &Memory, options: &Options) -> Result<JoinFile, JoinError> {
    let token = options.token.id;
    if let Some(found) = memory.join()?.filter(|found| found.token == token) {
        return Ok(found);
    }
    let look = inventory::Options {
        root: options.directory.clone(),
        address: options.address.clone(),
        labels: options.labels.clone(),
        gpus_fake: options.gpus_fake,
        node: options.name.clone(),
        // A later one is told by its agent.
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let ours = Ours::new(None, PathBuf::new());
    let probe = facts::probe(&look, &options.health, ours).map_err(JoinError::Threads)?;
    let devices = probe.watch().fresh().await.found.devices.clone();
    let facts = facts::look(&look, &Support::none(), devices).await?;
    let request = RequestId::from_u128(rand::random());
    let (name, inventory) = (options.name.clone(), facts.inventory);
    let file = JoinFile { token, request, name, inventory };
    memory.save_join(&file)?;
    Ok(file)
}

/// What a member gave, and the key that it is for.
struct Answer {
    response: JoinResponse,
    key: KeyRequest,
    tls: std::sync::Arc<ClientTls>,
}

/// Why one member did not let the machine in.
enum Failure {
    /// It is no use to go on.
    Final(JoinError),
    /// Another member, or a later time, may do.
    Again(String),
}

async fn ask_all(options: &Options, request: &JoinFile) -> Result<Answer, JoinError> {
    let mut backoff = Backoff::new(WAIT_MS.0, WAIT_MS.1);
    let begun = Instant::now();
    loop {
        let mut last = String::new();
        for address in &options.addresses {
            match ask(options, request, address).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again(text)) => last = text,
            }
        }
        let wait = backoff.next(rand::random());
        if begun.elapsed() + wait > options.patience {
            return Err(JoinError::Nobody { last });
        }
        sleep(wait).await;
    }
}

async fn ask(options: &Options, request: &JoinFile, address: &str) -> Result<Answer, Failure> {
    let contact = first_contact(address, options.token.fingerprint).await;
    let (channel, tls) = contact.map_err(|error| match error {
        FirstError::Foreign { .. } => Failure::Final(JoinError::Foreign(error)),
        FirstError::Unreachable { .. } => Failure::Again(error.to_string()),
    })?;
    let key = KeyRequest::new().map_err(|error| Failure::Final(JoinError::Key(error)))?;
    let message = message(options, request, &key).map_err(Failure::Final)?;
    let asked = timeout(ANSWER, link::bounded(channel).join(message)).await;
    match asked {
        Err(_) => Err(Failure::Again(format!("{address} does not answer"))),
        Ok(Ok(response)) => Ok(Answer { response: response.into_inner(), key, tls }),
        Ok(Err(status)) => match status.code() {
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Aborted
            | Code::ResourceExhausted
            | Code::Unknown
            | Code::Internal => Err(Failure::Again(format!("{address}: {}", link::told(&status)))),
            _ => Err(Failure::Final(JoinError::Refused(Box::new(Refused::read(&status))))),
        },
    }
}

fn message(
    options: &Options,
    request: &JoinFile,
    key: &KeyRequest,
) -> Result<JoinRequest, JoinError> {
    let secret = options.token.secret.reveal();
    Ok(JoinRequest {
        request_id: convert::request_id_bytes(request.request),
        token_id: convert::token_id_bytes(request.token),
        token_secret: Some(v1::Secret::from(secret.to_string())),
        csr_der: key.der().to_vec().into(),
        name: request.name.clone(),
        inventory: request.inventory.to_payload()?,
    })
}

/// Writes down who the machine is now.
fn keep(
    memory: &Memory,
    options: &Options,
    request: JoinFile,
    answer: Answer,
) -> Result<Joined, JoinError> {
    let Answer { response, key, tls } = answer;
    let missing = CertificateError::Missing;
    let trust = tls.learned().ok_or(missing("authority"))?;
    let certificate = response.certificate.as_ref().ok_or(missing("certificate"))?;
    let identity = certificate::complete(key, certificate, &trust)?;
    let node = NodeId(response.node_id);
    let (found, certified) = (Principal::Node(node), identity.peer().principal);
    if found != certified {
        return Err(JoinError::Mixed { found, certified });
    }
    let cluster = convert::cluster_id(&response.cluster_id)?;
    if cluster != trust.cluster() {
        return Err(
            CertificateError::from(IdentityError::BadBundle("it is of another cluster")).into()
        );
    }
    identity.save(memory.folder()).map_err(MemoryError::from)?;
    let roster = response.members.as_ref().and_then(Roster::read).unwrap_or_default();
    memory.save_members(&roster.to_file())?;
    memory.save_inventory(&request.inventory)?;
    let file = NodeFile {
        cluster,
        node,
        name: request.name,
        lease: LeaseId(response.lease_id),
        incarnation: Incarnation(response.incarnation),
        generation: Generation(response.generation),
        lease_ms: response.lease_ms,
        token: request.token,
        addresses: options.addresses.clone(),
    };
    // Last: with it the machine has joined.
    memory.save_node(&file)?;
    memory.remove_join()?;
    Ok(file.into())
}
