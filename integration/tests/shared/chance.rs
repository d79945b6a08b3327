//! Random numbers from the seed of a run: a stream for each purpose, so that one more draw in one
//! place does not change what happens in all others.

/// A stream of random numbers (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// The stream of a purpose.
    pub(crate) fn new(seed: u64, purpose: &str) -> Chance {
        let mut chance = Chance(seed);
        for byte in purpose.bytes() {
            chance.0 = chance.next() ^ u64::from(byte);
        }
        chance
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// From `first` to `end`, without it.
    pub(crate) fn within(&mut self, first: u64, end: u64) -> u64 {
        first + self.next() % (end - first)
    }

    /// One of these.
    pub(crate) fn of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        let at = usize::try_from(self.next() % all.len().max(1) as u64).ok()?;
        all.get(at).cloned()
    }
}
