//! Whether ranks do anything: judged look by look, from what they wrote, computed and moved.
//!
//! A rank is silent while nothing of this is seen: a byte of output, CPU time, bytes that it reads
//! or writes, bytes on connections, work of its GPUs. All but output have noise: what programs that
//! wait for something that never comes still do, such as heartbeats and threads that look around.
//! So each of them fills a bucket that leaks as fast as noise may come, and counts when it is full.
//!
//! Time counts between two looks, and of each gap no more than `STALL_GAP_MS_MAX`: while a machine
//! sleeps, or its agent is away, nobody looks, and what nobody saw is no silence.

use yard_common::limits::{
    STALL_AGAIN_MS, STALL_BYTES_PER_S, STALL_CPU_MILLI, STALL_GAP_MS_MAX, STALL_ODD_MAX,
};

/// The most CPU time at once that is noise, in microseconds.
const CPU_BURST_US: u64 = 500_000;
/// The most bytes at once that are noise.
const BYTES_BURST: u64 = 64 * 1_024;
/// Whoever fell silent so much before the others fell silent first.
const LEAD_MS: u64 = 2 * STALL_GAP_MS_MAX;

/// Counters of a rank, or of an assignment. They rise from look to look; one that fell was begun
/// anew, and tells nothing then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// Bytes of output.
    pub log_bytes: u64,
    /// CPU time in microseconds.
    pub cpu_us: u64,
    /// Bytes read and written, whatever from and to.
    pub io_bytes: u64,
    /// Bytes that connections carried since somebody looked at them.
    pub net_bytes: u64,
    /// Whether one of its GPUs worked.
    pub gpu_busy: bool,
}

/// The silence of one rank, or of one assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    at_ms: u64,
    last: Signs,
    silent_ms: u64,
    moved: bool,
    cpu: Bucket,
    io: Bucket,
    net: Bucket,
}

/// Who is looked at, and how long must they be silent to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Ranks whose counters were added up.
    pub ranks: u32,
    /// From when on silence matters, in milliseconds.
    pub silence_ms: u64,
}

impl Pulse {
    /// The first look. What was before it is unknown.
    #[must_use]
    pub fn new(at_ms: u64, signs: Signs) -> Pulse {
        let (cpu, io, net) = Default::default();
        Pulse { at_ms, last: signs, silent_ms: 0, moved: false, cpu, io, net }
    }

    /// The next look.
    pub fn look(&mut self, at_ms: u64, signs: Signs, scale: Scale) {
        let ms = at_ms.saturating_sub(self.at_ms);
        let (ranks, last) = (u64::from(scale.ranks.max(1)), self.last);
        let noise = |per_s: u64, for_ms: u64| per_s.saturating_mul(for_ms) / 1_000;
        let bucket = |bucket: &mut Bucket, before: u64, now: u64, per_s: u64, burst: u64| {
            let amount = now.saturating_sub(before);
            // A full bucket of short patience is no more than as much noise again.
            let burst = burst.min(noise(per_s, scale.silence_ms));
            bucket.fill(amount, noise(per_s.saturating_mul(ranks), ms), burst)
        };
        let cpu_us_per_s = STALL_CPU_MILLI * 1_000;
        let cpu = bucket(&mut self.cpu, last.cpu_us, signs.cpu_us, cpu_us_per_s, CPU_BURST_US);
        let bytes = STALL_BYTES_PER_S;
        let io = bucket(&mut self.io, last.io_bytes, signs.io_bytes, bytes, BYTES_BURST);
        let net = bucket(&mut self.net, last.net_bytes, signs.net_bytes, bytes, BYTES_BURST);
        self.moved = signs.log_bytes != last.log_bytes || signs.gpu_busy || cpu || io || net;
        let more_ms = self.silent_ms.saturating_add(ms.min(STALL_GAP_MS_MAX));
        self.silent_ms = if self.moved { 0 } else { more_ms };
        (self.at_ms, self.last) = (at_ms.max(self.at_ms), signs);
    }

    /// Somebody that it stands for did something.
    pub fn wake(&mut self) {
        (self.silent_ms, self.moved) = (0, true);
    }

    /// For how long nothing was seen, in milliseconds, up to the last look.
    #[must_use]
    pub fn silent_ms(&self) -> u64 {
        self.silent_ms
    }

    /// Whether the last look saw something.
    #[must_use]
    pub fn moved(&self) -> bool {
        self.moved
    }
}

/// What came beyond the noise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bucket(u64);

impl Bucket {
    /// Takes an amount in, of which so much may be noise. Returns whether the rest is more than
    /// `burst` by now; it is then empty again.
    fn fill(&mut self, amount: u64, noise: u64, burst: u64) -> bool {
        self.0 = self.0.saturating_add(amount).saturating_sub(noise);
        let is_full = self.0 > burst;
        if is_full {
            self.0 = 0;
        }
        is_full
    }
}

/// What the coordinator is to hear of an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It has been silent for so long, in milliseconds.
    Silent(u64),
    /// It does something again.
    Active,
}

/// Decides what is told of one assignment: that it fell silent, once, and that it is no longer so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Herald {
    /// When silence was told last.
    told_ms: Option<u64>,
}

impl Herald {
    /// `silence_ms`: from when on silence is told; none: never. `is_told`: what the coordinator was
    /// told last is that it is silent.
    pub fn news(
        &mut self,
        pulse: &Pulse,
        at_ms: u64,
        silence_ms: Option<u64>,
        is_told: bool,
    ) -> Option<News> {
        if is_told {
            // A look that saw nothing yet, as the agent has just started, says nothing.
            return pulse.moved().then_some(News::Active);
        }
        let silent_ms = pulse.silent_ms();
        let is_due = silence_ms.is_some_and(|least_ms| silent_ms >= least_ms);
        // What flickers is told of now and then, and not each time.
        let is_new =
            self.told_ms.is_none_or(|told_ms| at_ms.saturating_sub(told_ms) >= STALL_AGAIN_MS);
        if !is_due || !is_new {
            return None;
        }
        self.told_ms = Some(at_ms);
        Some(News::Silent(silent_ms))
    }
}

/// How the ranks of an attempt differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Odd {
    /// Not at all, or in no way that says something.
    Nobody,
    /// All are silent. This one has been for so much longer than the next one, in milliseconds.
    First {
        /// The rank.
        rank: u32,
        /// How much longer.
        lead_ms: u64,
    },
    /// These are silent, while most are not; the first few, those that are so for longest first.
    Silent(Vec<u32>),
    /// These are not, while most are silent; the first few.
    Active(Vec<u32>),
}

/// Which ranks are the odd ones out. `ranks`: each with how long it has been silent.
#[must_use]
pub fn odd_ones(ranks: &[(u32, u64)], silence_ms: u64) -> Odd {
    let mut ranks = ranks.to_vec();
    ranks.sort_by_key(|(rank, silent_ms)| (std::cmp::Reverse(*silent_ms), *rank));
    let is_silent = |(_, silent_ms): &&(u32, u64)| *silent_ms >= silence_ms;
    let silent = ranks.iter().take_while(is_silent).count();
    let name =
        |some: &[(u32, u64)]| some.iter().map(|(rank, _)| *rank).take(STALL_ODD_MAX).collect();
    match ranks.as_slice() {
        [] | [_] => Odd::Nobody,
        [(rank, longest_ms), (_, next_ms), ..] if silent == ranks.len() => {
            match longest_ms.saturating_sub(*next_ms) {
                lead_ms if lead_ms >= LEAD_MS => Odd::First { rank: *rank, lead_ms },
                _ => Odd::Nobody,
            }
        }
        _ if silent == 0 => Odd::Nobody,
        ranks if 2 * silent <= ranks.len() => Odd::Silent(name(&ranks[..silent])),
        ranks => Odd::Active(name(&ranks[silent..])),
    }
}

#[cfg(test)]
mod tests;
