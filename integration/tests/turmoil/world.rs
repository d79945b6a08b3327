//! What all parts of a run share, and what they write down.

use crate::net::{Trace, Wires};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use yard_common::ExitCause;
use yard_common::id::NodeId;
use yard_coordinator::Handle;
use yard_coordinator::raft::AppliedEntry;
use yard_core::agent::ReportKind;
use yard_core::command::{Actor, Command, Envelope, JobCommand, Rejection, Reply};
use yard_core::event::{Applied, Event};
use yard_integration::history::{Answer, Call, Recorder, Refusal};
use yard_integration::model::{End, Gpu, Input, Record};
use yard_integration::objects::{GpuStep, Sight};

/// What is shared. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) recorder: Recorder,
    pub(crate) trace: Trace,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    /// Connections of members that live, and members that run.
    wires: BTreeMap<u64, Wires>,
    running: BTreeMap<u64, Handle>,
    /// What was applied, by index; the same on every member.
    log: BTreeMap<u64, Arc<AppliedEntry>>,
    /// Jobs that clients know.
    jobs: Vec<u64>,
    /// What agents saw of their GPUs.
    sights: Vec<Sight>,
    /// Members whose disk fails: they must end by themselves.
    may_end: BTreeSet<u64>,
    joined: bool,
    wrong: Option<String>,
    /// When the last fault ended.
    healed_ms: Option<u64>,
}

impl World {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member begins to live.
    pub(crate) fn born(&self, member: u64, wires: Wires) {
        self.inner().wires.insert(member, wires);
    }

    /// A member runs.
    pub(crate) fn started(&self, member: u64, handle: Handle) {
        self.inner().running.insert(member, handle);
    }

    /// A member may end by itself, in this life.
    pub(crate) fn let_end(&self, member: u64) {
        self.inner().may_end.insert(member);
    }

    pub(crate) fn may_end(&self, member: u64) -> bool {
        self.inner().may_end.contains(&member)
    }

    /// A member is about to be killed.
    pub(crate) fn dies(&self, member: u64) {
        let mut inner = self.inner();
        inner.may_end.remove(&member);
        let (handle, wires) = (inner.running.remove(&member), inner.wires.remove(&member));
        drop(inner);
        if let Some(wires) = wires {
            wires.die();
        }
        drop(handle);
    }

    /// Those that run.
    pub(crate) fn running(&self) -> BTreeMap<u64, Handle> {
        self.inner().running.clone()
    }

    /// Whether all members are voters.
    pub(crate) fn joined(&self) -> bool {
        self.inner().joined
    }

    pub(crate) fn set_joined(&self) {
        self.inner().joined = true;
    }

    /// All faults are over.
    pub(crate) fn heal(&self, at_ms: u64) {
        self.inner().healed_ms = Some(at_ms);
    }

    pub(crate) fn healed_ms(&self) -> Option<u64> {
        self.inner().healed_ms
    }

    /// A job that clients may use from now on.
    pub(crate) fn know(&self, job: u64) {
        let mut inner = self.inner();
        if !inner.jobs.contains(&job) {
            inner.jobs.push(job);
        }
    }

    /// The jobs that were known last.
    pub(crate) fn latest_jobs(&self, many: usize) -> Vec<u64> {
        let jobs = &self.inner().jobs;
        jobs[jobs.len().saturating_sub(many)..].to_vec()
    }

    /// An agent sees what becomes of a GPU.
    pub(crate) fn see(&self, gpu: Gpu, step: GpuStep, at_ms: u64) {
        let (began, ended) = (self.recorder.moment(at_ms), self.recorder.moment(at_ms));
        let sight = Sight { gpu, step, began: began.order, ended: Some(ended.order) };
        self.inner().sights.push(sight);
    }

    pub(crate) fn sights(&self) -> Vec<Sight> {
        self.inner().sights.clone()
    }

    /// A member applied an entry. Every member must have applied the same.
    pub(crate) fn applied(&self, member: u64, entry: &Arc<AppliedEntry>) {
        let mut inner = self.inner();
        let known = inner.log.entry(entry.index.0).or_insert_with(|| Arc::clone(entry));
        if known.outcomes != entry.outcomes {
            let (known, new, index) = (&known.outcomes, &entry.outcomes, entry.index);
            let wrong = format!("member {member} applied another entry {index}: {new:?} {known:?}");
            inner.wrong.get_or_insert(wrong);
        }
    }

    /// What members did that they must never do.
    pub(crate) fn wrong(&self) -> Option<String> {
        self.inner().wrong.clone()
    }

    /// The log in the words of the model.
    pub(crate) fn log(&self) -> Vec<Record> {
        let mut teller = Teller::default();
        for (index, entry) in &self.inner().log {
            for (envelope, command, applied) in &entry.outcomes {
                teller.asked(*index, envelope, command, applied);
                teller.happened(*index, command, applied);
            }
        }
        teller.records
    }
}

/// Tells a log in the words of the model.
#[derive(Default)]
struct Teller {
    records: Vec<Record>,
    /// The last report of each node that took effect: what comes again is no news.
    reported: BTreeMap<NodeId, u64>,
}

impl Teller {
    fn tell(&mut self, index: u64, input: Input) {
        self.records.push(Record { index, input });
    }

    fn asked(&mut self, index: u64, envelope: &Envelope, command: &Command, applied: &Applied) {
        let (Actor::User(_), Some(request)) = (envelope.actor, envelope.request) else { return };
        let Some(call) = call_of(command) else { return };
        if let Some(said) = said(&applied.reply) {
            self.tell(index, Input::Asked { request: request.to_u128(), call, said });
        }
    }

    /// What of a command concerns GPUs.
    fn happened(&mut self, index: u64, command: &Command, applied: &Applied) {
        if let (Command::Plan(plan), Ok(Reply::Planned { placements })) = (command, &applied.reply)
        {
            for (placement, taken) in plan.placements.iter().zip(placements) {
                let Ok(allocation) = taken else { continue };
                let gpus = placement.shares.iter().flat_map(|share| {
                    let device = |at| Gpu { node: share.node.0, device: at as u32 };
                    share.gpus.devices.positions().map(device)
                });
                let (job, holder) = (placement.job.0, allocation.0);
                self.tell(index, Input::Granted { job, holder, gpus: gpus.collect() });
            }
        }
        for event in &applied.events {
            if let Event::AttemptEnded { allocation, cause, .. } = event {
                self.tell(index, Input::Exited { holder: allocation.0, end: end_of(*cause) });
            }
        }
        let (Command::Report(report), Ok(_)) = (command, &applied.reply) else { return };
        for one in &report.reports {
            let last = self.reported.entry(report.node).or_default();
            if one.sequence.0 == *last + 1 {
                *last = one.sequence.0;
                if one.what == ReportKind::Reaped {
                    self.tell(index, Input::Reaped(one.assignment.allocation.0));
                }
            }
        }
    }
}

fn end_of(cause: ExitCause) -> End {
    match cause {
        ExitCause::Exited(0) => End::Well,
        ExitCause::Exited(_) => End::Badly,
        // A cancel is known from what was asked; everything else is not the job's fault.
        _ => End::Again,
    }
}

fn call_of(command: &Command) -> Option<Call> {
    let Command::Job(command) = command else { return None };
    match command {
        JobCommand::Submit(submit) => {
            let body = submit.plan.name.strip_prefix("job-").and_then(|body| body.parse().ok());
            Some(Call::Submit(body.expect("the clients name jobs by their bodies")))
        }
        JobCommand::Cancel { job, .. } => Some(Call::Cancel(job.0)),
        JobCommand::Hold { job, .. } => Some(Call::Hold(job.0)),
        JobCommand::Release(job) => Some(Call::Release(job.0)),
        _ => None,
    }
}

/// What the state said; none: nothing, as the leader was replaced.
fn said(reply: &Result<Reply, Rejection>) -> Option<Answer> {
    match reply {
        Ok(Reply::Job(job)) => Some(Answer::Job(job.0)),
        Ok(Reply::Tasks(tasks)) => Some(Answer::Tasks(*tasks)),
        Err(Rejection::NotFound(_)) => Some(Answer::Refused(Refusal::NotFound)),
        Err(Rejection::AlreadyExists(_)) => Some(Answer::Refused(Refusal::Exists)),
        Err(Rejection::WrongState(..)) => Some(Answer::Refused(Refusal::WrongState)),
        Err(Rejection::StaleLeader) => None,
        other => panic!("no client of this test gets {other:?}"),
    }
}
