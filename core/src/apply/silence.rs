//! Silence of attempts: which shares are silent, when a whole attempt is, and its end for it.
//!
//! An attempt is silent when all of its shares that run are, since the last of them fell silent. A
//! node tells of its own share only; what it did not tell is not silent.

use super::Context;
use crate::event::Event;
use crate::state::{Share, State, Timer};
use yard_common::ExitCause;
use yard_common::id::AllocationId;
use yard_common::limits::STALL_DEFER_MS;
use yard_common::state::{AssignmentState, AttemptState, NodeState};

impl State {
    /// A share has been silent for so long, or is no longer.
    pub(super) fn share_silent(
        &mut self,
        context: &mut Context,
        id: AllocationId,
        share: usize,
        for_ms: Option<u64>,
    ) {
        let allocation = &mut self.allocations[id];
        let runs = allocation.shares[share].state == AssignmentState::Running;
        if !runs || allocation.state == AttemptState::Stopping {
            return;
        }
        let before_ms = allocation.silent_since_ms();
        let since_ms = for_ms.map(|for_ms| context.now_ms.saturating_sub(for_ms));
        // Nothing of it was there before it was granted.
        let since_ms = since_ms.map(|since_ms| since_ms.max(allocation.granted_ms));
        allocation.shares[share].silent_ms = since_ms;
        self.settle_silence(context, id, before_ms);
    }

    /// Draws the consequences, after shares of an attempt changed that was silent since
    /// `before_ms`.
    pub(super) fn settle_silence(
        &mut self,
        context: &mut Context,
        id: AllocationId,
        before_ms: Option<u64>,
    ) {
        let allocation = &self.allocations[id];
        let now_ms = allocation.silent_since_ms();
        if now_ms == before_ms {
            return;
        }
        let kill_ms = self.jobs[allocation.job].plan.stall_kill_ms;
        let at_ms = now_ms.zip(kill_ms).map(|(since_ms, kill_ms)| since_ms.saturating_add(kill_ms));
        self.set_stall_timer(id, at_ms);
        if now_ms.is_some() == before_ms.is_some() {
            return;
        }
        let allocation = &self.allocations[id];
        if let Some((task, attempt)) = allocation.left().tasks().next() {
            let (job, since_ms) = (allocation.job, now_ms);
            context.events.push(Event::Silence { job, task, attempt, since_ms });
        }
    }

    /// Nothing of an attempt is silent any more: it stops, or the next task of its chain begins.
    pub(super) fn forget_silence(&mut self, id: AllocationId) {
        for share in &mut self.allocations[id].shares {
            share.silent_ms = None;
        }
        self.set_stall_timer(id, None);
    }

    fn set_stall_timer(&mut self, id: AllocationId, at_ms: Option<u64>) {
        let old = std::mem::replace(&mut self.allocations[id].stall_ms, at_ms);
        if let Some(at_ms) = old {
            self.timers.unset(at_ms, Timer::Stall(id));
        }
        if let Some(at_ms) = at_ms {
            self.timers.set(at_ms, Timer::Stall(id));
        }
    }

    /// An attempt has been silent for longer than its job allows, as far as its nodes told.
    pub(super) fn pass_stall(&mut self, context: &mut Context, id: AllocationId) {
        let Some(allocation) = self.allocations.get(id) else { return };
        if allocation.stall_ms.is_none_or(|at_ms| at_ms > context.now_ms) {
            return;
        }
        // A node that is out of touch, or whose agent is away, could not tell that it is over.
        let may_tell = |share: &Share| {
            let node = self.nodes.get(share.node);
            node.is_some_and(|node| node.state == NodeState::Up && !node.is_away(context.now_ms))
        };
        let mut running = allocation.shares.iter().filter(|share| !share.is_over());
        if !running.all(may_tell) {
            self.set_stall_timer(id, Some(context.now_ms.saturating_add(STALL_DEFER_MS)));
            return;
        }
        self.begin_stop(context, id, ExitCause::Stalled);
    }
}
