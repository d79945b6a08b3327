//! What the agent of one node withstands, and what it costs.
//!
//! - it is killed a hundred times while ranks run, start and end: ranks whose process changed, that
//!   ran more than once, whose end was not told exactly, or whose output has a gap; and the same
//!   with another file in the place of the program each time;
//! - 500 ranks of one job: until all of them run;
//! - memory of agent and shims with 1,000 ranks; CPU of the agent while 100 jobs do nothing;
//! - tasks of an array that do nothing, as a share of what the machine starts and reaps at best.

use crate::throughput::{array, best_starts};
use crate::world::{World, cpu_seconds, has_ended, jobs, resident_kib, submit};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::time::sleep;
use yard_client::Client;
use yard_proto::v1;

/// How often the agent is killed.
const KILLS: u64 = 100;
/// Ranks that run all the while.
const RANKS: u64 = 10;
/// How long the idle agent is looked at.
const LONG: Duration = Duration::from_secs(20);
/// How often files and states are looked at.
const LOOK: Duration = Duration::from_millis(5);
/// What is not there by then is missing.
const PATIENCE: Duration = Duration::from_secs(120);
/// Tasks of the array.
const TASKS: u32 = 100_000;
/// How ranks end: what they do, and what is told of it.
const ENDS: [(&str, v1::ExitKind, i64); 5] = [
    ("exit 0", v1::ExitKind::Exited, 0),
    ("exit 1", v1::ExitKind::Exited, 1),
    ("exit 255", v1::ExitKind::Exited, 255),
    ("kill -SEGV $$", v1::ExitKind::Signaled, 11),
    ("kill -KILL $$", v1::ExitKind::Signaled, 9),
];

/// Measures, and prints.
pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    shim_start();
    runtime.block_on(kills("agent_kills", false));
    runtime.block_on(kills("agent_replaced", true));
    runtime.block_on(many_ranks(500));
    runtime.block_on(many_ranks(1_000));
    runtime.block_on(idle());
    let best = best_starts();
    let world = World::start(1);
    let (run, _) = runtime.block_on(array(&world, TASKS));
    println!("array_tasks {run:.0} per_second");
    println!("array_share {:.1} percent_of_machine_processes", 100.0 * run / best);
}

/// How long the program takes until it stands by as a shim: one without an agent then ends.
fn shim_start() {
    const TIMES: u32 = 20;
    let yard = std::env::var_os("YARD_BIN").expect("YARD_BIN names the program to measure");
    let began = Instant::now();
    for _ in 0..TIMES {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("there are sockets");
        drop(ours);
        let stdin = Stdio::from(std::os::fd::OwnedFd::from(theirs));
        let ended = Command::new(&yard).arg("shim").stdin(stdin).stderr(Stdio::null()).status();
        ended.expect("the program can be run");
    }
    println!("shim_start {:.2} ms", began.elapsed().as_secs_f64() * 1e3 / f64::from(TIMES));
}

/// A job for a shell, of little.
fn job(command: &str, ranks: usize, folder: &Path) -> v1::SubmitRequest {
    let command = serde_json::to_string(command).expect("a text is JSON");
    let memory = 64 + 4 * ranks;
    let resources = format!(r#"{{"cpus":0.001,"memory":"{memory}MiB"}}"#);
    let text =
        format!(r#"{{"command":{command},"ranks_per_node":{ranks},"resources":{resources}}}"#);
    submit(text, folder)
}

async fn start(client: &Client, request: v1::SubmitRequest) -> u64 {
    client.submit(request).await.expect("it is taken").job_id
}

/// The lines of a file, none yet if it is not there.
fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(String::from).collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never came about: {what}");
        sleep(LOOK).await;
    }
}

/// Waits until no job is left that has not ended. All of them by number.
async fn all_ended(client: &Client) -> BTreeMap<u64, v1::Job> {
    let end = Instant::now() + PATIENCE;
    loop {
        let all = jobs(client).await;
        if all.iter().all(|job| has_ended(job.state)) {
            return all.into_iter().map(|job| (job.id, job)).collect();
        }
        assert!(Instant::now() < end, "some jobs do not end");
        sleep(LOOK).await;
    }
}

/// What one of the jobs is to be seen doing.
struct Seen {
    job: u64,
    /// It writes its process there when it starts.
    starts: PathBuf,
    end: (v1::ExitKind, i64),
}

async fn kills(name: &str, replaces: bool) {
    let world = World::start(1);
    let (client, folder) = (world.client(), world.scratch());
    let gate = folder.join("gate");
    let mut all = Vec::new();
    for number in 0..KILLS + RANKS {
        if number >= RANKS {
            // At another moment of the start and the end of a job each time.
            sleep(Duration::from_micros((number - RANKS) * 400)).await;
            world.signal(world.pid("n1"), "KILL");
            let agent = world.pid("n1");
            until("the agent is dead", || !Path::new(&format!("/proc/{agent}/exe")).exists()).await;
            if replaces {
                world.replace_program();
            }
            world.start_again();
        }
        let (how, kind, code) = ENDS[(number % 5) as usize];
        let starts = folder.join(format!("starts.{number}"));
        // The first ones count until the gate is there, the others end at once.
        let waits = format!(
            "i=0; while [ ! -e {} ]; do echo $i; i=$((i+1)); sleep 0.01; done;",
            gate.display()
        );
        let waits = if number < RANKS { waits.as_str() } else { "" };
        let command = format!("echo $$ >>{}; {waits} {how}", starts.display());
        let job = start(&client, job(&command, 1, &folder)).await;
        if number < RANKS {
            until("the rank runs", || lines(&starts).len() == 1).await;
        }
        all.push(Seen { job, starts, end: (kind, code) });
    }
    let pid = |seen: &Seen| lines(&seen.starts).first().cloned().unwrap_or_default();
    let lives = |seen: &&Seen| Path::new(&format!("/proc/{}", pid(seen))).exists();
    let survived = all.iter().take(RANKS as usize).filter(lives).count();
    std::fs::write(&gate, "").expect("there is room");
    let ended = all_ended(&client).await;
    let restarted = all.iter().filter(|seen| lines(&seen.starts).len() != 1).count();
    let exact = |seen: &&Seen| {
        let cause = ended[&seen.job].cause.unwrap_or_default();
        (cause.kind, cause.number) == (seen.end.0.into(), seen.end.1)
    };
    let inexact = all.len() - all.iter().filter(exact).count();
    let gaps = all.iter().take(RANKS as usize).filter(|seen| {
        let out = world.dev().join(format!("n1/logs/{}/0.1/0.out", seen.job));
        let found = lines(&out);
        found.is_empty() || found.iter().enumerate().any(|(at, line)| *line != at.to_string())
    });
    println!("{name} {KILLS} times");
    println!("{name}_ranks_that_ended {} of_{RANKS}", RANKS as usize - survived);
    println!("{name}_not_started_once {restarted} of_{}", all.len());
    println!("{name}_exits_not_exact {inexact} of_{}", all.len());
    println!("{name}_output_not_exact {} of_{RANKS}", gaps.count());
}

/// One job with so many ranks: until all run, and what agent and shim hold then.
async fn many_ranks(ranks: usize) {
    let world = World::start(1);
    let (client, folder) = (world.client(), world.scratch());
    let began = Instant::now();
    let command = r#"echo >"$YARD_JOB_TEMP/$YARD_RANK"; exec sleep 1000"#;
    let id = start(&client, job(command, ranks, &folder)).await;
    let at = world.dev().join(format!("n1/jobs/{id}"));
    let running = || {
        let inner = std::fs::read_dir(&at).into_iter().flatten().flatten().next();
        let inner = inner.and_then(|entry| std::fs::read_dir(entry.path()).ok());
        // The directory of temporary files is one more.
        inner.into_iter().flatten().count() > ranks
    };
    until("all ranks run", running).await;
    println!("ranks_{ranks}_started {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
    print_memory(&world, &format!("ranks_{ranks}"));
}

/// What the agent holds, and each of its shims.
fn print_memory(world: &World, name: &str) {
    let agent = world.pid("n1");
    println!("{name}_memory_agent {:.1} MiB", resident_kib(agent) as f64 / 1024.0);
    let shims: Vec<u64> = shims(agent).into_iter().filter_map(own_kib).collect();
    let each = shims.iter().sum::<u64>() as f64 / shims.len().max(1) as f64;
    println!("{name}_memory_of_a_shim {:.2} MiB", each / 1024.0);
}

fn shims(agent: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{agent}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|at| std::fs::read_to_string(at.path().join("children")).ok());
    let pids: Vec<String> = lists.collect();
    pids.iter().flat_map(|list| list.split_whitespace()).filter_map(|p| p.parse().ok()).collect()
}

/// Memory of a process that it shares with nobody, in KiB.
fn own_kib(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(of("Private_Clean:")? + of("Private_Dirty:")?)
}

/// A hundred jobs that do nothing.
async fn idle() {
    const JOBS: usize = 100;
    let world = World::start(1);
    let (client, folder) = (world.client(), world.scratch());
    for _ in 0..JOBS {
        start(&client, job("exec sleep 1000", 1, &folder)).await;
    }
    let running: i32 = v1::JobState::Running.into();
    let end = Instant::now() + PATIENCE;
    while jobs(&client).await.iter().filter(|job| job.state == running).count() < JOBS {
        assert!(Instant::now() < end, "not all of them run");
        sleep(LOOK).await;
    }
    let agent = world.pid("n1");
    let before = cpu_seconds(agent);
    sleep(LONG).await;
    let share = 100.0 * (cpu_seconds(agent) - before) / LONG.as_secs_f64();
    println!("jobs_{JOBS}_idle_cpu_agent {share:.2} percent_of_a_core");
    print_memory(&world, &format!("jobs_{JOBS}"));
}
