//! Rubbish on the wire: refused or closed in bounded time, and the neighbours do not notice.

use crate::world::{Cluster, SMALL, private_folder};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use yard_proto::v1;
use yard_runtime::identity::{Token, TokenKind, Tree};
use yard_runtime::tls::{ClientTls, Expect, channel};

/// Far above every bound of the server for those who say nothing.
const BOUND: Duration = Duration::from_secs(20);

fn connect(cluster: &Cluster) -> TcpStream {
    let stream = TcpStream::connect(cluster.port.address()).expect("the coordinator listens");
    stream.set_read_timeout(Some(BOUND)).expect("a socket takes a timeout");
    stream.set_write_timeout(Some(BOUND)).expect("a socket takes a timeout");
    stream
}

/// Reads until the other side closes, and returns what it said.
fn until_closed(what: &str, stream: &mut impl Read) -> Vec<u8> {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => {}
        Err(error)
            if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind()) =>
        {
            panic!("{what}: still open after {BOUND:?}")
        }
        // A reset closes, too, and so does an end of TCP without one of TLS.
        Err(_) => {}
    }
    said
}

/// The neighbour: a job from submission to its end.
fn neighbour(cluster: &Cluster) {
    let words = [&["run"][..], &SMALL, &["--", "echo", "well"]].concat();
    assert_eq!(cluster.yard(&words).ok().out, "well\n");
}

/// Believes every server: this test is the one with bad manners.
#[derive(Debug)]
struct Gullible(Arc<CryptoProvider>);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The certificate of the administrator.
fn identity(cluster: &Cluster) -> PathBuf {
    cluster.home.path("config/yard/contexts/dev/identity.pem")
}

/// Shakes hands, with the certificate of a file or without one.
fn tls(
    cluster: &Cluster,
    identity: Option<&Path>,
    protocol: &[u8],
) -> StreamOwned<ClientConnection, TcpStream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().expect("the defaults are safe");
    let verifier = Arc::new(Gullible(provider));
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let pem = std::fs::read(file).expect("a certificate can be read");
            let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).flatten().collect();
            let key = PrivateKeyDer::from_pem_slice(&pem).expect("and a key");
            builder.with_client_auth_cert(chain, key).expect("they fit")
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from("coordinator").expect("a legal name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a legal configuration");
    StreamOwned::new(connection, connect(cluster))
}

#[test]
fn what_is_no_tls_is_closed() {
    let cluster = Cluster::start(1);
    let rubbish: Vec<u8> =
        (0..65_536_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let request = "GET /metrics HTTP/1.1\r\nHost: yard\r\n\r\n";
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for (what, bytes) in [
        ("plain text", "hello\n".as_bytes()),
        ("HTTP/1.1", request.as_bytes()),
        ("HTTP/2", preface.as_bytes()),
        ("rubbish", &rubbish),
        // A record of TLS whose end never comes is closed like silence.
        ("a long record", b"\x16\x03\x01\xff\xff"),
    ] {
        let mut stream = connect(&cluster);
        // The server may hang up before it has read all of it.
        let _ = stream.write_all(bytes);
        neighbour(&cluster);
        let said = until_closed(what, &mut stream);
        // At most an alert of TLS.
        assert!(said.len() <= 32, "{what}: {}", String::from_utf8_lossy(&said));
    }
    neighbour(&cluster);
}

#[test]
fn silence_costs_a_slot_for_seconds_and_the_neighbours_nothing() {
    let cluster = Cluster::start(1);
    let mut silent: Vec<TcpStream> = (0..100).map(|_| connect(&cluster)).collect();
    // Half of them begin a handshake, and leave it at that.
    for stream in silent.iter_mut().step_by(2) {
        stream.write_all(b"\x16\x03\x01\x02\x00\x01").expect("the socket takes a few bytes");
    }
    neighbour(&cluster);
    for stream in &mut silent {
        until_closed("silence", stream);
    }
    neighbour(&cluster);
}

#[test]
fn rubbish_after_the_handshake_is_closed() {
    let cluster = Cluster::start(1);
    let own = identity(&cluster);
    for identity in [None, Some(own.as_path())] {
        for (what, bytes) in [
            ("HTTP/1.1", &b"GET /metrics HTTP/1.1\r\nHost: yard\r\n\r\n"[..]),
            ("rubbish", &[0xa5; 4096]),
            // A preface of HTTP/2, then a frame longer than any may be.
            ("a long frame", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x04\0\0\0\0\0"),
        ] {
            let mut stream = tls(&cluster, identity, b"h2");
            let _ = stream.write_all(bytes);
            let _ = stream.flush();
            let said = until_closed(what, &mut stream);
            let text = String::from_utf8_lossy(&said);
            assert!(!text.contains("200 OK"), "{what}: {text}");
            assert!(!stream.conn.is_handshaking(), "{what}: there was no handshake");
        }
        neighbour(&cluster);
    }
    // Only HTTP/2 is spoken.
    let mut stream = tls(&cluster, Some(&own), b"http/1.1");
    let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
    assert!(stream.conn.is_handshaking(), "another protocol was agreed on");
    neighbour(&cluster);
}

#[test]
fn nobody_gets_in_without_a_certificate_of_the_cluster() {
    let (cluster, other) = (Cluster::start(1), Cluster::start(1));
    // Of another cluster: the handshake fails. With TLS 1.3 a client hears of it afterwards.
    let foreign = identity(&other);
    let mut stream = tls(&cluster, Some(&foreign), b"h2");
    let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    assert_eq!(until_closed("a foreign certificate", &mut stream), b"");
    // And a client does not speak to a server of another cluster.
    let ran = other.yard(&["ls", "--address", &cluster.port.address()]).exits(69);
    ran.says(&["cannot prove who it is"]);

    // A node's is none of a user.
    let config = cluster.home.path("config-node");
    private_folder(&config.join("yard"));
    let text = format!(
        "current = \"n1\"\n[contexts.n1]\naddresses = [{:?}]\nca = {:?}\nidentity = {:?}\n",
        cluster.port.address(),
        cluster.dev("n1/identity/ca.pem"),
        cluster.dev("n1/identity/identity.pem"),
    );
    std::fs::write(config.join("yard/config.toml"), text).expect("a file can be written");
    for words in [&["ls"][..], &["user", "add", "eve"], &["submit", "--", "true"]] {
        let ran = cluster.home.yard_with(&config, words).run();
        assert_eq!(ran.code, 77, "{ran}");
    }

    // Without any, only a token gets further.
    let token = cluster.yard(&["node", "invite"]).ok().out;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let code = runtime.expect("a runtime starts").block_on(list_as_nobody(&cluster, token.trim()));
    assert_eq!(code, tonic::Code::Unauthenticated);
    neighbour(&cluster);
}

/// What the API says to somebody without a certificate who asks for jobs.
async fn list_as_nobody(cluster: &Cluster, token: &str) -> tonic::Code {
    let token = Token::parse_for(TokenKind::Join, token).expect("a token");
    let tls = ClientTls::pinned(token.fingerprint);
    let channel = channel(&cluster.port.address(), &tls, Expect::Any(Tree::Member));
    let channel = channel.expect("a legal address");
    let mut client = v1::job_service_client::JobServiceClient::new(channel);
    let answer = client.list(v1::ListJobsRequest::default()).await;
    answer.expect_err("nobody is asked who they are").code()
}
