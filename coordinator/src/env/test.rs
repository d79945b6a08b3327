//! An environment for tests: tokio's clock, which a test can stop and move, and disks in memory.
//!
//! Blocking work runs where it is asked for, so that a whole cluster lives in one thread. It has no
//! network: a test that needs one brings its own, around this.

use super::{Env, Folder, Job, Listener, MemoryDisk, Socket};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::Instant;

/// One process of a test, on one disk.
#[derive(Debug)]
pub struct TestEnv {
    disk: MemoryDisk,
    began: Instant,
    wall_ms: u64,
    random: AtomicU64,
}

impl TestEnv {
    /// A process on this disk. `wall_ms`: what its wall clock shows now.
    #[must_use]
    pub fn new(disk: MemoryDisk, seed: u64, wall_ms: u64) -> TestEnv {
        TestEnv { disk, began: Instant::now(), wall_ms, random: AtomicU64::new(seed) }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Env for TestEnv {
    fn boot_ms(&self) -> u64 {
        self.elapsed_ms()
    }

    fn wall_ms(&self) -> u64 {
        self.wall_ms + self.elapsed_ms()
    }

    fn random(&self) -> u64 {
        super::memory::mix(self.random.fetch_add(1, Ordering::Relaxed))
    }

    fn folder(&self, _: &Path) -> io::Result<Arc<dyn Folder>> {
        Ok(self.disk.folder())
    }

    fn blocking(&self, job: Job) -> BoxFuture<'static, ()> {
        job();
        futures_util::future::ready(()).boxed()
    }

    fn worker(
        &self,
        _: &'static str,
        work: BoxFuture<'static, ()>,
    ) -> io::Result<BoxFuture<'static, ()>> {
        Ok(tokio::spawn(work).map(|_| ()).boxed())
    }

    fn listen(&self, _: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        futures_util::future::ready(Err(io::ErrorKind::Unsupported.into())).boxed()
    }

    fn dial(&self, _: String, _: u16) -> BoxFuture<'static, io::Result<Socket>> {
        futures_util::future::ready(Err(io::ErrorKind::Unsupported.into())).boxed()
    }
}
