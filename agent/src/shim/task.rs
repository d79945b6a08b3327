//! The task of a chain that runs: how it starts, and how its end is told.

use super::ShimError;
use super::pipes::Pipes;
use super::record::{Entry, KillReason, MainProcess};
use super::run::{Shim, Work};
use crate::launch::{CheckpointRequest, Part, Plan, PrepareError, Process, TaskPlan};
use crate::lease_file::LeaseFile;
use crate::process;
use crate::sys::{self, Program, Standing, StartError, StartStep, WaitStatus};
use nix::libc;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use yard_common::ExitCause;
use yard_common::cause::{LostReason, PrepareStep, start_words};
use yard_common::limits::{SHIM_STARTS_AHEAD, SIBLING_GRACE_MS};

/// The task that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) position: u32,
    pub(super) plan: TaskPlan,
    pub(super) mains: Vec<Main>,
    /// The end that decides, as soon as one failed.
    pub(super) blame: Option<(ExitCause, Option<u32>)>,
    /// When those that are left are killed, after one of them failed.
    pub(super) kill_at_ms: Option<u64>,
    /// Whether a program was run for the launcher of the gang.
    pub(super) has_helped: bool,
    /// What such programs left behind to serve the launcher.
    pub(super) daemons: BTreeSet<i32>,
    /// Kills for lack of memory before it started.
    oom_kills: u64,
    /// When it is asked for a checkpoint by itself.
    pub(super) checkpoint_at_ms: Option<u64>,
}

/// A main process of the task.
#[derive(Debug)]
pub(super) struct Main {
    pub(super) rank: Option<u32>,
    pub(super) pid: i32,
    pub(super) status: Option<WaitStatus>,
}

impl Running {
    /// Whether every main process has ended. A node that helps has ended when nothing that it
    /// started is left; see `reap`.
    pub(super) fn is_over(&self) -> bool {
        self.plan.part != Part::Helpers && self.mains.iter().all(|main| main.status.is_some())
    }

    /// Asks the main processes to stop, or everything.
    pub(super) fn signal(&self, plan: &Plan) {
        let own = std::process::id() as i32;
        let pids = match self.plan.part {
            _ if plan.stops_all() => process::descendants(own),
            Part::Helpers => process::children(own),
            Part::Ranks | Part::Launcher => {
                let alive = self.mains.iter().filter(|main| main.status.is_none());
                alive.map(|main| main.pid).collect()
            }
        };
        for pid in pids {
            process::send(pid, plan.stop_signal());
        }
    }
}

impl Shim {
    /// Does what is due: the next start, the end of siblings, the kill.
    pub(super) fn go_on(&mut self) -> Result<(), ShimError> {
        let late = self.running.as_ref().and_then(|running| running.kill_at_ms);
        if late.is_some_and(|at_ms| sys::boot_ms() >= at_ms) {
            self.is_killing = true;
        }
        // An order to stop may be all that the task was waiting for.
        self.end_task_if_over()?;
        self.go_on_preparing()?;
        self.go_on_killing()?;
        // What it left behind may just have ended.
        self.go_on_preparing()?;
        // Each task that could not start at all makes room for the next.
        while self.may_start() && !self.start_next()? {}
        Ok(())
    }

    pub(super) fn may_start(&self) -> bool {
        let history = &self.history;
        history.prepared
            && history.start_given
            && !history.signalled
            && history.killing.is_none()
            && self.running.is_none()
            && !self.is_killing
            && (history.endings.len() as u32) < history.len
            && (history.endings.len() as u32) < self.durable + SHIM_STARTS_AHEAD
    }

    /// Starts the next task, if the lease allows it. Returns whether to stop here: it runs, or
    /// waits for the lease.
    fn start_next(&mut self) -> Result<bool, ShimError> {
        let lease = self.lease.as_ref().and_then(LeaseFile::read);
        let strict_ms = lease.map_or(0, |lease| lease.strict_ms);
        if sys::boot_ms() >= strict_ms {
            self.waits_for_lease = true;
            return Ok(true);
        }
        let position = self.history.endings.len() as u32;
        if self.history.starting <= position {
            self.write(&Entry::Starting(position))?;
        }
        let Some(Work { orders, plan }) = &self.work else { return Ok(true) };
        let Some((task, attempt)) = orders.chain.tasks().nth(position as usize) else {
            return Ok(true);
        };
        let task = match plan.task(task, attempt) {
            Ok(task) => task,
            Err(error) => {
                note(plan, task, attempt, &error);
                self.waits_for_lease = false;
                self.end(position, ExitCause::PrepareFailed(error.step()), None, false)?;
                return Ok(false);
            }
        };
        let checkpoint = plan.checkpoint().inspect(CheckpointRequest::clear);
        let due_ms = checkpoint.and_then(|checkpoint| checkpoint.due_ms);
        let mut running = Running {
            position,
            checkpoint_at_ms: due_ms.map(|due_ms| sys::boot_ms() + due_ms),
            // Between two tasks nothing of the job runs that could be killed.
            oom_kills: self.oom_kills.unwrap_or_else(|| plan.group.oom_kills()),
            plan: task,
            mains: Vec::new(),
            blame: None,
            kill_at_ms: None,
            has_helped: false,
            daemons: BTreeSet::new(),
        };
        let pipes = orders.site.lacks_holes.then_some(&mut self.pipes);
        let (failed, rank) = start_all(plan, &mut running, strict_ms, pipes).unzip();
        let rank = rank.flatten();
        if running.mains.is_empty() && failed.is_some_and(|error| error.step == StartStep::Deadline)
        {
            self.write(&Entry::Held(position))?;
            self.waits_for_lease = true;
            return Ok(true);
        }
        self.waits_for_lease = false;
        if running.mains.is_empty()
            && let Some(error) = failed
        {
            self.end(position, cause_of_start(error), rank, false)?;
            return Ok(false);
        }
        if let Some(error) = failed {
            // Some run, one does not: the task has failed, and the rest ends with it.
            running.blame = Some((cause_of_start(error), rank));
            self.is_killing = true;
        }
        let processes = running.mains.iter().map(|main| MainProcess {
            rank: main.rank,
            pid: main.pid,
            started: process::fact(main.pid).map_or(0, |fact| fact.started),
        });
        let processes = processes.collect();
        self.running = Some(running);
        self.write(&Entry::Started { position, processes })?;
        self.news.started(position + 1);
        Ok(true)
    }

    /// Notes the end of a main process.
    pub(super) fn main_ended(&mut self, index: usize, status: WaitStatus) -> Result<(), ShimError> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let main = &mut running.mains[index];
        main.status = Some(status);
        let (position, pid, rank) = (running.position, main.pid, main.rank);
        let cause = cause_of(status);
        let at_ms = sys::boot_ms();
        self.write(&Entry::RankEnded { position, rank, status: cause, at_ms })?;
        self.zombies.push((position, pid));
        let stopped = self.history.signalled || self.history.killing.is_some();
        let (Some(running), Some(work)) = (&mut self.running, &self.work) else { return Ok(()) };
        if cause.is_success() || running.blame.is_some() {
            return Ok(());
        }
        running.blame = Some((cause, rank));
        if !stopped && !running.is_over() {
            // The others cannot go on without it. They are not blamed.
            running.signal(&work.plan);
            let grace_ms = work.plan.grace_ms().min(SIBLING_GRACE_MS);
            running.kill_at_ms = Some(at_ms + grace_ms);
        }
        Ok(())
    }

    /// The task that ran is over, and nothing of it is left.
    pub(super) fn task_over(&mut self) -> Result<(), ShimError> {
        let Some(running) = self.running.take() else { return Ok(()) };
        // All that it wrote is there before anybody hears of its end.
        self.pipes.finish();
        let stopped = self.history.signalled || self.history.killing.is_some();
        let oom_kills = self.work.as_ref().map_or(0, |work| work.plan.group.oom_kills());
        self.oom_kills = Some(oom_kills);
        let (mut status, rank) = running.blame.unwrap_or((ExitCause::Exited(0), None));
        // A shell tells of a child that was killed by 128 and the signal.
        let killed = matches!(status, ExitCause::Signaled(9) | ExitCause::Exited(137));
        let helped = running.plan.part == Part::Helpers && !status.is_success();
        if oom_kills > running.oom_kills && (killed || helped) {
            status = ExitCause::OutOfMemory;
        }
        match self.history.killing {
            Some(KillReason::Deadline) if status == ExitCause::Signaled(9) => {
                status = ExitCause::Lost(LostReason::LeaseExpired);
            }
            Some(KillReason::Disk) if !status.is_success() => status = ExitCause::DiskFull,
            Some(KillReason::Deadline | KillReason::Disk | KillReason::Ordered) | None => {}
        }
        self.end(running.position, status, rank, stopped)
    }

    fn end(
        &mut self,
        position: u32,
        status: ExitCause,
        rank: Option<u32>,
        stopped: bool,
    ) -> Result<(), ShimError> {
        self.write(&Entry::Ended { position, status, stopped, rank })?;
        let end = super::message::End { status, stopped, rank };
        self.news.ended(position, end);
        Ok(())
    }
}

/// Starts every process of a task. Those that run are in `running`; the error is returned, with
/// the rank of which it is the fault.
fn start_all(
    plan: &Plan,
    running: &mut Running,
    strict_ms: u64,
    mut pipes: Option<&mut Pipes>,
) -> Option<(StartError, Option<u32>)> {
    for process in &running.plan.processes {
        let started = match &mut pipes {
            Some(pipes) => start_piped(plan, process, strict_ms, pipes),
            None => start_one(plan, process, strict_ms),
        };
        match started {
            Ok(pid) => running.mains.push(Main { rank: process.local_rank, pid, status: None }),
            Err(error) => {
                say_why(plan, process, error);
                let started = matches!(cause_of_start(error), ExitCause::StartFailed(_));
                return Some((error, process.local_rank.filter(|_| started)));
            }
        }
    }
    None
}

/// Says for people why a process did not start: in its errors what is wrong with its program, and
/// beside them what is wrong with where it would have run.
fn say_why(plan: &Plan, process: &Process, error: StartError) {
    let system = || std::io::Error::from_raw_os_error(error.errno).to_string();
    let errors = &process.streams[1];
    let (path, text) = match error.step {
        StartStep::Deadline => return,
        StartStep::Directory => {
            let directory = plan.directory().to_string_lossy();
            let text = format!("the working directory {directory} cannot be entered: {}", system());
            (errors.with_file_name("prepare.err"), text)
        }
        StartStep::Identity | StartStep::Cgroup => {
            let text = format!("the process cannot be set up ({:?}): {}", error.step, system());
            (errors.with_file_name("prepare.err"), text)
        }
        StartStep::Fork | StartStep::Setup | StartStep::Exec => {
            let program = process.words.first().map(|word| word.to_string_lossy());
            let program = program.unwrap_or_default();
            let words = start_words(error.errno).map_or_else(system, str::to_string);
            (errors.clone(), format!("yard: {program} did not start: {words}"))
        }
    };
    // The cause is told in any case.
    let _ = crate::launch::open_stream(&path).and_then(|mut file| writeln!(file, "{text}"));
}

/// Starts one process that writes through pipes.
fn start_piped(
    plan: &Plan,
    process: &Process,
    strict_ms: u64,
    pipes: &mut Pipes,
) -> Result<i32, StartError> {
    let null = File::open("/dev/null").map_err(failed(StartStep::Setup))?;
    // Both streams of a rank share what it may have.
    let bytes_max = plan.log_bytes_max() / 2;
    let mut open = |at: usize| pipes.open(&process.streams[at], bytes_max);
    let out = open(0).map_err(failed(StartStep::Setup))?;
    let err = open(1).map_err(failed(StartStep::Setup))?;
    let stdio = [null.as_fd(), out.as_fd(), err.as_fd()];
    start_on(plan, process, stdio, Standing::Group, strict_ms)
}

fn failed(step: StartStep) -> impl Fn(std::io::Error) -> StartError {
    move |error| StartError { step, errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

/// Starts one process.
pub(super) fn start_one(plan: &Plan, process: &Process, strict_ms: u64) -> Result<i32, StartError> {
    let null = File::open("/dev/null").map_err(failed(StartStep::Setup))?;
    let open = |at: usize| crate::launch::open_stream(&process.streams[at]);
    let out = open(0).map_err(failed(StartStep::Setup))?;
    let err = open(1).map_err(failed(StartStep::Setup))?;
    let stdio = [null.as_fd(), out.as_fd(), err.as_fd()];
    start_on(plan, process, stdio, Standing::Group, strict_ms)
}

/// Starts one process on these files.
pub(super) fn start_on(
    plan: &Plan,
    process: &Process,
    stdio: [BorrowedFd<'_>; 3],
    standing: Standing,
    strict_ms: u64,
) -> Result<i32, StartError> {
    sys::start(&Program {
        paths: &process.paths,
        words: &process.words,
        variables: &process.variables,
        directory: plan.directory(),
        stdio,
        standing,
        cgroup: plan.entrance(),
        limits: plan.limits(),
        umask: plan.umask(),
        identity: plan.identity(),
        is_privileged: plan.is_privileged(),
        not_after_ms: strict_ms,
    })
}

/// What the kernel said.
pub(super) fn cause_of(status: WaitStatus) -> ExitCause {
    match status {
        WaitStatus::Exited(code) => ExitCause::Exited(code),
        WaitStatus::Signaled(signal) => ExitCause::Signaled(signal),
    }
}

pub(super) fn cause_of_start(error: StartError) -> ExitCause {
    match error.step {
        StartStep::Directory => ExitCause::PrepareFailed(PrepareStep::Workdir),
        StartStep::Identity => ExitCause::PrepareFailed(PrepareStep::Account),
        StartStep::Cgroup => ExitCause::PrepareFailed(PrepareStep::Limits),
        StartStep::Deadline => ExitCause::Lost(LostReason::LeaseExpired),
        StartStep::Fork | StartStep::Setup | StartStep::Exec => ExitCause::StartFailed(error.errno),
    }
}

/// Says for people why a task could not be prepared.
fn note(plan: &Plan, task: u32, attempt: yard_common::id::AttemptNumber, error: &PrepareError) {
    let directory = plan.log_directory(task, attempt);
    let _ = std::fs::create_dir_all(&directory);
    let _ = std::fs::write(directory.join("prepare.err"), format!("{error}\n"));
}
