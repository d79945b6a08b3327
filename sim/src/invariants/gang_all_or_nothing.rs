//! At every entry an attempt holds all of its shares or none: each group has as many nodes as it
//! asked for, each node of a share knows the allocation, and what is freed is freed everywhere
//! (P3).

use super::{Invariant, Seen};
use crate::truth::Truth;
use yard_common::id::AllocationId;
use yard_core::event::Event;
use yard_core::state::State;

/// Keeps no books.
#[derive(Debug, Default)]
pub struct GangAllOrNothing;

fn check(state: &State, id: AllocationId) -> Result<(), String> {
    let Some(allocation) = state.allocations.get(id) else {
        let holds = state.nodes.iter().find(|(_, node)| node.allocations.contains(&id));
        return match holds {
            Some((node, _)) => Err(format!("node {node} holds {id}, which is gone")),
            None => Ok(()),
        };
    };
    let shape = state.shapes.get(allocation.shape);
    for (nth, group) in shape.groups.iter().enumerate() {
        let nodes = allocation.shares.iter().filter(|share| usize::from(share.group) == nth);
        let count = nodes.count() as u32;
        if count < group.nodes_min || count > group.nodes_max {
            return Err(format!("allocation {id} has {count} nodes of group {}", group.name));
        }
    }
    for share in &allocation.shares {
        let known = state.nodes.get(share.node).is_some_and(|n| n.allocations.contains(&id));
        if !known {
            return Err(format!("node {} does not know of allocation {id}", share.node));
        }
    }
    Ok(())
}

impl Invariant for GangAllOrNothing {
    fn name(&self) -> &'static str {
        "gang_all_or_nothing"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        match seen {
            Seen::Applied(step) => {
                for fact in &step.applied.events {
                    if let Event::Granted { allocation, .. } | Event::Freed(allocation) = fact {
                        check(step.state, *allocation)?;
                    }
                }
                Ok(())
            }
            Seen::Audit { state, .. } => {
                state.allocations.iter().try_for_each(|(id, _)| check(state, id))
            }
            _ => Ok(()),
        }
    }
}
