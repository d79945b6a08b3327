//! Logs and files come from the agent, on a stream that it opens itself.

use crate::agent::{Agent, Stream};
use crate::cluster::{Cluster, PATIENCE};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use yard_common::ExitCause;
use yard_common::state::JobState;
use yard_proto::internal::agent_data::What as Data;
use yard_proto::internal::coordinator_message::What;
use yard_proto::internal::{self, AgentData, MemberData, member_data};
use yard_proto::v1;
use yard_proto::v1::logs_response::What as Told;

const JOB: &str = "name: hello\nranks_per_node: 2\ncommand: echo hi\n";

fn data(what: Data) -> AgentData {
    AgentData { what: Some(what) }
}

/// Waits for a question on the control stream.
async fn called(stream: &mut Stream) -> internal::DataCall {
    loop {
        match stream.next().await {
            Some(What::DataCall(call)) => return call,
            Some(What::Goodbye(goodbye)) => panic!("{goodbye:?}"),
            Some(_) => {}
            None => panic!("the stream ended"),
        }
    }
}

/// Dials back with a ticket, and gets the question.
async fn dial(
    cluster: &Cluster,
    agent: &Agent,
    ticket: bytes::Bytes,
) -> Result<(mpsc::Sender<AgentData>, member_data::What, Streaming<MemberData>), tonic::Status> {
    let (to, frames) = mpsc::channel(16);
    to.send(data(Data::Ticket(ticket))).await.unwrap();
    let answer = agent.client(cluster).data(ReceiverStream::new(frames)).await?;
    let mut questions = answer.into_inner();
    let question = questions.message().await?.unwrap();
    Ok((to, question.what.unwrap(), questions))
}

/// What an agent sends of a stream.
fn log_data(local_rank: u32, stream: i32, offset: u64, text: &'static str) -> internal::LogData {
    internal::LogData { local_rank, stream, offset, data: text.into(), written_wall_ms: 0 }
}

#[tokio::test]
async fn logs_are_read_through_a_ticket_that_is_good_once() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let mut agent = Agent::new(&cluster, "n1").await;
    let mut stream = agent.connect(&cluster).await;
    let submitted = admin.submit(JOB).await.unwrap();
    let (desired, _) = stream.desired().await;
    let request = v1::LogsRequest {
        job_id: submitted.job_id,
        positions: vec![v1::LogPosition { rank: 1, stream: 1, offset: 5 }],
        ..Default::default()
    };
    let mut reader = admin.clone();
    let asked = tokio::spawn(async move { reader.jobs.logs(request).await });
    let call = called(&mut stream).await;
    assert_eq!(call.address, cluster.address());
    let (to, question, _rest) = dial(&cluster, &agent, call.ticket.clone()).await.unwrap();
    let again = dial(&cluster, &agent, call.ticket).await.err().unwrap();
    assert_eq!(again.code(), Code::PermissionDenied, "{again}");
    let member_data::What::Log(want) = question else { panic!("{question:?}") };
    let assignment = want.assignment.unwrap();
    assert_eq!(assignment.allocation_id, desired.assignments[0].id.allocation.0);
    assert_eq!(assignment.attempt, 1);
    let sources: Vec<_> =
        want.sources.iter().map(|one| (one.local_rank, one.stream, one.offset)).collect();
    assert_eq!(sources, [(0, 1, 0), (0, 2, 0), (1, 1, 5), (1, 2, 0)]);
    let log = log_data(1, 1, 5, "hi\n");
    to.send(data(Data::Log(log))).await.unwrap();
    to.send(data(Data::End(internal::DataEnd {}))).await.unwrap();
    let mut logs = asked.await.unwrap().unwrap().into_inner();
    let head = logs.message().await.unwrap().unwrap().what.unwrap();
    let expected = v1::LogHead { attempt: 1, ranks: 2 };
    assert_eq!(head, v1::logs_response::What::Head(expected));
    let chunk = logs.message().await.unwrap().unwrap().what.unwrap();
    let v1::logs_response::What::Chunk(chunk) = chunk else { panic!("{chunk:?}") };
    assert_eq!((chunk.rank, chunk.offset, &chunk.data[..]), (1, 5, &b"hi\n"[..]));
    assert!(logs.message().await.unwrap().is_none());

    // The attempt is over and its resources are free: its logs are still where they were.
    let reports = agent.run(&desired.assignments[0], ExitCause::Exited(0));
    stream.report(&reports).await;
    stream.acknowledged(agent.sequence).await;
    let request = v1::LogsRequest { job_id: submitted.job_id, ..Default::default() };
    let asked = tokio::spawn(async move { admin.jobs.logs(request).await });
    let call = called(&mut stream).await;
    let (_to, question, _rest) = dial(&cluster, &agent, call.ticket).await.unwrap();
    let member_data::What::Log(want) = question else { panic!("{question:?}") };
    let assignment = want.assignment.unwrap();
    assert_eq!(assignment.allocation_id, desired.assignments[0].id.allocation.0);
    asked.abort();
    cluster.stop().await;
}

#[tokio::test]
async fn files_come_in_parts_and_errors_keep_their_kind() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let agent = Agent::new(&cluster, "n1").await;
    let mut stream = agent.connect(&cluster).await;
    let submitted = admin.submit(JOB).await.unwrap();
    stream.desired().await;
    let place = v1::FilePlace {
        job_id: submitted.job_id,
        path: "model/weights".into(),
        ..Default::default()
    };
    let request = v1::ReadFileRequest { place: Some(place), offset: 2, len: 0 };
    let mut reader = admin.clone();
    let ask = request.clone();
    let asked = tokio::spawn(async move { reader.jobs.read_file(ask).await });
    let call = called(&mut stream).await;
    let (to, question, _rest) = dial(&cluster, &agent, call.ticket).await.unwrap();
    let member_data::What::File(want) = question else { panic!("{question:?}") };
    assert_eq!((want.path.as_str(), want.offset), ("model/weights", 2));
    let part = internal::FileData { offset: 2, data: "bc".into(), size_bytes: 4 };
    to.send(data(Data::File(part))).await.unwrap();
    to.send(data(Data::End(internal::DataEnd {}))).await.unwrap();
    let mut parts = asked.await.unwrap().unwrap().into_inner();
    let part = parts.message().await.unwrap().unwrap();
    assert_eq!((part.offset, &part.data[..], part.size_bytes), (2, &b"bc"[..], 4));
    assert!(parts.message().await.unwrap().is_none());

    let asked = tokio::spawn(async move { admin.jobs.read_file(request).await });
    let call = called(&mut stream).await;
    let (to, _question, _rest) = dial(&cluster, &agent, call.ticket).await.unwrap();
    let mut error = internal::DataError { kind: 0, message: "it leaves its root".into() };
    error.set_kind(internal::DataErrorKind::NotAllowed);
    to.send(data(Data::Error(error))).await.unwrap();
    let mut parts = asked.await.unwrap().unwrap().into_inner();
    let refused = parts.message().await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "it leaves its root"));
    cluster.stop().await;
}

#[tokio::test]
async fn without_its_agent_there_is_a_clear_answer() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let agent = Agent::new(&cluster, "n1").await;
    let mut stream = agent.connect(&cluster).await;
    let submitted = admin.submit(JOB).await.unwrap();
    let request = v1::LogsRequest { job_id: submitted.job_id, task_index: 5, ..Default::default() };
    assert_eq!(admin.jobs.logs(request).await.unwrap_err().code(), Code::NotFound);
    stream.desired().await;
    let rank = v1::LogsRequest { job_id: submitted.job_id, ranks: vec![2], ..Default::default() };
    assert_eq!(admin.jobs.logs(rank).await.unwrap_err().code(), Code::NotFound);
    stream.leave().await;
    let request = v1::LogsRequest { job_id: submitted.job_id, ..Default::default() };
    let refused = admin.jobs.logs(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_job_without_an_attempt_has_no_output() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let held = admin.submit("name: h\nhold: true\ncommand: x\n").await.unwrap();
    let request = v1::LogsRequest { job_id: held.job_id, ..Default::default() };
    let refused = admin.jobs.logs(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_member_that_starts_from_a_snapshot_knows_what_runs() {
    let cluster = Cluster::start().await;
    let mut agent = Agent::new(&cluster, "n1").await;
    let mut stream = agent.connect(&cluster).await;
    let submitted = cluster.admin().submit(JOB).await.unwrap();
    let (desired, _) = stream.desired().await;
    agent.fence = desired.fence;
    let raft = cluster.handle.raft();
    let (index, _) = raft.state();
    raft.take_snapshot().await.unwrap();
    while raft.snapshot().is_none_or(|(at, _)| at < index) {
        tokio::task::yield_now().await;
    }
    let cluster = cluster.restart().await;
    let mut admin = cluster.admin();
    let mut stream = agent.connect(&cluster).await;
    stream.welcome().await;
    // What happened before the snapshot can be watched no more.
    let old = v1::EventsRequest { from_index: submitted.applied_index, kinds: Vec::new() };
    let mut old = admin.cluster.events(old).await.unwrap().into_inner();
    let told = old.message().await.unwrap().unwrap().what;
    assert!(matches!(told, Some(v1::watch_response::What::Compacted(_))), "{told:?}");
    let get = v1::GetJobRequest { job_id: submitted.job_id };
    let now = admin.jobs.get(get).await.unwrap().into_inner().applied_index;
    let from = v1::SubmitResponse { applied_index: now + 1, ..submitted.clone() };
    let reports = agent.run(&desired.assignments[0], ExitCause::Exited(3));
    stream.report(&reports).await;
    stream.acknowledged(agent.sequence).await;
    admin.wait_for(&from, JobState::Failed).await;
    let request = v1::ExplainRequest { job_id: submitted.job_id, task_index: None };
    let explained = admin.jobs.explain(request).await.unwrap().into_inner();
    let failure = explained.explanation.unwrap().failure.unwrap();
    assert_eq!((failure.attempt, failure.rank, failure.node.as_str()), (1, Some(0), "n1"));
    let request = v1::LogsRequest { job_id: submitted.job_id, ..Default::default() };
    let asked = tokio::spawn(async move { admin.jobs.logs(request).await });
    // The explanation asked for the last lines, and did not wait for ever.
    called(&mut stream).await;
    let call = called(&mut stream).await;
    let (_to, question, _rest) = dial(&cluster, &agent, call.ticket).await.unwrap();
    let member_data::What::Log(want) = question else { panic!("{question:?}") };
    assert_eq!(want.assignment.unwrap().allocation_id, desired.assignments[0].id.allocation.0);
    asked.abort();
    cluster.stop().await;
}

/// Lets a gang of two with one rank each start, and gives its job.
async fn gang(cluster: &Cluster, agents: [&Agent; 2]) -> (v1::SubmitResponse, [Stream; 2]) {
    let mut streams = [agents[0].connect(cluster).await, agents[1].connect(cluster).await];
    let spec = "name: gang\nnodes: 2\ncommand: echo hi\n";
    let submitted = cluster.admin().submit(spec).await.unwrap();
    for stream in &mut streams {
        stream.desired().await;
    }
    (submitted, streams)
}

#[tokio::test]
async fn a_node_that_is_away_does_not_keep_the_logs_of_the_others() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let (one, two) = (Agent::new(&cluster, "n1").await, Agent::new(&cluster, "n2").await);
    let (submitted, [mut stream, away]) = gang(&cluster, [&one, &two]).await;
    away.leave().await;
    let request = v1::LogsRequest { job_id: submitted.job_id, ..Default::default() };
    let ask = request.clone();
    let mut reader = admin.clone();
    let asked = tokio::spawn(async move { reader.jobs.logs(ask).await });
    let call = called(&mut stream).await;
    let (to, _question, _rest) = dial(&cluster, &one, call.ticket).await.unwrap();
    let log = log_data(0, 1, 0, "hi\n");
    to.send(data(Data::Log(log))).await.unwrap();
    to.send(data(Data::End(internal::DataEnd {}))).await.unwrap();
    let mut answers = asked.await.unwrap().unwrap().into_inner();
    let (mut chunks, mut gaps, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(answer) = answers.message().await.unwrap() {
        match answer.what.unwrap() {
            Told::Head(head) => assert_eq!(head.ranks, 2),
            Told::Chunk(chunk) => chunks.push((chunk.rank, chunk.data)),
            Told::Gap(gap) => gaps.push((gap.rank, gap.len, gap.reason)),
            Told::End(end) => ends.push((end.rank, end.stream, end.complete)),
        }
    }
    assert_eq!(chunks.len(), 1);
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    assert!(
        gaps.iter().all(|(rank, len, why)| *rank != chunks[0].0
            && *len == 0
            && why.contains("not in touch")),
        "{gaps:?}"
    );
    assert_eq!(ends, [(gaps[0].0, 1, false), (gaps[0].0, 2, false)]);
    // With nobody there is nothing to tell.
    stream.leave().await;
    let refused = admin.jobs.logs(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_that_comes_back_is_followed_again() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let (one, two) = (Agent::new(&cluster, "n1").await, Agent::new(&cluster, "n2").await);
    let (submitted, [mut first, mut second]) = gang(&cluster, [&one, &two]).await;
    let follow = true;
    let request = v1::LogsRequest { job_id: submitted.job_id, follow, ..Default::default() };
    let asked = tokio::spawn(async move { admin.jobs.logs(request).await });
    let call = called(&mut first).await;
    let (_one, ..) = dial(&cluster, &one, call.ticket).await.unwrap();
    let call = called(&mut second).await;
    let (to, _question, _rest) = dial(&cluster, &two, call.ticket).await.unwrap();
    let log = |offset, text: &'static str| data(Data::Log(log_data(0, 1, offset, text)));
    to.send(log(0, "abc")).await.unwrap();
    let mut answers = asked.await.unwrap().unwrap().into_inner();
    let mut next = async || loop {
        match timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap().what.unwrap() {
            Told::Head(_) => {}
            other => return other,
        }
    };
    assert!(matches!(next().await, Told::Chunk(chunk) if &chunk.data[..] == b"abc"));
    // Its agent dies with the stream, and answers when it is asked again.
    drop(to);
    for _ in 0..2 {
        assert!(matches!(next().await, Told::Gap(gap) if gap.len == 0));
    }
    let call = called(&mut second).await;
    let (to, question, _rest) = dial(&cluster, &two, call.ticket).await.unwrap();
    let member_data::What::Log(want) = question else { panic!("{question:?}") };
    let offsets: Vec<u64> = want.sources.iter().map(|source| source.offset).collect();
    assert_eq!(offsets, [3, 0]);
    to.send(log(3, "de")).await.unwrap();
    assert!(matches!(next().await, Told::Chunk(chunk) if chunk.offset == 3));
    cluster.stop().await;
}

#[tokio::test]
async fn copies_are_taken_of_own_ranks_alone() {
    let cluster = Cluster::start().await;
    let (one, two) = (Agent::new(&cluster, "n1").await, Agent::new(&cluster, "n2").await);
    let (submitted, _streams) = gang(&cluster, [&one, &two]).await;
    let copy = |job_id, rank, text: &'static str| internal::LogCopy {
        job_id,
        attempt: 1,
        rank,
        stream: 1,
        data: text.into(),
        ..internal::LogCopy::default()
    };
    let job_id = submitted.job_id;
    let mut refused = Vec::new();
    for agent in [&one, &two] {
        let copies = vec![
            copy(job_id, 0, "zero\n"),
            copy(job_id, 1, "one\n"),
            copy(job_id + 1, 0, "nobody's\n"),
        ];
        let request = internal::CopyLogsRequest { copies };
        let answer = agent.client(&cluster).copy_logs(request).await.unwrap();
        refused.push(answer.into_inner().refused);
    }
    // Each took one rank, and none another job's.
    refused.sort();
    assert_eq!(refused, [[0, 2], [1, 2]]);
    let many = vec![copy(job_id, 0, ""); yard_common::limits::LOG_COPY_PIECES_MAX + 1];
    let request = internal::CopyLogsRequest { copies: many };
    let answer = one.client(&cluster).copy_logs(request).await.unwrap_err();
    assert_eq!(answer.code(), Code::InvalidArgument, "{answer}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_failure_shows_the_last_lines_of_the_rank_that_failed() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let mut agent = Agent::new(&cluster, "n1").await;
    let mut stream = agent.connect(&cluster).await;
    let submitted = admin.submit(JOB).await.unwrap();
    let (desired, _) = stream.desired().await;
    let reports = agent.run(&desired.assignments[0], ExitCause::Exited(3));
    stream.report(&reports).await;
    admin.wait_for(&submitted, JobState::Failed).await;
    let request = v1::ExplainRequest { job_id: submitted.job_id, task_index: None };
    let asked = tokio::spawn(async move { admin.jobs.explain(request).await });
    let call = called(&mut stream).await;
    let (to, question, _rest) = dial(&cluster, &agent, call.ticket).await.unwrap();
    let member_data::What::Log(want) = question else { panic!("{question:?}") };
    let source = &want.sources[0];
    assert_eq!((source.local_rank, source.stream, want.tail_lines, want.follow), (0, 2, 20, false));
    assert_eq!(want.assignment.unwrap().attempt, 1);
    let log = log_data(0, 2, 9, "boom\n");
    to.send(data(Data::Log(log))).await.unwrap();
    to.send(data(Data::End(internal::DataEnd {}))).await.unwrap();
    let explained = asked.await.unwrap().unwrap().into_inner();
    let failure = explained.explanation.unwrap().failure.unwrap();
    assert_eq!((failure.rank, &failure.stderr_tail[..]), (Some(0), &b"boom\n"[..]));
    cluster.stop().await;
}
