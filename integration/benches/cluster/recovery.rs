//! How soon coordinators are there again, and how soon a new one has everything.
//!
//! - coordinators with many jobs are all killed and started again: until a submit is acknowledged;
//! - a new member joins coordinators that know many tasks, under a load: until it has everything;
//! - while a snapshot is written: the longest time between two submits that were acknowledged one
//!   after the other, beside that of the time in which none was written.

use crate::world::{World, jobs, print, submit};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;
use yard_proto::v1;

/// Jobs that are there when coordinators start.
const JOBS: usize = 100_000;
/// Jobs whose log is longer than what a snapshot is written for, several times.
const JOBS_OF_SNAPSHOTS: usize = 500_000;
/// Arrays that are there when a member joins, and the tasks of each.
const ARRAYS: usize = 10;
const TASKS: usize = 100_000;
/// Submits at a time.
const IN_FLIGHT: usize = 64;
/// Longest start that is waited for.
const START_MAX: Duration = Duration::from_secs(60);
/// How often files are looked for.
const LOOK: Duration = Duration::from_millis(2);

/// Measures, and prints.
pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    for members in [1, 3] {
        runtime.block_on(cold_start(members));
    }
    runtime.block_on(newcomer());
    runtime.block_on(stalls());
}

/// A job that is not run.
fn waiting(world: &World, words: &str) -> v1::SubmitRequest {
    let spec = format!(r#"{{"command":["/bin/true"],"hold":true{words}}}"#);
    submit(spec, &world.scratch())
}

/// Submits so many. When each was acknowledged.
async fn submit_many(world: &Arc<World>, count: usize) -> Vec<Instant> {
    let mut workers = JoinSet::new();
    for at in 0..IN_FLIGHT {
        let (client, request) = (world.client_from(at), waiting(world, ""));
        workers.spawn(async move {
            let mut acked = Vec::new();
            for _ in (at..count).step_by(IN_FLIGHT) {
                client.submit(request.clone()).await.expect("it is taken");
                acked.push(Instant::now());
            }
            acked
        });
    }
    let mut acked: Vec<Instant> = workers.join_all().await.into_iter().flatten().collect();
    acked.sort_unstable();
    acked
}

async fn cold_start(members: u16) {
    let world = Arc::new(World::start_with(1, members));
    submit_many(&world, JOBS).await;
    let pids: Vec<u32> = world.coordinators().iter().map(|part| world.pid(part)).collect();
    for pid in &pids {
        world.signal(*pid, "KILL");
    }
    while pids.iter().any(|pid| lives(*pid)) {
        sleep(LOOK).await;
    }
    let began = Instant::now();
    let starter = Arc::clone(&world);
    let starting = tokio::task::spawn_blocking(move || starter.start_again());
    let client = world.client();
    while client.submit(waiting(&world, "")).await.is_err() {
        assert!(began.elapsed() < START_MAX, "no submit is taken");
    }
    println!("cold_start_{JOBS}_jobs_{members}_members {:.2} s", began.elapsed().as_secs_f64());
    starting.await.expect("the members start again");
    println!("cold_start_jobs_there {} count", jobs(&client).await.len());
}

/// Submits so many jobs that the members write snapshots.
async fn stalls() {
    let world = Arc::new(World::start_with(1, 3));
    let looks = Arc::new(AtomicBool::new(true));
    let (looking, dev) = (Arc::clone(&looks), world.dev());
    let looking = std::thread::spawn(move || look_for_snapshots(&dev, &looking));
    let acked = submit_many(&world, JOBS_OF_SNAPSHOTS).await;
    looks.store(false, Ordering::Relaxed);
    tell_stalls(&acked, &looking.join().expect("it looks"));
}

/// Whether a process is there and has not ended.
fn lives(pid: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// When snapshots were written: as long as each had no name of its own.
fn look_for_snapshots(dev: &Path, looks: &AtomicBool) -> Vec<(Instant, Instant)> {
    let mut seen: BTreeMap<PathBuf, (Instant, Instant)> = BTreeMap::new();
    while looks.load(Ordering::Relaxed) {
        let now = Instant::now();
        for file in unfinished_snapshots(dev) {
            seen.entry(file).or_insert((now, now)).1 = now;
        }
        std::thread::sleep(LOOK);
    }
    seen.into_values().collect()
}

fn unfinished_snapshots(dev: &Path) -> Vec<PathBuf> {
    let inner = |at: PathBuf| std::fs::read_dir(at).into_iter().flatten().flatten();
    let parts = inner(dev.into()).filter(|part| {
        let name = part.file_name();
        name.to_string_lossy().starts_with("coordinator") && part.path().is_dir()
    });
    let files = parts.flat_map(|part| inner(part.path().join("data")));
    let is_unfinished = |name: &str| name.starts_with("snapshot-") && name.ends_with(".tmp");
    let unfinished = files.filter(|file| is_unfinished(&file.file_name().to_string_lossy()));
    unfinished.map(|file| file.path()).collect()
}

/// The longest time between two acknowledgements, while a snapshot was written and while not.
fn tell_stalls(acked: &[Instant], snapshots: &[(Instant, Instant)]) {
    let is_in = |pair: &[Instant]| {
        snapshots.iter().any(|(from, to)| pair[0] <= *to + LOOK && pair[1] + LOOK >= *from)
    };
    let longest = |within: bool| {
        let pairs = acked.windows(2).filter(|pair| is_in(pair) == within);
        let mut gaps: Vec<Duration> = pairs.map(|pair| pair[1] - pair[0]).collect();
        gaps.sort_unstable();
        gaps.pop()
    };
    println!("snapshots_written {} count", snapshots.len());
    let written: Duration = snapshots.iter().map(|(from, to)| *to - *from).sum();
    println!("snapshots_took {:.2} s", written.as_secs_f64());
    for (name, within) in [("while_a_snapshot_was_written", true), ("otherwise", false)] {
        if let Some(longest) = longest(within) {
            let ms = longest.as_secs_f64() * 1e3;
            println!("longest_without_acknowledgement_{name} {ms:.1} ms");
        }
    }
}

async fn newcomer() {
    let world = Arc::new(World::start_with(1, 3));
    submit_many(&world, JOBS).await;
    let client = world.client();
    let array = format!(r#","array":"0-{}""#, TASKS - 1);
    for _ in 0..ARRAYS {
        client.submit(waiting(&world, &array)).await.expect("it is taken");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (filler, stops) = (Arc::clone(&world), Arc::clone(&stop));
    let load = tokio::spawn(async move {
        let (client, mut took) = (filler.client(), Vec::new());
        while !stops.load(Ordering::Relaxed) {
            let began = Instant::now();
            client.submit(waiting(&filler, "")).await.expect("it is taken");
            took.push(began.elapsed());
        }
        took
    });
    let joining = Arc::clone(&world);
    let joined = tokio::task::spawn_blocking(move || joining.join_member());
    let (began, running) = (Instant::now(), joined.await.expect("it joins"));
    loop {
        let status = client.status(v1::StatusRequest::default()).await.expect("it answers");
        let newest = status.members.iter().max_by_key(|member| member.id);
        if status.members.len() == 4
            && newest.and_then(|member| member.lag_entries).is_some_and(|lag| lag < 100)
        {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("newcomer_caught_up_on_{}_tasks {seconds:.2} s", ARRAYS * TASKS + JOBS);
    stop.store(true, Ordering::Relaxed);
    let took = load.await.expect("the load goes on");
    print("submit_meanwhile", &took);
    drop(running);
}
