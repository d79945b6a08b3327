//! The mass-failure brake: when many machines fall silent together, the network is a likelier
//! cause than that many deaths. `fenced` jobs are then moved slowly, so that a healed network
//! finds most of them where they were. `strict` jobs follow their lease.

/// How the brake is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrakeRule {
    /// Silences that began within this time of each other belong together, in milliseconds.
    pub window_ms: u64,
    /// The brake needs more than this share of all nodes, in percent,
    pub share_percent: u64,
    /// and at least this many.
    pub nodes_min: u64,
    /// While it holds, one node is given up per this time, in milliseconds.
    pub every_ms: u64,
}

impl Default for BrakeRule {
    fn default() -> Self {
        BrakeRule { window_ms: 60_000, share_percent: 20, nodes_min: 3, every_ms: 10_000 }
    }
}

/// Whether a silent node may be given up for `fenced` jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brake {
    /// It fell silent alone.
    Off,
    /// It fell silent with many others: not before this time, and one at a time.
    On {
        /// By the clock of the arguments.
        next_ms: u64,
    },
}

impl BrakeRule {
    /// Judges one silent node. All times are of one clock.
    ///
    /// `since_ms`: when the node fell silent. `silences_ms`: when each node that is silent now
    /// did, given up or not, in ascending order. A node that was given up goes on counting, or
    /// the brake would let go of the rest as the first ones leave; so does one whose silence is
    /// older than the window, or it would let go of all when a window has passed.
    /// `nodes`: all nodes. `last_ms`: when the brake let a node go last.
    #[must_use]
    pub fn judge(
        &self,
        since_ms: u64,
        silences_ms: &[u64],
        nodes: u64,
        last_ms: Option<u64>,
    ) -> Brake {
        if !self.is_mass(since_ms, silences_ms, nodes) {
            return Brake::Off;
        }
        Brake::On { next_ms: last_ms.map_or(0, |last_ms| last_ms.saturating_add(self.every_ms)) }
    }

    /// Whether some window that contains `since_ms` holds enough silences.
    fn is_mass(&self, since_ms: u64, silences_ms: &[u64], nodes: u64) -> bool {
        let first = silences_ms.partition_point(|ms| ms.saturating_add(self.window_ms) < since_ms);
        let mut end = first;
        silences_ms[first..].iter().take_while(|&&ms| ms <= since_ms).enumerate().any(
            |(at, &from_ms)| {
                let to_ms = from_ms.saturating_add(self.window_ms);
                end += silences_ms[end..].partition_point(|&ms| ms <= to_ms);
                let together = (end - (first + at)) as u64;
                together >= self.nodes_min
                    && together.saturating_mul(100) > nodes.saturating_mul(self.share_percent)
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: BrakeRule =
        BrakeRule { window_ms: 60_000, share_percent: 20, nodes_min: 3, every_ms: 10_000 };

    fn holds(since_ms: u64, silences_ms: &[u64], nodes: u64) -> bool {
        RULE.judge(since_ms, silences_ms, nodes, None) != Brake::Off
    }

    #[test]
    fn the_default_is_the_documented_rule() {
        assert_eq!(BrakeRule::default(), RULE);
    }

    #[test]
    fn both_the_share_and_the_number_are_needed() {
        assert!(!holds(0, &[0, 0], 2), "two are no mass, even if they are all");
        assert!(holds(0, &[0, 0, 0], 14));
        assert!(!holds(0, &[0, 0, 0], 15), "20 % is not more than 20 %");
    }

    #[test]
    fn silences_far_apart_do_not_add_up() {
        assert!(holds(60_000, &[0, 30_000, 60_000], 10));
        assert!(!holds(60_001, &[0, 30_000, 60_001], 10));
        assert!(!holds(500_000, &[0, 0, 0, 0, 0, 500_000], 10), "one death long after the mass");
        assert!(holds(0, &[0, 0, 0, 0, 0, 500_000], 10), "the mass is still held");
    }

    #[test]
    fn one_node_per_period_is_let_go() {
        assert_eq!(RULE.judge(5, &[5, 5, 5], 3, None), Brake::On { next_ms: 0 });
        assert_eq!(RULE.judge(5, &[5, 5, 5], 3, Some(7_000)), Brake::On { next_ms: 17_000 });
    }

    #[test]
    fn every_window_is_tried() {
        // Against the obvious version, over all multisets of a few times.
        let times = [0u64, 30_000, 60_000, 60_001, 90_000, 120_000];
        for code in 0..729u32 {
            let picks = (0..6).map(|at| code / 3u32.pow(at) % 3);
            let silences: Vec<u64> =
                times.iter().zip(picks).flat_map(|(&ms, n)| vec![ms; n as usize]).collect();
            for &since in &silences {
                let slow = silences.iter().any(|&from| {
                    let window = from..=from + 60_000;
                    let together = silences.iter().filter(|ms| window.contains(ms)).count();
                    window.contains(&since) && together >= 3 && together * 100 > 20 * 16
                });
                assert_eq!(holds(since, &silences, 16), slow, "{since} in {silences:?}");
            }
        }
    }
}
