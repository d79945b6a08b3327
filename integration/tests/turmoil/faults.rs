//! What goes wrong in a run, and when: all of it from the seed, before the run begins.

use crate::chance::Chance;
use crate::made::{MEMBERS, NODES};
use yard_coordinator::env::Crash;

/// One thing that goes wrong, or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A member is killed.
    Kill(u64, Crash),
    /// Whoever leads is killed, if somebody does.
    KillLeader(Crash),
    /// It starts again.
    Start(u64),
    /// So do all that were killed.
    StartAll,
    /// The disk of a member fails after so many more steps, and at each one from then on.
    Break(u64, u64),
    /// What two members send to each other arrives later, when the link is well again.
    Hold(u64, u64),
    /// The end of that.
    Release(u64, u64),
    /// What two members send to each other is lost.
    Cut(u64, u64),
    /// What the first sends to the second is lost.
    CutOneWay(u64, u64),
    /// The end of either.
    Mend(u64, u64),
    /// A member is cut off from everybody, clients too.
    Isolate(u64),
    /// The end of that.
    Rejoin(u64),
    /// A machine is cut off from all members, perhaps for so long that it is given up.
    Lose(u32),
    /// The end of that.
    Find(u32),
    /// Messages take up to so many milliseconds.
    Delay(u64),
    /// A wall clock jumps by so many milliseconds.
    Step(u64, i64),
    /// A leader is asked to hand over to this member.
    Transfer(u64),
    /// A member writes a snapshot.
    Snapshot(u64),
}

/// How long things go wrong, in milliseconds.
pub(crate) const FAULTS_MS: u64 = 10_000;
/// How long messages take at most when nothing is wrong, in milliseconds.
pub(crate) const DELAY_MS: u64 = 4;

/// The plan of a run: times in milliseconds from its begin, in order. At the end all is well.
pub(crate) fn plan(seed: u64) -> Vec<(u64, Fault)> {
    let mut chance = Chance::new(seed, "faults");
    let mut plan = Vec::new();
    let mut at_ms = 1_000;
    // What is broken until when: a thing breaks anew only when it is whole.
    let mut member_ms = [0; MEMBERS as usize + 1];
    let mut nodes_ms = [0; NODES as usize];
    let mut links_ms = [[0; MEMBERS as usize + 1]; MEMBERS as usize + 1];
    loop {
        at_ms += chance.within(50, 1_500);
        if at_ms + 50 > FAULTS_MS {
            break;
        }
        let lasts = chance.within(50, 3_000);
        let until_ms = (at_ms + lasts).min(FAULTS_MS);
        let one = chance.within(1, MEMBERS + 1);
        let other = one % MEMBERS + 1;
        let (low, high) = (one.min(other) as usize, one.max(other) as usize);
        let whole = links_ms[low][high] <= at_ms;
        let mut pass = |begins, ends| {
            plan.push((at_ms, begins));
            plan.push((until_ms, ends));
        };
        match chance.within(0, 14) {
            0..3 if member_ms[one as usize] <= at_ms => {
                let crash = match chance.within(0, 3) {
                    0 => Crash::Process,
                    1 => Crash::Nothing,
                    _ => Crash::Some(chance.next()),
                };
                pass(Fault::Kill(one, crash), Fault::Start(one));
                member_ms[one as usize] = until_ms + 1;
            }
            3 | 4 if whole => pass(Fault::Hold(one, other), Fault::Release(one, other)),
            5 if whole => pass(Fault::Cut(one, other), Fault::Mend(one, other)),
            6 if whole => pass(Fault::CutOneWay(one, other), Fault::Mend(one, other)),
            7 if links_ms.iter().flatten().all(|ms| *ms <= at_ms) => {
                pass(Fault::Isolate(one), Fault::Rejoin(one));
                links_ms = [[until_ms + 1; MEMBERS as usize + 1]; MEMBERS as usize + 1];
            }
            8 => pass(Fault::Delay(chance.within(10, 60)), Fault::Delay(DELAY_MS)),
            9 => {
                let by_ms = chance.within(0, 7_200_000) as i64 - 3_600_000;
                plan.push((at_ms, Fault::Step(one, by_ms)));
            }
            10 => plan.push((at_ms, Fault::Transfer(one))),
            11 => plan.push((at_ms, Fault::Snapshot(one))),
            12 => {
                let node = chance.within(0, u64::from(NODES)) as u32;
                if nodes_ms[node as usize] <= at_ms {
                    let until_ms = (at_ms + chance.within(500, 8_000)).min(FAULTS_MS);
                    plan.push((at_ms, Fault::Lose(node)));
                    plan.push((until_ms, Fault::Find(node)));
                    nodes_ms[node as usize] = until_ms + 1;
                }
            }
            13 if member_ms[one as usize] <= at_ms => {
                plan.push((at_ms, Fault::Break(one, chance.within(1, 40))));
                plan.push((until_ms, Fault::Kill(one, Crash::Some(chance.next()))));
                plan.push((until_ms, Fault::Start(one)));
                member_ms[one as usize] = until_ms + 1;
            }
            _ => continue,
        }
        if matches!(plan.last(), Some((_, Fault::Release(..) | Fault::Mend(..)))) {
            links_ms[low][high] = until_ms + 1;
        }
    }
    // Stable: what begins together stays in its order.
    plan.sort_by_key(|(at_ms, _)| *at_ms);
    plan
}
