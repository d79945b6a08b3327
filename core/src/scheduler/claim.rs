//! Claims: a task that has to wait for others to end keeps every node that it could use.

use super::gpus::Offer;
use super::round::Round;
use super::site::{Site, Wish};
use super::stock::{Free, Kind};
use crate::fit::{self, Room};
use crate::state::Node;
use std::collections::{BTreeMap, BTreeSet};
use yard_common::gpu::GPU_PARTS;
use yard_common::id::{JobId, NodeId};

/// The nodes of a site that share a value of a level; all of them without one.
struct Corner<'w> {
    level: Option<(&'w str, String)>,
}

impl Corner<'_> {
    fn has(&self, node: &Node) -> bool {
        let shares = |(label, value): &(&str, String)| fit::label_of(node, label) == Some(value);
        self.level.as_ref().is_none_or(shares)
    }
}

impl Round<'_> {
    /// Closes the nodes that a task could use, for all behind it, at each site where it could
    /// start if others ended. Elsewhere it waits for something else, and leaves nodes alone.
    /// Returns whether there is such a site.
    pub(super) fn claim(&mut self, wish: &Wish<'_>, sites: &[Site<'_>], job: JobId) -> bool {
        let mut found = false;
        for site in sites {
            for corner in self.corners(wish, site) {
                self.close(wish, site, &corner, job);
                found = true;
            }
        }
        found
    }

    /// The nodes that a task could use, at each site where it could start if others ended.
    pub(super) fn wanted(&self, wish: &Wish<'_>, sites: &[Site<'_>]) -> BTreeSet<NodeId> {
        let mut wanted = BTreeSet::new();
        for site in sites {
            for corner in self.corners(wish, site) {
                for at in 0..site.demands.len() {
                    let nodes = self.members(wish, site, at);
                    let here = nodes.filter(|(_, node)| corner.has(node));
                    wanted.extend(here.map(|(id, _)| id));
                }
            }
        }
        wanted
    }

    /// The corners of a site where a gang could start if others ended: all of the site, or each
    /// value of the level that its nodes must share.
    fn corners<'w>(&self, wish: &'w Wish<'_>, site: &Site<'_>) -> Vec<Corner<'w>> {
        let mut corners = vec![Corner { level: None }];
        if let Some(label) = &wish.shape.place.within {
            let nodes = self.members(wish, site, 0);
            let values = nodes.filter_map(|(_, node)| fit::label_of(node, label));
            let values: BTreeSet<String> = values.map(String::from).collect();
            let corner = |value| Corner { level: Some((label.as_str(), value)) };
            corners = values.into_iter().map(corner).collect();
        }
        corners.retain(|corner| self.could_run(wish, site, corner));
        corners
    }

    /// The nodes that could run a share of a group, were they empty.
    fn members<'r>(
        &'r self,
        wish: &'r Wish<'_>,
        site: &'r Site<'_>,
        at: usize,
    ) -> impl Iterator<Item = (NodeId, &'r Node)> {
        let kinds =
            self.stock.kinds.iter().filter(move |kind| self.could_use(wish, site, at, kind));
        kinds
            .flat_map(|kind| kind.members.iter())
            .map(|(id, ())| (*id, &self.view.nodes[*id]))
            .filter(move |(_, node)| wish.allows(node) && self.is_big_enough(site, at, node))
    }

    fn could_use(&self, wish: &Wish<'_>, site: &Site<'_>, at: usize, kind: &Kind) -> bool {
        wish.may_use(kind, site.pool) && kind.has_gpus(&site.demands[at], site.model.as_deref())
    }

    fn is_big_enough(&self, site: &Site<'_>, at: usize, node: &Node) -> bool {
        site.demands[at].amounts.fits(&node.facts.amounts)
    }

    /// Whether the smallest gang fits some of the nodes, were they all empty.
    fn could_run(&self, wish: &Wish<'_>, site: &Site<'_>, corner: &Corner<'_>) -> bool {
        let groups = &wish.shape.groups;
        if groups.len() == 1 {
            let wanted = groups[0].nodes_min as usize;
            let nodes = self.members(wish, site, 0).filter(|(_, node)| corner.has(node));
            return nodes.take(wanted).count() == wanted;
        }
        let mut rooms: BTreeMap<NodeId, Room> = BTreeMap::new();
        for at in &wish.order {
            let wanted = groups[*at].nodes_min as usize;
            let mut mine = BTreeSet::new();
            // By id: the order of kinds depends on what the cache has seen.
            let nodes = self.members(wish, site, *at).filter(|(_, node)| corner.has(node));
            let nodes: BTreeMap<NodeId, &Node> = nodes.collect();
            // Nodes that no group uses yet first: a share there takes nothing from the others.
            for shared in [false, true] {
                for (id, node) in &nodes {
                    if mine.len() == wanted {
                        break;
                    }
                    if mine.contains(id) || rooms.contains_key(id) != shared {
                        continue;
                    }
                    let room = rooms.get(id).cloned().unwrap_or_else(|| empty(node));
                    let offer = Offer { node, room: Some(&room) };
                    let Some(grant) = offer.take_at(site, *at) else { continue };
                    let mut left = offer.room();
                    left.take(&site.demands[*at], node, &grant).expect("the offer was checked");
                    rooms.insert(*id, left);
                    mine.insert(*id);
                }
            }
            if mine.len() < wanted {
                return false;
            }
        }
        true
    }

    fn close(&mut self, wish: &Wish<'_>, site: &Site<'_>, corner: &Corner<'_>, job: JobId) {
        let everywhere = !wish.is_choosy;
        for kind in 0..self.stock.kinds.len() {
            for at in 0..site.demands.len() {
                let this = &self.stock.kinds[kind];
                if this.open.is_empty() || !self.could_use(wish, site, at, this) {
                    continue;
                }
                let closed: Vec<Free> = if everywhere && site.demands[at].amounts.fits(&this.least)
                {
                    let all =
                        self.is_explaining().then(|| this.open.iter().map(|(free, ())| *free));
                    let all = all.into_iter().flatten().collect();
                    self.stock.kinds[kind].open = Default::default();
                    all
                } else {
                    let usable = this.open.iter().map(|(free, ())| *free).filter(|free| {
                        let node = &self.view.nodes[free.node];
                        wish.allows(node) && self.is_big_enough(site, at, node) && corner.has(node)
                    });
                    let usable: Vec<Free> = usable.collect();
                    for free in &usable {
                        self.stock.kinds[kind].open.remove(free);
                    }
                    usable
                };
                self.note_claim(job, closed.iter().map(|free| free.node));
            }
        }
    }
}

/// What an empty node has.
fn empty(node: &Node) -> Room {
    let parts = |device| if node.may_grant(device) { GPU_PARTS } else { 0 };
    Room {
        amounts: node.facts.amounts,
        parts: node.facts.devices.iter().map(parts).collect(),
        idle: true,
    }
}
