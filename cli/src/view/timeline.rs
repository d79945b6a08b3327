//! What became of a job, in order: when it was submitted, where its attempts ran, and how it ended.

use super::stamp;
use crate::text;
use serde_json::{Value, json};
use yard_common::id::TaskRange;
use yard_proto::v1;

/// Attempts of a timeline: the latest.
pub(crate) const ATTEMPTS_SHOWN: usize = 5;
/// Machines that one line names.
const NODES_SHOWN: usize = 8;

/// Something that happened.
struct Moment {
    at: v1::Stamp,
    event: &'static str,
    text: String,
    attempt: Option<u32>,
    /// Its first task. What happened at one moment is told in their order.
    task: u32,
}

/// The attempts that are shown, the oldest first. They come newest first.
fn latest(attempts: &[v1::Attempt]) -> impl Iterator<Item = &v1::Attempt> {
    attempts[..attempts.len().min(ATTEMPTS_SHOWN)].iter().rev()
}

fn moments(job: &v1::Job, attempts: &[v1::Attempt]) -> Vec<Moment> {
    let submitted = job.submitted.unwrap_or_default();
    let mut found = Vec::new();
    let mut add = |at: v1::Stamp, event, text: String, of: Option<&v1::Attempt>| {
        let attempt = of.map(|attempt| attempt.attempt);
        let task = of.and_then(|attempt| attempt.tasks).map_or(0, |tasks| tasks.first);
        found.push(Moment { at, event, text, attempt, task });
    };
    add(submitted, "submitted", "submitted".into(), None);
    for attempt in latest(attempts) {
        let (name, of) = (name(job, attempt), Some(attempt));
        if let Some(cluster_ms) = attempt.granted_cluster_ms {
            // Only the cluster's time of it is known; the two run at one pace.
            let since_ms = cluster_ms.saturating_sub(submitted.cluster_ms);
            let at = v1::Stamp { cluster_ms, wall_ms: submitted.wall_ms.saturating_add(since_ms) };
            add(at, "placed", format!("{name} placed on {}", placed(attempt)), of);
        }
        if let Some(at) = attempt.started {
            add(at, "running", format!("{name} running"), of);
        }
        if let Some(at) = attempt.ended {
            let cause = attempt.cause.as_ref().map_or(String::new(), text::cause);
            add(at, "attempt_ended", format!("{name} ended: {cause}"), of);
        }
    }
    found.sort_by_key(|moment| (moment.at.cluster_ms, moment.task));
    // Nothing comes after the end.
    if let Some(at) = job.ended {
        let text = format!("job ended: {}", text::job_state(job.state));
        found.push(Moment { at, event: "ended", text, attempt: None, task: 0 });
    }
    found
}

/// What an attempt is called: of an array, with its tasks.
fn name(job: &v1::Job, attempt: &v1::Attempt) -> String {
    let tasks = attempt.tasks.unwrap_or_default();
    match (job.is_array, tasks.len) {
        (false, _) => format!("attempt {}", attempt.attempt),
        (true, 1) => format!("task {}, attempt {}", tasks.first, attempt.attempt),
        (true, _) => {
            let range = TaskRange { first: tasks.first, len: tasks.len };
            format!("tasks {range}, attempt {}", attempt.attempt)
        }
    }
}

/// Where an attempt runs, with its ranks if there are several.
fn placed(attempt: &v1::Attempt) -> String {
    let ranks: u32 = attempt.shares.iter().map(|share| share.ranks).sum();
    let one = |share: &v1::AttemptShare| match (ranks, share.ranks) {
        (0 | 1, _) | (_, 0) => share.node.clone(),
        (_, 1) => format!("{} (rank {})", share.node, share.first_rank),
        (_, count) => {
            let last = share.first_rank.saturating_add(count - 1);
            format!("{} (ranks {}-{last})", share.node, share.first_rank)
        }
    };
    let named: Vec<String> = attempt.shares.iter().take(NODES_SHOWN).map(one).collect();
    let more = attempt.shares.len().saturating_sub(NODES_SHOWN);
    match more {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// The timeline for people; `more`: there are earlier attempts.
pub(crate) fn render(job: &v1::Job, attempts: &[v1::Attempt], more: bool) -> String {
    let moments = moments(job, attempts);
    let submitted = job.submitted.unwrap_or_default();
    let since = |moment: &Moment| {
        let since_ms = moment.at.cluster_ms.saturating_sub(submitted.cluster_ms);
        format!("+{}", text::span(since_ms))
    };
    let width = moments.iter().map(|moment| since(moment).len()).max().unwrap_or(0);
    let mut out = String::from("\ntimeline\n");
    for moment in &moments {
        let (since, at) = (since(moment), text::moment(moment.at.wall_ms));
        out.push_str(&format!("  {since:>width$}  {at}  {}\n", text::harmless(&moment.text)));
    }
    if attempts.is_empty() && job.attempt > 0 {
        out.push_str("  its attempts are not remembered: the coordinator was started after them\n");
    } else if more || attempts.len() > ATTEMPTS_SHOWN {
        out.push_str(&format!("  earlier attempts: yard show {} --attempts\n", job.id));
    }
    out
}

/// The timeline as machines read it.
pub(crate) fn value(job: &v1::Job, attempts: &[v1::Attempt]) -> Value {
    let submitted = job.submitted.unwrap_or_default();
    let one = |moment: Moment| {
        json!({
            "event": moment.event,
            "attempt": moment.attempt,
            "at": stamp(Some(&moment.at)),
            "since_submit_ms": moment.at.cluster_ms.saturating_sub(submitted.cluster_ms),
            "text": moment.text,
        })
    };
    moments(job, attempts).into_iter().map(one).collect()
}

/// The shown attempts as machines read them, the oldest first.
pub(crate) fn attempts(attempts: &[v1::Attempt]) -> Value {
    latest(attempts).map(super::job::attempt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::job::tests::sample;

    fn attempt(number: u32, from_ms: u64) -> v1::Attempt {
        let at = |ms: u64| v1::Stamp { cluster_ms: ms, wall_ms: 1_800_000_000_000 + ms };
        let share = |node: &str, first_rank| v1::AttemptShare {
            node: node.into(),
            ranks: 2,
            first_rank,
            ..v1::AttemptShare::default()
        };
        v1::Attempt {
            tasks: Some(v1::TaskRange { first: 0, len: 1 }),
            attempt: number,
            cause: Some(v1::ExitCause {
                kind: v1::ExitKind::Exited.into(),
                number: 3,
                ..v1::ExitCause::default()
            }),
            granted_cluster_ms: Some(from_ms),
            started: Some(at(from_ms + 250)),
            ended: Some(at(from_ms + 70_000)),
            shares: vec![share("n1", 0), share("n2", 2)],
            ..v1::Attempt::default()
        }
    }

    #[test]
    fn a_timeline_tells_attempts_in_order() {
        let present = v1::Attempt { ended: None, ..attempt(2, 80_040) };
        let text = render(&sample(), &[present, attempt(1, 40)], false);
        let expected = "
timeline
  +0.00s  2027-01-15T08:00:00Z  submitted
  +0.04s  2027-01-15T08:00:00Z  attempt 1 placed on n1 (ranks 0-1), n2 (ranks 2-3)
  +0.29s  2027-01-15T08:00:00Z  attempt 1 running
  +1m10s  2027-01-15T08:01:10Z  attempt 1 ended: Exited(3)
  +1m20s  2027-01-15T08:01:20Z  attempt 2 placed on n1 (ranks 0-1), n2 (ranks 2-3)
  +1m20s  2027-01-15T08:01:20Z  attempt 2 running
";
        assert_eq!(text, expected);
    }

    #[test]
    fn only_the_last_attempts_are_told() {
        let list: Vec<v1::Attempt> =
            (1..=7).rev().map(|number| attempt(number, u64::from(number) * 100_000)).collect();
        let text = render(&sample(), &list, false);
        assert!(!text.contains("attempt 2 ") && text.contains("attempt 3 placed"), "{text}");
        assert!(text.contains("yard show 812 --attempts"), "{text}");
        let value = value(&sample(), &list);
        assert_eq!(value[1]["event"], "placed");
        assert_eq!(value[1]["since_submit_ms"], 300_000);
        assert_eq!(attempts(&list)[0]["attempt"], 3);
    }

    #[test]
    fn what_is_not_remembered_is_said() {
        let text = render(&sample(), &[], false);
        assert!(text.contains("not remembered"), "{text}");
        let text = render(&v1::Job { attempt: 0, ..sample() }, &[], false);
        assert!(!text.contains("not remembered"), "{text}");
    }
}
