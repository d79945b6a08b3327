//! Questions about logs and files.

use crate::cluster::Cluster;
use crate::member::Event;
use crate::node::{Root, detail, joined, reference, set, started, told};
use yard_common::limits::{VISIT_CHUNK_BYTES_MAX, VISIT_WINDOW_BYTES};
use yard_core::agent::ReportKind;
use yard_proto::internal::agent_data::What;
use yard_proto::internal::member_data::What as Want;
use yard_proto::internal::{
    AgentData, DataErrorKind, ExecWant, FileListWant, FileWant, GangNode, LogEnd, LogSource,
    LogWant,
};
use yard_proto::v1::{ExecInput, ExecStart, FileRoot, LogStream, exec_input};

fn log_want(allocation: u64, follow: bool, offset: u64, tail_lines: u32) -> Want {
    let stream = LogStream::Stdout.into();
    let sources = vec![LogSource { local_rank: 0, stream, offset }];
    let assignment = reference(allocation);
    Want::Log(LogWant { assignment, sources, tail_lines, follow, ..LogWant::default() })
}

/// The bytes of a stream, which must follow each other, and its end.
fn text(all: &[AgentData], from: u64) -> (String, LogEnd) {
    assert_eq!(all[0].what, Some(What::Ticket(b"ticket".as_slice().into())));
    let (mut bytes, mut end) = (Vec::new(), None);
    for data in &all[1..] {
        match data.what.clone().unwrap() {
            What::Log(data) => {
                assert_eq!(data.offset, from + bytes.len() as u64);
                bytes.extend_from_slice(&data.data);
            }
            What::LogEnd(found) => end = Some(found),
            What::End(_) => {}
            other => panic!("{other:?}"),
        }
    }
    (String::from_utf8(bytes).unwrap(), end.unwrap())
}

fn error(all: &[AgentData]) -> DataErrorKind {
    match all.last().unwrap().what.clone().unwrap() {
        What::Error(error) => error.kind(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_followed_to_the_end_and_read_again_later() {
    let (root, mut cluster) = (Root::new(), Cluster::start(1).await);
    joined(&root, &cluster).await;
    let handle = started(&root).await;
    let (member, _) = cluster.hello().await;
    let command = "for i in 1 2 3; do echo line $i; sleep 0.05; done";
    cluster.say(member, told(&set(2, &[57]), vec![detail(57, command)])).await;
    let all = cluster.ask(member, log_want(57, true, 0, 0)).await;
    let (found, end) = text(&all, 0);
    assert_eq!(found, "line 1\nline 2\nline 3\n");
    assert!(end.complete && end.offset == 21, "{end:?}");
    // Once it is over and released, they are still there, from any offset.
    cluster.say(member, told(&set(3, &[]), Vec::new())).await;
    let shim = root.path().join("shims/57-0");
    while shim.exists() {
        tokio::task::yield_now().await;
    }
    let all = cluster.ask(member, log_want(57, false, 7, 0)).await;
    let (found, end) = text(&all, 7);
    assert_eq!(found, "line 2\nline 3\n");
    assert!(end.complete, "{end:?}");
    let all = cluster.ask(member, log_want(57, false, 0, 1)).await;
    assert_eq!(text(&all, 14).0, "line 3\n");
    // Nobody has heard of this one.
    let all = cluster.ask(member, log_want(99, false, 0, 0)).await;
    assert_eq!(error(&all), DataErrorKind::NotFound);
    handle.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_shares_of_a_gang_on_one_node_keep_their_ranks() {
    let (root, mut cluster) = (Root::new(), Cluster::start(1).await);
    joined(&root, &cluster).await;
    let handle = started(&root).await;
    let (member, _) = cluster.hello().await;
    let mut both = set(2, &[57, 57]);
    both.assignments[1].id.group = 1;
    let share = |group: u32| {
        let mut share = detail(57, "echo group $YARD_RANK");
        let node = share.gang[0].clone();
        share.gang.push(GangNode { group: 1, first_rank: 1, ..node });
        (share.group, share.node_rank) = (group, group);
        share
    };
    cluster.say(member, told(&both, vec![share(0), share(1)])).await;
    let mut reaped = 0;
    cluster
        .reports(true, |report| {
            reaped += u32::from(report.what == ReportKind::Reaped);
            reaped == 2
        })
        .await;
    cluster.say(member, told(&set(3, &[]), Vec::new())).await;
    while root.path().join("shims/57-0").exists() || root.path().join("shims/57-1").exists() {
        tokio::task::yield_now().await;
    }
    for (group, expected) in [(0, "group 0\n"), (1, "group 1\n")] {
        let Want::Log(mut want) = log_want(57, false, 0, 0) else { panic!() };
        want.assignment.as_mut().unwrap().group = group;
        let all = cluster.ask(member, Want::Log(want)).await;
        assert_eq!(text(&all, 0).0, expected);
    }
    handle.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_in_a_moment_is_copied_to_two_members() {
    let (root, mut cluster) = (Root::new(), Cluster::start(3).await);
    joined(&root, &cluster).await;
    let handle = started(&root).await;
    let (member, _) = cluster.hello().await;
    let all = [detail(57, "echo quick; echo bad >&2")];
    cluster.say(member, told(&set(2, &[57]), all.into())).await;
    cluster.reports(true, |report| report.what == ReportKind::Reaped).await;
    // It is let go before anybody looked at what it wrote.
    cluster.say(member, told(&set(3, &[]), Vec::new())).await;
    let mut heard = Vec::new();
    while heard.len() < 4 {
        let copies = cluster.next(|event| match event {
            Event::Copies(copies) => Some(copies),
            _ => None,
        });
        heard.extend(copies.await);
    }
    heard.sort_by_key(|copy| copy.stream);
    let told: Vec<_> = heard
        .iter()
        .map(|copy| {
            (copy.job_id, copy.attempt, copy.rank, copy.stream, copy.offset, &copy.data[..])
        })
        .collect();
    let (out, err) = ((812, 1, 0, 1, 0, &b"quick\n"[..]), (812, 1, 0, 2, 0, &b"bad\n"[..]));
    assert_eq!(told, [out, out, err, err], "once to each of two");
    handle.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_read_and_nothing_leads_outside() {
    let (root, mut cluster) = (Root::new(), Cluster::start(1).await);
    joined(&root, &cluster).await;
    let handle = started(&root).await;
    let (member, _) = cluster.hello().await;
    let gate = root.path().join("gate");
    let command = format!(
        "echo said; printf abcdef > f; ln -s ../../../identity/identity.pem key; mkdir d; \
         touch ready; until test -e {}; do sleep 0.02; done",
        gate.display()
    );
    cluster.say(member, told(&set(2, &[57]), vec![detail(57, &command)])).await;
    cluster.reports(true, |report| matches!(report.what, ReportKind::Started(_))).await;
    let scratch = root.path().join("jobs/812/57-0");
    while !scratch.join("ready").exists() {
        tokio::task::yield_now().await;
    }
    let temp: i32 = FileRoot::Temp.into();
    let list = |path: &str| {
        Want::Files(FileListWant {
            assignment: reference(57),
            root: temp,
            path: path.into(),
            after_name: String::new(),
            entries_max: 0,
        })
    };
    let all = cluster.ask(member, list("")).await;
    let Some(What::Files(found)) = all[1].what.clone() else { panic!("{all:?}") };
    let names: Vec<&str> = found.entries.iter().map(|entry| &*entry.name).collect();
    assert_eq!(names, ["d", "f", "key", "ready", "tmp"]);
    let read = |path: &str, root: i32, offset: u64, len: u64| {
        Want::File(FileWant { assignment: reference(57), root, path: path.into(), offset, len })
    };
    let all = cluster.ask(member, read("f", temp, 2, 3)).await;
    let Some(What::File(found)) = all[1].what.clone() else { panic!("{all:?}") };
    assert_eq!((found.offset, &found.data[..], found.size_bytes), (2, &b"cde"[..], 6));
    for (path, root, kind) in [
        ("key", temp, DataErrorKind::NotAllowed),
        ("../../../identity/identity.pem", temp, DataErrorKind::NotAllowed),
        ("/etc/passwd", temp, DataErrorKind::NotAllowed),
        ("d", temp, DataErrorKind::NotAllowed),
        ("none", temp, DataErrorKind::NotFound),
        ("f", FileRoot::Unspecified.into(), DataErrorKind::NotAllowed),
    ] {
        let all = cluster.ask(member, read(path, root, 0, 0)).await;
        assert_eq!(error(&all), kind, "{path}");
    }
    std::fs::write(&gate, "").unwrap();
    cluster.reports(true, |report| report.what == ReportKind::Reaped).await;
    // Output that ranks of MPI open by themselves is theirs, in a directory that is not.
    let output = root.path().join("logs/812/57.1/0.out");
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&output, Some(65_534), None).unwrap();
    }
    let all = cluster.ask(member, read("0.out", FileRoot::Logs.into(), 0, 0)).await;
    let Some(What::File(found)) = all[1].what.clone() else { panic!("{all:?}") };
    assert_eq!(found.data, "said\n");
    handle.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_that_sends_more_than_was_granted_is_cut_off() {
    let (root, mut cluster) = (Root::new(), Cluster::start(1).await);
    joined(&root, &cluster).await;
    let handle = started(&root).await;
    let (member, _) = cluster.hello().await;
    cluster.say(member, told(&set(2, &[57]), vec![detail(57, "exec sleep 1000")])).await;
    cluster.reports(true, |report| matches!(report.what, ReportKind::Started(_))).await;
    let words = ["sleep", "1000"].map(String::from).to_vec();
    let start = Some(ExecStart { words, ..ExecStart::default() });
    let bytes = bytes::Bytes::from(vec![b'x'; VISIT_CHUNK_BYTES_MAX]);
    let input = Want::ExecInput(ExecInput { what: Some(exec_input::What::Stdin(bytes)) });
    let chunks = 4 * VISIT_WINDOW_BYTES / VISIT_CHUNK_BYTES_MAX;
    cluster.wills[&member].lock().unwrap().more = vec![input; chunks];
    let want = ExecWant { assignment: reference(57), local_rank: 0, start };
    let all = cluster.ask(member, Want::Exec(want)).await;
    assert_eq!(error(&all), DataErrorKind::Limit, "{:?}", all.last());
    handle.stop().await.unwrap();
}
