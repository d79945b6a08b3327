//! What a job, a request and a GPU do, one by one: histories are split by them.
//!
//! A job also moves by itself, when it is started or ends. So its state here is the set of all
//! that it could be in: an answer keeps those that it fits.

use crate::history::{Answer, Call, History, JobNumber, Operation, Phase, Refusal};
use crate::history::{RequestNumber, Shown};
use crate::linear::{self, Bounds, Interval, NotLinear, Object};
use crate::model::{Gpu, HolderNumber};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What was seen of a GPU, and between which moments it was so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The GPU.
    pub gpu: Gpu,
    /// What.
    pub step: GpuStep,
    /// Not before this place in the order of moments.
    pub began: u64,
    /// Not after this one; none: perhaps never.
    pub ended: Option<u64>,
}

/// What can be seen of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GpuStep {
    /// An attempt got it.
    Granted(HolderNumber),
    /// An attempt gave it back.
    Freed(HolderNumber),
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Jobs.
    pub jobs: usize,
    /// GPUs.
    pub gpus: usize,
    /// Calls and sights.
    pub steps: usize,
}

/// What is wrong, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub why: NotLinear,
    /// All calls about it, as people read them.
    pub calls: Vec<String>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.object, self.why)?;
        self.calls.iter().try_for_each(|call| write!(f, "\n  {call}"))
    }
}

/// Checks jobs, requests and GPUs one by one. `moves`: whether a job of this body can start and
/// end by itself.
///
/// # Errors
/// The first object whose calls fit no order.
pub fn check(
    history: &History,
    sights: &[Sight],
    moves: impl Fn(u64) -> bool,
    bounds: Bounds,
) -> Result<Checked, Found> {
    let merged = merge(history)?;
    let mut checked = Checked::default();
    for (number, calls) in by_job(&merged) {
        checked.jobs += 1;
        checked.steps += calls.len();
        let body = calls.iter().find_map(|call| match call.step.call {
            Call::Submit(body) => Some(body),
            _ => None,
        });
        let job = Job { moves: body.is_none_or(&moves) };
        linear::check(&job, &calls, bounds).map_err(|why| {
            let told = calls.iter().map(|call| format!("{call:?}")).collect();
            Found { object: format!("job {number}"), why, calls: told }
        })?;
    }
    let mut gpus: BTreeMap<Gpu, Vec<Interval<GpuStep>>> = BTreeMap::new();
    for Sight { gpu, step, began, ended } in sights {
        let interval = Interval { step: *step, began: *began, ended: *ended };
        gpus.entry(*gpu).or_default().push(interval);
    }
    for (gpu, steps) in gpus {
        checked.gpus += 1;
        checked.steps += steps.len();
        linear::check(&Device, &steps, bounds).map_err(|why| {
            let told = steps.iter().map(|step| format!("{step:?}")).collect();
            Found { object: format!("{gpu:?}"), why, calls: told }
        })?;
    }
    Ok(checked)
}

/// A call about a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobStep {
    /// As which request.
    pub request: Option<RequestNumber>,
    /// What was asked.
    pub call: Call,
    /// What was answered, if anything.
    pub answer: Option<Answer>,
}

/// Makes one call of all calls of a request: they take effect once. Refusals stay calls of their
/// own, as they change nothing and are not remembered.
///
/// # Errors
/// If a request was answered in two ways, or two requests made one job.
fn merge(history: &History) -> Result<Vec<Interval<JobStep>>, Found> {
    let mut effects: BTreeMap<RequestNumber, (Interval<JobStep>, &Operation)> = BTreeMap::new();
    let mut makers: BTreeMap<JobNumber, RequestNumber> = BTreeMap::new();
    let mut rest = Vec::new();
    for operation in &history.operations {
        let Operation { request, call, began, ended, outcome: _, client: _ } = *operation;
        let answer = operation.answered().map(|(answer, _)| answer);
        let failed = ended.is_some() && answer.is_none();
        let interval = Interval {
            step: JobStep { request, call, answer },
            began: began.order,
            ended: ended.map(|ended| ended.order),
        };
        let Some(request) = request else {
            rest.push(interval);
            continue;
        };
        match answer {
            Some(Answer::Refused(_)) => rest.push(interval),
            _ if failed => (),
            Some(_) | None => {
                if let Some(Answer::Job(job)) = answer
                    && *makers.entry(job).or_insert(request) != request
                {
                    return Err(twice(format!("job {job}"), makers[&job], operation));
                }
                join(&mut effects, request, interval, operation)?;
            }
        }
    }
    rest.extend(effects.into_values().map(|(interval, _)| interval));
    rest.sort_by_key(|interval| interval.began);
    Ok(rest)
}

fn join<'a>(
    effects: &mut BTreeMap<RequestNumber, (Interval<JobStep>, &'a Operation)>,
    request: RequestNumber,
    interval: Interval<JobStep>,
    operation: &'a Operation,
) -> Result<(), Found> {
    let Some((known, first)) = effects.get_mut(&request) else {
        effects.insert(request, (interval, operation));
        return Ok(());
    };
    match (known.step.answer, interval.step.answer) {
        (Some(one), Some(other)) if one != other || known.step.call != interval.step.call => {
            let mut found = twice(format!("request {request:x}"), request, operation);
            found.calls.push(first.to_string());
            return Err(found);
        }
        (None, Some(_)) => known.step = interval.step,
        _ => (),
    }
    known.began = known.began.min(interval.began);
    // In effect at the first answer at the latest.
    known.ended = [known.ended, interval.ended].into_iter().flatten().min();
    Ok(())
}

fn twice(object: String, request: RequestNumber, operation: &Operation) -> Found {
    let what = format!("answered twice in two ways; first to {request:x}");
    let why = NotLinear::Violation { at: 0, what };
    Found { object, why, calls: vec![operation.to_string()] }
}

/// The calls about each job. A submit without an answer may have made any job that nobody was told
/// of as new: of those that are known by number alone, the first such submit.
fn by_job(calls: &[Interval<JobStep>]) -> BTreeMap<JobNumber, Vec<Interval<JobStep>>> {
    let mut jobs: BTreeMap<JobNumber, Vec<Interval<JobStep>>> = BTreeMap::new();
    let mut made = BTreeSet::new();
    let submits = |call: &&Interval<JobStep>| matches!(call.step.call, Call::Submit(_));
    for call in calls {
        let job = match call.step.answer {
            Some(Answer::Job(job)) => {
                made.insert(job);
                Some(job)
            }
            _ => call.step.call.job(),
        };
        if let Some(job) = job {
            jobs.entry(job).or_default().push(call.clone());
        }
    }
    let unknown = calls.iter().filter(submits).find(|call| call.step.answer.is_none());
    for (job, about) in &mut jobs {
        if !made.contains(job) {
            about.extend(unknown.cloned());
        }
    }
    jobs
}

/// A job.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Whether it can start and end by itself.
    pub moves: bool,
}

/// What a job could be now; none: it does not exist.
type Could = BTreeSet<Option<Shown>>;

impl Job {
    /// What it could become by itself.
    fn settle(self, could: &Could) -> Could {
        let mut all = could.clone();
        let mut waiting: Vec<Option<Shown>> = all.iter().copied().collect();
        while let Some(now) = waiting.pop() {
            let Some(now) = now.filter(|_| self.moves) else { continue };
            for phase in Job::successors(now).iter().copied() {
                let next = Some(Shown { phase, held: now.held && !phase.is_over() });
                if all.insert(next) {
                    waiting.push(next);
                }
            }
        }
        all
    }

    fn successors(now: Shown) -> &'static [Phase] {
        match now.phase {
            Phase::Waiting if now.held => &[],
            Phase::Waiting => &[Phase::Active],
            Phase::Active => &[Phase::Waiting, Phase::Succeeded, Phase::Failed],
            // What was cancelled ends as cancelled.
            Phase::Stopping => &[Phase::Cancelled],
            Phase::Succeeded | Phase::Failed | Phase::Cancelled => &[],
        }
    }

    /// What it is after a call, if the call can be answered like this.
    fn after(now: Option<Shown>, step: &JobStep) -> Option<Option<Shown>> {
        let fits = |answer| step.answer.is_none_or(|told| told == answer);
        let wrong = || fits(Answer::Refused(Refusal::WrongState)).then_some(now);
        let Some(shown) = now else {
            return match step.call {
                Call::Submit(_) => Some(Some(Shown { phase: Phase::Waiting, held: false })),
                _ => fits(Answer::Refused(Refusal::NotFound)).then_some(None),
            };
        };
        let Shown { phase, held } = shown;
        let waits = phase == Phase::Waiting;
        let (next, tasks) = match step.call {
            // A job is made once; the request found it again before it came here.
            Call::Submit(_) => return None,
            Call::Show(_) => return fits(Answer::Shown(shown)).then_some(now),
            _ if phase.is_over() => return wrong(),
            Call::Cancel(_) if waits => (Shown { phase: Phase::Cancelled, held: false }, 1),
            Call::Cancel(_) => (Shown { phase: Phase::Stopping, held }, 1),
            Call::Hold(_) => (Shown { phase, held: true }, u32::from(waits && !held)),
            Call::Release(_) if !held => return wrong(),
            Call::Release(_) => (Shown { phase, held: false }, u32::from(waits)),
        };
        fits(Answer::Tasks(tasks)).then_some(Some(next))
    }
}

impl Object for Job {
    type State = Could;
    type Step = JobStep;

    fn begin(&self) -> Could {
        Could::from([None])
    }

    fn step(&self, state: &Could, step: &JobStep) -> Option<Could> {
        let all = self.settle(state);
        let after: Could = all.iter().filter_map(|now| Job::after(*now, step)).collect();
        (!after.is_empty()).then_some(after)
    }
}

/// A GPU: one holder at a time.
#[derive(Clone, Copy, Debug)]
pub struct Device;

impl Object for Device {
    type State = Option<HolderNumber>;
    type Step = GpuStep;

    fn begin(&self) -> Option<HolderNumber> {
        None
    }

    fn step(&self, state: &Option<HolderNumber>, step: &GpuStep) -> Option<Option<HolderNumber>> {
        match (state, step) {
            (None, GpuStep::Granted(holder)) => Some(Some(*holder)),
            (Some(now), GpuStep::Freed(holder)) if now == holder => Some(None),
            (_, GpuStep::Granted(_) | GpuStep::Freed(_)) => None,
        }
    }
}
