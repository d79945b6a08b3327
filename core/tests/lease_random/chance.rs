//! What a schedule is drawn from: random numbers, clocks, and phases of the network.

/// Machines that may be members.
pub(crate) const MACHINES: usize = 5;
/// What a boot clock shows at least at the start; no two are alike.
pub(crate) const BOOT_MS: u64 = 10_000_000;

/// Sebastiano Vigna's splitmix64: small, and the same on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// A boot clock: an offset, and a rate that is off by at most 0.1 %.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    offset_ms: u64,
    drift_ppm: i64,
}

impl Clock {
    pub(crate) fn random(random: &mut Random) -> Clock {
        let drift_ppm = random.pick(&[-1_000, -1_000, 0, 1_000, 1_000]);
        Clock { offset_ms: BOOT_MS + random.below(BOOT_MS), drift_ppm }
    }

    pub(crate) fn at(self, true_ms: u64) -> u64 {
        let million = 1_000_000;
        self.offset_ms + true_ms * (million + self.drift_ppm) as u64 / million as u64
    }
}

/// Which links are cut now.
#[derive(Default)]
pub(crate) struct Phase {
    pub(crate) until_ms: u64,
    pub(crate) to_member: [bool; MACHINES],
    pub(crate) from_member: [bool; MACHINES],
    pub(crate) leader: [bool; MACHINES],
    pub(crate) delay_ms: u64,
    pub(crate) loss_percent: u64,
}

impl Phase {
    pub(crate) fn random(random: &mut Random, now_ms: u64) -> Phase {
        let mut phase = Phase {
            until_ms: now_ms + random.pick(&[500, 2_000, 4_000, 8_000]),
            delay_ms: random.pick(&[5, 5, 50, 500, 2_500]),
            loss_percent: random.pick(&[0, 0, 10, 30]),
            ..Phase::default()
        };
        let style = random.below(6);
        for at in 0..MACHINES {
            let mut cut = |percent| random.chance(percent);
            match style {
                0 => {}
                1 => phase.to_member[at] = true,
                2 => phase.from_member[at] = true,
                3 => phase.leader[at] = cut(50),
                4 => {
                    phase.to_member[at] = cut(50);
                    phase.from_member[at] = phase.to_member[at];
                }
                _ => {
                    phase.to_member[at] = cut(40);
                    phase.from_member[at] = cut(40);
                    phase.leader[at] = cut(20);
                }
            }
        }
        phase
    }
}
