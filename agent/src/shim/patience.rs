//! How long a kill may take. Most processes are gone at once; one that hangs in the kernel, in a
//! file system that never answers, goes when that answers, and nobody can tell when. It is looked
//! at ever more seldom, and is told of.

use yard_common::limits::{KILL_LOOK_MS_MAX, STUCK_MS};

/// The first pause between two looks.
const LOOK_MS: u64 = 2;
/// How often what does not end is told again.
const TELL_MS: u64 = 60_000;

/// The patience of one kill.
#[derive(Debug, Default)]
pub(super) struct Patience {
    since_ms: Option<u64>,
    told_ms: Option<u64>,
}

impl Patience {
    /// Nothing is being killed any more.
    pub(super) fn end(&mut self) {
        *self = Patience::default();
    }

    /// Something still is. Returns whether to tell of it.
    pub(super) fn go_on(&mut self, now_ms: u64) -> bool {
        let since_ms = *self.since_ms.get_or_insert(now_ms);
        let due_ms = self.told_ms.map_or(since_ms + STUCK_MS, |told_ms| told_ms + TELL_MS);
        let is_due = now_ms >= due_ms;
        if is_due {
            self.told_ms = Some(now_ms);
        }
        is_due
    }

    /// Somebody is there who has not heard of it: it is told at the next look.
    pub(super) fn tell_again(&mut self) {
        self.told_ms = None;
    }

    /// How long to wait until the next look.
    pub(super) fn pause_ms(&self, now_ms: u64) -> u64 {
        let age_ms = self.since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
        (age_ms / 16).clamp(LOOK_MS, KILL_LOOK_MS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_become_seldom_and_word_is_given_again_and_again() {
        let mut patience = Patience::default();
        let mut told = Vec::new();
        let mut now_ms = 7;
        let mut looks = 0;
        while now_ms < 200_000 {
            if patience.go_on(now_ms) {
                told.push(now_ms / 1_000);
            }
            now_ms += patience.pause_ms(now_ms);
            looks += 1;
        }
        assert_eq!(told, [5, 65, 125, 185]);
        assert!(looks < 1_000, "{looks}");
        patience.tell_again();
        assert!(patience.go_on(now_ms) && !patience.go_on(now_ms + 1));
        patience.end();
        assert_eq!(patience.pause_ms(now_ms), LOOK_MS);
        patience.tell_again();
        assert!(!patience.go_on(now_ms), "nothing hangs yet");
    }
}
