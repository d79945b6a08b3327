//! Requests for checkpoints: because somebody wants one, or because the time limit is near.

use super::run::Shim;
use crate::process;
use crate::sys;
use yard_common::id::TaskRange;

impl Shim {
    /// When the task that runs is asked by itself.
    pub(super) fn checkpoint_due_ms(&self) -> Option<u64> {
        self.running.as_ref().and_then(|running| running.checkpoint_at_ms)
    }

    /// Asks the task that runs if its time limit is near.
    pub(super) fn look_at_checkpoint(&mut self) {
        let is_due = self.checkpoint_due_ms().is_some_and(|at_ms| sys::boot_ms() >= at_ms);
        let Some(running) = self.running.as_mut().filter(|_| is_due) else { return };
        running.checkpoint_at_ms = None;
        if let Err(problem) = self.ask_for_checkpoint(None, "time limit") {
            eprintln!("no checkpoint was asked for: {problem}");
        }
    }

    /// Asks the task that runs, if it is one of these. Returns how many main processes it has, of
    /// which each can see the file; those that are alive get the signal, and not what they started.
    pub(super) fn ask_for_checkpoint(
        &mut self,
        tasks: Option<TaskRange>,
        why: &str,
    ) -> Result<u32, String> {
        let (Some(work), Some(running)) = (&self.work, &self.running) else { return Ok(0) };
        let task = work.orders.chain.tasks().nth(running.position as usize);
        let is_meant = |range: TaskRange| task.is_some_and(|(task, _)| range.contains(task));
        if !tasks.is_none_or(is_meant) {
            return Ok(0);
        }
        let request = work.plan.checkpoint().ok_or(
            "the job has no checkpoints: say where they are, with checkpoint: { dir: /path }",
        )?;
        if self.history.signalled || self.history.killing.is_some() || self.is_killing {
            return Err("the attempt is being stopped on this node".into());
        }
        request.write(why).map_err(|error| format!("the file of the request: {error}"))?;
        for main in running.mains.iter().filter(|main| main.status.is_none()) {
            if let Some(signal) = request.signal {
                process::send(main.pid, signal);
            }
        }
        Ok(running.mains.len() as u32)
    }
}
