//! Members that die, and members that stand still.

use super::{HEALED, NEEDS, SEED, last, served};
use crate::world::await_some;
use crate::world::clients::{Load, longest_gap_ms};
use crate::world::gate::Gate;
use crate::world::trio::{MEMBERS, Setup, Trio};
use std::time::Duration;
use yard_proto::v1;

/// How long a member stands still: longer than any lease that it may have answered lasts.
const STILL: Duration = Duration::from_millis(3_500);
/// The longest time without an answered change when a leader dies, in milliseconds: an election,
/// on a busy machine.
const OUTAGE_MS: u64 = 15_000;

/// Whom a member takes for the leader.
fn leader_of(trio: &Trio, member: u8) -> Option<u64> {
    let asked = trio.runtime().block_on(async {
        let client = trio.client_from(usize::from(member) - 1);
        client.status(v1::StatusRequest { brief: true }).await
    });
    let status = asked.ok().filter(|status| status.answered_by == u64::from(member))?;
    status.leader.map(|leader| leader.member_id)
}

#[test]
fn leaders_are_killed_under_load() {
    let mut trio = Trio::start(Setup { node: true, ..Setup::default() });
    let load = Load::start(&trio, SEED);
    let gate = Gate::at(&trio.home, "held");
    let job = load.submit(&trio, &gate.script());
    let rank = gate.only_process(0);
    let mut deaths = Vec::new();
    for _ in 0..3 {
        load.await_more(80);
        let leader = trio.leader();
        let killed_ms = load.now_ms();
        trio.kill(leader);
        served(&load);
        deaths.push((killed_ms, load.now_ms()));
        trio.start_again(leader);
        trio.await_whole();
        assert!(rank.lives(), "a leader took a rank with it");
    }
    end(&trio, load, &gate, job, &deaths);
}

#[test]
fn members_stand_still_under_load() {
    let trio = Trio::start(Setup { node: true, ..Setup::default() });
    let load = Load::start(&trio, SEED);
    let gate = Gate::at(&trio.home, "held");
    let job = load.submit(&trio, &gate.script());
    gate.only_process(0);
    load.await_more(80);
    let leader = trio.leader();
    let mut stops = vec![(load.now_ms(), 0)];
    trio.member(leader).freeze();
    let next = await_some("another leader", || trio.leader_now().filter(|now| *now != leader));
    last(STILL);
    stops[0].1 = load.now_ms();
    trio.member(leader).thaw();
    let deposed = await_some("the old leader follows", || {
        leader_of(&trio, leader).filter(|known| *known != u64::from(leader))
    });
    println!("{next} led while {leader} stood still, and {leader} now follows {deposed}");
    trio.await_whole();

    let leader = trio.leader();
    let others: Vec<u8> = MEMBERS.into_iter().filter(|member| *member != leader).collect();
    stops.push((load.now_ms(), 0));
    trio.member(others[0]).freeze();
    last(STILL);
    stops[1].1 = load.now_ms();
    trio.member(others[0]).thaw();
    trio.await_whole();

    // A majority stands still: nothing can be answered, and nothing is lost.
    others.iter().for_each(|member| trio.member(*member).freeze());
    last(Duration::from_millis(500));
    let from_ms = load.now_ms();
    last(STILL);
    let silent_ms = load.now_ms() - from_ms;
    others.iter().for_each(|member| trio.member(*member).thaw());
    let took = served(&load);
    println!("served {took:?} after a majority stood still");
    assert!(took < HEALED);
    trio.await_whole();
    let history = end(&trio, load, &gate, job, &stops);
    assert_eq!(longest_gap_ms(&history, from_ms, from_ms + silent_ms), silent_ms);
}

/// Nothing was lost: the job that a test holds has the process that it began with.
fn end(
    trio: &Trio,
    load: Load,
    gate: &Gate,
    job: u64,
    faults: &[(u64, u64)],
) -> yard_integration::history::History {
    gate.only_process(0);
    gate.open(0);
    let (job, wait) = (job.to_string(), ["--timeout", "1m"]);
    trio.yard(&[&["wait", &job][..], &wait].concat()).ok();
    let shown = trio.yard(&["show", &job, "-o", "json"]).ok().json();
    assert_eq!(shown["attempt"], 1, "{shown}");
    let history = load.end(trio, NEEDS);
    let gaps = faults.iter().map(|(from_ms, to_ms)| longest_gap_ms(&history, *from_ms, *to_ms));
    let gaps: Vec<u64> = gaps.collect();
    println!("no change was answered for {gaps:?} ms");
    assert!(gaps.iter().all(|gap_ms| *gap_ms < OUTAGE_MS), "{gaps:?}");
    history
}
