//! How long to wait before the next try: doubling, bounded, and spread out, so that those who
//! failed together do not come back together.
//!
//! Randomness is an argument: under a simulator it comes from the seed.

use std::time::Duration;

/// Waits between tries of one thing.
#[derive(Clone, Debug)]
pub struct Backoff {
    first_ms: u64,
    most_ms: u64,
    tries: u32,
}

impl Backoff {
    /// Waits of about `first_ms`, then twice that, and so on up to `most_ms`.
    #[must_use]
    pub const fn new(first_ms: u64, most_ms: u64) -> Backoff {
        Backoff { first_ms, most_ms, tries: 0 }
    }

    /// The next wait: between half of the present step and all of it, by `random`, of which any
    /// value is as likely as any other.
    pub fn next(&mut self, random: u64) -> Duration {
        let factor = 1u64.checked_shl(self.tries).unwrap_or(u64::MAX);
        let step = self.first_ms.saturating_mul(factor).min(self.most_ms);
        self.tries = self.tries.saturating_add(1);
        let half = step / 2;
        // The upper half of the product spreads evenly over 0 ..= step - half.
        let part = (u128::from(random) * u128::from(step - half + 1)) >> 64;
        Duration::from_millis(half + u64::try_from(part).unwrap_or(0))
    }

    /// The next try is the first one again: the last one worked.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// Tries since the last success.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most() {
        let mut backoff = Backoff::new(100, 1_000);
        let longest: Vec<u128> = (0..6).map(|_| backoff.next(u64::MAX).as_millis()).collect();
        assert_eq!(longest, [100, 200, 400, 800, 1_000, 1_000]);
        backoff.reset();
        assert_eq!(backoff.next(0).as_millis(), 50);
        assert_eq!(backoff.tries(), 1);
    }

    #[test]
    fn a_thousand_tries_do_not_overflow() {
        let mut backoff = Backoff::new(1, u64::MAX);
        for _ in 0..1_000 {
            assert!(backoff.next(u64::MAX) > Duration::ZERO || backoff.tries() < 2);
        }
        assert_eq!(backoff.next(u64::MAX).as_millis(), u128::from(u64::MAX));
    }

    #[test]
    fn waits_are_spread() {
        let waits: std::collections::BTreeSet<u128> =
            (0..64u64).map(|i| Backoff::new(1_000, 1_000).next(i << 58).as_millis()).collect();
        assert!(waits.len() > 60, "{} different waits", waits.len());
    }
}
