//! The search for an order against one that tries them all.

use proptest::prelude::*;
use std::cell::Cell;
use yard_integration::history::{Answer, Call, Phase, Refusal, Shown};
use yard_integration::linear::{self, Bounds, Interval, NotLinear, Object};
use yard_integration::objects::{Device, GpuStep, Job, JobStep};

/// Whether some order of all calls that ended, and of any of the others, explains the answers.
/// An order is legal if no call stands in front of one that ended before it began.
fn some_order<O: Object>(object: &O, calls: &[Interval<O::Step>]) -> bool {
    fn go<O: Object>(
        object: &O,
        calls: &[Interval<O::Step>],
        taken: &mut Vec<usize>,
        state: &O::State,
    ) -> bool {
        let left = || (0..calls.len()).filter(|at| !taken.contains(at)).collect::<Vec<_>>();
        let left = left();
        if left.iter().all(|at| calls[*at].ended.is_none()) {
            return true;
        }
        for next in &left {
            let late = |other: &usize| calls[*other].ended.is_some_and(|e| e < calls[*next].began);
            if left.iter().any(late) {
                continue;
            }
            if let Some(state) = object.step(state, &calls[*next].step) {
                taken.push(*next);
                let found = go(object, calls, taken, &state);
                taken.pop();
                if found {
                    return true;
                }
            }
        }
        false
    }
    go(object, calls, &mut Vec::new(), &object.begin())
}

/// Places in time for calls: each gets two different ones in order, and some never end.
fn intervals<S: std::fmt::Debug>(
    steps: impl Strategy<Value = S> + Clone,
) -> impl Strategy<Value = Vec<Interval<S>>> {
    let call = (steps, 0u64..12, 1u64..8, prop::bool::weighted(0.85));
    prop::collection::vec(call, 1..8).prop_map(|calls| {
        let mut moments: Vec<(u64, usize, bool)> = Vec::new();
        for (at, (_, began, len, _)) in calls.iter().enumerate() {
            moments.push((*began, at, false));
            moments.push((began + len, at, true));
        }
        moments.sort_unstable();
        let place = |at, ends| {
            let found = moments.iter().position(|moment| (moment.1, moment.2) == (at, ends));
            found.unwrap() as u64
        };
        let interval = |(at, (step, _, _, ends))| {
            let ended = Some(place(at, true)).filter(|_| ends);
            Interval { step, began: place(at, false), ended }
        };
        calls.into_iter().enumerate().map(interval).collect()
    })
}

fn job_steps() -> impl Strategy<Value = JobStep> + Clone {
    let phases = [Phase::Waiting, Phase::Active, Phase::Stopping, Phase::Cancelled];
    let shown = (prop::sample::select(phases.to_vec()), any::<bool>());
    let shown = shown.prop_map(|(phase, held)| Answer::Shown(Shown { phase, held }));
    let wrong = Answer::Refused(Refusal::WrongState);
    let counted = prop::sample::select(vec![Answer::Tasks(0), Answer::Tasks(1), wrong]);
    prop_oneof![
        2 => Just((Call::Submit(0), Answer::Job(0))),
        1 => counted.clone().prop_map(|answer| (Call::Cancel(0), answer)),
        2 => counted.clone().prop_map(|answer| (Call::Hold(0), answer)),
        2 => counted.prop_map(|answer| (Call::Release(0), answer)),
        3 => shown.prop_map(|answer| (Call::Show(0), answer)),
    ]
    .prop_flat_map(|(call, answer)| {
        let answer = prop_oneof![6 => Just(Some(answer)), 1 => Just(None)];
        answer.prop_map(move |answer| JobStep { request: None, call, answer })
    })
}

fn gpu_steps() -> impl Strategy<Value = GpuStep> + Clone {
    (any::<bool>(), 0u64..2).prop_map(|(granted, holder)| match granted {
        true => GpuStep::Granted(holder),
        false => GpuStep::Freed(holder),
    })
}

/// Both must agree; counts how often there is an order and how often not.
fn agree<O: Object>(
    object: &O,
    calls: &[Interval<O::Step>],
    seen: &Cell<(u32, u32)>,
) -> Result<(), TestCaseError> {
    let expected = some_order(object, calls);
    let found = linear::check(object, calls, Bounds::default());
    prop_assert_eq!(expected, found.is_ok(), "{:?}", found);
    let bounded = matches!(found, Err(NotLinear::OutOfBounds(_)));
    prop_assert!(!bounded, "seven calls fit");
    let (linear, not) = seen.get();
    seen.set((linear + u32::from(expected), not + u32::from(!expected)));
    Ok(())
}

/// Runs a property over both kinds of cases, and wants to have seen enough of either.
fn over<S: std::fmt::Debug>(
    steps: impl Strategy<Value = S> + Clone,
    cases: u32,
    property: impl Fn(&[Interval<S>], &Cell<(u32, u32)>) -> Result<(), TestCaseError>,
) {
    let seen = Cell::new((0, 0));
    let config = ProptestConfig { cases, failure_persistence: None, ..Default::default() };
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(Default::default()),
    );
    runner.run(&intervals(steps), |calls| property(&calls, &seen)).unwrap();
    let (linear, not) = seen.get();
    assert!(linear > cases / 50 && not > cases / 50, "{linear} have an order, {not} have none");
}

#[test]
fn the_search_agrees_with_all_orders_about_jobs() {
    for moves in [false, true] {
        over(job_steps(), 3_000, |calls, seen| agree(&Job { moves }, calls, seen));
    }
}

#[test]
fn the_search_agrees_with_all_orders_about_gpus() {
    over(gpu_steps(), 3_000, |calls, seen| agree(&Device, calls, seen));
}
