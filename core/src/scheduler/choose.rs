//! The nodes of one gang: the best fit at the best site, whole or not at all.

use super::candidates::{Candidates, Need};
use super::gpus::Offer;
use super::round::{Cut, Round};
use super::site::{Site, Sites, Wish};
use crate::command::ShareChoice;
use crate::fit::{self, Room};
use crate::state::{Holding, Node};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use yard_common::gpu::GpuGrant;
use yard_common::id::NodeId;
use yard_common::limits::GANG_NODES_MAX;

/// A gang that has all of its nodes.
pub(super) struct Gang {
    /// The place of its site in the list of sites.
    pub(super) site: usize,
    /// Group by group; within a group by node.
    pub(super) shares: Vec<ShareChoice>,
    /// What it holds.
    pub(super) holding: Holding,
}

/// A gang that is being put together.
struct Draft {
    /// The shares of each group, as they were found.
    groups: Vec<Vec<(NodeId, GpuGrant)>>,
    /// What is left on nodes that groups of the gang share.
    rooms: BTreeMap<NodeId, Room>,
    holding: Holding,
}

/// A value of a topology level that all nodes must have.
#[derive(Clone, Copy)]
struct Level<'l> {
    label: &'l str,
    value: &'l str,
}

impl Draft {
    fn new(groups: usize) -> Draft {
        let holding = Holding { tasks: 1, ..Holding::default() };
        Draft { groups: vec![Vec::new(); groups], rooms: BTreeMap::new(), holding }
    }

    fn nodes(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }

    fn finish(self, site: usize) -> Gang {
        let shares = self.groups.into_iter().enumerate().flat_map(|(group, mut nodes)| {
            let group = u8::try_from(group).expect("GROUPS_MAX fits a byte");
            nodes.sort_unstable_by_key(|(node, _)| *node);
            nodes.into_iter().map(move |(node, gpus)| ShareChoice { node, group, gpus })
        });
        Gang { site, shares: shares.collect(), holding: self.holding }
    }
}

impl Round<'_> {
    /// The nodes of one more task at the first site that has room for it. Sites whose machines
    /// turn out to pass a limit are left out of the list.
    pub(super) fn choose(
        &mut self,
        wish: &Wish<'_>,
        sites: &mut Sites<'_>,
    ) -> Result<Option<Gang>, Cut> {
        let mut at = 0;
        while at < sites.sites.len() {
            let Some(draft) = self.choose_at(wish, &sites.sites[at])? else {
                at += 1;
                continue;
            };
            // Whole machines may be more than was asked for, so limits are only certain now.
            match self.holdings.excess(&wish.payers, &draft.holding) {
                None => return Ok(Some(draft.finish(at))),
                Some(excess) => {
                    sites.excess.get_or_insert(excess);
                    sites.sites.remove(at);
                }
            }
        }
        Ok(None)
    }

    fn choose_at(&mut self, wish: &Wish<'_>, site: &Site<'_>) -> Result<Option<Draft>, Cut> {
        let place = &wish.shape.place;
        if let Some(label) = &place.within {
            return self.choose_within(wish, site, label);
        }
        let anywhere = self.draft(wish, site, None)?;
        if let (Some(any), Some(label)) = (&anywhere, &place.prefer)
            && any.nodes() > 1
            && let Some(close) = self.choose_within(wish, site, label)?
            && close.nodes() >= any.nodes()
        {
            return Ok(Some(close));
        }
        Ok(anywhere)
    }

    /// The nodes of a gang that share a value of a level: where an elastic gang is largest, then
    /// where the fewest nodes are left over.
    fn choose_within(
        &mut self,
        wish: &Wish<'_>,
        site: &Site<'_>,
        label: &str,
    ) -> Result<Option<Draft>, Cut> {
        let Some(&hardest) = wish.order.first() else { return Ok(None) };
        let group = &wish.shape.groups[hardest];
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        let (view, mut steps) = (self.view, 0);
        for id in self.candidates(wish, site, hardest) {
            steps += 1;
            let node = &view.nodes[id];
            let fits =
                || wish.allows(node) && self.offer(id, node, None).take_at(site, hardest).is_some();
            if let Some(value) = fit::label_of(node, label).filter(|_| fits()) {
                *counts.entry(value).or_default() += 1;
            }
        }
        self.spend(steps)?;
        let enough = counts.into_iter().filter(|(_, count)| *count >= group.nodes_min);
        let mut values: Vec<_> = enough.collect();
        values
            .sort_by_key(|(value, count)| (Reverse(*count.min(&group.nodes_max)), *count, *value));
        for (value, _) in values {
            if let Some(draft) = self.draft(wish, site, Some(Level { label, value }))? {
                return Ok(Some(draft));
            }
        }
        Ok(None)
    }

    /// The nodes of a gang; of an elastic one as many as there are.
    fn draft(
        &mut self,
        wish: &Wish<'_>,
        site: &Site<'_>,
        level: Option<Level<'_>>,
    ) -> Result<Option<Draft>, Cut> {
        let groups = &wish.shape.groups;
        let mut draft = Draft::new(groups.len());
        for at in &wish.order {
            self.extend(&mut draft, wish, site, level, *at, groups[*at].nodes_min)?;
            if draft.groups[*at].len() < groups[*at].nodes_min as usize {
                return Ok(None);
            }
        }
        for at in &wish.order {
            if groups[*at].nodes_max > groups[*at].nodes_min {
                self.extend(&mut draft, wish, site, level, *at, groups[*at].nodes_max)?;
            }
        }
        Ok(Some(draft))
    }

    /// Gives a group more nodes, up to a number of them.
    fn extend(
        &mut self,
        draft: &mut Draft,
        wish: &Wish<'_>,
        site: &Site<'_>,
        level: Option<Level<'_>>,
        at: usize,
        upto: u32,
    ) -> Result<(), Cut> {
        let demand = &site.demands[at];
        let shared = wish.shape.groups.len() > 1;
        let mut steps = 0;
        // No node comes twice in one go.
        let known: BTreeSet<NodeId> = draft.groups[at].iter().map(|(id, _)| *id).collect();
        for id in self.candidates(wish, site, at) {
            if draft.groups[at].len() >= upto as usize || draft.nodes() >= GANG_NODES_MAX as usize {
                break;
            }
            steps += 1;
            let node = &self.view.nodes[id];
            let elsewhere =
                level.is_some_and(|level| fit::label_of(node, level.label) != Some(level.value));
            if elsewhere || known.contains(&id) || !wish.allows(node) {
                continue;
            }
            let offer = self.offer(id, node, draft.rooms.get(&id));
            let Some(grant) = offer.take_at(site, at) else { continue };
            let mut holding = draft.holding;
            let sum = holding.amounts.checked_add(&demand.amounts_on(node));
            holding.amounts = sum.expect("what fits the nodes can be added up");
            holding.gpu_parts += grant.total_parts();
            let optional = draft.groups[at].len() >= wish.shape.groups[at].nodes_min as usize;
            if optional && self.holdings.excess(&wish.payers, &holding).is_some() {
                break;
            }
            if shared {
                let mut room = offer.room();
                room.take(demand, node, &grant).expect("the offer was checked");
                draft.rooms.insert(id, room);
            }
            draft.holding = holding;
            draft.groups[at].push((id, grant));
        }
        self.spend(steps)
    }

    /// The open nodes that may have room for a share of a group, best fit first.
    pub(super) fn candidates(&self, wish: &Wish<'_>, site: &Site<'_>, at: usize) -> Candidates<'_> {
        let demand = &site.demands[at];
        let need = Need { gpu_parts: demand.gpus.parts(), cpu_milli: demand.amounts.cpu_milli };
        let kinds = self.stock.kinds.iter().enumerate();
        let fitting = kinds.filter(|(_, kind)| {
            wish.may_use(kind, site.pool) && kind.has_gpus(demand, site.model.as_deref())
        });
        Candidates::new(&self.stock.kinds, fitting.map(|(at, _)| at), need)
    }

    /// What a node has to offer; `room`: what is left of it, if a gang took of it already.
    pub(super) fn offer<'r>(
        &'r self,
        id: NodeId,
        node: &'r Node,
        room: Option<&'r Room>,
    ) -> Offer<'r> {
        let room = room.or_else(|| self.taken.get(&id).map(|taken| &taken.room));
        Offer { node, room }
    }
}

impl Offer<'_> {
    /// Whether a share of a group fits at a site, and the GPUs that it gets.
    pub(super) fn take_at(&self, site: &Site<'_>, group: usize) -> Option<GpuGrant> {
        self.take(&site.demands[group], site.model.as_deref())
    }

    /// How many shares of a group fit at a site, about.
    pub(super) fn places_at(&self, site: &Site<'_>, group: usize) -> u32 {
        self.places(&site.demands[group], site.model.as_deref())
    }

    /// What is free.
    pub(super) fn room(&self) -> Room {
        self.room.cloned().unwrap_or_else(|| Room::of(self.node))
    }
}
