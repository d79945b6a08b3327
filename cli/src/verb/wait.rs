//! Waiting until jobs have ended.

use crate::args::WaitArgs;
use crate::failure::{Failure, exit};
use crate::outcome::{exit_code, has_ended};
use crate::select::choose;
use crate::session::Session;
use std::collections::BTreeMap;
use std::time::Duration;
use yard_client::WatchItem;
use yard_proto::v1;
use yard_proto::v1::event::What;

/// Waits as the command line says.
pub(crate) async fn wait(session: &Session, args: &WaitArgs) -> Result<u8, Failure> {
    let chosen = choose(session, &args.jobs).await?;
    let jobs: Result<Vec<u64>, Failure> = chosen.iter().map(|one| one.whole("wait")).collect();
    let jobs = jobs?;
    let limit = args.timeout.map(|timeout| Duration::from_millis(timeout.ms()));
    until_ended(session, &jobs, args.any, limit).await
}

/// Waits until all jobs have ended, or any; the exit code is that of the first in the order of
/// the list that did not succeed.
pub(crate) async fn until_ended(
    session: &Session,
    jobs: &[u64],
    any: bool,
    limit: Option<Duration>,
) -> Result<u8, Failure> {
    let ended = ended(session, jobs, any);
    match limit {
        None => ended.await,
        Some(limit) => match tokio::time::timeout(limit, ended).await {
            Ok(code) => code,
            Err(_) => Ok(exit::TIMED_OUT),
        },
    }
}

async fn ended(session: &Session, jobs: &[u64], any: bool) -> Result<u8, Failure> {
    let mut codes: BTreeMap<u64, u8> = BTreeMap::new();
    loop {
        let from_index = look(session, jobs, &mut codes).await?;
        if let Some(code) = verdict(jobs, &codes, any) {
            return Ok(code);
        }
        let open: Vec<u64> = jobs.iter().filter(|job| !codes.contains_key(job)).copied().collect();
        let request =
            v1::WatchJobsRequest { from_index, job_ids: open, ..v1::WatchJobsRequest::default() };
        let mut watch = session.client.watch_jobs(request);
        // Until one of them moves into its last state; then all are looked at again.
        while let Some(item) = watch.next().await? {
            if is_end(&item) {
                break;
            }
        }
    }
}

/// Whether an item says that a job has ended, or that events were lost.
fn is_end(item: &WatchItem) -> bool {
    match item {
        WatchItem::Event(event) => match &event.what {
            Some(What::Job(moved)) => {
                has_ended(&v1::Job { state: moved.state, ..v1::Job::default() })
            }
            Some(What::Forgotten(_)) => true,
            _ => false,
        },
        WatchItem::Progress(_) => false,
        WatchItem::Compacted { .. } => true,
    }
}

/// Looks at the jobs that had not ended; returns the index to watch from.
async fn look(
    session: &Session,
    jobs: &[u64],
    codes: &mut BTreeMap<u64, u8>,
) -> Result<u64, Failure> {
    let mut from_index = u64::MAX;
    for job in jobs {
        if codes.contains_key(job) {
            continue;
        }
        let answer = session.client.job(v1::GetJobRequest { job_id: *job }).await?;
        // The earliest look counts: what came between two looks comes again with the watch.
        from_index = from_index.min(answer.applied_index + 1);
        let job_now = answer.job.unwrap_or_default();
        if has_ended(&job_now) {
            codes.insert(*job, exit_code(&job_now));
        }
    }
    Ok(from_index)
}

/// The exit code, once enough jobs have ended.
fn verdict(jobs: &[u64], codes: &BTreeMap<u64, u8>, any: bool) -> Option<u8> {
    let known = jobs.iter().filter_map(|job| codes.get(job).copied());
    if any {
        return known.clone().next();
    }
    if jobs.iter().any(|job| !codes.contains_key(job)) {
        return None;
    }
    Some(known.clone().find(|code| *code != 0).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_in_order_decides() {
        let codes = BTreeMap::from([(3, 0), (1, 7), (2, 9)]);
        assert_eq!(verdict(&[3, 2, 1], &codes, false), Some(9));
        assert_eq!(verdict(&[3], &codes, false), Some(0));
        assert_eq!(verdict(&[3, 4], &codes, false), None);
        assert_eq!(verdict(&[4, 1], &codes, true), Some(7));
        assert_eq!(verdict(&[4], &codes, true), None);
    }

    #[test]
    fn only_ends_wake_up() {
        let moved = |state: v1::JobState| {
            let what = What::Job(v1::JobMoved { job_id: 1, state: state.into() });
            WatchItem::Event(v1::Event { what: Some(what), ..v1::Event::default() })
        };
        assert!(is_end(&moved(v1::JobState::Failed)));
        assert!(!is_end(&moved(v1::JobState::Running)));
        assert!(is_end(&WatchItem::Compacted { first_index: 3 }));
        assert!(!is_end(&WatchItem::Progress(3)));
    }
}
