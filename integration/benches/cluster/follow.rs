//! What following output costs the ranks that write it: 4 ranks of one job, each at 50 MB/s, beside
//! the same program writing to files without a cluster.
//!
//! Prints figures, one per line: `name value unit`. A rank that is slowed writes less than it
//! wanted to, or one of its writes takes long.

use crate::world::{World, has_ended, submit};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use yard_client::{Client, LogItem};
use yard_proto::v1;

/// Ranks of the job.
const RANKS: usize = 4;
/// How long each writes.
const LONG: Duration = Duration::from_secs(10);
/// Bytes of one write, and how many writes a second make 50 MB/s.
const BLOCK_BYTES: usize = 50_000;
const BLOCKS_PER_S: u32 = 1_000;
/// What a rank keeps of its output: less than it writes, so that holes are made meanwhile.
const KEPT: &str = "128MiB";

/// Measures, and prints.
pub(crate) fn run() {
    let world = World::start(1);
    let scratch = world.scratch();
    // The first run warms the disk up.
    for (name, shown) in [("warm", false), ("alone", true)] {
        let folder = scratch.join(name);
        std::fs::create_dir_all(&folder).expect("there is room");
        alone(&folder);
        if shown {
            print(name, &folder);
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let client = world.client();
    for (name, follow) in [("unfollowed", false), ("followed", true)] {
        let folder = scratch.join(name);
        std::fs::create_dir_all(&folder).expect("there is room");
        let read = runtime.block_on(job(&client, &folder, follow));
        print(name, &folder);
        if follow {
            println!("follow_bytes {:.1} MB", read.bytes as f64 / 1e6);
            println!("follow_missing {:.1} MB", read.missing as f64 / 1e6);
            println!("follow_lag {:.0} ms", read.lag.as_secs_f64() * 1e3);
        }
    }
}

/// Ranks without a cluster, each with a file.
fn alone(folder: &Path) {
    let own = std::env::current_exe().expect("this program has a path");
    let start = |rank: usize| {
        let file = std::fs::File::create(folder.join(format!("out{rank}"))).expect("there is room");
        let mut command = Command::new(&own);
        command.arg("flood").arg(folder).env("YARD_RANK", rank.to_string());
        command.stdout(Stdio::from(file)).spawn().expect("it starts")
    };
    let ranks: Vec<_> = (0..RANKS).map(start).collect();
    for mut rank in ranks {
        assert!(rank.wait().is_ok_and(|status| status.success()));
    }
    for rank in 0..RANKS {
        let _ = std::fs::remove_file(folder.join(format!("out{rank}")));
    }
}

/// What a reader got.
#[derive(Default)]
struct Got {
    bytes: u64,
    missing: u64,
    /// From the end of the last rank to the last byte here.
    lag: Duration,
}

/// One job of as many ranks; all of them are followed, or none.
async fn job(client: &Client, folder: &Path, follow: bool) -> Got {
    let own = std::env::current_exe().expect("this program has a path");
    let (own, at) = (own.display(), folder.display());
    let spec = format!(
        r#"{{"command":["{own}","flood","{at}"],"ranks_per_node":{RANKS},
            "resources":{{"cpus":1,"memory":"64MiB"}},"logs":{{"max_per_rank":"{KEPT}"}}}}"#
    );
    let job_id = client.submit(submit(spec, folder)).await.expect("it is taken").job_id;
    let mut got = Got::default();
    let mut ended = None;
    loop {
        let job = client.job(v1::GetJobRequest { job_id }).await.expect("it is there").job;
        let state = job.unwrap_or_default().state;
        if has_ended(state) {
            assert_eq!(state, i32::from(v1::JobState::Succeeded), "job {job_id}");
            break;
        }
        if follow && state == i32::from(v1::JobState::Running) {
            let request = v1::LogsRequest { job_id, follow, ..v1::LogsRequest::default() };
            let mut logs = client.logs(request);
            while let Some(item) = logs.next().await.expect("it is there") {
                match item {
                    LogItem::Chunk(chunk) => got.bytes += chunk.data.len() as u64,
                    LogItem::Gap(gap) => got.missing += gap.len,
                    LogItem::Head(_) | LogItem::End(_) => {}
                }
            }
            ended = Some(std::time::SystemTime::now());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let written = |rank: usize| {
        let found = std::fs::metadata(folder.join(rank.to_string()));
        found.and_then(|found| found.modified()).expect("the rank wrote it")
    };
    if let (Some(ended), Some(last)) = (ended, (0..RANKS).map(written).max()) {
        got.lag = ended.duration_since(last).unwrap_or_default();
    }
    got
}

/// A rank: writes blocks at its pace, and notes how many it wrote and which took longest.
pub(crate) fn flood(folder: &Path) {
    let rank = std::env::var("YARD_RANK").expect("ranks have a number");
    let block = vec![b'x'; BLOCK_BYTES];
    let mut out = std::io::stdout().lock();
    let (began, mut blocks, mut longest) = (Instant::now(), 0u32, Duration::ZERO);
    while began.elapsed() < LONG {
        let due = Duration::from_secs(1) * blocks / BLOCKS_PER_S;
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        let before = Instant::now();
        out.write_all(&block).and_then(|()| out.flush()).expect("there is room");
        longest = longest.max(before.elapsed());
        blocks += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    let text = format!("{} {}", f64::from(blocks) / seconds, longest.as_secs_f64());
    std::fs::write(folder.join(rank), text).expect("there is room");
}

/// Prints what the ranks noted: the slowest of them, and the longest write of all.
fn print(name: &str, folder: &Path) {
    let (mut slowest, mut longest) = (f64::MAX, 0.0f64);
    for rank in 0..RANKS {
        let mut text = String::new();
        let file = std::fs::File::open(folder.join(rank.to_string()));
        file.and_then(|mut file| file.read_to_string(&mut text)).expect("the rank wrote it");
        let mut numbers = text.split(' ').map(|number| number.parse::<f64>().expect("a number"));
        slowest = slowest.min(numbers.next().expect("blocks"));
        longest = longest.max(numbers.next().expect("seconds"));
    }
    println!("{name}_slowest_rank {:.1} MB/s", slowest * BLOCK_BYTES as f64 / 1e6);
    println!("{name}_longest_write {:.1} ms", longest * 1e3);
}
