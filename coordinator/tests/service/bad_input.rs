//! What makes no sense gets a clear status, and harms nobody.

use crate::cluster::{Cluster, PATIENCE, request_id};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codegen::{Service as _, http};
use tonic::transport::Channel;
use tonic::{Code, Status};
use yard_proto::convert::error::Refused;
use yard_proto::v1;
use yard_proto::v1::holder_service_client::HolderServiceClient;

#[tokio::test]
async fn a_bad_job_file_gets_every_problem_at_once() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let spec = "name: 'a b'\ncommnd: x\nresources: { gpus: many }\nnodes: -1\n";
    let refused = admin.submit(spec).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let problems = Refused::read(&refused).problems.unwrap().problems;
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    for field in ["name", "commnd", "nodes"] {
        assert!(fields.contains(&field), "{field} is not among {fields:?}");
    }
    let unknown = problems.iter().find(|problem| problem.field == "commnd").unwrap();
    assert_eq!((unknown.nearest.as_str(), unknown.line), ("command", 2));

    let refused = admin.submit("name: a\nqueue: nihgt\npool: x\ncommand: x\n").await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let problems = Refused::read(&refused).problems.unwrap().problems;
    assert_eq!(problems.len(), 2, "both names are unknown: {problems:?}");

    let refused = admin.submit("name: a\ncommand: x\nimage: ubuntu\n").await.unwrap_err();
    assert_eq!(Refused::read(&refused).reason, "Y1014", "{refused}");
    let listed = admin.jobs.list(v1::ListJobsRequest::default()).await.unwrap().into_inner();
    assert!(listed.jobs.is_empty(), "nothing was submitted");
    cluster.stop().await;
}

#[tokio::test]
async fn what_is_too_large_or_too_deep_is_refused() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let huge = format!("name: a\ncommand: x\nenv: {{ A: '{}' }}\n", "x".repeat(3 << 20));
    let refused = admin.submit(&huge).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    let deep = format!("name: a\ncommand: x\nenv: {}{}\n", "[".repeat(10_000), "]".repeat(10_000));
    let refused = admin.submit(&deep).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    admin.submit("name: a\nhold: true\ncommand: x\n").await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn ids_that_name_nothing_are_told() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    assert_eq!(admin.job(77).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(admin.job(u64::MAX).await.unwrap_err().code(), Code::NotFound);
    let cancel = v1::CancelRequest { job_id: 1, ..Default::default() };
    let refused = admin.jobs.cancel(cancel).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    let hold = v1::HoldRequest { request_id: vec![1, 2].into(), job_id: 1, reason: String::new() };
    let refused = admin.jobs.hold(hold).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let get = v1::GetNodeRequest { node: "nowhere".into() };
    assert_eq!(admin.nodes.get(get).await.unwrap_err().code(), Code::NotFound);
    let page = v1::Page { after_key: "nonsense".into(), ..Default::default() };
    let list = v1::ListJobsRequest { page: Some(page), ..Default::default() };
    assert_eq!(admin.jobs.list(list).await.unwrap_err().code(), Code::InvalidArgument);
    let after_key = usize::MAX.to_string();
    let page = Some(v1::Page { after_key, ..Default::default() });
    let mut holders = HolderServiceClient::new(admin.channel.clone());
    let limits = holders.list_limits(v1::ListLimitsRequest { page }).await.unwrap();
    assert!(limits.into_inner().limits.is_empty(), "there is nothing behind the last one");
    let watch = v1::WatchJobsRequest { from_index: 1, job_ids: vec![9], ..Default::default() };
    assert_eq!(admin.jobs.watch(watch).await.unwrap_err().code(), Code::NotFound);
    cluster.stop().await;
}

#[tokio::test]
async fn the_same_request_makes_one_job() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let request = v1::SubmitRequest {
        request_id: request_id(),
        spec: "name: a\nhold: true\ncommand: x\n".into(),
        ..Default::default()
    };
    let first = admin.jobs.submit(request.clone()).await.unwrap().into_inner();
    let again = admin.jobs.submit(request.clone()).await.unwrap().into_inner();
    assert_eq!(first.job_id, again.job_id);
    let other = v1::SubmitRequest { spec: "name: b\ncommand: x\n".into(), ..request };
    let refused = admin.jobs.submit(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    cluster.stop().await;
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repeat() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    for nth in 0..7 {
        admin.submit(&format!("name: j{nth}\nhold: true\ncommand: x\n")).await.unwrap();
    }
    for newest_first in [false, true] {
        let mut seen = Vec::new();
        let mut page = v1::Page { size: 3, ..Default::default() };
        loop {
            let list = v1::ListJobsRequest {
                page: Some(page.clone()),
                newest_first,
                ..Default::default()
            };
            let listed = admin.jobs.list(list).await.unwrap().into_inner();
            seen.extend(listed.jobs.iter().map(|job| job.id));
            let info = listed.page.unwrap();
            if info.next_key.is_empty() {
                break;
            }
            page.after_key = info.next_key;
            page.applied_index = info.applied_index;
        }
        if newest_first {
            seen.reverse();
        }
        assert_eq!(seen, (0..7).collect::<Vec<u64>>());
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_retry_finds_the_job_though_time_and_names_have_moved() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    // The delay counts from the submit: the second try comes later, and means the same job.
    let request = v1::SubmitRequest {
        request_id: request_id(),
        spec: "name: a\nnot_before: '+2h'\ncommand: x\n".into(),
        ..Default::default()
    };
    let first = admin.jobs.submit(request.clone()).await.unwrap().into_inner();
    let until = admin.job(first.job_id).await.unwrap().not_before_cluster_ms;
    let again = admin.jobs.submit(request.clone()).await.unwrap().into_inner();
    assert_eq!((first.job_id, &first.canonical_spec), (again.job_id, &again.canonical_spec));
    assert!(again.applied_index >= first.applied_index);
    assert_eq!(admin.job(first.job_id).await.unwrap().not_before_cluster_ms, until);
    let other = v1::SubmitRequest {
        spec: "name: a\nnot_before: '+3h'\ncommand: x\n".into(),
        ..request.clone()
    };
    let refused = admin.jobs.submit(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    // The id of one user is nothing to another one.
    let grants = vec![v1::Grant { workspace: String::new(), role: v1::Role::User.into() }];
    let (mut bob, _) = cluster.add_user("bob", grants).await;
    let own = bob.jobs.submit(request).await.unwrap().into_inner();
    assert_ne!(own.job_id, first.job_id);

    let replace = v1::ReplaceRequest {
        job_id: first.job_id,
        revision: 0,
        new: Some(v1::SubmitRequest {
            request_id: request_id(),
            spec: "name: b\nnot_before: '+4h'\ncommand: x\n".into(),
            ..Default::default()
        }),
    };
    let replaced = admin.jobs.replace(replace.clone()).await.unwrap().into_inner();
    let again = admin.jobs.replace(replace.clone()).await.unwrap().into_inner();
    assert_eq!((replaced.job_id, again.job_id), (first.job_id, first.job_id));
    assert_eq!(admin.job(first.job_id).await.unwrap().revision, 1);
    // As a request of its own it comes too late.
    let mut late = replace;
    late.new.as_mut().unwrap().request_id = request_id();
    let refused = admin.jobs.replace(late).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted, "{refused}");
    cluster.stop().await;
}

/// A request that never ends, sent over a connection without a certificate.
async fn begin(mut channel: Channel, path: &str, begun: Vec<u8>) -> Status {
    let (to, body) = tokio::sync::mpsc::channel(1);
    to.send(bytes::Bytes::from(begun)).await.unwrap();
    let request = http::Request::builder()
        .method("POST")
        .uri(path)
        .header("content-type", "application/grpc")
        .body(Body::new(Unending(body)))
        .unwrap();
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
    let response = timeout(PATIENCE, channel.call(request)).await.expect("an answer").unwrap();
    drop(to);
    Status::from_header_map(response.headers()).unwrap()
}

struct Unending(tokio::sync::mpsc::Receiver<bytes::Bytes>);

impl http_body::Body for Unending {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Status>>> {
        self.0.poll_recv(cx).map(|data| data.map(|data| Ok(http_body::Frame::data(data))))
    }
}

#[tokio::test]
async fn strangers_get_little_room() {
    let cluster = Cluster::start().await;
    let (stranger, _) = cluster.stranger();
    let join = "/yard.internal.v1.AgentService/Join";
    // By its head alone: nothing of the message has come.
    let large = (4u32 << 20).to_be_bytes();
    let head = vec![0, large[0], large[1], large[2], large[3]];
    let member = "/yard.internal.v1.MemberService/Join";
    for path in [join, member, "/yard.v1.UserService/Login"] {
        let refused = begin(stranger.clone(), path, head.clone()).await;
        assert_eq!(refused.code(), Code::OutOfRange, "{path}: {refused}");
    }
    // Two calls hang; the third one of this connection is too many, and others do not notice.
    let calls: Vec<_> = (0..3).map(|_| Box::pin(begin(stranger.clone(), join, vec![0]))).collect();
    let (refused, _, _hang) = futures_util::future::select_all(calls).await;
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let (other, _) = cluster.stranger();
    let refused = begin(other, join, head).await;
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    cluster.stop().await;
}

#[tokio::test]
async fn the_same_request_makes_one_token() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let join = v1::CreateJoinTokenRequest {
        request_id: request_id(),
        pool: "default".into(),
        ..Default::default()
    };
    let first = admin.nodes.create_join_token(join.clone()).await.unwrap().into_inner();
    let again = admin.nodes.create_join_token(join.clone()).await.unwrap().into_inner();
    let text = |secret: &Option<v1::Secret>| secret.as_ref().unwrap().text.clone();
    assert_eq!((&first.token_id, text(&first.token)), (&again.token_id, text(&again.token)));
    let token = text(&first.token).parse().unwrap();
    crate::agent::join(&cluster, &token, "n1").await.unwrap();
    let other = v1::CreateJoinTokenRequest { life_ms: 60_000, ..join.clone() };
    let refused = admin.nodes.create_join_token(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    let other = v1::CreateJoinTokenRequest { request_id: request_id(), ..join };
    let other = admin.nodes.create_join_token(other).await.unwrap().into_inner();
    assert_ne!((&first.token_id, text(&first.token)), (&other.token_id, text(&other.token)));
    let login = v1::CreateLoginTokenRequest {
        request_id: request_id(),
        user: "ada".into(),
        life_ms: 60_000,
    };
    let first = admin.users.create_login_token(login.clone()).await.unwrap().into_inner();
    let again = admin.users.create_login_token(login).await.unwrap().into_inner();
    assert_eq!(text(&first.token), text(&again.token));
    cluster.log_in(&text(&again.token).parse().unwrap()).await.unwrap();
    cluster.stop().await;
}
