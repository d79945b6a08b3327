//! What ranks write, and what happens in the cluster, as it comes.

use crate::args::{EventsArgs, LogsArgs};
use crate::failure::Failure;
use crate::output::{Format, put, render_one, say};
use crate::select::choose_one;
use crate::session::Session;
use crate::text;
use crate::view;
use crate::view::lines::{Lines, Style};
use std::io::{self, IsTerminal, Write};
use yard_client::{LogItem, WatchItem};
use yard_proto::v1;

/// Ranks up to which all of them are shown.
const ALL_RANKS_MAX: u32 = 8;
/// Ranks that one command line may name.
const RANKS_MAX: usize = 1_024;

/// Prints what ranks wrote.
pub(crate) async fn logs(session: &Session, args: &LogsArgs) -> Result<u8, Failure> {
    let chosen = choose_one(session, &args.job).await?;
    let task = chosen.only_task()?;
    let attempt = match (args.attempt, args.previous) {
        (Some(attempt), _) => attempt,
        (None, true) => previous(session, chosen.job, task).await?,
        (None, false) => 0,
    };
    let ranks = match args.rank.as_deref() {
        Some("all") => Vec::new(),
        Some(list) => parse_ranks(list)?,
        None => telling_ranks(session, chosen.job, task).await?,
    };
    let request = v1::LogsRequest {
        job_id: chosen.job,
        task_index: task.unwrap_or(0),
        attempt,
        ranks,
        stream: if args.stderr { v1::LogStream::Stderr.into() } else { 0 },
        tail_lines: args.tail.unwrap_or(0),
        follow: args.follow,
        ..v1::LogsRequest::default()
    };
    let mut printer = Printer::new(args.raw);
    let mut logs = session.client.logs(request);
    while let Some(item) = logs.next().await? {
        if !printer.print(&item)? {
            return Ok(0);
        }
    }
    printer.finish()?;
    Ok(0)
}

/// The attempt before the last.
async fn previous(session: &Session, job: u64, task: Option<u32>) -> Result<u32, Failure> {
    let request = v1::ListTasksRequest {
        job_id: job,
        tasks: Some(v1::TaskRange { first: task.unwrap_or(0), len: 1 }),
        ..v1::ListTasksRequest::default()
    };
    let runs = session.client.tasks(request).await?.runs;
    let last = runs.first().map_or(0, |run| run.attempt);
    let hint = "`yard show JOB --attempts` lists them";
    let none = || Failure::usage(format!("there is no attempt before attempt {last}"), hint);
    last.checked_sub(1).filter(|attempt| *attempt > 0).ok_or_else(none)
}

/// The ranks that tell most of a gang: of a large one the first, and the one that failed first.
/// Empty: all.
pub(super) async fn telling_ranks(
    session: &Session,
    job_id: u64,
    task_index: Option<u32>,
) -> Result<Vec<u32>, Failure> {
    let tasks = task_index.map(|first| v1::TaskRange { first, len: 1 });
    let page = Some(v1::Page { size: 1, ..v1::Page::default() });
    let request = v1::AttemptsRequest { job_id, tasks, page };
    let attempts = session.client.attempts(request).await?.attempts;
    let count = attempts
        .first()
        .map_or(0, |attempt| attempt.shares.iter().map(|share| share.ranks).sum::<u32>());
    if count <= ALL_RANKS_MAX {
        return Ok(Vec::new());
    }
    let ranks = telling(first_failed(session, job_id, task_index).await?);
    let shown: Vec<String> = ranks.iter().map(u32::to_string).collect();
    let (noun, verb) = if ranks.len() == 1 { ("rank", "is") } else { ("ranks", "are") };
    let which = shown.join(" and ");
    let name = task_index.map_or(job_id.to_string(), |task| format!("'{job_id}[{task}]'"));
    say(&format!("note: {noun} {which} of {count} {verb} shown; yard logs {name} --rank all"));
    Ok(ranks)
}

/// The rank that failed first in the last attempt that failed.
pub(super) async fn first_failed(
    session: &Session,
    job_id: u64,
    task_index: Option<u32>,
) -> Result<Option<u32>, Failure> {
    let answer = session.client.explain(v1::ExplainRequest { job_id, task_index }).await?;
    Ok(answer.explanation.and_then(|why| why.failure).and_then(|failure| failure.rank))
}

fn telling(failed: Option<u32>) -> Vec<u32> {
    let mut ranks = vec![0];
    ranks.extend(failed.filter(|rank| *rank != 0));
    ranks
}

fn parse_ranks(list: &str) -> Result<Vec<u32>, Failure> {
    let ranks: Result<Vec<u32>, _> = list.split(',').take(RANKS_MAX + 1).map(str::parse).collect();
    let bad = || Failure::usage(format!("{list:?} is no list of ranks"), "write 0,3 or all");
    match ranks {
        Ok(ranks) if ranks.len() <= RANKS_MAX => Ok(ranks),
        Ok(_) | Err(_) => Err(bad()),
    }
}

/// Writes the output of ranks: what went to standard error there goes to standard error here.
pub(crate) struct Printer {
    raw: bool,
    out: Lines,
    err: Lines,
}

impl Printer {
    pub(crate) fn new(raw: bool) -> Printer {
        let plain = Style { tags: false, terminal: false, raw };
        Printer { raw, out: Lines::new(plain), err: Lines::new(plain) }
    }

    /// Writes an item; `false`: nobody reads any more.
    pub(crate) fn print(&mut self, item: &LogItem) -> Result<bool, Failure> {
        let written = match item {
            LogItem::Head(head) => {
                let style = |terminal| Style { tags: head.ranks > 1, terminal, raw: self.raw };
                self.out = Lines::new(style(io::stdout().is_terminal()));
                self.err = Lines::new(style(io::stderr().is_terminal()));
                Ok(())
            }
            LogItem::Chunk(chunk) if chunk.stream == i32::from(v1::LogStream::Stderr) => {
                self.err.take(chunk.rank, &chunk.data, &mut io::stderr().lock())
            }
            LogItem::Chunk(chunk) => {
                let mut out = io::stdout().lock();
                self.out.take(chunk.rank, &chunk.data, &mut out).and_then(|()| out.flush())
            }
            LogItem::Gap(gap) => {
                let (rank, reason) = (gap.rank, text::harmless(&gap.reason));
                let what = match gap.len {
                    // How much, only the machine knows that does not answer.
                    0 => "output".to_string(),
                    len => format!("{len} bytes"),
                };
                say(&format!("note: {what} of rank {rank} is missing: {reason}"));
                Ok(())
            }
            LogItem::End(end) => {
                let rank = Some(end.rank);
                match end.stream == i32::from(v1::LogStream::Stderr) {
                    true => self.err.end(rank, &mut io::stderr().lock()),
                    false => self.out.end(rank, &mut io::stdout().lock()),
                }
            }
        };
        went(written)
    }

    /// Writes what has not ended with a line break.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        let out = self.out.end(None, &mut io::stdout().lock());
        went(out.and_then(|()| self.err.end(None, &mut io::stderr().lock()))).map(drop)
    }
}

/// `false`: the reader has gone away, which is no failure.
fn went(written: io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::local(&error, "is the disk full?")),
    }
}

/// Prints what happens in the cluster.
pub(crate) async fn events(session: &Session, args: &EventsArgs) -> Result<u8, Failure> {
    let upto = match args.follow {
        true => u64::MAX,
        false => session.client.status(v1::StatusRequest { brief: true }).await?.applied_index,
    };
    let from_index = args.from.unwrap_or(if args.follow { 0 } else { 1 });
    let watch = |from_index| {
        session.client.events(v1::EventsRequest { from_index, ..v1::EventsRequest::default() })
    };
    let mut events = watch(from_index);
    // Lists of events have no end, so the forms for whole documents are written line by line.
    let format = match session.format {
        Format::Json | Format::Yaml | Format::Csv => Format::Jsonl,
        other => other,
    };
    while let Some(item) = events.next().await? {
        match item {
            WatchItem::Event(event) if event.index > upto => return Ok(0),
            WatchItem::Event(event) => {
                let (row, line) = view::event::row(&event);
                put(&render_one("Event", &row, &line, format))?;
            }
            WatchItem::Progress(index) if index >= upto => return Ok(0),
            WatchItem::Progress(_) => {}
            // Nobody named an index: all that is still known was meant.
            WatchItem::Compacted { first_index } if args.from.is_none() => {
                events = watch(first_index);
            }
            WatchItem::Compacted { first_index } => {
                let hint = format!("yard events --from {first_index}");
                let message = format!("events before index {first_index} are not kept any more");
                return Err(Failure::new(crate::failure::exit::REFUSED, message, hint));
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_gang_is_told_by_its_first_rank_and_the_one_that_failed() {
        assert_eq!(telling(None), [0]);
        assert_eq!(telling(Some(0)), [0]);
        assert_eq!(telling(Some(7)), [0, 7]);
    }

    #[test]
    fn ranks_are_a_list_of_numbers() {
        assert_eq!(parse_ranks("0,3").unwrap(), [0, 3]);
        for bad in ["", "x", "0,", "-1", &vec!["1"; RANKS_MAX + 1].join(",")] {
            assert_eq!(parse_ranks(bad).unwrap_err().exit, 64, "{bad}");
        }
    }
}
