//! Members that applied the same entries hold the same state: the hash over replies and events
//! and the digest of the records at every entry, and all bytes at the end (P8).

use super::{Invariant, Seen};
use crate::truth::Truth;
use std::collections::BTreeMap;
use yard_core::state::State;

/// What the first member to be at an entry had there.
#[derive(Debug, Default)]
pub struct ReplicasAgree {
    first: BTreeMap<u64, (usize, u64, u64)>,
}

impl Invariant for ReplicasAgree {
    fn name(&self) -> &'static str {
        "replicas_agree"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        match seen {
            Seen::Replica { member, index, state } => {
                let new = (*member, state.history_hash, state.digest.value);
                let first = *self.first.entry(*index).or_insert(new);
                if (first.1, first.2) != (new.1, new.2) {
                    let other = first.0;
                    return Err(format!("members {other} and {member} differ at entry {index}"));
                }
            }
            Seen::Over { state, members, .. } => {
                let bytes = state.to_bytes();
                for (at, member) in members.iter().enumerate() {
                    let equal = member.up && member.state.applied == state.applied;
                    if equal && member.state.to_bytes() != bytes {
                        return Err(format!("the bytes of member {at} differ at the end"));
                    }
                }
                let back = State::from_bytes(&bytes).map_err(|e| format!("snapshot: {e}"))?;
                if back.to_bytes() != bytes {
                    return Err("a state that was read back has other bytes".into());
                }
            }
            _ => {}
        }
        Ok(())
    }
}
