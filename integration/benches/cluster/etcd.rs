//! An etcd of three members on this machine, to compare with: `etcd` of the distribution, TLS with
//! certificates of both ends, and the very TLS of our own client.

use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tonic::Request;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use yard_common::id::{ClusterId, MemberId, PrincipalId};
use yard_runtime::files;
use yard_runtime::identity::{
    Authority, IDENTITY_FILE, Identity, KeyRequest, Principal, TRUST_FILE,
};
use yard_runtime::tls::{ClientTls, Expect, channel};

const MEMBERS: usize = 3;
const READY: Duration = Duration::from_secs(30);
const DAY_MS: u64 = 86_400_000;

/// A running etcd. Dropping it stops and removes it.
pub(crate) struct Etcd {
    processes: Vec<Child>,
    _root: TempDir,
    tls: Arc<ClientTls>,
    addresses: Vec<String>,
}

/// A connection.
#[derive(Clone)]
pub(crate) struct EtcdClient(Channel);

/// See `rpc.proto` of etcd, of which this is what is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

impl Etcd {
    /// Starts it, and waits until it has a leader.
    pub(crate) async fn start() -> io::Result<Etcd> {
        let root = tempfile::tempdir()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
        let now_ms = u64::try_from(now.as_millis()).map_err(io::Error::other)?;
        let authority = Authority::create(ClusterId::from_u128(1), now_ms);
        let authority = authority.map_err(io::Error::other)?;
        let certify = |principal, names: &[String]| -> Result<Identity, _> {
            let key = KeyRequest::new()?;
            let issued = authority.issue(key.der(), principal, names, now_ms, DAY_MS)?;
            key.complete(&issued.certificate, authority.trust().clone())
        };
        let folder = root.path().join("server");
        let names = ["127.0.0.1".to_string(), "localhost".to_string()];
        let server = certify(Principal::Member(MemberId(1)), &names).map_err(io::Error::other)?;
        files::private_folder(&folder).map_err(io::Error::other)?;
        server.save(&folder).map_err(io::Error::other)?;
        let user = certify(Principal::User(PrincipalId(0)), &[]).map_err(io::Error::other)?;
        let tls = ClientTls::new(&user).map_err(io::Error::other)?;
        let ports = ports(2 * MEMBERS)?;
        let (clients, peers) = ports.split_at(MEMBERS);
        let started = (0..MEMBERS).map(|at| member(root.path(), &folder, at, clients, peers));
        let processes = started.collect::<io::Result<Vec<Child>>>()?;
        let addresses = clients.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let etcd = Etcd { processes, _root: root, tls, addresses };
        etcd.ready().await?;
        Ok(etcd)
    }

    /// Waits until each member takes something.
    async fn ready(&self) -> io::Result<()> {
        let until = Instant::now() + READY;
        for at in 0..MEMBERS {
            let client = self.client_from(at);
            while let Err(error) = client.try_put(b"ready".to_vec()).await {
                if Instant::now() > until {
                    return Err(io::Error::other(error));
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// A client of this member, counted from 0 and around, with a connection of its own.
    pub(crate) fn client_from(&self, member: usize) -> EtcdClient {
        let expect = Expect::Only(Principal::Member(MemberId(1)));
        let address = &self.addresses[member % MEMBERS];
        EtcdClient(channel(address, &self.tls, expect).expect("the address is legal"))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl EtcdClient {
    /// Puts a value under a key of its own.
    pub(crate) async fn put(&self, value: Vec<u8>) {
        self.try_put(value).await.expect("it is put");
    }

    async fn try_put(&self, value: Vec<u8>) -> Result<(), tonic::Status> {
        let mut client = tonic::client::Grpc::new(self.0.clone());
        let unknown = |error| tonic::Status::unavailable(format!("{error}"));
        client.ready().await.map_err(unknown)?;
        let request = Request::new(PutRequest { key: next_key(), value });
        let codec = tonic_prost::ProstCodec::<PutRequest, PutResponse>::default();
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        client.unary(request, path, codec).await.map(drop)
    }
}

/// As long as an id of a request.
fn next_key() -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}", NEXT.fetch_add(1, Ordering::Relaxed)).into_bytes()
}

/// Ports that are free now.
fn ports(count: usize) -> io::Result<Vec<u16>> {
    let listeners: io::Result<Vec<TcpListener>> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    listeners?.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// Starts one member.
fn member(
    root: &Path,
    folder: &Path,
    at: usize,
    clients: &[u16],
    peers: &[u16],
) -> io::Result<Child> {
    let peer = |at: usize| format!("https://127.0.0.1:{}", peers[at]);
    let client = format!("https://127.0.0.1:{}", clients[at]);
    let members = (0..MEMBERS).map(|at| format!("m{at}={}", peer(at)));
    let members = members.collect::<Vec<_>>().join(",");
    let pem = folder.join(IDENTITY_FILE);
    let log = std::fs::File::create(root.join(format!("m{at}.log")))?;
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(root.join(format!("m{at}")));
    command.args(["--name", &format!("m{at}"), "--initial-cluster", &members]);
    command.args(["--listen-peer-urls", &peer(at), "--initial-advertise-peer-urls", &peer(at)]);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    for end in ["", "peer-"] {
        command.arg(format!("--{end}cert-file")).arg(&pem);
        command.arg(format!("--{end}key-file")).arg(&pem);
        command.arg(format!("--{end}trusted-ca-file")).arg(folder.join(TRUST_FILE));
        command.arg(format!("--{end}client-cert-auth"));
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()
}
