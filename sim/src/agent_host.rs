//! What drives an agent: its lease, its stream to the leader, its disk, and its orders to shims.

use crate::clock::{MS, Us};
use crate::machine::Power;
use crate::message::{AgentWork, Event, Hello, Message, Party};
use crate::world::World;
use std::rc::Rc;
use yard_common::id::{BootId, LeaseId, NodeId};
use yard_common::state::AssignmentState;
use yard_core::agent::{Action, Agent, Change, Desired, Input, Lease};
use yard_core::command::Inventory;
use yard_core::lease::{Ack, Deadline, Holder, LeaseState, LeaseTimes};
use yard_core::stall::News;

/// Period of renewals.
const RENEW_US: Us = 750 * MS;
/// Period of hellos.
const HELLO_US: Us = 800 * MS;
/// Silence of the leader after which an agent looks for another.
const STREAM_US: Us = 2_500 * MS;

/// A running agent.
#[derive(Debug)]
pub struct AgentHost {
    /// The automaton.
    pub agent: Agent,
    /// What it found on its machine.
    inventory: Rc<Inventory>,
    /// Its side of the lease.
    pub holder: Holder,
    /// The member that it is or wants to be in touch with.
    target: usize,
    /// Names its connection.
    stream: u64,
    /// Whether the leader answered on it.
    connected: bool,
    heard_us: Us,
    /// Number of the next batch of reports.
    nth: u64,
    /// It dies after so many further actions.
    pub crash_in: Option<u64>,
    /// When it asked to be left alone, on this stream, and for how long; in milliseconds.
    pub leaves: Option<(u64, u64)>,
}

impl AgentHost {
    /// Whether the leader answered on its stream.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Its stream, and whom it leads to.
    #[must_use]
    pub fn connection(&self) -> (u64, Party) {
        (self.stream, Party::Member(self.target))
    }

    fn new_stream(&mut self, stream: u64) {
        (self.stream, self.connected, self.nth, self.leaves) = (stream, false, 0, None);
    }
}

impl World {
    /// An agent starts, and takes over what it finds.
    pub fn start_agent(&mut self, at: usize) {
        let now_us = self.now_us;
        let machine = &mut self.machines[at];
        if machine.power != Power::On || machine.agent.is_some() {
            return;
        }
        machine.agent_life += 1;
        for change in std::mem::take(&mut machine.noted) {
            machine.disk.apply(change);
        }
        let kept = machine.disk.clone();
        let found: Vec<_> = machine.shims.iter().map(|(id, shim)| shim.found(*id)).collect();
        let boot = BootId::from_u128(u128::from(machine.boot));
        let now_ms = machine.clock.now_ms(now_us);
        let lease = kept.lease.max(LeaseId(1));
        let (agent, actions) = Agent::restore(kept, boot, found, machine.lease, now_ms);
        let target = self.rng.below(self.members.len() as u64) as usize;
        self.streams += 1;
        let inventory = Rc::new(machine.inventory(machine.boot));
        self.machines[at].agent = Some(AgentHost {
            agent,
            inventory,
            holder: Holder::new(NodeId(at as u32), lease, LeaseTimes::DEFAULT),
            target,
            stream: self.streams,
            connected: false,
            heard_us: now_us,
            nth: 0,
            crash_in: None,
            leaves: None,
        });
        self.note(|_| format!("agent {at} starts"));
        self.perform(at, actions);
        self.start_agent_work(at);
    }

    /// An agent dies; its shims go on.
    pub fn crash_agent(&mut self, at: usize) {
        if self.machines[at].agent.take().is_some() {
            self.note(|_| format!("agent {at} dies"));
            let wait_us = self.rng.magnitude(50, 20_000) * MS;
            self.after(wait_us, Event::Fault(crate::message::Fault::AgentUp(at)));
        }
    }

    /// Regular work of an agent.
    pub fn on_agent(&mut self, at: usize, what: AgentWork) {
        let life = self.machines[at].agent_life;
        let again = Event::Agent { machine: at, life, what };
        match what {
            AgentWork::Renew => {
                self.renew(at);
                self.after(RENEW_US, again);
            }
            AgentWork::Hello => {
                self.say_hello(at);
                self.after(HELLO_US, again);
            }
            AgentWork::Tick => self.agent_step(at, Input::Tick),
        }
    }

    /// Renews the lease with every member.
    fn renew(&mut self, at: usize) {
        let now_ms = self.machines[at].clock.now_ms(self.now_us);
        let Some(host) = &mut self.machines[at].agent else { return };
        let renewal = host.holder.renewal(now_ms);
        for to in 0..self.members.len() {
            if self.members[to].enrolled {
                self.send(Party::Machine(at), Party::Member(to), Message::Renew(renewal));
            }
        }
    }

    /// A member answers a renewal.
    pub fn on_ack(&mut self, at: usize, ack: &Ack) {
        let now_ms = self.machines[at].clock.now_ms(self.now_us);
        let Some(host) = &mut self.machines[at].agent else { return };
        if host.holder.on_ack(ack, now_ms) {
            let lease = lease_of(&host.holder);
            self.hold_lease(at, lease);
        }
    }

    /// Keeps the stream to the leader, or looks for one.
    fn say_hello(&mut self, at: usize) {
        let now_us = self.now_us;
        let members = self.members.len();
        let machine = &mut self.machines[at];
        let now_ms = machine.clock.now_ms(now_us);
        let Some(host) = &mut machine.agent else { return };
        if now_us > host.heard_us + STREAM_US {
            self.streams += 1;
            host.new_stream(self.streams);
            host.target = (host.target + 1) % members;
            host.heard_us = now_us - STREAM_US + HELLO_US;
        }
        let held = match host.holder.state(now_ms) {
            LeaseState::Held { .. } => Some(host.holder.lease()),
            LeaseState::Expired => None,
        };
        let fence = host.agent.kept().fence;
        let inventory = Rc::clone(&host.inventory);
        let hello = Hello { sent: host.nth, stream: host.stream, inventory, fence, held };
        let to = Party::Member(host.target);
        self.send(Party::Machine(at), to, Message::Hello(Box::new(hello)));
        self.say_back(at);
        self.fall_silent(at);
    }

    /// Now and then the ranks of an assignment fall silent, or do something again, as far as its
    /// agent can tell. Others are taken for silent although something else runs by now.
    fn fall_silent(&mut self, at: usize) {
        let Some(host) = &self.machines[at].agent else { return };
        let running: Vec<_> = { host.agent.kept().records.values() }
            .filter(|record| record.state == AssignmentState::Running)
            .map(|record| (record.id(), record.ended, record.silent))
            .collect();
        if running.is_empty() || !self.rng.chance(100) {
            return;
        }
        let (id, ended, silent) = self.rng.pick(&running);
        let position = ended.saturating_sub(u32::from(self.rng.chance(100)));
        let news = match silent {
            true => News::Active,
            false => News::Silent(self.rng.magnitude(100, 5_000)),
        };
        self.agent_step(at, Input::Silence { id, position, news });
    }

    /// The leader answers, or pushes a desired set.
    pub fn on_welcome(&mut self, at: usize, stream: u64, desired: Option<&Desired>) {
        let now_us = self.now_us;
        let Some(host) = self.machines[at].agent.as_mut().filter(|host| host.stream == stream)
        else {
            return;
        };
        host.heard_us = now_us;
        let first = !host.connected;
        host.connected = true;
        if first {
            self.agent_step(at, Input::Connected);
        }
        let Some(desired) = desired else { return };
        desired.check().expect("the state mints sets within their bounds");
        let lease = desired.lease;
        let Some(host) = &mut self.machines[at].agent else { return };
        let newer = desired.fence > host.agent.kept().fence;
        self.agent_step(at, Input::Desired(desired.clone()));
        let Some(host) = self.machines[at].agent.as_mut().filter(|_| newer) else { return };
        if lease > host.holder.lease() {
            host.holder.succeed(lease, LeaseTimes::DEFAULT);
            let lease = lease_of(&host.holder);
            self.hold_lease(at, lease);
            self.reached("node went over to a new lease");
        }
    }

    /// The stream is over.
    pub fn on_goodbye(&mut self, at: usize, stream: u64, hint: Option<usize>) {
        let now_us = self.now_us;
        let members = self.members.len();
        let Some(host) = self.machines[at].agent.as_mut().filter(|host| host.stream == stream)
        else {
            return;
        };
        self.streams += 1;
        host.new_stream(self.streams);
        host.target = hint.unwrap_or((host.target + 1) % members);
        host.heard_us = now_us;
    }

    /// Reports are committed.
    pub fn on_reported(&mut self, at: usize, stream: u64, upto: yard_common::id::Sequence) {
        let known = |host: &&AgentHost| host.stream == stream;
        if self.machines[at].agent.as_ref().filter(known).is_some() {
            self.agent_step(at, Input::Acknowledged(upto));
        }
    }

    /// An input for the automaton, and what follows from it.
    pub fn agent_step(&mut self, at: usize, input: Input) {
        let machine = &mut self.machines[at];
        let now_ms = machine.clock.now_ms(self.now_us);
        if machine.power != Power::On {
            return;
        }
        let Some(host) = &mut machine.agent else { return };
        let actions = host.agent.step(input, now_ms);
        self.perform(at, actions);
    }

    /// Performs the actions of an agent in order; it may die between any two.
    fn perform(&mut self, at: usize, actions: Vec<Action>) {
        let mut reports = Vec::new();
        for action in actions {
            if self.dies_here(at, &action) {
                return;
            }
            let machine = &mut self.machines[at];
            let Some(host) = &machine.agent else { return };
            match action {
                Action::Persist(changes) => self.persist(at, changes),
                Action::Note(changes) => self.machines[at].noted.extend(changes),
                Action::Prepare(id) => {
                    let record = host.agent.kept().records.get(&id);
                    if let Some(assignment) = record.map(|record| record.assignment.clone()) {
                        self.prepare_shim(at, &assignment);
                    }
                }
                Action::Start { id, len } => self.start_shim(at, id, len),
                Action::Cut { id, len } => self.cut_shim(at, id, len),
                Action::SignalStop(id) => self.signal_shim(at, id),
                Action::Kill(id) => self.kill_shim(at, id),
                Action::Release(id) => self.release_shim(at, id),
                Action::Send(report) => reports.push(report),
                Action::SetTimer(at_ms) => {
                    let (at_us, life) = (machine.clock.moment(at_ms), machine.agent_life);
                    let event = Event::Agent { machine: at, life, what: AgentWork::Tick };
                    self.agenda.at(at_us.max(self.now_us), event);
                }
            }
        }
        let Some(host) = &mut self.machines[at].agent else { return };
        if !reports.is_empty() && host.connected {
            let (stream, nth, to) = (host.stream, host.nth, Party::Member(host.target));
            host.nth += 1;
            let message = Message::Reports { stream, nth, reports };
            self.send(Party::Machine(at), to, message);
        }
    }

    /// Whether the agent dies before this action.
    fn dies_here(&mut self, at: usize, action: &Action) -> bool {
        let Some(host) = &mut self.machines[at].agent else { return true };
        let Some(left) = &mut host.crash_in else { return false };
        if *left > 0 {
            *left -= 1;
            return false;
        }
        if matches!(action, Action::Start { .. }) {
            self.reached("agent died between writing and starting");
        }
        self.crash_agent(at);
        true
    }

    /// Writes changes to the agent's disk.
    fn persist(&mut self, at: usize, changes: Vec<Change>) {
        let noted = std::mem::take(&mut self.machines[at].noted);
        for change in noted.into_iter().chain(changes) {
            if let Change::Obeyed { fence, .. } = &change {
                self.observe_obeyed(at, *fence);
                // The bug: the set is obeyed, and a restart knows nothing of it.
                if yard_core::mutant!("fence_not_persisted") {
                    continue;
                }
            }
            self.machines[at].disk.apply(change);
        }
    }
}

/// The deadlines that the holder has reached.
pub(crate) fn lease_of(holder: &Holder) -> Lease {
    let deadline_ms = |deadline| holder.deadline_ms(deadline).unwrap_or(0);
    Lease {
        id: holder.lease(),
        strict_ms: deadline_ms(Deadline::Strict),
        fenced_ms: deadline_ms(Deadline::Fenced),
        tolerant_ms: deadline_ms(Deadline::Tolerant),
        maintenance_ms: 0,
    }
}
