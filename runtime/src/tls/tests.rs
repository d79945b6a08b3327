//! Handshakes over real sockets: who gets in, who does not, and what that costs the others.

use super::*;
use crate::identity::{Authority, CERTIFICATE_LIFE_MS, Identity, KeyRequest, Principal, Tree};
use futures_util::StreamExt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use yard_common::id::{ClusterId, MemberId, NodeId, PrincipalId};

const MEMBER: Principal = Principal::Member(MemberId(1));
const NODE: Principal = Principal::Node(NodeId(7));
const USER: Principal = Principal::User(PrincipalId(3));

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn authority() -> Authority {
    Authority::create(ClusterId::from_u128(1), now_ms()).unwrap()
}

fn identity(authority: &Authority, principal: Principal) -> Identity {
    identity_of(authority, principal, now_ms())
}

fn identity_of(authority: &Authority, principal: Principal, issued_ms: u64) -> Identity {
    let request = KeyRequest::new().unwrap();
    let life_ms = CERTIFICATE_LIFE_MS;
    let issued = authority.issue(request.der(), principal, &[], issued_ms, life_ms).unwrap();
    request.complete(&issued.certificate, authority.trust().clone()).unwrap()
}

type Listener = Incoming<Sockets, TcpStream>;

async fn listen(tls: &Arc<ServerTls>, bounds: Bounds) -> (Listener, SocketAddr) {
    let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = sockets.local_addr().unwrap();
    (Incoming::new(sockets, tls.clone(), bounds), address)
}

/// A server that tells who called and echoes; it ends when the handle is aborted.
async fn serve(tls: &Arc<ServerTls>, bounds: Bounds) -> (SocketAddr, JoinHandle<()>) {
    let (mut incoming, address) = listen(tls, bounds).await;
    let server = tokio::spawn(async move {
        let mut open = tokio::task::JoinSet::new();
        while let Some(Ok(mut stream)) = incoming.next().await {
            open.spawn(async move {
                let peer = stream.caller().peer.clone();
                let name = peer.map_or("stranger".into(), |peer| peer.principal.to_string());
                let _ = stream.write_all(format!("{name}\n").as_bytes()).await;
                let _ = stream.flush().await;
                let mut byte = [0];
                while stream.read_exact(&mut byte).await.is_ok() {
                    let _ = stream.write_all(&byte).await;
                    let _ = stream.flush().await;
                }
            });
        }
    });
    (address, server)
}

type Client = tokio_rustls::client::TlsStream<TcpStream>;

async fn connect(
    address: SocketAddr,
    tls: &Arc<ClientTls>,
    expect: Expect,
) -> Result<Client, ConnectError> {
    let connector = Connector::new(tls.clone(), expect, dial);
    connector.connect("127.0.0.1", address.port()).await
}

/// The first line that the server says; `None`: it hung up.
async fn line(stream: &mut Client) -> Option<String> {
    let mut text = Vec::new();
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => return String::from_utf8(text).ok(),
            Ok(byte) => text.push(byte),
            Err(_) => return None,
        }
    }
}

#[tokio::test]
async fn both_sides_know_each_other() {
    let authority = authority();
    let server = ServerTls::new(&identity(&authority, MEMBER), Admit::Known).unwrap();
    let (address, _server) = serve(&server, Bounds::default()).await;
    for principal in [MEMBER, NODE, USER] {
        let client = ClientTls::new(&identity(&authority, principal)).unwrap();
        let mut stream = connect(address, &client, Expect::Only(MEMBER)).await.unwrap();
        assert_eq!(line(&mut stream).await.unwrap(), principal.to_string());
    }
}

#[tokio::test]
async fn somebody_else_is_refused_before_anything_is_sent() {
    let authority = authority();
    let server = ServerTls::new(&identity(&authority, NODE), Admit::Known).unwrap();
    let (address, _server) = serve(&server, Bounds::default()).await;
    let client = ClientTls::new(&identity(&authority, USER)).unwrap();
    for expect in [Expect::Any(Tree::Member), Expect::Only(Principal::Node(NodeId(8)))] {
        let error = connect(address, &client, expect).await.unwrap_err();
        assert!(matches!(error, ConnectError::OtherPeer { found: NODE, .. }), "{error}");
    }
    assert!(connect(address, &client, Expect::Any(Tree::Node)).await.is_ok());
}

#[tokio::test]
async fn a_server_without_the_right_certificate_is_refused() {
    let authority = authority();
    let client = ClientTls::new(&identity(&authority, USER)).unwrap();
    let forger = Authority::create(ClusterId::from_u128(1), now_ms()).unwrap();
    let elsewhere = Authority::create(ClusterId::from_u128(2), now_ms()).unwrap();
    let impostors = [
        identity(&forger, MEMBER),
        identity(&elsewhere, MEMBER),
        // A user's certificate is real, but serves nothing.
        identity(&authority, USER),
    ];
    for impostor in &impostors {
        let server = ServerTls::new(impostor, Admit::Known).unwrap();
        let (address, _server) = serve(&server, Bounds::default()).await;
        let error = connect(address, &client, Expect::Any(Tree::Member)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Handshake(..)), "{impostor:?}: {error}");
    }
}

#[tokio::test]
async fn strangers_come_in_only_where_they_may() {
    let authority = authority();
    let stranger = ClientTls::pinned(authority.trust().fingerprint());
    let member = identity(&authority, MEMBER);
    let closed = ServerTls::new(&member, Admit::Known).unwrap();
    let (address, _closed) = serve(&closed, Bounds::default()).await;
    // In TLS 1.3 the client is done first; the refusal comes with the first read.
    let mut refused = connect(address, &stranger, Expect::Any(Tree::Member)).await.unwrap();
    assert_eq!(line(&mut refused).await, None);
    let open = ServerTls::new(&member, Admit::Strangers).unwrap();
    let bounds = Bounds { strangers_max: 1, stranger_ms: 600_000, ..Bounds::default() };
    let (address, _open) = serve(&open, bounds).await;
    let mut first = connect(address, &stranger, Expect::Any(Tree::Member)).await.unwrap();
    assert_eq!(line(&mut first).await.unwrap(), "stranger");
    let mut second = connect(address, &stranger, Expect::Any(Tree::Member)).await.unwrap();
    assert_eq!(line(&mut second).await, None, "one stranger at a time");
    let known = ClientTls::new(&identity(&authority, NODE)).unwrap();
    let mut known = connect(address, &known, Expect::Any(Tree::Member)).await.unwrap();
    assert_eq!(line(&mut known).await.unwrap(), "node/7", "others are not in the way");
}

#[tokio::test]
async fn the_time_of_a_stranger_ends() {
    let authority = authority();
    let tls = ServerTls::new(&identity(&authority, MEMBER), Admit::Strangers).unwrap();
    let (address, _server) = serve(&tls, Bounds { stranger_ms: 1, ..Bounds::default() }).await;
    let stranger = ClientTls::pinned(authority.trust().fingerprint());
    let mut stream = connect(address, &stranger, Expect::Any(Tree::Member)).await.unwrap();
    // It may get a word in or not; then the server hangs up.
    while line(&mut stream).await.is_some() {}
}

#[tokio::test]
async fn a_joiner_learns_the_cas_from_the_fingerprint_alone() {
    let authority = authority();
    let server = ServerTls::new(&identity(&authority, MEMBER), Admit::Strangers).unwrap();
    let (address, _server) = serve(&server, Bounds::default()).await;
    let joiner = ClientTls::pinned(authority.trust().fingerprint());
    assert!(joiner.learned().is_none());
    let mut stream = connect(address, &joiner, Expect::Any(Tree::Member)).await.unwrap();
    assert_eq!(line(&mut stream).await.unwrap(), "stranger");
    let learned = joiner.learned().unwrap();
    assert_eq!(learned.fingerprint(), authority.trust().fingerprint());
}

/// Takes one connection with these certificates, and returns all that the application sent.
async fn in_the_middle(
    chain: Vec<rustls::pki_types::CertificateDer<'static>>,
    of: &Identity,
) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, of.key());
    let mut config = config.unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let mut heard = Vec::new();
        if let Ok(mut stream) = acceptor.accept(socket).await {
            let _ = stream.read_to_end(&mut heard).await;
        }
        heard
    });
    (address, task)
}

#[tokio::test]
async fn somebody_in_the_middle_gets_nothing_of_a_joiner() {
    let authority = authority();
    let forger = Authority::create(ClusterId::from_u128(1), now_ms()).unwrap();
    let (real, forged) = (authority.trust().certificates(), forger.trust().certificates());
    let evil = identity(&forger, MEMBER);
    // A user, and a node, who turn on their own cluster with their own real certificates.
    let (user, node) = (identity(&authority, USER), identity(&authority, NODE));
    let with = |leaf: &Identity, cas: &[rustls::pki_types::CertificateDer<'static>]| {
        let mut chain = vec![leaf.certificate().clone()];
        chain.extend_from_slice(cas);
        chain
    };
    let cases = [
        (with(&evil, forged), &evil, "CAs of its own"),
        (with(&evil, real), &evil, "the real CAs behind a forged certificate"),
        (with(&evil, &[]), &evil, "no CAs"),
        (with(&user, real), &user, "the certificate of a user"),
        (with(&node, real), &node, "the certificate of a node"),
    ];
    for (chain, key, case) in cases {
        let (address, heard) = in_the_middle(chain, key).await;
        let joiner = ClientTls::pinned(authority.trust().fingerprint());
        let connected = connect(address, &joiner, Expect::Any(Tree::Member)).await;
        // What a joiner does next, if it believes that it is connected.
        if let Ok(mut stream) = connected {
            stream.write_all(b"the secret").await.unwrap();
            panic!("{case}: the joiner was deceived");
        }
        assert!(heard.await.unwrap().is_empty(), "{case}");
    }
}

#[tokio::test]
async fn certificates_change_while_connections_go_on() {
    let authority = authority();
    let tls = ServerTls::new(&identity(&authority, MEMBER), Admit::Known).unwrap();
    let (address, _server) = serve(&tls, Bounds::default()).await;
    let client = ClientTls::new(&identity(&authority, USER)).unwrap();
    let serial = |stream: &Client| {
        let leaf = &stream.get_ref().1.peer_certificates().unwrap()[0];
        crate::identity::Peer::read(leaf).unwrap().serial
    };
    let mut old = connect(address, &client, Expect::Only(MEMBER)).await.unwrap();
    assert_eq!(line(&mut old).await.unwrap(), "user/3");
    let renewed = identity(&authority, MEMBER);
    tls.replace(&renewed).unwrap();
    client.replace(&identity(&authority, NODE)).unwrap();
    let mut new = connect(address, &client, Expect::Only(MEMBER)).await.unwrap();
    assert_eq!(line(&mut new).await.unwrap(), "node/7");
    assert_eq!(serial(&new), renewed.peer().serial);
    assert_ne!(serial(&old), serial(&new));
    old.write_all(b"x").await.unwrap();
    assert_eq!(old.read_u8().await.unwrap(), b'x', "the old connection goes on");
    // One that has run out is refused, and the present one stays.
    let ended = identity_of(&authority, MEMBER, now_ms() - 2 * CERTIFICATE_LIFE_MS);
    assert!(matches!(tls.replace(&ended), Err(TlsError::NotCurrent(_))));
    assert!(matches!(client.replace(&ended), Err(TlsError::NotCurrent(_))));
    let mut again = connect(address, &client, Expect::Only(MEMBER)).await.unwrap();
    assert_eq!(line(&mut again).await.unwrap(), "node/7");
}

#[tokio::test]
async fn silent_and_loud_peers_cost_their_neighbours_nothing() {
    let authority = authority();
    let tls = ServerTls::new(&identity(&authority, MEMBER), Admit::Known).unwrap();
    let bounds = Bounds { handshakes_max: 8, handshake_ms: 600_000, ..Bounds::default() };
    let (address, _server) = serve(&tls, bounds).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    for rubbish in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\xff\xff", b"PRI * HTTP/2.0\r\n"]
    {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(rubbish).await.unwrap();
        silent.push(socket);
    }
    let client = ClientTls::new(&identity(&authority, USER)).unwrap();
    for _ in 0..3 {
        let mut stream = connect(address, &client, Expect::Only(MEMBER)).await.unwrap();
        assert_eq!(line(&mut stream).await.unwrap(), "user/3");
    }
    // The oldest silent one had to go.
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_secs(60), silent[0].read(&mut byte)).await;
    assert!(matches!(read.unwrap(), Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_handshake_has_a_time_limit() {
    let authority = authority();
    let tls = ServerTls::new(&identity(&authority, MEMBER), Admit::Known).unwrap();
    let (address, _server) = serve(&tls, Bounds { handshake_ms: 1, ..Bounds::default() }).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut byte = [0];
    assert!(matches!(silent.read(&mut byte).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn old_versions_and_other_protocols_are_refused() {
    let authority = authority();
    let member = identity(&authority, MEMBER);
    let tls = ServerTls::new(&member, Admit::Strangers).unwrap();
    let (address, _server) = serve(&tls, Bounds::default()).await;
    let verifier = verify::Servers { trust: authority.trust().clone() };
    for alpn in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verify::Servers {
                trust: verifier.trust.clone(),
            }))
            .with_no_client_auth();
        config.alpn_protocols = alpn;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let socket = TcpStream::connect(address).await.unwrap();
        let name = "127.0.0.1".try_into().unwrap();
        if let Ok(mut stream) = connector.connect(name, socket).await {
            assert_eq!(line(&mut stream).await, None);
        }
    }
}

#[test]
fn an_address_has_host_and_port() {
    for good in ["10.0.0.1:7100", "[::1]:7100", "head.example.org:7100"] {
        assert!(endpoint(good).is_ok(), "{good}");
    }
    for bad in ["", "head", ":7100", "head:port", "http://head:1", "head:1/path", "a b:1"] {
        assert!(matches!(endpoint(bad), Err(ConnectError::Address(_))), "{bad}");
    }
}
