//! How a process ends: a signal asks, every task is told, and somebody waits for each of them.
//!
//! Nothing runs detached. A task has a name and an owner; one that panics is noticed at once.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::task::{Id, JoinError, JoinSet};
pub use tokio_util::sync::CancellationToken;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// End in an orderly way: SIGTERM or SIGINT.
    Stop,
    /// Read certificates and log filter again: SIGHUP.
    Reload,
}

/// The signals of this process.
#[derive(Debug)]
pub struct Signals {
    terminate: SignalStream,
    interrupt: SignalStream,
    hang_up: SignalStream,
}

impl Signals {
    /// Takes the signals over: from now on they no longer end the process by themselves.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn install() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hang_up.recv() => Signal::Reload,
        }
    }
}

/// How a task ended.
#[derive(Debug)]
pub struct Ended {
    /// Its name.
    pub name: &'static str,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a task.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It returned.
    Returned,
    /// It panicked, with this message.
    Panicked(String),
    /// It was stopped from outside.
    Aborted,
}

/// The tasks of one owner. Dropping it stops them all.
#[derive(Debug, Default)]
pub struct Tasks {
    stop: CancellationToken,
    running: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// An owner whose tasks stop when `stop` is cancelled.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Tasks {
        Tasks { stop, running: JoinSet::new(), names: HashMap::new() }
    }

    /// What the tasks shall watch.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.running.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// How many run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether none runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The next task that ends; `None`: none runs. May be dropped and called again.
    pub async fn next_ended(&mut self) -> Option<Ended> {
        let (id, outcome) = match self.running.join_next_with_id().await? {
            Ok((id, ())) => (id, Outcome::Returned),
            Err(error) => (error.id(), outcome_of(error)),
        };
        let name = self.names.remove(&id).expect("every task was given a name");
        Some(Ended { name, outcome })
    }

    /// Tells every task to stop and waits for them; after `grace`, stops them where they are.
    /// Returns those that did not return by themselves.
    pub async fn stop(mut self, grace: Duration) -> Vec<Ended> {
        self.stop.cancel();
        let mut unclean = Vec::new();
        let deadline = tokio::time::sleep(grace);
        tokio::pin!(deadline);
        let mut late = false;
        loop {
            let ended = tokio::select! {
                ended = self.next_ended() => ended,
                () = &mut deadline, if !late => {
                    late = true;
                    self.running.abort_all();
                    continue;
                }
            };
            match ended {
                Some(Ended { outcome: Outcome::Returned, .. }) => {}
                Some(ended) => unclean.push(ended),
                None => return unclean,
            }
        }
    }
}

fn outcome_of(error: JoinError) -> Outcome {
    let Ok(panic) = error.try_into_panic() else { return Outcome::Aborted };
    let message = match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => match other.downcast::<&'static str>() {
            Ok(text) => (*text).to_string(),
            Err(_) => "no message".to_string(),
        },
    };
    Outcome::Panicked(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_are_told_to_stop_and_awaited() {
        let mut tasks = Tasks::new(CancellationToken::new());
        let token = tasks.token();
        let (send, receive) = tokio::sync::oneshot::channel();
        tasks.spawn("good", async move {
            token.cancelled().await;
            send.send(()).unwrap();
        });
        assert!(tasks.stop(Duration::from_secs(600)).await.is_empty());
        receive.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_listen_is_stopped_and_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("deaf", std::future::pending());
        let unclean = tasks.stop(Duration::from_secs(5)).await;
        assert_eq!(unclean.len(), 1);
        assert_eq!((unclean[0].name, &unclean[0].outcome), ("deaf", &Outcome::Aborted));
    }

    #[tokio::test]
    async fn a_panic_is_noticed_with_its_message() {
        let mut tasks = Tasks::default();
        tasks.spawn("planner", async { panic!("invariant {}", 7) });
        let ended = tasks.next_ended().await.unwrap();
        assert_eq!(ended.name, "planner");
        assert_eq!(ended.outcome, Outcome::Panicked("invariant 7".into()));
        assert!(tasks.next_ended().await.is_none() && tasks.is_empty());
    }

    #[tokio::test]
    async fn signals_are_told_apart() {
        let mut signals = Signals::install().unwrap();
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::HUP).unwrap();
        assert_eq!(signals.next().await, Signal::Reload);
        rustix::process::kill_process(me, rustix::process::Signal::TERM).unwrap();
        assert_eq!(signals.next().await, Signal::Stop);
    }
}
