//! Agents that stop on purpose, and come back: they ask to be left alone for a while, tell the
//! shims, and say when they are there again.

use crate::clock::MS;
use crate::leader::{Proposal, Waiter};
use crate::message::{Event, Fault, Message, Party};
use crate::world::World;
use yard_common::id::NodeId;
use yard_core::agent::Lease;
use yard_core::command::{Actor, Command, NodeCommand};
use yard_core::lease::times::maintenance_until_ms;

impl World {
    /// An agent is told to stop: it asks first.
    pub fn leave(&mut self, at: usize) {
        let for_ms = self.rng_faults.pick(&[3_000, 20_000, 60_000]);
        let machine = &mut self.machines[at];
        let asked_ms = machine.clock.now_ms(self.now_us);
        let Some(host) = machine.agent.as_mut().filter(|host| host.is_connected()) else { return };
        // Before it asks: it may be granted, and the answer lost.
        machine.left = true;
        host.leaves = Some((asked_ms, for_ms));
        let (stream, to) = host.connection();
        self.send(Party::Machine(at), to, Message::Away { stream, for_ms });
    }

    /// An agent that had left says that it is back, until it is heard.
    pub fn say_back(&mut self, at: usize) {
        let machine = &self.machines[at];
        let back = |host: &&crate::agent_host::AgentHost| {
            machine.left && host.is_connected() && host.leaves.is_none()
        };
        let Some(host) = machine.agent.as_ref().filter(back) else { return };
        let (stream, to) = host.connection();
        self.send(Party::Machine(at), to, Message::Away { stream, for_ms: 0 });
    }

    /// The leader hears that an agent leaves, or is back.
    pub fn on_away(&mut self, at: usize, machine: usize, stream: u64, for_ms: u64) {
        let Some(lead) = self.members[at].lead() else { return };
        if lead.sessions.get(&machine).is_none_or(|session| session.stream != stream) {
            return;
        }
        let node = NodeId(machine as u32);
        let command = Command::Node(match for_ms {
            0 => NodeCommand::Back(node),
            for_ms => NodeCommand::Maintenance { node, for_ms },
        });
        let waiter = Waiter::Away(machine, stream, for_ms);
        self.enqueue(at, Proposal { actor: Actor::Node(node), request: None, command, waiter });
    }

    /// It is committed.
    pub fn on_granted(&mut self, at: usize, stream: u64, for_ms: u64) {
        let machine = &mut self.machines[at];
        let current = |host: &&mut crate::agent_host::AgentHost| host.connection().0 == stream;
        let Some(host) = machine.agent.as_mut().filter(current) else { return };
        if for_ms == 0 {
            machine.left = false;
            return self.reached("agent came back from maintenance");
        }
        let Some((asked_ms, _)) = host.leaves.filter(|(_, asked)| *asked == for_ms) else { return };
        let maintenance_ms = maintenance_until_ms(asked_ms, for_ms);
        let lease = crate::agent_host::lease_of(&host.holder);
        self.hold_lease(at, Lease { maintenance_ms, ..lease });
        self.note(|_| format!("agent {at} leaves for {for_ms} ms"));
        self.machines[at].agent = None;
        let wait_us = self.rng.magnitude(50, 40_000) * MS;
        self.after(wait_us, Event::Fault(Fault::AgentUp(at)));
    }
}
