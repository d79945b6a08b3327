//! How long members wait for each other: everything that follows the round trip between them.
//!
//! The least times are those for links as fast as most are: short enough that a fault is hardly
//! noticed, and long enough for a busy machine. Slower links stretch them.

use std::time::Duration;

/// Period of heartbeats where links are fast, in milliseconds.
const HEARTBEAT_MS: u64 = 50;

/// The waits that go with a round trip.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    round_trip_ms: u64,
}

impl Pace {
    /// `round_trip_ms`: the longest usual round trip to another member.
    pub(crate) fn new(round_trip_ms: u64) -> Pace {
        Pace { round_trip_ms }
    }

    fn wait(self, least_ms: u64, round_trips: u64) -> Duration {
        Duration::from_millis(least_ms.max(round_trips * self.round_trip_ms))
    }

    /// Period of heartbeats, in milliseconds. An answer to one that takes longer counts as lost.
    pub(crate) fn heartbeat_ms(self) -> u64 {
        (self.round_trip_ms * 5 / 4).max(HEARTBEAT_MS)
    }

    /// How long a member may take to answer what costs it nothing, over a connection that may have
    /// to be made first: that takes three round trips with the question.
    pub(crate) fn answer(self) -> Duration {
        self.wait(400, 4)
    }

    /// How long questions may go without any answer until the next one takes a new connection.
    pub(crate) fn silent(self) -> Duration {
        self.wait(1_000, 8)
    }

    /// How long a leader is looked for that takes a question, and then answers it: longer than it
    /// takes until there is one after the last one died. Whoever asks may reach one that this
    /// member does not.
    pub(crate) fn search(self) -> Duration {
        self.wait(2_000, 25)
    }

    /// How long another member may take to become the leader when it was asked to.
    pub(crate) fn hand_over(self) -> Duration {
        self.wait(1_000, 6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_links_stretch_every_wait() {
        let waits = |round_trip_ms| {
            let pace = Pace::new(round_trip_ms);
            let waits = [pace.answer(), pace.silent(), pace.hand_over(), pace.search()];
            waits.map(|wait| wait.as_millis())
        };
        assert_eq!(waits(40), [400, 1_000, 1_000, 2_000]);
        assert_eq!(waits(300), [1_200, 2_400, 1_800, 7_500]);
        for round_trip_ms in 40..=300 {
            let pace = Pace::new(round_trip_ms);
            let ms = |wait: Duration| u64::try_from(wait.as_millis()).unwrap();
            assert!(ms(pace.answer()) > 3 * round_trip_ms);
            assert!(pace.silent() >= 2 * pace.answer());
            // A leader is trusted for eight heartbeats after its last word, candidates wait for
            // eight at most, and then they ask twice.
            let elected_ms = 16 * pace.heartbeat_ms() + 2 * round_trip_ms;
            assert!(ms(pace.search()) > elected_ms, "{round_trip_ms}: {elected_ms}");
        }
    }
}
