//! CAs, certificates and identities, from init to renewal, and what must be refused.

use super::*;
use rustls::pki_types::{CertificateDer, UnixTime};
use std::time::Duration;
use yard_common::id::{ClusterId, MemberId, NodeId, PrincipalId};

const NOW: u64 = 1_800_000_000_000;
const NODE: Principal = Principal::Node(NodeId(7));
const MEMBER: Principal = Principal::Member(MemberId(1));
const USER: Principal = Principal::User(PrincipalId(3));

fn cluster(number: u128) -> ClusterId {
    ClusterId::from_u128(number)
}

fn authority() -> Authority {
    Authority::create(cluster(1), NOW).unwrap()
}

fn at(wall_ms: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(wall_ms))
}

fn issue(authority: &Authority, principal: Principal) -> CertificateDer<'static> {
    let request = KeyRequest::new().unwrap();
    let issued = authority.issue(request.der(), principal, &[], NOW, CERTIFICATE_LIFE_MS);
    CertificateDer::from(issued.unwrap().certificate)
}

#[test]
fn a_certificate_says_what_the_issuer_decided() {
    let authority = authority();
    let request = KeyRequest::new().unwrap();
    let names = ["node7.example.org".to_string(), "10.0.0.7".into(), "::1".into()];
    let issued = authority.issue(request.der(), NODE, &names, NOW, 60_000).unwrap();
    assert_eq!(issued.peer.principal, NODE);
    assert_eq!(issued.peer.cluster, cluster(1));
    assert_eq!(issued.peer.not_after_wall_ms, NOW + 60_000);
    assert!(issued.peer.not_before_wall_ms < NOW, "slow clocks are no reason to refuse");
    assert_eq!(issued.peer.serial.len(), 16);
    let identity = request.complete(&issued.certificate, authority.trust().clone()).unwrap();
    assert_eq!(*identity.peer(), issued.peer);
}

#[test]
fn a_request_cannot_choose_its_names() {
    // A request that asks for the name of an admin and for a CA.
    let key = rcgen::KeyPair::generate().unwrap();
    let mut wish = rcgen::CertificateParams::new(vec!["admin.example.org".into()]).unwrap();
    let uri = MEMBER.uri(cluster(1)).try_into().unwrap();
    wish.subject_alt_names.push(rcgen::SanType::URI(uri));
    wish.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let request = wish.serialize_request(&key).unwrap();
    let authority = authority();
    let issued = authority.issue(request.der(), USER, &[], NOW, 60_000).unwrap();
    assert_eq!(issued.peer.principal, USER);
    let text = String::from_utf8_lossy(&issued.certificate).into_owned();
    assert!(!text.contains("admin.example.org") && !text.contains("/member/"));
    let leaf = CertificateDer::from(issued.certificate);
    assert!(authority.trust().verify_client(&leaf, at(NOW)).is_ok());
    // Users serve nothing.
    assert_eq!(authority.trust().verify_server(&leaf, at(NOW)), Err(PeerError::NotIssued));
}

#[test]
fn a_bad_request_is_refused() {
    let authority = authority();
    let issue = |request: &[u8]| authority.issue(request, USER, &[], NOW, 60_000).unwrap_err();
    assert!(matches!(issue(b"rubbish"), IdentityError::ReadRequest(_)));
    assert!(matches!(issue(&[0x30; 8 * 1024 + 1]), IdentityError::LargeRequest(8_193)));
    let mut damaged = KeyRequest::new().unwrap().der().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(matches!(issue(&damaged), IdentityError::ReadRequest(_)), "not signed by its key");
    let strong = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let other = rcgen::CertificateParams::default().serialize_request(&strong).unwrap();
    assert!(matches!(issue(other.der()), IdentityError::WeakKey));
    let good = KeyRequest::new().unwrap();
    let name = ["näme".to_string()];
    let error = authority.issue(good.der(), NODE, &name, NOW, 60_000).unwrap_err();
    assert!(matches!(error, IdentityError::BadName(..)), "{error}");
}

#[test]
fn a_certificate_is_believed_only_in_its_tree_cluster_and_time() {
    let authority = authority();
    let trust = authority.trust();
    for principal in [MEMBER, NODE] {
        let leaf = issue(&authority, principal);
        assert_eq!(trust.verify_client(&leaf, at(NOW)).unwrap().principal, principal);
        assert_eq!(trust.verify_server(&leaf, at(NOW)).unwrap().principal, principal);
        let late = at(NOW + CERTIFICATE_LIFE_MS + 1_000);
        assert_eq!(trust.verify_client(&leaf, late), Err(PeerError::NotIssued));
        assert_eq!(trust.verify_server(&leaf, late), Err(PeerError::NotIssued));
    }
    let elsewhere = Authority::create(cluster(2), NOW).unwrap();
    let foreign = issue(&elsewhere, MEMBER);
    assert_eq!(trust.verify_client(&foreign, at(NOW)), Err(PeerError::OtherCluster));
    // The same cluster id, but another key: somebody made up a CA.
    let forger = Authority::create(cluster(1), NOW).unwrap();
    let forged = issue(&forger, MEMBER);
    assert_eq!(trust.verify_client(&forged, at(NOW)), Err(PeerError::NotIssued));
    assert_eq!(trust.verify_server(&forged, at(NOW)), Err(PeerError::NotIssued));
}

#[test]
fn a_tree_cannot_issue_for_another() {
    // Whoever steals the CA of the users makes no members: the name decides which CA is asked.
    let folder = tempfile::tempdir().unwrap();
    let authority = authority();
    authority.save(folder.path().join("ca").as_path()).unwrap();
    let key = std::fs::read_to_string(folder.path().join("ca/user-ca.key")).unwrap();
    let key = rcgen::KeyPair::from_pem(&key).unwrap();
    let users = &authority.trust().certificates()[Tree::User as usize];
    let issuer = rcgen::Issuer::from_ca_cert_der(users, key).unwrap();
    let mut params = rcgen::CertificateParams::default();
    let uri = MEMBER.uri(cluster(1)).try_into().unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI(uri));
    params.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    let thief = rcgen::KeyPair::generate().unwrap();
    let leaf = params.signed_by(&thief, &issuer).unwrap();
    let found = authority.trust().verify_client(leaf.der(), at(NOW));
    assert_eq!(found, Err(PeerError::NotIssued));
}

#[test]
fn authorities_are_kept_in_a_folder_and_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca");
    let made = authority();
    made.save(&path).unwrap();
    let read = Authority::load(&path).unwrap();
    assert_eq!(read.trust().fingerprint(), made.trust().fingerprint());
    let leaf = issue(&read, NODE);
    assert!(made.trust().verify_client(&leaf, at(NOW)).is_ok());
    assert!(matches!(authority().save(&path), Err(IdentityError::Exists(_))));
    // Keys of another cluster beside these certificates.
    let other = folder.path().join("other");
    authority().save(&other).unwrap();
    std::fs::copy(other.join("node-ca.key"), path.join("node-ca.key")).unwrap();
    assert!(matches!(Authority::load(&path), Err(IdentityError::OtherKey(Tree::Node))));
}

#[test]
fn a_bundle_is_three_trees_of_one_cluster() {
    let (ours, theirs) = (authority(), Authority::create(cluster(2), NOW).unwrap());
    let trust = ours.trust();
    let [a, b, c] = trust.certificates() else { panic!("three CAs") };
    let shuffled = Trust::from_certificates(&[c.clone(), a.clone(), b.clone()]).unwrap();
    assert_eq!(shuffled.fingerprint(), trust.fingerprint());
    assert_eq!(Trust::from_pem(&trust.to_pem()).unwrap().fingerprint(), trust.fingerprint());
    let foreign = theirs.trust().certificates()[2].clone();
    let leaf = issue(&ours, NODE);
    for bad in [
        vec![],
        vec![a.clone(), b.clone()],
        vec![a.clone(), b.clone(), c.clone(), c.clone()],
        vec![a.clone(), a.clone(), b.clone()],
        vec![a.clone(), b.clone(), foreign],
        vec![a.clone(), b.clone(), leaf],
        vec![a.clone(), b.clone(), CertificateDer::from(vec![1, 2, 3])],
    ] {
        assert!(matches!(Trust::from_certificates(&bad), Err(IdentityError::BadBundle(_))));
    }
    assert!(Trust::from_pem("no PEM").is_err());
}

#[test]
fn an_identity_reads_back_and_its_parts_belong_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("me");
    let authority = authority();
    let make = || {
        let request = KeyRequest::new().unwrap();
        let issued = authority.issue(request.der(), NODE, &[], NOW, 60_000).unwrap();
        (request, issued)
    };
    let (request, issued) = make();
    let identity = request.complete(&issued.certificate, authority.trust().clone()).unwrap();
    identity.save(&path).unwrap();
    assert_eq!(Identity::load(&path).unwrap().peer(), identity.peer());
    // The certificate of another key.
    let (request, _) = make();
    let mixed = request.complete(&issued.certificate, authority.trust().clone());
    assert!(matches!(mixed, Err(IdentityError::KeyMismatch(_))));
    // CAs that did not issue it.
    let (request, issued) = make();
    let forger = Authority::create(cluster(1), NOW).unwrap();
    let foreign = request.complete(&issued.certificate, forger.trust().clone());
    assert!(matches!(foreign, Err(IdentityError::Peer(PeerError::NotIssued))));
}

#[test]
fn keys_do_not_show() {
    let authority = authority();
    let request = KeyRequest::new().unwrap();
    assert_eq!(format!("{request:?}"), "KeyRequest(...)");
    let issued = authority.issue(request.der(), NODE, &[], NOW, 60_000).unwrap();
    let identity = request.complete(&issued.certificate, authority.trust().clone()).unwrap();
    let shown = format!("{identity:?} {authority:?}");
    assert!(shown.starts_with("Identity(node/7 of Trust("), "{shown}");
    assert!(shown.len() < 300, "{shown}");
}

#[test]
fn no_clock_breaks_the_issuer() {
    let authority = authority();
    let request = KeyRequest::new().unwrap();
    for now in [0, u64::MAX] {
        let issued = authority.issue(request.der(), NODE, &[], now, u64::MAX).unwrap();
        assert!(issued.peer.not_after_wall_ms >= issued.peer.not_before_wall_ms);
    }
}

#[test]
fn the_token_of_a_request_is_always_the_same() {
    let ours = authority();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("authority");
    ours.save(&folder).unwrap();
    let loaded = Authority::load(&folder).unwrap();
    let token = ours.token(TokenKind::Join, b"ada.1");
    assert_eq!(token, loaded.token(TokenKind::Join, b"ada.1"), "after a restart as well");
    let others = [
        ours.token(TokenKind::Join, b"ada.2"),
        ours.token(TokenKind::Login, b"ada.1"),
        authority().token(TokenKind::Join, b"ada.1"),
    ];
    for other in others {
        assert!(other.id != token.id && other.secret != token.secret);
    }
    let text = token.reveal();
    assert_eq!(text.parse::<Token>().unwrap(), token);
}
