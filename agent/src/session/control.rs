//! The control stream: finds the leader, keeps one stream to it, and finds the next one.

use super::data::DataCalls;
use super::stream::{self, StreamError};
use super::{Fatal, Shared};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use yard_runtime::backoff::Backoff;
use yard_runtime::shutdown::CancellationToken;

/// The first and the longest wait before the next try.
const WAIT_MS: (u64, u64) = (50, 1_000);
/// A stream that lived so long has worked. A leader that takes streams and drops them at once must
/// not be asked twenty times a second.
const SETTLED: Duration = Duration::from_secs(5);
/// Hints that are followed in a row without a welcome: two members may each believe in the other.
const HINTS_MAX: u32 = 3;

/// Whom to try next.
#[derive(Debug, Default)]
struct Candidates {
    at: usize,
    hint: Option<String>,
    hints: u32,
}

impl Candidates {
    /// The next address of a list; none if there is none.
    fn next(&mut self, addresses: &[String]) -> Option<String> {
        if let Some(hint) = self.hint.take() {
            return Some(hint);
        }
        let address = addresses.get(self.at % addresses.len().max(1)).cloned();
        self.at = self.at.wrapping_add(1);
        address
    }

    /// A member says who leads. Whether that is tried at once.
    fn hint(&mut self, address: String) -> bool {
        self.hints += 1;
        if self.hints > HINTS_MAX || address.is_empty() {
            return false;
        }
        self.hint = Some(address);
        true
    }

    /// A leader took the stream: it is tried first when the stream breaks, and last when it fell
    /// silent.
    fn welcomed(&mut self, address: &str, addresses: &[String], silent: bool) {
        self.hints = 0;
        if let Some(at) = addresses.iter().position(|one| one == address) {
            self.at = at + usize::from(silent);
        }
    }
}

/// A stream ended that the leader had taken, after living for so long.
fn lived(backoff: &mut Backoff, life: Duration) {
    if life >= SETTLED {
        backoff.reset();
    }
}

/// Keeps a stream to the leader until it is stopped.
///
/// # Errors
/// What the agent cannot go on after.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) -> Result<(), Fatal> {
    let mut calls = DataCalls::new(shared.clone());
    let result = tokio::select! {
        () = stop.cancelled() => Ok(()),
        fatal = keep(&shared, &mut calls) => Err(fatal),
    };
    calls.stop().await;
    // The driver may be the one that has ended.
    let _ = shared.driver.disconnected().await;
    result
}

async fn keep(shared: &Arc<Shared>, calls: &mut DataCalls) -> Fatal {
    let mut candidates = Candidates::default();
    let mut backoff = Backoff::new(WAIT_MS.0, WAIT_MS.1);
    loop {
        let addresses = shared.rosters.addresses();
        let Some(address) = candidates.next(&addresses) else {
            sleep(backoff.next(rand::random())).await;
            continue;
        };
        let mut welcomed = None;
        let error = stream::serve(shared, calls, &address, &mut welcomed).await;
        if shared.driver.disconnected().await.is_err() {
            return Fatal::Driver;
        }
        if let Some(since) = welcomed {
            lived(&mut backoff, since.elapsed());
            let silent = matches!(error, StreamError::Silent);
            candidates.welcomed(&address, &addresses, silent);
        }
        match error {
            StreamError::Fatal(fatal) => return fatal,
            StreamError::Goodbye(goodbye) => {
                tracing::info!(
                    address,
                    reason = goodbye.reason,
                    "the stream to the leader is over"
                );
                let leader = goodbye.leader.map(|leader| leader.address);
                if leader.is_some_and(|leader| candidates.hint(leader)) {
                    continue;
                }
            }
            StreamError::Certificate => continue,
            error @ StreamError::FormerLife { .. } => {
                tracing::warn!(address, %error, "a coordinator is not obeyed");
            }
            error if welcomed.is_some() => {
                tracing::warn!(address, %error, "the stream to the leader broke")
            }
            error => tracing::debug!(address, %error, "no stream to this member"),
        }
        sleep(backoff.next(rand::random())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_break_at_once_are_opened_ever_less_often() {
        let mut backoff = Backoff::new(WAIT_MS.0, WAIT_MS.1);
        let mut wait_after = |life: Duration| {
            lived(&mut backoff, life);
            backoff.next(u64::MAX).as_millis()
        };
        let waits: Vec<_> = (0..6).map(|_| wait_after(Duration::from_millis(100))).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1_000]);
        assert_eq!(wait_after(SETTLED), 50);
    }

    #[test]
    fn members_are_tried_in_turn_and_hints_first() {
        let list: Vec<String> = ["a", "b", "c"].map(String::from).into();
        let mut candidates = Candidates::default();
        let next = |candidates: &mut Candidates| candidates.next(&list).unwrap();
        assert_eq!(next(&mut candidates), "a");
        assert!(candidates.hint("x".into()));
        assert_eq!(next(&mut candidates), "x");
        assert_eq!(next(&mut candidates), "b");
        assert!(!candidates.hint(String::new()));
        // Two members that point at each other.
        assert!(candidates.hint("a".into()));
        assert!(!candidates.hint("b".into()));
        assert_eq!(next(&mut candidates), "a");
        candidates.welcomed("b", &list, false);
        assert_eq!(next(&mut candidates), "b");
        candidates.welcomed("b", &list, true);
        assert_eq!(next(&mut candidates), "c");
        assert!(candidates.hint("x".into()));
        assert_eq!(Candidates::default().next(&[]), None);
    }
}
