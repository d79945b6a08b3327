//! The setup of the pool: what an operator has every machine of a pool do before it takes work.
//!
//! ```text
//!   control stream --wanted--> Runner --> run      bash, in a group of its own, with a deadline
//!   health         <--told----        \-> output   what it wrote, bounded
//! ```
//!
//! It runs when the coordinator has said that it is wanted now, and this boot has not done it. A
//! run that an agent did not see the end of counts for nothing: what is left of it is ended, and
//! it is run again.
//!
//! **Invariants:** one run at a time. A run is on disk as begun before it begins, and as done
//! before that is told.

pub(crate) mod output;
mod run;

use crate::cgroup::Support;
use crate::paths::Paths;
use crate::session::Fatal;
use crate::session::memory::Memory;
use crate::session::told::wall_ms;
use minicbor::{Decode, Encode};
use run::{Outcome, Run};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use yard_common::id::{BootId, Incarnation};
use yard_common::limits::{SETUP_PAUSE_MS, SETUP_PAUSE_MS_MAX};
use yard_core::command::{Setup, SetupId, SetupReport, SetupStage};
use yard_runtime::shutdown::CancellationToken;

/// What a machine's owner says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether it may run here.
    pub allowed: bool,
    /// `PATH` of it.
    pub path: String,
}

impl Default for Options {
    fn default() -> Options {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_string();
        Options { allowed: true, path }
    }
}

/// What the pool wants, as it was heard last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Wanted {
    /// The life of the cluster in which it was heard.
    #[n(0)]
    pub(crate) life: u32,
    /// Which.
    #[n(1)]
    pub(crate) id: SetupId,
    /// What to run.
    #[n(2)]
    pub(crate) setup: Option<Setup>,
    /// Name of the pool.
    #[n(3)]
    pub(crate) pool: String,
}

impl Wanted {
    /// What is wanted after a word of the coordinator; none: that one knows less than we do.
    ///
    /// # Errors
    /// If the text is missing.
    pub(crate) fn after(
        &self,
        life: Incarnation,
        id: SetupId,
        setup: Option<Setup>,
        pool: String,
    ) -> Result<Option<Wanted>, &'static str> {
        let life = life.0;
        if (life, id.revision) < (self.life, self.id.revision) {
            return Ok(None);
        }
        let setup = match setup {
            None if !id.is_some() => None,
            None if id == self.id => self.setup.clone(),
            None => return Err("a setup without its text"),
            setup => setup,
        };
        Ok(Some(Wanted { life, id, setup, pool }))
    }
}

/// What was heard, and whether it was heard since the agent began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) wanted: Wanted,
    pub(crate) is_confirmed: bool,
}

/// That a boot of the machine has done one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Done {
    #[n(0)]
    boot: BootId,
    #[n(1)]
    id: SetupId,
    #[n(2)]
    at_wall_ms: u64,
}

/// What outlasts the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SetupFile {
    /// What was heard last.
    #[n(0)]
    pub(crate) wanted: Wanted,
    /// What was done last.
    #[n(1)]
    pub(crate) done: Option<Done>,
    /// The number of the last run; 0: there was none.
    #[n(2)]
    pub(crate) runs: u32,
    /// Whether it was not seen to end.
    #[n(3)]
    pub(crate) is_running: bool,
}

/// What is told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) report: Option<SetupReport>,
    /// Why the machine takes no work.
    pub(crate) why: Option<String>,
}

impl SetupFile {
    /// What is told before anything is heard.
    pub(crate) fn told(&self, boot: BootId) -> Told {
        let done = self.done.filter(|done| done.boot == boot);
        let report = done.map(|done| SetupReport {
            id: done.id,
            stage: SetupStage::Done,
            since_wall_ms: done.at_wall_ms,
        });
        Told { report, why: None }
    }
}

/// Where it runs.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) options: Options,
    pub(crate) node: String,
    pub(crate) paths: Paths,
    pub(crate) cgroups: Support,
    pub(crate) boot: BootId,
}

/// Runs what is wanted.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) site: Site,
    pub(crate) memory: Memory,
    pub(crate) file: SetupFile,
    pub(crate) heard: watch::Receiver<Heard>,
    /// The last check of itself that the node was asked for.
    pub(crate) asked: watch::Receiver<u32>,
    pub(crate) told: watch::Sender<Told>,
}

/// When it is tried again.
#[derive(Clone, Copy, Debug, Default)]
struct Again {
    at: Option<Instant>,
    failures: u32,
}

impl Again {
    fn after_failure(self) -> Again {
        let doubled = SETUP_PAUSE_MS.checked_shl(self.failures).unwrap_or(SETUP_PAUSE_MS_MAX);
        let pause = Duration::from_millis(doubled.min(SETUP_PAUSE_MS_MAX));
        // Beyond that the pause grows no more.
        Again { at: Some(Instant::now() + pause), failures: (self.failures + 1).min(16) }
    }
}

impl Runner {
    /// Works until it is stopped.
    ///
    /// # Errors
    /// If the agent's files fail.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Fatal> {
        self.end_last().await?;
        let mut again = Again::default();
        loop {
            if self.accept().await? {
                again = Again::default();
            }
            let due = self.is_due();
            let at = again.at.filter(|_| due);
            if due && self.site.options.allowed && at.is_none() {
                self.asked.mark_unchanged();
                match self.once(&stop).await? {
                    Outcome::Done => again = Again::default(),
                    Outcome::Failed(_) => again = again.after_failure(),
                    Outcome::Cut if stop.is_cancelled() => return Ok(()),
                    Outcome::Cut => {}
                }
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                heard = self.heard.changed() => {
                    if heard.is_err() {
                        return Ok(());
                    }
                }
                () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => {
                    again.at = None;
                }
                asked = self.asked.changed(), if at.is_some() => {
                    if asked.is_err() {
                        return Ok(());
                    }
                    again.at = None;
                }
            }
        }
    }

    /// Ends what a run left that an agent before this one did not see the end of.
    async fn end_last(&mut self) -> Result<(), Fatal> {
        if !self.file.is_running {
            return Ok(());
        }
        tracing::warn!(run = self.file.runs, "a setup was cut off; it is run again");
        run::end(&self.site, self.file.runs).await;
        self.file.is_running = false;
        self.save().await
    }

    /// Takes in what was heard. Returns whether something else is wanted than before.
    async fn accept(&mut self) -> Result<bool, Fatal> {
        let heard = self.heard.borrow_and_update().clone();
        let is_new = heard.wanted.id != self.file.wanted.id;
        if heard.wanted != self.file.wanted {
            self.file.wanted = heard.wanted;
            self.save().await?;
        }
        if !heard.is_confirmed {
            return Ok(is_new);
        }
        if !self.file.wanted.id.is_some() {
            self.told.send_replace(Told::default());
        } else if self.is_done() {
            self.told.send_replace(self.file.told(self.site.boot));
        } else if !self.site.options.allowed {
            let why = "the configuration of the machine does not allow it".to_string();
            self.tell(SetupStage::Refused, Some(why));
        }
        Ok(is_new)
    }

    fn is_done(&self) -> bool {
        let done = self.file.done.filter(|done| done.boot == self.site.boot);
        done.is_some_and(|done| done.id == self.file.wanted.id)
    }

    fn is_due(&self) -> bool {
        let wanted = self.file.wanted.id.is_some() && self.heard.borrow().is_confirmed;
        wanted && !self.is_done()
    }

    /// Runs it once.
    async fn once(&mut self, stop: &CancellationToken) -> Result<Outcome, Fatal> {
        let Wanted { id, setup: Some(setup), pool, .. } = self.file.wanted.clone() else {
            return Ok(Outcome::Cut);
        };
        self.file.runs = self.file.runs.wrapping_add(1).max(1);
        self.file.is_running = true;
        self.save().await?;
        // While it is tried again, what is told is how it failed.
        if !self.has_failed(id) {
            self.tell(SetupStage::Running, Some(format!("{id} runs")));
        }
        let number = self.file.runs;
        tracing::info!(%id, run = number, "the setup of the pool runs");
        let run = Run { site: &self.site, number, setup: &setup, pool: &pool };
        let mut heard = self.heard.clone();
        let other = async {
            loop {
                if heard.changed().await.is_err() || heard.borrow().wanted.id != id {
                    return;
                }
            }
        };
        let cut = async {
            tokio::select! {
                () = other => {}
                () = stop.cancelled() => {}
            }
        };
        let outcome = run.finish(cut).await;
        self.file.is_running = false;
        if matches!(outcome, Outcome::Done) {
            self.file.done = Some(Done { boot: self.site.boot, id, at_wall_ms: wall_ms() });
        }
        self.save().await?;
        match &outcome {
            Outcome::Done => {
                tracing::info!(%id, run = number, "the setup of the pool is done");
                self.told.send_replace(self.file.told(self.site.boot));
            }
            Outcome::Failed(failure) => {
                let why = failure.why.as_str();
                tracing::warn!(%id, run = number, why, "the setup of the pool failed");
                self.tell_failure(id, failure);
            }
            Outcome::Cut => tracing::info!(%id, run = number, "the setup of the pool was cut off"),
        }
        Ok(outcome)
    }

    fn has_failed(&self, id: SetupId) -> bool {
        let report = self.told.borrow().report;
        report.is_some_and(|report| report.id == id && report.stage == SetupStage::Failed)
    }

    /// Tells how it failed. A further failure of the same kind is no news: the last line may have
    /// a time in it, and thousands of machines would tell of it for as long as it fails.
    fn tell_failure(&self, id: SetupId, failure: &run::Failure) {
        let begin = format!("{id} failed with {}", failure.how);
        let is_known = self.told.borrow().why.as_ref().is_some_and(|why| why.starts_with(&begin));
        if self.has_failed(id) && is_known {
            return;
        }
        let why = match failure.why.as_str() {
            "" => begin,
            line => format!("{begin}: {line}"),
        };
        self.tell(SetupStage::Failed, Some(why));
    }

    fn tell(&self, stage: SetupStage, why: Option<String>) {
        let id = self.file.wanted.id;
        self.told.send_if_modified(|told| {
            let same = told.report.is_some_and(|report| (report.id, report.stage) == (id, stage));
            if same && told.why == why {
                return false;
            }
            *told = Told { report: Some(SetupReport { id, stage, since_wall_ms: wall_ms() }), why };
            true
        });
    }

    async fn save(&self) -> Result<(), Fatal> {
        let (memory, file) = (self.memory.clone(), self.file.clone());
        let saved = tokio::task::spawn_blocking(move || memory.save_setup(&file)).await;
        Ok(saved.expect("writing a file does not panic")?)
    }
}

#[cfg(test)]
mod tests;
