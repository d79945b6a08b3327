//! What the automata decide, asked once for each situation.

use super::state::State;
use super::world::{CONFIGS, Entry, Local, MEMBERS, World};
use std::collections::BTreeMap;
use yard_common::id::LeaseId;

/// Remembers what the automata decided, since many states share the part that decides.
#[derive(Default)]
pub(crate) struct Oracle {
    answers: BTreeMap<(Local, Vec<Entry>, u8, u8), Option<u8>>,
    asks: BTreeMap<(Local, Vec<Entry>, u64), Asked>,
    holders: BTreeMap<([[u8; CONFIGS]; MEMBERS], u8, u8), Holding>,
}

/// What a member says to the leader.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked {
    Promised(u8),
    Writes,
    No,
}

/// What the holder's automaton says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holding {
    pub(crate) held: bool,
    pub(crate) killed: bool,
    pub(crate) age: u8,
}

impl Oracle {
    pub(crate) fn answer(
        &mut self,
        world: &World,
        local: &Local,
        log: &[Entry],
        (lease, age): (u8, u8),
    ) -> Option<u8> {
        // Who has asked and what is on its way to the holder is nothing to the member.
        let known = Local { said: 0, best: [0; CONFIGS], flying: 0, ..*local };
        let log = &log[..usize::from(local.appended)];
        *self
            .answers
            .entry((known, log.to_vec(), lease, age))
            .or_insert_with(|| world.answer(local, log, lease.into(), age))
    }

    pub(crate) fn ask(&mut self, world: &World, local: &Local, log: &[Entry], lease: u64) -> Asked {
        let known = Local { said: 0, best: [0; CONFIGS], flying: 0, ..*local };
        let log = &log[..usize::from(local.appended)];
        *self.asks.entry((known, log.to_vec(), lease)).or_insert_with(|| {
            match world.ask(local, log, LeaseId(lease)) {
                Ok(promise) => Asked::Promised(world.config_of(&promise)),
                Err(true) => Asked::Writes,
                Err(false) => Asked::No,
            }
        })
    }

    pub(crate) fn holding(&mut self, world: &World, state: &State) -> Holding {
        let best = state.locals.map(|local| local.best);
        let key = (best, state.holder_lease, state.floor);
        *self.holders.entry(key).or_insert_with(|| {
            let holder = world.holder(&state.locals, state.holder_lease, state.floor);
            Holding {
                held: world.held(&holder),
                killed: world.killed(&holder),
                age: world.held_age(&holder),
            }
        })
    }
}
