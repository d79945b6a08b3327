//! Checks the lease rules in *every* state of small clusters: a model check whose transitions are
//! made by the real automata.
//!
//! The property: when `Lost` is committed, whatever ran under the lease is dead by true time, and
//! that lease is never held again. The worlds below differ in what may happen; in all of them
//! members answer, refuse and promise at any time, and renewals are lost, late, repeated and out
//! of order. Time is unbounded, since ages that no longer matter are equal; bounded are the
//! members (three), the changes of the membership (one, through its joint phase), the lifts (one)
//! and the losses (one).
//!
//! Takes about ten seconds of unoptimised code; the automata are asked once for each situation
//! of a member, and the rest is the search.
//!
//! The same search must find a violation for each weaker rule.

// A test's helpers may unwrap like the test itself.
#![allow(clippy::unwrap_used)]

mod explore;
mod oracle;
mod state;
mod world;

use explore::explore;
use world::{Acks, STEP_MS, Weakening, World, membership};
use yard_core::lease::times::DRIFT_PPM;

/// By how much a clock may be off in one step.
const OFF_MS: i64 = (STEP_MS * DRIFT_PPM / 1_000_000) as i64;

/// Three members that crash and come back. The node's clock is slow and theirs are fast.
fn steady() -> World {
    World {
        name: "steady",
        lease_steps: 1,
        configs: vec![membership(0, &[1, 2, 3], None)],
        holder_drift_ms: -OFF_MS,
        member_drift_ms: OFF_MS,
        crashes: true,
        lifts: 0,
        acks: Acks::LateOrNever,
        prompt: false,
        alike: 3,
        weakening: None,
    }
}

/// A change of the membership, without crashes.
fn change(name: &'static str, old: &[u64], new: &[u64]) -> World {
    let configs =
        vec![membership(0, old, None), membership(1, old, Some(new)), membership(2, new, None)];
    World { name, configs, crashes: false, acks: Acks::AtOnce, alike: 0, ..steady() }
}

/// The rule holds, and the states that make the world worth exploring were reached.
fn holds(world: &World, reached: &[&str]) {
    let report = explore(world);
    println!("{}: {} states, {} transitions", world.name, report.states, report.transitions);
    assert_eq!(report.violation, None, "{}", world.name);
    for point in reached {
        assert!(report.reached.contains(point), "{}: never {point}: {report:?}", world.name);
    }
}

/// The weaker rule is caught.
fn fails(world: World, weakening: Weakening) {
    let world = World { weakening: Some(weakening), ..world };
    let report = explore(&world);
    let steps = report.violation.map(|steps| steps.len());
    println!("{weakening:?} in {}: violated after {steps:?} steps", world.name);
    assert!(steps.is_some(), "{weakening:?} goes unnoticed in {}", world.name);
}

#[test]
fn three_members_that_crash() {
    let reached = [
        "held while a member has promised",
        "renewed while a member restarts",
        "lost while a member still answers",
    ];
    holds(&steady(), &reached);
    let fast = World {
        name: "steady, fast node",
        holder_drift_ms: OFF_MS,
        member_drift_ms: -OFF_MS,
        ..steady()
    };
    holds(&fast, &reached);
    // Twice as many ages, so that majorities have members of differing ages.
    let fine = World { name: "steady, fine", lease_steps: 2, acks: Acks::AtOnce, ..steady() };
    holds(&fine, &reached);
}

#[test]
fn promises_are_lifted() {
    let world =
        World { name: "lift", lifts: 1, acks: Acks::AtOnceOrNever, prompt: true, ..steady() };
    holds(
        &world,
        &[
            "held under a lifted lease",
            "held while a member has promised",
            "lost under a lease that the holder never heard of",
        ],
    );
}

#[test]
fn one_member_is_replaced_by_another() {
    let all = ["under old", "under joint", "under new", "a loss overtaken by a change"];
    holds(&change("1 to 2", &[1], &[2]), &all);
    let crashes = World { crashes: true, prompt: true, ..change("1 to 2, crashes", &[1], &[2]) };
    holds(&crashes, &all);
    let lift = World { lifts: 1, prompt: true, ..change("1 to 2, lift", &[1], &[2]) };
    holds(&lift, &["held under a lifted lease", "under joint", "under new"]);
}

#[test]
fn members_come_and_go() {
    let all = ["under old", "under joint", "under new", "held while a member has promised"];
    holds(&change("1 to 1, 2", &[1], &[1, 2]), &all);
    holds(&change("1, 2 to 2", &[1, 2], &[2]), &all);
}

#[test]
fn a_majority_leaves() {
    let world = World { prompt: true, alike: 2, ..change("1, 2 to 3", &[1, 2], &[3]) };
    holds(&world, &["under old", "under joint", "under new", "lost while a member still answers"]);
}

#[test]
fn weaker_rules_fail_without_a_change() {
    let prompt = World { acks: Acks::AtOnce, prompt: true, ..steady() };
    // What comes late is the point of the first.
    fails(World { prompt: true, ..steady() }, Weakening::TimeAtReply);
    fails(prompt.clone(), Weakening::OneAck);
    fails(prompt.clone(), Weakening::NoRestartWait);
    fails(prompt.clone(), Weakening::PromiseForgotten);
    fails(prompt.clone(), Weakening::NoPromise);
    fails(prompt, Weakening::ShortWait);
}

#[test]
fn weaker_rules_fail_in_a_change() {
    let world = World { prompt: true, alike: 2, ..change("1, 2 to 3", &[1, 2], &[3]) };
    fails(world.clone(), Weakening::MembershipIgnored);
    fails(world, Weakening::NoMembershipWait);
    fails(change("1 to 2", &[1], &[2]), Weakening::AnswersUnapplied);
}
