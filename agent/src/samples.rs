//! What assignments use: CPU time, memory, GPUs, disk, network and output, from their control
//! groups, `/proc` and the driver of the GPUs; and for how long their ranks have done nothing.
//!
//! A sample is taken every few seconds while something runs, and kept beside the one before it
//! until the assignment is gone. Nothing of it is written down. What is silent is decided by
//! [`yard_core::stall`]; connections are looked at only while nothing else is seen of an
//! assignment, or while somebody asks.

mod processes;
mod sockets;

use crate::cgroup::{Group, Usage};
use crate::launch::{Orders, mark};
use crate::logs::{AttemptLogs, Writer};
use crate::paths::{Paths, tag};
use crate::process;
use crate::shim::DETAIL;
use crate::sys::boot_ms;
use processes::Family;
use sockets::Traffic;
use std::collections::BTreeMap;
use std::mem::take;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use yard_common::gpu::GPU_PARTS;
use yard_common::id::{AttemptNumber, JobId, TaskIndex};
use yard_common::limits::{DETAIL_BYTES_MAX, SAMPLED_MAX};
use yard_common::spec::JobSpec;
use yard_core::agent::AssignmentId;
use yard_core::stall::{Herald, News, Pulse, Scale, Signs};
use yard_runtime::files;

/// Between two samples, and between two while a job wants to know of silence very soon.
const EVERY_MS: u64 = 5_000;
const OFTEN_MS: u64 = 1_000;
/// After so much silence, at most, connections are looked at.
const QUIET_MS: u64 = 30_000;
/// They are looked at for so long after somebody asked.
const ASKED_MS: u64 = 15_000;
/// From when on silence matters where the job does not care.
const SILENCE_MS: u64 = 600_000;

/// The latest samples of what runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    kept: Mutex<BTreeMap<AssignmentId, Kept>>,
    /// When somebody asked last, by the boot clock; 0: nobody did.
    asked_ms: AtomicU64,
}

/// Something that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) id: AssignmentId,
    /// The task of its chain.
    pub(crate) position: u32,
    /// Whether the coordinator was told that it is silent.
    pub(crate) silent: bool,
}

/// What a GPU is doing, by its UUID.
pub(crate) type Gpus = BTreeMap<String, Gpu>;

/// What one GPU is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gpu {
    pub(crate) busy_percent: u32,
    pub(crate) used_bytes: u64,
    /// Whether it is a part of a GPU, of which the load is not told apart.
    pub(crate) is_part: bool,
}

/// What came of a round of looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// What the coordinator is to hear: of which task, and what.
    pub(crate) news: Vec<(AssignmentId, u32, News)>,
    /// When to look again.
    pub(crate) next: Duration,
}

/// What is kept of one assignment.
#[derive(Clone, Debug)]
struct Kept {
    known: Arc<Known>,
    family: Family,
    traffic: Traffic,
    now: Sample,
    before: Option<Sample>,
    pulse: Pulse,
    ranks: BTreeMap<u32, Pulse>,
    herald: Herald,
}

/// What does not change while an assignment lives.
#[derive(Clone, Debug)]
struct Known {
    job: JobId,
    tasks: Vec<(TaskIndex, AttemptNumber)>,
    group: Group,
    /// The variable that all of its processes have, where there is no group.
    mark: String,
    ranks: u32,
    /// UUIDs of its GPUs, and whether it has them for itself.
    gpus: Vec<String>,
    has_whole_gpus: bool,
    /// From when on its silence is told; none: never.
    silence_ms: Option<u64>,
}

/// One look at an assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sample {
    /// By the boot clock.
    at_ms: u64,
    /// Which task of its chain ran.
    position: u32,
    usage: Usage,
    signs: Signs,
    /// Whether connections were looked at.
    has_net: bool,
    gpu: Option<GpuUse>,
    ranks: BTreeMap<u32, Signs>,
}

/// What an assignment uses of its GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GpuUse {
    pub(crate) count: u32,
    /// On average; none: it is not told apart.
    pub(crate) busy_percent: Option<u32>,
    pub(crate) used_bytes: u64,
}

/// What is told of an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) task: TaskIndex,
    pub(crate) attempt: AttemptNumber,
    pub(crate) age_ms: u64,
    pub(crate) usage: Usage,
    pub(crate) rates: Option<Rates>,
    pub(crate) gpu: Option<GpuUse>,
    pub(crate) silent_ms: u64,
    /// How long each rank has been silent that has a process.
    pub(crate) ranks: Vec<(u32, u64)>,
}

/// What was used between two samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) cpu_milli: u64,
    pub(crate) read_bytes_per_s: u64,
    pub(crate) write_bytes_per_s: u64,
    pub(crate) log_bytes_per_s: u64,
    pub(crate) net_bytes_per_s: Option<u64>,
}

impl Samples {
    /// Looks at these assignments, each at the task of its chain that runs; forgets all others.
    pub(crate) fn take(&self, paths: &Paths, running: &[Running], gpus: &Gpus) -> Taken {
        let mut before = take(&mut *self.lock());
        let mut after = BTreeMap::new();
        let is_asked = self.is_asked(boot_ms());
        let mut machine = Machine { gpus, connections: None };
        let mut taken = Taken { news: Vec::new(), next: Duration::from_millis(EVERY_MS) };
        // Without the lock: whoever asks meanwhile hears of nothing, which is better than late.
        for one in running.iter().take(SAMPLED_MAX) {
            let old = before.remove(&one.id);
            let known = old.as_ref().map(|old| old.known.clone());
            let Some(known) = known.or_else(|| known_of(paths, one.id).map(Arc::new)) else {
                continue;
            };
            let mut kept = Kept::look(paths, known, one.position, old, &mut machine, is_asked);
            let (at_ms, silence_ms) = (kept.now.at_ms, kept.known.silence_ms);
            let news = kept.herald.news(&kept.pulse, at_ms, silence_ms, one.silent);
            taken.news.extend(news.map(|news| (one.id, one.position, news)));
            if silence_ms.is_some_and(|silence_ms| silence_ms < 2 * EVERY_MS) {
                taken.next = Duration::from_millis(OFTEN_MS);
            }
            after.insert(one.id, kept);
        }
        *self.lock() = after;
        taken
    }

    /// The latest of an assignment.
    pub(crate) fn latest(&self, id: AssignmentId) -> Option<Told> {
        let now_ms = boot_ms();
        self.0.asked_ms.store(now_ms, Ordering::Relaxed);
        self.lock().get(&id)?.told(now_ms)
    }

    fn is_asked(&self, now_ms: u64) -> bool {
        let asked_ms = self.0.asked_ms.load(Ordering::Relaxed);
        asked_ms > 0 && now_ms.saturating_sub(asked_ms) < ASKED_MS
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AssignmentId, Kept>> {
        // Nothing panics while it is held, and nothing is left half done.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is the same for all looks of one round.
struct Machine<'a> {
    gpus: &'a Gpus,
    /// Bytes by socket, once somebody wants to know.
    connections: Option<BTreeMap<u64, u64>>,
}

impl Machine<'_> {
    fn connections(&mut self) -> &BTreeMap<u64, u64> {
        self.connections.get_or_insert_with(|| {
            sockets::all().unwrap_or_else(|error| {
                // A kernel that does not tell; silence is then judged by everything else.
                tracing::debug!(%error, "connections cannot be looked at");
                BTreeMap::new()
            })
        })
    }
}

impl Kept {
    /// Looks once more; for the first time without an `old` one.
    fn look(
        paths: &Paths,
        known: Arc<Known>,
        position: u32,
        mut old: Option<Kept>,
        machine: &mut Machine<'_>,
        is_asked: bool,
    ) -> Kept {
        // A task that has just begun is compared with nothing that another one did.
        let same = old.as_ref().is_some_and(|old| old.now.position == position);
        let silent_ms = old.as_ref().filter(|_| same).map_or(0, |old| old.pulse.silent_ms());
        let both = |old: &mut Kept| (take(&mut old.family), take(&mut old.traffic));
        let (mut family, mut traffic) = old.as_mut().map(both).unwrap_or_default();
        let pids = match known.group.is_there() {
            true => known.group.members(),
            false => process::marked(&known.mark),
        };
        let seen = family.look(&pids);
        let half_ms = known.silence_ms.unwrap_or(SILENCE_MS) / 2;
        if is_asked || silent_ms >= half_ms.min(QUIET_MS) {
            traffic.look(&seen.pids, machine.connections());
        } else {
            traffic.pause();
        }
        let mut now = Sample { at_ms: boot_ms(), position, ..Sample::default() };
        now.usage = known.group.usage(&pids);
        now.usage.processes = u32::try_from(pids.len()).unwrap_or(u32::MAX);
        now.usage.read_bytes = now.usage.read_bytes.or(Some(seen.read_bytes));
        now.usage.written_bytes = now.usage.written_bytes.or(Some(seen.written_bytes));
        (now.gpu, now.signs.gpu_busy) = gpu_use(&known, machine.gpus);
        now.has_net = traffic.is_looked_at();
        now.signs.cpu_us = now.usage.cpu_us;
        now.signs.io_bytes = seen.all.io_bytes;
        now.signs.net_bytes = traffic.all_bytes();
        now.ranks = seen.ranks;
        for (rank, signs) in &mut now.ranks {
            signs.net_bytes = traffic.of(*rank);
        }
        add_output(paths, &known, &mut now);
        Kept::of(known, (family, traffic), now, old)
    }

    fn of(
        known: Arc<Known>,
        (family, traffic): (Family, Traffic),
        now: Sample,
        old: Option<Kept>,
    ) -> Kept {
        let herald = old.as_ref().map(|old| old.herald).unwrap_or_default();
        let old = old.filter(|old| old.now.position == now.position);
        let (before, pulse, mut pulses) = match old {
            Some(old) => (Some(old.now), Some(old.pulse), old.ranks),
            None => (None, None, BTreeMap::new()),
        };
        let silence_ms = known.silence_ms.unwrap_or(SILENCE_MS);
        let look = |pulse: Option<Pulse>, signs: Signs, ranks: u32| match pulse {
            Some(mut pulse) => {
                pulse.look(now.at_ms, signs, Scale { ranks, silence_ms });
                pulse
            }
            None => Pulse::new(now.at_ms, signs),
        };
        let mut pulse = look(pulse, now.signs, known.ranks);
        let mut ranks = BTreeMap::new();
        for (rank, signs) in &now.ranks {
            let one = look(pulses.remove(rank), *signs, 1);
            // What is work of one rank may be noise of many.
            if one.moved() {
                pulse.wake();
            }
            ranks.insert(*rank, one);
        }
        Kept { known, family, traffic, now, before, pulse, ranks, herald }
    }

    fn told(&self, now_ms: u64) -> Option<Told> {
        let (task, attempt) = *self.known.tasks.get(self.now.position as usize)?;
        Some(Told {
            task,
            attempt,
            age_ms: now_ms.saturating_sub(self.now.at_ms),
            usage: self.now.usage,
            rates: self.before.as_ref().and_then(|before| rates(before, &self.now)),
            gpu: self.now.gpu,
            silent_ms: self.pulse.silent_ms(),
            ranks: self.ranks.iter().map(|(rank, pulse)| (*rank, pulse.silent_ms())).collect(),
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
    let has_net = before.has_net && now.has_net;
    Some(Rates {
        // Microseconds in a millisecond are thousandths of a CPU.
        cpu_milli: now.usage.cpu_us.saturating_sub(before.usage.cpu_us) / ms,
        read_bytes_per_s: per_s_of(before.usage.read_bytes, now.usage.read_bytes),
        write_bytes_per_s: per_s_of(before.usage.written_bytes, now.usage.written_bytes),
        log_bytes_per_s: per_s(before.signs.log_bytes, now.signs.log_bytes),
        net_bytes_per_s: has_net.then(|| per_s(before.signs.net_bytes, now.signs.net_bytes)),
    })
}

fn known_of(paths: &Paths, id: AssignmentId) -> Option<Known> {
    let bytes = files::read(&paths.shim(id).join(DETAIL), 2 * DETAIL_BYTES_MAX).ok()?;
    let orders = Orders::from_bytes(&bytes).ok()?;
    let assignment = &orders.assignment;
    let spec = JobSpec::from_json(&assignment.spec).ok();
    Some(Known {
        job: assignment.job,
        tasks: orders.chain.tasks().collect(),
        group: orders.site.cgroups().find(&tag(id)),
        mark: mark(&orders.site, &tag(id)),
        ranks: assignment.node().map_or(1, |node| node.ranks),
        gpus: assignment.gpus.iter().map(|gpu| gpu.uuid.clone()).collect(),
        has_whole_gpus: assignment.gpu_parts >= GPU_PARTS,
        // Without a warning, an end for silence is still wanted.
        silence_ms: spec.and_then(|spec| spec.stall.warn.or(spec.stall.kill)).map(|ms| ms.ms()),
    })
}

/// What an assignment uses of its GPUs, and whether one of them works. Whose work that is of a GPU
/// that several share is not told, so that all of them count as busy.
fn gpu_use(known: &Known, gpus: &Gpus) -> (Option<GpuUse>, bool) {
    let own: Vec<&Gpu> = known.gpus.iter().filter_map(|uuid| gpus.get(uuid)).collect();
    let Ok(count @ 1..) = u32::try_from(own.len()) else { return (None, false) };
    let busy = own.iter().any(|gpu| gpu.busy_percent > 0);
    if !known.has_whole_gpus {
        return (None, busy);
    }
    let sum = own.iter().fold(0u32, |sum, gpu| sum.saturating_add(gpu.busy_percent));
    let is_told = !own.iter().any(|gpu| gpu.is_part);
    let busy_percent = is_told.then_some(sum / count);
    let used_bytes = own.iter().fold(0u64, |sum, gpu| sum.saturating_add(gpu.used_bytes));
    (Some(GpuUse { count, busy_percent, used_bytes }), busy)
}

/// Adds what was written to standard output and error.
fn add_output(paths: &Paths, known: &Known, sample: &mut Sample) {
    let Some((task, attempt)) = known.tasks.get(sample.position as usize) else { return };
    let streams = AttemptLogs::new(paths, known.job, *task, *attempt).streams();
    for stream in streams.iter().flatten() {
        // A job may make a file as long as it likes.
        let all = &mut sample.signs.log_bytes;
        *all = all.saturating_add(stream.size);
        if let Writer::Rank(rank) = stream.writer
            && let Some(signs) = sample.ranks.get_mut(&rank)
        {
            signs.log_bytes = signs.log_bytes.saturating_add(stream.size);
        }
    }
}

#[cfg(test)]
mod tests;
