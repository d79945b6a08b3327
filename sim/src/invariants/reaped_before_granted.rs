//! What an attempt left behind on a node is granted to nobody until the node has seen it reaped:
//! where GPUs are granted, no process of another attempt exists that holds them (P2).

use super::{Invariant, Seen};
use crate::truth::Truth;
use yard_common::gpu::GPU_PARTS;
use yard_core::event::Event;

/// Keeps no books: the witness does.
#[derive(Debug, Default)]
pub struct ReapedBeforeGranted;

impl Invariant for ReapedBeforeGranted {
    fn name(&self) -> &'static str {
        "reaped_before_granted"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        let Seen::Applied(step) = seen else { return Ok(()) };
        for fact in &step.applied.events {
            let Event::Granted { allocation, .. } = fact else { continue };
            let Some(granted) = step.state.allocations.get(*allocation) else { continue };
            for share in &granted.shares {
                let machine = share.node.0 as usize;
                for id in truth.processes_on(machine).filter(|id| id.allocation != *allocation) {
                    let grant = truth.grants.get(&(id.allocation, id.group, machine));
                    let Some(grant) = grant else { continue };
                    let common = grant.devices.intersects(share.gpus.devices);
                    let parts = u32::from(grant.parts) + u32::from(share.gpus.parts);
                    if common && parts > u32::from(GPU_PARTS) {
                        return Err(format!(
                            "allocation {allocation} got GPUs of machine {machine} on which \
                             processes of {id} exist"
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}
