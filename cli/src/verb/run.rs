//! `run`: submit, show the phases, then the output of the ranks, and end as the job ends.
//!
//! Phases are told on standard error. Ctrl-C asks whether to detach, cancel, or go on; a client
//! that dies leaves the job alone.

use super::follow::{Printer, first_failed, telling_ranks};
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
use yard_client::{ClientError, LogItem, Logs, Watch, WatchItem};
use yard_proto::v1;
use yard_proto::v1::event::What;

/// Runs a job.
pub(crate) async fn run(
    session: &Session,
    args: &RunArgs,
    prepared: &Prepared,
) -> Result<u8, Failure> {
    let answer = send(session, &args.submit, prepared).await?;
    say(&format!("job {} ({}) is submitted", answer.job_id, prepared.spec.name()));
    let mut running = Running::new(session, answer.job_id, answer.applied_index);
    running.follow().await
}

/// A job that is followed.
struct Running<'a> {
    session: &'a Session,
    job: u64,
    watch: Watch,
    /// What was told last, so that nothing is told twice.
    told: String,
    /// The output of the present attempt. Arrays have too many of them.
    logs: Option<Logs>,
    /// The attempt whose output was opened last.
    opened: u32,
    /// The ranks whose output that is; empty: all.
    ranks: Vec<u32>,
    printer: Printer,
}

/// What came first.
enum Came {
    Item(Option<WatchItem>),
    Output(Option<LogItem>),
    Interrupt,
}

impl<'a> Running<'a> {
    fn new(session: &'a Session, job: u64, applied_index: u64) -> Running<'a> {
        let printer = Printer::new(false);
        let watch = watch(session, job, applied_index);
        let told = String::new();
        let ranks = Vec::new();
        Running { session, job, watch, told, logs: None, opened: 0, ranks, printer }
    }

    async fn follow(&mut self) -> Result<u8, Failure> {
        let mut job = self.look().await?;
        while !has_ended(&job) {
            match self.next().await? {
                Came::Item(Some(WatchItem::Event(event))) => {
                    self.tell_event(&event);
                    job = self.look().await?;
                }
                Came::Item(Some(WatchItem::Progress(_))) => {}
                // Events were lost: look anew, and watch from there.
                Came::Item(Some(WatchItem::Compacted { .. }) | None) => {
                    job = self.look().await?;
                    let status = self.session.client.status(v1::StatusRequest {}).await?;
                    self.watch = watch(self.session, self.job, status.applied_index);
                }
                Came::Output(Some(item)) => self.output(&item)?,
                Came::Output(None) => self.close()?,
                Came::Interrupt => {
                    if let Some(code) = self.asked().await? {
                        return Ok(code);
                    }
                }
            }
        }
        self.rest(&job).await?;
        say(&format!("job {} is {}", self.job, view::job::summary(&job)));
        let code = exit_code(&job);
        if code != 0 {
            self.explain().await?;
        }
        Ok(code)
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
                    Ok(Came::Output(None))
                }
            },
            _ = tokio::signal::ctrl_c() => Ok(Came::Interrupt),
        }
    }

    /// The job as it is; tells its phase, and opens the output of a new attempt.
    async fn look(&mut self) -> Result<v1::Job, Failure> {
        let answer = self.session.client.job(v1::GetJobRequest { job_id: self.job }).await?;
        let job = answer.job.unwrap_or_default();
        let phase = view::job::summary(&job);
        if phase != self.told && !has_ended(&job) {
            say(&format!("job {} is {phase}", self.job));
            self.told = phase;
        }
        let runs = v1::JobState::try_from(job.state) == Ok(v1::JobState::Running);
        if runs {
            self.open(&job).await?;
        }
        Ok(job)
    }

    async fn open(&mut self, job: &v1::Job) -> Result<(), Failure> {
        if job.is_array || job.attempt == 0 || self.opened == job.attempt {
            return Ok(());
        }
        self.close()?;
        self.opened = job.attempt;
        self.ranks = telling_ranks(self.session, self.job, None).await?;
        self.follow_ranks(self.ranks.clone());
        Ok(())
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

    fn close(&mut self) -> Result<(), Failure> {
        self.logs = None;
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
        // A short job may have ended before it was seen to run.
        self.open(job).await?;
        self.drain().await?;
        // Of a large gang, whoever failed first has not been heard yet.
        if exit_code(job) != 0 && !self.ranks.is_empty() {
            let failed = first_failed(self.session, self.job, None).await?;
            if let Some(rank) = failed.filter(|rank| !self.ranks.contains(rank)) {
                say(&format!("note: what rank {rank} wrote, which failed first:"));
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
                Ok(None) => self.close()?,
                Err(ClientError::Refused(refusal)) => {
                    say(&format!("note: the output cannot be shown: {refusal}"));
                    self.close()?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn tell_event(&self, event: &v1::Event) {
        match &event.what {
            Some(What::Granted(granted)) => {
                let nodes = granted.nodes.join(", ");
                say(&format!("attempt {} is placed on {nodes}", granted.attempt));
            }
            Some(What::AttemptEnded(ended)) => {
                let cause = ended.cause.as_ref().map_or(String::new(), text::cause);
                say(&format!("attempt {} has ended: {cause}", ended.attempt));
            }
            _ => {}
        }
    }

    async fn explain(&self) -> Result<(), Failure> {
        let request = v1::ExplainRequest { job_id: self.job, task_index: None };
        let answer = self.session.client.explain(request).await?;
        let is_array = answer.job.as_ref().is_some_and(|job| job.is_array);
        // Of an array one task is explained, which is not named yet.
        let text = match is_array {
            true => view::explain::render(&answer),
            false => view::explain::details(&answer),
        };
        say(text.trim_end());
        Ok(())
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
            _ = tokio::signal::ctrl_c() => Ok("d".into()),
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

fn watch(session: &Session, job: u64, applied_index: u64) -> Watch {
    let request = v1::WatchJobsRequest {
        from_index: applied_index + 1,
        job_ids: vec![job],
        ..v1::WatchJobsRequest::default()
    };
    session.client.watch_jobs(request)
}
