//! Histories of a cluster that is right.

use crate::reference::run;
use yard_integration::linear::Bounds;
use yard_integration::replay::{self, Needs};
use yard_integration::{history::History, objects};

const NEEDS: Needs = Needs { answered_min: 60, unknown_max: 30 };

#[test]
fn what_is_right_passes_both_checkers() {
    let (mut jobs, mut gpus, mut unknown, mut repeated) = (0, 0, 0, 0);
    for seed in 0..300 {
        let moves = seed % 2 == 0;
        let run = run(seed, 400, moves);
        replay::check(&run.history, &run.log, NEEDS).unwrap_or_else(|w| panic!("seed {seed}: {w}"));
        let checked = objects::check(&run.history, &run.sights, |_| moves, Bounds::default());
        let checked = checked.unwrap_or_else(|found| panic!("seed {seed}: {found}"));
        (jobs, gpus) = (jobs + checked.jobs, gpus + checked.gpus);
        unknown += run.history.unknown();
        repeated += repeats(&run.history);
    }
    // A generator that avoids what is hard would prove nothing.
    assert!(jobs > 3_000 && gpus > 200, "{jobs} jobs, {gpus} GPUs");
    assert!(unknown > 500 && repeated > 1_000, "{unknown} unknown, {repeated} repeated");
}

/// How many calls repeat a request.
fn repeats(history: &History) -> usize {
    let requests: Vec<_> = history.operations.iter().filter_map(|one| one.request).collect();
    let different: std::collections::BTreeSet<_> = requests.iter().collect();
    requests.len() - different.len()
}
