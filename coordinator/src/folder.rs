//! The folder of a member: what lies where, and how it is made.
//!
//! | path | what |
//! |---|---|
//! | `authority/` | the keys that sign certificates; only on members that issue them |
//! | `identity/` | the member's own certificate and key, and whom it trusts |
//! | `data/` | log, snapshots and promises |
//! | `copies/` | copies of what ranks wrote; may be missing |
//! | `attempts/` | what is remembered of attempts; may be missing |
//! | `life` | which life of the cluster it is of; only after a restore |
//!
//! **Invariant.** The folder is complete or not there: [`init`] and [`crate::join`] make it beside
//! its place, and rename it when a cluster of one member has begun in it, or when the machine is a
//! member.

use crate::build::Build;
use crate::env::Env;
use crate::pace::Pace;
use crate::peers::Peers;
use crate::place::{Place, PlaceError};
use crate::proposer::{self, DiskOptions, StartError};
use crate::raft::{FatalError, MembersError};
use crate::storage::{self, Peer};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use yard_common::id::{ClusterId, Incarnation, MemberId, PrincipalId};
use yard_common::limits::CONFIG_FILE_BYTES_MAX;
use yard_core::command::{Cluster, Command, Rejection};
use yard_runtime::files::{self, FileError};
use yard_runtime::identity::{
    Authority, CERTIFICATE_LIFE_MS, Identity, IdentityError, KeyRequest, Principal, Trust,
};
use yard_runtime::tls::{self, ClientTls, ConnectError, TlsError};

/// The first member of every cluster.
const FIRST: MemberId = MemberId(1);
/// The first life of every cluster.
pub(crate) const FIRST_LIFE: Incarnation = Incarnation(1);
/// The user that `Initialise` makes.
const FIRST_USER: PrincipalId = PrincipalId(0);

/// Where the parts of a folder lie.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) authority: PathBuf,
    pub(crate) identity: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) copies: PathBuf,
    pub(crate) attempts: PathBuf,
    pub(crate) life: PathBuf,
}

impl Places {
    pub(crate) fn of(folder: &Path) -> Places {
        Places {
            authority: folder.join("authority"),
            identity: folder.join("identity"),
            data: folder.join("data"),
            copies: folder.join("copies"),
            attempts: folder.join("attempts"),
            life: folder.join("life"),
        }
    }
}

/// What a new cluster begins with.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// The folder of its first member; must not exist, or be empty.
    pub folder: PathBuf,
    /// Host and port that everybody reaches the member by.
    pub address: String,
    /// Name of the first administrator.
    pub admin: String,
    /// Its login on the machines.
    pub admin_unix: Option<String>,
}

/// A cluster that was made.
#[derive(Clone, Debug)]
pub struct Initialised {
    /// The cluster.
    pub cluster: ClusterId,
    /// Certificate and key of the first administrator; nowhere else.
    pub admin: Identity,
    /// Its name.
    pub admin_name: String,
    /// Where the cluster is reached.
    pub address: String,
}

/// Why no cluster was made.
#[derive(Debug, Error)]
pub enum InitError {
    /// The folder, or the place beside it.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The address is not `host:port`.
    #[error("the address of the member is not legal")]
    Address(#[source] ConnectError),
    /// Keys and certificates.
    #[error("the authority could not be made")]
    Identity(#[from] IdentityError),
    /// Connections.
    #[error("the new certificate cannot be used")]
    Tls(#[from] TlsError),
    /// The log.
    #[error("the log could not be begun")]
    Start(#[from] StartError),
    /// The consensus.
    #[error("the cluster could not be begun")]
    Begin(#[from] MembersError),
    /// The first command.
    #[error("the cluster could not be initialised: {0}")]
    Refused(Rejection),
    /// The disk.
    #[error("the member stopped")]
    Fatal(#[source] Arc<FatalError>),
}

/// Makes the authority, the first member, the first administrator, and the workspace, pool and
/// queue `default`. Nothing is left behind when it fails.
///
/// # Errors
/// The step that failed.
pub async fn init(options: InitOptions, env: Arc<dyn Env>) -> Result<Initialised, InitError> {
    let InitOptions { folder, address, admin, admin_unix } = options;
    tls::endpoint(&address).map_err(InitError::Address)?;
    let place = Place::of(&folder, "new")?;
    place.check()?;
    let _lock = place.begin_anew()?;
    let made = fill(place.beside(), &address, &admin, admin_unix, &env).await;
    let (cluster, admin_identity) = match made {
        Ok(made) => made,
        Err(error) => {
            // The first error tells more than one of the clearing up.
            let _ = place.clear();
            return Err(error);
        }
    };
    place.put()?;
    Ok(Initialised { cluster, admin: admin_identity, admin_name: admin, address })
}

async fn fill(
    folder: &Path,
    address: &str,
    admin: &str,
    unix: Option<String>,
    env: &Arc<dyn Env>,
) -> Result<(ClusterId, Identity), InitError> {
    let places = Places::of(folder);
    let bits = u128::from(env.random()) << 64 | u128::from(env.random());
    let cluster = ClusterId::from_u128(bits);
    let authority = Authority::create(cluster, env.wall_ms())?;
    authority.save(&places.authority)?;
    let identity = certify(&authority, Principal::Member(FIRST), address, &**env)?;
    identity.save(&places.identity)?;
    let own = storage::Identity { cluster, incarnation: FIRST_LIFE, member: FIRST };
    let (tls, pace) = (ClientTls::new(&identity)?, Pace::new(proposer::ROUND_TRIP_MS));
    let peers = Arc::new(Peers::new(tls, Arc::clone(env), own.incarnation, pace));
    // How much room there must be is a setting of the process that will run.
    let disk = DiskOptions { floor_bytes: 0, reserve_bytes: 0, ..DiskOptions::DEFAULT };
    let (folder, round_trip_ms, build) = (places.data, proposer::ROUND_TRIP_MS, Build::CURRENT);
    let options = proposer::Options { identity: own, folder, disk, round_trip_ms, build };
    let service = proposer::Service::start(options, Arc::clone(env), peers).await?;
    let handle = service.handle();
    let first = Cluster::Initialise { cluster, admin: admin.to_string(), unix };
    let peer = Peer { address: address.to_string() };
    let begun = handle.init_cluster(peer, &Command::Cluster(first)).await;
    handle.shutdown();
    service.wait().await.map_err(InitError::Fatal)?;
    begun?.map_err(InitError::Refused)?;
    let admin = certify(&authority, Principal::User(FIRST_USER), "", &**env)?;
    Ok((cluster, admin))
}

/// Makes a key, and a certificate for it. `address`: where the holder's server is reached; empty
/// for those that have none.
pub(crate) fn certify(
    authority: &Authority,
    principal: Principal,
    address: &str,
    env: &dyn Env,
) -> Result<Identity, IdentityError> {
    let request = KeyRequest::new()?;
    let names: Vec<String> = host_of(address).into_iter().collect();
    let life_ms = CERTIFICATE_LIFE_MS;
    let issued = authority.issue(request.der(), principal, &names, env.wall_ms(), life_ms)?;
    let trust: Trust = authority.trust().clone();
    request.complete(&issued.certificate, trust)
}

/// The host of `host:port`.
pub(crate) fn host_of(address: &str) -> Option<String> {
    let (host, _) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| host.to_string())
}

/// Whose folder it is.
pub(crate) fn owner(identity: &Identity, incarnation: Incarnation) -> Option<storage::Identity> {
    let peer = identity.peer();
    match peer.principal {
        Principal::Member(member) => {
            Some(storage::Identity { cluster: peer.cluster, incarnation, member })
        }
        Principal::Node(_) | Principal::User(_) => None,
    }
}

/// Writes down which life of the cluster a folder is of.
pub(crate) fn write_life(places: &Places, life: Incarnation) -> Result<(), FileError> {
    files::write_durably(&places.life, format!("{life}\n").as_bytes(), files::PRIVATE)
}

/// Which life of the cluster a folder is of. One that lost the file is refused by its data, which
/// names its life too.
pub(crate) fn read_life(places: &Places) -> Result<Incarnation, LifeError> {
    match files::read_text(&places.life, CONFIG_FILE_BYTES_MAX) {
        Ok(text) => match text.trim().parse() {
            Ok(number) => Ok(Incarnation(number)),
            Err(_) => Err(LifeError::Unreadable(places.life.clone())),
        },
        Err(FileError::Open(_, error)) if error.kind() == io::ErrorKind::NotFound => Ok(FIRST_LIFE),
        Err(error) => Err(error.into()),
    }
}

/// Why it is not known of which life a folder is.
#[derive(Debug, Error)]
pub enum LifeError {
    /// The file.
    #[error("the life of the folder cannot be read")]
    File(#[from] FileError),
    /// It says something else.
    #[error("{} names no life of a cluster", .0.display())]
    Unreadable(PathBuf),
}
