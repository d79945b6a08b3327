//! How many jobs a second are taken and made durable, and how many tasks a second of an array that
//! do nothing are run, beside how fast the machine starts and reaps that very program.

use crate::world::{World, cpu_seconds, has_ended, rate, submit};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use yard_client::WatchItem;
use yard_proto::v1;
use yard_proto::v1::event::What;

/// How long submits are measured.
const LONG: Duration = Duration::from_secs(5);
/// What the tasks run.
const NOTHING: &str = "/bin/true";

/// Measures, and prints.
pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    for clients in [1, 64] {
        let world = World::start(1);
        let submits = runtime.block_on(submits(&world, clients));
        println!("durable_submits_{clients}_clients {submits:.0} per_second");
    }
    let best = best_starts();
    for tasks in [10_000, 100_000] {
        let world = World::start(1);
        let (run, used) = runtime.block_on(array(&world, tasks));
        println!("array_tasks_of_{tasks} {run:.0} per_second");
        println!("array_share_of_{tasks} {:.1} percent_of_machine_processes", 100.0 * run / best);
        for (part, seconds) in used {
            let micros = seconds * 1e6 / f64::from(tasks);
            println!("array_cpu_of_{tasks}_{part} {micros:.0} us_per_task");
        }
    }
}

/// How fast the machine starts and reaps at best.
pub(crate) fn best_starts() -> f64 {
    let mut best = 0.0f64;
    for threads in [1, 2, 8] {
        let starts = starts(threads);
        println!("machine_processes_{threads}_threads {starts:.0} per_second");
        best = best.max(starts);
    }
    best
}

/// Jobs that are taken and durable, per second. They are held, so that nothing is planned or run.
async fn submits(world: &World, clients: usize) -> f64 {
    let folder = world.scratch();
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (client, folder) = (world.client(), folder.clone());
        tasks.spawn(async move {
            let mut count = 0;
            while began.elapsed() < LONG {
                let spec = format!(r#"{{"command":["{NOTHING}"],"hold":true}}"#);
                client.submit(submit(spec, &folder)).await.expect("it is taken");
                count += 1;
            }
            count
        });
    }
    let counts = tasks.join_all().await;
    rate(counts.iter().sum(), began)
}

/// Starts and ends of a program that does nothing, per second.
fn starts(threads: usize) -> f64 {
    let began = Instant::now();
    let start = || {
        let mut count = 0;
        while began.elapsed() < LONG {
            let status = Command::new(NOTHING).stdin(Stdio::null()).status();
            assert!(status.expect("it starts").success());
            count += 1;
        }
        count
    };
    let count = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(start)).collect();
        running.into_iter().map(|one| one.join().expect("it counts")).sum()
    });
    rate(count, began)
}

/// Tasks of one array per second, from its submit until its end is known; and the seconds of a CPU
/// that each process of the cluster took meanwhile.
pub(crate) async fn array(world: &World, tasks: u32) -> (f64, Vec<(&'static str, f64)>) {
    let client = world.client();
    let mut watch = client.events(v1::EventsRequest::default());
    let folder = world.scratch();
    let parts = ["coordinator", "n1"];
    let before = parts.map(|part| cpu_seconds(world.pid(part)));
    let began = Instant::now();
    let last = tasks - 1;
    let spec = format!(r#"{{"command":["{NOTHING}"],"array":"0-{last}"}}"#);
    let answer = client.submit(submit(spec, &folder)).await.expect("it is taken");
    loop {
        let item = watch.next().await.expect("the cluster is there");
        match item {
            Some(WatchItem::Event(v1::Event { what: Some(What::Job(moved)), .. }))
                if moved.job_id == answer.job_id && has_ended(moved.state) =>
            {
                assert_eq!(moved.state, i32::from(v1::JobState::Succeeded));
                break;
            }
            Some(WatchItem::Compacted { first_index }) => {
                let from_index = first_index;
                watch = client.events(v1::EventsRequest { from_index, ..Default::default() });
            }
            _ => {}
        }
    }
    let run = rate(tasks as usize, began);
    let used = parts.iter().zip(before);
    let used = used.map(|(part, before)| (*part, cpu_seconds(world.pid(part)) - before));
    (run, used.collect())
}
