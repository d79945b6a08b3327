//! What three coordinators cost, and what is seen of the death of their leader.
//!
//! - durable submits per second, and how long each takes, with so many in flight; beside them the
//!   puts of an etcd of three members on the same machine, over the same TLS, of the same size;
//! - the leader is killed again and again under a steady load: how long no submit is
//!   acknowledged, and whether any was lost or doubled;
//! - leaders are stopped in order, and hand over while they go on.

use crate::etcd::Etcd;
use crate::latency::machine_flushes;
use crate::world::{World, jobs, percentiles, print, rate, submit};
use prost::Message;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};
use yard_client::Client;
use yard_proto::v1;

/// In flight at a time.
const DEPTHS: [usize; 4] = [1, 16, 64, 256];
/// How long each depth is measured.
const LONG: Duration = Duration::from_secs(5);
/// Requests that share a connection, here and there.
const PER_CONNECTION: usize = 16;
/// Submits per second while leaders die.
const LOAD: u64 = 1_000;
/// Submits of the load that wait at a time, at most. In an outage all of them soon do.
const WAITING: usize = 512;
/// From the death of a leader to that of the next, unless the cluster needs longer to be whole.
const KILL_EVERY: Duration = Duration::from_secs(10);
/// Leaders that die in the life of one cluster: 5 minutes, and 300,000 jobs.
const KILLS_EACH: usize = 30;
/// From one planned stop to the next, at least.
const BETWEEN: Duration = Duration::from_secs(3);
/// How long a member is away.
const AWAY: Duration = Duration::from_secs(1);
/// Leaders that stop in order, and that hand over.
const HANDOVERS: usize = 20;

/// Measures, and prints. `YARD_HA_KILLS`: leaders to kill.
pub(crate) fn run() {
    let kills = std::env::var("YARD_HA_KILLS").ok().and_then(|text| text.parse().ok());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    runtime.block_on(depths());
    runtime.block_on(deaths(kills.unwrap_or(4 * KILLS_EACH)));
}

/// A job that is not run, so that nothing but its submit is measured.
fn held(world: &World, name: &str) -> v1::SubmitRequest {
    let spec = format!(r#"{{"name":"{name}","command":["/bin/true"],"hold":true}}"#);
    submit(spec, &world.scratch())
}

async fn depths() {
    let world = World::start_with(1, 3);
    let request = held(&world, "depth");
    let bytes = request.encoded_len() + 16;
    println!("request_size {bytes} bytes");
    let etcd = Etcd::start().await;
    for depth in DEPTHS {
        let clients = connections(depth, |at| world.client_from(at));
        let submitted = measure(depth, |at| {
            let (client, request) = (clients[at % clients.len()].clone(), request.clone());
            async move { drop(client.submit(request).await.expect("it is taken")) }
        });
        tell("submit", depth, &submitted.await);
        let Ok(etcd) = &etcd else { continue };
        let clients = connections(depth, |at| etcd.client_from(at));
        let value = vec![b'x'; bytes];
        let put = measure(depth, |at| {
            let (client, value) = (clients[at % clients.len()].clone(), value.clone());
            async move { client.put(value).await }
        });
        tell("etcd_put", depth, &put.await);
    }
    if let Err(error) = etcd {
        println!("# no etcd to compare with: {error}");
    }
    print("machine_flush", &machine_flushes(&world.dev()));
}

fn connections<T>(depth: usize, connect: impl Fn(usize) -> T) -> Vec<T> {
    (0..depth.div_ceil(PER_CONNECTION)).map(connect).collect()
}

fn tell(what: &str, depth: usize, (per_second, took): &(f64, Vec<Duration>)) {
    println!("{what}s_{depth}_in_flight {per_second:.0} per_second");
    print(&format!("{what}_{depth}_in_flight"), took);
}

/// Does something again and again, so many at a time. How often per second, and how long each took.
async fn measure<F, W>(depth: usize, work: F) -> (f64, Vec<Duration>)
where
    F: Fn(usize) -> W,
    W: Future<Output = ()> + Send + 'static,
{
    // Connections are made before the clock runs.
    for at in 0..depth {
        work(at).await;
    }
    let began = Instant::now();
    let mut running = JoinSet::new();
    let timed = |at| {
        let work = work(at);
        async move {
            let began = Instant::now();
            work.await;
            (at, began.elapsed())
        }
    };
    for at in 0..depth {
        running.spawn(timed(at));
    }
    let mut took = Vec::new();
    while let Some(done) = running.join_next().await {
        let (at, one) = done.expect("it does not panic");
        took.push(one);
        if began.elapsed() < LONG {
            running.spawn(timed(at));
        }
    }
    (rate(took.len(), began), took)
}

/// A submit that was acknowledged.
struct Acked {
    number: u64,
    job: u64,
    at: Instant,
}

/// What was seen of the load, and of the ends of leaders.
#[derive(Default)]
struct Seen {
    killed: Vec<Duration>,
    stopped: Vec<Duration>,
    handed_over: Vec<Duration>,
    asked: u64,
    acked: usize,
    lost: usize,
    doubled: usize,
    ranks: usize,
    ranks_untouched: usize,
}

async fn deaths(kills: usize) {
    let mut seen = Seen::default();
    let mut left = kills;
    while left > 0 {
        let now = left.min(KILLS_EACH);
        left -= now;
        life(now, left == 0, &mut seen).await;
        println!("# {} leaders killed so far", seen.killed.len());
    }
    tell_outages("leader_killed", &mut seen.killed);
    tell_outages("leader_stopped", &mut seen.stopped);
    tell_outages("leader_handed_over", &mut seen.handed_over);
    println!("submits_asked {} count", seen.asked);
    println!("submits_acknowledged {} count", seen.acked);
    println!("acknowledged_jobs_lost {} count", seen.lost);
    println!("jobs_doubled {} count", seen.doubled);
    println!("running_ranks_untouched {} of_{}", seen.ranks_untouched, seen.ranks);
}

/// A cluster whose leaders are killed so many times, and in the end stop in order and hand over.
async fn life(kills: usize, in_order_too: bool, seen: &mut Seen) {
    let world = Arc::new(World::start_with(1, 3));
    let client = world.client();
    let pid = running_rank(&world, &client).await;
    let numbers = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(load(Arc::clone(&world), Arc::clone(&numbers), Arc::clone(&stop)));
    let killed = end_leaders(&world, &client, "KILL", kills, KILL_EVERY).await;
    let (mut stopped, mut handed_over) = (Vec::new(), Vec::new());
    if in_order_too {
        stopped = end_leaders(&world, &client, "TERM", HANDOVERS, BETWEEN).await;
        for _ in 0..HANDOVERS {
            handed_over.push(Instant::now());
            let handed = client.transfer_leader(v1::TransferLeaderRequest { member_id: 0 });
            handed.await.expect("somebody takes over");
            sleep(BETWEEN).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let acked = load.await.expect("the load goes on");
    seen.asked += numbers.load(Ordering::Relaxed);
    seen.acked += acked.len();
    let mut times: Vec<Instant> = acked.iter().map(|acked| acked.at).collect();
    times.sort_unstable();
    let outages = |moments: Vec<Instant>| moments.into_iter().map(|at| outage(&times, at));
    seen.killed.extend(outages(killed));
    seen.stopped.extend(outages(stopped));
    seen.handed_over.extend(outages(handed_over));
    check(&client, &acked, seen).await;
    seen.ranks += 1;
    seen.ranks_untouched += usize::from(std::path::Path::new(&format!("/proc/{pid}")).exists());
    print("machine_flush", &machine_flushes(&world.dev()));
}

/// A job that runs all the time. The process of its rank.
async fn running_rank(world: &World, client: &Client) -> u32 {
    let file = world.scratch().join("pid");
    let line = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 100000", file.display());
    let spec = serde_json::json!({"name": "runs", "command": line}).to_string();
    client.submit(submit(spec, &world.scratch())).await.expect("it is taken");
    loop {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if let Ok(pid) = text.trim().parse() {
            return pid;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Submits a steady number of jobs per second until it is stopped.
async fn load(world: Arc<World>, numbers: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Vec<Acked> {
    let began = tokio::time::Instant::now();
    let clients = connections(WAITING, |at| world.client_from(at));
    let mut workers = JoinSet::new();
    for at in 0..WAITING {
        let (numbers, stop, world) = (Arc::clone(&numbers), Arc::clone(&stop), Arc::clone(&world));
        let client = clients[at % clients.len()].clone();
        workers.spawn(async move {
            let mut acked = Vec::new();
            loop {
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                sleep_until(began + Duration::from_micros(number * 1_000_000 / LOAD)).await;
                if stop.load(Ordering::Relaxed) {
                    numbers.fetch_sub(1, Ordering::Relaxed);
                    return acked;
                }
                let request = held(&world, &format!("n{number}"));
                let answer = client.submit(request).await.expect("it is taken in the end");
                acked.push(Acked { number, job: answer.job_id, at: Instant::now() });
            }
        });
    }
    workers.join_all().await.into_iter().flatten().collect()
}

/// The process of the member that leads.
async fn leader(world: &World, client: &Client) -> u32 {
    loop {
        let status = client.status(v1::StatusRequest { brief: true }).await;
        match status.expect("it answers").leader.map(|leader| leader.member_id) {
            Some(1) => return world.pid("coordinator"),
            Some(member) => return world.pid(&format!("coordinator-{member}")),
            None => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Ends leaders, one after the other, and starts each of them again. When each was told to.
async fn end_leaders(
    world: &Arc<World>,
    client: &Client,
    signal: &str,
    times: usize,
    every: Duration,
) -> Vec<Instant> {
    let mut moments = Vec::new();
    let mut next = tokio::time::Instant::now() + every;
    for _ in 0..times {
        sleep_until(next).await;
        let pid = leader(world, client).await;
        next = tokio::time::Instant::now() + every;
        moments.push(Instant::now());
        world.signal(pid, signal);
        sleep(AWAY).await;
        let world = Arc::clone(world);
        let started = tokio::task::spawn_blocking(move || world.start_again());
        started.await.expect("the member starts again");
        await_whole(client).await;
    }
    sleep(BETWEEN).await;
    moments
}

/// Waits until every member has all but what is on its way: two that are away at a time are no
/// minority.
async fn await_whole(client: &Client) {
    loop {
        let status = client.status(v1::StatusRequest::default()).await.expect("it answers");
        let is_there = |member: &v1::Member| member.lag_entries.is_some_and(|lag| lag < 1_000);
        if status.members.len() == 3 && status.members.iter().all(is_there) {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn tell_outages(name: &str, outages: &mut [Duration]) {
    if outages.is_empty() {
        return;
    }
    outages.sort_unstable();
    let (p50, p99) = percentiles(outages);
    let longest = outages.last().map_or(0.0, |longest| longest.as_secs_f64() * 1e3);
    println!("{name}_times {} count", outages.len());
    println!("{name}_outage_p50 {p50:.0} ms");
    println!("{name}_outage_p99 {p99:.0} ms");
    println!("{name}_outage_max {longest:.0} ms");
}

/// How long no submit was acknowledged after this moment: the longest time between two
/// acknowledgements of which the second came after it, and the first before the member started
/// again.
fn outage(acked: &[Instant], moment: Instant) -> Duration {
    let first = acked.partition_point(|at| *at < moment).saturating_sub(1);
    let pairs = acked[first..].windows(2).take_while(|pair| pair[0] < moment + AWAY);
    pairs.map(|pair| pair[1].duration_since(pair[0])).max().unwrap_or(AWAY)
}

/// Whether each acknowledged job is there once, and no other.
async fn check(client: &Client, acked: &[Acked], seen: &mut Seen) {
    let mut names: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for job in jobs(client).await {
        names.entry(job.name).or_default().push(job.id);
    }
    let is_there = |acked: &&Acked| {
        names.get(&format!("n{}", acked.number)).is_some_and(|jobs| jobs.contains(&acked.job))
    };
    seen.lost += acked.len() - acked.iter().filter(is_there).count();
    seen.doubled += names.values().filter(|jobs| jobs.len() > 1).count();
}
