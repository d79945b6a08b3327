//! Durable proposals per second of one member on a real disk, beside what the disk itself can do.
//!
//! Prints figures, one per line: `name value unit`.

#![allow(clippy::disallowed_methods)]

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use yard_common::id::{ClusterId, Incarnation, MemberId, PrincipalId};
use yard_coordinator::Build;
use yard_coordinator::env::SystemEnv;
use yard_coordinator::proposer::{DiskOptions, Handle, Options, ROUND_TRIP_MS, Service};
use yard_coordinator::raft::{Letter, Transport, TransportError};
use yard_coordinator::storage::{Identity, Peer};
use yard_core::command::{Actor, Cluster, Command, Holder};

/// How long each figure is measured.
const LONG: Duration = Duration::from_secs(3);

/// There are no other members.
struct Alone;

impl Transport for Alone {
    fn ask(&self, letter: Letter) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let gone = TransportError::Unreachable(letter.to, "there is none".into());
        futures_util::future::ready(Err(gone)).boxed()
    }
}

/// Flushes per second of appended records of this size. `ahead`: the file is as long before.
fn flushes(folder: &Path, bytes: usize, ahead: bool) -> f64 {
    let path = folder.join("raw");
    let mut file = std::fs::File::create(&path).expect("the folder can be written");
    if ahead {
        file.write_all(&vec![0; 32 << 20]).expect("there is room");
        file.sync_all().expect("the disk works");
        std::io::Seek::rewind(&mut file).expect("it is a file");
    }
    let (record, began, mut count) = (vec![1; bytes], Instant::now(), 0u32);
    while began.elapsed() < LONG {
        file.write_all(&record).expect("there is room");
        file.sync_data().expect("the disk works");
        count += 1;
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}

/// Proposals per second and their median and 99th percentile in milliseconds.
async fn proposals(handle: &Handle, clients: usize) -> (f64, f64, f64) {
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        let handle = handle.clone();
        tasks.spawn(async move {
            let mut took = Vec::new();
            for nth in 0u64.. {
                if began.elapsed() >= LONG {
                    break;
                }
                let (key, value) = (format!("bench.{client}"), format!("{nth:064}"));
                let setting = Holder::SetSetting(key, Some(value));
                let asked = Instant::now();
                let command = Command::Holder(setting);
                let outcome = handle.propose(Actor::User(PrincipalId(0)), None, &command).await;
                outcome.expect("this member leads").expect("a setting can be set");
                took.push(asked.elapsed().as_secs_f64() * 1e3);
            }
            took
        });
    }
    let mut all: Vec<f64> = tasks.join_all().await.into_iter().flatten().collect();
    let seconds = began.elapsed().as_secs_f64();
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize];
    (all.len() as f64 / seconds, at(0.5), at(0.99))
}

async fn measure(folder: &Path) {
    println!("fdatasync_append {:.0} 1/s", flushes(folder, 256, false));
    println!("fdatasync_overwrite {:.0} 1/s", flushes(folder, 256, true));
    let (cluster, incarnation) = (ClusterId::from_u128(1), Incarnation(1));
    let identity = Identity { cluster, incarnation, member: MemberId(1) };
    let options = Options {
        identity,
        folder: folder.join("data"),
        disk: DiskOptions::DEFAULT,
        round_trip_ms: ROUND_TRIP_MS,
        build: Build::CURRENT,
    };
    let service = Service::start(options, Arc::new(SystemEnv), Arc::new(Alone)).await;
    let service = service.expect("the folder is new");
    let handle = service.handle();
    let first = Cluster::Initialise { cluster, admin: "admin".into(), unix: None };
    let begun = handle.init_cluster(Peer::default(), &Command::Cluster(first)).await;
    begun.expect("it is alone").expect("it is new");
    for clients in [1, 4, 16, 64, 256] {
        let (rate, p50, p99) = proposals(&handle, clients).await;
        println!("proposals_{clients} {rate:.0} 1/s");
        println!("proposals_{clients}_p50 {p50:.3} ms");
        println!("proposals_{clients}_p99 {p99:.3} ms");
    }
    handle.shutdown();
    service.wait().await.expect("nothing failed");
}

fn main() {
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    let runtime = tokio::runtime::Runtime::new().expect("there are threads");
    runtime.block_on(measure(folder.path()));
}
