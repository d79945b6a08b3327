use super::*;
use proptest::prelude::*;
use yard_common::cause::{LostReason, PrepareStep};

/// One cause of every kind, with the class that it must be charged to.
const CAUSES: &[(ExitCause, Charged)] = &[
    (ExitCause::Exited(0), Charged::End(TaskEnd::Succeeded)),
    (ExitCause::Exited(1), Charged::User),
    (ExitCause::Exited(137), Charged::User),
    (ExitCause::Signaled(11), Charged::User),
    (ExitCause::OutOfMemory, Charged::User),
    (ExitCause::TimedOut, Charged::User),
    (ExitCause::Stalled, Charged::User),
    (ExitCause::StartFailed(2), Charged::User),
    (ExitCause::Preempted, Charged::Reclaim),
    (ExitCause::Drained, Charged::Reclaim),
    (ExitCause::PlannedEvent, Charged::Reclaim),
    (ExitCause::Resized, Charged::Reclaim),
    (ExitCause::Suspended, Charged::Nothing),
    (ExitCause::Requeued, Charged::Nothing),
    (ExitCause::Cancelled, Charged::End(TaskEnd::Cancelled)),
    (ExitCause::DependencyFailed, Charged::End(TaskEnd::Failed)),
    (ExitCause::NodeLost, Charged::Infra),
    (ExitCause::GpuFault(79), Charged::Infra),
    (ExitCause::DiskFull, Charged::User),
    (ExitCause::StoppedWithGang, Charged::Infra),
    (ExitCause::PrepareFailed(PrepareStep::Workdir), Charged::User),
    (ExitCause::PrepareFailed(PrepareStep::Mount), Charged::Infra),
    (ExitCause::Lost(LostReason::Reboot), Charged::Infra),
    (ExitCause::Lost(LostReason::LeaseExpired), Charged::Infra),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Charged {
    End(TaskEnd),
    Nothing,
    User,
    Infra,
    Reclaim,
}

fn policy(infra: u16, user: u16, preempted: Option<u16>) -> RetryPolicy {
    RetryPolicy { infra, user, preempted, ..RetryPolicy::default() }
}

fn rule(on: CausePattern, limit: u16) -> RetryRule {
    RetryRule { on, limit }
}

#[test]
fn every_cause_meets_its_own_budget() {
    for &(cause, charged) in CAUSES {
        for (infra, user, preempted) in
            [(0, 0, Some(0)), (1, 0, Some(0)), (0, 1, Some(0)), (0, 0, Some(1)), (1, 1, None)]
        {
            let verdict = decide(cause, &policy(infra, user, preempted), Tries::default());
            let (allowed, after_ms, tries) = match charged {
                Charged::End(end) => {
                    assert_eq!(verdict, Verdict::End(end), "{cause}");
                    continue;
                }
                Charged::Nothing => (true, 0, Tries::default()),
                Charged::User => (user > 0, 10_000, Tries { user: 1, ..Tries::default() }),
                Charged::Infra => (infra > 0, 10_000, Tries { infra: 1, ..Tries::default() }),
                Charged::Reclaim => {
                    (preempted != Some(0), 0, Tries { reclaimed: 1, ..Tries::default() })
                }
            };
            let expected = if allowed {
                Verdict::Retry { after_ms, tries }
            } else {
                Verdict::End(TaskEnd::Failed)
            };
            assert_eq!(verdict, expected, "{cause} with {infra}, {user}, {preempted:?}");
        }
    }
}

#[test]
fn ends_map_to_terminal_states() {
    for end in [TaskEnd::Succeeded, TaskEnd::Failed, TaskEnd::Cancelled] {
        assert!(end.state().is_terminal());
        assert_eq!(end.state().to_string(), format!("{end:?}"));
    }
}

#[test]
fn the_defaults_are_those_of_the_job_file() {
    let policy = RetryPolicy::default();
    assert_eq!((policy.infra, policy.user, policy.preempted), (20, 0, None));
    assert_eq!((policy.backoff_min_ms, policy.backoff_max_ms), (10_000, 300_000));
    assert!(policy.rules.is_empty());
}

#[test]
fn a_rule_stands_in_for_the_class_budget() {
    let mut policy = policy(20, 1, None);
    policy.rules = vec![
        rule(CausePattern::Kind(ExitCause::Exited(0)), 0),
        rule(CausePattern::Kind(ExitCause::OutOfMemory), 1),
        rule(CausePattern::Exactly(ExitCause::Exited(75)), 2),
    ];
    let none = Tries::default();
    assert_eq!(decide(ExitCause::Exited(1), &policy, none), Verdict::End(TaskEnd::Failed));
    // The exact rule goes before the one of its kind, wherever it stands in the list.
    let mut tries = none;
    for wait in [10_000, 20_000] {
        let Verdict::Retry { after_ms, tries: after } =
            decide(ExitCause::Exited(75), &policy, tries)
        else {
            panic!("the rule allows two");
        };
        assert_eq!(after_ms, wait);
        tries = after;
    }
    assert_eq!(tries, Tries { rules: [0, 0, 2, 0, 0, 0, 0, 0], ..none });
    assert_eq!(decide(ExitCause::Exited(75), &policy, tries), Verdict::End(TaskEnd::Failed));
    // Another cause of the same class has the class budget untouched.
    assert!(matches!(decide(ExitCause::Stalled, &policy, tries), Verdict::Retry { .. }));
    let spent = Tries { rules: [0, 1, 0, 0, 0, 0, 0, 0], ..none };
    assert_eq!(decide(ExitCause::OutOfMemory, &policy, spent), Verdict::End(TaskEnd::Failed));
}

#[test]
fn no_rule_overrules_an_end_or_a_request() {
    let mut policy = policy(20, 20, None);
    let causes = [
        ExitCause::Exited(0),
        ExitCause::Cancelled,
        ExitCause::DependencyFailed,
        ExitCause::Suspended,
    ];
    policy.rules = causes.iter().map(|cause| rule(CausePattern::Exactly(*cause), 9)).collect();
    let tries = Tries::default();
    let ends = [TaskEnd::Succeeded, TaskEnd::Cancelled, TaskEnd::Failed];
    for (cause, end) in causes.iter().zip(ends) {
        assert_eq!(decide(*cause, &policy, tries), Verdict::End(end));
    }
    let suspended = decide(ExitCause::Suspended, &policy, tries);
    assert_eq!(suspended, Verdict::Retry { after_ms: 0, tries });
}

/// A job on spot machines may be preempted more often than a counter can count.
#[test]
fn a_million_preemptions_neither_end_nor_overflow() {
    let policy = RetryPolicy::default();
    let mut tries = Tries::default();
    for _ in 0..1_000_000 {
        let Verdict::Retry { after_ms: 0, tries: after } =
            decide(ExitCause::Preempted, &policy, tries)
        else {
            panic!("preemption is unlimited and waits for nothing");
        };
        tries = after;
    }
    assert_eq!(tries, Tries { reclaimed: u16::MAX, ..Tries::default() });
}

#[test]
#[should_panic(expected = "9 retry rules")]
fn more_rules_than_counters_are_a_broken_invariant() {
    let on = CausePattern::Kind(ExitCause::Stalled);
    let policy = RetryPolicy { rules: vec![rule(on, 1); 9], ..RetryPolicy::default() };
    let _ = decide(ExitCause::Stalled, &policy, Tries::default());
}

#[test]
fn tries_stay_small() {
    assert!(std::mem::size_of::<Tries>() <= 24, "every run of every array holds one");
    let bytes = minicbor::to_vec(Tries::default()).unwrap();
    assert!(bytes.len() <= 16, "{} bytes in every snapshot row", bytes.len());
    assert_eq!(minicbor::decode::<Tries>(&bytes).unwrap(), Tries::default());
}

fn any_cause() -> impl Strategy<Value = ExitCause> {
    (0..CAUSES.len()).prop_map(|index| CAUSES[index].0)
}

fn any_policy() -> impl Strategy<Value = RetryPolicy> {
    let on = (any_cause(), any::<bool>()).prop_map(|(cause, exact)| match exact {
        true => CausePattern::Exactly(cause),
        false => CausePattern::Kind(cause),
    });
    let rules = prop::collection::vec((on, 0u16..4), 0..=RETRY_RULES_MAX);
    let preempted = prop::option::of(0u16..4);
    let limits = (0u16..6, 0u16..6, preempted);
    (limits, rules, any::<u64>(), any::<u64>()).prop_map(|(limits, rules, a, b)| RetryPolicy {
        infra: limits.0,
        user: limits.1,
        preempted: limits.2,
        backoff_min_ms: a.min(b),
        backoff_max_ms: a.max(b),
        rules: rules.into_iter().map(|(on, limit)| rule(on, limit)).collect(),
    })
}

/// Lists every counter beside its limit.
fn counters(tries: Tries, policy: &RetryPolicy) -> Vec<(u16, u16)> {
    let mut counters = vec![
        (tries.infra, policy.infra),
        (tries.user, policy.user),
        (tries.reclaimed, policy.preempted.unwrap_or(u16::MAX)),
    ];
    let limits = policy.rules.iter().map(|rule| rule.limit).chain(std::iter::repeat(0));
    counters.extend(tries.rules.into_iter().zip(limits));
    counters
}

proptest! {
    /// Goal: no sequence of causes passes a budget, each retry spends one try of one budget, and
    /// the waits of one budget rise from the minimum to the maximum.
    #[test]
    fn budgets_hold_and_waits_rise(
        policy in any_policy(),
        causes in prop::collection::vec(any_cause(), 1..60),
    ) {
        let mut tries = Tries::default();
        let mut longest = [0u64; 3 + RETRY_RULES_MAX];
        for cause in causes {
            let Verdict::Retry { after_ms, tries: after } = decide(cause, &policy, tries) else {
                continue;
            };
            let before = counters(tries, &policy);
            let now = counters(after, &policy);
            let spent: Vec<usize> = (0..now.len()).filter(|i| now[*i] != before[*i]).collect();
            match cause.fault() {
                Fault::Request => {
                    prop_assert!(spent.is_empty());
                    prop_assert_eq!(after_ms, 0);
                }
                Fault::Reclaim => {
                    prop_assert_eq!(spent.len(), 1);
                    prop_assert_eq!(after_ms, 0);
                }
                Fault::None => prop_assert!(false, "a success is not retried"),
                Fault::User | Fault::Infra => {
                    prop_assert_eq!(spent.len(), 1);
                    let budget = spent[0];
                    prop_assert!(after_ms >= policy.backoff_min_ms);
                    prop_assert!(after_ms <= policy.backoff_max_ms);
                    prop_assert!(after_ms >= longest[budget]);
                    longest[budget] = after_ms;
                }
            }
            for (index, (spent, limit)) in now.iter().enumerate() {
                prop_assert!(spent <= limit, "counter {} at {} of {}", index, spent, limit);
            }
            tries = after;
        }
    }

    #[test]
    fn a_policy_survives_its_bytes(policy in any_policy()) {
        let bytes = minicbor::to_vec(&policy).unwrap();
        prop_assert_eq!(minicbor::decode::<RetryPolicy>(&bytes).unwrap(), policy);
    }
}
