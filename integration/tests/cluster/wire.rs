//! Rubbish on the wire: refused or closed in bounded time, and the neighbours do not notice.

use crate::world::{Cluster, SMALL};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

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

/// Shakes hands, with the administrator's certificate or without one.
fn tls(
    cluster: &Cluster,
    known: bool,
    protocol: &[u8],
) -> StreamOwned<ClientConnection, TcpStream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().expect("the defaults are safe");
    let verifier = Arc::new(Gullible(provider));
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match known {
        false => builder.with_no_client_auth(),
        true => {
            let file = cluster.home.path("config/yard/contexts/dev/identity.pem");
            let pem = std::fs::read(file).expect("the administrator has a certificate");
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
    for known in [false, true] {
        for (what, bytes) in [
            ("HTTP/1.1", &b"GET /metrics HTTP/1.1\r\nHost: yard\r\n\r\n"[..]),
            ("rubbish", &[0xa5; 4096]),
            // A preface of HTTP/2, then a frame longer than any may be.
            ("a long frame", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x04\0\0\0\0\0"),
        ] {
            let mut stream = tls(&cluster, known, b"h2");
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
    let mut stream = tls(&cluster, true, b"http/1.1");
    let refused = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").and_then(|()| {
        until_closed("another protocol", &mut stream);
        Ok(())
    });
    assert!(stream.conn.is_handshaking(), "another protocol was agreed on: {refused:?}");
    neighbour(&cluster);
}
