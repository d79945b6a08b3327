//! Members join, vote, take over, and leave: over real connections, in one process.

use crate::agent::Agent;
use crate::cluster::{Cluster, PATIENCE, User, request_id};
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;
use yard_common::ExitCause;
use yard_common::id::{MemberId, PrincipalId};
use yard_common::limits::LOG_KEPT_ENTRIES;
use yard_common::state::JobState;
use yard_coordinator::env::SystemEnv;
use yard_coordinator::proposer::Leadership;
use yard_coordinator::{Build, Handle, JoinError, JoinOptions, Options, ServeError, Service, join};
use yard_core::command::{Access, Actor, Command};
use yard_proto::convert::error::Refused;
use yard_proto::internal::member_service_client::MemberServiceClient;
use yard_proto::internal::{JoinMemberRequest, JoinMemberResponse, ReadIndexRequest};
use yard_proto::v1;
use yard_runtime::identity::{Authority, Identity, KeyRequest, Token};
use yard_runtime::tls::{ClientTls, Expect, channel};

/// A member beyond the first one.
struct Other {
    root: TempDir,
    address: SocketAddr,
    id: MemberId,
    running: Option<(Handle, JoinHandle<Result<(), ServeError>>)>,
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub(crate) async fn member_token(admin: &mut User) -> Token {
    let request = v1::CreateMemberTokenRequest { request_id: request_id(), life_ms: 0 };
    let answer = admin.cluster.create_member_token(request).await.unwrap().into_inner();
    answer.token.unwrap().text.parse().unwrap()
}

fn options(folder: PathBuf, token: &Token, at: String, address: String) -> JoinOptions {
    let (members, patience, build) = (vec![at], Duration::from_secs(10), Build::CURRENT);
    JoinOptions { folder, token: token.clone(), members, address, patience, build }
}

impl Other {
    async fn join(cluster: &Cluster) -> Other {
        let (root, address) = (tempfile::tempdir().unwrap(), free_address());
        let token = member_token(&mut cluster.admin()).await;
        let folder = root.path().join("member");
        let at = cluster.address();
        let joined = join(options(folder, &token, at, address.to_string())).await.unwrap();
        assert_eq!(joined.cluster, cluster.made.cluster);
        let mut other = Other { root, address, id: joined.member, running: None };
        other.start().await;
        other
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("member")
    }

    async fn start(&mut self) {
        let options = Options::new(self.folder(), self.address);
        let service = Service::start(options, Arc::new(SystemEnv)).await.unwrap();
        let handle = service.handle();
        self.running = Some((handle, tokio::spawn(service.wait())));
    }

    fn handle(&self) -> &Handle {
        &self.running.as_ref().unwrap().0
    }

    async fn stop(&mut self) {
        let (handle, running) = self.running.take().unwrap();
        handle.shutdown();
        timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
    }

    /// The administrator, as seen by this member.
    fn admin(&self, cluster: &Cluster) -> User {
        user_at(self.address, &cluster.made.admin)
    }
}

fn user_at(address: SocketAddr, identity: &Identity) -> User {
    let tls = ClientTls::new(identity).unwrap();
    let tree = Expect::Any(yard_runtime::identity::Tree::Member);
    User::new(channel(&address.to_string(), &tls, tree).unwrap())
}

/// Waits until something comes.
async fn comes<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "still not: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The voters, once there are so many and no change is under way.
async fn voters(handle: &Handle, count: usize) {
    comes("voters", || async {
        let membership = handle.raft().state().1.membership;
        (membership.joint.is_none() && membership.voters.len() == count).then_some(())
    })
    .await;
}

async fn three() -> (Cluster, [Other; 2]) {
    let cluster = Cluster::start().await;
    let others = [Other::join(&cluster).await, Other::join(&cluster).await];
    voters(&cluster.handle, 3).await;
    for other in &others {
        assert!(timeout(PATIENCE, other.handle().ready()).await.unwrap());
    }
    (cluster, others)
}

fn led_by(handle: &Handle) -> Option<MemberId> {
    match *handle.raft().leadership().borrow() {
        Leadership::Leader { id, .. } => Some(id.member),
        Leadership::Follower { leader } => leader,
    }
}

const JOB: &str = "name: j\nresources: { cpus: 1, memory: 1MiB }\ncommand: \"true\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_from_tokens_to_a_lost_leader() {
    let (cluster, mut others) = three().await;
    assert_eq!(others.each_ref().map(|other| other.id), [MemberId(2), MemberId(3)]);
    let before = cluster.admin().submit(JOB).await.unwrap();
    // Any member takes a job, and knows of all others.
    let through = others[1].admin(&cluster).submit(JOB).await.unwrap();
    assert_eq!(through.job_id, before.job_id + 1);
    // The same request takes effect once, whichever members are asked.
    let request = v1::SubmitRequest {
        request_id: request_id(),
        spec: JOB.into(),
        submit_dir: "/srv".into(),
        ..Default::default()
    };
    let mut ids = Vec::new();
    for mut user in [others[0].admin(&cluster), others[1].admin(&cluster), cluster.admin()] {
        ids.push(user.jobs.submit(request.clone()).await.unwrap().into_inner().job_id);
    }
    assert_eq!(ids, [through.job_id + 1; 3]);
    let status = others[0].admin(&cluster).cluster.status(v1::StatusRequest::default()).await;
    let status = status.unwrap().into_inner();
    let roles: Vec<_> = status.members.iter().map(v1::Member::role).collect();
    use v1::MemberRole::{Follower, Leader};
    assert_eq!(roles, [Leader, Follower, Follower]);
    for member in &status.members {
        assert_eq!((member.unreachable.as_str(), member.leaves), ("", false));
        assert!(member.lag_entries.is_some() && member.flush_p99_us.is_some(), "{member:?}");
        assert!(member.certificate_expires_wall_ms.is_some() && !member.version.is_empty());
    }
    assert_eq!(status.leader.map(|leader| leader.member_id), Some(1));

    let answers = others.each_ref().map(|other| other.admin(&cluster));
    cluster.stop().await;
    let [mut two, mut three] = answers;
    let after = comes("a new leader", || {
        let mut two = two.clone();
        async move { two.submit(JOB).await.ok() }
    })
    .await;
    assert_eq!(after.job_id, through.job_id + 2);
    for id in [before.job_id, through.job_id, after.job_id] {
        assert_eq!(three.job(id).await.unwrap().id, id);
    }
    let _ = two.job(before.job_id).await.unwrap();
    others[0].stop().await;
    others[1].stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_can_issue_certificates_and_renew_its_own() {
    let (cluster, others) = three().await;
    for other in &others {
        let mut admin = other.admin(&cluster);
        let token = admin.join_token().await;
        assert_eq!(token.fingerprint, cluster.made.admin.trust().fingerprint());
        let authority = Authority::load(&other.folder().join("authority")).unwrap();
        assert_eq!(authority.trust().fingerprint(), token.fingerprint);
        let mode = |path: &Path| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777
        };
        assert_eq!(mode(&other.folder().join("authority")), 0o700);
        assert_eq!(mode(&other.folder().join("authority/member-ca.key")), 0o600);
        assert!(!other.folder().join("request.key").exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_restarts_and_catches_up() {
    let (cluster, mut others) = three().await;
    others[0].stop().await;
    let submitted = cluster.admin().submit(JOB).await.unwrap();
    others[0].start().await;
    assert!(timeout(PATIENCE, others[0].handle().ready()).await.unwrap());
    let job = others[0].admin(&cluster).job(submitted.job_id).await.unwrap();
    assert_eq!(job.id, submitted.job_id);
    let (own, other) = (cluster.handle.raft(), others[0].handle().raft());
    let (index, _) = own.state();
    other.applied().wait_for(|applied| *applied >= index).await.unwrap();
    let hash = |state: yard_core::state::State| (state.history_hash, state.digest);
    if other.state().0 == own.state().0 {
        assert_eq!(hash(other.state().1), hash(own.state().1));
    }
}

/// Makes users, with one entry of the log for each.
async fn add_users(handle: &Handle, which: std::ops::RangeInclusive<u64>) {
    let raft = handle.raft();
    for nth in which {
        let (name, unix, grants) = (format!("user-{nth}"), None, vec![]);
        let add = Command::Access(Access::AddUser { name, unix, grants });
        raft.propose(Actor::User(PrincipalId(0)), None, &add).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_believes_a_leader_that_the_first_entries_do_not_name() {
    let cluster = Cluster::start().await;
    // More than the leader sends at a time: the first ones name the founder alone.
    add_users(&cluster.handle, 0..=700).await;
    let others = [Other::join(&cluster).await, Other::join(&cluster).await];
    voters(&cluster.handle, 3).await;
    let to = v1::TransferLeaderRequest { member_id: others[0].id.0 };
    cluster.admin().cluster.transfer_leader(to).await.unwrap();
    let late = Other::join(&cluster).await;
    let (index, _) = others[0].handle().raft().state();
    let mut applied = late.handle().raft().applied();
    let caught_up = applied.wait_for(|applied| *applied >= index);
    timeout(PATIENCE, caught_up).await.expect("it catches up").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_comes_late_gets_a_snapshot_and_is_told_of_attempts() {
    let cluster = Cluster::start().await;
    let mut agent = Agent::new(&cluster, "n1").await;
    let mut stream = agent.connect(&cluster).await;
    let submitted = cluster.admin().submit(JOB).await.unwrap();
    let (desired, _) = stream.desired().await;
    let reports = agent.run(&desired.assignments[0], ExitCause::Exited(3));
    stream.report(&reports).await;
    cluster.admin().wait_for(&submitted, JobState::Failed).await;
    let raft = cluster.handle.raft();
    // More than are kept behind a snapshot.
    add_users(&cluster.handle, 0..=LOG_KEPT_ENTRIES).await;
    let (index, _) = raft.state();
    raft.take_snapshot().await.unwrap();
    comes("the snapshot", || async {
        raft.snapshot().is_some_and(|(at, _)| at >= index).then_some(())
    })
    .await;
    // Let it drop what the snapshot holds.
    sleep(Duration::from_millis(100)).await;
    let other = Other::join(&cluster).await;
    let late = other.handle().raft();
    late.applied().wait_for(|applied| *applied >= index).await.unwrap();
    let (own, found) = (raft.state(), late.state());
    assert_eq!(found.1.principals.len(), own.1.principals.len());
    assert!(late.snapshot().is_some(), "the log alone does not reach back that far");
    add_users(&cluster.handle, 99_999..=99_999).await;
    let (index, expected) = raft.state();
    late.applied().wait_for(|applied| *applied >= index).await.unwrap();
    assert_eq!(late.state().1.principals.len(), expected.principals.len());
    // Where it ran is not in the state any more.
    let attempts = async |mut user: User| {
        let request = v1::AttemptsRequest { job_id: submitted.job_id, ..Default::default() };
        user.jobs.attempts(request).await.ok().map(|answer| answer.into_inner().attempts)
    };
    let expected = attempts(cluster.admin()).await.unwrap();
    assert_eq!(expected[0].shares[0].node, "n1");
    comes("what is remembered", || async {
        attempts(other.admin(&cluster)).await.filter(|found| *found == expected)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lead_is_handed_over_and_a_member_removed() {
    let (cluster, mut others) = three().await;
    let mut admin = cluster.admin();
    let to = v1::TransferLeaderRequest { member_id: 3 };
    let answer = admin.cluster.transfer_leader(to).await.unwrap().into_inner();
    assert_eq!(answer.leader.unwrap().member_id, 3);
    assert_eq!(led_by(&cluster.handle), Some(MemberId(3)));
    // Who does not lead names who does.
    let remove = v1::RemoveMemberRequest { member_id: 2 };
    let refused = admin.cluster.remove_member(remove).await.unwrap_err();
    let leader = Refused::read(&refused).metadata.get("leader").cloned();
    assert_eq!(leader, Some(others[1].address.to_string()));

    let identity = Identity::load(&others[0].folder().join("identity")).unwrap();
    let mut leader = others[1].admin(&cluster);
    // So that nothing of it is under way when it is gone.
    others[0].stop().await;
    let answer = leader.cluster.remove_member(remove).await.unwrap().into_inner();
    assert_eq!(answer.members.iter().map(|member| member.id).collect::<Vec<_>>(), [1, 3]);
    voters(&cluster.handle, 2).await;
    // Its certificate is refused from now on.
    for address in [others[1].address.to_string(), cluster.address()] {
        let tls = ClientTls::new(&identity).unwrap();
        let tree = Expect::Any(yard_runtime::identity::Tree::Member);
        let mut client = MemberServiceClient::new(channel(&address, &tls, tree).unwrap());
        let refused = client.read_index(ReadIndexRequest {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    }
    // Of two, none can go while the other is away; the leader itself goes last.
    let own = v1::RemoveMemberRequest { member_id: 3 };
    let refused = leader.cluster.remove_member(own).await.unwrap_err();
    let next = Refused::read(&refused).metadata.get("leader").cloned();
    assert_eq!(next, Some(cluster.address()), "it handed over: {refused:?}");
    comes("the next leader works", || {
        let mut admin = admin.clone();
        async move { admin.cluster.remove_member(own).await.ok() }
    })
    .await;
    voters(&cluster.handle, 1).await;
    let last = v1::RemoveMemberRequest { member_id: 1 };
    let refused = admin.cluster.remove_member(last).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(cluster.admin().submit(JOB).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_removed_if_the_rest_could_not_work() {
    let (cluster, mut others) = three().await;
    others[0].stop().await;
    let mut admin = cluster.admin();
    comes("silence is noticed", || {
        let mut admin = admin.clone();
        async move {
            let status = admin.cluster.status(v1::StatusRequest::default()).await.ok()?;
            let told = &status.get_ref().members[1].unreachable;
            sleep(Duration::from_millis(600)).await;
            (!told.is_empty()).then_some(())
        }
    })
    .await;
    let to = v1::TransferLeaderRequest { member_id: 2 };
    let refused = admin.cluster.transfer_leader(to).await.unwrap_err();
    assert!(refused.message().contains("does not answer"), "{refused:?}");
    let well = v1::RemoveMemberRequest { member_id: 3 };
    let refused = admin.cluster.remove_member(well).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("only 1 answer"), "{refused:?}");
    // The dead one may go.
    let dead = v1::RemoveMemberRequest { member_id: 2 };
    admin.cluster.remove_member(dead).await.unwrap();
    voters(&cluster.handle, 2).await;
}

pub(crate) async fn ask_to_join(
    cluster: &Cluster,
    token: &Token,
    key: &KeyRequest,
    address: &str,
    feature_level_max: u32,
) -> Result<JoinMemberResponse, tonic::Status> {
    let (channel, _) = cluster.stranger();
    let request = JoinMemberRequest {
        request_id: request_id(),
        token_id: token.id.to_u128().to_be_bytes().to_vec().into(),
        token_secret: Some(token.secret.reveal().to_string().into()),
        csr_der: key.der().to_vec().into(),
        address: address.into(),
        version: "test".into(),
        feature_level_max,
    };
    Ok(MemberServiceClient::new(channel).join(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_whose_answer_was_lost_is_asked_again_and_nobody_else_gets_in() {
    let cluster = Cluster::start().await;
    let token = member_token(&mut cluster.admin()).await;
    let (key, thief) = (KeyRequest::new().unwrap(), KeyRequest::new().unwrap());
    for bad in ["", "no port", "http://a:1/x"] {
        let refused = ask_to_join(&cluster, &token, &key, bad, 0).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{bad}");
    }
    let first = ask_to_join(&cluster, &token, &key, "127.0.0.1:1", 0).await.unwrap();
    let again = ask_to_join(&cluster, &token, &key, "127.0.0.1:1", 0).await.unwrap();
    assert_eq!((first.member_id, again.member_id), (2, 2));
    assert_eq!(again.authority_key_pem.len(), 3);
    assert!(!format!("{again:?}").contains("PRIVATE KEY"), "keys do not show");
    let refused = ask_to_join(&cluster, &token, &thief, "127.0.0.1:2", 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    // A token of another kind.
    let node = cluster.admin().join_token().await;
    let refused = ask_to_join(&cluster, &node, &thief, "127.0.0.1:2", 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    // Once it is to leave, its token is good for nothing.
    let leave = v1::RemoveMemberRequest { member_id: 2 };
    cluster.admin().cluster.remove_member(leave).await.unwrap();
    let refused = ask_to_join(&cluster, &token, &key, "127.0.0.1:1", 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_a_join_outlasts_the_refusal_of_a_former_member() {
    let (cluster, root) = (Cluster::start().await, tempfile::tempdir().unwrap());
    // One that knows nothing of the token, with the same CAs: a copy of before.
    let former = cluster.copy_of_now().await;
    let token = member_token(&mut cluster.admin()).await;
    let (folder, own) = (root.path().join("member"), free_address().to_string());
    let nowhere = free_address().to_string();
    let join_at = |members: &[&str]| JoinOptions {
        patience: Duration::ZERO,
        members: members.iter().map(ToString::to_string).collect(),
        ..options(folder.clone(), &token, String::new(), own.clone())
    };
    assert!(matches!(join(join_at(&[&nowhere])).await, Err(JoinError::Nobody { .. })));
    // The cluster lets the machine in, and the answer is lost.
    let key_file = root.path().join(".member.join/request.key");
    let key = KeyRequest::load(&key_file).unwrap();
    let lost = ask_to_join(&cluster, &token, &key, &own, 0).await.unwrap();
    let refused = join(join_at(&[&former.address()])).await;
    assert!(matches!(refused, Err(JoinError::Refused(_))), "{refused:?}");
    assert!(key_file.exists(), "whoever was asked before may have let it in");
    let joined = join(join_at(&[&former.address(), &cluster.address()])).await.unwrap();
    assert_eq!(joined.member, MemberId(lost.member_id));

    // A key that nobody can have let in goes.
    let (folder, token) = (root.path().join("other"), member_token(&mut cluster.admin()).await);
    let key_file = root.path().join(".other.join/request.key");
    let join_at = |members: &[&str]| JoinOptions {
        members: members.iter().map(ToString::to_string).collect(),
        ..options(folder.clone(), &token, String::new(), free_address().to_string())
    };
    let refused = join(join_at(&[&nowhere, &former.address()])).await;
    assert!(matches!(refused, Err(JoinError::Refused(_))) && key_file.exists());
    std::fs::remove_dir_all(root.path().join(".other.join")).unwrap();
    let refused = join(join_at(&[&former.address()])).await;
    assert!(matches!(refused, Err(JoinError::Refused(_))) && !key_file.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_removed_hears_of_it_and_stops() {
    let (cluster, mut others) = three().await;
    let remove = v1::RemoveMemberRequest { member_id: 3 };
    cluster.admin().cluster.remove_member(remove).await.unwrap();
    let (_, running) = others[1].running.take().unwrap();
    let error = timeout(PATIENCE, running).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.code(), Some(yard_common::ErrorCode::NotAMember), "{error:?}");
    assert!(error.is_of_folder(), "to start it again does not help");
    assert!(cluster.admin().submit(JOB).await.is_ok());
    // Nor does it.
    others[1].start().await;
    let (_, running) = others[1].running.take().unwrap();
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_another_life_is_no_part_of_this_one() {
    let (cluster, others) = three().await;
    let identity = Identity::load(&others[0].folder().join("identity")).unwrap();
    let tls = ClientTls::new(&identity).unwrap();
    let tree = Expect::Any(yard_runtime::identity::Tree::Member);
    let mut client = MemberServiceClient::new(channel(&cluster.address(), &tls, tree).unwrap());
    client.read_index(ReadIndexRequest {}).await.unwrap();
    let mut request = tonic::Request::new(ReadIndexRequest {});
    request.metadata_mut().insert(yard_proto::LIFE, 7.into());
    let refused = client.read_index(request).await.unwrap_err();
    assert_eq!(Refused::read(&refused).reason, "Y3008", "{refused:?}");
    // The certificate is right, and the life is not: no vote is heard.
    let mut request = tonic::Request::new(yard_proto::internal::RaftMessage::default());
    request.metadata_mut().insert(yard_proto::LIFE, 7.into());
    let refused = client.vote(request).await.unwrap_err();
    assert_eq!(Refused::read(&refused).reason, "Y3008", "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_complete_or_not_there() {
    let (cluster, root) = (Cluster::start().await, tempfile::tempdir().unwrap());
    let token = member_token(&mut cluster.admin()).await;
    let folder = root.path().join("member");
    let own = free_address().to_string();
    // Nobody is there: the same key is kept for the next try.
    let nowhere = JoinOptions {
        patience: Duration::ZERO,
        ..options(folder.clone(), &token, free_address().to_string(), own.clone())
    };
    assert!(matches!(join(nowhere).await, Err(JoinError::Nobody { .. })));
    assert!(!folder.exists());
    let key = std::fs::read(root.path().join(".member.join/request.key")).unwrap();
    assert!(!key.is_empty());
    // Another cluster is there: it hears nothing. A try before may have been let in, so its key is
    // kept.
    let other = Cluster::start().await;
    let foreign = options(folder.clone(), &token, other.address(), own.clone());
    let error = join(foreign).await.unwrap_err();
    assert!(matches!(error, JoinError::Foreign(_)), "{error:?}");
    assert!(!folder.exists());
    assert_eq!(std::fs::read(root.path().join(".member.join/request.key")).unwrap(), key);

    let right = options(folder.clone(), &token, cluster.address(), own.clone());
    let joined = join(right.clone()).await.unwrap();
    assert_eq!(join(right).await.unwrap(), joined, "it finds out that it has joined");
    assert!(!root.path().join(".member.join").exists());
    let more = member_token(&mut cluster.admin()).await;
    let taken = join(options(folder, &more, cluster.address(), own)).await.unwrap_err();
    assert!(matches!(taken, JoinError::Place(_)), "{taken:?}");
}
