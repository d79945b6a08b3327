//! The feature level: who holds it up, who may join then, and what people see of it.

use crate::cluster::{Cluster, PATIENCE, request_id};
use crate::members::{ask_to_join, member_token};
use tokio::time::timeout;
use tonic::Code;
use yard_common::id::FeatureLevel;
use yard_coordinator::Build;
use yard_proto::convert::error::Refused;
use yard_proto::v1;
use yard_runtime::identity::KeyRequest;

/// A later version.
fn next() -> Build {
    Build { version: "9.0.0", feature_level_max: FeatureLevel(1), ..Build::CURRENT }
}

fn raise(level: u32) -> v1::RaiseFeatureLevelRequest {
    v1::RaiseFeatureLevelRequest { request_id: request_id(), level }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_that_a_member_does_not_understand_is_refused_by_name() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let refused = admin.cluster.raise_feature_level(raise(1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(Refused::read(&refused).reason, "Y3007");
    let text = format!("member 1 (version {}) understands levels up to 0", Build::CURRENT.version);
    assert!(refused.message().contains(&text), "{refused}");
    // The one that there is is as good as done.
    admin.cluster.raise_feature_level(raise(0)).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_is_raised_once_and_holds_for_who_joins_and_who_comes_back() {
    let cluster = Cluster::start().await.restart_as(next()).await;
    let mut admin = cluster.admin();
    let skipped = admin.cluster.raise_feature_level(raise(2)).await.unwrap_err();
    assert!(skipped.message().contains("understands levels up to 1"), "{skipped}");
    let first = admin.cluster.raise_feature_level(raise(1)).await.unwrap().into_inner();
    let again = admin.cluster.raise_feature_level(raise(1)).await.unwrap().into_inner();
    assert!(first.applied_index > 0 && again.applied_index >= first.applied_index);
    let status = admin.cluster.status(v1::StatusRequest::default()).await.unwrap().into_inner();
    assert_eq!((status.feature_level, status.feature_level_max), (1, 1));
    assert_eq!(status.members[0].feature_level_max, Some(1));
    assert_eq!(status.members[0].version, "9.0.0");

    // A machine of an earlier version is told before its token is spent.
    let (token, key) = (member_token(&mut admin).await, KeyRequest::new().unwrap());
    let refused = ask_to_join(&cluster, &token, &key, "127.0.0.1:1", 0).await.unwrap_err();
    assert_eq!(Refused::read(&refused).reason, "Y3007");
    assert!(refused.message().contains("install version 9.0.0 or a later one"), "{refused}");
    let joined = ask_to_join(&cluster, &token, &key, "127.0.0.1:1", 1).await.unwrap();
    assert_eq!(joined.member_id, 2);
    // It does not run, so nobody knows what it will understand.
    let early = admin.cluster.raise_feature_level(raise(2)).await.unwrap_err();
    assert!(early.message().contains("member 2 "), "{early}");

    let (folder, running) = cluster.come_back_as(Build::CURRENT).await;
    let error = timeout(PATIENCE, running).await.unwrap().unwrap().unwrap_err();
    assert!(error.is_of_version() && !error.is_of_folder(), "{error:?}");
    assert!(folder.path().exists());
}
