//! Jobs, tasks and attempts.

use super::{amounts, cause, facts, stamp};
use crate::output::{Listing, Row, Tone, column};
use crate::text::{self, NONE};
use serde_json::{Value, json};
use yard_common::id::TaskRange;
use yard_proto::v1;

/// Rows of parameters that a description shows.
const ROWS_SHOWN: usize = 10;

/// Jobs as a list.
pub(crate) fn listing(jobs: &[v1::Job], now: &v1::Stamp) -> Listing {
    let columns = vec![
        column("ID").right(),
        column("NAME"),
        column("STATE"),
        column("REASON/CAUSE"),
        column("QUEUE"),
        column("PRIO").right(),
        column("NODESxGPU").right(),
        column("TRY").right(),
        column("AGE").right(),
        column("LEFT").right(),
        column("OWNER").wide(),
        column("WORKSPACE").wide(),
        column("TASKS").wide(),
        column("ON").wide(),
    ];
    Listing { kind: "Job", columns, rows: jobs.iter().map(|job| row(job, now)).collect() }
}

/// One job as a row of a list.
pub(crate) fn row(job: &v1::Job, now: &v1::Stamp) -> Row {
    let state = text::job_state(job.state);
    let cells = vec![
        job.id.to_string(),
        job.name.clone(),
        state.clone(),
        why(job, Some(now)),
        job.queue.clone(),
        job.priority.to_string(),
        size(job),
        if job.attempt == 0 { NONE.into() } else { job.attempt.to_string() },
        age(job, now),
        left(job, now).unwrap_or_else(|| NONE.into()),
        job.owner.clone(),
        job.workspace.clone(),
        if job.is_array { counts(job) } else { NONE.into() },
        on(job),
    ];
    let mut tones = vec![(2, tone(job.state))];
    if is_silent(job) {
        tones.push((3, Tone::Bad));
    }
    Row { cells, value: value(job), name: job.id.to_string(), tones }
}

/// How a state looks.
fn tone(state: i32) -> Tone {
    match v1::JobState::try_from(state) {
        Ok(v1::JobState::Running | v1::JobState::Preparing) => Tone::Busy,
        Ok(v1::JobState::Succeeded) => Tone::Good,
        Ok(v1::JobState::Failed) => Tone::Bad,
        Ok(v1::JobState::Cancelled | v1::JobState::Stopping) => Tone::Dim,
        Ok(v1::JobState::Queued | v1::JobState::Unspecified) | Err(_) => Tone::Plain,
    }
}

/// Whether an attempt of it runs that does nothing.
fn is_silent(job: &v1::Job) -> bool {
    job.state == v1::JobState::Running as i32 && job.silent_attempts > 0
}

/// Why it waits, that it does nothing, or why it ended.
fn why(job: &v1::Job, now: Option<&v1::Stamp>) -> String {
    if is_silent(job) {
        let many = match job.silent_attempts {
            1 => String::new(),
            count => format!("{count} "),
        };
        let since = job.silent_cluster_ms.zip(now);
        let span = since.map(|(since, now)| now.cluster_ms.saturating_sub(since));
        let span = span.map_or(String::new(), |ms| format!(" {}", text::duration(ms)));
        return format!("{many}silent{span}");
    }
    let waits = job.reason != v1::PendingReason::Unspecified as i32;
    match (&job.cause, waits) {
        (_, true) => text::reason(job.reason),
        (Some(cause), false) => text::cause(cause),
        (None, false) => NONE.into(),
    }
}

/// State and what explains it, in one breath: `Queued (Resources)`.
pub(crate) fn summary(job: &v1::Job) -> String {
    let tasks = if job.is_array { format!(": {}", counts(job)) } else { String::new() };
    format!("{}{tasks}", explained(job, None))
}

fn explained(job: &v1::Job, now: Option<&v1::Stamp>) -> String {
    let state = text::job_state(job.state);
    match why(job, now).as_str() {
        NONE => state,
        why => format!("{state} ({why})"),
    }
}

/// Nodes and the GPUs of each: `4x8`; without GPUs: `4`.
fn size(job: &v1::Job) -> String {
    let nodes = job.nodes.max(1);
    match job.gpu_parts / u64::from(nodes) {
        0 => nodes.to_string(),
        parts => format!("{nodes}x{}", text::gpus(parts)),
    }
}

/// Since when it is there, or how long ago it ended.
fn age(job: &v1::Job, now: &v1::Stamp) -> String {
    let since = job.ended.as_ref().or(job.submitted.as_ref());
    since.map_or(NONE.into(), |since| text::duration(now.wall_ms.saturating_sub(since.wall_ms)))
}

/// How long it may still run.
fn left(job: &v1::Job, now: &v1::Stamp) -> Option<String> {
    let deadline = job.deadline_cluster_ms?;
    Some(text::duration(deadline.saturating_sub(now.cluster_ms)))
}

/// How many tasks are in which state: `3 queued, 2 running of 10`.
pub(crate) fn counts(job: &v1::Job) -> String {
    let Some(counts) = &job.counts else { return job.task_count.to_string() };
    let named = [
        ("blocked", counts.blocked),
        ("queued", counts.queued),
        ("backoff", counts.backoff),
        ("preparing", counts.preparing),
        ("running", counts.running),
        ("stopping", counts.stopping),
        ("succeeded", counts.succeeded),
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
    ];
    let some = named.iter().filter(|(_, count)| *count > 0);
    let texts: Vec<String> = some.map(|(name, count)| format!("{count} {name}")).collect();
    format!("{} of {}", texts.join(", "), job.task_count)
}

/// Where it runs.
fn on(job: &v1::Job) -> String {
    let more = (job.nodes_held_count as usize).saturating_sub(job.nodes_held.len());
    match (job.nodes_held.is_empty(), more) {
        (true, 0) => NONE.into(),
        (_, 0) => job.nodes_held.join(","),
        (_, more) => format!("{} and {more} more", job.nodes_held.join(",")),
    }
}

/// A job as machines read it.
pub(crate) fn value(job: &v1::Job) -> Value {
    let counts = job.counts.as_ref().map(|counts| {
        json!({
            "blocked": counts.blocked,
            "queued": counts.queued,
            "backoff": counts.backoff,
            "preparing": counts.preparing,
            "running": counts.running,
            "stopping": counts.stopping,
            "succeeded": counts.succeeded,
            "failed": counts.failed,
            "cancelled": counts.cancelled,
        })
    });
    let waits = job.reason != v1::PendingReason::Unspecified as i32;
    json!({
        "id": job.id,
        "name": job.name,
        "workspace": job.workspace,
        "owner": job.owner,
        "queue": job.queue,
        "experiment": job.experiment,
        "pool": job.pool,
        "state": text::job_state(job.state),
        "reason": waits.then(|| text::reason(job.reason)),
        "cause": cause(job.cause.as_ref()),
        "priority": job.priority,
        "time_limit_ms": job.time_limit_ms,
        "isolation": text::isolation(job.isolation),
        "nodes": job.nodes,
        "gpus": text::gpus(job.gpu_parts),
        "is_array": job.is_array,
        "task_count": job.task_count,
        "counts": counts,
        "running_max": job.running_max,
        "attempt": job.attempt,
        "revision": job.revision,
        "submitted": stamp(job.submitted.as_ref()),
        "ended": stamp(job.ended.as_ref()),
        "held": job.held,
        "suspended": job.suspended,
        "cancelled_by": job.cancelled_by,
        "cancel_reason": job.cancel_reason,
        "deadline_cluster_ms": job.deadline_cluster_ms,
        "granted_cluster_ms": job.granted_cluster_ms,
        "nodes_held": job.nodes_held,
        "nodes_held_count": job.nodes_held_count,
        "silent_attempts": job.silent_attempts,
        "silent_cluster_ms": job.silent_cluster_ms,
    })
}

/// One job for people: what it is, where it is, its timeline, and its spec.
pub(crate) fn describe(job: &v1::Job, spec: &str, timeline: &str, now: &v1::Stamp) -> String {
    let moment = |stamp: &Option<v1::Stamp>| {
        stamp.as_ref().map_or(String::new(), |stamp| text::moment(stamp.wall_ms))
    };
    let held = job.held.as_ref().map(|reason| match reason.as_str() {
        "" => "yes".to_string(),
        reason => reason.to_string(),
    });
    let ran = job
        .granted_cluster_ms
        .map(|since| text::duration(now.cluster_ms - since.min(now.cluster_ms)));
    let mut out = facts(&[
        ("job", format!("{}  {}", job.id, job.name)),
        ("state", explained(job, Some(now))),
        ("owner", format!("{} in {}", job.owner, job.workspace)),
        ("queue", format!("{}, priority {}", job.queue, job.priority)),
        ("pool", job.pool.clone()),
        ("experiment", job.experiment.clone()),
        ("size", format!("{} (nodes x GPUs)", size(job))),
        ("tasks", if job.is_array { counts(job) } else { String::new() }),
        ("attempt", if job.attempt == 0 { String::new() } else { job.attempt.to_string() }),
        ("on", on(job).trim_matches('-').to_string()),
        ("held", held.unwrap_or_default()),
        ("cancelled", cancelled(job)),
        ("submitted", moment(&job.submitted)),
        ("granted", ran.map_or(String::new(), |ran| format!("{ran} ago"))),
        ("time left", left(job, now).unwrap_or_default()),
        ("ended", moment(&job.ended)),
    ]);
    out.push_str(timeline);
    if let Ok(mut spec) = serde_json::from_str::<Value>(spec) {
        shorten_rows(&mut spec, job.id);
        out.push_str("\nspec (what differs from the defaults)\n");
        for line in crate::output::yaml(&spec).lines() {
            out.push_str(&format!("  {line}\n"));
        }
    }
    out
}

/// Who cancelled it last, and why.
fn cancelled(job: &v1::Job) -> String {
    match (job.cancelled_by.as_str(), job.cancel_reason.as_str()) {
        ("", _) => String::new(),
        (by, "") => format!("by {by}"),
        (by, reason) => format!("by {by}: {reason}"),
    }
}

/// Leaves many rows of parameters to `results`.
fn shorten_rows(spec: &mut Value, id: u64) {
    let each = spec.pointer_mut("/array/each");
    if let Some(each) = each
        && let Some(rows) = each.as_array().map(Vec::len)
        && rows > ROWS_SHOWN
    {
        *each = format!("{rows} rows; yard results {id} shows them").into();
    }
}

fn range(range: Option<&v1::TaskRange>) -> String {
    let Some(range) = range.filter(|range| range.len > 0) else { return NONE.into() };
    TaskRange { first: range.first, len: range.len }.to_string()
}

/// Runs of tasks that are alike.
pub(crate) fn tasks(runs: &[v1::TaskRun]) -> Listing {
    let columns = vec![
        column("TASKS").right(),
        column("STATE"),
        column("TRY").right(),
        column("CAUSE"),
        column("ON"),
        column("PARAMETERS"),
    ];
    let row = |run: &v1::TaskRun| {
        let tasks = range(run.tasks.as_ref());
        let params = run.parameters.iter().map(|one| format!("{}={}", one.key, one.value));
        let params: Vec<String> = params.collect();
        let state = text::task_state(run.state);
        let map: serde_json::Map<String, Value> =
            run.parameters.iter().map(|one| (one.key.clone(), one.value.clone().into())).collect();
        Row {
            cells: vec![
                tasks.clone(),
                state.clone(),
                run.attempt.to_string(),
                run.cause.as_ref().map_or(NONE.into(), text::cause),
                if run.nodes.is_empty() { NONE.into() } else { run.nodes.join(",") },
                if params.is_empty() { NONE.into() } else { params.join(" ") },
            ],
            value: json!({
                "first": run.tasks.as_ref().map(|range| range.first),
                "len": run.tasks.as_ref().map(|range| range.len),
                "state": state,
                "attempt": run.attempt,
                "cause": cause(run.cause.as_ref()),
                "nodes": run.nodes,
                "parameters": map,
            }),
            name: tasks,
            tones: Vec::new(),
        }
    };
    Listing { kind: "TaskRun", columns, rows: runs.iter().map(row).collect() }
}

/// Attempts, newest first.
pub(crate) fn attempts(list: &[v1::Attempt], now: &v1::Stamp) -> Listing {
    let columns = vec![
        column("TASKS").right(),
        column("TRY").right(),
        column("STATE"),
        column("CAUSE"),
        column("SINCE").right(),
        column("RANKS").right(),
        column("ON"),
    ];
    let row = |attempt: &v1::Attempt| {
        let tasks = range(attempt.tasks.as_ref());
        let since = attempt.granted_cluster_ms;
        let since = since.map(|since| text::duration(now.cluster_ms.saturating_sub(since)));
        let ranks: u32 = attempt.shares.iter().map(|share| share.ranks).sum();
        let nodes: Vec<&str> = attempt.shares.iter().map(|share| share.node.as_str()).collect();
        let state = text::attempt_state(attempt.state);
        Row {
            cells: vec![
                tasks.clone(),
                attempt.attempt.to_string(),
                state,
                attempt.cause.as_ref().map_or(NONE.into(), text::cause),
                since.unwrap_or_else(|| NONE.into()),
                ranks.to_string(),
                nodes.join(","),
            ],
            value: self::attempt(attempt),
            name: format!("{tasks}.{}", attempt.attempt),
            tones: Vec::new(),
        }
    };
    Listing { kind: "Attempt", columns, rows: list.iter().map(row).collect() }
}

/// An attempt as machines read it.
pub(crate) fn attempt(attempt: &v1::Attempt) -> Value {
    let shares: Vec<Value> = attempt.shares.iter().map(share).collect();
    json!({
        "first": attempt.tasks.as_ref().map(|range| range.first),
        "len": attempt.tasks.as_ref().map(|range| range.len),
        "attempt": attempt.attempt,
        "state": text::attempt_state(attempt.state),
        "cause": cause(attempt.cause.as_ref()),
        "granted_cluster_ms": attempt.granted_cluster_ms,
        "deadline_cluster_ms": attempt.deadline_cluster_ms,
        "silent_cluster_ms": attempt.silent_cluster_ms,
        "started": stamp(attempt.started.as_ref()),
        "ended": stamp(attempt.ended.as_ref()),
        "shares": shares,
    })
}

fn share(share: &v1::AttemptShare) -> Value {
    json!({
        "node": share.node,
        "group": share.group,
        "amounts": amounts(share.amounts.as_ref()),
        "gpu_uuids": share.gpu_uuids,
        "state": text::assignment_state(share.state),
        "exit": cause(share.exit.as_ref()),
        "ranks": share.ranks,
        "first_rank": share.first_rank,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::output::Format;

    pub(crate) fn sample() -> v1::Job {
        v1::Job {
            id: 812,
            name: "llama-ft".into(),
            workspace: "default".into(),
            owner: "ann".into(),
            queue: "gpu".into(),
            state: v1::JobState::Running.into(),
            nodes: 4,
            gpu_parts: 32 * 10_000,
            attempt: 2,
            submitted: Some(v1::Stamp { cluster_ms: 0, wall_ms: 1_800_000_000_000 }),
            deadline_cluster_ms: Some(10_000_000),
            nodes_held: vec!["n1".into(), "n2".into()],
            nodes_held_count: 4,
            ..v1::Job::default()
        }
    }

    pub(crate) fn now() -> v1::Stamp {
        v1::Stamp { cluster_ms: 2_800_000, wall_ms: 1_800_002_800_000 }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_list_of_jobs_reads_well() {
        let queued = v1::Job {
            id: 7,
            name: "a".into(),
            queue: "default".into(),
            owner: "ben".into(),
            state: v1::JobState::Queued.into(),
            reason: v1::PendingReason::Unsatisfiable.into(),
            priority: -5,
            nodes: 1,
            ..v1::Job::default()
        };
        let text = plain(&listing(&[sample(), queued], &now()).render(Format::Table));
        let expected = "\
 ID  NAME      STATE    REASON/CAUSE   QUEUE    PRIO  NODESxGPU  TRY    AGE  LEFT
812  llama-ft  Running  -              gpu         0        4x8    2  46m40s  2h
  7  a         Queued   Unsatisfiable  default    -5          1    -      -     -
";
        let squeeze = |text: &str| {
            let lines =
                text.lines().map(|line| line.split_whitespace().collect::<Vec<&str>>().join(" "));
            lines.collect::<Vec<String>>()
        };
        assert_eq!(squeeze(&text), squeeze(expected));
        let widths: Vec<usize> = text.lines().map(str::len).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "not aligned:\n{text}");
    }

    #[test]
    fn a_job_that_does_nothing_is_marked() {
        let since_ms = now().cluster_ms - 754_000;
        let silent = v1::Job { silent_attempts: 1, silent_cluster_ms: Some(since_ms), ..sample() };
        assert_eq!(row(&silent, &now()).cells[3], "silent 12m34s");
        assert_eq!(summary(&silent), "Running (silent)");
        assert!(describe(&silent, "{}", "", &now()).contains("Running (silent 12m34s)"));
        let many = v1::Job { silent_attempts: 3, ..silent.clone() };
        assert_eq!(row(&many, &now()).cells[3], "3 silent 12m34s");
        let ended = v1::Job { state: v1::JobState::Succeeded.into(), ..silent };
        assert_eq!(row(&ended, &now()).cells[3], "-");
    }

    #[test]
    fn a_job_for_machines_has_its_numbers() {
        let value = value(&sample());
        assert_eq!(value["id"], 812);
        assert_eq!(value["state"], "Running");
        assert_eq!(value["gpus"], "32");
        assert_eq!(value["reason"], Value::Null);
        assert_eq!(value["cause"], Value::Null);
    }

    #[test]
    fn a_description_leaves_out_what_is_not_there() {
        let text = describe(&sample(), r#"{"command":"x","nodes":4}"#, "", &now());
        assert!(text.starts_with("job        812  llama-ft\nstate      Running"), "{text}");
        assert!(text.contains("on         n1,n2 and 2 more\n"), "{text}");
        assert!(text.ends_with("  command: \"x\"\n  nodes: 4\n"), "{text}");
        assert!(!text.contains("ended") && !text.contains("held"), "{text}");
        assert!(!text.contains("cancelled"), "{text}");
        let by = |reason: &str| {
            let (cancelled_by, cancel_reason) = ("bob".into(), reason.into());
            describe(&v1::Job { cancelled_by, cancel_reason, ..sample() }, "{}", "", &now())
        };
        assert!(by("no more").contains("\ncancelled  by bob: no more\n"), "{}", by("no more"));
        assert!(by("").contains("\ncancelled  by bob\n"), "{}", by(""));
    }

    #[test]
    fn tasks_and_attempts_have_rows() {
        let run = v1::TaskRun {
            tasks: Some(v1::TaskRange { first: 3, len: 5 }),
            state: v1::TaskState::Succeeded.into(),
            attempt: 1,
            parameters: vec![v1::Parameter { key: "lr".into(), value: "1e-4".into() }],
            ..v1::TaskRun::default()
        };
        let bare = v1::TaskRun { parameters: Vec::new(), ..run.clone() };
        let text = tasks(&[run, bare]).render(Format::Csv);
        let rows = "3-7,Succeeded,1,-,-,lr=1e-4\n3-7,Succeeded,1,-,-,-\n";
        assert_eq!(text, format!("tasks,state,try,cause,on,parameters\n{rows}"));
        let attempt = v1::Attempt {
            tasks: Some(v1::TaskRange { first: 0, len: 1 }),
            attempt: 2,
            state: v1::AttemptState::Running.into(),
            granted_cluster_ms: Some(2_740_000),
            shares: vec![v1::AttemptShare { node: "n1".into(), ranks: 8, ..Default::default() }],
            ..v1::Attempt::default()
        };
        let text = attempts(&[attempt], &now()).render(Format::Csv);
        assert_eq!(text, "tasks,try,state,cause,since,ranks,on\n0,2,Running,-,1m,8,n1\n");
    }
}
