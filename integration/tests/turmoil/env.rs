//! The machine of a member: a disk that forgets what was not flushed, a wall clock that steps,
//! chance from the seed, and the network of turmoil.

use crate::net::{self, Wires};
use futures_util::future::BoxFuture;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use yard_coordinator::env::{Env, Folder, Job, Listener, MemoryDisk, Socket, TestEnv};

/// What all wall clocks show when a run begins: the first of January 2026.
pub(crate) const WALL_MS: u64 = 1_767_225_600_000;

/// How wrong a wall clock is, in milliseconds. Clones are the same clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct WallClock(Arc<AtomicI64>);

impl WallClock {
    pub(crate) fn step(&self, by_ms: i64) {
        self.0.fetch_add(by_ms, Ordering::Relaxed);
    }
}

/// The machine as one life of a member sees it.
pub(crate) struct SimEnv {
    machine: TestEnv,
    wall: WallClock,
    wires: Wires,
}

impl SimEnv {
    /// Within a host of the simulation. `seed`: of this life.
    pub(crate) fn new(disk: MemoryDisk, seed: u64, wall: WallClock, wires: Wires) -> SimEnv {
        let run_ms = turmoil::sim_elapsed().unwrap_or_default().as_millis();
        let wall_ms = WALL_MS + u64::try_from(run_ms).unwrap_or(0);
        SimEnv { machine: TestEnv::new(disk, seed, wall_ms), wall, wires }
    }
}

impl Env for SimEnv {
    fn boot_ms(&self) -> u64 {
        self.machine.boot_ms()
    }

    fn wall_ms(&self) -> u64 {
        self.machine.wall_ms().saturating_add_signed(self.wall.0.load(Ordering::Relaxed))
    }

    fn random(&self) -> u64 {
        self.machine.random()
    }

    fn folder(&self, path: &Path) -> io::Result<Arc<dyn Folder>> {
        self.machine.folder(path)
    }

    fn blocking(&self, job: Job) -> BoxFuture<'static, ()> {
        self.machine.blocking(job)
    }

    fn worker(
        &self,
        name: &'static str,
        work: BoxFuture<'static, ()>,
    ) -> io::Result<BoxFuture<'static, ()>> {
        self.machine.worker(name, work)
    }

    fn listen(&self, at: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(net::listen(at, self.wires.clone()))
    }

    fn dial(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Socket>> {
        Box::pin(net::dial(host, port, self.wires.clone()))
    }
}
