//! Children: who has ended, who is to be killed, and when nothing is left.

use super::ShimError;
use super::message::FromShim;
use super::record::Entry;
use super::run::Shim;
use super::task::cause_of;
use crate::launch::Part;
use crate::process;
use crate::sys::{self, WaitStatus, Waited};

impl Shim {
    /// Takes in who has ended. Statuses are written down; nothing that matters is reaped here.
    pub(super) fn look_at_children(&mut self) -> Result<(), ShimError> {
        self.look_at_preparation()?;
        let mains = self.running.as_ref().map_or(0, |running| running.mains.len());
        for index in 0..mains {
            let Some(running) = &self.running else { break };
            let main = &running.mains[index];
            if main.status.is_some() {
                continue;
            }
            if let Waited::Ended(_, status) =
                sys::wait(Some(main.pid), false).map_err(ShimError::Wait)?
            {
                self.main_ended(index, status)?;
            }
        }
        self.reap_others()?;
        self.end_task_if_over()
    }

    /// Reaps what is no main process of a task: programs of the gang's launcher, and whatever the
    /// ranks left behind.
    fn reap_others(&mut self) -> Result<(), ShimError> {
        while let Waited::Ended(pid, status) = sys::wait(None, false).map_err(ShimError::Wait)? {
            if self.is_kept(pid) {
                // The kernel shows this one until it is reaped: ask for each of the others.
                return self.reap_others_by_name();
            }
            sys::wait(Some(pid), true).map_err(ShimError::Wait)?;
            self.other_ended(pid, status);
        }
        Ok(())
    }

    fn reap_others_by_name(&mut self) -> Result<(), ShimError> {
        for pid in process::children(std::process::id() as i32) {
            if self.is_kept(pid) {
                continue;
            }
            if let Waited::Ended(_, status) = sys::wait(Some(pid), true).map_err(ShimError::Wait)? {
                self.other_ended(pid, status);
            }
        }
        Ok(())
    }

    /// Somebody other than a main process was reaped.
    ///
    /// A program that was run for the gang's launcher may leave a daemon behind, which is what the
    /// launcher was after: we inherit it when the program ends. A daemon that fails is to blame,
    /// as the launcher may wait for it forever.
    fn other_ended(&mut self, pid: i32, status: WaitStatus) {
        self.visits.on_ended(pid, status);
        if self.peers.on_ended(pid, status) {
            let mut inherited = self.living();
            inherited.retain(|pid| !self.is_visitors(*pid));
            if let Some(running) = &mut self.running {
                running.daemons.extend(inherited);
            }
        }
        let stopping = self.history.signalled || self.history.killing.is_some();
        if let Some(running) = &mut self.running
            && running.daemons.remove(&pid)
            && status != WaitStatus::Exited(0)
            && !stopping
        {
            running.blame = running.blame.or(Some((cause_of(status), None)));
        }
    }

    /// Whether it is a main process, or one whose end is not durable yet.
    fn is_kept(&self, pid: i32) -> bool {
        let prepares = self.preparation.as_ref().is_some_and(|preparation| preparation.is(pid));
        prepares || self.zombies.iter().any(|(_, zombie)| *zombie == pid) || self.is_main(pid)
    }

    fn is_main(&self, pid: i32) -> bool {
        self.running.iter().flat_map(|running| &running.mains).any(|main| main.pid == pid)
    }

    /// Children that have not ended, of whatever kind.
    pub(super) fn living(&self) -> Vec<i32> {
        let children = process::children(std::process::id() as i32);
        let zombie = |pid: &i32| self.zombies.iter().any(|(_, zombie)| zombie == pid);
        children.into_iter().filter(|pid| !zombie(pid)).collect()
    }

    /// Whether something that was started for others is left. Whoever visits does not count.
    fn is_helping(&self) -> bool {
        self.living().into_iter().any(|pid| !self.is_visitors(pid))
    }

    /// Whether a process is of somebody who visits.
    fn is_visitors(&self, pid: i32) -> bool {
        process::fact(pid).is_some_and(|fact| self.visits.has_session(fact.session))
    }

    /// Ends the task when its main processes are gone, and then whatever they left.
    pub(super) fn end_task_if_over(&mut self) -> Result<(), ShimError> {
        let stopping = self.history.signalled || self.history.killing.is_some();
        let Some(running) = &self.running else { return Ok(()) };
        let over = match running.plan.part {
            // It has done its part when all that it started for others is gone.
            Part::Helpers => (running.has_helped || stopping) && !self.is_helping(),
            Part::Ranks | Part::Launcher => running.is_over(),
        };
        if !over {
            return Ok(());
        }
        if self.is_empty() {
            // Under a kill, the last word is still to be said.
            self.is_killing = self.history.killing.is_some();
            return self.task_over();
        }
        // Where everybody was asked to stop, everybody has the time for it: the agent ends it.
        let all_asked = self.work.as_ref().is_some_and(|work| work.plan.stops_all());
        let has_time = all_asked && self.history.signalled && self.history.killing.is_none();
        self.is_killing |= !has_time;
        Ok(())
    }

    /// Whether nothing but zombies is left of what was started.
    pub(super) fn is_empty(&self) -> bool {
        let members = self.work.as_ref().map(|work| work.plan.group.members());
        members.is_none_or(|members| {
            members.iter().all(|pid| self.zombies.iter().any(|(_, zombie)| zombie == pid))
        }) && self.living().is_empty()
    }

    /// Kills what is there, again and again, until nothing is.
    pub(super) fn go_on_killing(&mut self) -> Result<(), ShimError> {
        if !self.is_killing {
            self.patience.end();
            return Ok(());
        }
        if !self.is_empty() {
            if let Some(work) = &mut self.work {
                work.plan.kill();
            }
            let left = process::descendants(std::process::id() as i32);
            process::kill_all(&left);
            if self.patience.go_on(sys::boot_ms()) {
                self.tell_stuck(left);
            }
        }
        self.look_at_children()?;
        if !self.is_empty() || self.running.is_some() {
            return Ok(());
        }
        if self.history.killing.is_none() {
            self.is_killing = false;
            return Ok(());
        }
        // The statuses go to disk, then the zombies, then the last word.
        if self.zombies.is_empty() && !self.history.reaped {
            if sys::wait(None, false).map_err(ShimError::Wait)? != Waited::Nobody {
                return Ok(());
            }
            self.is_killing = false;
            self.write(&Entry::Reaped)?;
            self.tell(FromShim::Reaped);
        }
        Ok(())
    }

    fn tell_stuck(&mut self, mut left: Vec<i32>) {
        left.extend(self.work.iter().flat_map(|work| work.plan.group.members()));
        let text = process::describe(&left);
        eprintln!("killed, and does not end: {text}");
        self.tell(FromShim::Stuck(text));
    }

    /// Reaps the main processes of tasks whose ends are on disk.
    pub(super) fn reap_durable(&mut self) -> Result<(), ShimError> {
        let durable = self.durable;
        let mut kept = Vec::new();
        for (position, pid) in std::mem::take(&mut self.zombies) {
            if position < durable {
                sys::wait(Some(pid), true).map_err(ShimError::Wait)?;
            } else {
                kept.push((position, pid));
            }
        }
        self.zombies = kept;
        Ok(())
    }
}
