//! `run`: submit, show the phases, then the output of the ranks, and end as the job ends.
//!
//! Phases are told on standard error, the end of every attempt among them. Ctrl-C asks whether to
//! detach, cancel, or go on; a client that dies leaves the job alone.

use super::logs::{first_failed, telling_ranks};
use super::printer::Printer;
use super::submit::send;
use crate::args::RunArgs;
use crate::draft::Prepared;
use crate::failure::Failure;
use crate::outcome::{exit_code, has_ended};
use crate::output::say;
use crate::session::Session;
use crate::text;
use crate::view;
use std::io::{self, BufRead, IsTerminal};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use yard_client::{ClientError, LogItem, Logs, Watch, WatchItem};
use yard_proto::v1;
use yard_proto::v1::event::What;

/// How long the output of an attempt that has ended may take to come before its end is told: its
/// node may be away.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);

/// Runs a job.
pub(crate) async fn run(
    session: &Session,
    args: &RunArgs,
    prepared: &Prepared,
) -> Result<u8, Failure> {
    let answer = send(session, &args.submit, prepared).await?;
    say(&format!("job {} ({}) is submitted", answer.job_id, prepared.spec.name()));
    let mut running = Running::new(session, answer.job_id, answer.applied_index)?;
    running.follow().await
}

/// A job that is followed.
struct Running<'a> {
    session: &'a Session,
    job: u64,
    watch: Watch,
    /// What was told last, so that nothing is told twice.
    told: String,
    /// Arrays have too much output to show it.
    is_array: bool,
    /// The output of the present attempt.
    logs: Option<Logs>,
    /// The attempt whose place was told last.
    placed: u32,
    /// The attempt whose output was opened last.
    opened: u32,
    /// The ranks whose output that is; empty: all.
    ranks: Vec<u32>,
    /// Whether all of that output came.
    complete: bool,
    printer: Printer,
    interrupts: Signal,
}

/// What came first.
enum Came {
    Item(Option<WatchItem>),
    Output(Option<LogItem>),
    Interrupt,
}

impl<'a> Running<'a> {
    fn new(session: &'a Session, job: u64, index: u64) -> Result<Running<'a>, Failure> {
        let printer = Printer::new(false, false);
        Ok(Running {
            session,
            job,
            watch: watch(session, job, index),
            told: String::new(),
            is_array: false,
            logs: None,
            placed: 0,
            opened: 0,
            ranks: Vec::new(),
            complete: false,
            printer,
            interrupts: interrupts()?,
        })
    }

    async fn follow(&mut self) -> Result<u8, Failure> {
        self.look().await?;
        // It has ended once its watch says so: what happened before is told by then, too.
        let mut ended = None;
        while ended.is_none() {
            match self.next().await? {
                Came::Item(Some(WatchItem::Event(event))) => ended = self.happened(&event).await?,
                Came::Item(Some(WatchItem::Progress(_))) => {}
                // Events were lost: look anew, and watch from there.
                Came::Item(Some(WatchItem::Compacted { .. }) | None) => {
                    let (job, index) = self.look().await?;
                    self.watch = watch(self.session, self.job, index);
                    ended = Some(job).filter(has_ended);
                }
                Came::Output(Some(item)) => self.output(&item)?,
                Came::Output(None) => self.close(true)?,
                Came::Interrupt => {
                    if let Some(code) = self.asked().await? {
                        return Ok(code);
                    }
                }
            }
        }
        let job = ended.unwrap_or_default();
        let mut interrupts = interrupts()?;
        tokio::select! {
            rest = self.rest(&job) => rest?,
            // Nothing is left to detach from or to cancel.
            _ = interrupts.recv() => {
                say(&format!("note: the rest of the output is in yard logs {}", self.job));
            }
        }
        say(&format!("job {} is {}", self.job, view::job::summary(&job)));
        let code = exit_code(&job);
        if code != 0 {
            self.explain().await?;
        }
        Ok(code)
    }

    /// Tells an event; the job, if it was its end.
    async fn happened(&mut self, event: &v1::Event) -> Result<Option<v1::Job>, Failure> {
        match &event.what {
            Some(What::Granted(granted)) => {
                self.place(granted.attempt, &granted.nodes);
            }
            Some(What::AttemptEnded(ended)) => {
                // A short one may have ended before it was seen to run. Its output comes first.
                self.open(ended.attempt).await?;
                if let Ok(drained) = timeout(OUTPUT_PATIENCE, self.drain()).await {
                    drained?;
                }
                let cause = ended.cause.as_ref().map_or(String::new(), text::cause);
                say(&format!("attempt {} has ended: {cause}", ended.attempt));
            }
            _ => {}
        }
        let (job, _) = self.look().await?;
        let moved = match &event.what {
            Some(What::Job(moved)) => v1::Job { state: moved.state, ..v1::Job::default() },
            _ => v1::Job::default(),
        };
        Ok(Some(job).filter(|job| has_ended(&moved) && has_ended(job)))
    }

    async fn next(&mut self) -> Result<Came, Failure> {
        let output = async {
            match &mut self.logs {
                Some(logs) => logs.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            item = self.watch.next() => Ok(Came::Item(item?)),
            item = output => match item {
                Ok(item) => Ok(Came::Output(item)),
                Err(error) => {
                    // The job goes on without its output; `yard logs` can be tried again.
                    say(&format!("note: the output cannot be shown: {error}"));
                    self.close(false)?;
                    Ok(Came::Output(None))
                }
            },
            _ = self.interrupts.recv() => Ok(Came::Interrupt),
        }
    }

    /// The job as it is, and at which index; tells its phase, and opens the output of a new
    /// attempt.
    async fn look(&mut self) -> Result<(v1::Job, u64), Failure> {
        let answer = self.session.client.job(v1::GetJobRequest { job_id: self.job }).await?;
        let job = answer.job.unwrap_or_default();
        self.is_array = job.is_array;
        let phase = view::job::summary(&job);
        if phase != self.told && !has_ended(&job) {
            say(&format!("job {} is {phase}", self.job));
            self.told = phase;
        }
        let runs = v1::JobState::try_from(job.state) == Ok(v1::JobState::Running);
        if runs {
            self.open(job.attempt).await?;
        }
        Ok((job, answer.applied_index))
    }

    /// Opens the output of an attempt, unless it or a later one was opened before.
    async fn open(&mut self, attempt: u32) -> Result<(), Failure> {
        if self.is_array || attempt <= self.opened {
            return Ok(());
        }
        self.close(false)?;
        self.opened = attempt;
        if attempt > self.placed {
            // A submit that was tried twice is answered after its job may have been placed.
            let page = Some(v1::Page { size: 1, ..v1::Page::default() });
            let request = v1::AttemptsRequest { job_id: self.job, page, ..Default::default() };
            let attempts = self.session.client.attempts(request).await?.attempts;
            if let Some(last) = attempts.first().filter(|last| last.attempt == attempt) {
                let nodes: Vec<String> = last.shares.iter().map(|s| s.node.clone()).collect();
                self.place(attempt, &nodes);
            }
        }
        self.ranks = telling_ranks(self.session, self.job, None).await?;
        self.follow_ranks(self.ranks.clone());
        Ok(())
    }

    /// Tells where an attempt is, once.
    fn place(&mut self, attempt: u32, nodes: &[String]) {
        if attempt > self.placed || self.is_array {
            self.placed = attempt;
            say(&format!("attempt {attempt} is placed on {}", nodes.join(", ")));
        }
    }

    fn follow_ranks(&mut self, ranks: Vec<u32>) {
        let request = v1::LogsRequest {
            job_id: self.job,
            attempt: self.opened,
            ranks,
            follow: true,
            ..v1::LogsRequest::default()
        };
        self.logs = Some(self.session.client.logs(request));
    }

    fn close(&mut self, complete: bool) -> Result<(), Failure> {
        self.logs = None;
        self.complete = complete;
        self.printer.finish()
    }

    fn output(&mut self, item: &LogItem) -> Result<(), Failure> {
        if !self.printer.print(item)? {
            // Nobody reads any more; the exit code still counts.
            self.logs = None;
        }
        Ok(())
    }

    /// What is left of the output of a job that has ended.
    async fn rest(&mut self, job: &v1::Job) -> Result<(), Failure> {
        // Where events were lost, its last attempt may not have been seen at all.
        self.open(job.attempt).await?;
        self.drain().await?;
        // Of a large gang, whoever failed first has not been heard yet.
        if exit_code(job) != 0 && !self.ranks.is_empty() {
            let failed = first_failed(self.session, self.job, None).await?;
            if let Some(rank) = failed.filter(|rank| !self.ranks.contains(rank)) {
                say(&format!("note: what rank {rank} wrote, which failed first:"));
                self.ranks.push(rank);
                self.follow_ranks(vec![rank]);
                self.drain().await?;
            }
        }
        Ok(())
    }

    /// Prints what is open to its end.
    async fn drain(&mut self) -> Result<(), Failure> {
        while let Some(logs) = &mut self.logs {
            match logs.next().await {
                Ok(Some(item)) => self.output(&item)?,
                Ok(None) => self.close(true)?,
                Err(ClientError::Refused(refusal)) => {
                    say(&format!("note: the output cannot be shown: {refusal}"));
                    self.close(false)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn explain(&self) -> Result<(), Failure> {
        let request = v1::ExplainRequest { job_id: self.job, task_index: None };
        let mut answer = self.session.client.explain(request).await?;
        // Its last lines stand above already, among all others.
        let failure = answer.explanation.as_mut().and_then(|told| told.failure.as_mut());
        if let Some(failure) = failure.filter(|failure| self.has_shown(failure)) {
            failure.stderr_tail = Default::default();
        }
        let is_array = answer.job.as_ref().is_some_and(|job| job.is_array);
        // Of an array one task is explained, which is not named yet.
        let text = match is_array {
            true => view::explain::render(&answer),
            false => view::explain::details(&answer),
        };
        say(text.trim_end());
        Ok(())
    }

    /// Whether the output of the rank that failed was shown to its end.
    fn has_shown(&self, failure: &v1::FailureReport) -> bool {
        let shown = |rank: u32| self.ranks.is_empty() || self.ranks.contains(&rank);
        self.complete && failure.attempt == self.opened && shown(failure.rank.unwrap_or(0))
    }

    /// Asks what Ctrl-C is to mean; `Some`: the client ends with this code.
    async fn asked(&mut self) -> Result<Option<u8>, Failure> {
        if !io::stdin().is_terminal() {
            say(&format!("detached; `yard logs {} -f` goes on", self.job));
            return Ok(Some(0));
        }
        say("\n[d]etach, [c]ancel the job, or keep watching?");
        let answer = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line).map(|_| line)
        });
        // A second Ctrl-C is an answer too.
        let answer = tokio::select! {
            answer = answer => answer.map_err(|error| Failure::local(&error, ""))?,
            _ = self.interrupts.recv() => Ok("d".into()),
        };
        match answer.unwrap_or_default().trim() {
            "d" | "detach" => {
                say(&format!("detached; `yard logs {} -f` goes on", self.job));
                Ok(Some(0))
            }
            "c" | "cancel" => {
                let request = v1::CancelRequest { job_id: self.job, ..Default::default() };
                self.session.client.cancel(request).await?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}

/// Every Ctrl-C from now on, also one that comes while something else is awaited.
pub(super) fn interrupts() -> Result<Signal, Failure> {
    signal(SignalKind::interrupt()).map_err(|error| Failure::local(&error, ""))
}

pub(super) fn watch(session: &Session, job: u64, applied_index: u64) -> Watch {
    let request = v1::WatchJobsRequest {
        from_index: applied_index + 1,
        job_ids: vec![job],
        ..v1::WatchJobsRequest::default()
    };
    session.client.watch_jobs(request)
}
