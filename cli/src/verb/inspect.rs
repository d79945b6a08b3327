//! Looking at jobs and the cluster.

use crate::args::{LsArgs, ResultsArgs, ShowArgs, WhyArgs};
use crate::failure::Failure;
use crate::output::{Format, Row, put};
use crate::select::{choose, choose_one};
use crate::session::{Session, all_pages};
use crate::view;
use serde_json::Value;
use yard_common::spec::JobSpec;
use yard_proto::v1;

/// Lists jobs.
pub(crate) async fn ls(session: &Session, args: &LsArgs) -> Result<u8, Failure> {
    let (jobs, now) = if args.jobs.is_empty() {
        listed(session, args).await?
    } else {
        let mut jobs = Vec::new();
        let mut now = v1::Stamp::default();
        for chosen in choose(session, &args.jobs).await? {
            let job_id = chosen.whole("ls")?;
            let answer = session.client.job(v1::GetJobRequest { job_id }).await?;
            now = answer.now.unwrap_or_default();
            jobs.extend(answer.job);
        }
        (jobs, now)
    };
    let listing = view::job::listing(&jobs, &now);
    match session.format {
        Format::Table if args.wide => put(&listing.render(Format::Wide))?,
        _ => session.list(&listing)?,
    }
    Ok(0)
}

async fn listed(session: &Session, args: &LsArgs) -> Result<(Vec<v1::Job>, v1::Stamp), Failure> {
    let states: Result<Vec<i32>, Failure> = args.state.iter().map(|word| state(word)).collect();
    let request = v1::ListJobsRequest {
        mine: !args.all_users,
        queue: args.queue.clone().unwrap_or_default(),
        states: states?,
        ended_within_ms: (!args.all).then(|| args.since.ms()),
        history: args.all,
        ..v1::ListJobsRequest::default()
    };
    all_pages(|page| {
        let request = v1::ListJobsRequest { page: Some(page), ..request.clone() };
        async move {
            let answer = session.client.jobs(request).await?;
            Ok((answer.jobs, answer.page))
        }
    })
    .await
}

/// The state of a word, in any case.
fn state(word: &str) -> Result<i32, Failure> {
    let name = format!("JOB_STATE_{}", word.trim().to_uppercase());
    let found = v1::JobState::from_str_name(&name);
    let found = found.filter(|state| *state != v1::JobState::Unspecified);
    let hint = "states are queued, preparing, running, stopping, succeeded, failed, cancelled";
    let bad = || Failure::usage(format!("{word:?} is no state of a job"), hint);
    found.map(i32::from).ok_or_else(bad)
}

/// Shows one job.
pub(crate) async fn show(session: &Session, args: &ShowArgs) -> Result<u8, Failure> {
    let job_id = choose_one(session, &args.job).await?.whole("show")?;
    if args.attempts {
        let answer = session.client.job(v1::GetJobRequest { job_id }).await?;
        let (attempts, _) = attempts(session, job_id).await?;
        session.list(&view::job::attempts(&attempts, &answer.now.unwrap_or_default()))?;
        return Ok(0);
    }
    if args.tasks {
        let states = if args.failed { vec![v1::TaskState::Failed.into()] } else { Vec::new() };
        let runs = task_runs(session, job_id, &states).await?;
        session.list(&view::job::tasks(&runs))?;
        return Ok(0);
    }
    let page = v1::Page {
        size: u32::try_from(view::timeline::ATTEMPTS_SHOWN).unwrap_or(0),
        ..v1::Page::default()
    };
    let request = v1::AttemptsRequest { job_id, tasks: None, page: Some(page) };
    let latest = session.client.attempts(request).await?;
    let more = latest.page.is_some_and(|page| !page.next_key.is_empty());
    let answer = session.client.job(v1::GetJobRequest { job_id }).await?;
    let (job, now) = (answer.job.unwrap_or_default(), answer.now.unwrap_or_default());
    let mut row = view::job::row(&job, &now);
    if let Value::Object(fields) = &mut row.value {
        fields.insert("spec".into(), serde_json::from_str(&answer.spec).unwrap_or_default());
        fields.insert("timeline".into(), view::timeline::value(&job, &latest.attempts));
        fields.insert("attempts".into(), view::timeline::attempts(&latest.attempts));
    }
    let timeline = view::timeline::render(&job, &latest.attempts, more);
    session.one("Job", &row, &view::job::describe(&job, &answer.spec, &timeline, &now))?;
    Ok(0)
}

async fn attempts(
    session: &Session,
    job_id: u64,
) -> Result<(Vec<v1::Attempt>, v1::Stamp), Failure> {
    all_pages(|page| async move {
        let request =
            v1::AttemptsRequest { job_id, page: Some(page), ..v1::AttemptsRequest::default() };
        let answer = session.client.attempts(request).await?;
        Ok((answer.attempts, answer.page))
    })
    .await
}

async fn task_runs(
    session: &Session,
    job_id: u64,
    states: &[i32],
) -> Result<Vec<v1::TaskRun>, Failure> {
    let request = v1::ListTasksRequest { job_id, states: states.to_vec(), ..Default::default() };
    let (runs, _) = all_pages(|page| {
        let request = v1::ListTasksRequest { page: Some(page), ..request.clone() };
        async move {
            let answer = session.client.tasks(request).await?;
            Ok((answer.runs, answer.page))
        }
    })
    .await?;
    Ok(runs)
}

/// Explains a job.
pub(crate) async fn why(session: &Session, args: &WhyArgs) -> Result<u8, Failure> {
    let chosen = choose_one(session, &args.job).await?;
    let task_index = chosen.only_task()?;
    let request = v1::ExplainRequest { job_id: chosen.job, task_index };
    let answer = session.client.explain(request).await?;
    let value = view::explain::value(&answer);
    let row = Row { value, name: chosen.to_string(), ..Row::default() };
    session.one("Explanation", &row, &view::explain::render(&answer))?;
    Ok(0)
}

/// One row for each task of an array.
pub(crate) async fn results(session: &Session, args: &ResultsArgs) -> Result<u8, Failure> {
    let job_id = choose_one(session, &args.job).await?.whole("results")?;
    let answer = session.client.job(v1::GetJobRequest { job_id }).await?;
    let runs = task_runs(session, job_id, &[]).await?;
    let (attempts, _) = attempts(session, job_id).await?;
    // The server's canonical text is a valid spec; without parameters there are still results.
    let spec = JobSpec::from_json(&answer.spec).ok();
    session.list(&view::results::listing(job_id, &runs, &attempts, spec.as_ref()))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_in_any_case() {
        assert_eq!(state("running").unwrap(), i32::from(v1::JobState::Running));
        assert_eq!(state(" Failed ").unwrap(), i32::from(v1::JobState::Failed));
        for bad in ["", "unspecified", "done"] {
            assert_eq!(state(bad).unwrap_err().exit, 64, "{bad}");
        }
    }
}
