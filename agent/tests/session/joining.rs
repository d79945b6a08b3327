//! A machine becomes a node, once.

use crate::cluster::Cluster;
use crate::member::Event;
use crate::node::{Root, join_options, joined, options};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use yard_agent::join::{JoinError, join};
use yard_agent::service::{Service, ServiceError};
use yard_common::id::NodeId;
use yard_runtime::identity::{Identity, Principal, Token, TokenKind};

/// Requests to join that were heard so far.
fn asked(cluster: &mut Cluster) -> Vec<Event> {
    let mut all = Vec::new();
    while let Ok(event) = cluster.events.try_recv() {
        all.push(event);
    }
    all
}

#[tokio::test]
async fn a_good_token_makes_a_node() {
    let (root, mut cluster) = (Root::new(), Cluster::start(1).await);
    let token = cluster.token();
    let options = join_options(&root, token.clone(), vec![cluster.address(1)]);
    let node = join(options.clone()).await.unwrap();
    assert_eq!((node.node, &*node.name), (NodeId(7), "n1"));
    let folder = root.path().join("identity");
    let identity = Identity::load(&folder).unwrap();
    assert_eq!(identity.peer().principal, Principal::Node(NodeId(7)));
    assert_eq!(identity.trust().fingerprint(), token.fingerprint);
    let mode = |name: &str| std::fs::metadata(folder.join(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("identity.pem"), mode("node")), (0o600, 0o600));
    assert!(!folder.join("join").exists());
    // Again, with the token that it has joined with: nothing is asked.
    assert_eq!(asked(&mut cluster).len(), 1);
    assert_eq!(join(options).await.unwrap(), node);
    assert!(asked(&mut cluster).is_empty());
}

#[tokio::test]
async fn a_retry_asks_for_the_very_same() {
    let (root, mut cluster) = (Root::new(), Cluster::start(1).await);
    let mut options = join_options(&root, cluster.token(), vec![cluster.address(1)]);
    // The first process gives up without having heard of its success.
    cluster.book.lock().unwrap().joins_lost = 1;
    options.patience = Duration::ZERO;
    let error = join(options.clone()).await.unwrap_err();
    assert!(matches!(error, JoinError::Nobody { .. }), "{error}");
    // The second hears of it, but only at its second try; and it has another name in mind.
    cluster.book.lock().unwrap().joins_lost = 1;
    options.patience = Duration::from_secs(30);
    options.name = "other".into();
    let node = join(options).await.unwrap();
    assert_eq!((node.node, &*node.name), (NodeId(7), "n1"));
    let ids: Vec<_> = asked(&mut cluster)
        .into_iter()
        .map(|event| match event {
            Event::Join(request) => request,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn a_used_token_is_refused_and_leaves_no_node() {
    let (first, second, cluster) = (Root::new(), Root::new(), Cluster::start(1).await);
    let token = cluster.token();
    let at = vec![cluster.address(1)];
    join(join_options(&first, token.clone(), at.clone())).await.unwrap();
    let error = join(join_options(&second, token.clone(), at.clone())).await.unwrap_err();
    assert_eq!(error.to_string(), "the cluster refuses: the token is not valid (Y2012)");
    // The first directory is taken, whatever token comes.
    let error = join(join_options(&first, cluster.token(), at)).await.unwrap_err();
    assert!(matches!(error, JoinError::Taken { .. }), "{error}");
    let error = Service::start(options(&second)).await.unwrap_err();
    assert!(matches!(error, ServiceError::NotJoined(_)), "{error}");
    let shown = format!("{error:?}{error}");
    assert!(!shown.contains(&token.secret.reveal()[..8]));
}

#[tokio::test]
async fn a_foreign_cluster_never_hears_the_secret() {
    let (root, cluster, mut foreign) =
        (Root::new(), Cluster::start(1).await, Cluster::start(1).await);
    let token = cluster.token();
    // It would even be let in there: only the CAs differ.
    foreign.book.lock().unwrap().tokens.insert(token.id, token.secret.sha256());
    let options = join_options(&root, token, vec![foreign.address(1)]);
    let error = join(options).await.unwrap_err();
    assert!(matches!(error, JoinError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("the secret was not sent"), "{error}");
    assert!(asked(&mut foreign).is_empty());
    assert!(!root.path().join("identity/node").exists());
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anything_is_asked() {
    let (root, cluster) = (Root::new(), Cluster::start(1).await);
    let good = join_options(&root, cluster.token(), vec![cluster.address(1)]);
    let login = Token::mint(TokenKind::Login, good.token.fingerprint);
    let error = join(yard_agent::join::Options { token: login, ..good.clone() }).await.unwrap_err();
    assert!(matches!(error, JoinError::OtherToken), "{error}");
    let error =
        join(yard_agent::join::Options { addresses: Vec::new(), ..good }).await.unwrap_err();
    assert!(matches!(error, JoinError::Addresses(0)), "{error}");
}

#[tokio::test]
async fn an_agent_without_its_memory_does_not_start() {
    let (root, cluster) = (Root::new(), Cluster::start(1).await);
    joined(&root, &cluster).await;
    let handle = Service::start(options(&root)).await.unwrap();
    let error = Service::start(options(&root)).await.unwrap_err();
    assert!(matches!(error, ServiceError::InUse(_)), "{error}");
    handle.stop().await.unwrap();
    std::fs::remove_file(root.path().join("store")).unwrap();
    let error = Service::start(options(&root)).await.unwrap_err();
    assert!(matches!(error, ServiceError::MemoryLost(_)), "{error}");
}
