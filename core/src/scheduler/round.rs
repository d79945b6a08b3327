//! One round: every pending task gets its turn, until nothing open is left.

use super::cache::Cache;
use super::chains;
use super::choose::Gang;
use super::gpus::places_in;
use super::lines::{LineKey, Turn, Turns};
use super::site::{Site, Sites, Wish};
use super::stock::{Free, Stock};
use super::{Budget, Policy};
use crate::command::{Placement, Plan};
use crate::fit::{Demand, Room};
use crate::mutant;
use crate::state::{Excess, Holdings, Job, State};
use std::collections::{BTreeMap, BTreeSet};
use yard_common::gpu::GpuCount;
use yard_common::id::{JobId, NodeId, QueueId, ShapeId};
use yard_common::limits::{NODE_ASSIGNMENTS_MAX, PLAN_PLACEMENTS_MAX};
use yard_common::state::TaskState;

/// The budget is used up, or the plan is full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut;

/// A node that the round placed something on.
pub(super) struct Taken {
    /// What is left.
    pub(super) room: Room,
    /// Allocations that it may still take.
    slots: usize,
    /// Its place among the open nodes.
    free: Free,
}

/// Why the rest of a job's queued tasks stays behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// As many of its tasks run as it allows.
    Throttle,
    /// A limit would be passed, wherever it went.
    Limit(Excess),
    /// No gang of nodes is free.
    NoRoom,
}

/// The state of a round: what is left after what was placed so far.
pub(super) struct Round<'a> {
    pub(super) view: &'a State,
    pub(super) now_ms: u64,
    policy: &'a Policy,
    cache: &'a Cache,
    pub(super) stock: Stock,
    pub(super) holdings: Holdings,
    pub(super) taken: BTreeMap<NodeId, Taken>,
    placements: Vec<Placement>,
    units_left: u64,
    /// Lines like these found no room, and keep what they could use: shape, queue, end.
    blocked: BTreeSet<(ShapeId, QueueId, Option<u64>)>,
    /// Who claims which node; kept for explanations only.
    claims: Option<BTreeMap<NodeId, JobId>>,
}

impl<'a> Round<'a> {
    /// A round over a view that the cache is in line with.
    pub(super) fn new(
        cache: &'a Cache,
        view: &'a State,
        now_ms: u64,
        policy: &'a Policy,
        budget: Budget,
    ) -> Round<'a> {
        Round {
            view,
            now_ms,
            policy,
            cache,
            stock: cache.seats.stock.clone(),
            holdings: view.holdings.clone(),
            taken: BTreeMap::new(),
            placements: Vec::new(),
            units_left: budget.0,
            blocked: BTreeSet::new(),
            claims: None,
        }
    }

    /// Keeps account of who claims which node.
    pub(super) fn explaining(mut self) -> Round<'a> {
        self.claims = Some(BTreeMap::new());
        self
    }

    pub(super) fn is_explaining(&self) -> bool {
        self.claims.is_some()
    }

    pub(super) fn note_claim(&mut self, job: JobId, nodes: impl Iterator<Item = NodeId>) {
        if let Some(claims) = &mut self.claims {
            claims.extend(nodes.map(|node| (node, job)));
        }
    }

    /// Who claims which node.
    pub(super) fn claims(&self) -> impl Iterator<Item = (NodeId, JobId)> {
        self.claims.iter().flatten().map(|(node, job)| (*node, *job))
    }

    /// What was placed so far.
    pub(super) fn placements(&self) -> &[Placement] {
        &self.placements
    }

    pub(super) fn into_plan(self) -> Plan {
        Plan { placements: self.placements, ..Plan::default() }
    }

    /// Gives every pending job its turn, or those before a turn. Returns whether all had theirs.
    pub(super) fn run(&mut self, until: Option<Turn>) -> bool {
        let mut turns = Turns::new(&self.cache.lines, self.view);
        while let Some((turn, line)) = turns.pop() {
            if until.is_some_and(|until| until <= turn) || self.is_nothing_open() {
                return true;
            }
            if self.blocked.contains(&self.blocked_key(&line)) {
                continue;
            }
            match self.serve(turn.job(), &line) {
                Err(Cut) => return false,
                // What stops one job of a line stops those behind it, except its own throttle.
                Ok(Some(Stop::Limit(_) | Stop::NoRoom)) => {}
                Ok(Some(Stop::Throttle) | None) => turns.put_back(turn, line),
            }
        }
        true
    }

    fn is_nothing_open(&self) -> bool {
        self.stock.kinds.iter().all(|kind| kind.open.is_empty())
    }

    fn blocked_key(&self, line: &LineKey) -> (ShapeId, QueueId, Option<u64>) {
        // An end matters only where something is about to be drained.
        let mut kinds = self.stock.kinds.iter().filter(|kind| !kind.members.is_empty());
        let drains = kinds.any(|kind| kind.drain_ms.is_some());
        (line.shape, line.queue, line.time_limit_ms.filter(|_| drains))
    }

    /// Places as many tasks of a job as may and can start. Claims what the rest waits for.
    pub(super) fn serve(&mut self, id: JobId, line: &LineKey) -> Result<Option<Stop>, Cut> {
        self.spend(1)?;
        let job = &self.view.jobs[id];
        let wish = Wish::new(self.view, line, self.now_ms);
        let queued = job.tasks.counts().of(TaskState::Queued);
        let running_max = job.plan.array.as_ref().and_then(|array| array.running_max);
        let mut gangs: Vec<(Gang, bool)> = Vec::new();
        let mut sites = wish.sites(self.view, &self.stock.kinds, &self.holdings);
        let stop = loop {
            if gangs.len() as u32 >= queued {
                break Ok(None);
            }
            let running = job.allocations.saturating_add(gangs.len() as u32);
            if running_max.is_some_and(|max| running >= max) && !mutant!("throttle_ignored") {
                break Ok(Some(Stop::Throttle));
            }
            if self.placements.len() + gangs.len() >= PLAN_PLACEMENTS_MAX {
                break Err(Cut);
            }
            sites.keep_within(&self.holdings, &wish.payers);
            match self.choose(&wish, &mut sites) {
                Err(cut) => break Err(cut),
                Ok(Some(gang)) => {
                    let lasting = self.take(&wish, &sites.sites[gang.site].demands, &gang);
                    gangs.push((gang, lasting));
                }
                Ok(None) => break Ok(Some(self.no_room(id, line, &wish, &sites))),
            }
        };
        let unseen = if stop.is_err() { self.count_places(&wish, &sites, queued) } else { 0 };
        self.deal(id, job, gangs, unseen);
        stop
    }

    /// Why no gang was found: limits, if they left no site where it could ever start; else the
    /// machines, which are claimed.
    fn no_room(&mut self, id: JobId, line: &LineKey, wish: &Wish<'_>, sites: &Sites<'_>) -> Stop {
        let waits_for_others = self.claim(wish, &sites.sites, id);
        match sites.excess {
            Some(excess) if !waits_for_others => Stop::Limit(excess),
            Some(_) => Stop::NoRoom,
            None => {
                // Behind limits others may find more sites, so only this is final.
                self.blocked.insert(self.blocked_key(line));
                Stop::NoRoom
            }
        }
    }

    /// Counts work against the budget.
    pub(super) fn spend(&mut self, units: u64) -> Result<(), Cut> {
        self.units_left = self.units_left.checked_sub(units).ok_or(Cut)?;
        Ok(())
    }

    /// Takes what a gang got out of the stock. Returns whether none of its nodes is to be drained.
    fn take(&mut self, wish: &Wish<'_>, demands: &[Demand<'_>], gang: &Gang) -> bool {
        let mut lasting = true;
        // Only groups can share a node.
        let (shared, mut touched) = (demands.len() > 1, BTreeSet::new());
        for share in &gang.shares {
            let (id, node) = (share.node, &self.view.nodes[share.node]);
            let seat = self.cache.seats.get(id).expect("a candidate has a seat");
            let kind = &mut self.stock.kinds[seat.kind];
            lasting &= kind.drain_ms.is_none();
            let taken = self.taken.entry(id).or_insert_with(|| Taken {
                room: Room::of(node),
                slots: NODE_ASSIGNMENTS_MAX - node.allocations.len() - node.leftovers.len(),
                free: seat.free,
            });
            let demand = &demands[usize::from(share.group)];
            taken.room.take(demand, node, &share.gpus).expect("the gang was checked");
            taken.slots -= usize::from(!shared || touched.insert(id));
            kind.open.remove(&taken.free);
            let parts = taken.room.parts.iter().map(|parts| u64::from(*parts));
            taken.free.gpu_parts = parts.sum();
            taken.free.cpu_milli = taken.room.amounts.cpu_milli;
            if taken.slots > 0 {
                kind.open.insert(taken.free, ());
            }
        }
        self.holdings.add(&wish.payers, &gang.holding);
        lasting
    }

    /// Deals the queued tasks of a job to the gangs that were found for them. `unseen`: places
    /// that the round had no time to look at.
    fn deal(&mut self, id: JobId, job: &Job, gangs: Vec<(Gang, bool)>, unseen: u32) {
        let queued = job.tasks.counts().of(TaskState::Queued);
        let found = u32::try_from(gangs.len()).expect("a plan is bounded");
        let len = if !job.plan.chains() || queued <= found {
            1
        } else {
            let places = job.allocations.saturating_add(found).saturating_add(unseen);
            chains::chain_len(queued, places, self.policy.chain_max)
        };
        // A chain outlasts the time limit of one task, and must not run into a planned drain.
        let lens = gangs.iter().map(|(_, lasting)| if *lasting { len } else { 1 });
        let chains = chains::deal(job, lens.collect::<Vec<_>>());
        let placements = gangs.into_iter().zip(chains);
        self.placements.extend(placements.map(|((gang, _), tasks)| Placement {
            job: id,
            tasks,
            shares: gang.shares,
        }));
    }

    /// How many more tasks would find a place if the plan had room for them, up to a number.
    fn count_places(&self, wish: &Wish<'_>, sites: &Sites<'_>, upto: u32) -> u32 {
        let mut places: u32 = 0;
        for site in &sites.sites {
            for id in self.candidates(wish, site, 0) {
                places = places.saturating_add(self.places_on(id, wish, site));
                if places >= upto {
                    return upto;
                }
            }
        }
        places
    }

    /// How many shares of the first group fit on a node, about.
    fn places_on(&self, id: NodeId, wish: &Wish<'_>, site: &Site<'_>) -> u32 {
        let demand = &site.demands[0];
        let plain = !wish.is_choosy && !demand.exclusive && demand.gpus.count == GpuCount::None;
        if plain
            && !self.taken.contains_key(&id)
            && let Some(seat) = self.cache.seats.get(id)
        {
            return places_in(&seat.left, 0, demand);
        }
        let node = &self.view.nodes[id];
        if wish.allows(node) { self.offer(id, node, None).places_at(site, 0) } else { 0 }
    }
}
