//! Output that would fill the disk.

use super::stream;
use crate::world::gate::Gate;
use crate::world::{Cluster, await_true};
use std::os::unix::fs::MetadataExt;

const MAX: u64 = 1 << 20;

#[test]
fn a_flood_keeps_its_beginning_and_its_end() {
    let cluster = Cluster::start(1);
    let gate = Gate::new(&cluster, "flood");
    // 3,000,000 lines have 23 MB.
    let script = format!("seq 3000000; {}", gate.script());
    let bound = "logs.max_per_rank=1MiB";
    let job = cluster.submit(&["--set", bound, "--", "bash", "-c", &script]);
    gate.starts(0, 1);
    let path = stream(&cluster, "n1", job, "0.out");
    let found = || path.metadata().expect("it is there");
    await_true("it takes no more than it may", || found().blocks() * 512 <= MAX);
    let text: String = (1..=3_000_000).map(|line| format!("{line}\n")).collect();
    assert_eq!(found().len(), text.len() as u64, "offsets stay");
    let shown = cluster.yard(&["logs", &job.to_string()]).ok();
    shown.says(&["bytes of rank 0 is missing", "logs.max_per_rank"]);
    let kept = shown.out.len();
    assert!(kept as u64 <= MAX + 1 && kept as u64 > MAX / 4, "{kept}");
    let same = |(a, b): &(u8, u8)| a == b;
    let head = shown.out.bytes().zip(text.bytes()).take_while(same).count();
    let tail = shown.out.bytes().rev().zip(text.bytes().rev()).take_while(same).count();
    assert!(head >= MAX as usize / 4 - 16, "{head} bytes of the beginning");
    assert!(head + tail >= kept - 16, "{head} and {tail} of {kept}");
    let last = cluster.yard(&["logs", &job.to_string(), "--tail", "2"]).ok();
    assert_eq!(last.out, "2999999\n3000000\n");
    gate.open(0);
    assert_eq!(cluster.wait(job), 0);
}
