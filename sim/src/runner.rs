//! Runs seeds, one after the other or on several threads, and adds up what came of them.

use crate::coverage::Coverage;
use crate::invariants::Violation;
use crate::scenario::{COMMANDS_MIN, FAULTS_MIN, TASKS_MIN};
use crate::world::{Stats, World};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What came of one seed.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The rule that was broken.
    pub violation: Option<Violation>,
    /// Counts.
    pub stats: Stats,
    /// True time that passed in the run, in microseconds.
    pub virtual_us: u64,
    /// Feared states.
    pub coverage: Coverage,
    /// The trace, if one was wanted.
    pub trace: Option<String>,
}

/// Notes panics of this process instead of printing them: in a run a panic is a finding.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        PANIC.with_borrow_mut(|note| *note = Some(info.to_string()));
    }));
}

/// Runs one seed.
#[must_use]
pub fn run_seed(seed: u64, trace: bool) -> Outcome {
    let mut world = World::new(seed, trace);
    let ran = catch_unwind(AssertUnwindSafe(|| world.run()));
    if ran.is_err() {
        let what = PANIC.with_borrow_mut(Option::take).unwrap_or_else(|| "unknown".into());
        world.break_rule("no_panic", what);
    }
    let Stats { commands, tasks_ended, faults, .. } = world.stats;
    if commands < COMMANDS_MIN || tasks_ended < TASKS_MIN || faults < FAULTS_MIN {
        let what = format!("{commands} commands, {tasks_ended} tasks, {faults} faults");
        world.break_rule("run_is_full", what);
    }
    Outcome {
        seed,
        violation: world.violation.take(),
        stats: world.stats,
        virtual_us: world.now_us,
        coverage: std::mem::take(&mut world.coverage),
        trace: world.trace.take(),
    }
}

/// Sums over many seeds.
#[derive(Debug, Default)]
pub struct Totals {
    /// Seeds that ran.
    pub seeds: u64,
    /// Counts.
    pub stats: Stats,
    /// Virtual time in microseconds.
    pub virtual_us: u64,
    /// The least of a seed: commands, tasks that ended, faults.
    pub least: Option<(u64, u64, u64)>,
    /// Feared states.
    pub coverage: Coverage,
    /// Broken rules, by seed.
    pub violations: Vec<(u64, Violation)>,
}

impl Totals {
    /// Adds one run.
    pub fn add(&mut self, outcome: Outcome) {
        let stats = &outcome.stats;
        self.seeds += 1;
        self.stats.commands += stats.commands;
        self.stats.tasks_ended += stats.tasks_ended;
        self.stats.faults += stats.faults;
        self.stats.leaders += stats.leaders;
        self.stats.snapshots += stats.snapshots;
        self.stats.events += stats.events;
        self.virtual_us += outcome.virtual_us;
        if outcome.violation.is_none() {
            let least = self.least.get_or_insert((u64::MAX, u64::MAX, u64::MAX));
            least.0 = least.0.min(stats.commands);
            least.1 = least.1.min(stats.tasks_ended);
            least.2 = least.2.min(stats.faults);
        }
        self.coverage.add(&outcome.coverage);
        if let Some(violation) = outcome.violation {
            self.violations.push((outcome.seed, violation));
        }
    }
}

/// Runs seeds on so many threads. Stops early once `enough` rules were broken.
#[must_use]
pub fn run_seeds(
    seeds: &[u64],
    threads: usize,
    enough: usize,
    each: impl Fn(u64) + Sync,
) -> Totals {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(seed) = seeds.get(at) else { return };
                    let outcome = run_seed(*seed, false);
                    let mut totals = totals.lock().expect("a run does not panic here");
                    totals.add(outcome);
                    each(totals.seeds);
                    if totals.violations.len() >= enough {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    totals.into_inner().expect("a run does not panic here")
}
