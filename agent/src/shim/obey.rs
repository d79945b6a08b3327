//! What a shim does when an agent speaks.

use super::ShimError;
use super::message::{FromShim, ToShim};
use super::record::{Entry, KillReason};
use super::run::Shim;

impl Shim {
    /// Hears the agent, and those that want to be it.
    pub(super) fn listen_to_agents(&mut self) -> Result<(), ShimError> {
        self.hear_agent()?;
        self.accept_agents()
    }

    /// Does what the agent has said.
    pub(super) fn hear_agent(&mut self) -> Result<(), ShimError> {
        let Some(agent) = &mut self.agent else { return Ok(()) };
        let heard = agent.flush().and_then(|()| agent.receive::<ToShim>());
        match heard {
            Ok(messages) => {
                for message in messages {
                    self.obey(&message)?;
                }
            }
            Err(_) => self.agent = None,
        }
        Ok(())
    }

    fn obey(&mut self, message: &ToShim) -> Result<(), ShimError> {
        match message {
            ToShim::Start(len) => {
                if !self.history.start_given && self.history.failed.is_none() {
                    let len = match self.history.signalled || self.history.killing.is_some() {
                        true => 0,
                        false => *len,
                    };
                    self.write(&Entry::StartGiven(len))?;
                }
                Ok(())
            }
            ToShim::Cut(len) => self.cut(*len),
            ToShim::SignalStop => self.stop(),
            ToShim::Kill => {
                if self.history.reaped {
                    self.tell(FromShim::Reaped);
                    return Ok(());
                }
                self.kill(KillReason::Ordered)
            }
            ToShim::Full => match self.history.reaped {
                true => Ok(()),
                false => self.kill(KillReason::Disk),
            },
            ToShim::Saved(ended) => {
                self.on_saved(*ended);
                Ok(())
            }
            // The loop looks at the lease anyway.
            ToShim::LeaseMoved => Ok(()),
            ToShim::Leave => {
                self.leaves = self.history.reaped;
                Ok(())
            }
        }
    }

    /// Starts nothing from a position on. What has started, stays.
    fn cut(&mut self, len: u32) -> Result<(), ShimError> {
        let len = len.max(self.history.started).max(self.history.starting);
        if self.history.start_given && len < self.history.len {
            self.write(&Entry::Cut(len))?;
        }
        let now = if self.history.start_given { self.history.len } else { len };
        self.tell(FromShim::Cut(now));
        Ok(())
    }

    /// Sends the stop signal once, and starts nothing more.
    fn stop(&mut self) -> Result<(), ShimError> {
        if !self.history.signalled {
            self.write(&Entry::Signalled)?;
            // A start that waited for the lease has not happened.
            self.give_up_waiting()?;
            if let (Some(running), Some(work)) = (&self.running, &self.work) {
                running.signal(&work.plan);
            }
        }
        self.cut(0)
    }

    /// Kills everything.
    pub(super) fn kill(&mut self, reason: KillReason) -> Result<(), ShimError> {
        if self.history.killing.is_none() {
            self.write(&Entry::Killing(reason))?;
            self.give_up_waiting()?;
        }
        self.is_killing = true;
        Ok(())
    }

    fn give_up_waiting(&mut self) -> Result<(), ShimError> {
        if self.waits_for_lease && self.running.is_none() {
            self.waits_for_lease = false;
            if self.history.starting > self.history.started {
                self.write(&Entry::Held(self.history.started))?;
            }
        }
        Ok(())
    }
}
