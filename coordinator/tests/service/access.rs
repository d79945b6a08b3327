//! Who gets in, and how far.

use crate::agent::{self, Agent};
use crate::cluster::{Cluster, PATIENCE, request_id};
use std::pin::Pin;
use std::task::Poll;
use tokio::time::timeout;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::{Body as _, Service as _, http};
use yard_proto::convert::error::Refused;
use yard_proto::internal::agent_service_client::AgentServiceClient;
use yard_proto::internal::member_service_client::MemberServiceClient;
use yard_proto::internal::{RaftMessage, RenewRequest};
use yard_proto::v1;
use yard_proto::v1::job_service_client::JobServiceClient;

fn grant(workspace: &str, role: v1::Role) -> v1::Grant {
    v1::Grant { workspace: workspace.into(), role: role.into() }
}

#[tokio::test]
async fn each_kind_of_caller_has_its_own_calls() {
    let cluster = Cluster::start().await;
    let agent = Agent::new(&cluster, "n1").await;
    let get = v1::GetJobRequest { job_id: 0 };
    let (stranger, _) = cluster.stranger();
    let refused = JobServiceClient::new(stranger).get(get).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    let channel = cluster.channel(&agent.identity);
    let refused = JobServiceClient::new(channel).get(get).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let admin = cluster.admin();
    let mut members = MemberServiceClient::new(admin.channel.clone());
    let refused = members.append(RaftMessage::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert_eq!(Refused::read(&refused).reason, "Y2003");
    cluster.stop().await;
}

#[tokio::test]
async fn a_foreign_workspace_does_not_exist() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let mut holders = v1::holder_service_client::HolderServiceClient::new(admin.channel.clone());
    let make = v1::CreateWorkspaceRequest { request_id: request_id(), workspace: "lab".into() };
    holders.create_workspace(make).await.unwrap();
    let (mut bob, _) = cluster.add_user("bob", vec![grant("lab", v1::Role::User)]).await;
    let job = admin.submit("name: secret\nhold: true\ncommand: 'true'\n").await.unwrap().job_id;
    assert_eq!(bob.job(job).await.unwrap_err().code(), Code::NotFound);
    let missing = bob.job(job + 1).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let cancel = v1::CancelRequest { request_id: request_id(), job_id: job, ..Default::default() };
    assert_eq!(bob.jobs.cancel(cancel).await.unwrap_err().code(), Code::NotFound);
    let listed = bob.jobs.list(v1::ListJobsRequest::default()).await.unwrap().into_inner();
    assert!(listed.jobs.is_empty());
    let spec = "name: a\nworkspace: default\ncommand: 'true'\n";
    assert_eq!(bob.submit(spec).await.unwrap_err().code(), Code::NotFound);
    let own = bob.submit("name: a\nworkspace: lab\nhold: true\ncommand: 'true'\n").await.unwrap();
    assert_eq!(bob.job(own.job_id).await.unwrap().owner, "bob");
    let refused = bob.nodes.drain(v1::DrainRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    cluster.stop().await;
}

#[tokio::test]
async fn who_may_only_look_submits_nothing() {
    let cluster = Cluster::start().await;
    let (mut eve, _) = cluster.add_user("eve", vec![grant("", v1::Role::Viewer)]).await;
    let refused = eve.submit("name: a\ncommand: 'true'\n").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let own = eve.users.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(own.user.unwrap().name, "eve");
    cluster.stop().await;
}

#[tokio::test]
async fn a_token_is_good_once_and_a_bad_request_does_not_cost_it() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let token = admin.join_token().await;
    let taken = agent::join(&cluster, &token, "no good name!").await.err().unwrap();
    assert_eq!(taken.code(), Code::InvalidArgument, "{taken}");
    agent::join(&cluster, &token, "n1").await.unwrap();
    let again = agent::join(&cluster, &token, "n2").await.err().unwrap();
    assert_eq!(again.code(), Code::Unauthenticated, "{again}");
    assert_eq!(Refused::read(&again).reason, "Y2012");
    // One whose time is over is none, either: the cluster's time moves with each command.
    let request = v1::CreateJoinTokenRequest {
        request_id: request_id(),
        pool: "default".into(),
        life_ms: 1,
        ..Default::default()
    };
    let short = admin.nodes.create_join_token(request).await.unwrap().into_inner();
    let short = short.token.unwrap().text.parse().unwrap();
    admin.submit("name: a\nhold: true\ncommand: 'true'\n").await.unwrap();
    let late = agent::join(&cluster, &short, "n4").await.err().unwrap();
    assert_eq!(Refused::read(&late).reason, "Y2012", "{late}");
    // A token for something else is no better than none.
    let login = admin.login_token("ada").await;
    let other = agent::join(&cluster, &login, "n3").await.err().unwrap();
    assert_eq!(other.code(), Code::Unauthenticated, "{other}");
    cluster.log_in(&login).await.unwrap();
    assert_eq!(cluster.log_in(&login).await.err().unwrap().code(), Code::Unauthenticated);
    cluster.stop().await;
}

#[tokio::test]
async fn a_revoked_certificate_and_a_disabled_user_are_out_at_once() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let (mut bob, identity) = cluster.add_user("bob", vec![grant("", v1::Role::User)]).await;
    bob.users.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    let revoke = v1::RevokeRequest {
        request_id: request_id(),
        serial: identity.peer().serial.clone().into(),
        reason: "lost".into(),
        expires_wall_ms: identity.peer().not_after_wall_ms,
    };
    admin.users.revoke(revoke).await.unwrap();
    // On the connection that is open already.
    let refused = bob.users.who_am_i(v1::WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    assert_eq!(Refused::read(&refused).reason, "Y2015");
    let token = admin.login_token("bob").await;
    let identity = cluster.log_in(&token).await.unwrap();
    let mut bob = cluster.user(&identity);
    bob.users.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    let disable =
        v1::DisableUserRequest { request_id: request_id(), user: "bob".into(), disabled: true };
    admin.users.disable(disable).await.unwrap();
    let refused = bob.users.who_am_i(v1::WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_member_that_has_not_caught_up_refuses_nobody_for_good() {
    let cluster = Cluster::start().await;
    let agent = Agent::new(&cluster, "n1").await;
    let cluster = cluster.restart_without_log().await;
    let mut admin = cluster.admin();
    let refused = admin.users.who_am_i(v1::WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(Refused::read(&refused).retry_after_ms.is_some(), "{refused}");
    let mut agents = AgentServiceClient::new(cluster.channel(&agent.identity));
    let refused = agents.renew(RenewRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let (stranger, _) = cluster.stranger();
    assert_eq!(get(stranger.clone(), "/healthz").await, (200, "ok\n".into()));
    assert_eq!(get(stranger, "/readyz").await.0, 503);
    assert_eq!(get(admin.channel, "/metrics").await.0, 503);
    cluster.stop().await;
}

#[tokio::test]
async fn probes_and_counters_are_on_the_same_port() {
    let cluster = Cluster::start().await;
    let (stranger, _) = cluster.stranger();
    assert_eq!(get(stranger.clone(), "/healthz").await, (200, "ok\n".into()));
    assert_eq!(get(stranger.clone(), "/readyz").await, (200, "ready\n".into()));
    assert_eq!(get(stranger, "/metrics").await.0, 403);
    let (status, text) = get(cluster.admin().channel, "/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("yard_leads 1") && text.ends_with("# EOF\n"), "{text}");
    cluster.stop().await;
}

async fn get(mut channel: tonic::transport::Channel, path: &str) -> (u16, String) {
    let request = http::Request::builder().uri(path).body(Body::empty()).unwrap();
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
    let response = channel.call(request).await.unwrap();
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
        Poll::Ready(frame) => Poll::Ready(frame),
        Poll::Pending => Poll::Pending,
    })
    .await
    {
        if let Ok(data) = frame.unwrap().into_data() {
            text.extend_from_slice(&data);
        }
    }
    (status, String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn every_answer_names_the_life_of_the_cluster() {
    let cluster = Cluster::start().await;
    let (mut bob, _) = cluster.add_user("bob", vec![grant("", v1::Role::User)]).await;
    let life = |head: &tonic::metadata::MetadataMap| {
        head.get(yard_proto::LIFE).map(|life| life.to_str().unwrap().to_string())
    };
    let answer = bob.cluster.status(v1::StatusRequest::default()).await.unwrap();
    assert_eq!(life(answer.metadata()).as_deref(), Some("1"));
    // Refused at the gate, behind it, and to a stranger.
    let at_the_gate = bob.nodes.drain(v1::DrainRequest::default()).await.unwrap_err();
    let behind = bob.jobs.get(v1::GetJobRequest::default()).await.unwrap_err();
    let (channel, _) = cluster.stranger();
    let mut nobody = v1::cluster_service_client::ClusterServiceClient::new(channel);
    let stranger = nobody.status(v1::StatusRequest::default()).await.unwrap_err();
    assert_eq!(stranger.code(), Code::Unauthenticated);
    for refused in [at_the_gate, behind, stranger] {
        assert_eq!(life(refused.metadata()).as_deref(), Some("1"), "{refused:?}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn an_agent_asks_for_maintenance_of_its_own_node_alone() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let agent = Agent::new(&cluster, "n1").await;
    let _other = Agent::new(&cluster, "n2").await;
    let mut nodes =
        v1::node_service_client::NodeServiceClient::new(cluster.channel(&agent.identity));
    let ask = |node: &str| v1::MaintenanceRequest {
        request_id: request_id(),
        node: node.into(),
        for_ms: 60_000,
        back: false,
    };
    nodes.maintenance(ask("n1")).await.unwrap();
    let get = |node: &str| v1::GetNodeRequest { node: node.into() };
    let node = admin.nodes.get(get("n1")).await.unwrap().into_inner().node.unwrap();
    assert!(node.maintenance_until_cluster_ms.is_some_and(|until_ms| until_ms > 0), "{node:?}");
    let both = v1::MaintenanceRequest { back: true, ..ask("n1") };
    let refused = nodes.maintenance(both).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let back = v1::MaintenanceRequest { back: true, for_ms: 0, ..ask("n1") };
    nodes.maintenance(back).await.unwrap();
    let node = admin.nodes.get(get("n1")).await.unwrap().into_inner().node.unwrap();
    assert_eq!((node.maintenance_until_cluster_ms, node.conditions.len()), (None, 0), "{node:?}");
    // There is one of the second name and none of the third: no difference to an agent.
    for foreign in ["n2", "n3"] {
        let refused = nodes.maintenance(ask(foreign)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
    let refused = nodes.drain(v1::DrainRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    // People may ask for any node, if they are operators.
    admin.nodes.maintenance(ask("n2")).await.unwrap();
    let (mut bob, _) = cluster.add_user("bob", vec![grant("", v1::Role::User)]).await;
    let refused = bob.nodes.maintenance(ask("n1")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_filter_tells_nothing_of_who_exists() {
    let cluster = Cluster::start().await;
    let (mut bob, _) = cluster.add_user("bob", vec![grant("", v1::Role::User)]).await;
    bob.submit("name: a\nhold: true\ncommand: 'true'\n").await.unwrap();
    for (owner, jobs) in [("bob", 1), ("ada", 0), ("nobody", 0)] {
        let list = v1::ListJobsRequest { owner: owner.into(), ..Default::default() };
        let listed = bob.jobs.list(list).await.unwrap().into_inner();
        assert_eq!(listed.jobs.len(), jobs, "{owner}");
        let usage = v1::UsageRequest { owner: owner.into(), ..Default::default() };
        bob.cluster.usage(usage).await.unwrap();
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_reason_names_no_job_of_a_foreign_workspace() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let mut holders = v1::holder_service_client::HolderServiceClient::new(admin.channel.clone());
    let make = v1::CreateWorkspaceRequest { request_id: request_id(), workspace: "lab".into() };
    holders.create_workspace(make).await.unwrap();
    let (mut bob, _) = cluster.add_user("bob", vec![grant("lab", v1::Role::User)]).await;
    let agent = Agent::new(&cluster, "n1").await;
    let mut stream = agent.connect(&cluster).await;
    let taken = "name: secret\nresources: { cpus: 4 }\ncommand: 'true'\n";
    let secret = admin.submit(taken).await.unwrap().job_id;
    stream.desired().await;
    let waiting = "name: mine\nworkspace: lab\nresources: { cpus: 4 }\ncommand: 'true'\n";
    let job_id = bob.submit(waiting).await.unwrap().job_id;
    let request = v1::ExplainRequest { job_id, task_index: None };
    let constraints = |explained: v1::ExplainResponse| explained.explanation.unwrap().constraints;
    let holders = |constraints: &[v1::Constraint]| {
        constraints.iter().find_map(|constraint| match &constraint.what {
            Some(v1::constraint::What::HeldBy(holders)) => Some(holders.clone()),
            _ => None,
        })
    };
    let seen = constraints(bob.jobs.explain(request).await.unwrap().into_inner());
    let held = holders(&seen).unwrap();
    assert_eq!((held.holders.len(), held.hidden.unwrap().jobs), (0, 1), "{held:?}");
    assert!(seen.iter().any(|one| one.text.contains("1 job that you may not see")), "{seen:?}");
    assert!(seen.iter().any(|one| one.text == "place 1 in queue default"), "{seen:?}");
    let seen = constraints(admin.jobs.explain(request).await.unwrap().into_inner());
    assert_eq!(holders(&seen).unwrap().holders[0].job_id, secret);
    cluster.stop().await;
}

#[tokio::test]
async fn what_goes_on_ends_when_its_reader_is_out() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let (mut bob, _) = cluster.add_user("bob", vec![grant("", v1::Role::User)]).await;
    let job = bob.submit("name: a\nhold: true\ncommand: 'true'\n").await.unwrap();
    let request = v1::WatchJobsRequest { job_ids: vec![job.job_id], ..Default::default() };
    let mut watch = bob.jobs.watch(request).await.unwrap().into_inner();
    let request = v1::EventsRequest { from_index: 0, kinds: Vec::new() };
    let mut events = bob.cluster.events(request).await.unwrap().into_inner();
    let disable =
        v1::DisableUserRequest { request_id: request_id(), user: "bob".into(), disabled: true };
    admin.users.disable(disable).await.unwrap();
    for stream in [&mut watch, &mut events] {
        let ended = async {
            loop {
                match stream.message().await {
                    Ok(told) => assert!(told.is_some(), "it ended without a word"),
                    Err(status) => return status,
                }
            }
        };
        let status = timeout(PATIENCE, ended).await.expect("it ends");
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    }
    cluster.stop().await;
}
