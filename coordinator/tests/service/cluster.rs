//! A cluster of one member on loopback, and users that talk to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;
use yard_common::state::JobState;
use yard_coordinator::env::SystemEnv;
use yard_coordinator::{
    Build, Handle, InitOptions, Initialised, Options, ServeError, Service, init,
};
use yard_proto::v1::cluster_service_client::ClusterServiceClient;
use yard_proto::v1::job_service_client::JobServiceClient;
use yard_proto::v1::node_service_client::NodeServiceClient;
use yard_proto::v1::user_service_client::UserServiceClient;
use yard_proto::v1::{self, watch_response};
use yard_runtime::identity::{Identity, KeyRequest, Token, Tree, Trust};
use yard_runtime::tls::{ClientTls, Expect, channel};

/// How long anything may take before a test gives up. Nothing waits for this to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

static REQUESTS: AtomicU64 = AtomicU64::new(1);

/// A request id that was not used before.
pub(crate) fn request_id() -> bytes::Bytes {
    let number = REQUESTS.fetch_add(1, Ordering::Relaxed);
    u128::from(number).to_be_bytes().to_vec().into()
}

/// A cluster of one member.
pub(crate) struct Cluster {
    root: TempDir,
    folder: PathBuf,
    listen: SocketAddr,
    pub(crate) made: Initialised,
    pub(crate) handle: Handle,
    running: JoinHandle<Result<(), ServeError>>,
}

impl Cluster {
    /// Makes a cluster and starts it.
    pub(crate) async fn start() -> Cluster {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("member");
        // The address stands in the log, so that the port must be known before it is used.
        let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let options = InitOptions {
            folder: folder.clone(),
            address: listen.to_string(),
            admin: "ada".into(),
            admin_unix: None,
        };
        let made = init(options, Arc::new(SystemEnv)).await.unwrap();
        let (handle, running) = Cluster::run(&folder, listen, Build::CURRENT).await;
        Cluster { root, folder, listen, made, handle, running }
    }

    async fn run(
        folder: &std::path::Path,
        listen: SocketAddr,
        build: Build,
    ) -> (Handle, JoinHandle<Result<(), ServeError>>) {
        let (handle, running) = Cluster::begin(folder, listen, build).await;
        assert!(handle.ready().await);
        (handle, running)
    }

    async fn begin(
        folder: &std::path::Path,
        listen: SocketAddr,
        build: Build,
    ) -> (Handle, JoinHandle<Result<(), ServeError>>) {
        let options = Options { build, ..Options::new(folder.to_path_buf(), listen) };
        let service = Service::start(options, Arc::new(SystemEnv)).await.unwrap();
        let handle = service.handle();
        (handle, tokio::spawn(service.wait()))
    }

    /// Stops it in order, and starts it again from its folder.
    pub(crate) async fn restart(self) -> Cluster {
        self.restart_as(Build::CURRENT).await
    }

    /// The same, as another version.
    pub(crate) async fn restart_as(mut self, build: Build) -> Cluster {
        self.handle.shutdown();
        timeout(PATIENCE, &mut self.running).await.unwrap().unwrap().unwrap();
        let (handle, running) = Cluster::run(&self.folder, self.listen, build).await;
        Cluster { handle, running, ..self }
    }

    /// A copy of this one as it is now, at another address: what a former life of it would be.
    pub(crate) async fn copy_of_now(&self) -> Cluster {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("member");
        let copied =
            std::process::Command::new("cp").arg("-a").args([&self.folder, &folder]).status();
        assert!(copied.unwrap().success());
        let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (handle, running) = Cluster::run(&folder, listen, Build::CURRENT).await;
        let made = self.made.clone();
        Cluster { root, folder, listen, made, handle, running }
    }

    /// Stops it in order, and starts it as a version that may not serve. Its folder comes along.
    pub(crate) async fn come_back_as(
        mut self,
        build: Build,
    ) -> (TempDir, JoinHandle<Result<(), ServeError>>) {
        self.handle.shutdown();
        timeout(PATIENCE, &mut self.running).await.unwrap().unwrap().unwrap();
        let (_, running) = Cluster::begin(&self.folder, self.listen, build).await;
        (self.root, running)
    }

    /// Stops it in order, and starts it again as one that cannot know yet what was applied: its
    /// log is gone, and nobody can give it back.
    pub(crate) async fn restart_without_log(mut self) -> Cluster {
        self.handle.shutdown();
        timeout(PATIENCE, &mut self.running).await.unwrap().unwrap().unwrap();
        std::fs::remove_dir_all(self.folder.join("data")).unwrap();
        let (handle, running) = Cluster::begin(&self.folder, self.listen, Build::CURRENT).await;
        Cluster { handle, running, ..self }
    }

    /// Stops it in order.
    pub(crate) async fn stop(self) {
        self.handle.shutdown();
        timeout(PATIENCE, self.running).await.unwrap().unwrap().unwrap();
    }

    pub(crate) fn address(&self) -> String {
        self.listen.to_string()
    }

    /// A connection of somebody with a certificate.
    pub(crate) fn channel(&self, identity: &Identity) -> Channel {
        let tls = ClientTls::new(identity).unwrap();
        channel(&self.address(), &tls, Expect::Any(Tree::Member)).unwrap()
    }

    /// A connection of somebody who has nothing but a fingerprint.
    pub(crate) fn stranger(&self) -> (Channel, Arc<ClientTls>) {
        let tls = ClientTls::pinned(self.made.admin.trust().fingerprint());
        (channel(&self.address(), &tls, Expect::Any(Tree::Member)).unwrap(), tls)
    }

    /// The first administrator.
    pub(crate) fn admin(&self) -> User {
        self.user(&self.made.admin)
    }

    /// A user with a certificate.
    pub(crate) fn user(&self, identity: &Identity) -> User {
        User::new(self.channel(identity))
    }

    /// Adds a user, who logs in with a token.
    pub(crate) async fn add_user(&self, name: &str, grants: Vec<v1::Grant>) -> (User, Identity) {
        let mut admin = self.admin();
        let add = v1::AddUserRequest {
            request_id: request_id(),
            user: name.into(),
            unix_login: String::new(),
            grants,
        };
        admin.users.add(add).await.unwrap();
        let token = admin.login_token(name).await;
        let identity = self.log_in(&token).await.unwrap();
        (self.user(&identity), identity)
    }

    /// Uses a login token.
    pub(crate) async fn log_in(&self, token: &Token) -> Result<Identity, Status> {
        let (channel, tls) = self.stranger();
        let key = KeyRequest::new().unwrap();
        let request = v1::LoginRequest {
            request_id: request_id(),
            token_id: token.id.to_u128().to_be_bytes().to_vec().into(),
            token_secret: Some(token.secret.reveal().to_string().into()),
            csr_der: key.der().to_vec().into(),
        };
        let answer = UserServiceClient::new(channel).login(request).await?.into_inner();
        let trust: Trust = tls.learned().unwrap();
        Ok(key.complete(&answer.chain_der[0], trust).unwrap())
    }
}

/// Clients of one user.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) channel: Channel,
    pub(crate) jobs: JobServiceClient<Channel>,
    pub(crate) nodes: NodeServiceClient<Channel>,
    pub(crate) users: UserServiceClient<Channel>,
    pub(crate) cluster: ClusterServiceClient<Channel>,
}

impl User {
    pub(crate) fn new(channel: Channel) -> User {
        User {
            jobs: JobServiceClient::new(channel.clone()),
            nodes: NodeServiceClient::new(channel.clone()),
            users: UserServiceClient::new(channel.clone()),
            cluster: ClusterServiceClient::new(channel.clone()),
            channel,
        }
    }

    pub(crate) async fn login_token(&mut self, user: &str) -> Token {
        let request =
            v1::CreateLoginTokenRequest { request_id: request_id(), user: user.into(), life_ms: 0 };
        let answer = self.users.create_login_token(request).await.unwrap().into_inner();
        answer.token.unwrap().text.parse().unwrap()
    }

    pub(crate) async fn join_token(&mut self) -> Token {
        let request = v1::CreateJoinTokenRequest {
            request_id: request_id(),
            pool: "default".into(),
            ..Default::default()
        };
        let answer = self.nodes.create_join_token(request).await.unwrap().into_inner();
        answer.token.unwrap().text.parse().unwrap()
    }

    /// Submits a job file.
    pub(crate) async fn submit(&mut self, spec: &str) -> Result<v1::SubmitResponse, Status> {
        let request = v1::SubmitRequest {
            request_id: request_id(),
            spec: spec.into(),
            submit_dir: "/srv".into(),
            ..Default::default()
        };
        Ok(self.jobs.submit(request).await?.into_inner())
    }

    pub(crate) async fn job(&mut self, id: u64) -> Result<v1::Job, Status> {
        let response = self.jobs.get(v1::GetJobRequest { job_id: id }).await?;
        Ok(response.into_inner().job.unwrap())
    }

    /// Watches a job from its submission on, until it is in a state.
    pub(crate) async fn wait_for(&mut self, submitted: &v1::SubmitResponse, state: JobState) {
        let request = v1::WatchJobsRequest {
            from_index: submitted.applied_index,
            job_ids: vec![submitted.job_id],
            ..Default::default()
        };
        let wanted = v1::JobState::from(state);
        let watch = async {
            let mut events = self.jobs.watch(request).await.unwrap().into_inner();
            while let Some(response) = events.message().await.unwrap() {
                let Some(watch_response::What::Event(event)) = response.what else { continue };
                if let Some(v1::event::What::Job(moved)) = event.what
                    && moved.state() == wanted
                {
                    return;
                }
            }
            panic!("the watch ended before the job was {state}");
        };
        timeout(PATIENCE, watch).await.unwrap();
    }
}
