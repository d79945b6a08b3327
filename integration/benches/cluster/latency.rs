//! How long a single job takes on an idle cluster of one node: until it is known to be safe, until
//! its first instruction, until its end is known; beside what the machine itself needs for the
//! steps of that path: a flush, a process, a call over loopback. Each job is submitted when the
//! end of the one before is known, while what that one left is still cleared away. The same once
//! more with pauses, in which the processors fall asleep. Flushes are counted in a run of their
//! own.

use crate::flushes::Flushes;
use crate::world::{World, has_ended, print, submit};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use yard_client::{Client, Watch, WatchItem};
use yard_proto::v1;
use yard_proto::v1::event::What;

/// Jobs that are measured.
const JOBS: usize = 200;
/// Pause after a job: what still goes on after its end is not of the next one.
const PAUSE: Duration = Duration::from_millis(50);
/// Jobs whose flushes are counted.
const COUNTED: usize = 50;

/// The job: its first instruction, as far as a program sees it.
pub(crate) fn stamp(now: Duration, folder: &Path) {
    let job = std::env::var_os("YARD_JOB_ID").unwrap_or("none".into());
    std::fs::write(folder.join(job), now.as_nanos().to_string()).expect("it can be written");
}

/// Measures, and prints.
pub(crate) fn run() {
    let world = World::start(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(measure(&world));
}

/// Time since 1970: the same clock in every process.
pub(crate) fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970")
}

/// When a job took its steps.
struct Steps {
    submitted: Duration,
    acked: Duration,
    first: Duration,
    known: Duration,
}

async fn measure(world: &World) {
    let client = world.client();
    let mut watch = client.events(v1::EventsRequest::default());
    let scratch = world.scratch();
    // The first jobs find cold caches, and the watch open.
    for _ in 0..5 {
        one(&client, &mut watch, &scratch).await;
    }
    for (name, pause) in [("submit", Duration::ZERO), ("after_a_pause_submit", PAUSE)] {
        let mut steps = Vec::new();
        for _ in 0..JOBS {
            tokio::time::sleep(pause).await;
            steps.push(one(&client, &mut watch, &scratch).await);
        }
        let since = |step: fn(&Steps) -> Duration| -> Vec<Duration> {
            steps.iter().map(|steps| step(steps).saturating_sub(steps.submitted)).collect()
        };
        print(&format!("{name}_to_acknowledged"), &since(|steps| steps.acked));
        print(&format!("{name}_to_first_instruction"), &since(|steps| steps.first));
        print(&format!("{name}_to_exit_known"), &since(|steps| steps.known));
    }
    print("machine_flush", &machine_flushes(&world.dev()));
    print("machine_process", &processes(&scratch));
    print("machine_call", &calls(&client).await);
    match counted(world, &client, &mut watch, &scratch).await {
        Ok((before, all)) => {
            println!("flushes_before_first_instruction {before:.2} per_job");
            println!("flushes_before_exit_known {all:.2} per_job");
        }
        Err(error) => println!("# flushes are not counted: {error}"),
    }
}

/// Runs one job, and says when it took its steps.
async fn one(client: &Client, watch: &mut Watch, scratch: &Path) -> Steps {
    let own = std::env::current_exe().expect("this program has a path");
    let folder = scratch.display();
    let spec = format!(r#"{{"command":["{}","stamp","{folder}"]}}"#, own.display());
    let submitted = wall();
    let answer = client.submit(submit(spec, scratch)).await.expect("it is taken");
    let acked = wall();
    let state = loop {
        let item = watch.next().await.expect("the cluster is there");
        let Some(WatchItem::Event(v1::Event { what: Some(What::Job(moved)), .. })) = item else {
            continue;
        };
        if moved.job_id == answer.job_id && has_ended(moved.state) {
            break moved.state;
        }
    };
    let known = wall();
    assert_eq!(state, i32::from(v1::JobState::Succeeded), "job {}", answer.job_id);
    let stamp = std::fs::read_to_string(scratch.join(answer.job_id.to_string()));
    let first = stamp.expect("the job wrote it").parse().expect("a number");
    Steps { submitted, acked, first: Duration::from_nanos(first), known }
}

/// Flushes of short records at the end of a file.
pub(crate) fn machine_flushes(folder: &Path) -> Vec<Duration> {
    let mut file = std::fs::File::create(folder.join("flush")).expect("there is room");
    let flush = |_| {
        let began = Instant::now();
        file.write_all(&[1; 512]).expect("there is room");
        file.sync_data().expect("the disk works");
        began.elapsed()
    };
    (0..JOBS).map(flush).collect()
}

/// Starts and ends of the same program, without a cluster.
fn processes(scratch: &Path) -> Vec<Duration> {
    let own = std::env::current_exe().expect("this program has a path");
    let start = |_| {
        let began = Instant::now();
        let status = Command::new(&own).arg("stamp").arg(scratch).status();
        assert!(status.expect("it starts").success());
        began.elapsed()
    };
    (0..JOBS).map(start).collect()
}

/// Calls that change nothing.
async fn calls(client: &Client) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..JOBS {
        let began = Instant::now();
        client.status(v1::StatusRequest::default()).await.expect("the cluster is there");
        took.push(began.elapsed());
    }
    took
}

/// Flushes of a job before its first instruction, and before its end is known.
async fn counted(
    world: &World,
    client: &Client,
    watch: &mut Watch,
    scratch: &Path,
) -> std::io::Result<(f64, f64)> {
    let flushes = Flushes::count(&[world.pid("coordinator"), world.pid("n1")])?;
    let mut steps = Vec::new();
    for _ in 0..COUNTED {
        steps.push(one(client, watch, scratch).await);
        tokio::time::sleep(PAUSE).await;
    }
    let at = flushes.times()?;
    let within = |end: fn(&Steps) -> Duration| {
        let inside = |steps: &Steps| {
            at.iter().filter(|at| **at >= steps.submitted && **at <= end(steps)).count()
        };
        steps.iter().map(inside).sum::<usize>() as f64 / steps.len() as f64
    };
    Ok((within(|steps| steps.first), within(|steps| steps.known)))
}
