//! What all parts of a run share, and what they write down.

use crate::net::{Trace, Wires};
use crate::teller::Teller;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use yard_coordinator::Handle;
use yard_coordinator::raft::AppliedEntry;
use yard_integration::history::Recorder;
use yard_integration::model::{Gpu, Record};
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
                teller.tell(*index, envelope, command, applied);
            }
        }
        teller.into_records()
    }
}
