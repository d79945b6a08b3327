//! The search: every state that a small world can reach, breadth first.

use super::oracle::Oracle;
use super::state::{State, Step};
use super::world::World;
use std::collections::{BTreeMap, BTreeSet};

/// What one exploration found.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) states: usize,
    pub(crate) transitions: usize,
    /// The steps to the first violation.
    pub(crate) violation: Option<Vec<Step>>,
    /// States of interest that were reached.
    pub(crate) reached: BTreeSet<&'static str>,
}

/// Explores all states. Stops at the first violation.
pub(crate) fn explore(world: &World) -> Report {
    let mut oracle = Oracle::default();
    let start = State::first(world);
    let mut known: BTreeMap<u128, u32> = BTreeMap::from([(start.pack(), 0)]);
    // How each state was reached first.
    let mut paths: Vec<(u32, Step)> = vec![(0, Step::Tick)];
    let mut frontier = vec![start];
    let mut report =
        Report { states: 0, transitions: 0, violation: None, reached: BTreeSet::new() };
    let mut next = Vec::new();
    while !frontier.is_empty() {
        let mut ahead = Vec::new();
        for state in frontier {
            let from = known[&state.pack()];
            if state.is_violation(world, &mut oracle, &mut report.reached) {
                report.violation = Some(path(&paths, from));
                report.states = known.len();
                return report;
            }
            state.successors(world, &mut oracle, &mut next);
            report.transitions += next.len();
            for (step, mut state) in next.drain(..) {
                if world.prompt {
                    state.hurry(world);
                }
                state.normalize(world);
                let index = known.len() as u32;
                known.entry(state.pack()).or_insert_with(|| {
                    paths.push((from, step));
                    ahead.push(state);
                    index
                });
            }
        }
        frontier = ahead;
    }
    report.states = known.len();
    report
}

fn path(paths: &[(u32, Step)], mut at: u32) -> Vec<Step> {
    let mut steps = Vec::new();
    while at != 0 {
        let (from, step) = paths[at as usize];
        steps.push(step);
        at = from;
    }
    steps.reverse();
    steps
}
