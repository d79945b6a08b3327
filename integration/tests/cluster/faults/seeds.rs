//! Faults by chance: one seed is one plan. See CONTRIBUTING.md.

use super::{HEALED, NEEDS, served};
use crate::chance::Chance;
use crate::world::clients::Load;
use crate::world::trio::{MEMBERS, Setup, Trio};
use crate::world::wires::{Gate, Way, Weather, ways_between, ways_of};
use std::time::{Duration, Instant};

/// How long things go wrong, in milliseconds, unless somebody says otherwise.
const SHORT_MS: u64 = 6_000;
/// Calls that must be answered before and after anything goes wrong, and meanwhile.
const ENOUGH: usize = 100;
const MEANWHILE: usize = 20;

/// Something that goes wrong, or ends.
#[derive(Clone, Debug)]
enum Fault {
    /// A member is killed; none: whoever leads.
    Kill(Option<u8>),
    /// Those that were killed start again.
    StartAll,
    /// A member stands still.
    Freeze(u8),
    /// The end of that.
    Thaw(u8),
    /// Ways are like this now.
    Ways(Vec<Way>, Weather),
    /// Connections are reset.
    Reset(Vec<Way>),
    /// Whoever leads is asked to hand over.
    HandOver,
}

/// What goes wrong and when: times in milliseconds from the begin, in order. Now and then two
/// things go wrong at a time, which can bring a majority down; at the end all is well.
fn plan(seed: u64, until_ms: u64) -> Vec<(u64, Fault)> {
    let mut chance = Chance::new(seed, "faults");
    let mut plan = Vec::new();
    let mut at_ms = 300;
    while at_ms < until_ms {
        let member = chance.of(&MEMBERS).expect("there are some");
        let ends_ms = at_ms + chance.within(100, 2_000);
        let way = ways_of(member)[chance.within(0, 4) as usize];
        let ways = if chance.within(0, 2) == 0 { ways_of(member) } else { vec![way] };
        let weather = match chance.within(0, 4) {
            0 => Weather::slow(chance.within(1, 40), chance.within(1, 60)),
            1 => Weather::gate(Gate::Held),
            2 => Weather::gate(Gate::Swallows),
            _ => Weather::gate(Gate::Deaf),
        };
        let whom = (chance.within(0, 2) == 0).then_some(member);
        match chance.within(0, 10) {
            0..3 => plan.extend([(at_ms, Fault::Kill(whom)), (ends_ms, Fault::StartAll)]),
            3..5 => plan.extend([(at_ms, Fault::Freeze(member)), (ends_ms, Fault::Thaw(member))]),
            5..8 => {
                plan.push((at_ms, Fault::Ways(ways.clone(), weather)));
                plan.push((ends_ms, Fault::Ways(ways, Weather::default())));
            }
            8 => plan.push((at_ms, Fault::Reset(ways))),
            _ => plan.push((at_ms, Fault::HandOver)),
        }
        at_ms = match chance.within(0, 4) {
            0 => at_ms + chance.within(100, 500),
            _ => ends_ms + chance.within(200, 1_000),
        };
    }
    // Stable: what begins together stays in its order.
    plan.sort_by_key(|(at_ms, _)| *at_ms);
    plan
}

/// Tells how to run a seed again, if the test fails.
struct Telltale(u64, u64);

impl Drop for Telltale {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Telltale(seed, ms) = self;
            eprintln!(
                "to run it again: YARD_SEED={seed} YARD_FAULTS_MS={ms} cargo test \
                 -p yard-integration --test cluster faults_by_chance -- --nocapture"
            );
        }
    }
}

/// `YARD_SEED` has another plan, `YARD_FAULTS_MS` a longer one.
#[test]
fn faults_by_chance_lose_nothing() {
    let number = |name: &str, other: u64| {
        std::env::var(name).map_or(other, |text| text.parse().expect("it is a number"))
    };
    let (seed, ms) = (number("YARD_SEED", 1), number("YARD_FAULTS_MS", SHORT_MS));
    let _telltale = Telltale(seed, ms);
    let mut trio = Trio::start(Setup { wired: Some(seed), node: true, ..Setup::default() });
    let load = Load::start(&trio, seed);
    load.await_more(ENOUGH);
    let (began, before) = (Instant::now(), load.answered());
    let mut dead = Vec::new();
    for (at_ms, fault) in plan(seed, ms) {
        let due = began + Duration::from_millis(at_ms);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        println!("at {} ms: {fault:?}", load.now_ms());
        inject(&mut trio, &mut dead, fault);
    }
    let meanwhile = load.answered() - before;
    let healed = Instant::now();
    served(&load);
    trio.await_whole();
    let took = healed.elapsed();
    println!("seed {seed}: {meanwhile} answered, whole {took:?} after the last fault");
    assert!(took < HEALED, "{took:?}");
    assert!(meanwhile >= MEANWHILE, "{meanwhile} calls were answered while things went wrong");
    load.await_more(ENOUGH);
    trio.wires().set(&ways_between(&MEMBERS), Weather::default());
    load.end(&trio, NEEDS);
}

fn inject(trio: &mut Trio, dead: &mut Vec<u8>, fault: Fault) {
    match fault {
        Fault::Kill(whom) => {
            let whom = whom.or_else(|| trio.leader_now());
            if let Some(member) = whom.filter(|member| !dead.contains(member)) {
                trio.kill(member);
                dead.push(member);
            }
        }
        Fault::StartAll => dead.drain(..).for_each(|member| trio.start_again(member)),
        Fault::Freeze(member) if !dead.contains(&member) => trio.member(member).freeze(),
        Fault::Thaw(member) if !dead.contains(&member) => trio.member(member).thaw(),
        Fault::Freeze(_) | Fault::Thaw(_) => {}
        Fault::Ways(ways, weather) => trio.wires().set(&ways, weather),
        Fault::Reset(ways) => trio.wires().reset(&ways),
        Fault::HandOver => {
            // It is asked; whether it does, and when, is its own business.
            let _ = trio.yard(&["cluster", "transfer-leader"]).run();
        }
    }
}
