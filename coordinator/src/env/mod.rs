//! The one seam to the world: clocks, randomness, files, connections, and work that blocks.
//!
//! **Invariant:** the rest of the crate takes these from an [`Env`] and from nowhere else, so that
//! a whole cluster runs in one thread, on a clock that a test moves, with disks that forget what
//! was not flushed. [`SystemEnv`] is the machine; [`TestEnv`] is a test's.

mod disk;
mod memory;
mod net;
mod system;
mod test;

pub use memory::{Crash, MemoryDisk};
pub use net::{Connection, Listener, Socket};
pub use system::SystemEnv;
pub use test::TestEnv;

use futures_util::future::BoxFuture;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Work that may block a thread.
pub type Job = Box<dyn FnOnce() + Send>;

/// What a process needs of its machine.
pub trait Env: Send + Sync + 'static {
    /// Milliseconds since some moment of the past. Never falls, runs on in a suspended machine,
    /// and knows nothing of the calendar.
    fn boot_ms(&self) -> u64;

    /// Milliseconds since 1970 UTC, as the machine believes. For people, never for decisions.
    fn wall_ms(&self) -> u64;

    /// Random bits, good enough for secrets.
    fn random(&self) -> u64;

    /// A folder, made if it does not exist.
    ///
    /// # Errors
    /// Those of the file system.
    fn folder(&self, path: &Path) -> io::Result<Arc<dyn Folder>>;

    /// Runs a job where it may block. The future ends after it.
    fn blocking(&self, job: Job) -> BoxFuture<'static, ()>;

    /// Runs work that blocks again and again on a thread of its own, until it ends. The future
    /// that comes back ends after it, and must be awaited by whoever owns the worker.
    ///
    /// # Errors
    /// If the machine gives no further thread.
    fn worker(
        &self,
        name: &'static str,
        work: BoxFuture<'static, ()>,
    ) -> io::Result<BoxFuture<'static, ()>>;

    /// Listens for connections.
    ///
    /// # Errors
    /// If the address is taken, or not one of this machine.
    fn listen(&self, at: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>>;

    /// Opens a connection.
    ///
    /// # Errors
    /// If nobody listens there, or does not answer within a few seconds.
    fn dial(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Socket>>;
}

/// One folder, without the folders in it.
pub trait Folder: Send + Sync {
    /// Makes a file that must not exist yet.
    ///
    /// # Errors
    /// Those of the file system.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// Those of the file system; `NotFound` if there is none.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name, and replaces the file that has it.
    ///
    /// # Errors
    /// Those of the file system.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Who has it open can go on reading.
    ///
    /// # Errors
    /// Those of the file system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all files, in order.
    ///
    /// # Errors
    /// Those of the file system.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes it durable which files there are and what they are called.
    ///
    /// # Errors
    /// Those of the file system. What was not durable before may be lost then.
    fn sync(&self) -> io::Result<()>;

    /// Bytes that are free on its disk, for whoever is not privileged.
    ///
    /// # Errors
    /// Those of the file system.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Locks a file of this name for this process until the guard is dropped.
    ///
    /// # Errors
    /// `WouldBlock` if another process has it; else those of the file system.
    fn lock(&self, name: &str) -> io::Result<Box<dyn Guard>>;
}

/// Holds a lock while it lives.
pub trait Guard: Send + Sync {}

/// An open file.
pub trait File: Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// Those of the file system.
    fn size(&self) -> io::Result<u64>;

    /// Fills the buffer from this offset on; fewer bytes only at the end of the file.
    ///
    /// # Errors
    /// Those of the file system.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all bytes at this offset.
    ///
    /// # Errors
    /// Those of the file system. Some of the bytes may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes bytes and length durable.
    ///
    /// # Errors
    /// Those of the file system. The bytes may be lost then, and no second try brings them back:
    /// the process must end.
    fn sync(&self) -> io::Result<()>;

    /// The whole file.
    ///
    /// # Errors
    /// Those of the file system.
    fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.size()?).map_err(io::Error::other)?];
        let len = self.read_at(0, &mut bytes)?;
        bytes.truncate(len);
        Ok(bytes)
    }
}

/// Runs something that may block, and gives back what came of it.
///
/// # Errors
/// What the work returns, or `Interrupted` if the process is ending and did not run it.
pub async fn run_blocking<T, E>(
    env: &dyn Env,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<io::Error> + Send + 'static,
{
    let (done, outcome) = oneshot::channel();
    let job = move || {
        // Nobody listens any more if the caller was dropped.
        let _ = done.send(work());
    };
    env.blocking(Box::new(job)).await;
    let gone = || io::Error::new(io::ErrorKind::Interrupted, "blocking work was not finished");
    outcome.await.unwrap_or_else(|_| Err(gone().into()))
}
