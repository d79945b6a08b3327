//! What assignments use: CPU time, memory, disk, output, from their control groups or `/proc`.
//!
//! A sample is taken every few seconds while something runs, and kept beside the one before it
//! until the assignment is gone. Nothing of it is written down.

use crate::cgroup::{Group, Usage};
use crate::launch::Orders;
use crate::logs::AttemptLogs;
use crate::paths::{Paths, tag};
use crate::shim::DETAIL;
use crate::sys::boot_ms;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use yard_common::id::{AttemptNumber, JobId, TaskIndex};
use yard_common::limits::{DETAIL_BYTES_MAX, SAMPLED_MAX};
use yard_core::agent::AssignmentId;
use yard_runtime::files;

/// An assignment that uses more than this share of a CPU, in thousandths, is not silent.
const IDLE_CPU_MILLI: u64 = 10;

/// The latest samples of what runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Arc<Mutex<BTreeMap<AssignmentId, Kept>>>);

/// What is kept of one assignment.
#[derive(Clone, Debug)]
struct Kept {
    known: Known,
    now: Sample,
    before: Option<Sample>,
    /// When something of it was last seen to be done.
    active_ms: u64,
}

/// What does not change while an assignment lives.
#[derive(Clone, Debug)]
struct Known {
    job: JobId,
    tasks: Vec<(TaskIndex, AttemptNumber)>,
    group: Group,
}

/// One look at an assignment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sample {
    /// By the boot clock.
    at_ms: u64,
    /// Which task of its chain ran.
    position: u32,
    usage: Usage,
    log_bytes: u64,
}

/// What is told of an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) task: TaskIndex,
    pub(crate) attempt: AttemptNumber,
    pub(crate) age_ms: u64,
    pub(crate) usage: Usage,
    pub(crate) rates: Option<Rates>,
    pub(crate) silent_ms: u64,
}

/// What was used between two samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) cpu_milli: u64,
    pub(crate) read_bytes_per_s: u64,
    pub(crate) write_bytes_per_s: u64,
    pub(crate) log_bytes_per_s: u64,
}

impl Samples {
    /// Looks at these assignments, each at the task of its chain that runs; forgets all others.
    pub(crate) fn take(&self, paths: &Paths, running: &[(AssignmentId, u32)]) {
        let mut before = std::mem::take(&mut *self.lock());
        let mut after = BTreeMap::new();
        // Without the lock: whoever asks meanwhile hears of nothing, which is better than late.
        for (id, position) in running.iter().take(SAMPLED_MAX) {
            let old = before.remove(id);
            let Some(known) =
                old.as_ref().map(|old| old.known.clone()).or_else(|| known(paths, *id))
            else {
                continue;
            };
            let now = look(paths, &known, *position);
            after.insert(*id, Kept::of(known, now, old));
        }
        *self.lock() = after;
    }

    /// The latest of an assignment.
    pub(crate) fn latest(&self, id: AssignmentId) -> Option<Told> {
        self.lock().get(&id)?.told(boot_ms())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<AssignmentId, Kept>> {
        // Nothing panics while it is held, and nothing is left half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn of(known: Known, now: Sample, old: Option<Kept>) -> Kept {
        let Some(old) = old else {
            return Kept { known, now, before: None, active_ms: now.at_ms };
        };
        // A task that has just begun is compared with nothing that another one did.
        let before = Some(old.now).filter(|old| old.position == now.position);
        let is_active = before.is_none_or(|before| {
            now.log_bytes != before.log_bytes
                || rates(&before, &now).is_some_and(|rates| rates.cpu_milli > IDLE_CPU_MILLI)
        });
        Kept { known, now, before, active_ms: if is_active { now.at_ms } else { old.active_ms } }
    }

    fn told(&self, now_ms: u64) -> Option<Told> {
        let (task, attempt) = *self.known.tasks.get(self.now.position as usize)?;
        Some(Told {
            task,
            attempt,
            age_ms: now_ms.saturating_sub(self.now.at_ms),
            usage: self.now.usage,
            rates: self.before.and_then(|before| rates(&before, &self.now)),
            silent_ms: self.now.at_ms.saturating_sub(self.active_ms),
        })
    }
}

fn rates(before: &Sample, now: &Sample) -> Option<Rates> {
    let ms = now.at_ms.checked_sub(before.at_ms).filter(|ms| *ms > 0)?;
    // What falls was begun anew: a file that was emptied, a process that is gone.
    let per_s = |before: u64, now: u64| now.saturating_sub(before).saturating_mul(1_000) / ms;
    let per_s_of = |before: Option<u64>, now: Option<u64>| match (before, now) {
        (Some(before), Some(now)) => per_s(before, now),
        _ => 0,
    };
    Some(Rates {
        // Microseconds in a millisecond are thousandths of a CPU.
        cpu_milli: now.usage.cpu_us.saturating_sub(before.usage.cpu_us) / ms,
        read_bytes_per_s: per_s_of(before.usage.read_bytes, now.usage.read_bytes),
        write_bytes_per_s: per_s_of(before.usage.written_bytes, now.usage.written_bytes),
        log_bytes_per_s: per_s(before.log_bytes, now.log_bytes),
    })
}

fn known(paths: &Paths, id: AssignmentId) -> Option<Known> {
    let bytes = files::read(&paths.shim(id).join(DETAIL), 2 * DETAIL_BYTES_MAX).ok()?;
    let orders = Orders::from_bytes(&bytes).ok()?;
    Some(Known {
        job: orders.assignment.job,
        tasks: orders.chain.tasks().collect(),
        group: orders.site.cgroups().find(&tag(id)),
    })
}

fn look(paths: &Paths, known: &Known, position: u32) -> Sample {
    let streams = known.tasks.get(position as usize).and_then(|(task, attempt)| {
        AttemptLogs::new(paths, known.job, *task, *attempt).streams().ok()
    });
    // A job may make a file as long as it likes.
    let sizes = streams.iter().flatten().map(|stream| stream.size);
    let log_bytes = sizes.fold(0u64, u64::saturating_add);
    Sample { at_ms: boot_ms(), position, usage: known.group.usage(), log_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64, position: u32, cpu_us: u64, log_bytes: u64) -> Sample {
        let usage = Usage { cpu_us, read_bytes: Some(10 * cpu_us), ..Usage::default() };
        Sample { at_ms, position, usage, log_bytes }
    }

    fn kept(samples: &[Sample]) -> Kept {
        let tasks = (3..6).map(|task| (task, AttemptNumber(1))).collect();
        let known = Known { job: JobId(1), tasks, group: crate::cgroup::Support::none().find("x") };
        let mut kept = None;
        for sample in samples {
            kept = Some(Kept::of(known.clone(), *sample, kept));
        }
        kept.expect("there is one")
    }

    #[test]
    fn rates_are_between_the_last_two_samples() {
        let told = kept(&[sample(1_000, 0, 0, 0), sample(3_000, 0, 3_000_000, 500)]).told(3_500);
        let told = told.expect("it runs");
        let rates = Rates {
            cpu_milli: 1_500,
            read_bytes_per_s: 15_000_000,
            write_bytes_per_s: 0,
            log_bytes_per_s: 250,
        };
        assert_eq!((told.task, told.age_ms, told.rates), (3, 500, Some(rates)));
        assert_eq!(kept(&[sample(1_000, 0, 5, 5)]).told(1_000).map(|told| told.rates), Some(None));
    }

    #[test]
    fn the_next_task_of_a_chain_is_not_compared_with_the_one_before() {
        let kept = kept(&[sample(1_000, 0, 0, 900), sample(2_000, 1, 9_000_000, 1)]);
        let told = kept.told(2_000).expect("it runs");
        assert_eq!((told.task, told.rates, told.silent_ms), (4, None, 0));
    }

    #[test]
    fn silence_is_counted_from_the_last_sign_of_life() {
        let quiet = |from: u64| (0..4).map(move |at| sample(from + at * 1_000, 0, at * 5_000, 7));
        let all: Vec<Sample> = quiet(1_000).collect();
        assert_eq!(kept(&all).told(4_000).map(|told| told.silent_ms), Some(3_000));
        let mut all = all;
        all.push(sample(5_000, 0, 15_000, 8));
        assert_eq!(kept(&all).told(5_000).map(|told| told.silent_ms), Some(0), "it wrote a byte");
        all.push(sample(6_000, 0, 15_000 + 11_000, 8));
        assert_eq!(kept(&all).told(6_000).map(|told| told.silent_ms), Some(0), "it ran");
        all.push(sample(7_000, 0, 15_000 + 11_000, 8));
        assert_eq!(kept(&all).told(9_000).map(|told| told.silent_ms), Some(1_000));
    }
}
