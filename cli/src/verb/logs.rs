//! What ranks wrote, of one attempt after the other if they are followed.

use super::printer::Printer;
use crate::args::LogsArgs;
use crate::failure::Failure;
use crate::output::say;
use crate::select::choose_one;
use crate::session::{Session, now_wall_ms};
use yard_client::{LogItem, WatchItem};
use yard_common::spec::time::{DurationMs, read_rfc3339};
use yard_proto::v1;

/// Ranks up to which all of them are shown.
const ALL_RANKS_MAX: u32 = 8;
/// Ranks that one command line may name.
const RANKS_MAX: usize = 1_024;

/// Prints what ranks wrote.
pub(crate) async fn logs(session: &Session, args: &LogsArgs) -> Result<u8, Failure> {
    let since_wall_ms = args.since.as_deref().map(parse_since).transpose()?.unwrap_or(0);
    let chosen = choose_one(session, &args.job).await?;
    let task = chosen.only_task()?;
    if task.is_none() {
        tell_of_others(session, chosen.job).await?;
    }
    let mut attempt = match (args.attempt, args.previous) {
        (Some(attempt), _) => attempt,
        (None, true) => previous(session, chosen.job, task).await?,
        (None, false) => 0,
    };
    let goes_on = args.follow && attempt == 0;
    if goes_on {
        let Some(first) = next_attempt(session, (chosen.job, task), 0).await? else {
            say("note: it has ended, and had no attempt");
            return Ok(0);
        };
        attempt = first;
    }
    let mut tail_lines = args.tail.unwrap_or(0);
    loop {
        let ranks = match args.rank.as_deref() {
            Some("all") => Vec::new(),
            Some(list) => parse_ranks(list)?,
            None if args.prepare => Vec::new(),
            None => telling_ranks(session, chosen.job, task).await?,
        };
        let request = v1::LogsRequest {
            job_id: chosen.job,
            task_index: task.unwrap_or(0),
            attempt,
            ranks,
            stream: if args.stderr { v1::LogStream::Stderr.into() } else { 0 },
            tail_lines,
            follow: args.follow,
            since_wall_ms,
            times: args.timestamps,
            prepare: args.prepare,
            ..v1::LogsRequest::default()
        };
        let Some(shown) = show(session, args, request).await? else { return Ok(0) };
        if !goes_on {
            return Ok(0);
        }
        match next_attempt(session, (chosen.job, task), shown).await? {
            Some(next) => {
                say(&format!("note: attempt {shown} is over; attempt {next} follows"));
                attempt = next;
                // Of what is new, all is wanted.
                tail_lines = 0;
            }
            None => return Ok(0),
        }
    }
}

/// Says that an array has more output than that of its first task.
async fn tell_of_others(session: &Session, job_id: u64) -> Result<(), Failure> {
    let answer = session.client.job(v1::GetJobRequest { job_id }).await?;
    let job = answer.job.unwrap_or_default();
    if job.is_array && job.task_count > 1 {
        let count = job.task_count;
        say(&format!("note: the first of {count} tasks is shown; yard logs '{job_id}[INDEX]'"));
    }
    Ok(())
}

/// Prints one attempt. Returns which it was; none: nobody reads any more.
async fn show(
    session: &Session,
    args: &LogsArgs,
    request: v1::LogsRequest,
) -> Result<Option<u32>, Failure> {
    let mut printer = Printer::new(args.raw, args.timestamps);
    let mut attempt = request.attempt;
    let mut logs = session.client.logs(request);
    while let Some(item) = logs.next().await? {
        if let LogItem::Head(head) = &item {
            attempt = head.attempt;
        }
        if !printer.print(&item)? {
            return Ok(None);
        }
    }
    printer.finish()?;
    Ok(Some(attempt))
}

/// Waits for an attempt behind this one that has output; none: there will be none.
async fn next_attempt(
    session: &Session,
    (job_id, task): (u64, Option<u32>),
    after: u32,
) -> Result<Option<u32>, Failure> {
    let mut waits = false;
    loop {
        let (run, index) = last_run(session, job_id, task).await?;
        let is_next = run.attempt > after;
        match run.state() {
            // Its machine may not have heard of it yet.
            v1::TaskState::Preparing => {}
            _ if is_next => return Ok(Some(run.attempt)),
            v1::TaskState::Succeeded | v1::TaskState::Failed | v1::TaskState::Cancelled => {
                return Ok(None);
            }
            _ => {}
        }
        if !std::mem::replace(&mut waits, true) {
            let what = if after == 0 { "it runs" } else { "its next attempt" };
            say(&format!("note: waiting until {what}; `yard why {job_id}` says more"));
        }
        // Whatever happens to the job is a reason to look again.
        let request = v1::WatchJobsRequest {
            from_index: index + 1,
            job_ids: vec![job_id],
            ..v1::WatchJobsRequest::default()
        };
        let mut watch = session.client.watch_jobs(request);
        while let Some(WatchItem::Progress(_)) = watch.next().await? {}
    }
}

/// The state of a task with its last attempt, and the position of the log that it is of.
async fn last_run(
    session: &Session,
    job_id: u64,
    task: Option<u32>,
) -> Result<(v1::TaskRun, u64), Failure> {
    let tasks = Some(v1::TaskRange { first: task.unwrap_or(0), len: 1 });
    let request = v1::ListTasksRequest { job_id, tasks, ..v1::ListTasksRequest::default() };
    let answer = session.client.tasks(request).await?;
    let index = answer.page.map_or(0, |page| page.applied_index);
    Ok((answer.runs.into_iter().next().unwrap_or_default(), index))
}

/// The attempt before the last.
async fn previous(session: &Session, job: u64, task: Option<u32>) -> Result<u32, Failure> {
    let (run, _) = last_run(session, job, task).await?;
    let last = run.attempt;
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

/// A moment, or how long ago.
fn parse_since(text: &str) -> Result<u64, Failure> {
    let ago = text.parse::<DurationMs>().ok();
    let at = ago.map(|ago| now_wall_ms().saturating_sub(ago.ms()));
    at.or_else(|| read_rfc3339(text)).ok_or_else(|| {
        let hint = "write 10m or 2027-01-31T08:00:00Z";
        Failure::usage(format!("{text:?} is neither a duration nor a time"), hint)
    })
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

    #[test]
    fn a_beginning_is_a_duration_or_a_time() {
        assert_eq!(parse_since("1970-01-01T00:00:09Z").unwrap(), 9_000);
        let since = parse_since("10m").unwrap();
        let ago = now_wall_ms() - since;
        assert!((600_000..660_000).contains(&ago), "{ago}");
        assert_eq!(parse_since("yesterday").unwrap_err().exit, 64);
    }
}
