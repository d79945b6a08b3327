//! A seed is the same run every time, and holds every rule. `scripts/test` runs many more, in a
//! build that is fast.

use yard_sim::runner::run_seed;

#[test]
fn a_seed_is_the_same_run_every_time() {
    let (one, two) = (run_seed(11, true), run_seed(11, true));
    assert!(one.trace.as_ref().is_some_and(|trace| trace.lines().count() > 1_000));
    assert_eq!((one.virtual_us, one.stats.events), (two.virtual_us, two.stats.events));
    assert_eq!(one.trace, two.trace);
}

#[test]
fn a_fixed_seed_holds_every_rule() {
    let violation = run_seed(1, false).violation;
    let violation = violation.map(|found| format!("{}: {}", found.rule, found.what));
    assert_eq!(violation, None, "replay with `yard-sim run --seed 1 --trace`");
}
