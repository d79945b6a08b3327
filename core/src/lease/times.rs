//! How long a lease lasts, and how long a member waits before it promises it away.
//!
//! Invariant of [`LeaseTimes`]: a member whose clock runs fast by [`DRIFT_PPM`] still waits out a
//! holder whose clock runs slow by as much, and the time that the holder takes to kill:
//! `wait / (1 + e) >= lease / (1 - e) + kill`. The constructor checks it in exact integers.

use super::membership::Membership;
use thiserror::Error;
use yard_common::limits::DURATION_MS_MAX;

/// By how much the rate of a machine's boot clock may be off, in parts per million: 0.1 %.
/// Crystal clocks are off by less than 100; a larger error is a broken machine.
pub const DRIFT_PPM: u64 = 1_000;
/// Shortest lease in milliseconds: below it a routine pause of a machine loses the lease.
pub const LEASE_MS_MIN: u64 = 1_000;
/// Longest lease in milliseconds: covers an announced freeze of a machine.
pub const LEASE_MS_MAX: u64 = 60_000;
/// Renewals that must fit into one lease, so that a lost message or two is no loss of the lease.
pub const RENEWALS_PER_LEASE_MIN: u64 = 3;
/// Renewals of one lease at most; a holder remembers this many sending times.
pub const RENEWALS_PER_LEASE_MAX: u64 = 64;

const MILLION: u64 = 1_000_000;

/// The deadlines that one acknowledged renewal pushes out. Which one ends an attempt depends on
/// the isolation that its job chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deadline {
    /// The end of the lease itself: nothing of the attempt runs after it.
    Strict,
    /// The self-kill of `fenced` jobs: a short outage of the coordinator touches no rank.
    Fenced,
    /// The self-kill of `tolerant` jobs: hours.
    Tolerant,
}

/// The times of a lease. Every field is in milliseconds; a pool may have its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    lease_ms: u64,
    renew_ms: u64,
    kill_ms: u64,
    fenced_ms: u64,
    fenced_alone_ms: u64,
    tolerant_ms: u64,
}

/// Why a set of times is refused. Each names the field, the value and the nearest legal one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TimesError {
    /// The lease is too short or too long.
    #[error(
        "lease_ms is {lease_ms}; use a value from {LEASE_MS_MIN} to {LEASE_MS_MAX} milliseconds"
    )]
    Lease {
        /// The refused value.
        lease_ms: u64,
    },
    /// Renewals come too seldom to survive a lost one, or too often to be remembered.
    #[error(
        "renew_ms is {renew_ms}; use a value from {min_ms} to {max_ms} milliseconds for this lease"
    )]
    Renew {
        /// The refused value.
        renew_ms: u64,
        /// The shortest legal period.
        min_ms: u64,
        /// The longest legal period.
        max_ms: u64,
    },
    /// The time for a kill is zero, or too long for the clock slack of this lease to cover.
    #[error("kill_ms is {kill_ms}; use a value from 1 to {max_ms} milliseconds for this lease")]
    Kill {
        /// The refused value.
        kill_ms: u64,
        /// The longest legal time.
        max_ms: u64,
    },
    /// The self-kill times are not in order.
    #[error(
        "{field} is {value_ms}; use a value from {min_ms} to {DURATION_MS_MAX} milliseconds: \
         lease, fenced, and fenced alone or tolerant must not shrink in this order"
    )]
    SelfKill {
        /// The field.
        field: &'static str,
        /// The refused value.
        value_ms: u64,
        /// The shortest legal time.
        min_ms: u64,
    },
}

impl LeaseTimes {
    /// Lease 3 s, renewed every 0.5 s, killed within 0.2 s; `fenced` jobs kill themselves after
    /// 60 s (1 h with a single coordinator), `tolerant` ones after 6 h.
    pub const DEFAULT: LeaseTimes = match LeaseTimes::new(3_000, 500, 200) {
        Ok(times) => times,
        Err(_) => panic!("the default times of a lease are legal"),
    };

    /// Times with the default self-kill times.
    ///
    /// `lease_ms`: how long one renewal lasts. `renew_ms`: the period of renewals. `kill_ms`: how
    /// long after a deadline a kill may take to reach the last process.
    ///
    /// # Errors
    /// If a value is out of range, or if `kill_ms` is more than the clock slack can cover.
    pub const fn new(lease_ms: u64, renew_ms: u64, kill_ms: u64) -> Result<Self, TimesError> {
        if lease_ms < LEASE_MS_MIN || lease_ms > LEASE_MS_MAX {
            return Err(TimesError::Lease { lease_ms });
        }
        let min_ms = lease_ms.div_ceil(RENEWALS_PER_LEASE_MAX);
        let max_ms = lease_ms / RENEWALS_PER_LEASE_MIN;
        if renew_ms < min_ms || renew_ms > max_ms {
            return Err(TimesError::Renew { renew_ms, min_ms, max_ms });
        }
        // lease (1 + 3e) + kill >= (1 + e) (lease / (1 - e) + kill), solved for kill.
        let max_ms = lease_ms * (MILLION - 3 * DRIFT_PPM) / (MILLION - DRIFT_PPM);
        if kill_ms == 0 || kill_ms > max_ms {
            return Err(TimesError::Kill { kill_ms, max_ms });
        }
        Ok(LeaseTimes {
            lease_ms,
            renew_ms,
            kill_ms,
            fenced_ms: 60_000,
            fenced_alone_ms: 3_600_000,
            tolerant_ms: 6 * 3_600_000,
        })
    }

    /// The same lease with other self-kill times.
    ///
    /// `fenced_alone_ms` is the time of `fenced` jobs under a single coordinator, whose restart
    /// would otherwise stop the fleet.
    ///
    /// # Errors
    /// Unless `lease <= fenced <= fenced_alone` and `fenced <= tolerant`, all within
    /// [`DURATION_MS_MAX`].
    pub const fn with_self_kill(
        self,
        fenced_ms: u64,
        fenced_alone_ms: u64,
        tolerant_ms: u64,
    ) -> Result<Self, TimesError> {
        let ordered = [
            ("fenced_ms", fenced_ms, self.lease_ms),
            ("fenced_alone_ms", fenced_alone_ms, fenced_ms),
            ("tolerant_ms", tolerant_ms, fenced_ms),
        ];
        let mut at = 0;
        while at < ordered.len() {
            let (field, value_ms, min_ms) = ordered[at];
            if value_ms < min_ms || value_ms > DURATION_MS_MAX {
                return Err(TimesError::SelfKill { field, value_ms, min_ms });
            }
            at += 1;
        }
        Ok(LeaseTimes { fenced_ms, fenced_alone_ms, tolerant_ms, ..self })
    }

    /// How long one renewal lasts, counted from its sending.
    #[must_use]
    pub const fn lease_ms(&self) -> u64 {
        self.lease_ms
    }

    /// The period of renewals.
    #[must_use]
    pub const fn renew_ms(&self) -> u64 {
        self.renew_ms
    }

    /// How long a member must have been silent towards a node of this lease before it promises.
    #[must_use]
    pub const fn promise_wait_ms(&self) -> u64 {
        self.promise_wait_of(self.lease_ms)
    }

    /// [`promise_wait_ms`](Self::promise_wait_ms) for a lease of another length and the same
    /// time to kill: `lease (1 + 3e) + kill`, rounded up.
    #[must_use]
    pub const fn promise_wait_of(&self, lease_ms: u64) -> u64 {
        let slack_ms = lease_ms.saturating_mul(3 * DRIFT_PPM).div_ceil(MILLION);
        lease_ms.saturating_add(slack_ms).saturating_add(self.kill_ms)
    }

    /// How long after the sending of a renewal this deadline is, under this membership.
    #[must_use]
    pub fn after_ms(&self, deadline: Deadline, membership: &Membership) -> u64 {
        match deadline {
            Deadline::Strict => self.lease_ms,
            Deadline::Fenced if membership.is_alone() => self.fenced_alone_ms,
            Deadline::Fenced => self.fenced_ms,
            Deadline::Tolerant => self.tolerant_ms,
        }
    }
}

/// What a kill may take after a deadline of maintenance, with room, in milliseconds.
const MAINTENANCE_KILL_MS: u64 = 500;

/// Until when ranks may count on maintenance that was granted for `for_ms`, by the boot clock of
/// their machine, if it was asked for at `asked_ms`: the members may count faster, and a kill takes
/// its time.
#[must_use]
pub fn maintenance_until_ms(asked_ms: u64, for_ms: u64) -> u64 {
    let slack_ms = for_ms.saturating_mul(3 * DRIFT_PPM).div_ceil(MILLION) + MAINTENANCE_KILL_MS;
    asked_ms.saturating_add(for_ms.saturating_sub(slack_ms))
}

impl Default for LeaseTimes {
    fn default() -> Self {
        LeaseTimes::DEFAULT
    }
}

const _: () = assert!(3 * DRIFT_PPM < MILLION, "the slack formula needs a drift below a third");

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the wait of these times outlasts the slowest holder, in exact integers.
    fn covers(times: &LeaseTimes) -> bool {
        let (fast, slow) = (u128::from(MILLION + DRIFT_PPM), u128::from(MILLION - DRIFT_PPM));
        let (wait, lease) = (u128::from(times.promise_wait_ms()), u128::from(times.lease_ms));
        let (kill, million) = (u128::from(times.kill_ms), u128::from(MILLION));
        wait * million * slow >= lease * million * fast + kill * fast * slow
    }

    #[test]
    fn the_defaults_are_those_of_the_design() {
        let times = LeaseTimes::DEFAULT;
        assert_eq!((times.lease_ms(), times.renew_ms()), (3_000, 500));
        assert_eq!(times.promise_wait_ms(), 3_209);
    }

    #[test]
    fn every_legal_lease_outlasts_the_slowest_holder() {
        for lease_ms in LEASE_MS_MIN..=LEASE_MS_MAX {
            let renew_ms = lease_ms / 4;
            let longest = match LeaseTimes::new(lease_ms, renew_ms, u64::MAX) {
                Err(TimesError::Kill { max_ms, .. }) => max_ms,
                other => panic!("an endless kill was accepted: {other:?}"),
            };
            for kill_ms in [1, longest / 2, longest] {
                let times = LeaseTimes::new(lease_ms, renew_ms, kill_ms).unwrap();
                assert!(covers(&times), "{times:?}");
            }
        }
    }

    #[test]
    fn without_its_slack_the_wait_would_be_too_short() {
        let times = LeaseTimes::DEFAULT;
        let bare = times.promise_wait_ms() - 3 * times.lease_ms() * DRIFT_PPM / MILLION;
        let (fast, slow) = (MILLION + DRIFT_PPM, MILLION - DRIFT_PPM);
        assert!(bare * MILLION * slow < 3_000 * MILLION * fast + 200 * fast * slow);
    }

    #[test]
    fn illegal_times_name_the_fix() {
        let cases = [
            (LeaseTimes::new(999, 300, 200), "lease_ms is 999; use a value from 1000 to 60000"),
            (LeaseTimes::new(60_001, 300, 200), "lease_ms is 60001"),
            (LeaseTimes::new(3_000, 1_001, 200), "renew_ms is 1001; use a value from 47 to 1000"),
            (LeaseTimes::new(3_000, 46, 200), "renew_ms is 46"),
            (LeaseTimes::new(3_000, 500, 0), "kill_ms is 0; use a value from 1 to 2993"),
            (LeaseTimes::new(3_000, 500, 2_994), "kill_ms is 2994"),
            (LeaseTimes::DEFAULT.with_self_kill(2_999, 9_000, 9_000), "fenced_ms is 2999"),
            (LeaseTimes::DEFAULT.with_self_kill(9_000, 8_999, 9_000), "fenced_alone_ms is 8999"),
            (LeaseTimes::DEFAULT.with_self_kill(9_000, 9_000, 8_999), "tolerant_ms is 8999"),
            (LeaseTimes::DEFAULT.with_self_kill(9_000, 9_000, u64::MAX), "tolerant_ms is 1844674"),
        ];
        for (result, text) in cases {
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }

    #[test]
    fn ranks_count_on_less_maintenance_than_was_granted() {
        assert_eq!(maintenance_until_ms(1_000, 120_000), 1_000 + 120_000 - 360 - 500);
        assert_eq!(maintenance_until_ms(1_000, 0), 1_000);
        assert_eq!(maintenance_until_ms(u64::MAX, 600_000), u64::MAX);
    }
}
