//! Keeps the output of ranks within its bounds while no agent is there to do so.

use super::run::{Shim, Work};
use crate::logs::{AttemptLogs, bound_all};
use crate::paths::Paths;
use crate::sys;
use yard_common::limits::DELIVERY_LAG_BYTES_MAX;

/// How often sizes are looked at.
const LOOK_MS: u64 = 1_000;

impl Shim {
    /// Looks at the output of the task that runs, if nobody else does.
    pub(super) fn look_at_output(&mut self) {
        let (Some(running), Some(Work { orders, plan })) = (&self.running, &self.work) else {
            self.output_at_ms = None;
            return;
        };
        if self.agent.is_some() {
            self.output_at_ms = None;
            return;
        }
        let now_ms = sys::boot_ms();
        if now_ms < *self.output_at_ms.get_or_insert(now_ms + LOOK_MS) {
            return;
        }
        self.output_at_ms = Some(now_ms + LOOK_MS);
        if let Some((task, attempt)) = orders.chain.tasks().nth(running.position as usize) {
            let paths = Paths::new(&orders.site.root);
            let logs = AttemptLogs::new(&paths, orders.assignment.job, task, attempt);
            // What is not delivered yet waits for the next agent, as long as the disk can bear it.
            let ahead = if plan.is_delivered() { DELIVERY_LAG_BYTES_MAX } else { 0 };
            bound_all(&logs, plan.log_bytes_max().saturating_add(ahead));
        }
    }
}
