//! What is free on the nodes: nodes of one kind together, sorted by how much of them is free.
//!
//! A kind is made of what decides whether a share could ever run: pool, GPUs, planned drain. CPU,
//! memory and disk are not part of it, because machines of one model report amounts that differ by
//! a few pages; each kind knows the least and the most of them instead.

use crate::fit::Demand;
use crate::state::Node;
use crate::table::Ordered;
use yard_common::Amounts;
use yard_common::gpu::{GpuCount, GpuDevice};
use yard_common::id::{Dense, NodeId, PoolId};
use yard_common::limits::NODE_ASSIGNMENTS_MAX;
use yard_common::state::NodeState;

/// How much is free on a node: least first, so that the first that fits fits best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Free {
    /// Parts of healthy GPUs, in ten-thousandths.
    pub(super) gpu_parts: u64,
    /// Thousandths of a CPU.
    pub(super) cpu_milli: u64,
    /// The node, so that no two are equal.
    pub(super) node: NodeId,
}

impl Free {
    /// What is free on a node as it is in the view.
    pub(super) fn of(id: NodeId, node: &Node) -> Free {
        let parts = (0..node.facts.devices.len()).map(|at| u64::from(node.free_parts(at)));
        Free { gpu_parts: parts.sum(), cpu_milli: node.free().cpu_milli, node: id }
    }
}

/// Nodes that are alike in all but amounts and labels.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    pub(super) pool: PoolId,
    /// From when on nothing may run there.
    pub(super) drain_ms: Option<u64>,
    /// Healthy GPUs, their identities blanked.
    pub(super) gpus: Vec<GpuDevice>,
    /// Nodes that run tasks: those in `open`, and those that are away for some minutes at most.
    pub(super) members: Ordered<NodeId, ()>,
    /// Nodes that take tasks now and are claimed by nobody.
    pub(super) open: Ordered<Free, ()>,
    /// The least of each amount that any member has when empty.
    pub(super) least: Amounts,
}

impl Kind {
    /// Whether its nodes have the GPUs that are asked for. `model`: the one of the gang.
    pub(super) fn has_gpus(&self, demand: &Demand<'_>, model: Option<&str>) -> bool {
        // Whole machines come with all of their GPUs, wanted or not.
        if demand.exclusive && self.gpus.first().map(|device| device.model.as_str()) != model {
            return false;
        }
        let wanted = match demand.gpus.count {
            GpuCount::None => return true,
            GpuCount::Whole(count) | GpuCount::Mig(_, count) => usize::from(count),
            GpuCount::Part(_) => 1,
        };
        let fits = |device: &&GpuDevice| {
            demand.gpus.accepts(device) && model.is_none_or(|model| model == device.model)
        };
        self.gpus.iter().filter(fits).count() >= wanted
    }

    /// Whether an attempt that ends then, if ever, may run here.
    pub(super) fn lasts_until(&self, ends_ms: Option<u64>) -> bool {
        match (self.drain_ms, ends_ms) {
            (None, _) => true,
            (Some(drain_ms), Some(ends_ms)) => ends_ms <= drain_ms,
            (Some(_), None) => false,
        }
    }

    fn is_of(&self, node: &Node, drain_ms: Option<u64>) -> bool {
        let alike = |(a, b): (&GpuDevice, &GpuDevice)| {
            (&a.model, a.memory, a.mig) == (&b.model, b.memory, b.mig)
        };
        self.pool == node.pool
            && self.drain_ms == drain_ms
            && node.healthy().count() == self.gpus.len()
            && self.gpus.iter().zip(node.healthy().map(|(_, device)| device)).all(alike)
    }
}

/// Where a node is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    pub(super) kind: usize,
    pub(super) free: Free,
    /// What is free of CPU, memory and disk: with this many nodes, a look at each record is dear.
    pub(super) left: Amounts,
    /// Of the node when empty.
    amounts: Amounts,
}

/// All nodes that take tasks now or within minutes. Cloned in almost no time.
#[derive(Clone, Debug, Default)]
pub(super) struct Stock {
    pub(super) kinds: Vec<Kind>,
}

/// A stock, and where each node is in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seats {
    pub(super) stock: Stock,
    seats: Vec<Option<Seat>>,
    /// Kinds of which the least amounts are to be found anew.
    stale: Vec<usize>,
}

impl Seats {
    pub(super) fn get(&self, id: NodeId) -> Option<&Seat> {
        self.seats.get(id.index())?.as_ref()
    }

    /// Brings the seat of a node in line with its record, or takes it away.
    pub(super) fn reseat(&mut self, id: NodeId, node: Option<&Node>, now_ms: u64) {
        let before = self.seats.get(id.index()).copied().flatten();
        if let Some(seat) = before {
            let kind = &mut self.stock.kinds[seat.kind];
            kind.members.remove(&id);
            kind.open.remove(&seat.free);
        }
        let after = node.filter(|node| is_member(node, now_ms)).map(|node| {
            let drain_ms = node.drain.as_ref().map(|drain| drain.at_ms);
            let (kind, free) = (self.kind_of(node, drain_ms), Free::of(id, node));
            let seat = Seat { kind, free, left: node.free(), amounts: node.facts.amounts };
            let kind = &mut self.stock.kinds[kind];
            kind.members.insert(id, ());
            if takes_tasks(node, now_ms) {
                kind.open.insert(free, ());
            }
            seat
        });
        let same = |a: &Seat, b: &Seat| a.kind == b.kind && a.amounts == b.amounts;
        if !matches!((&before, &after), (Some(a), Some(b)) if same(a, b)) {
            self.stale.extend(before.iter().chain(&after).map(|seat| seat.kind));
        }
        if self.seats.len() <= id.index() {
            self.seats.resize(id.index() + 1, None);
        }
        self.seats[id.index()] = after;
    }

    fn kind_of(&mut self, node: &Node, drain_ms: Option<u64>) -> usize {
        let kinds = &mut self.stock.kinds;
        if let Some(kind) = kinds.iter().position(|kind| kind.is_of(node, drain_ms)) {
            return kind;
        }
        let blank = |device: &GpuDevice| GpuDevice { uuid: String::new(), ..device.clone() };
        let kind = Kind {
            pool: node.pool,
            drain_ms,
            gpus: node.healthy().map(|(_, device)| blank(device)).collect(),
            members: Ordered::default(),
            open: Ordered::default(),
            least: Amounts::ZERO,
        };
        // A kind without members has no effect; its place is used again, so that kinds do not
        // pile up over years of planned drains.
        match kinds.iter().position(|kind| kind.members.is_empty()) {
            Some(place) => {
                kinds[place] = kind;
                place
            }
            None => {
                kinds.push(kind);
                kinds.len() - 1
            }
        }
    }

    /// Finds the least amounts of the kinds whose members changed.
    pub(super) fn settle(&mut self) {
        self.stale.sort_unstable();
        self.stale.dedup();
        for kind in std::mem::take(&mut self.stale) {
            let kind = &mut self.stock.kinds[kind];
            let amounts =
                kind.members.iter().filter_map(|(id, ())| self.seats[id.index()].as_ref());
            let least = amounts.map(|seat| seat.amounts).reduce(|a, b| Amounts::min(&a, &b));
            kind.least = least.unwrap_or_default();
        }
    }
}

/// Whether a node takes tasks now, apart from what is free.
fn takes_tasks(node: &Node, now_ms: u64) -> bool {
    node.takes_work(now_ms) && node.allocations.len() + node.leftovers.len() < NODE_ASSIGNMENTS_MAX
}

/// Whether a node takes tasks now, or is expected to within minutes without anybody's help: a
/// silent node is back or given up soon, and maintenance ends by itself. To let waiting gangs
/// lose their place over that would starve them.
pub(super) fn is_member(node: &Node, now_ms: u64) -> bool {
    let in_touch = match node.state {
        NodeState::Up | NodeState::Suspect => true,
        NodeState::Lost | NodeState::Removed => false,
    };
    let in_use = in_touch && !node.cordoned && !node.unwell && !node.setup_due;
    in_use && node.drain.as_ref().is_none_or(|drain| drain.at_ms > now_ms)
}
