//! A coordinator that dies at any moment, and comes back.

use crate::world::gate::Gate;
use crate::world::{COORDINATOR, Cluster, await_some, await_true};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// How often it is killed.
const KILLS: u8 = 6;
/// A kill comes at most so long after a submission was acknowledged, in microseconds.
const MOMENT_US: u64 = 200_000;

/// The moments of the kills follow from it. `YARD_TEST_SEED` gives the same ones again.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    match std::env::var("YARD_TEST_SEED") {
        Ok(text) => text.parse().expect("YARD_TEST_SEED is a number"),
        Err(_) => now.subsec_nanos().into(),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The code with which a submission of this number ends.
fn code(number: usize) -> i64 {
    (number % 5) as i64
}

/// A client that submits one job after another, and remembers the ids that it was given.
fn submit_on(cluster: &Cluster, marks: &Path, stop: &AtomicBool, acked: &Mutex<Vec<(u64, usize)>>) {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let name = format!("s{number}");
        let script = format!("echo $$ >> {}/{name}; exit {}", marks.display(), code(number));
        let words = ["submit", "--cpus", "0.05", "--memory", "8MiB", "--name", &name, "--"];
        let words = [&words[..], &["bash", "-c", &script]].concat();
        let ran = cluster.yard(&words).run();
        // Away for longer than the client's patience is legal; a refusal is not.
        assert!([0, 69].contains(&ran.code), "{ran}");
        if ran.code == 0 {
            let id = ran.out.trim().parse().expect("an id");
            acked.lock().expect("nobody panicked").push((id, number));
        }
        number += 1;
    }
}

/// Ends the client when the kills are over, and when the test fails before.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// All jobs by name. No name may be there twice: each was submitted once.
fn jobs(cluster: &Cluster) -> BTreeMap<String, Value> {
    let list = cluster.json(&["ls", "--all"]);
    let mut found = BTreeMap::new();
    for job in list["items"].as_array().expect("a list") {
        let name = job["name"].as_str().expect("a name").to_string();
        let before = found.insert(name.clone(), job.clone());
        assert!(before.is_none(), "{name} is there twice: {before:?} and {job}");
    }
    found
}

fn has_ended(job: &Value) -> bool {
    ["Succeeded", "Failed", "Cancelled"].contains(&job["state"].as_str().unwrap_or_default())
}

#[test]
fn nothing_acknowledged_is_lost_whenever_it_dies() {
    let seed = seed();
    eprintln!("YARD_TEST_SEED={seed}");
    let mut random = seed;
    let cluster = Cluster::start(2);
    let marks = cluster.home.path("marks");
    fs::create_dir(&marks).expect("a folder can be made");

    let long = Gate::new(&cluster, "long");
    let long_job = long.submit(&cluster, &["--name", "long", "--nodes", "2"]);
    let long_ranks = [0, 1].map(|rank| long.only_process(rank));
    // Each of these ends while there is no coordinator.
    let gates: Vec<(Gate, u64)> = (0..KILLS)
        .map(|kill| {
            let gate = Gate::new(&cluster, &kill.to_string());
            let job = gate.submit(&cluster, &["--name", &format!("gate-{kill}")]);
            (gate, job)
        })
        .collect();
    let ranks: Vec<_> = gates.iter().map(|(gate, _)| gate.only_process(0)).collect();

    let (stop, acked) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let count = || acked.lock().expect("nobody panicked").len();
    std::thread::scope(|scope| {
        let _stops = Stops(&stop);
        let client = scope.spawn(|| submit_on(&cluster, &marks, &stop, &acked));
        for (kill, (gate, _)) in gates.iter().enumerate() {
            let before = count();
            await_true("a submission is acknowledged", || count() > before || client.is_finished());
            // No synchronisation: any moment will do.
            std::thread::sleep(Duration::from_micros(next(&mut random) % MOMENT_US));
            cluster.kill(COORDINATOR);
            gate.open(40 + kill as u8);
            ranks[kill].await_end();
            cluster.start_again();
        }
    });

    let acked = acked.into_inner().expect("nobody panicked");
    assert!(acked.len() >= usize::from(KILLS), "{acked:?}");
    let jobs = await_some("all jobs but the long one have ended", || {
        let jobs = jobs(&cluster);
        let rest = jobs.iter().filter(|(name, _)| *name != "long");
        rest.map(|(_, job)| job).all(has_ended).then_some(jobs)
    });
    for (id, number) in acked {
        let name = format!("s{number}");
        let job = jobs.get(&name).unwrap_or_else(|| panic!("{name} was acknowledged as {id}"));
        assert_eq!(job["id"], id, "{job}");
        assert_eq!(job["attempt"], 1, "{job}");
        assert_eq!(
            (&job["cause"]["kind"], &job["cause"]["number"]),
            (&"Exited".into(), &code(number).into()),
            "{job}"
        );
        let starts = fs::read_to_string(marks.join(&name)).unwrap_or_default();
        assert_eq!(starts.lines().count(), 1, "{name} ran once");
    }
    for (kill, (gate, job)) in gates.iter().enumerate() {
        assert_eq!(gate.starts(0, 1).len(), 1, "job {job} was started again");
        assert_eq!(cluster.wait(*job), 40 + kill as i32, "the exit of the meantime is exact");
    }
    assert_eq!([0, 1].map(|rank| long.only_process(rank)), long_ranks, "other processes");
    assert_eq!(cluster.job(long_job)["state"], "Running");
    long.open(7);
    assert_eq!(cluster.wait(long_job), 7);
    assert_eq!(cluster.job(long_job)["attempt"], 1);
}

#[test]
fn a_client_that_watches_goes_on_after_a_restart() {
    let cluster = Cluster::start(1);
    let gate = Gate::new(&cluster, "watched");
    let script = format!("echo before; {}", gate.script());
    let words = ["run", "--cpus", "0.1", "--memory", "32MiB", "--", "bash", "-c", &script];
    let watching = cluster.yard(&words).spawn();
    let rank =
        await_some("the job runs", || (gate.starts(0, 1).len() == 1).then(|| gate.only_process(0)));
    cluster.kill(COORDINATOR);
    cluster.start_again();
    assert!(rank.lives());
    gate.open(3);
    let ran = watching.end();
    assert_eq!(ran.code, 3, "{ran}");
    assert_eq!(ran.out, "before\n", "nothing is lost, and nothing comes twice: {ran}");
}
