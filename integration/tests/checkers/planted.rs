//! Violations that a cluster could make: each must be found.

use crate::reference::{Chance, Run, run};
use yard_integration::history::{
    Answer, Call, History, Moment, Operation, Outcome, Phase, Recorder, Refusal, Shown,
};
use yard_integration::linear;
use yard_integration::linear::{Bounds, Interval, NotLinear};
use yard_integration::model::{End, Gpu, Input, Record};
use yard_integration::objects::{self, GpuStep, Job, JobStep, Sight};
use yard_integration::replay::{self, Needs, Wrong};

const NO_NEEDS: Needs = Needs { answered_min: 0, unknown_max: usize::MAX };

/// A story of calls, one after the other unless it says otherwise.
#[derive(Default)]
struct Story {
    recorder: Recorder,
    log: Vec<Record>,
}

const fn shown(phase: Phase, held: bool) -> Answer {
    Answer::Shown(Shown { phase, held })
}

const WRONG_STATE: Answer = Answer::Refused(Refusal::WrongState);

impl Story {
    /// A call that is answered before the next one begins.
    fn told(&self, request: u128, call: Call, answer: Answer, index: u64) -> &Story {
        let request = (!call.is_read()).then_some(request);
        let begun = self.recorder.begin(1, request, call, 0);
        let index = (!matches!(answer, Answer::Refused(_))).then_some(index);
        self.recorder.end(begun, Outcome::Answered { answer, index }, 0);
        self
    }

    fn logged(&mut self, index: u64, request: u128, call: Call, said: Answer) -> &mut Story {
        self.log.push(Record { index, input: Input::Asked { request, call, said } });
        self
    }

    fn replayed(&self) -> Result<(), Wrong> {
        replay::check(&self.recorder.history(), &self.log, NO_NEEDS)
    }

    fn explained(&self) -> bool {
        let bounds = Bounds::default();
        objects::check(&self.recorder.history(), &[], |_| false, bounds).is_ok()
    }
}

/// A job that was submitted, in the log and to its owner.
fn submitted() -> Story {
    let mut story = Story::default();
    story.logged(1, 7, Call::Submit(1), Answer::Job(0));
    story.told(7, Call::Submit(1), Answer::Job(0), 1);
    story
}

#[test]
fn the_story_without_a_violation_passes() {
    let mut story = submitted();
    story.logged(2, 8, Call::Cancel(0), Answer::Tasks(1));
    story.told(8, Call::Cancel(0), Answer::Tasks(1), 3);
    story.told(0, Call::Show(0), shown(Phase::Cancelled, false), 2);
    story.replayed().unwrap();
    assert!(story.explained());
}

#[test]
fn a_lost_ack() {
    let story = submitted();
    story.told(8, Call::Cancel(0), Answer::Tasks(1), 2);
    story.told(0, Call::Show(0), shown(Phase::Waiting, false), 2);
    assert!(matches!(story.replayed(), Err(Wrong::Told { .. })));
    assert!(!story.explained());
}

#[test]
fn a_lost_submit() {
    let story = submitted();
    story.told(0, Call::Show(0), Answer::Refused(Refusal::NotFound), 1);
    assert!(story.replayed().is_err() && !story.explained());
}

#[test]
fn a_stale_read_that_says_so_and_one_that_lies() {
    for index in [1, 2] {
        let mut story = submitted();
        story.logged(2, 8, Call::Cancel(0), Answer::Tasks(1));
        story.told(8, Call::Cancel(0), Answer::Tasks(1), 2);
        story.told(0, Call::Show(0), shown(Phase::Waiting, false), index);
        assert!(matches!(story.replayed(), Err(Wrong::Told { .. })), "index {index}");
        assert!(!story.explained());
    }
}

#[test]
fn a_read_of_the_future_is_none() {
    let mut story = submitted();
    story.told(0, Call::Show(0), shown(Phase::Cancelled, false), 1);
    story.logged(2, 8, Call::Cancel(0), Answer::Tasks(1));
    story.told(8, Call::Cancel(0), Answer::Tasks(1), 2);
    assert!(story.replayed().is_err() && !story.explained());
}

#[test]
fn a_duplicate_submit_under_one_request() {
    let mut story = submitted();
    story.logged(2, 7, Call::Submit(1), Answer::Job(1));
    assert!(matches!(story.replayed(), Err(Wrong::Log { index: 2, .. })), "nobody was told");
    assert!(story.explained(), "clients cannot see it yet");
    story.told(7, Call::Submit(1), Answer::Job(1), 2);
    assert!(!story.explained());
}

#[test]
fn two_requests_that_made_one_job() {
    let mut story = submitted();
    story.logged(2, 8, Call::Submit(2), Answer::Job(0));
    story.told(8, Call::Submit(2), Answer::Job(0), 2);
    assert!(story.replayed().is_err() && !story.explained());
}

#[test]
fn a_cancel_that_is_undone() {
    let mut story = submitted();
    story.logged(2, 8, Call::Cancel(0), Answer::Tasks(1));
    story.told(8, Call::Cancel(0), Answer::Tasks(1), 2);
    story.told(0, Call::Show(0), shown(Phase::Cancelled, false), 2);
    story.logged(3, 9, Call::Hold(0), Answer::Tasks(1));
    story.told(9, Call::Hold(0), Answer::Tasks(1), 3);
    assert!(matches!(story.replayed(), Err(Wrong::Log { index: 3, .. })));
    assert!(!story.explained());
}

#[test]
fn a_reordered_reply() {
    let mut story = submitted();
    // The release came after the answer to the hold, and stands in front of it.
    story.logged(2, 9, Call::Release(0), WRONG_STATE);
    story.logged(3, 8, Call::Hold(0), Answer::Tasks(1));
    story.told(8, Call::Hold(0), Answer::Tasks(1), 3);
    story.told(9, Call::Release(0), WRONG_STATE, 3);
    assert!(matches!(story.replayed(), Err(Wrong::Told { .. })));
    assert!(!story.explained());
}

#[test]
fn an_effect_of_what_nobody_asked_for_or_what_failed() {
    let mut story = submitted();
    story.logged(2, 8, Call::Hold(0), Answer::Tasks(1));
    assert!(matches!(story.replayed(), Err(Wrong::Log { index: 2, .. })));
    let begun = story.recorder.begin(1, Some(8), Call::Hold(0), 0);
    story.recorder.end(begun, Outcome::Failed, 0);
    assert!(matches!(story.replayed(), Err(Wrong::Told { .. })));
    story.told(0, Call::Show(0), shown(Phase::Waiting, true), 2);
    assert!(!story.explained());
}

#[test]
fn an_unknown_outcome_may_be_either() {
    for effect in [false, true] {
        let mut story = submitted();
        let _ = story.recorder.begin(2, Some(8), Call::Hold(0), 0);
        if effect {
            story.logged(2, 8, Call::Hold(0), Answer::Tasks(1));
        }
        story.told(0, Call::Show(0), shown(Phase::Waiting, effect), 2);
        story.replayed().unwrap();
        assert!(story.explained());
        // But not first this and then that.
        story.told(0, Call::Show(0), shown(Phase::Waiting, !effect), 2);
        assert!(story.replayed().is_err());
        assert_eq!(story.explained(), !effect, "it may take effect later, and not be undone");
    }
}

#[test]
fn a_gpu_that_is_granted_twice() {
    let gpu = Gpu { node: 1, device: 3 };
    let granted = |index, job, holder| {
        let input = Input::Granted { job, holder, gpus: vec![gpu] };
        Record { index, input }
    };
    let record = |index, input| Record { index, input };
    for reaped in [false, true] {
        let mut story = submitted();
        story.logged(2, 8, Call::Submit(2), Answer::Job(1));
        story.told(8, Call::Submit(2), Answer::Job(1), 2);
        story.log.push(granted(3, 0, 1));
        story.log.push(record(4, Input::Exited { holder: 1, end: End::Well }));
        if reaped {
            story.log.push(record(5, Input::Reaped(1)));
        }
        story.log.push(granted(6, 1, 2));
        assert_eq!(story.replayed().is_ok(), reaped);
        let sight = |at, step| Sight { gpu, step, began: at, ended: Some(at + 1) };
        let mut sights = vec![sight(10, GpuStep::Granted(1)), sight(30, GpuStep::Granted(2))];
        if reaped {
            sights.push(sight(20, GpuStep::Freed(1)));
        }
        let history = story.recorder.history();
        let checked = objects::check(&history, &sights, |_| true, Bounds::default());
        assert_eq!(checked.is_ok(), reaped, "{checked:?}");
    }
}

#[test]
fn too_little_to_prove_anything() {
    let story = submitted();
    let _ = story.recorder.begin(2, Some(8), Call::Hold(0), 0);
    let history = story.recorder.history();
    let needs = |answered_min, unknown_max| Needs { answered_min, unknown_max };
    assert!(replay::check(&history, &story.log, needs(1, 1)).is_ok());
    for needs in [needs(2, 1), needs(1, 0)] {
        assert!(matches!(replay::check(&history, &story.log, needs), Err(Wrong::History(_))));
    }
}

#[test]
fn a_history_that_cannot_be() {
    let one = submitted().recorder.history().operations[0];
    let broken = |change: fn(&mut Operation)| {
        let mut operation = one;
        change(&mut operation);
        History { operations: vec![operation] }.check()
    };
    assert!(broken(|_| ()).is_ok());
    assert!(broken(|one| one.ended = Some(Moment { order: 0, at_ms: 0 })).is_err());
    assert!(broken(|one| one.ended = None).is_err());
    assert!(broken(|one| one.request = None).is_err());
    assert!(broken(|one| one.outcome = Outcome::Unknown).is_err());
    let mut next = one;
    (next.began.order, next.ended) = (2, Some(Moment { order: 3, at_ms: 0 }));
    let mut first = one;
    first.ended = Some(Moment { order: 4, at_ms: 0 });
    let busy = History { operations: vec![first, next] };
    assert!(busy.check().unwrap_err().contains("busy"));
}

#[test]
fn a_search_without_end_is_no_pass() {
    // Holds and releases that may take effect at any time, and an answer that needs all of them.
    let step = |call, answer| JobStep { request: None, call, answer };
    let mut calls = vec![Interval { step: step(Call::Submit(0), None), began: 0, ended: Some(1) }];
    for at in 0..12 {
        let call = if at % 2 == 0 { Call::Hold(0) } else { Call::Release(0) };
        calls.push(Interval { step: step(call, None), began: 2 + at, ended: None });
    }
    let answer = Some(shown(Phase::Active, false));
    calls.push(Interval { step: step(Call::Show(0), answer), began: 50, ended: Some(51) });
    let job = Job { moves: false };
    let few = |steps_max, configurations_max| Bounds { steps_max, configurations_max };
    assert!(matches!(
        linear::check(&job, &calls, few(1_000, 10_000)),
        Err(NotLinear::OutOfBounds(_))
    ));
    assert!(matches!(
        linear::check(&job, &calls, few(1_000_000, 50)),
        Err(NotLinear::OutOfBounds(_))
    ));
    let found = linear::check(&job, &calls, Bounds::default());
    assert!(matches!(found, Err(NotLinear::Violation { at: 13, .. })), "{found:?}");
    let many = Interval { step: step(Call::Hold(0), None), began: 0, ended: None };
    let many: Vec<_> = (0..65).map(|began| Interval { began, ..many.clone() }).collect();
    let found = linear::check(&job, &many, Bounds::default());
    assert!(matches!(found, Err(NotLinear::OutOfBounds(_))), "65 calls are open");
}

/// Changes one thing of a legal run that makes it illegal; false: there was nothing to change.
type Plant = fn(&mut Run, &mut Chance) -> bool;

fn some_answered(run: &Run, chance: &mut Chance, fits: fn(&Operation) -> bool) -> Option<usize> {
    let all = run.history.operations.iter().enumerate();
    let fitting: Vec<usize> = all.filter(|(_, one)| fits(one)).map(|(at, _)| at).collect();
    let chosen = chance.below(fitting.len().max(1) as u64) as usize;
    fitting.get(chosen).copied()
}

const PLANTS: [(&str, Plant); 4] = [
    ("an answer that the state did not give", |run, chance| {
        let shows = |one: &Operation| matches!(one.answered(), Some((Answer::Shown(_), _)));
        let Some(at) = some_answered(run, chance, shows) else { return false };
        let Outcome::Answered { answer: Answer::Shown(shown), .. } =
            &mut run.history.operations[at].outcome
        else {
            return false;
        };
        shown.held = !shown.held;
        true
    }),
    ("an effect that was answered and is not in the log", |run, chance| {
        let counts = |one: &Operation| matches!(one.answered(), Some((Answer::Tasks(_), _)));
        let Some(at) = some_answered(run, chance, counts) else { return false };
        let lost = run.history.operations[at].request;
        run.log.retain(|record| match &record.input {
            Input::Asked { request, .. } => Some(*request) != lost,
            _ => true,
        });
        true
    }),
    ("a job that was submitted twice", |run, chance| {
        let submits = |one: &Operation| matches!(one.answered(), Some((Answer::Job(_), _)));
        let Some(at) = some_answered(run, chance, submits) else { return false };
        let Operation { request: Some(request), call, .. } = run.history.operations[at] else {
            return false;
        };
        let index = run.log.last().unwrap().index;
        let said = Answer::Job(9_999);
        run.log.push(Record { index, input: Input::Asked { request, call, said } });
        true
    }),
    ("a GPU that goes to the next before it is free", |run, _| {
        let grants = |record: &Record| matches!(record.input, Input::Granted { .. });
        let Some(at) = run.log.iter().position(grants) else { return false };
        let Input::Granted { gpus, .. } = run.log[at].input.clone() else { return false };
        let index = run.log[at].index;
        let input = Input::Granted { job: 0, holder: 9_999, gpus };
        run.log.insert(at + 1, Record { index, input });
        true
    }),
];

#[test]
fn what_is_planted_in_legal_histories_is_found() {
    for (name, plant) in PLANTS {
        let mut planted = 0;
        for seed in 0..100 {
            let mut run = run(seed, 200, true);
            let mut chance = Chance::new(seed);
            if !plant(&mut run, &mut chance) {
                continue;
            }
            planted += 1;
            let found = replay::check(&run.history, &run.log, NO_NEEDS);
            assert!(found.is_err(), "{name}: seed {seed}");
        }
        assert!(planted > 80, "{name}: {planted} planted");
    }
}

#[test]
fn clients_alone_see_most_wrong_answers() {
    let (mut planted, mut found) = (0, 0);
    for seed in 0..200 {
        let mut run = run(seed, 300, false);
        if PLANTS[0].1(&mut run, &mut Chance::new(seed)) {
            planted += 1;
            let checked = objects::check(&run.history, &run.sights, |_| false, Bounds::default());
            found += u32::from(checked.is_err());
        }
    }
    assert!(found * 2 > planted && planted > 150, "{found} of {planted}");
}
