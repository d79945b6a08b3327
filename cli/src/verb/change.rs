//! Changing jobs.

use crate::args::{CancelArgs, HoldArgs, JobsArgs, SetArgs};
use crate::failure::{Failure, exit};
use crate::input::confirm_many;
use crate::output::{Row, say};
use crate::select::{Chosen, choose, choose_one};
use crate::session::Session;
use crate::text;
use crate::view;
use serde_json::json;
use yard_common::spec::time::DurationMs;
use yard_proto::v1;

/// The jobs that are meant, after asking where they are many.
async fn chosen(session: &Session, args: &JobsArgs, what: &str) -> Result<Vec<Chosen>, Failure> {
    let chosen = choose(session, &args.jobs).await?;
    confirm_many(what, chosen.len(), args.yes)?;
    Ok(chosen)
}

/// The ranges of a choice, as requests name them; `None`: the whole job.
fn ranges(chosen: &Chosen) -> Vec<Option<v1::TaskRange>> {
    let range = |range: &yard_common::id::TaskRange| {
        Some(v1::TaskRange { first: range.first, len: range.len })
    };
    match chosen.tasks.is_empty() {
        true => vec![None],
        false => chosen.tasks.iter().map(range).collect(),
    }
}

/// Does the same to each job, whatever becomes of the others; the last failure's code. What goes
/// wrong with a job that was named alone is the failure of the verb.
async fn to_each(
    chosen: Vec<Chosen>,
    act: impl AsyncFn(&Chosen) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    let (many, mut code) = (chosen.len() > 1, 0);
    for one in chosen {
        match act(&one).await {
            Ok(0) => {}
            Ok(bad) => code = bad,
            // Nobody would answer for the rest either.
            Err(failure) if !many || failure.exit == exit::UNREACHABLE => return Err(failure),
            Err(failure) => {
                say(&format!("{one}: {}", failure.message));
                code = failure.exit;
            }
        }
    }
    Ok(code)
}

/// Asks jobs for a checkpoint. Nobody waits until it is written.
pub(crate) async fn checkpoint(session: &Session, args: &JobsArgs) -> Result<u8, Failure> {
    to_each(chosen(session, args, "checkpoint").await?, async |one| {
        let (mut ranks, mut nodes, mut missing) = (0, 0, Vec::new());
        let mut problem = String::new();
        for tasks in ranges(one) {
            let request = v1::CheckpointRequest { job_id: one.job, tasks };
            let asked = session.client.checkpoint(request).await?;
            (ranks, nodes) = (ranks + asked.ranks, nodes + asked.nodes);
            missing.extend(asked.missing_nodes);
            problem = if problem.is_empty() { asked.problem } else { problem };
        }
        let of = |count: u32, what: &str| match count {
            1 => format!("1 {what}"),
            count => format!("{count} {what}s"),
        };
        match ranks {
            0 => say(&format!("{one}: nothing of it that could be asked runs")),
            ranks => say(&format!("{one}: asked {} on {}", of(ranks, "rank"), of(nodes, "node"))),
        }
        if !missing.is_empty() {
            say(&format!("{one}: not asked on {}: {problem}", missing.join(", ")));
        }
        Ok(u8::from(ranks == 0 || !missing.is_empty()))
    })
    .await
}

/// Ends jobs.
pub(crate) async fn cancel(session: &Session, args: &CancelArgs) -> Result<u8, Failure> {
    to_each(chosen(session, &args.jobs, "cancel").await?, async |one| {
        let mut tasks = 0;
        for range in ranges(one) {
            let request = v1::CancelRequest {
                job_id: one.job,
                tasks: range,
                reason: args.reason.clone(),
                ..v1::CancelRequest::default()
            };
            tasks += session.client.cancel(request).await?.tasks;
        }
        say(&format!("{one}: {}", affected(tasks)));
        Ok(0)
    })
    .await
}

fn affected(tasks: u32) -> String {
    match tasks {
        0 => "nothing was left to do".into(),
        1 => "1 task".into(),
        tasks => format!("{tasks} tasks"),
    }
}

/// Holds jobs.
pub(crate) async fn hold(session: &Session, args: &HoldArgs) -> Result<u8, Failure> {
    to_each(chosen(session, &args.jobs, "hold").await?, async |one| {
        let request = v1::HoldRequest {
            job_id: one.whole("hold")?,
            reason: args.reason.clone(),
            ..v1::HoldRequest::default()
        };
        session.client.hold(request).await?;
        say(&format!("{one}: held"));
        Ok(0)
    })
    .await
}

/// Lets held jobs start.
pub(crate) async fn release(session: &Session, args: &JobsArgs) -> Result<u8, Failure> {
    to_each(chosen(session, args, "release").await?, async |one| {
        let job_id = one.whole("release")?;
        let request = v1::ReleaseRequest { job_id, ..v1::ReleaseRequest::default() };
        session.client.release(request).await?;
        say(&format!("{one}: released"));
        Ok(0)
    })
    .await
}

/// Changes a job, and says what was and what is.
pub(crate) async fn set(session: &Session, args: &SetArgs) -> Result<u8, Failure> {
    let one = choose_one(session, &args.job).await?;
    let job_id = one.whole("set")?;
    let time_limit_ms = match &args.time_limit {
        None => None,
        Some(text) => {
            let answer = session.client.job(v1::GetJobRequest { job_id }).await?;
            Some(new_limit(text, answer.job.unwrap_or_default().time_limit_ms)?)
        }
    };
    let request = v1::AdjustRequest {
        job_id,
        priority: args.priority,
        time_limit_ms,
        running_max: args.max_running,
        ..v1::AdjustRequest::default()
    };
    let answer = session.client.adjust(request).await?;
    let (before, after) = (answer.before.unwrap_or_default(), answer.after.unwrap_or_default());
    let value = json!({ "before": view::job::value(&before), "after": view::job::value(&after) });
    let row = Row { value, name: job_id.to_string(), ..Row::default() };
    session.one("Adjusted", &row, &differences(&before, &after))?;
    Ok(0)
}

/// A limit that is given as it shall be, or relative to what it is. 0 stands for none.
fn new_limit(text: &str, present: Option<u64>) -> Result<u64, Failure> {
    if text == "none" {
        return Ok(0);
    }
    let sign = text.chars().next().filter(|sign| matches!(sign, '+' | '-'));
    let read = |text: &str| {
        text.parse::<DurationMs>().map_err(|why| Failure::usage(format!("--time-limit: {why}"), ""))
    };
    let Some(sign) = sign else { return Ok(read(text)?.ms()) };
    let change = read(&text[1..])?.ms();
    let hint = "give the limit itself, such as 2d";
    let present = present.ok_or_else(|| Failure::usage("the job has no limit to change", hint))?;
    let new = if sign == '+' { present.checked_add(change) } else { present.checked_sub(change) };
    let new = new.filter(|new| *new > 0 && DurationMs::new(*new).is_some());
    let message = format!("{} {text} is no limit", text::duration(present));
    new.ok_or_else(|| Failure::usage(message, hint))
}

/// Lines `field: old -> new` of what changed.
fn differences(before: &v1::Job, after: &v1::Job) -> String {
    let limit = |ms: Option<u64>| ms.map_or("none".into(), text::duration);
    let running = |max: Option<u32>| max.map_or("no bound".into(), |max| max.to_string());
    let fields = [
        ("priority", before.priority.to_string(), after.priority.to_string()),
        ("time limit", limit(before.time_limit_ms), limit(after.time_limit_ms)),
        ("tasks at a time", running(before.running_max), running(after.running_max)),
    ];
    let changed = fields.iter().filter(|(_, old, new)| old != new);
    let lines: String =
        changed.map(|(field, old, new)| format!("{field}: {old} -> {new}\n")).collect();
    if lines.is_empty() { "nothing changed: it was so already\n".into() } else { lines }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_absolute_or_relative() {
        let hour = 3_600_000;
        assert_eq!(new_limit("2h", None), Ok(2 * hour));
        assert_eq!(new_limit("+12h", Some(hour)), Ok(13 * hour));
        assert_eq!(new_limit("-30m", Some(hour)), Ok(hour / 2));
        assert_eq!(new_limit("none", Some(hour)), Ok(0));
        for (text, present) in
            [("+1h", None), ("-1h", Some(hour)), ("-2h", Some(hour)), ("soon", None), ("+", None)]
        {
            assert_eq!(new_limit(text, present).unwrap_err().exit, 64, "{text}");
        }
        assert!(new_limit("+400d", Some(hour)).is_err(), "past the longest");
    }

    #[test]
    fn what_changed_is_said() {
        let before = v1::Job { priority: 0, time_limit_ms: None, ..v1::Job::default() };
        let after = v1::Job { priority: 5, time_limit_ms: Some(3_600_000), ..before.clone() };
        assert_eq!(differences(&before, &after), "priority: 0 -> 5\ntime limit: none -> 1h\n");
        assert!(differences(&after, &after).starts_with("nothing changed"));
    }
}
