//! tokio for openraft, with the chance of [`Env`]: when a member stands for election must come from
//! the seed of a test, and openraft asks for it without a context.

use crate::env::Env;
use openraft::OptionalSend;
use openraft::async_runtime::AsyncRuntime;
use openraft::impls::TokioRuntime;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

tokio::task_local! {
    /// Whose tasks these are.
    static ENV: Arc<dyn Env>;
}

/// Runs work, and all tasks that it starts, with the chance of this environment.
pub(super) async fn within<F: Future>(env: Arc<dyn Env>, work: F) -> F::Output {
    ENV.scope(env, work).await
}

/// The runtime of openraft.
#[derive(Debug)]
pub(crate) struct Runtime(TokioRuntime);

/// Random numbers of the environment whose task asks.
pub(crate) struct EnvRng(Option<Arc<dyn Env>>);

impl EnvRng {
    fn next(&self) -> u64 {
        match &self.0 {
            Some(env) => env.random(),
            // A call from outside of its tasks; there is none that needs chance at present.
            None => rand::random(),
        }
    }
}

impl rand::TryRng for EnvRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.next() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]);
        }
        Ok(())
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = EnvRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match ENV.try_with(Arc::clone) {
            Ok(env) => TokioRuntime::spawn(ENV.scope(env, future)),
            Err(_) => TokioRuntime::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F>(duration: Duration, future: F) -> Self::Timeout<R, F>
    where
        F: Future<Output = R> + OptionalSend,
    {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F>
    where
        F: Future<Output = R> + OptionalSend,
    {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> EnvRng {
        EnvRng(ENV.try_with(Arc::clone).ok())
    }

    fn new(threads: usize) -> Self {
        Runtime(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, std::io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        TokioRuntime::spawn_blocking(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{MemoryDisk, TestEnv};
    use rand::RngExt;

    /// What openraft would draw, at once and in a task of its own.
    async fn drawn(seed: u64) -> Vec<u64> {
        let env: Arc<dyn Env> = Arc::new(TestEnv::new(MemoryDisk::default(), seed, 0));
        let draw = || Runtime::thread_rng().random_range(150..400);
        within(env, async move {
            let here = draw();
            let there = Runtime::spawn(async move {
                let inner = Runtime::spawn(async move { draw() });
                (draw(), inner.await.unwrap())
            });
            let (task, task_of_task) = there.await.unwrap();
            vec![here, task, task_of_task, draw(), draw(), draw()]
        })
        .await
    }

    #[tokio::test]
    async fn chance_comes_from_the_environment_in_all_tasks() {
        assert_eq!(drawn(1).await, drawn(1).await);
        assert_ne!(drawn(1).await, drawn(2).await);
    }

    #[test]
    fn bytes_come_from_it_too() {
        use rand::TryRng;
        let env = || Some(Arc::new(TestEnv::new(MemoryDisk::default(), 3, 0)) as Arc<dyn Env>);
        let (mut some, mut more) = ([0; 11], [0; 16]);
        EnvRng(env()).try_fill_bytes(&mut some).unwrap();
        EnvRng(env()).try_fill_bytes(&mut more).unwrap();
        assert_eq!(some, more[..11]);
        assert_ne!(some, [0; 11]);
    }
}
