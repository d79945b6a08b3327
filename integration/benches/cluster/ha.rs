//! How long nobody can write when the leader of three coordinators stops in order, and when it is
//! killed: as seen by clients that write one thing after another, each through another member
//! first.

use crate::world::{World, print};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use yard_client::Client;
use yard_proto::v1;

/// Stops in order, and kills. `YARD_BENCH_ROUNDS` says otherwise.
const ROUNDS: usize = 20;
/// How long is written before and after the moment that is measured.
const CALM: Duration = Duration::from_millis(400);

/// Measures, and prints.
pub(crate) fn run() {
    let world = World::start_with(1, 3);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let rounds = std::env::var("YARD_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok());
    runtime.block_on(measure(&world, rounds.unwrap_or(ROUNDS)));
}

async fn measure(world: &World, rounds: usize) {
    for (name, signal) in [("planned_stop_gap", "TERM"), ("killed_gap", "KILL")] {
        let mut gaps = Vec::new();
        for _ in 0..rounds {
            gaps.push(one(world, signal).await);
        }
        print(name, &gaps);
        let worst = gaps.iter().max().copied().unwrap_or_default();
        println!("{name}_max {:.2} ms", worst.as_secs_f64() * 1e3);
    }
    let status = world.client().status(v1::StatusRequest::default()).await.expect("it leads");
    let flushes = status.members.iter().filter_map(|member| member.flush_p99_us);
    println!("flush_p99_max {:.2} ms", flushes.max().unwrap_or(0) as f64 / 1e3);
}

/// Ends the leader once. The longest time that any client was without an answer.
async fn one(world: &World, signal: &str) -> Duration {
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<JoinHandle<Duration>> = world
        .clients()
        .into_iter()
        .map(|client| tokio::spawn(write_on(client, Arc::clone(&stop))))
        .collect();
    tokio::time::sleep(CALM).await;
    let status = world.client().status(v1::StatusRequest { brief: true }).await;
    let leader = status.expect("it leads").leader.expect("somebody leads").member_id;
    let part = match leader {
        1 => "coordinator".to_string(),
        member => format!("coordinator-{member}"),
    };
    let pid = world.pid(&part);
    world.signal(pid, signal);
    while std::path::Path::new(&format!("/proc/{pid}/stat")).exists() && !is_zombie(pid) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(CALM).await;
    stop.store(true, Ordering::Relaxed);
    let mut longest = Duration::ZERO;
    for writer in writers {
        longest = longest.max(writer.await.expect("a writer does not panic"));
    }
    world.start_again();
    longest
}

fn is_zombie(pid: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// Writes one thing after another. The longest time between two answers.
async fn write_on(client: Client, stop: Arc<AtomicBool>) -> Duration {
    let (mut longest, mut number) = (Duration::ZERO, 0_u64);
    let mut last: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let (name, value) = ("ha".to_string(), Some(number.to_string()));
        let request = v1::SetSettingRequest { name, value, ..Default::default() };
        client.set_setting(request).await.expect("a majority is there");
        // The first answer comes with the connection.
        longest = longest.max(last.map_or(Duration::ZERO, |last| last.elapsed()));
        last = Some(Instant::now());
    }
    longest
}
