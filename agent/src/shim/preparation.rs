//! What runs once on the node before the first task, and nothing is ready before it has succeeded:
//! the directory of `logs.dir` is made, and then comes the job's own `prepare` command.
//!
//! Both run as ranks do: as the user, in their control group and directory, under the lease, and
//! what they leave behind ends with them. They are in no record: if the shim dies, what there is of
//! them is found by its group or its mark, as is what ranks leave behind.

use super::ShimError;
use super::message::FromShim;
use super::record::Entry;
use super::run::Shim;
use super::task::{cause_of, cause_of_start, start_one};
use crate::launch::{Plan, PrepareError, Process};
use crate::lease_file::LeaseFile;
use crate::sys::{self, StartError, StartStep, WaitStatus, Waited};
use std::io::Write;
use std::path::PathBuf;
use yard_common::ExitCause;
use yard_common::cause::PrepareStep;
use yard_common::limits::DELIVERY_DIR_MS;

/// What is done, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The directory that output is delivered to.
    #[default]
    Directory,
    /// The job's command.
    Command,
}

impl Stage {
    fn is_in(self, plan: &Plan) -> bool {
        match self {
            Stage::Directory => plan.is_delivered(),
            Stage::Command => plan.has_preparation(),
        }
    }

    fn process(self, plan: &Plan) -> Result<Process, PrepareError> {
        match self {
            Stage::Directory => plan.folder_maker(),
            Stage::Command => plan.preparation(),
        }
    }

    fn time_ms(self, plan: &Plan) -> u64 {
        match self {
            Stage::Directory => DELIVERY_DIR_MS,
            Stage::Command => plan.prepare_ms(),
        }
    }

    /// The step that has failed if it does.
    fn step(self) -> PrepareStep {
        match self {
            Stage::Directory => PrepareStep::LogDir,
            Stage::Command => PrepareStep::Setup,
        }
    }
}

/// The process of a stage on its way.
#[derive(Debug, Default)]
pub(super) struct Preparation {
    stage: Stage,
    /// Its process; none: it has not started.
    pid: Option<i32>,
    /// When it has taken too long, by the boot clock.
    until_ms: u64,
    /// Whether it has.
    is_late: bool,
    /// Kills for lack of memory before it started.
    oom_kills: u64,
    status: Option<WaitStatus>,
    /// Where its errors go.
    errors: PathBuf,
}

impl Preparation {
    /// Whether this is its process, and has not been reaped.
    pub(super) fn is(&self, pid: i32) -> bool {
        self.pid == Some(pid) && self.status.is_none()
    }

    /// Whether it has begun.
    pub(super) fn has_started(&self) -> bool {
        self.pid.is_some()
    }

    /// When it is to be looked at by itself.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let runs = self.pid.is_some() && self.status.is_none() && !self.is_late;
        runs.then_some(self.until_ms)
    }
}

impl Shim {
    /// Everything else is ready: the first stage is next, if there is one.
    pub(super) fn prepare_or_announce(&mut self) -> Result<(), ShimError> {
        self.prepare_or_announce_after(None)
    }

    fn prepare_or_announce_after(&mut self, over: Option<Stage>) -> Result<(), ShimError> {
        let Some(work) = &self.work else { return Ok(()) };
        let stages = [Stage::Directory, Stage::Command].into_iter();
        let next = stages.filter(|stage| Some(*stage) > over).find(|at| at.is_in(&work.plan));
        match next {
            Some(stage) => self.preparation = Some(Preparation { stage, ..<_>::default() }),
            None => self.announce()?,
        }
        // The first one waits for the loop.
        if over.is_some() && next.is_some() { self.start_preparing() } else { Ok(()) }
    }

    /// Ready for the first task.
    fn announce(&mut self) -> Result<(), ShimError> {
        self.write(&Entry::Prepared)?;
        self.tell(FromShim::Prepared);
        Ok(())
    }

    /// Takes in that it has ended.
    pub(super) fn look_at_preparation(&mut self) -> Result<(), ShimError> {
        let Some(preparation) = &mut self.preparation else { return Ok(()) };
        let Some(pid) = preparation.pid.filter(|_| preparation.status.is_none()) else {
            return Ok(());
        };
        if let Waited::Ended(_, status) = sys::wait(Some(pid), true).map_err(ShimError::Wait)? {
            preparation.status = Some(status);
        }
        Ok(())
    }

    /// Does what is due: its start, its end.
    pub(super) fn go_on_preparing(&mut self) -> Result<(), ShimError> {
        let is_stopped = self.history.signalled || self.history.killing.is_some();
        let Some(preparation) = &mut self.preparation else { return Ok(()) };
        let Some(_) = preparation.pid else {
            if is_stopped {
                self.preparation = None;
                return Ok(());
            }
            return self.start_preparing();
        };
        let Some(status) = preparation.status else {
            if !preparation.is_late && sys::boot_ms() >= preparation.until_ms {
                preparation.is_late = true;
                self.is_killing = true;
            }
            return Ok(());
        };
        if !self.is_empty() {
            self.is_killing = true;
            return Ok(());
        }
        // Under a stop nobody waits for how it ended.
        match self.preparation.take() {
            Some(over) if !is_stopped => self.preparation_over(&over, status),
            _ => Ok(()),
        }
    }

    fn start_preparing(&mut self) -> Result<(), ShimError> {
        let lease = self.lease.as_ref().and_then(LeaseFile::read);
        let strict_ms = lease.map_or(0, |lease| lease.strict_ms);
        let Some(work) = self.work.as_ref() else { return Ok(()) };
        let stage = self.preparation.as_ref().map_or(Stage::Command, |at| at.stage);
        if sys::boot_ms() >= strict_ms {
            self.waits_for_lease = true;
            return Ok(());
        }
        let plan = &work.plan;
        let process = match stage.process(plan) {
            Ok(process) => process,
            Err(error) => {
                eprintln!("{error}");
                return self.preparation_failed(ExitCause::PrepareFailed(error.step()));
            }
        };
        let errors = process.streams[1].clone();
        match start_one(plan, &process, strict_ms) {
            Ok(pid) => {
                self.waits_for_lease = false;
                let until_ms = sys::boot_ms().saturating_add(stage.time_ms(plan));
                let oom_kills = plan.group.oom_kills();
                let (pid, is_late, status) = (Some(pid), false, None);
                let begun =
                    Preparation { stage, pid, until_ms, is_late, oom_kills, status, errors };
                self.preparation = Some(begun);
                Ok(())
            }
            Err(StartError { step: StartStep::Deadline, .. }) => {
                self.waits_for_lease = true;
                Ok(())
            }
            Err(error) => {
                let cause = match cause_of_start(error) {
                    ExitCause::StartFailed(_) => ExitCause::PrepareFailed(stage.step()),
                    cause => cause,
                };
                let system = std::io::Error::from_raw_os_error(error.errno);
                let what = match stage {
                    Stage::Directory => "the program that makes the directory of logs.dir",
                    Stage::Command => "the prepare command",
                };
                note(&errors, &format!("{what} did not start: {system}"));
                self.preparation_failed(cause)
            }
        }
    }

    fn preparation_over(
        &mut self,
        over: &Preparation,
        status: WaitStatus,
    ) -> Result<(), ShimError> {
        let cause = cause_of(status);
        if cause.is_success() && !over.is_late {
            return self.prepare_or_announce_after(Some(over.stage));
        }
        if over.stage == Stage::Directory {
            // What was wrong, it has said itself.
            if over.is_late {
                let limit_s = DELIVERY_DIR_MS / 1_000;
                note(&over.errors, &format!("logs.dir does not answer within {limit_s} s"));
            }
            return self.preparation_failed(ExitCause::PrepareFailed(over.stage.step()));
        }
        let plan = self.work.as_ref().map(|work| &work.plan);
        let oom_kills = plan.map_or(0, |plan| plan.group.oom_kills());
        let limit_s = plan.map_or(0, Plan::prepare_ms) / 1_000;
        let killed = matches!(cause, ExitCause::Signaled(9) | ExitCause::Exited(137));
        let why = match () {
            () if over.is_late => format!("took longer than its prepare_timeout of {limit_s} s"),
            () if killed && oom_kills > over.oom_kills => "ran out of memory".to_string(),
            () => format!("ended with {cause}"),
        };
        note(&over.errors, &format!("the prepare command {why}"));
        self.preparation_failed(ExitCause::PrepareFailed(PrepareStep::Setup))
    }

    fn preparation_failed(&mut self, cause: ExitCause) -> Result<(), ShimError> {
        (self.preparation, self.waits_for_lease) = (None, false);
        self.on_prepare_failed(cause)
    }
}

/// Says for people why it failed, behind what it wrote itself.
fn note(path: &std::path::Path, text: &str) {
    // The cause is told in any case.
    let _ = crate::launch::open_stream(path).and_then(|mut file| writeln!(file, "{text}"));
}
