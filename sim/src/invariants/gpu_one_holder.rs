//! A GPU has one holder: at every moment the ranks that really run on a machine share no GPU
//! beyond its whole, and the books of the state never hold more than there is (P3).

use super::{Invariant, Seen};
use crate::truth::Truth;
use std::collections::BTreeMap;
use yard_common::gpu::GPU_PARTS;

/// Keeps no books: the witness and the state do.
#[derive(Debug, Default)]
pub struct GpuOneHolder;

impl Invariant for GpuOneHolder {
    fn name(&self) -> &'static str {
        "gpu_one_holder"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Seen::Started(run) => {
                let mut parts = BTreeMap::new();
                for other in truth.running_on(run.machine) {
                    let id = other.assignment;
                    let grant = truth.grants.get(&(id.allocation, id.group, run.machine));
                    let Some(grant) = grant else { continue };
                    for position in grant.devices.positions() {
                        let sum = parts.entry(position).or_insert(0);
                        *sum += grant.parts;
                        if *sum > GPU_PARTS {
                            let machine = run.machine;
                            return Err(format!(
                                "GPU {position} of machine {machine} runs {sum} parts"
                            ));
                        }
                    }
                }
                Ok(())
            }
            Seen::Audit { state, .. } => {
                for (id, node) in state.nodes.iter() {
                    let mut parts = vec![0u32; node.facts.devices.len()];
                    let held = node.allocations.iter().filter_map(|(held, ())| {
                        let shares = &state.allocations.get(*held)?.shares;
                        Some(shares.iter().filter(|share| share.node == id).map(|share| share.gpus))
                    });
                    let left = node.leftovers.iter().map(|(_, left)| left.gpus);
                    for grant in held.flatten().chain(left) {
                        for position in grant.devices.positions() {
                            parts[position] += u32::from(grant.parts);
                        }
                    }
                    let most = parts.iter().copied().max().unwrap_or(0);
                    if most > u32::from(GPU_PARTS) {
                        return Err(format!("{most} parts of a GPU of node {id} are held"));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
