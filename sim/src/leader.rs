//! What a leader does beside the consensus: it turns requests and reports into entries, lets the
//! scheduler run, keeps time, and pushes desired sets to agents.

use crate::clock::{MS, SECOND, Us};
use crate::member::Role;
use crate::message::{Event, Hello, LeaderWork, Message, Party};
use crate::world::World;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use yard_common::id::{BootId, LeaderId, LeaseId, NodeId, RequestId};
use yard_core::agent::Report;
use yard_core::command::{
    Actor, Cluster, Command, Envelope, NodeCommand, NodeReport, Rejection, Reply, Stamp,
};
use yard_core::event::{Applied, Event as Fact};
use yard_core::lease::Ballots;
use yard_core::scheduler::{Budget, Policy, plan};

/// Commands of one entry.
const BATCH_MAX: usize = 64;
/// Entries that a leader has on their way.
const IN_FLIGHT_MAX: usize = 4;
/// Time between two rounds of the scheduler at least.
const PLAN_US: Us = 100 * MS;

/// What a leader remembers as long as it leads.
#[derive(Debug)]
pub struct Lead {
    /// Its id.
    pub id: LeaderId,
    /// Where its first entry is.
    pub barrier: u64,
    /// Whether that is applied: only then it works.
    pub started: bool,
    /// The cluster's time at the barrier, and its own boot clock then.
    base_ms: (u64, u64),
    /// How far each member is.
    pub progress: Vec<Progress>,
    /// What is to be proposed.
    pub inbox: VecDeque<Proposal>,
    /// Entries on their way, and who waits for each of their commands.
    waiting: VecDeque<(u64, Vec<Waiter>)>,
    flush_set: bool,
    plan_set: bool,
    planning: bool,
    tick_us: Us,
    /// Streams of agents.
    pub sessions: BTreeMap<usize, Session>,
    /// What it knows about silent nodes.
    pub ballots: Ballots,
    /// The lease that each agent held when it said so last, and when. A node that was given up
    /// comes back by this alone; its stream ends with each of its reports, which count for nothing.
    pub held: BTreeMap<NodeId, (LeaseId, u64)>,
}

/// How far a follower is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The next entry to send.
    pub next: u64,
    /// The last one that is durable there.
    pub matched: u64,
    /// Whether it answered since the last heartbeat.
    pub moved: bool,
}

/// A command that waits for its entry.
#[derive(Debug)]
pub struct Proposal {
    /// Who asks.
    pub actor: Actor,
    /// As which request.
    pub request: Option<RequestId>,
    /// What.
    pub command: Command,
    /// Who wants to know what came of it.
    pub waiter: Waiter,
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiter {
    /// Nobody.
    Nobody,
    /// The scheduler.
    Scheduler,
    /// A client.
    Client(usize, RequestId),
    /// The agent of a machine, on this stream.
    Agent(usize, u64),
    /// The same, with how long it wants to be left alone; 0: it is back.
    Away(usize, u64, u64),
}

/// The stream of an agent.
#[derive(Clone, Debug)]
pub struct Session {
    /// Minted by the agent.
    pub stream: u64,
    /// The number of the next batch of reports.
    pub next: u64,
    /// When it was heard last.
    pub heard_us: Us,
    /// The boot that the agent speaks for. A set that was minted before this boot was known to
    /// the state names attempts that ended with the machine: it must never be sent to it.
    boot: BootId,
}

impl Lead {
    /// A leader that was just elected; `next`: the end of its log.
    #[must_use]
    pub fn new(id: LeaderId, next: u64, members: usize) -> Lead {
        Lead {
            id,
            barrier: next,
            started: false,
            base_ms: (0, 0),
            progress: vec![Progress { next, matched: 0, moved: false }; members],
            inbox: VecDeque::new(),
            waiting: VecDeque::new(),
            flush_set: false,
            plan_set: false,
            planning: false,
            tick_us: Us::MAX,
            sessions: BTreeMap::new(),
            ballots: Ballots::default(),
            held: BTreeMap::new(),
        }
    }

    /// The cluster's time, by the boot clock of this member.
    #[must_use]
    pub fn cluster_ms(&self, local_ms: u64) -> u64 {
        self.base_ms.0 + (local_ms - self.base_ms.1)
    }
}

impl World {
    /// The envelope of a command that this member proposes now.
    pub fn envelope(
        &self,
        at: usize,
        leader: LeaderId,
        actor: Actor,
        request: Option<RequestId>,
    ) -> Envelope {
        let member = &self.members[at];
        let local_ms = member.local_ms(self.now_us);
        let cluster_ms = match &member.role {
            Role::Leader(lead) if lead.started => lead.cluster_ms(local_ms),
            Role::Leader(_) | Role::Follower | Role::Candidate(_) => member.state.now_ms(),
        };
        let stamp = Stamp { cluster_ms, wall_ms: member.clock.wall_ms(self.now_us) };
        Envelope { actor, leader, stamp, request }
    }

    /// Regular work of a leader.
    pub fn on_lead(&mut self, at: usize, leader: LeaderId, what: LeaderWork) {
        let life = self.members[at].life;
        let again = Event::Lead { member: at, life, leader, what };
        let Some(lead) = self.members[at].lead().filter(|lead| lead.id == leader) else { return };
        match what {
            LeaderWork::Beat => {
                for to in 0..self.members.len() {
                    if to != at && self.members[to].enrolled {
                        self.replicate(at, to, true);
                    }
                }
                self.after(crate::raft::BEAT_US, again);
            }
            LeaderWork::Flush => {
                lead.flush_set = false;
                self.flush(at);
            }
            LeaderWork::Plan => {
                lead.plan_set = false;
                self.run_scheduler(at);
            }
            LeaderWork::Sweep => {
                self.sweep(at);
                self.after(500 * MS, again);
            }
            LeaderWork::Tick => {
                lead.tick_us = Us::MAX;
                self.keep_time(at);
            }
        }
    }

    fn lead_soon(&mut self, at: usize, wait_us: Us, what: LeaderWork) {
        let life = self.members[at].life;
        let Some(lead) = self.members[at].lead() else { return };
        let leader = lead.id;
        self.after(wait_us, Event::Lead { member: at, life, leader, what });
    }

    /// Puts a command among those that are to be proposed.
    pub fn enqueue(&mut self, at: usize, proposal: Proposal) {
        let Some(lead) = self.members[at].lead() else { return };
        lead.inbox.push_back(proposal);
        if !lead.flush_set {
            lead.flush_set = true;
            self.lead_soon(at, MS, LeaderWork::Flush);
        }
    }

    /// Proposes a command of the leader's own.
    pub fn propose_own(&mut self, at: usize, command: Command) {
        let waiter = Waiter::Nobody;
        self.enqueue(at, Proposal { actor: Actor::Leader, request: None, command, waiter });
    }

    /// Turns what was asked into an entry.
    fn flush(&mut self, at: usize) {
        let Some(lead) = self.members[at].lead() else { return };
        if lead.inbox.is_empty() || lead.waiting.len() >= IN_FLIGHT_MAX || !lead.started {
            return;
        }
        let leader = lead.id;
        let count = lead.inbox.len().min(BATCH_MAX);
        let proposals: Vec<Proposal> = lead.inbox.drain(..count).collect();
        let mut waiters = Vec::with_capacity(count);
        let mut commands = Vec::with_capacity(count);
        for proposal in proposals {
            waiters.push(proposal.waiter);
            let envelope = self.envelope(at, leader, proposal.actor, proposal.request);
            commands.push((envelope, proposal.command));
        }
        // The entry may be applied before `append` returns, if this member is alone.
        let index = self.members[at].disk.last().index + 1;
        if let Some(lead) = self.members[at].lead() {
            lead.waiting.push_back((index, waiters));
        }
        self.append(at, commands, None);
        self.flush_again(at);
    }

    fn flush_again(&mut self, at: usize) {
        let Some(lead) = self.members[at].lead() else { return };
        if !lead.inbox.is_empty() && !lead.flush_set && lead.waiting.len() < IN_FLIGHT_MAX {
            lead.flush_set = true;
            self.lead_soon(at, MS, LeaderWork::Flush);
        }
    }

    /// The barrier of a new leader is applied: its work begins.
    pub fn begin_work(&mut self, at: usize) {
        let local_ms = self.members[at].local_ms(self.now_us);
        let member = &mut self.members[at];
        let cluster_ms = member.state.now_ms();
        let fresh = member.state.cluster.is_none() && !World::log_begins_cluster(&member.disk);
        let Some(lead) = member.lead() else { return };
        lead.started = true;
        lead.base_ms = (cluster_ms, local_ms);
        if fresh {
            let id = lead.id;
            let (commands, voters) = self.first_commands(at, id);
            self.append(at, commands, Some((voters, None)));
        }
        self.lead_soon(at, 500 * MS, LeaderWork::Sweep);
        self.keep_time(at);
        self.plan_soon(at);
    }

    /// What a leader does about a command that it has applied.
    pub fn react(&mut self, at: usize, applied: &Applied) {
        let mut push = Vec::new();
        for fact in &applied.events {
            if let Fact::Desired { node, .. } = fact {
                push.push(*node);
            }
        }
        push.sort_unstable();
        push.dedup();
        for node in push {
            self.push_desired(at, node);
        }
    }

    /// What a leader does after an entry: answers, and what follows.
    pub fn after_entry(&mut self, at: usize, index: u64, outcomes: &[Result<Reply, Rejection>]) {
        let member = &mut self.members[at];
        let Some(lead) = member.lead() else { return };
        if index == lead.barrier {
            return self.begin_work(at);
        }
        if !lead.started {
            return;
        }
        if lead.waiting.front().is_some_and(|(waiting, _)| *waiting == index) {
            let (_, waiters) = lead.waiting.pop_front().unwrap_or_default();
            for (waiter, outcome) in waiters.into_iter().zip(outcomes) {
                self.answer(at, waiter, outcome);
            }
        }
        self.flush_again(at);
        self.keep_time(at);
        self.plan_soon(at);
    }

    fn answer(&mut self, at: usize, waiter: Waiter, outcome: &Result<Reply, Rejection>) {
        match waiter {
            Waiter::Nobody => {}
            Waiter::Scheduler => {
                if let Some(lead) = self.members[at].lead() {
                    lead.planning = false;
                }
            }
            Waiter::Client(client, request) => {
                let answer = match outcome {
                    Err(Rejection::StaleLeader) => None,
                    outcome => Some(outcome.clone()),
                };
                let answer = Message::Answer { request, answer, hint: Some(at) };
                self.send(Party::Member(at), Party::Client(client), answer);
            }
            Waiter::Away(machine, stream, for_ms) => {
                if outcome.is_ok() {
                    let granted = Message::Granted { stream, for_ms };
                    self.send(Party::Member(at), Party::Machine(machine), granted);
                }
            }
            Waiter::Agent(machine, stream) => {
                let message = match outcome {
                    Ok(Reply::Reported(upto)) => Message::Reported { stream, upto: *upto },
                    Ok(_) => return,
                    Err(_) => {
                        self.end_session(at, machine, stream);
                        Message::Goodbye { stream, hint: Some(at) }
                    }
                };
                self.send(Party::Member(at), Party::Machine(machine), message);
            }
        }
    }

    fn end_session(&mut self, at: usize, machine: usize, stream: u64) {
        let Some(lead) = self.members[at].lead() else { return };
        if lead.sessions.get(&machine).is_some_and(|session| session.stream == stream) {
            lead.sessions.remove(&machine);
        }
    }

    /// Proposes a tick if a timer is due, else sees to it that it will.
    fn keep_time(&mut self, at: usize) {
        let now_us = self.now_us;
        let member = &mut self.members[at];
        let local_ms = member.local_ms(now_us);
        let Some(next_ms) = member.state.timers.next_ms() else { return };
        let clock = member.clock.clone();
        let Some(lead) = member.lead().filter(|lead| lead.started) else { return };
        let now_ms = lead.cluster_ms(local_ms);
        if next_ms <= now_ms {
            let tick = Command::Cluster(Cluster::Tick);
            let queued = lead.inbox.iter().any(|proposal| proposal.command == tick);
            if !queued && lead.waiting.is_empty() {
                self.propose_own(at, tick);
            }
            return;
        }
        let at_us = clock.moment(local_ms + (next_ms - now_ms));
        if at_us < lead.tick_us {
            lead.tick_us = at_us;
            let wait_us = at_us.saturating_sub(now_us);
            self.lead_soon(at, wait_us, LeaderWork::Tick);
        }
    }

    fn plan_soon(&mut self, at: usize) {
        let member = &mut self.members[at];
        if member.state.pending.is_empty() {
            return;
        }
        let Some(lead) = member.lead() else { return };
        if lead.started && !lead.plan_set && !lead.planning {
            lead.plan_set = true;
            self.lead_soon(at, PLAN_US, LeaderWork::Plan);
        }
    }

    fn run_scheduler(&mut self, at: usize) {
        let now_us = self.now_us;
        let member = &mut self.members[at];
        let local_ms = member.local_ms(now_us);
        let Some(lead) = member.lead().filter(|lead| lead.started && !lead.planning) else {
            return;
        };
        let now_ms = lead.cluster_ms(local_ms).max(member.state.now_ms());
        let policy = Policy { chain_max: self.scenario.chain_max };
        let member = &mut self.members[at];
        let planned = plan(&mut member.cache, &member.state, now_ms, &policy, Budget::UNLIMITED);
        if planned.plan.is_empty() {
            return;
        }
        self.observe_plan(at, &planned, now_ms, &policy);
        if let Some(lead) = self.members[at].lead() {
            lead.planning = true;
        }
        let (actor, waiter) = (Actor::Leader, Waiter::Scheduler);
        let command = Command::Plan(planned.plan);
        self.enqueue(at, Proposal { actor, request: None, command, waiter });
    }

    /// A client asks for something.
    pub fn on_ask(
        &mut self,
        at: usize,
        client: usize,
        request: RequestId,
        actor: Actor,
        command: &Command,
    ) {
        let member = &self.members[at];
        if !member.leads() {
            let hint = member.hint.filter(|hint| *hint != at);
            let answer = Message::Answer { request, answer: None, hint };
            return self.send(Party::Member(at), Party::Client(client), answer);
        }
        let waiter = Waiter::Client(client, request);
        let command = command.clone();
        self.enqueue(at, Proposal { actor, request: Some(request), command, waiter });
    }

    /// An agent wants to be in touch.
    pub fn on_hello(&mut self, at: usize, machine: usize, hello: &Hello) {
        let (now_us, node) = (self.now_us, NodeId(machine as u32));
        let member = &self.members[at];
        let stream = hello.stream;
        let known = member.state.nodes.get(node);
        let Some(record) = known.filter(|_| member.leads()) else {
            let hint = member.hint.filter(|hint| *hint != at);
            let goodbye = Message::Goodbye { stream, hint };
            return self.send(Party::Member(at), Party::Machine(machine), goodbye);
        };
        let rebooted = record.facts.boot != hello.inventory.boot;
        let fence = yard_core::agent::Fence {
            incarnation: member.state.incarnation,
            generation: record.generation,
        };
        let desired =
            (fence > hello.fence && !rebooted).then(|| member.state.desired(node)).flatten();
        let local_ms = self.members[at].local_ms(now_us);
        let Some(lead) = self.members[at].lead() else { return };
        match hello.held {
            Some(lease) => lead.held.insert(node, (lease, local_ms)),
            None => lead.held.remove(&node),
        };
        let boot = hello.inventory.boot;
        let fresh = Session { stream, next: 0, heard_us: now_us, boot };
        let session = lead.sessions.entry(machine).or_insert_with(|| fresh.clone());
        if session.stream != stream {
            *session = fresh;
        }
        session.heard_us = now_us;
        if hello.sent > session.next {
            // A stream loses nothing: one on which a batch is missing has broken.
            self.end_session(at, machine, stream);
            let goodbye = Message::Goodbye { stream, hint: None };
            return self.send(Party::Member(at), Party::Machine(machine), goodbye);
        }
        if rebooted {
            let inventory = (*hello.inventory).clone();
            let command = Command::Node(NodeCommand::Update { node, inventory });
            let (actor, waiter) = (Actor::Node(node), Waiter::Nobody);
            self.enqueue(at, Proposal { actor, request: None, command, waiter });
        }
        let welcome = Message::Welcome { stream, desired: desired.map(Rc::new) };
        self.send(Party::Member(at), Party::Machine(machine), welcome);
    }

    /// Pushes the desired set of a node, if its agent is in touch.
    fn push_desired(&mut self, at: usize, node: NodeId) {
        let machine = node.0 as usize;
        let now_us = self.now_us;
        let Some(lead) = self.members[at].lead() else { return };
        let fresh = |session: &&Session| now_us < session.heard_us + 3 * SECOND;
        let Some(session) = lead.sessions.get(&machine).filter(fresh) else { return };
        let (stream, boot) = (session.stream, session.boot);
        let current = self.members[at].state.nodes.get(node).map(|node| node.facts.boot);
        if current != Some(boot) {
            return;
        }
        if let Some(desired) = self.members[at].state.desired(node) {
            let welcome = Message::Welcome { stream, desired: Some(Rc::new(desired)) };
            self.send(Party::Member(at), Party::Machine(machine), welcome);
        }
    }

    /// Reports arrive. They count in the order of their stream; a gap ends it.
    pub fn on_reports(
        &mut self,
        at: usize,
        machine: usize,
        stream: u64,
        nth: u64,
        reports: Vec<Report>,
    ) {
        let leads = self.members[at].leads();
        let session = self.members[at].lead().and_then(|lead| lead.sessions.get_mut(&machine));
        let session = session.filter(|session| session.stream == stream && leads);
        match session {
            Some(session) if session.next == nth => session.next += 1,
            // Said twice.
            Some(session) if session.next > nth => return,
            Some(_) | None => {
                self.end_session(at, machine, stream);
                let goodbye = Message::Goodbye { stream, hint: None };
                return self.send(Party::Member(at), Party::Machine(machine), goodbye);
            }
        }
        let node = NodeId(machine as u32);
        let command = Command::Report(NodeReport { node, reports });
        let (actor, waiter) = (Actor::Node(node), Waiter::Agent(machine, stream));
        self.enqueue(at, Proposal { actor, request: None, command, waiter });
    }

    /// Another member hands over what it could not propose itself.
    pub fn on_forward(&mut self, at: usize, commands: Vec<(Envelope, Command)>) {
        if self.members[at].leads() {
            self.append(at, commands, None);
        }
    }
}
