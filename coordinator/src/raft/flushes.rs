//! How long writes of the log take until they are durable: a small histogram of the latest ones.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Buckets: each is a quarter larger than the one before, from 16 microseconds to about a minute.
const BUCKETS: usize = 70;
const FIRST_US: u64 = 16;
/// How long a half of the histogram is filled; then the other one is begun anew.
const TURN: Duration = Duration::from_secs(60);

/// The histogram. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Flushes(Arc<Mutex<Halves>>);

struct Halves {
    current: [u64; BUCKETS],
    before: [u64; BUCKETS],
    turned: Instant,
}

/// The upper end of each bucket, in microseconds.
fn ends() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(FIRST_US), |end| Some(end + end / 4)).take(BUCKETS)
}

impl Flushes {
    pub(crate) fn new() -> Flushes {
        let (current, before) = ([0; BUCKETS], [0; BUCKETS]);
        Flushes(Arc::new(Mutex::new(Halves { current, before, turned: Instant::now() })))
    }

    /// A write took so long.
    pub(super) fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = ends().position(|end| us <= end).unwrap_or(BUCKETS - 1);
        self.turn().current[at] += 1;
    }

    /// The time within which 99 of 100 of the latest writes were durable, in microseconds, rounded
    /// up to the end of a bucket; none without writes in the last minute or two.
    pub(crate) fn p99_us(&self) -> Option<u64> {
        let halves = self.turn();
        let counts = halves.current.iter().zip(&halves.before).map(|(a, b)| a + b);
        let counts: Vec<u64> = counts.collect();
        let all: u64 = counts.iter().sum();
        let mut rest = all.checked_sub(1)? * 99 / 100 + 1;
        for (count, end) in counts.iter().zip(ends()) {
            if *count >= rest {
                return Some(end);
            }
            rest -= count;
        }
        None
    }

    fn turn(&self) -> std::sync::MutexGuard<'_, Halves> {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = halves.turned.elapsed();
        if since >= TURN {
            // Who wrote nothing for two turns knows nothing.
            halves.before = if since < 2 * TURN { halves.current } else { [0; BUCKETS] };
            halves.current = [0; BUCKETS];
            halves.turned = Instant::now();
        }
        halves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_slowest_hundredth_shows_and_is_forgotten() {
        let flushes = Flushes::new();
        assert_eq!(flushes.p99_us(), None);
        for _ in 0..990 {
            flushes.record(Duration::from_micros(100));
        }
        for _ in 0..9 {
            flushes.record(Duration::from_millis(50));
        }
        let p99 = flushes.p99_us().unwrap();
        assert!((100..125).contains(&p99), "{p99}");
        for _ in 0..10 {
            flushes.record(Duration::from_millis(50));
        }
        let p99 = flushes.p99_us().unwrap();
        assert!((50_000..62_500).contains(&p99), "{p99}");
        tokio::time::advance(TURN).await;
        assert_eq!(flushes.p99_us(), Some(p99), "of the turn before");
        flushes.record(Duration::from_secs(3_600));
        tokio::time::advance(TURN).await;
        assert!(flushes.p99_us().unwrap() > 60_000_000, "what is too long is in the last bucket");
        tokio::time::advance(2 * TURN).await;
        assert_eq!(flushes.p99_us(), None);
    }
}
