//! Members compare what they hold, so that none differs from the others and says nothing.
//!
//! Once a second each member asks each other one for the hashes over replies and events at an
//! entry that both have applied, and for the hashes of slices of the state ([`scan`]). Whoever is
//! the odd one stops ([`verdict`]). They also tell each other what they know of each other: a
//! member that comes back with an older copy of its folder is told so, and stops. And each says
//! how its disk is (docs/adr/0012).
//!
//! **Invariant.** A member that differs from a majority of the voters that it hears does not go
//! on for longer than two rounds.

mod scan;
mod verdict;
mod wire;

pub(crate) use wire::{Opinion, Order, Own};

use self::scan::{Rounds, Scans};
use self::verdict::{Held, Verdict, judge};
use self::wire::{Ask, Known, Say, Scanned, unpack};
use crate::env::Env;
use crate::proposer::Room;
use crate::raft::{
    Acks, AnswerError, Consensus, FatalError, Fault, Lane, Letter, Question, Role, Shared,
    Transport,
};
use crate::storage::{Gauge, Peer, Vote};
use bytes::Bytes;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use yard_common::id::{LogIndex, MemberId};
use yard_core::state::slice_name;

/// Period of the questions.
const PERIOD: Duration = Duration::from_secs(1);
/// How long an answer may take; without one there is another chance in the next round.
const WAIT: Duration = Duration::from_millis(500);
/// Rounds in a row in which a member may be in doubt whether it is the odd one.
const UNDECIDED_MAX: u32 = 3;

/// What it is built on.
pub(crate) struct Parts {
    pub(crate) own: MemberId,
    pub(crate) consensus: Consensus,
    pub(crate) log: Gauge,
    pub(crate) shared: Shared,
    pub(crate) room: Room,
    pub(crate) acks: Acks,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) fault: Fault,
}

/// Compares this member with the others. Clones are the same.
#[derive(Clone)]
pub(crate) struct Comparer(Arc<Inner>);

struct Inner {
    parts: Parts,
    scans: Scans,
    heard: Mutex<BTreeMap<MemberId, Heard>>,
    /// Slices that were found equal with another member's, and differences of any kind.
    equal: AtomicU64,
    unequal: AtomicU64,
    /// The latest difference, and when it was found.
    difference: Mutex<Option<(String, u64)>>,
    /// Whether it was said that somebody hashes in another way.
    told_schema: AtomicBool,
}

/// What was heard of a member.
#[derive(Clone, Copy, Debug)]
struct Heard {
    own: Own,
    /// The highest vote that it ever said it had.
    vote: Option<Vote>,
    at_ms: u64,
}

/// Votes in their order.
fn rank(vote: &Option<Vote>) -> Option<(yard_common::id::LeaderId, bool)> {
    vote.map(|vote| (vote.leader, vote.committed))
}

impl Comparer {
    pub(crate) fn new(parts: Parts) -> Comparer {
        let (scans, heard) = (Scans::default(), Mutex::default());
        let (equal, unequal) = (AtomicU64::new(0), AtomicU64::new(0));
        let difference = Mutex::default();
        let told_schema = AtomicBool::new(false);
        Comparer(Arc::new(Inner { parts, scans, heard, equal, unequal, difference, told_schema }))
    }

    /// How many slices were found equal with those of other members, and how many differences
    /// there were.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.0.equal.load(Ordering::Relaxed), self.0.unequal.load(Ordering::Relaxed))
    }

    fn heard(&self) -> MutexGuard<'_, BTreeMap<MemberId, Heard>> {
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest difference, and how many milliseconds ago it was found.
    pub(crate) fn difference(&self) -> Option<(String, u64)> {
        let kept = self.0.difference.lock().unwrap_or_else(PoisonError::into_inner);
        let (what, at_ms) = kept.clone()?;
        Some((what, self.0.parts.env.boot_ms().saturating_sub(at_ms)))
    }

    /// What this member says of itself.
    pub(crate) fn own(&self) -> Own {
        let Parts { log, room, .. } = &self.0.parts;
        let (vote, last) = (log.kept_vote(), log.last());
        Own { vote, last, is_full: room.is_low(), free_bytes: room.free_bytes() }
    }

    /// What the others said of themselves, and how many milliseconds ago.
    pub(crate) fn others(&self) -> BTreeMap<MemberId, (Own, u64)> {
        let now_ms = self.0.parts.env.boot_ms();
        let told = |(id, heard): (&MemberId, &Heard)| {
            (*id, (heard.own, now_ms.saturating_sub(heard.at_ms)))
        };
        self.heard().iter().map(told).collect()
    }

    fn note(&self, member: MemberId, own: Own) {
        let at_ms = self.0.parts.env.boot_ms();
        let mut heard = self.heard();
        let before = heard.get(&member).and_then(|heard| heard.vote);
        let vote = if rank(&own.vote) > rank(&before) { own.vote } else { before };
        heard.insert(member, Heard { own, vote, at_ms });
    }

    fn known(&self, member: MemberId) -> Known {
        let vote = self.heard().get(&member).and_then(|heard| heard.vote);
        Known { vote, acked: self.0.parts.acks.of(member) }
    }

    /// Stops this member if somebody knows it with more than it has.
    fn check_own(&self, from: MemberId, known: &Known) {
        let own = self.own();
        let forgot = rank(&known.vote) > rank(&own.vote);
        let leader = own.vote.map(|vote| vote.leader);
        let lost = known.acked.is_some_and(|acked| {
            let last = own.last.map_or(LogIndex(0), |last| last.index);
            leader < Some(acked.vote.leader)
                || (leader == Some(acked.vote.leader) && last < acked.last.index)
        });
        let what = match (forgot, lost) {
            (true, _) => "a vote that this member gave",
            (false, true) => "entries that this member acked",
            (false, false) => return,
        };
        self.0.parts.fault.set(FatalError::OldCopy { from, what });
    }

    /// Answers another member. The caller has made sure that a member asks.
    pub(crate) fn answer(&self, body: &[u8]) -> Result<Bytes, AnswerError> {
        let unknown = || AnswerError::Unknown("a question about what is held here".into());
        let ask: Ask = unpack(body).ok_or_else(unknown)?;
        let Parts { consensus, shared, .. } = &self.0.parts;
        // Before anything is noted: what the asker says now is no news of the past.
        let known = self.known(ask.from);
        self.note(ask.from, ask.own);
        self.check_own(ask.from, &ask.known);
        if let Some(order) = ask.order.filter(Order::is_sound)
            && consensus.roles().current() == Role::Follows(Some(ask.from))
        {
            shared.order(order);
        }
        let opinion = shared.opinion(ask.index);
        let say = Say { opinion, scanned: self.0.scans.latest(), own: self.own(), known };
        Ok(minicbor::to_vec(&say).expect("writing to memory does not fail").into())
    }

    async fn ask(&self, to: MemberId, peer: Peer, ask: Ask) -> Option<(MemberId, Say)> {
        let body = minicbor::to_vec(&ask).expect("writing to memory does not fail").into();
        let (question, lane) = (Question::Compare, Lane::Control);
        let letter = Letter { to, peer, lane, question, body, deadline: WAIT };
        let answer = timeout(WAIT, self.0.parts.transport.ask(letter)).await.ok()?;
        let answer = answer.map_err(|error| tracing::debug!(%error, "not compared")).ok()?;
        let say: Say = unpack(&answer).filter(Say::is_sound)?;
        self.note(to, say.own);
        self.check_own(to, &say.known);
        Some((to, say))
    }

    /// Asks everybody once. Returns whether this member is in doubt.
    async fn round(&self, rounds: &mut Rounds) -> Verdict {
        let Parts { own, consensus, shared, .. } = &self.0.parts;
        let peers = consensus.peers();
        let leader = match consensus.roles().current() {
            Role::Leads(_) => Some(*own),
            Role::Follows(leader) => leader,
        };
        let index = *shared.index().borrow();
        let others = peers.into_iter().filter(|(id, _)| id != own).collect::<Vec<_>>();
        let order = (leader == Some(*own) && !others.is_empty())
            .then(|| rounds.next(index, shared.state().1.schema(), &self.0.scans.latest()));
        if let Some(order) = order {
            shared.order(order);
        }
        let asks = others.into_iter().map(|(id, peer)| {
            let ask = Ask { from: *own, index, order, own: self.own(), known: self.known(id) };
            self.ask(id, peer, ask)
        });
        let said: BTreeMap<MemberId, Say> = join_all(asks).await.into_iter().flatten().collect();
        let votes = said.values().map(|say| say.own.vote).chain([self.own().vote]);
        self.judge_all(elected(votes.flatten()), &said)
    }

    /// Draws the consequences of what was said, and says how sure it is.
    fn judge_all(&self, leader: Option<MemberId>, said: &BTreeMap<MemberId, Say>) -> Verdict {
        let mut worst = self.judge_history(leader, said);
        for scanned in self.0.scans.latest() {
            let verdict = self.judge_scan(leader, said, &scanned);
            if verdict != Verdict::Agreed {
                worst = verdict;
            }
        }
        worst
    }

    fn judge_history(&self, leader: Option<MemberId>, said: &BTreeMap<MemberId, Say>) -> Verdict {
        let (mut groups, mut difference) = (Vec::new(), None);
        let held = said.iter().filter_map(|(member, say)| {
            let theirs = say.opinion?;
            let ours = self.0.parts.shared.opinion(theirs.index)?;
            if !ours.is_like(&theirs) {
                self.tell_schema(*member, &ours, &theirs);
                return None;
            }
            Some((
                *member,
                match ours == theirs {
                    true => Held::Same,
                    false => {
                        difference.get_or_insert((ours, theirs, *member));
                        group_of(&mut groups, theirs)
                    }
                },
            ))
        });
        let held: BTreeMap<MemberId, Held> = held.collect();
        let Some((ours, theirs, member)) = difference else { return Verdict::Agreed };
        let what = match (ours.level != theirs.level, ours.history != theirs.history) {
            (true, _) => "the feature level",
            (false, true) => "replies and events",
            (false, false) => "the digest of the records",
        };
        let what = format!("{what}, from those of member {member}");
        self.conclude(leader, &held, ours.index, what)
    }

    /// Says once that members hash in different ways: then nobody looks after them.
    fn tell_schema(&self, member: MemberId, ours: &Opinion, theirs: &Opinion) {
        let (ours, theirs) = (ours.schema, theirs.schema);
        if ours != theirs && !self.0.told_schema.swap(true, Ordering::Relaxed) {
            tracing::warn!(%member, ours, theirs, "members of these versions cannot be compared");
        }
    }

    fn judge_scan(
        &self,
        leader: Option<MemberId>,
        said: &BTreeMap<MemberId, Say>,
        ours: &Scanned,
    ) -> Verdict {
        let (mut groups, mut difference) = (Vec::new(), None);
        let held = said.iter().filter_map(|(member, say)| {
            let theirs = say.scanned.iter().find(|theirs| theirs.order == ours.order)?;
            Some((
                *member,
                match ours == theirs {
                    true => {
                        self.0.equal.fetch_add(ours.hashes.len() as u64, Ordering::Relaxed);
                        Held::Same
                    }
                    false => {
                        difference.get_or_insert((theirs, *member));
                        group_of(&mut groups, theirs.clone())
                    }
                },
            ))
        });
        let held: BTreeMap<MemberId, Held> = held.collect();
        let Some((theirs, member)) = difference else { return Verdict::Agreed };
        let slices = ours.order.from..ours.order.to;
        let odd = slices.zip(ours.hashes.iter().zip(&theirs.hashes)).filter(|(_, (a, b))| a != b);
        let names: Vec<String> = odd.map(|(slice, _)| slice_name(slice)).collect();
        let what = format!("the state ({}), from that of member {member}", names.join(", "));
        self.conclude(leader, &held, ours.order.at, what)
    }

    fn conclude(
        &self,
        leader: Option<MemberId>,
        held: &BTreeMap<MemberId, Held>,
        index: LogIndex,
        what: String,
    ) -> Verdict {
        let Parts { own, consensus, fault, .. } = &self.0.parts;
        let verdict = judge(*own, leader, &consensus.voters(), held);
        self.0.unequal.fetch_add(1, Ordering::Relaxed);
        let told = (format!("at entry {index} of the log: {what}"), self.0.parts.env.boot_ms());
        *self.0.difference.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        tracing::error!(%index, what, ?held, ?verdict, "members differ");
        if verdict == Verdict::Odd {
            fault.set(FatalError::Differs { index, what });
        }
        verdict
    }
}

/// Who leads, by the highest vote that anybody said was won. What members make of the lead for
/// themselves may differ while it changes: of two, each might take the other for the leader.
fn elected(votes: impl Iterator<Item = Vote>) -> Option<MemberId> {
    let won = votes.filter(|vote| vote.committed).map(|vote| vote.leader);
    won.max().map(|leader| leader.member)
}

/// Members that hold the same get the same number.
fn group_of<T: PartialEq>(groups: &mut Vec<T>, value: T) -> Held {
    let known = groups.iter().position(|group| *group == value);
    let group = known.unwrap_or_else(|| {
        groups.push(value);
        groups.len() - 1
    });
    Held::Other(group as u64)
}

/// Compares until it is stopped.
pub(crate) async fn run(comparer: Comparer, stop: CancellationToken) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut rounds, mut undecided) = (Rounds::default(), 0);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => (),
        }
        let verdict = tokio::select! {
            () = stop.cancelled() => return,
            verdict = comparer.round(&mut rounds) => verdict,
        };
        undecided = if verdict == Verdict::Undecided { undecided + 1 } else { 0 };
        if undecided >= UNDECIDED_MAX {
            let index = *comparer.0.parts.shared.index().borrow();
            let what = "the leader, and no third member can be asked".into();
            comparer.0.parts.fault.set(FatalError::Differs { index, what });
        }
    }
}

/// Hashes slices until it is stopped.
pub(crate) async fn scan(comparer: Comparer, stop: CancellationToken) {
    let Parts { shared, env, .. } = &comparer.0.parts;
    scan::run(shared.clone(), Arc::clone(env), comparer.0.scans.clone(), stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::LeaderId;

    #[test]
    fn two_members_name_the_same_leader_while_the_lead_changes() {
        let vote = |term, member, committed| {
            let leader = LeaderId { term, member: MemberId(member) };
            Vote { leader, committed }
        };
        let of = |own: Vote, other: Vote| elected([own, other].into_iter());
        let (before, asks, won) = (vote(4, 1, true), vote(5, 2, false), vote(5, 2, true));
        for (one, two, leader) in [
            (before, before, Some(1)),
            // Nobody has answered the candidate yet, or only one of them knows of it.
            (before, asks, Some(1)),
            (asks, asks, None),
            (before, won, Some(2)),
            (asks, won, Some(2)),
        ] {
            assert_eq!(of(one, two), leader.map(MemberId));
            assert_eq!(of(two, one), leader.map(MemberId));
        }
    }
}
