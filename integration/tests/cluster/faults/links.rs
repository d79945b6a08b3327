//! Links that are slow, that hold back and let go at once, that swallow, that read nothing, and
//! that are reset.

use super::{HEALED, NEEDS, SEED, last, served};
use crate::world::clients::{Load, longest_gap_ms};
use crate::world::trio::{MEMBERS, Setup, Trio};
use crate::world::wires::{Gate, Weather, ways_between, ways_of};
use std::time::{Duration, Instant};
use yard_integration::replay::Needs;

/// Longer than an election.
const LONG: Duration = Duration::from_millis(1_500);

fn term(trio: &Trio) -> u64 {
    let status = trio.status().expect("it answers");
    status.leader.expect("somebody leads").term
}

/// With the setting that such links need.
#[test]
fn slow_links_keep_their_leader() {
    let settings = "round_trip_ms = 300\n";
    let mut trio = Trio::start(Setup { wired: Some(SEED), settings, ..Setup::default() });
    let load = Load::start(&trio, SEED);
    load.await_more(40);
    trio.wires().set(&ways_between(&MEMBERS), Weather::slow(100, 30));
    served(&load);
    let (before, from_ms) = (term(&trio), load.now_ms());
    last(Duration::from_secs(3));
    assert_eq!(term(&trio), before, "the leader was deposed though nothing had failed");
    let steady_ms = load.now_ms() - from_ms;
    let (leader, killed_ms) = (trio.leader(), load.now_ms());
    trio.kill(leader);
    served(&load);
    let back_ms = load.now_ms() - killed_ms;
    trio.wires().set(&ways_between(&MEMBERS), Weather::default());
    trio.start_again(leader);
    // Each call waits for a round trip or two.
    let history = load.end(&trio, Needs { answered_min: 60, ..NEEDS });
    let steady = longest_gap_ms(&history, from_ms, from_ms + steady_ms);
    let dead = longest_gap_ms(&history, killed_ms, killed_ms + back_ms);
    println!(
        "no change was answered for {steady} ms while nothing failed, {dead} ms when one died"
    );
    assert!(steady < 8_000 && dead < 15_000, "{steady} ms, {dead} ms");
}

#[test]
fn links_that_hold_swallow_and_break_heal() {
    let trio = Trio::start(Setup { wired: Some(SEED), ..Setup::default() });
    let load = Load::start(&trio, SEED);
    load.await_more(100);
    let all = ways_between(&MEMBERS);
    for gate in [Gate::Held, Gate::Swallows, Gate::Deaf] {
        // Of the leader, then of a follower.
        for leads in [true, false] {
            let leader = trio.leader();
            let member = if leads { leader } else { leader % 3 + 1 };
            trio.wires().set(&ways_of(member), Weather::gate(gate));
            let lost = served(&load);
            last(LONG);
            trio.wires().set(&all, Weather::default());
            let began = Instant::now();
            served(&load);
            trio.await_whole();
            let healed = began.elapsed();
            println!("{gate:?} at {member} when {leader} led: served {lost:?}, whole {healed:?}");
            assert!(lost < HEALED && healed < HEALED, "{gate:?} at {member}");
        }
    }
    for _ in 0..20 {
        trio.wires().reset(&all);
        last(Duration::from_millis(50));
    }
    let took = served(&load);
    println!("served {took:?} after the last of many resets");
    assert!(took < HEALED);
    load.end(&trio, NEEDS);
}
