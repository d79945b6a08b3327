//! Which GPUs of a node a share gets.

use crate::fit::{Demand, Room};
use crate::state::Node;
use yard_common::Amounts;
use yard_common::gpu::{GPU_PARTS, GpuCount, GpuGrant};

/// A node with what is free on it: as in the view, or less by what the round took.
#[derive(Clone, Copy)]
pub(super) struct Offer<'r> {
    pub(super) node: &'r Node,
    pub(super) room: Option<&'r Room>,
}

impl Offer<'_> {
    fn parts(&self, position: usize) -> u16 {
        match self.room {
            Some(room) => room.parts[position],
            None => self.node.free_parts(position),
        }
    }

    /// Whether the share fits, and the GPUs that it gets. `model`: the one of the gang.
    pub(super) fn take(&self, demand: &Demand<'_>, model: Option<&str>) -> Option<GpuGrant> {
        let (free, idle) = match self.room {
            Some(room) => (room.amounts, room.idle),
            None => (self.node.free(), self.node.is_idle()),
        };
        if !demand.amounts_on(self.node).fits(&free) || demand.exclusive && !idle {
            return None;
        }
        if demand.exclusive {
            crate::fit::ever(demand, model, self.node).ok()?;
            return Some(GpuGrant::whole(
                self.node.healthy().map(|(position, _)| position).collect(),
            ));
        }
        self.grant(demand, model)
    }

    /// How many shares fit, about: parts of GPUs are added up over devices.
    pub(super) fn places(&self, demand: &Demand<'_>, model: Option<&str>) -> u32 {
        if self.take(demand, model).is_none() {
            return 0;
        }
        if demand.exclusive {
            return 1;
        }
        let free = self.room.map_or_else(|| self.node.free(), |room| room.amounts);
        let parts: u64 = self
            .node
            .healthy()
            .filter(|(_, device)| demand.gpus.accepts(device))
            .map(|(position, _)| u64::from(self.parts(position)))
            .sum();
        places_in(&free, parts, demand)
    }

    fn grant(&self, demand: &Demand<'_>, model: Option<&str>) -> Option<GpuGrant> {
        let fitting = self.node.healthy().filter(|(_, device)| {
            demand.gpus.accepts(device) && model.is_none_or(|model| model == device.model)
        });
        let mut positions = fitting.map(|(position, _)| position);
        match demand.gpus.count {
            GpuCount::None => Some(GpuGrant::NONE),
            GpuCount::Whole(count) | GpuCount::Mig(_, count) => {
                let free = positions.filter(|position| self.parts(*position) == GPU_PARTS);
                let grant = GpuGrant::whole(free.take(count.into()).collect());
                (grant.devices.len() == u32::from(count)).then_some(grant)
            }
            // The fullest device that has room: parts of GPUs leave whole ones alone.
            GpuCount::Part(parts) => {
                let fullest = positions
                    .by_ref()
                    .map(|position| (self.parts(position), position))
                    .filter(|(free, _)| *free >= parts)
                    .min();
                fullest.map(|(_, position)| GpuGrant::part(position, parts))
            }
        }
    }
}

/// How many shares fit into what is free of CPU, memory, disk and parts of GPUs.
pub(super) fn places_in(free: &Amounts, gpu_parts: u64, demand: &Demand<'_>) -> u32 {
    let Amounts { cpu_milli, memory_bytes, disk_bytes } = demand.amounts;
    let pairs = [
        (free.cpu_milli, cpu_milli),
        (free.memory_bytes, memory_bytes),
        (free.disk_bytes, disk_bytes),
        (gpu_parts, demand.gpus.parts()),
    ];
    let fits = pairs.into_iter().filter_map(|(free, need)| free.checked_div(need)).min();
    u32::try_from(fits.unwrap_or(u64::MAX)).unwrap_or(u32::MAX)
}
