//! A member as a whole: `Options -> Service -> Handle`.

use crate::api::{self, GateLayer};
use crate::build::Build;
use crate::certificate::{self, Certificate, ReplaceError};
use crate::copies::Copies;
use crate::env::{Env, Listener, Socket};
use crate::folder::{LifeError, Places, certify, owner, read_life};
use crate::leader;
use crate::member::attempts::Attempts;
use crate::member::barrier::Barrier;
use crate::member::leases::{self, Leases};
use crate::member::notebook::{self, Notebook};
use crate::member::recent::Recent;
use crate::member::{Member, catch_up, follow, recall};
use crate::pace::Pace;
use crate::peers::Peers;
use crate::proposer::{self, DiskOptions, Leadership, StartError};
use crate::raft::{FatalError, Transport};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use yard_common::ErrorCode;
use yard_common::id::LeaderId;
use yard_common::limits::{BACKUPS_MAX, HEADER_BYTES_MAX, STREAMS_PER_CONNECTION_MAX};
use yard_common::spec::{Feature, Features};
use yard_core::lease::LeaseTimes;
use yard_proto::PUBLIC_DESCRIPTORS;
use yard_runtime::identity::{Authority, Identity, IdentityError, Principal};
use yard_runtime::shutdown::{Ended, Tasks};
use yard_runtime::tls::{Admit, Bounds, ClientTls, Incoming, ServerTls, TlsError};

/// How long writes that came before the next leader worked may take to be answered by it.
const LAST_ANSWERS: Duration = Duration::from_millis(50);
/// How long calls in progress may take to end when this member stops.
const GRACE: Duration = Duration::from_secs(5);
/// How long an address may be another process's before it is an error, and between two tries.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(1);
const ADDRESS_AGAIN: Duration = Duration::from_millis(10);
/// Pings on connections where nothing else happens, and how long an answer may take.
const PING: Duration = Duration::from_secs(10);
/// The status with which a process ends whose member had to stop.
pub const EXIT_CODE: u8 = 70;
/// The status with which a process ends whose folder cannot be relied on, or is not its own: to
/// start it again does not help.
pub const EXIT_FOLDER: u8 = 65;
/// The status with which a process ends whose program is too old for its cluster: to start it again
/// does not help, to install a later version does.
pub const EXIT_VERSION: u8 = 78;

/// What a member needs to run. Its folder was made by [`crate::init`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Its folder.
    pub folder: PathBuf,
    /// The account that it is to run as; none: any.
    pub user: Option<String>,
    /// Where it listens.
    pub listen: SocketAddr,
    /// What jobs may ask for.
    pub features: Features,
    /// How it treats its disk.
    pub disk: DiskOptions,
    /// The longest lease that a pool may give its nodes; the same on all members.
    pub lease: LeaseTimes,
    /// The longest usual round trip to another member, in milliseconds; the same on all members.
    pub round_trip_ms: u64,
    /// What the program understands.
    pub build: Build,
}

impl Options {
    /// A member with the defaults of this version.
    #[must_use]
    pub fn new(folder: PathBuf, listen: SocketAddr) -> Options {
        let (disk, lease, build) = (DiskOptions::DEFAULT, LeaseTimes::DEFAULT, Build::CURRENT);
        let round_trip_ms = proposer::ROUND_TRIP_MS;
        let (user, features) = (None, features());
        Options { folder, user, listen, features, disk, lease, round_trip_ms, build }
    }
}

/// What jobs may ask for in this version.
#[must_use]
pub fn features() -> Features {
    let there = [
        Feature::Arrays,
        Feature::Sweeps,
        Feature::Dependencies,
        Feature::StartTimes,
        Feature::GpuShares,
        Feature::LaunchTorch,
        Feature::LaunchMpi,
        Feature::LaunchCustom,
        Feature::LogLimits,
        Feature::LogDirs,
        Feature::Prepare,
        Feature::Stalls,
    ];
    there.into_iter().fold(Features::NONE, Features::with)
}

/// Why a member cannot start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Its certificate or its authority.
    #[error("the identity of the member cannot be used; was `coordinator init` run?")]
    Identity(#[from] IdentityError),
    /// Of which life of the cluster it is.
    #[error(transparent)]
    Life(#[from] LifeError),
    /// The certificate is somebody else's.
    #[error("the certificate in the folder is that of {0}, not of a member")]
    NotAMember(Principal),
    /// Connections.
    #[error("the certificate cannot be used")]
    Tls(#[from] TlsError),
    /// The address is taken, or not one of this machine.
    #[error("cannot listen at {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// What tells of the calls cannot be built.
    #[error("the descriptors of the calls cannot be read")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The log or the consensus.
    #[error("the member cannot start")]
    Start(#[from] proposer::StartError),
    /// The disk, or a broken rule: the process must end with [`EXIT_CODE`].
    #[error("the member had to stop")]
    Fatal(#[source] Arc<FatalError>),
    /// A part of the member ended by itself.
    #[error("the part {} of the member ended: {:?}", .0.name, .0.outcome)]
    Part(Ended),
}

impl ServeError {
    /// The page that says more.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ServeError::Start(StartError::Storage(error)) => error.code(),
            ServeError::Start(StartError::Consensus(error)) | ServeError::Fatal(error) => {
                error.code()
            }
            ServeError::Identity(_)
            | ServeError::Life(_)
            | ServeError::NotAMember(_)
            | ServeError::Tls(_)
            | ServeError::Listen(..)
            | ServeError::Reflection(_)
            | ServeError::Part(_) => None,
        }
    }

    /// Whether the program is too old for its cluster: the process ends with [`EXIT_VERSION`].
    #[must_use]
    pub fn is_of_version(&self) -> bool {
        match self {
            ServeError::Start(StartError::Consensus(error)) | ServeError::Fatal(error) => {
                error.is_of_version()
            }
            ServeError::Start(StartError::Storage(_))
            | ServeError::Identity(_)
            | ServeError::Life(_)
            | ServeError::NotAMember(_)
            | ServeError::Tls(_)
            | ServeError::Listen(..)
            | ServeError::Reflection(_)
            | ServeError::Part(_) => false,
        }
    }

    /// Whether what is in the folder cannot be relied on: the process ends with [`EXIT_FOLDER`].
    #[must_use]
    pub fn is_of_folder(&self) -> bool {
        match self {
            ServeError::Start(StartError::Storage(error)) => error.is_of_content(),
            ServeError::Start(StartError::Consensus(error)) | ServeError::Fatal(error) => {
                error.is_of_content()
            }
            ServeError::Life(LifeError::Unreadable(_)) => true,
            ServeError::Identity(_)
            | ServeError::Life(LifeError::File(_))
            | ServeError::NotAMember(_)
            | ServeError::Tls(_)
            | ServeError::Listen(..)
            | ServeError::Reflection(_)
            | ServeError::Part(_) => false,
        }
    }
}

/// A running member.
pub struct Service {
    handle: Handle,
    member: Arc<Member>,
    raft: proposer::Service,
    tasks: Tasks,
}

/// Controls a running member. Clones are the same one.
#[derive(Clone)]
pub struct Handle {
    member: Arc<Member>,
    listen: SocketAddr,
    asked: CancellationToken,
}

impl Handle {
    /// Where it listens; the port is real even if 0 was asked for.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Asks it to stop in order; [`Service::wait`] returns when it has.
    pub fn shutdown(&self) {
        self.asked.cancel();
    }

    /// Reads its certificate again, for connections from now on.
    ///
    /// # Errors
    /// If it cannot be read or used; the old one stays.
    pub fn reload(&self) -> Result<(), ReplaceError> {
        self.member.certificate.reload()
    }

    /// Waits until it serves: some member leads, and this one has everything that was answered
    /// before it started. False: it has stopped.
    pub async fn ready(&self) -> bool {
        let known = |now: &Leadership| match now {
            Leadership::Leader { .. } => true,
            Leadership::Follower { leader } => leader.is_some(),
        };
        let mut caught_up = self.member.caught_up.changes();
        let mut leadership = self.member.raft.leadership();
        tokio::select! {
            () = self.member.stop.cancelled() => false,
            there = caught_up.wait_for(|there| *there) => {
                there.is_ok() && leadership.wait_for(known).await.is_ok()
            }
        }
    }

    /// The replicated state below it, for tools and tests.
    #[must_use]
    pub fn raft(&self) -> proposer::Handle {
        self.member.raft.clone()
    }
}

/// What is read from the folder.
struct Opened {
    identity: Identity,
    authority: Option<Authority>,
}

fn open(places: &Places, env: &dyn Env) -> Result<Opened, ServeError> {
    let mut identity = Identity::load(&places.identity)?;
    let authority = match places.authority.exists() {
        true => Some(Authority::load(&places.authority)?),
        false => None,
    };
    // A member that was down for long comes back with a certificate that nobody believes.
    if let Some(authority) =
        authority.as_ref().filter(|_| !identity.peer().is_current(env.wall_ms()))
    {
        identity = certify(authority, identity.peer().principal, "", env)?;
        identity.save(&places.identity)?;
    }
    Ok(Opened { identity, authority })
}

/// What an earlier process of the member knew of attempts, and where it is written down.
fn remembered(places: &Places, env: &Arc<dyn Env>) -> (Notebook, Attempts) {
    let (notebook, noted) = Notebook::open(places.attempts.clone(), Arc::clone(env));
    let attempts = Attempts::default();
    attempts.remember(noted);
    (notebook, attempts)
}

/// Starts what a member does of its own accord.
fn go_on(member: &Arc<Member>, notebook: Notebook, tasks: &mut Tasks) {
    let stop = || member.stop.clone();
    tasks.spawn("notebook", notebook::run(Arc::clone(member), notebook, stop()));
    tasks.spawn("recall", recall::run(Arc::clone(member), stop()));
    tasks.spawn("leases", leases::live(Arc::clone(member), stop()));
    tasks.spawn("catching up", catch_up::run(Arc::clone(member), stop()));
    tasks.spawn("leader", leader::run(Arc::clone(member), stop()));
    tasks.spawn("certificate", certificate::run(Arc::clone(member), stop()));
    tasks.spawn("standing", stand(Arc::clone(member), stop()));
}

impl Service {
    /// Starts a member from its folder, and serves.
    ///
    /// # Errors
    /// The part that cannot start.
    pub async fn start(options: Options, env: Arc<dyn Env>) -> Result<Service, ServeError> {
        let places = Places::of(&options.folder);
        let Opened { identity, authority } = open(&places, &*env)?;
        let own = owner(&identity, read_life(&places)?);
        let own = own.ok_or(ServeError::NotAMember(identity.peer().principal))?;
        let server_tls = ServerTls::new(&identity, Admit::Strangers)?;
        let client_tls = ClientTls::new(&identity)?;
        let listener = patiently(|| env.listen(options.listen)).await;
        let listener = listener.map_err(|error| ServeError::Listen(options.listen, error))?;
        let listen = listener.local_addr();
        let listen = listen.map_err(|error| ServeError::Listen(options.listen, error))?;
        let incoming = Incoming::new(listener, Arc::clone(&server_tls), Bounds::default());
        let (life, pace) = (own.incarnation, Pace::new(options.round_trip_ms));
        let peers = Peers::new(Arc::clone(&client_tls), Arc::clone(&env), life, pace);
        let peers = Arc::new(peers);
        let transport = Arc::clone(&peers) as Arc<dyn Transport>;
        let copies = Copies::new(places.copies.clone(), Arc::clone(&env));
        let (notebook, attempts) = remembered(&places, &env);
        let (folder, disk) = (places.data.clone(), options.disk);
        let (round_trip_ms, build) = (options.round_trip_ms, options.build);
        let data = proposer::Options { identity: own, folder, disk, round_trip_ms, build };
        let raft = proposer::Service::start(data, Arc::clone(&env), transport).await?;
        let handle = raft.handle();
        let (index, state, updates) = handle.subscribe();
        let (leases, promiser) =
            Leases::new(own.member, options.lease, Arc::clone(&env), &handle, &state);
        let (barrier, confirmer) =
            Barrier::new(handle.clone(), Arc::clone(&peers), Arc::clone(&env), pace);
        attempts.start_anew(&state);
        let stop = CancellationToken::new();
        let certificate =
            Certificate::new(places, identity, server_tls, client_tls, Arc::clone(&peers));
        let member = Arc::new(Member {
            id: own.member,
            cluster: own.cluster,
            life,
            pace,
            features: options.features,
            build,
            env,
            raft: handle,
            leases,
            recent: Recent::new(index),
            attempts,
            plays: Default::default(),
            backups: Arc::new(Semaphore::new(BACKUPS_MAX)),
            barrier,
            caught_up: Default::default(),
            sessions: Default::default(),
            tickets: Default::default(),
            copies,
            peers,
            authority,
            certificate: Arc::new(certificate),
            counters: Default::default(),
            stop: stop.clone(),
        });
        let (reporter, server) = server(&member)?;
        let mut tasks = Tasks::new(stop.clone());
        tasks.spawn("follow", follow::run(Arc::clone(&member), updates, stop.clone()));
        tasks.spawn("promises", promiser.run(stop.clone()));
        tasks.spawn("reads", confirmer.run(stop.clone()));
        tasks.spawn("health", report(Arc::clone(&member), reporter, stop.clone()));
        tasks.spawn("server", serve(server, incoming, stop));
        go_on(&member, notebook, &mut tasks);
        let asked = CancellationToken::new();
        let handle = Handle { member: Arc::clone(&member), listen, asked };
        tracing::info!(member = %own.member, cluster = %own.cluster, %listen, "serves");
        Ok(Service { handle, member, raft, tasks })
    }

    /// A handle to it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until it has stopped: because it was asked to, or because something broke. A leader
    /// hands over first; everything is closed when this returns.
    ///
    /// # Errors
    /// What broke. The process must end with [`EXIT_CODE`] then.
    pub async fn wait(self) -> Result<(), ServeError> {
        let Service { handle, member, raft, mut tasks } = self;
        let raft = raft.wait();
        tokio::pin!(raft);
        let mut ended = None;
        let broken = tokio::select! {
            () = handle.asked.cancelled() => None,
            outcome = &mut raft => {
                ended = Some(outcome);
                None
            }
            part = tasks.next_ended() => part,
        };
        if ended.is_none() && broken.is_none() {
            tokio::select! {
                () = hand_over(&member) => (),
                outcome = &mut raft => ended = Some(outcome),
            }
        }
        member.stop.cancel();
        // The log goes on until nobody needs it any more.
        let closing = tasks.stop(GRACE);
        tokio::pin!(closing);
        let unclean = match ended {
            Some(_) => closing.await,
            None => tokio::select! {
                unclean = &mut closing => unclean,
                outcome = &mut raft => {
                    ended = Some(outcome);
                    closing.await
                }
            },
        };
        for part in unclean {
            tracing::debug!(?part, "a part of the member had to be stopped");
        }
        let outcome = match ended {
            Some(outcome) => outcome,
            None => {
                member.raft.shutdown();
                raft.await
            }
        };
        outcome.map_err(ServeError::Fatal)?;
        match broken {
            Some(part) => Err(ServeError::Part(part)),
            None => Ok(()),
        }
    }
}

/// Binds an address. A process that was killed a moment ago holds it until its last thread is
/// gone.
async fn patiently<T, F>(bind: impl Fn() -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let until = Instant::now() + ADDRESS_PATIENCE;
    loop {
        match bind().await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                tokio::time::sleep(ADDRESS_AGAIN).await;
            }
            bound => return bound,
        }
    }
}

/// A leader that stops lets another member take over first, if there is one.
async fn hand_over(member: &Member) {
    let Some(successor) = member.successor().await.filter(|_| member.leads()) else { return };
    tracing::info!(member = %member.id, to = %successor, "hands the lead over");
    if member.raft.transfer_leadership(successor).await.is_err() {
        return;
    }
    let works = |leader: LeaderId| leader.member != member.id;
    let mut applied = member.raft.applied();
    let taken = async {
        // Never asked of the state within the watch: whoever applies holds both.
        while !member.raft.state().1.leader.is_some_and(works) {
            if applied.changed().await.is_err() {
                return;
            }
        }
        tokio::time::sleep(LAST_ANSWERS).await;
    };
    // Whether it was taken or not: this member stops now, and the others elect one.
    let _ = timeout(member.pace.hand_over(), taken).await;
}

type Router = tonic::transport::server::Router<
    tower::layer::util::Stack<GateLayer, tower::layer::util::Identity>,
>;

/// The calls of a member, behind the gate.
fn server(member: &Arc<Member>) -> Result<(HealthReporter, Router), ServeError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(PUBLIC_DESCRIPTORS)
        .build_v1()
        .map_err(ServeError::Reflection)?;
    let router = Server::builder()
        .layer(GateLayer::new(Arc::clone(member)))
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PING))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .add_routes(api::routes(member))
        .add_service(health)
        .add_service(reflection);
    Ok((reporter, router))
}

async fn serve(
    router: Router,
    incoming: Incoming<Box<dyn Listener>, Socket>,
    stop: CancellationToken,
) {
    let ended = router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await;
    if let Err(error) = ended {
        tracing::error!(?error, "the server ended");
    }
}

/// Ends the member when another one says that it was removed: what it holds is out of date, and it
/// would stand for election for ever.
async fn stand(member: Arc<Member>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        by = member.peers.shut_out() => member.raft.fail(FatalError::Removed { by }),
    }
    stop.cancelled().await;
}

/// Says whether the member is of use.
async fn report(member: Arc<Member>, reporter: HealthReporter, stop: CancellationToken) {
    let mut leadership = member.raft.leadership();
    let mut caught_up = member.caught_up.changes();
    loop {
        leadership.borrow_and_update();
        caught_up.borrow_and_update();
        let status = match member.is_ready() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        reporter.set_service_status("", status).await;
        tokio::select! {
            () = stop.cancelled() => return,
            changed = leadership.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            // Its other end is in the member itself.
            Ok(()) = caught_up.changed() => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::io::ErrorKind;

    /// Binds an address that fails so often with an error first; how often it was tried.
    async fn tried(failures: u32, kind: ErrorKind) -> (io::Result<()>, u32) {
        let tries = Cell::new(0);
        let bind = || {
            tries.set(tries.get() + 1);
            let failed = tries.get() <= failures;
            std::future::ready(if failed { Err(kind.into()) } else { Ok(()) })
        };
        (patiently(bind).await, tries.get())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_about_to_be_free_is_waited_for() {
        let (bound, tries) = tried(20, ErrorKind::AddrInUse).await;
        assert!(bound.is_ok() && tries == 21);
        let begun = Instant::now();
        let (bound, _) = tried(u32::MAX, ErrorKind::AddrInUse).await;
        assert_eq!(bound.unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(begun.elapsed(), ADDRESS_PATIENCE);
        let (bound, tries) = tried(1, ErrorKind::AddrNotAvailable).await;
        assert!(bound.is_err() && tries == 1, "nothing else passes by itself");
    }
}
