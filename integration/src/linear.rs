//! Whether answers fit some order of the calls: linearizability, without looking at the log.
//!
//! The search is that of Wing and Gong (1993), with two things by Lowe ("Testing for
//! linearizability", 2017): calls take effect just in time, that is, only when one of them ends
//! and must have; and no combination of state and calls in effect is looked at twice. Histories
//! are to be split by object first, which is sound (Herlihy and Wing 1990) and far cheaper.
//!
//! A call that never ended may take effect at any later moment, or never. Steps and memory are
//! bounded; to run out of them is an error of its own, and no pass.

use std::collections::BTreeSet;
use std::fmt::Debug;

/// What one object does, one call after the other.
pub trait Object {
    /// What it remembers.
    type State: Clone + Ord + Debug;
    /// A call, with its answer if it has one.
    type Step: Debug;

    /// Before the first call.
    fn begin(&self) -> Self::State;

    /// The state after a call; none if it cannot have been answered like this in that state.
    fn step(&self, state: &Self::State, step: &Self::Step) -> Option<Self::State>;
}

/// A call about one object.
#[derive(Clone, Debug)]
pub struct Interval<S> {
    /// The call.
    pub step: S,
    /// Its place in the order of all moments.
    pub began: u64,
    /// That of its end; none: it may take effect at any time from its begin on, or never.
    pub ended: Option<u64>,
}

/// What a search may cost.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Steps of the object that are tried.
    pub steps_max: u64,
    /// Combinations that are remembered at a time.
    pub configurations_max: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { steps_max: 5_000_000, configurations_max: 200_000 }
    }
}

/// Why a history is not known to be linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotLinear {
    /// It is not: no order explains this answer, after all that ended before it.
    Violation {
        /// Position of the call in the list.
        at: usize,
        /// The call, and the states that the object could be in just before its end.
        what: String,
    },
    /// The search was too large.
    OutOfBounds(&'static str),
}

/// More calls than this are not open at the same time.
const OPEN_MAX: usize = 64;

/// A state, and which of the open calls have taken effect in it.
type Configuration<O> = (<O as Object>::State, u64);

/// What is open, and what may be.
struct Search<'a, O: Object> {
    object: &'a O,
    calls: &'a [Interval<O::Step>],
    bounds: Bounds,
    /// Which call each place holds.
    places: [Option<usize>; OPEN_MAX],
    configurations: BTreeSet<Configuration<O>>,
    steps: u64,
}

/// Looks for an order of the calls that explains all answers.
///
/// # Errors
/// If there is none, or none was found within the bounds.
///
/// # Panics
/// If two moments have the same place in the order.
pub fn check<O: Object>(
    object: &O,
    calls: &[Interval<O::Step>],
    bounds: Bounds,
) -> Result<(), NotLinear> {
    let mut moments: Vec<(u64, usize, bool)> = Vec::with_capacity(2 * calls.len());
    for (at, call) in calls.iter().enumerate() {
        moments.push((call.began, at, false));
        moments.extend(call.ended.map(|ended| (ended, at, true)));
    }
    moments.sort_unstable();
    assert!(moments.windows(2).all(|pair| pair[0].0 < pair[1].0), "moments have an order");
    let configurations = BTreeSet::from([(object.begin(), 0)]);
    let places = [None; OPEN_MAX];
    let mut search = Search { object, calls, bounds, places, configurations, steps: 0 };
    for (_, at, ends) in moments {
        match ends {
            false => search.open(at)?,
            true => search.close(at)?,
        }
    }
    Ok(())
}

impl<O: Object> Search<'_, O> {
    fn open(&mut self, at: usize) -> Result<(), NotLinear> {
        let free = self.places.iter().position(Option::is_none);
        let free = free.ok_or(NotLinear::OutOfBounds("too many calls are open"))?;
        self.places[free] = Some(at);
        Ok(())
    }

    /// A call ends: in every configuration that is left it has taken effect.
    fn close(&mut self, at: usize) -> Result<(), NotLinear> {
        let place = self.places.iter().position(|held| *held == Some(at));
        let place = place.expect("what ends was opened");
        let bit = 1u64 << place;
        let before = std::mem::take(&mut self.configurations);
        let mut seen = before.clone();
        let mut waiting: Vec<Configuration<O>> = before.iter().cloned().collect();
        let mut after = BTreeSet::new();
        while let Some((state, effective)) = waiting.pop() {
            if effective & bit != 0 {
                after.insert((state, effective & !bit));
                continue;
            }
            for (other, held) in self.places.iter().enumerate() {
                let Some(call) = held else { continue };
                let flag = 1u64 << other;
                if effective & flag != 0 {
                    continue;
                }
                self.steps += 1;
                if self.steps > self.bounds.steps_max {
                    return Err(NotLinear::OutOfBounds("too many steps"));
                }
                let Some(next) = self.object.step(&state, &self.calls[*call].step) else {
                    continue;
                };
                let next = (next, effective | flag);
                if seen.insert(next.clone()) {
                    if seen.len() > self.bounds.configurations_max {
                        return Err(NotLinear::OutOfBounds("too many combinations"));
                    }
                    waiting.push(next);
                }
            }
        }
        if after.is_empty() {
            let states: Vec<_> = before.iter().map(|(state, _)| state).take(8).collect();
            let what = format!("{:?} cannot follow {states:?}", self.calls[at].step);
            return Err(NotLinear::Violation { at, what });
        }
        self.places[place] = None;
        self.configurations = after;
        Ok(())
    }
}
