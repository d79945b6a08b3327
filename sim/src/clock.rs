//! Clocks of machines: a boot clock with an error of rate, and a wall clock that may be anything.
//!
//! True time is in microseconds since the begin of the run and is seen by nobody within the
//! simulated system.

/// True time in microseconds.
pub type Us = u64;

/// One millisecond of true time.
pub const MS: Us = 1_000;
/// One second of true time.
pub const SECOND: Us = 1_000_000;

/// What the wall clocks of healthy machines show when a run begins: 2027-01-15 08:00 UTC.
const WALL_AT_BEGIN_MS: u64 = 1_800_000_000_000;

/// The clocks of one machine.
#[derive(Clone, Debug)]
pub struct Clock {
    /// When the machine booted.
    booted_us: Us,
    /// Error of the rate in parts per million; positive: fast.
    drift_ppm: i64,
    /// By how much the wall clock is wrong.
    wall_error_ms: i64,
}

impl Clock {
    /// The clock of a machine that boots now.
    #[must_use]
    pub fn new(booted_us: Us, drift_ppm: i64) -> Clock {
        Clock { booted_us, drift_ppm, wall_error_ms: 0 }
    }

    /// The machine boots again; its wall clock stays wrong.
    pub fn boot(&mut self, now_us: Us) {
        self.booted_us = now_us;
    }

    /// Sets the error of the wall clock.
    pub fn set_wall_error(&mut self, error_ms: i64) {
        self.wall_error_ms = error_ms;
    }

    fn rate(&self) -> u128 {
        (1_000_000 + self.drift_ppm) as u128
    }

    /// The boot clock in milliseconds. It starts at 1,000, so that 0 is always in the past.
    #[must_use]
    pub fn now_ms(&self, now_us: Us) -> u64 {
        let since_us = u128::from(now_us.saturating_sub(self.booted_us));
        1_000 + (since_us * self.rate() / 1_000_000_000) as u64
    }

    /// The first moment at which the boot clock shows this.
    #[must_use]
    pub fn moment(&self, at_ms: u64) -> Us {
        let since = u128::from(at_ms.saturating_sub(1_000)) * 1_000_000_000;
        self.booted_us.saturating_add(since.div_ceil(self.rate()) as u64)
    }

    /// The wall clock in milliseconds since 1970.
    #[must_use]
    pub fn wall_ms(&self, now_us: Us) -> u64 {
        (WALL_AT_BEGIN_MS + now_us / MS).saturating_add_signed(self.wall_error_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_the_first_one_that_shows_the_time() {
        for drift in [-1_000, -3, 0, 7, 1_000] {
            let clock = Clock::new(5_000_000, drift);
            for at_ms in [1_001, 1_777, 50_000, 3_600_000] {
                let moment = clock.moment(at_ms);
                assert!(clock.now_ms(moment) >= at_ms, "{drift} {at_ms}");
                assert!(clock.now_ms(moment - 1) < at_ms, "{drift} {at_ms}");
            }
        }
    }
}
