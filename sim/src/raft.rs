//! The consensus, as openraft keeps its contract in its default mode: elections by votes on
//! (term, member), so that two leaders can share a term; a log that is durable before it is
//! acknowledged; commits by a majority; joint changes of the membership.
//!
//! It is a model, there to put the state machine into every situation that the real one can: an
//! entry that a lost leader left behind, kept or cut; a deposed leader that goes on; a member that
//! lost what it had not flushed.

use crate::clock::MS;
use crate::leader::Lead;
use crate::log::{Disk, Entry, Position, Snapshot};
use crate::member::Role;
use crate::message::{Done, Event, Message, Party};
use crate::world::World;
use std::collections::BTreeSet;
use std::rc::Rc;
use yard_common::id::{LeaderId, LogIndex, MemberId};
use yard_core::command::{Cluster, Command, Envelope};
use yard_core::lease::{Keeper, LeaseTimes, Membership, MembershipId};
use yard_core::state::State;

/// Period of heartbeats. Slower than the real one, to save events.
pub const BEAT_US: u64 = 250 * MS;
/// Silence after which a follower may campaign.
const ELECTION_US: u64 = 700 * MS;
/// Entries of one message.
const APPEND_MAX: u64 = 64;

impl World {
    /// A member starts, from its snapshot and its log.
    pub fn start_member(&mut self, at: usize) {
        let now_us = self.now_us;
        let member = &mut self.members[at];
        if member.up {
            return;
        }
        (member.up, member.life) = (true, member.life + 1);
        (member.role, member.hint, member.heard_us) = (Role::Follower, None, now_us);
        member.agreed = 0;
        member.disk_busy_us = (now_us, now_us);
        member.cache = Default::default();
        let snapshot = member.disk.snapshot.clone();
        match &snapshot {
            Some(snapshot) => {
                let state = State::from_bytes(&snapshot.bytes);
                member.state = state.expect("a snapshot reads back");
                member.applied = snapshot.last;
            }
            None => {
                member.state = State::default();
                member.applied = crate::log::START;
            }
        }
        member.commit = member.applied.index;
        let local_ms = member.local_ms(now_us);
        let membership = member.state.membership.clone();
        member.keeper = Keeper::new(member.id, membership, LeaseTimes::DEFAULT, local_ms);
        member.keeper.restore(member.disk.promises.iter().copied());
        member.keeper.membership_appended(member.disk.membership().id);
        let leases: Vec<_> = member.state.nodes.iter().map(|(id, node)| (id, node.lease)).collect();
        for (node, lease) in leases {
            member.keeper.lease_applied(node, lease);
        }
        if snapshot.is_some() {
            self.reached("member restarted from a snapshot");
        }
        self.note(|w| format!("member {} starts, {} applied", at, w.members[at].commit));
        self.schedule_election(at);
    }

    /// A member stops; with a power cut it also forgets what was not flushed.
    pub fn stop_member(&mut self, at: usize, power: bool) {
        if !self.members[at].up {
            return;
        }
        let uncommitted = self.members[at].disk.last().index > self.members[at].commit;
        if matches!(self.members[at].role, Role::Leader(_)) && uncommitted {
            self.reached("leader lost with uncommitted entries");
        }
        let unsynced = self.members[at].disk.last().index - self.members[at].disk.durable.index;
        let keep = if unsynced > 0 { self.rng.below(unsynced + 1) } else { 0 };
        let now_us = self.now_us;
        let member = &mut self.members[at];
        (member.up, member.role, member.hint) = (false, Role::Follower, None);
        if power {
            member.disk.lose_unsynced(keep);
            member.clock.boot(now_us);
        } else {
            // The page cache outlives the process.
            member.disk.durable.vote = member.disk.vote;
            member.disk.durable.index = member.disk.last().index;
            member.disk.durable.promises = member.disk.promises.len();
        }
        if power && keep < unsynced {
            self.reached("unsynced entries lost");
        }
        self.note(|_| format!("member {at} stops (power cut: {power})"));
    }

    fn schedule_election(&mut self, at: usize) {
        let wait_us = ELECTION_US + self.rng.below(ELECTION_US);
        let life = self.members[at].life;
        self.after(wait_us, Event::Election { member: at, life });
    }

    /// A member looks whether somebody leads.
    pub fn on_election(&mut self, at: usize) {
        let member = &self.members[at];
        let silent = self.now_us >= member.heard_us + ELECTION_US;
        if silent && !matches!(member.role, Role::Leader(_)) {
            self.campaign(at);
        }
        self.schedule_election(at);
    }

    /// A member wants to lead.
    pub fn campaign(&mut self, at: usize) {
        let member = &mut self.members[at];
        if !member.up || !member.disk.membership().is_voter(member.id) {
            return;
        }
        let vote =
            LeaderId { term: member.disk.vote.term.max(member.term_seen) + 1, member: member.id };
        member.disk.vote = vote;
        self.step_down(at);
        self.note(|_| format!("member {at} campaigns as {vote}"));
        self.members[at].role = Role::Candidate(BTreeSet::new());
        self.sync(at, Done::Vote { vote, reply: None });
    }

    /// Asks the disk to make what was written durable.
    pub fn sync(&mut self, at: usize, done: Done) {
        let cost_us = self.rng.magnitude(200, 6_000) * self.members[at].disk_factor;
        let member = &mut self.members[at];
        let (flushing_us, gathering_us) = member.disk_busy_us;
        if self.now_us >= flushing_us {
            // Whatever comes until this batch begins shares its flush.
            let begin_us = gathering_us.max(self.now_us);
            member.disk_busy_us = (begin_us, begin_us + cost_us);
        }
        let (at_us, life) = (member.disk_busy_us.1, member.life);
        self.agenda.at(at_us, Event::Synced { member: at, life, done: Box::new(done) });
    }

    /// The disk is done.
    pub fn on_synced(&mut self, at: usize, done: Done) {
        let member = &mut self.members[at];
        match done {
            Done::Vote { vote, reply } => {
                member.disk.durable.vote = member.disk.durable.vote.max(vote);
                if member.disk.vote != vote {
                    return;
                }
                if let Some((to, message)) = reply {
                    self.send(Party::Member(at), to, message);
                } else if let Role::Candidate(votes) = &mut member.role {
                    votes.insert(member.id);
                    let last = member.disk.last();
                    self.count_votes(at);
                    let ask = Message::VoteAsk { candidate: vote, last };
                    self.send_to_members(at, &ask);
                }
            }
            Done::Log { upto } => {
                if member.disk.position(upto.index) != Some(upto) {
                    return;
                }
                let durable = &mut member.disk.durable;
                durable.index = durable.index.max(upto.index);
                match &member.role {
                    Role::Leader(_) => self.advance_commit(at),
                    Role::Follower | Role::Candidate(_) => self.acknowledge(at, upto.index),
                }
            }
            Done::Promise { count, intent } => {
                member.disk.durable.promises = member.disk.durable.promises.max(count);
                let _ = member.keeper.confirm(intent);
            }
        }
    }

    /// Tells the leader how far the log is durable.
    fn acknowledge(&mut self, at: usize, index: u64) {
        let member = &self.members[at];
        let (vote, hint, index) = (member.disk.vote, member.hint, index.min(member.agreed));
        if let Some(leader) = hint.filter(|leader| self.members[*leader].id == vote.member) {
            let say = Message::AppendSay { leader: vote, ok: true, index, vote };
            self.send(Party::Member(at), Party::Member(leader), say);
        }
    }

    /// Sends to all other members that are part of the cluster.
    pub fn send_to_members(&mut self, at: usize, message: &Message) {
        for to in 0..self.members.len() {
            if to != at && self.members[to].enrolled {
                self.send(Party::Member(at), Party::Member(to), message.clone());
            }
        }
    }

    /// Somebody asks for this member's vote.
    pub fn on_vote_ask(&mut self, at: usize, from: Party, candidate: LeaderId, last: Position) {
        let now_us = self.now_us;
        let member = &mut self.members[at];
        let mine = member.disk.vote;
        let led = member.hint.is_some() && now_us < member.heard_us + ELECTION_US;
        let settled = led && candidate.term > mine.term && !self.scenario.rude_elections;
        let granted = candidate > mine && last >= member.disk.last() && !settled;
        if !granted {
            let own = member.disk.last();
            self.note(|_| {
                format!(
                    "member {at} does not vote for {candidate}: {last:?}, {own:?}, {mine} {led}"
                )
            });
            let say = Message::VoteSay { candidate, granted: false, vote: mine };
            return self.send(Party::Member(at), from, say);
        }
        (member.disk.vote, member.agreed) = (candidate, 0);
        if candidate.term == mine.term {
            self.reached("vote moved within a term");
        }
        self.step_down(at);
        let say = Message::VoteSay { candidate, granted: true, vote: candidate };
        self.sync(at, Done::Vote { vote: candidate, reply: Some((from, say)) });
    }

    /// An answer to this member's campaign.
    pub fn on_vote_say(&mut self, at: usize, from: usize, candidate: LeaderId, granted: bool) {
        let voter = self.members[from].id;
        let member = &mut self.members[at];
        if member.disk.vote != candidate || !granted {
            return;
        }
        if let Role::Candidate(votes) = &mut member.role {
            votes.insert(voter);
            self.count_votes(at);
        }
    }

    /// Leads, if a majority voted for it.
    fn count_votes(&mut self, at: usize) {
        let member = &self.members[at];
        let Role::Candidate(votes) = &member.role else { return };
        if !member.disk.membership().is_majority(|id| votes.contains(&id)) {
            return;
        }
        let id = member.disk.vote;
        let next = member.disk.last().index + 1;
        let rival = self.members.iter().any(|other| match &other.role {
            Role::Leader(lead) => other.up && lead.id.term == id.term,
            Role::Follower | Role::Candidate(_) => false,
        });
        if rival {
            self.reached("two leaders in one term");
        }
        self.stats.leaders += 1;
        self.note(|_| format!("member {at} leads as {id}"));
        let members = self.members.len();
        let member = &mut self.members[at];
        member.role = Role::Leader(Box::new(Lead::new(id, next, members)));
        member.hint = Some(at);
        let barrier = Command::Cluster(Cluster::LeaderStarted);
        let envelope = self.envelope(at, id, yard_core::command::Actor::Leader, None);
        self.append(at, vec![(envelope, barrier)], None);
        let life = self.members[at].life;
        let beat = crate::message::LeaderWork::Beat;
        self.after(BEAT_US, Event::Lead { member: at, life, leader: id, what: beat });
    }

    /// A member leads no more. What it had not proposed yet, it may hand on as it is.
    pub fn step_down(&mut self, at: usize) {
        let role = std::mem::replace(&mut self.members[at].role, Role::Follower);
        let Role::Leader(mut lead) = role else { return };
        self.note(|_| format!("member {at} leads no more"));
        self.members[at].hint = None;
        let inbox: Vec<_> = lead.inbox.drain(..).collect();
        if !inbox.is_empty() && self.rng.chance(500) {
            let stamped = inbox.into_iter().map(|proposal| {
                let envelope = self.envelope(at, lead.id, proposal.actor, proposal.request);
                (envelope, proposal.command)
            });
            self.members_forward(at, stamped.collect());
        }
    }

    /// Hands commands to whoever may lead, stamped by a leader that is none any more.
    fn members_forward(&mut self, at: usize, commands: Vec<(Envelope, Command)>) {
        self.send_to_members(at, &Message::Forward { commands });
    }

    /// A leader appends an entry.
    pub fn append(
        &mut self,
        at: usize,
        commands: Vec<(Envelope, Command)>,
        change: Option<(BTreeSet<MemberId>, Option<BTreeSet<MemberId>>)>,
    ) -> u64 {
        let member = &mut self.members[at];
        let Role::Leader(lead) = &member.role else { unreachable!("only leaders append") };
        let index = member.disk.last().index + 1;
        let id = MembershipId(LogIndex(index));
        let members = change.map(|(voters, joint)| Membership { id, voters, joint });
        let position = Position { leader: lead.id, index };
        let changes = members.is_some();
        member.disk.append(Rc::new(Entry { position, commands, members }));
        if changes {
            member.keeper.membership_appended(id);
        }
        self.sync(at, Done::Log { upto: position });
        self.replicate_all(at);
        index
    }

    /// Brings all followers up to date.
    pub fn replicate_all(&mut self, at: usize) {
        for to in 0..self.members.len() {
            if to != at && self.members[to].enrolled {
                self.replicate(at, to, false);
            }
        }
    }

    /// Sends what a follower lacks; with `beat` at least a heartbeat.
    pub fn replicate(&mut self, at: usize, to: usize, beat: bool) {
        let member = &mut self.members[at];
        let (last, commit, base) = (member.disk.last().index, member.commit, member.disk.base());
        let Role::Leader(lead) = &mut member.role else { return };
        let leader = lead.id;
        let progress = &mut lead.progress[to];
        if beat && progress.next > progress.matched + 1 && !progress.moved {
            // What was sent before is lost, as far as anybody can tell.
            progress.next = progress.matched + 1;
        }
        progress.moved &= !beat;
        if progress.next <= base.index {
            let snapshot = member.disk.snapshot.clone().expect("a base comes from a snapshot");
            progress.next = snapshot.last.index + 1;
            let install = Message::Install { leader, snapshot, commit };
            self.reached("snapshot sent to a member that was far behind");
            return self.send(Party::Member(at), Party::Member(to), install);
        }
        if progress.next > last && !beat {
            return;
        }
        let from = progress.next;
        let end = last.min(from + APPEND_MAX - 1);
        progress.next = end + 1;
        let previous = member.disk.position(from - 1).expect("next is within the log");
        let entries = (from..=end).filter_map(|index| member.disk.entry(index).cloned()).collect();
        let append = Message::Append { leader, previous, entries, commit };
        self.send(Party::Member(at), Party::Member(to), append);
    }

    /// Whether a message of this leader counts; if so it is followed from now on.
    fn follow(&mut self, at: usize, leader: LeaderId) -> bool {
        let now_us = self.now_us;
        let mine = self.members[at].disk.vote;
        if leader < mine {
            return false;
        }
        let by = self.members.iter().position(|member| member.id == leader.member);
        if leader > mine || !matches!(self.members[at].role, Role::Follower) {
            self.members[at].disk.vote = leader;
            self.step_down(at);
            (self.members[at].role, self.members[at].agreed) = (Role::Follower, 0);
            self.sync(at, Done::Vote { vote: leader, reply: None });
        }
        let member = &mut self.members[at];
        (member.hint, member.heard_us) = (by, now_us);
        true
    }

    /// Entries of a leader arrive.
    pub fn on_append(
        &mut self,
        at: usize,
        from: Party,
        leader: LeaderId,
        previous: Position,
        entries: &[Rc<Entry>],
        commit: u64,
    ) {
        let refuse = |vote, index| Message::AppendSay { leader, ok: false, index, vote };
        if !self.follow(at, leader) {
            let vote = self.members[at].disk.vote;
            return self.send(Party::Member(at), from, refuse(vote, 0));
        }
        let member = &mut self.members[at];
        let base = member.disk.base().index;
        if previous.index >= base && member.disk.position(previous.index) != Some(previous) {
            let index = member.disk.last().index.min(previous.index.saturating_sub(1));
            let vote = member.disk.vote;
            return self.send(Party::Member(at), from, refuse(vote, index));
        }
        let mut upto = previous.index.max(base);
        let mut cut = false;
        let mut grown = false;
        for entry in entries.iter().filter(|entry| entry.position.index > base) {
            let index = entry.position.index;
            upto = index;
            if member.disk.position(index) == Some(entry.position) {
                continue;
            }
            if index <= member.disk.last().index {
                assert!(index > member.commit, "entry {index} is committed and would be cut");
                member.disk.truncate(index - 1);
                cut = true;
            }
            member.disk.append(Rc::clone(entry));
            grown = true;
        }
        if cut || grown {
            let latest = member.disk.membership().id;
            member.keeper.membership_appended(latest);
        }
        let durable = member.disk.durable.index >= upto;
        member.agreed = member.agreed.max(upto);
        member.commit = member.commit.max(commit.min(upto));
        if cut {
            self.reached("uncommitted entries of a lost leader cut");
        }
        if durable {
            self.acknowledge(at, upto);
        } else {
            let position = self.members[at].disk.position(upto).expect("it was just compared");
            self.sync(at, Done::Log { upto: position });
        }
        self.apply_committed(at);
    }

    /// A whole state arrives.
    pub fn on_install(&mut self, at: usize, leader: LeaderId, snapshot: &Rc<Snapshot>) {
        if !self.follow(at, leader) {
            return;
        }
        let now_us = self.now_us;
        let member = &mut self.members[at];
        if snapshot.last.index > member.applied.index {
            member.disk.compact(Rc::clone(snapshot));
            let state = State::from_bytes(&snapshot.bytes).expect("a snapshot reads back");
            (member.state, member.applied) = (state, snapshot.last);
            member.agreed = member.agreed.max(snapshot.last.index);
            member.commit = member.commit.max(snapshot.last.index);
            member.cache = Default::default();
            member.keeper.membership_appended(member.disk.membership().id);
            let local_ms = member.local_ms(now_us);
            member.keeper.membership_applied(member.state.membership.clone(), local_ms);
            for (id, node) in member.state.nodes.iter() {
                member.keeper.lease_applied(id, node.lease);
            }
            self.reached("snapshot installed");
            self.observe_replica(at);
        }
        let index = self.members[at].applied.index;
        self.acknowledge(at, index);
    }

    /// A follower says how far it is.
    pub fn on_append_say(&mut self, at: usize, from: usize, ok: bool, index: u64, vote: LeaderId) {
        let member = &mut self.members[at];
        let Role::Leader(lead) = &mut member.role else { return };
        if vote > lead.id {
            member.disk.vote = member.disk.vote.max(vote);
            return self.step_down(at);
        }
        let progress = &mut lead.progress[from];
        progress.moved = true;
        if ok {
            progress.matched = progress.matched.max(index);
            progress.next = progress.next.max(index + 1);
            self.advance_commit(at);
        } else {
            progress.next = (index + 1).max(progress.matched + 1);
        }
        self.replicate(at, from, false);
    }

    /// Commits what a majority has on its disks, as far as this leader wrote it itself.
    fn advance_commit(&mut self, at: usize) {
        let member = &self.members[at];
        let Role::Leader(lead) = &member.role else { return };
        let durable = |id: MemberId| {
            let other = self.members.iter().position(|other| other.id == id)?;
            if other == at {
                Some(member.disk.durable.index)
            } else {
                Some(lead.progress[other].matched)
            }
        };
        let Some(reached) = member.disk.membership().majority_ms(durable) else { return };
        let own = member.disk.position(reached).is_some_and(|p| p.leader == lead.id);
        if own && reached > member.commit {
            self.members[at].commit = reached;
            self.apply_committed(at);
            self.after_commit(at);
        }
    }

    /// Carries a change of the membership on.
    fn after_commit(&mut self, at: usize) {
        let member = &self.members[at];
        let Role::Leader(lead) = &member.role else { return };
        let id = lead.id;
        let latest = member.disk.membership().clone();
        if latest.id.0.0 > member.commit || !lead.started {
            return;
        }
        let next = match &latest.joint {
            Some(voters) => Some((voters.clone(), None)),
            None => {
                if !latest.is_voter(member.id) {
                    self.step_down(at);
                }
                self.wanted_change(at, &latest)
            }
        };
        if let Some((voters, joint)) = next {
            let members = Cluster::Members { voters: voters.clone(), joint: joint.clone() };
            let envelope = self.envelope(at, id, yard_core::command::Actor::Leader, None);
            let command = Command::Cluster(members);
            self.append(at, vec![(envelope, command)], Some((voters, joint)));
        }
    }

    /// The change of the membership that is to be made, once the new member has caught up.
    fn wanted_change(
        &mut self,
        at: usize,
        latest: &Membership,
    ) -> Option<(BTreeSet<MemberId>, Option<BTreeSet<MemberId>>)> {
        let (new, old) = self.replacement?;
        let (new_id, old_id) = (self.members[new].id, self.members[old].id);
        if latest.is_voter(new_id) && !latest.is_voter(old_id) {
            self.replacement = None;
            self.stop_member(old, false);
            self.members[old].enrolled = false;
            self.reached("member replaced");
            return None;
        }
        let member = &self.members[at];
        let Role::Leader(lead) = &member.role else { return None };
        let caught_up = lead.progress[new].matched + 20 > member.commit;
        if !caught_up || old == at {
            return None;
        }
        let mut voters = latest.voters.clone();
        voters.remove(&old_id);
        voters.insert(new_id);
        Some((latest.voters.clone(), Some(voters)))
    }

    /// A member writes a snapshot and drops the log before it.
    pub fn take_snapshot(&mut self, at: usize) {
        let member = &mut self.members[at];
        if !member.up || member.applied.index == member.disk.base().index {
            return;
        }
        let bytes = member.state.to_bytes();
        let membership = member.state.membership.clone();
        if membership.voters.is_empty() {
            return;
        }
        let snapshot = Rc::new(Snapshot { last: member.applied, membership, bytes });
        member.disk.compact(snapshot);
        self.stats.snapshots += 1;
    }

    /// Applies what is committed.
    pub fn apply_committed(&mut self, at: usize) {
        loop {
            let member = &self.members[at];
            let next = member.applied.index + 1;
            if next > member.commit || self.violation.is_some() {
                return;
            }
            let entry = member.disk.entry(next).map(Rc::clone).expect("committed entries are kept");
            self.apply_entry(at, &entry);
            let member = &self.members[at];
            if member.applied.index - member.disk.base().index >= self.scenario.snapshot_every {
                self.take_snapshot(at);
            }
        }
    }

    /// Whether the log of a member still holds an entry with the cluster's first commands.
    #[must_use]
    pub fn log_begins_cluster(disk: &Disk) -> bool {
        let from = disk.base().index + 1;
        let entries = (from..=disk.last().index).filter_map(|index| disk.entry(index));
        let mut commands = entries.flat_map(|entry| &entry.commands);
        commands.any(|(_, c)| matches!(c, Command::Cluster(Cluster::Initialise { .. })))
    }
}
