//! Whether a task that ended gets another attempt, and when.
//!
//! [`decide`] is a pure function of the exit cause, the job's policy and what its tries have
//! spent so far. Invariants:
//! - a machine's fault never spends the user's budget, and the user's never the machines' (P9);
//! - a counter never passes the limit that it is checked against;
//! - a success, a cancel and a failed dependency end the task whatever the policy says;
//! - the back-off rises with the tries that one budget has spent, from the policy's minimum to
//!   its maximum. There is no jitter here: every member must decide the same. Tasks that fail
//!   together wait in the queue's order, which spreads them.

use crate::mutant;
use minicbor::{Decode, Encode};
use yard_common::ExitCause;
use yard_common::cause::Fault;
use yard_common::limits::RETRY_RULES_MAX;
use yard_common::state::TaskState;

#[cfg(test)]
mod tests;

/// How often a task may be tried again, by who is to blame: `retry` of a job.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RetryPolicy {
    /// Retries after faults of machines, disks, networks or Trainyard itself.
    #[n(0)]
    pub infra: u16,
    /// Retries after faults of the user's code or limits.
    #[n(1)]
    pub user: u16,
    /// Retries after the cluster took the resources back. `None`: unlimited.
    #[n(2)]
    pub preempted: Option<u16>,
    /// Wait before the first retry of a budget, in milliseconds; doubles with each further one.
    #[n(3)]
    pub backoff_min_ms: u64,
    /// Longest wait, in milliseconds.
    #[n(4)]
    pub backoff_max_ms: u64,
    /// Limits for single causes, at most `RETRY_RULES_MAX`; each stands in for the class budget.
    #[n(5)]
    pub rules: Vec<RetryRule>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            infra: 20,
            user: 0,
            preempted: None,
            backoff_min_ms: 10_000,
            backoff_max_ms: 5 * 60 * 1_000,
            rules: Vec::new(),
        }
    }
}

/// One entry of `retry.on`: causes that match have this budget of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RetryRule {
    /// Which causes.
    #[n(0)]
    pub on: CausePattern,
    /// Retries after them; 0 forbids any, whatever the class budget says.
    #[n(1)]
    pub limit: u16,
}

/// Which exit causes a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum CausePattern {
    /// This cause and no other: `exited: {75: 5}`. Goes before `Kind`.
    #[n(0)]
    Exactly(#[n(0)] ExitCause),
    /// Every cause of this one's kind, whatever its code, signal or detail: `out_of_memory: 1`.
    #[n(1)]
    Kind(#[n(0)] ExitCause),
}

impl CausePattern {
    /// Whether the pattern speaks of the cause.
    #[must_use]
    pub fn matches(self, cause: ExitCause) -> bool {
        match self {
            CausePattern::Exactly(exact) => exact == cause,
            CausePattern::Kind(kind) => {
                std::mem::discriminant(&kind) == std::mem::discriminant(&cause)
            }
        }
    }
}

/// What the tries of one task have spent so far. Every run of every array holds one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Tries {
    /// Spent of `RetryPolicy::infra`.
    #[n(0)]
    pub infra: u16,
    /// Spent of `RetryPolicy::user`.
    #[n(1)]
    pub user: u16,
    /// Spent of `RetryPolicy::preempted`. Stays at its maximum when the budget is unlimited.
    #[n(2)]
    pub reclaimed: u16,
    /// Spent of each rule, by its position.
    #[n(3)]
    pub rules: [u16; RETRY_RULES_MAX],
}

/// What becomes of a task whose attempt ended.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A new attempt, not before the wait is over. A suspended or requeued task comes here too;
    /// whoever asked for that decides what holds it.
    Retry {
        /// The wait, in milliseconds.
        after_ms: u64,
        /// What the task has spent now.
        tries: Tries,
    },
    /// No further attempt.
    End(TaskEnd),
}

/// How a task ends for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskEnd {
    /// It did what was asked.
    Succeeded,
    /// Its budget is spent, or it must not be tried again.
    Failed,
    /// Its owner or an operator ended it.
    Cancelled,
}

impl TaskEnd {
    /// The terminal state of the task.
    #[must_use]
    pub fn state(self) -> TaskState {
        match self {
            TaskEnd::Succeeded => TaskState::Succeeded,
            TaskEnd::Failed => TaskState::Failed,
            TaskEnd::Cancelled => TaskState::Cancelled,
        }
    }
}

/// Decides after an attempt that ended with `cause`. A gang passes the cause that came first.
///
/// # Panics
/// If the policy holds more rules than a task has counters for.
pub fn decide(cause: ExitCause, policy: &RetryPolicy, tries: Tries) -> Verdict {
    assert!(
        policy.rules.len() <= RETRY_RULES_MAX,
        "{} retry rules, but a task has {RETRY_RULES_MAX} counters",
        policy.rules.len()
    );
    let fault = match (cause, cause.fault()) {
        (_, Fault::None) => return Verdict::End(TaskEnd::Succeeded),
        (ExitCause::Cancelled, _) => return Verdict::End(TaskEnd::Cancelled),
        // A new attempt would wait for the same end of the same job.
        (ExitCause::DependencyFailed, _) => return Verdict::End(TaskEnd::Failed),
        (_, Fault::Request) => return Verdict::Retry { after_ms: 0, tries },
        // `StoppedWithGang` should not come here. If it does, it spends the machines' budget: the
        // user is not to blame, and a retry that spends nothing could go on for ever.
        (_, fault @ (Fault::User | Fault::Infra | Fault::Reclaim)) => fault,
    };
    let mut after = tries;
    let (spent, limit) = match (rule_for(cause, policy), fault) {
        (Some(rule), _) => (&mut after.rules[rule], Some(policy.rules[rule].limit)),
        (None, Fault::User) => (&mut after.user, Some(policy.user)),
        (None, Fault::Reclaim) => (&mut after.reclaimed, policy.preempted),
        (None, Fault::Infra) if mutant!("infra_pays_user") => (&mut after.user, Some(policy.user)),
        (None, Fault::Infra | Fault::None | Fault::Request) => {
            (&mut after.infra, Some(policy.infra))
        }
    };
    if limit.is_some_and(|limit| *spent >= limit) {
        return Verdict::End(TaskEnd::Failed);
    }
    // Who lost its resources did nothing wrong, and its place in the queue is its wait.
    let after_ms = if fault == Fault::Reclaim { 0 } else { backoff_ms(policy, *spent) };
    *spent = spent.saturating_add(1);
    Verdict::Retry { after_ms, tries: after }
}

/// The rule that speaks of the cause: an exact one if there is any, else the first of its kind.
fn rule_for(cause: ExitCause, policy: &RetryPolicy) -> Option<usize> {
    let matching = || {
        let rules = policy.rules.iter().enumerate();
        rules.filter(|(_, rule)| rule.on.matches(cause))
    };
    let exact = matching().find(|(_, rule)| matches!(rule.on, CausePattern::Exactly(_)));
    exact.or_else(|| matching().next()).map(|(index, _)| index)
}

/// The wait before the next retry of a budget that has spent `spent`: `min * 2^spent`, at most
/// the maximum.
fn backoff_ms(policy: &RetryPolicy, spent: u16) -> u64 {
    let doublings = u32::from(spent).min(u64::BITS - 1);
    policy.backoff_min_ms.saturating_mul(1 << doublings).min(policy.backoff_max_ms)
}
