//! The machine itself.

use super::disk::DiskFolder;
use super::{Env, Folder, Job, Listener, Socket, net};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Clocks, disks and threads of the machine that runs this process. Used from within a tokio
/// runtime.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEnv;

/// A clock in milliseconds; what is negative counts as zero.
fn clock_ms(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

impl Env for SystemEnv {
    fn boot_ms(&self) -> u64 {
        clock_ms(ClockId::Boottime)
    }

    fn wall_ms(&self) -> u64 {
        clock_ms(ClockId::Realtime)
    }

    fn random(&self) -> u64 {
        rand::random()
    }

    fn folder(&self, path: &Path) -> io::Result<Arc<dyn Folder>> {
        Ok(Arc::new(DiskFolder::open(path)?))
    }

    fn blocking(&self, job: Job) -> BoxFuture<'static, ()> {
        // A job that panics or was never started drops its own answer, which the caller sees.
        tokio::task::spawn_blocking(job).map(|_| ()).boxed()
    }

    fn worker(
        &self,
        name: &'static str,
        work: BoxFuture<'static, ()>,
    ) -> io::Result<BoxFuture<'static, ()>> {
        let (done, ended) = oneshot::channel::<()>();
        let runtime = Handle::current();
        let run = move || {
            runtime.block_on(work);
            drop(done);
        };
        std::thread::Builder::new().name(name.into()).spawn(run)?;
        // The sender goes with the thread, whether it returns or panics.
        Ok(ended.map(|_| ()).boxed())
    }

    fn listen(&self, at: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        net::listen(at)
    }

    fn dial(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Socket>> {
        net::dial(host, port)
    }
}
