//! Life of a node: joining, silence, return, maintenance, drain, end.

use super::Context;
use super::bound::{legal_name, room};
use super::health::check_conditions;
use crate::command::{Actor, DrainPlan, Inventory, NodeCommand, Object, Rejection, Reply, Scope};
use crate::event::Event;
use crate::job::{Floor, IsolationClass};
use crate::lease::{Lift, Lost};
use crate::state::{Drain, Node, State, Timer};
use crate::table::{Ordered, Shared};
use yard_common::Amounts;
use yard_common::id::{Generation, LeaseId, NodeId, PoolId, Sequence, TokenId};
use yard_common::limits;
use yard_common::state::NodeState;

impl State {
    pub(super) fn run_node(
        &mut self,
        context: &mut Context,
        command: &NodeCommand,
    ) -> Result<Reply, Rejection> {
        match command {
            NodeCommand::Join { token, secret_sha256, name, inventory } => {
                self.join(context, *token, secret_sha256, name, inventory)
            }
            NodeCommand::Update { node, inventory } => self.update(context, *node, inventory),
            NodeCommand::Suspect { node, lease } => {
                self.check_silence(context, *node, *lease)?;
                self.step_node(context, *node, NodeState::Suspect)
            }
            NodeCommand::Lost(lost) => self.lost(context, lost),
            NodeCommand::Returned { node, lease } => {
                self.check_silence(context, *node, *lease)?;
                self.step_node(context, *node, NodeState::Up)
            }
            NodeCommand::Lift(lift) => self.lift(context, lift),
            NodeCommand::Maintenance { node, for_ms } => self.maintenance(context, *node, *for_ms),
            NodeCommand::Back(node) => self.back(context, *node),
            NodeCommand::Drain { node, plan } => self.drain(context, *node, plan),
            NodeCommand::Undrain(node) => self.undrain(context, *node),
            NodeCommand::ConfirmDead(node) => self.confirm_dead(context, *node),
            NodeCommand::Remove(node) => self.remove_node(context, *node),
            NodeCommand::DrainGpu { node, gpu, reason } => {
                self.drain_gpu(context, *node, gpu, reason)
            }
            NodeCommand::UndrainGpu { node, gpu } => self.undrain_gpu(context, *node, gpu),
            NodeCommand::Check(node) => self.check_node(context, *node),
        }
    }

    pub(super) fn node(&self, id: NodeId) -> Result<&Node, Rejection> {
        self.nodes.get(id).ok_or(Rejection::NotFound(Object::Node(id)))
    }

    fn join(
        &mut self,
        context: &mut Context,
        token: TokenId,
        secret_sha256: &[u8; 32],
        name: &str,
        inventory: &Inventory,
    ) -> Result<Reply, Rejection> {
        let joins = |scope: &Scope| matches!(scope, Scope::Join(_));
        // First of all: whoever has no token must not learn which names are taken.
        self.check_token(context, token, secret_sha256, joins)?;
        legal_name("name", name)?;
        check_inventory(inventory)?;
        if let Some(taken) = self.nodes.find(name) {
            return Err(Rejection::AlreadyExists(Object::Node(taken)));
        }
        room("nodes", self.nodes.len(), limits::NODES_MAX)?;
        let Scope::Join(pool) = self.redeem_token(context, token, secret_sha256, joins)? else {
            return Err(Rejection::BadToken);
        };
        let facts = inventory.clone();
        let (lease, generation) = (LeaseId(1), Generation(1));
        let device_parts = Shared::from(vec![0; facts.devices.len()]);
        let unwell = facts.is_unwell();
        let setup_due = self.pools[pool].is_setup_due(&facts);
        let node = Node {
            name: name.into(),
            pool,
            facts: Shared::from(facts),
            state: NodeState::Up,
            lease,
            generation,
            reported: Sequence(0),
            used: Amounts::ZERO,
            device_parts,
            allocations: Ordered::default(),
            leftovers: Ordered::default(),
            drain: None,
            cordoned: false,
            maintenance_until_ms: 0,
            back: false,
            resync: false,
            failures: Vec::new(),
            held_back: Vec::new(),
            cordon: None,
            cordons: 0,
            check: 0,
            unwell,
            setup_due,
        };
        let id = self.nodes.push(name, node);
        let gpus = inventory.devices.len() as u32;
        let pool = &mut self.pools[pool];
        pool.nodes += 1;
        pool.floor = Some(Floor::with(pool.floor, &inventory.amounts, gpus));
        context.events.push(Event::Node { node: id, state: NodeState::Up });
        Ok(Reply::Node { node: id, lease, generation })
    }

    fn update(
        &mut self,
        context: &mut Context,
        id: NodeId,
        inventory: &Inventory,
    ) -> Result<Reply, Rejection> {
        let node = self.node(id)?;
        check_inventory(inventory)?;
        let (pool, rebooted) = (node.pool, node.facts.boot != inventory.boot);
        let known = node.facts.devices.iter().zip(&inventory.devices);
        let in_order = inventory.devices.len() >= node.facts.devices.len() && { known }
            .all(|(old, new)| old.uuid == new.uuid);
        if !rebooted && !in_order {
            let problem = "devices keep their positions until the machine boots again; \
                           report a bad one as not healthy";
            return Err(Rejection::invalid("devices", problem));
        }
        if rebooted {
            self.clear_node(context, id);
        }
        let node = &mut self.nodes[id];
        let checked = node.facts.checked;
        let facts = inventory.clone();
        node.device_parts.make_mut().resize(facts.devices.len(), 0);
        node.facts = Shared::from(facts);
        let (lease, generation) = (node.lease, node.generation);
        self.settle_health(context, id, checked);
        self.find_floor(pool);
        context.changed(Object::Node(id));
        Ok(Reply::Node { node: id, lease, generation })
    }

    /// Finds the smallest node of a pool anew.
    fn find_floor(&mut self, pool: PoolId) {
        let nodes = self.nodes.iter().filter(|(_, node)| node.pool == pool);
        let floor = nodes.fold(None, |floor, (_, node)| {
            let gpus = node.facts.devices.len() as u32;
            Some(Floor::with(floor, &node.facts.amounts, gpus))
        });
        self.pools[pool].floor = floor;
    }

    /// Refuses what is said about a lease that was replaced.
    fn check_lease(&self, id: NodeId, lease: LeaseId) -> Result<&Node, Rejection> {
        let node = self.node(id)?;
        if node.lease == lease { Ok(node) } else { Err(Rejection::Stale(Object::Node(id))) }
    }

    /// The same, and refuses what is said about silence on purpose.
    fn check_silence(
        &self,
        context: &Context,
        id: NodeId,
        lease: LeaseId,
    ) -> Result<(), Rejection> {
        if self.check_lease(id, lease)?.is_away(context.now_ms) {
            let state = "in maintenance: its silence means nothing".into();
            return Err(Rejection::WrongState(Object::Node(id), state));
        }
        Ok(())
    }

    /// Moves a node to another state.
    fn step_node(
        &mut self,
        context: &mut Context,
        id: NodeId,
        to: NodeState,
    ) -> Result<Reply, Rejection> {
        let node = &mut self.nodes[id];
        if !node.state.may_become(to) {
            return Err(Rejection::WrongState(Object::Node(id), node.state.to_string()));
        }
        node.state = to;
        context.events.push(Event::Node { node: id, state: to });
        Ok(Reply::Done)
    }

    /// A majority promised never to renew the lease again: what runs there is given up, except
    /// for jobs that tolerate silence.
    fn lost(&mut self, context: &mut Context, lost: &Lost) -> Result<Reply, Rejection> {
        let id = lost.node;
        // Also when its agent is back: what ran when it left counts on all of the time.
        if self.check_lease(id, lost.lease)?.maintenance_until_ms > context.now_ms {
            let state = "in maintenance: its ranks count on time that is not over".into();
            return Err(Rejection::WrongState(Object::Node(id), state));
        }
        let next = lost.next_lease(self.nodes[id].lease, self.membership.id);
        let next = next.ok_or(Rejection::Stale(Object::Node(id)))?;
        self.step_node(context, id, NodeState::Lost)?;
        self.nodes[id].lease = next;
        self.bump(context, id);
        let tolerant =
            |state: &State, job| state.jobs[job].plan.isolation.class == IsolationClass::Tolerant;
        self.give_up_shares(context, id, |state, allocation| !tolerant(state, allocation.job));
        if !self.nodes[id].allocations.is_empty() {
            let until_ms = context.now_ms + limits::TOLERANCE_MS;
            self.timers.set(until_ms, Timer::Tolerance(id));
        }
        Ok(Reply::Done)
    }

    /// Promises about the lease did not end in its loss: a new lease makes them void.
    fn lift(&mut self, context: &mut Context, lift: &Lift) -> Result<Reply, Rejection> {
        let id = lift.node;
        let next = lift.next_lease(self.node(id)?.lease);
        let next = next.ok_or(Rejection::Stale(Object::Node(id)))?;
        if self.nodes[id].state == NodeState::Suspect {
            self.step_node(context, id, NodeState::Up)?;
        }
        self.nodes[id].lease = next;
        self.bump(context, id);
        let node = &self.nodes[id];
        Ok(Reply::Node { node: id, lease: node.lease, generation: node.generation })
    }

    fn maintenance(
        &mut self,
        context: &mut Context,
        id: NodeId,
        for_ms: u64,
    ) -> Result<Reply, Rejection> {
        let node = self.node(id)?;
        if node.state == NodeState::Lost {
            return Err(Rejection::WrongState(Object::Node(id), node.state.to_string()));
        }
        if for_ms > limits::MAINTENANCE_MS_MAX {
            let problem = format!("{for_ms} ms; at most {}", limits::MAINTENANCE_MS_MAX);
            return Err(Rejection::invalid("for_ms", problem));
        }
        // Nobody but its agent knows whether ranks count on the time.
        if for_ms == 0 && context.actor != Actor::Node(id) {
            return self.back(context, id);
        }
        let old_ms = node.maintenance_until_ms;
        self.timers.unset(old_ms, Timer::Maintenance(id));
        // Ranks may count on what was granted before.
        let until_ms = if for_ms == 0 { 0 } else { old_ms.max(context.now_ms + for_ms) };
        let node = &mut self.nodes[id];
        (node.maintenance_until_ms, node.back) = (until_ms, false);
        if until_ms > 0 {
            self.timers.set(until_ms, Timer::Maintenance(id));
        }
        context.changed(Object::Node(id));
        Ok(Reply::Done)
    }

    /// The agent is there again. Nothing to say if the time is over, or was never granted.
    fn back(&mut self, context: &mut Context, id: NodeId) -> Result<Reply, Rejection> {
        if self.node(id)?.is_away(context.now_ms) {
            self.nodes[id].back = true;
            context.changed(Object::Node(id));
        }
        Ok(Reply::Done)
    }

    fn drain(
        &mut self,
        context: &mut Context,
        id: NodeId,
        plan: &DrainPlan,
    ) -> Result<Reply, Rejection> {
        self.node(id)?;
        let latest_ms = plan.in_ms.max(plan.deadline_ms.unwrap_or(0));
        if latest_ms > limits::DURATION_MS_MAX {
            let problem = format!("{latest_ms} ms; at most {}", limits::DURATION_MS_MAX);
            return Err(Rejection::invalid("at", problem));
        }
        if plan.reason.len() > limits::REASON_BYTES_MAX {
            let problem = format!("more than {} bytes", limits::REASON_BYTES_MAX);
            return Err(Rejection::invalid("reason", problem));
        }
        self.forget_drain(id);
        let at_ms = context.now_ms + plan.in_ms;
        let deadline_ms = plan.deadline_ms.map(|ms| at_ms + ms);
        self.timers.set(at_ms, Timer::Drain(id));
        if let Some(deadline_ms) = deadline_ms {
            self.timers.set(deadline_ms, Timer::Drain(id));
        }
        let reason = plan.reason.as_str().into();
        self.nodes[id].drain = Some(Drain { at_ms, deadline_ms, reason });
        context.changed(Object::Node(id));
        Ok(Reply::Done)
    }

    /// Takes the timers of a drain back.
    fn forget_drain(&mut self, id: NodeId) {
        if let Some(drain) = self.nodes[id].drain.take() {
            self.timers.unset(drain.at_ms, Timer::Drain(id));
            if let Some(deadline_ms) = drain.deadline_ms {
                self.timers.unset(deadline_ms, Timer::Drain(id));
            }
        }
    }

    fn undrain(&mut self, context: &mut Context, id: NodeId) -> Result<Reply, Rejection> {
        let node = self.node(id)?;
        if node.drain.is_none() && !node.cordoned {
            let state = "neither drained nor cordoned".into();
            return Err(Rejection::WrongState(Object::Node(id), state));
        }
        self.forget_drain(id);
        self.end_cordon(id);
        context.changed(Object::Node(id));
        Ok(Reply::Done)
    }

    /// Whoever runs the machine says that it is off. A node that speaks is not dead: that would
    /// start tasks twice.
    fn confirm_dead(&mut self, context: &mut Context, id: NodeId) -> Result<Reply, Rejection> {
        let node = self.node(id)?;
        if node.state == NodeState::Up {
            let state = "Up: it renews its lease; drain it, or switch it off first".into();
            return Err(Rejection::WrongState(Object::Node(id), state));
        }
        if node.state == NodeState::Suspect {
            self.step_node(context, id, NodeState::Lost)?;
        }
        self.clear_node(context, id);
        Ok(Reply::Done)
    }

    fn remove_node(&mut self, context: &mut Context, id: NodeId) -> Result<Reply, Rejection> {
        let node = self.node(id)?;
        let stays_out = node.drain.as_ref().is_some_and(|drain| drain.at_ms <= context.now_ms)
            || node.state == NodeState::Lost;
        if !node.is_idle() {
            let held = node.allocations.len() + node.leftovers.len();
            let what = format!("it holds {held} assignments; drain it, or confirm that it is dead");
            return Err(Rejection::InUse(Object::Node(id), what));
        }
        if !stays_out {
            let state = "taking work; drain it first".into();
            return Err(Rejection::WrongState(Object::Node(id), state));
        }
        let until_ms = node.maintenance_until_ms;
        self.forget_drain(id);
        self.end_cordon(id);
        self.timers.unset(until_ms, Timer::Maintenance(id));
        let (name, pool) = (self.nodes[id].name.clone(), self.nodes[id].pool);
        self.nodes.remove(id, &name);
        self.pools[pool].nodes -= 1;
        self.find_floor(pool);
        self.drop_tokens(context, |token| token.scope == Scope::Renew(id));
        self.drop_promises_of_node(id);
        context.events.push(Event::Node { node: id, state: NodeState::Removed });
        Ok(Reply::Done)
    }
}

/// Checks what a machine says about itself.
fn check_inventory(inventory: &Inventory) -> Result<(), Rejection> {
    let Inventory { devices, labels, address, version, amounts, .. } = inventory;
    if devices.len() > limits::NODE_DEVICES_MAX {
        let problem = format!("{}; at most {}", devices.len(), limits::NODE_DEVICES_MAX);
        return Err(Rejection::invalid("devices", problem));
    }
    let mut uuids: Vec<_> = devices.iter().map(|device| &device.uuid).collect();
    uuids.sort_unstable();
    if uuids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Rejection::invalid("devices", "one UUID twice"));
    }
    let texts = devices.iter().flat_map(|device| [&device.uuid, &device.model]);
    let texts = texts.chain([address, version]);
    let mut texts = texts.chain(labels.iter().flat_map(|(key, value)| [key, value]));
    if texts.any(|text| text.len() > limits::LABEL_BYTES_MAX) {
        let problem = format!("a text of more than {} bytes", limits::LABEL_BYTES_MAX);
        return Err(Rejection::invalid("inventory", problem));
    }
    if labels.len() > limits::LABELS_MAX || !labels.is_sorted_by(|a, b| a.0 < b.0) {
        let problem = format!("at most {}, sorted, each key once", limits::LABELS_MAX);
        return Err(Rejection::invalid("labels", problem));
    }
    if amounts.cpu_milli == 0 || amounts.cpu_milli > limits::NODE_CPU_MILLI_MAX {
        let problem = format!("{} thousandths of a CPU", amounts.cpu_milli);
        return Err(Rejection::invalid("cpus", problem));
    }
    if amounts.memory_bytes.max(amounts.disk_bytes) > limits::NODE_BYTES_MAX {
        return Err(Rejection::invalid("memory", "more than a machine can have"));
    }
    check_conditions(inventory)
}
