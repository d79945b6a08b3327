//! The disk of a node: one job's bound, and what is kept free.

use crate::world::{Node, Root, assignment, id, lives, one, wanted};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::path::Path;
use yard_agent::logs::{AttemptLogs, Kind, Piece, Writer};
use yard_agent::paths::Paths;
use yard_common::ExitCause;
use yard_common::cause::PrepareStep;
use yard_common::id::{AttemptNumber, JobId};
use yard_core::agent::DesiredPhase;

#[tokio::test]
async fn a_job_that_takes_more_than_it_asked_for_ends_alone() {
    let mut node = Node::start().await;
    let run = |allocation| wanted(allocation, one(), DesiredPhase::Run);
    let mut greedy =
        assignment("command: head -c 20000000 /dev/zero >$YARD_JOB_TEMP/x; sleep 1000");
    greedy.amounts.disk_bytes = 10_000_000;
    let mut modest = assignment("command: echo $$; head -c 5000000 /dev/zero >x; exec sleep 1000");
    modest.job = JobId(2);
    modest.amounts.disk_bytes = 10_000_000;
    node.desire(vec![run(1), run(2)], vec![(id(1), greedy), (id(2), modest)]).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    assert_eq!(node.heard.causes(id(1)), [ExitCause::DiskFull]);
    let out = std::fs::read_to_string(node.root.path().join("logs/2/0.1/0.out")).unwrap();
    assert!(lives(out.trim().parse().unwrap()), "its neighbour ended too");
    assert_eq!(node.heard.causes(id(2)), []);
    node.desire(Vec::new(), Vec::new()).await;
    node.until(|heard| heard.is_reaped(id(2))).await;
}

#[tokio::test]
async fn output_counts_as_well() {
    let mut node = Node::start().await;
    let mut loud = assignment("command: head -c 20000000 /dev/zero; sleep 1000");
    loud.amounts.disk_bytes = 10_000_000;
    node.desire(vec![wanted(1, one(), DesiredPhase::Run)], vec![(id(1), loud)]).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    assert_eq!(node.heard.causes(id(1)), [ExitCause::DiskFull]);
}

/// A small disk, for as long as it is looked at.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    /// One whose files get no holes.
    fn without_holes(at: &'a Path) -> Disk<'a> {
        mount(Some("ramfs"), at, Some("ramfs"), MsFlags::empty(), Some("mode=755")).unwrap();
        Disk(at)
    }

    fn mount(at: &'a Path) -> Disk<'a> {
        let size = Some("size=32m,mode=755");
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), size).unwrap();
        Disk(at)
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn nothing_new_starts_on_a_disk_that_is_nearly_full() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let _disk = Disk::mount(place.path());
    let root = Root::below(place.path());
    let filler = place.path().join("filler");
    std::fs::write(&filler, vec![1; 31 << 20]).unwrap();
    let mut node = Node::with(root, "n1", |_| {}).await;
    let cause = node.end_of(1, "command: 'true'").await;
    assert_eq!(cause, ExitCause::PrepareFailed(PrepareStep::Disk));
    let text = node.output(0, Writer::Prepare, Kind::Err);
    assert!(text.starts_with("less than 5 % of the disk of node n1 are free"), "{text}");
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(node.end_of(2, "command: 'true'").await, ExitCause::Exited(0));
    node.handle.shutdown().await.unwrap();
}

#[tokio::test]
async fn scratch_that_nobody_knows_any_more_is_removed() {
    let root = Root::new();
    let known = ["jobs/7/1-0/tmp", "jobs/7/2-0"];
    for path in known {
        std::fs::create_dir_all(root.path().join(path)).unwrap();
    }
    let node = Node::with(root, "n1", |_| {}).await;
    for path in known {
        assert!(!node.root.path().join(path).exists(), "{path}");
    }
    node.handle.shutdown().await.unwrap();
}

#[tokio::test]
async fn output_is_bounded_where_files_get_no_holes() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let _disk = Disk::without_holes(place.path());
    let mut node = Node::with(Root::below(place.path()), "n1", |_| {}).await;
    // 500,000 lines have 3.4 MB.
    let yaml = "command: seq 500000; echo said >&2; exit 3\nlogs: {max_per_rank: 1MiB}";
    assert_eq!(node.end_of(1, yaml).await, ExitCause::Exited(3));
    let logs = AttemptLogs::new(&Paths::new(node.root.path()), JobId(812), 0, AttemptNumber(1));
    let reader = logs.open(Writer::Rank(0), Kind::Out).unwrap();
    let text: String = (1..=500_000).map(|line| format!("{line}\n")).collect();
    assert_eq!(reader.size().unwrap(), text.len() as u64, "offsets stay");
    let (mut at, mut kept, mut gaps) = (0, 0, 0);
    while at < text.len() {
        match reader.read(at as u64, 100_000).unwrap() {
            Piece::Bytes(bytes) => {
                assert_eq!(bytes, &text.as_bytes()[at..at + bytes.len()], "at {at}");
                assert!(!bytes.is_empty(), "at {at}");
                (at, kept) = (at + bytes.len(), kept + bytes.len());
            }
            Piece::Gap { upto, .. } => (at, gaps) = (upto as usize, gaps + 1),
        }
    }
    assert_eq!(gaps, 1);
    assert!((256 << 10..=1 << 20).contains(&kept), "{kept}");
    assert_eq!(node.output(0, Writer::Rank(0), Kind::Err), "said\n");
}
