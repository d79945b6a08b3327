//! Whom to ask next. No I/O: members, hints and failures in, an address out.

use std::collections::BTreeMap;
use yard_common::limits::VOTERS_MAX;

/// Addresses that are remembered: those that were given, and those that hints named.
const ADDRESSES_MAX: usize = 4 * VOTERS_MAX;

/// The members of a coordinator, and which of them to ask.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    addresses: Vec<String>,
    at: usize,
}

impl Route {
    /// These members; the first is asked first.
    pub(crate) fn new(addresses: &[String]) -> Route {
        let addresses = addresses.iter().take(ADDRESSES_MAX).cloned().collect();
        Route { addresses, at: 0 }
    }

    /// The member to ask.
    pub(crate) fn current(&self) -> Option<&str> {
        self.addresses.get(self.at).map(String::as_str)
    }

    /// How many are known.
    pub(crate) fn len(&self) -> usize {
        self.addresses.len()
    }

    /// The member at `failed` did not do it: the next one. Does nothing if somebody else has
    /// moved on already.
    pub(crate) fn leave(&mut self, failed: &str) {
        if self.current() == Some(failed) {
            self.at = (self.at + 1) % self.addresses.len();
        }
    }

    /// These are the members now. What else was known is asked after them: an address that users
    /// were given may lead to a member that is known by another one.
    pub(crate) fn learn(&mut self, members: &[String]) {
        let current = self.current().map(str::to_string);
        let known = std::mem::take(&mut self.addresses);
        let mut all: Vec<String> = Vec::new();
        for address in members.iter().cloned().chain(known) {
            if all.len() < ADDRESSES_MAX && !all.contains(&address) {
                all.push(address);
            }
        }
        self.at = all.iter().position(|known| Some(known) == current.as_ref()).unwrap_or(0);
        self.addresses = all;
    }

    /// This member leads.
    pub(crate) fn prefer(&mut self, address: &str) {
        match self.addresses.iter().position(|known| known == address) {
            Some(at) => self.at = at,
            None if self.addresses.len() < ADDRESSES_MAX => {
                self.addresses.push(address.to_string());
                self.at = self.addresses.len() - 1;
            }
            None => {}
        }
    }
}

/// The tries of one call.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    /// Hints followed since the last wait: two members that name each other must not spin.
    hints: usize,
    /// Members that failed since the last wait.
    failed: usize,
    /// Whether any of them answered at all.
    answered: bool,
    /// What became of the last try of each.
    last: BTreeMap<String, String>,
}

/// What to do after a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask the next member at once.
    Now,
    /// Wait first.
    Wait,
}

impl Tries {
    /// A hint was given.
    pub(crate) fn hinted(&mut self, at: &str) -> Next {
        self.answered = true;
        self.last.insert(at.to_string(), "does not lead".into());
        self.hints += 1;
        self.next(self.hints > VOTERS_MAX)
    }

    /// A try failed.
    pub(crate) fn failed(&mut self, at: &str, why: String, answered: bool, members: usize) -> Next {
        self.answered |= answered;
        self.last.insert(at.to_string(), why);
        self.failed += 1;
        self.next(self.failed >= members)
    }

    fn next(&mut self, wait: bool) -> Next {
        if wait {
            self.hints = 0;
            self.failed = 0;
            return Next::Wait;
        }
        Next::Now
    }

    /// How many members were tried.
    pub(crate) fn members(&self) -> usize {
        self.last.len()
    }

    /// Whether any member answered.
    pub(crate) fn answered(&self) -> bool {
        self.answered
    }

    /// Members and what became of their last tries.
    pub(crate) fn into_list(self) -> Vec<(String, String)> {
        self.last.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Route {
        Route::new(&["a:1".into(), "b:1".into(), "c:1".into()])
    }

    #[test]
    fn members_take_turns() {
        let mut route = route();
        let mut seen = Vec::new();
        for _ in 0..4 {
            let now = route.current().unwrap().to_string();
            route.leave(&now);
            seen.push(now);
        }
        assert_eq!(seen, ["a:1", "b:1", "c:1", "a:1"]);
        assert_eq!(Route::new(&[]).current(), None);
    }

    #[test]
    fn a_late_failure_does_not_leave_the_member_that_works() {
        let mut route = route();
        route.leave("a:1");
        route.leave("a:1");
        assert_eq!(route.current(), Some("b:1"));
    }

    #[test]
    fn hints_are_followed_and_bounded() {
        let mut route = route();
        route.prefer("c:1");
        assert_eq!((route.current(), route.len()), (Some("c:1"), 3));
        route.prefer("d:1");
        assert_eq!((route.current(), route.len()), (Some("d:1"), 4));
        for number in 0..10 * ADDRESSES_MAX {
            route.prefer(&format!("x:{number}"));
        }
        assert_eq!(route.len(), ADDRESSES_MAX);
    }

    #[test]
    fn members_that_are_learnt_come_first_and_the_present_one_stays() {
        let mut route = route();
        route.leave("a:1");
        route.learn(&["d:1".into(), "b:1".into()]);
        assert_eq!(route.addresses, ["d:1", "b:1", "a:1", "c:1"]);
        assert_eq!(route.current(), Some("b:1"));
        let many: Vec<String> = (0..10 * ADDRESSES_MAX).map(|n| format!("x:{n}")).collect();
        route.learn(&many);
        assert_eq!((route.len(), route.current()), (ADDRESSES_MAX, Some("x:0")));
    }

    #[test]
    fn a_call_waits_after_each_round_and_when_hints_go_in_circles() {
        let mut tries = Tries::default();
        let fail = |tries: &mut Tries| tries.failed("a:1", "refused".into(), false, 3);
        assert_eq!([fail(&mut tries), fail(&mut tries)], [Next::Now, Next::Now]);
        assert_eq!([fail(&mut tries), fail(&mut tries)], [Next::Wait, Next::Now]);
        assert!(!tries.answered() && tries.members() == 1);
        let waits = (0..100).filter(|_| tries.hinted("a:1") == Next::Wait).count();
        assert_eq!(waits, 100 / (VOTERS_MAX + 1));
        assert!(tries.answered());
    }
}
