//! Three whole members in one thread: the real consensus, the real wire, real TLS, over a network,
//! disks and clocks that fail as a seed says. What clients saw goes through both checkers.
//!
//! One seed is one run, message for message. `YARD_SEED` runs one, `YARD_SEEDS=first..end` many.
#![allow(clippy::unwrap_used)]

mod agent;
#[path = "../shared/calls.rs"]
mod calls;
#[path = "../shared/chance.rs"]
mod chance;
mod client;
mod env;
mod faults;
mod made;
mod member;
mod net;
mod run;
#[path = "../shared/teller.rs"]
mod teller;
mod world;

use crate::faults::Fault;
use crate::made::MEMBERS;
use crate::run::{run, run_plan};
use yard_coordinator::env::Crash;

#[test]
fn seed_1() {
    run(1);
}

#[test]
fn seed_2() {
    run(2);
}

/// All members end at once, and start again.
fn power_cut() -> Vec<(u64, Fault)> {
    let kills = (1..=MEMBERS).map(|member| (3_000, Fault::Kill(member, Crash::Nothing)));
    let starts = (1..=MEMBERS).map(|member| (3_100, Fault::Start(member)));
    kills.chain(starts).collect()
}

/// What all members forget at once was told to clients before. The run must not pass.
#[test]
#[should_panic(expected = "applied another entry")]
fn disks_that_lie_are_found() {
    run_plan(5, power_cut(), |made| made.disks.iter().for_each(|disk| disk.lie()));
}

/// The same end of all members, on disks that keep what they said to have.
#[test]
fn a_power_cut_loses_nothing_that_was_told() {
    run_plan(5, power_cut(), |_| ());
}

/// What was lost on the way is not waited for: the connection is given up, and not after long.
#[test]
fn a_link_that_lost_messages_carries_again_soon() {
    for other in [2, 3] {
        let plan = vec![(2_000, Fault::Cut(1, other)), (3_500, Fault::Mend(1, other))];
        let ran = run_plan(6, plan, |_| ());
        assert!(ran.same_after_ms < 4_000, "{} ms", ran.same_after_ms);
    }
}

/// Leaders die one after the other, their process or their machine, and clients hardly notice.
#[test]
fn the_service_is_back_within_a_second() {
    let crash = |nth| if nth % 2 == 0 { Crash::Process } else { Crash::Nothing };
    let kills = (1..7).map(|nth| (nth * 2_500, Fault::KillLeader(crash(nth))));
    let starts = (1..7).map(|nth| (nth * 2_500 + 2_000, Fault::StartAll));
    let mut plan: Vec<_> = kills.chain(starts).collect();
    plan.sort_by_key(|(at_ms, _)| *at_ms);
    let ran = run_plan(8, plan, |_| ());
    let outages_ms = ran.kills_ms.iter().map(|kill| ran.back_after_ms(*kill));
    let outages_ms: Vec<u64> = outages_ms.collect();
    println!("no change was answered for {outages_ms:?} ms");
    assert_eq!(outages_ms.len(), 6, "every kill found a leader");
    assert!(outages_ms.iter().all(|ms| *ms < 1_000), "{outages_ms:?}");
}

#[test]
fn one_seed_twice_is_one_run() {
    let (first, second) = (run(7), run(7));
    let differs = first.messages.iter().zip(&second.messages).position(|(one, two)| one != two);
    if let Some(at) = differs {
        panic!("message {at}: {:?}, then {:?}", first.messages[at], second.messages[at]);
    }
    assert_eq!(first.messages.len(), second.messages.len());
    assert!(first == second, "what clients saw and members hold is the same");
}

/// For people: see CONTRIBUTING.md.
#[test]
fn the_seed_that_is_asked_for() {
    let number = |text: &str| text.parse::<u64>().expect("seeds are numbers");
    if let Ok(seed) = std::env::var("YARD_SEED") {
        tell(number(&seed));
    }
    if let Ok(range) = std::env::var("YARD_SEEDS") {
        let (first, end) = range.split_once("..").expect("a range of seeds such as 1..100");
        for seed in number(first)..number(end) {
            tell(seed);
        }
    }
}

fn tell(seed: u64) {
    let ran = run(seed);
    let (answered, unknown) = (ran.history.answered(), ran.history.unknown());
    let (sights, messages) = (ran.sights.len(), ran.messages.len());
    let (live_ms, same_ms) = (ran.live_after_ms, ran.same_after_ms);
    println!(
        "seed {seed}: {answered} calls answered, {unknown} unknown, GPUs seen {sights} times, \
         {messages} messages, live {live_ms} ms and the same {same_ms} ms after the last fault"
    );
}
