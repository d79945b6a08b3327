//! What must hold, one rule per file. Each keeps its own books, apart from those of the state.

pub mod acked_submissions_survive;
pub mod attempts_rise;
pub mod cancel_sticks;
pub mod every_job_ends;
pub mod exit_status_true;
pub mod fenced_overlap_bounded;
pub mod fences_rise;
pub mod gang_all_or_nothing;
pub mod gpu_one_holder;
pub mod leader_fenced;
pub mod limits_kept;
pub mod no_overlap_strict;
pub mod one_terminal_state;
pub mod pending_reason_matches;
pub mod queue_order;
pub mod reaped_before_granted;
pub mod replicas_agree;
pub mod requests_idempotent;
pub mod retries_within_budget;
pub mod start_once;
pub mod state_check;
pub mod time_never_falls;
pub mod usage_adds_up;
pub mod waits_respected;

use crate::machine::Machine;
use crate::member::Member;
use crate::truth::{Run, Truth};
use std::collections::BTreeMap;
use yard_common::id::RequestId;
use yard_core::agent::Fence;
use yard_core::command::{Actor, Command, Envelope, Rejection, Reply};
use yard_core::event::Applied;
use yard_core::scheduler::{Planned, Policy};
use yard_core::state::State;

/// A broken rule.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub rule: &'static str,
    /// How.
    pub what: String,
}

/// One command, as the first member applied it.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Its entry.
    pub index: u64,
    /// Its place there.
    pub nth: usize,
    /// Who, when, under whom.
    pub envelope: &'a Envelope,
    /// What.
    pub command: &'a Command,
    /// What came of it.
    pub applied: &'a Applied,
    /// The state after it.
    pub state: &'a State,
}

/// Something that invariants look at.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A command was applied for the first time.
    Applied(Step<'a>),
    /// A member is at an entry.
    Replica { member: usize, index: u64, state: &'a State },
    /// The scheduler decided on this view.
    Planned { state: &'a State, planned: &'a Planned, now_ms: u64, policy: &'a Policy },
    /// An agent obeys a desired set.
    Obeyed { machine: usize, fence: Fence },
    /// A client was answered; `again`: it had been answered before.
    Answered {
        actor: Actor,
        request: RequestId,
        command: &'a Command,
        answer: &'a Result<Reply, Rejection>,
        again: Option<&'a Result<Reply, Rejection>>,
    },
    /// User code runs its first instruction.
    Started(&'a Run),
    /// User code ran its last instruction.
    Ended(&'a Run),
    /// Once a second, the state that is furthest.
    Audit { state: &'a State, machines: &'a [Machine] },
    /// Everything has come to its end.
    Over {
        state: &'a State,
        requests: &'a BTreeMap<(Actor, RequestId), Command>,
        members: &'a [Member],
    },
}

/// The name of a rule, and how it was broken.
pub type Broken = (&'static str, String);

/// A rule.
pub trait Invariant: std::fmt::Debug {
    /// Its name, that of its file.
    fn name(&self) -> &'static str;

    /// Looks at something that happened.
    ///
    /// # Errors
    /// How the rule was broken.
    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String>;
}

/// All rules.
#[derive(Debug, Default)]
pub struct Checks(Vec<Box<dyn Invariant>>);

impl Checks {
    /// The name of each.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|rule| rule.name())
    }

    /// Shows something to all of them; returns the first rule that is broken, and how.
    pub fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Option<Broken> {
        self.0.iter_mut().find_map(|rule| {
            let what = rule.see(seen, truth).err()?;
            Some((rule.name(), what))
        })
    }
}

/// Every rule, with empty books.
#[must_use]
pub fn all() -> Checks {
    Checks(vec![
        Box::<acked_submissions_survive::AckedSubmissionsSurvive>::default(),
        Box::<attempts_rise::AttemptsRise>::default(),
        Box::<cancel_sticks::CancelSticks>::default(),
        Box::<exit_status_true::ExitStatusTrue>::default(),
        Box::<fenced_overlap_bounded::FencedOverlapBounded>::default(),
        Box::<fences_rise::FencesRise>::default(),
        Box::<gang_all_or_nothing::GangAllOrNothing>::default(),
        Box::<gpu_one_holder::GpuOneHolder>::default(),
        Box::<leader_fenced::LeaderFenced>::default(),
        Box::<limits_kept::LimitsKept>::default(),
        Box::<no_overlap_strict::NoOverlapStrict>::default(),
        Box::<one_terminal_state::OneTerminalState>::default(),
        Box::<pending_reason_matches::PendingReasonMatches>::default(),
        Box::<queue_order::QueueOrder>::default(),
        Box::<reaped_before_granted::ReapedBeforeGranted>::default(),
        Box::<replicas_agree::ReplicasAgree>::default(),
        Box::<requests_idempotent::RequestsIdempotent>::default(),
        Box::<retries_within_budget::RetriesWithinBudget>::default(),
        Box::<start_once::StartOnce>::default(),
        Box::<state_check::StateCheck>::default(),
        Box::<time_never_falls::TimeNeverFalls>::default(),
        Box::<usage_adds_up::UsageAddsUp>::default(),
        Box::<waits_respected::WaitsRespected>::default(),
    ])
}
