//! `why`: in any state, with numbers and the next step.

use super::constraint;
use crate::text;
use serde_json::{Value, json};
use std::fmt::Write;
use yard_proto::v1;

/// Lines of standard error that are shown.
const TAIL_LINES_MAX: usize = 20;

/// The whole explanation for people.
pub(crate) fn render(answer: &v1::ExplainResponse) -> String {
    let explanation = answer.explanation.clone().unwrap_or_default();
    let job = answer.job.clone().unwrap_or_default();
    let state = text::task_state(explanation.state);
    format!("job {} ({}) is {state}\n{}", name(&job, &explanation), job.name, details(answer))
}

/// The job, or the task of it that is explained.
fn name(job: &v1::Job, explanation: &v1::Explanation) -> String {
    match job.is_array {
        true => format!("{}[{}]", job.id, explanation.task_index),
        false => job.id.to_string(),
    }
}

/// The explanation without the state, for whoever has just told it.
pub(crate) fn details(answer: &v1::ExplainResponse) -> String {
    let explanation = answer.explanation.clone().unwrap_or_default();
    let now = answer.now.unwrap_or_default();
    let job = answer.job.clone().unwrap_or_default();
    let mut out = String::new();
    match v1::Outlook::try_from(explanation.outlook) {
        Ok(v1::Outlook::Starts) => out.push_str("it starts in the next round of the scheduler\n"),
        Ok(v1::Outlook::Waits) => waits(&mut out, &explanation),
        Ok(v1::Outlook::NotPending | v1::Outlook::Unspecified) | Err(_) => {}
    }
    if let Some(progress) = &explanation.progress {
        progress_lines(&mut out, progress, now);
    }
    if let Some(failure) = &explanation.failure {
        failure_lines(&mut out, failure, now, &name(&job, &explanation));
    }
    out
}

fn waits(out: &mut String, explanation: &v1::Explanation) {
    let _ = writeln!(out, "it waits: {}", text::reason(explanation.reason));
    for constraint in &explanation.constraints {
        bullet(out, &constraint::text(constraint));
    }
    if !explanation.changes.is_empty() {
        out.push_str("any of these would let it start at once:\n");
        for change in &explanation.changes {
            bullet(out, &change_text(change));
        }
    }
}

/// A text of one or more lines, as a point of a list.
fn bullet(out: &mut String, what: &str) {
    for (at, line) in text::harmless(what).lines().enumerate() {
        let mark = if at == 0 { "- " } else { "  " };
        let _ = writeln!(out, "  {mark}{}", line.trim_end());
    }
}

fn change_text(change: &v1::Change) -> String {
    match (change.text.as_str(), &change.what) {
        ("", Some(what)) => format!("{what:?}"),
        ("", None) => "something that this version does not know".into(),
        (text, _) => text.into(),
    }
}

fn progress_lines(out: &mut String, progress: &v1::ProgressReport, now: v1::Stamp) {
    let since = |at: u64| text::duration(now.cluster_ms.saturating_sub(at));
    let state = text::attempt_state(progress.state).to_lowercase();
    let _ = write!(out, "attempt {} is {state}", progress.attempt);
    if let Some(at) = progress.granted_cluster_ms {
        let _ = write!(out, ", granted {} ago", since(at));
    }
    out.push('\n');
    if progress.ready < progress.shares {
        let _ = writeln!(out, "  {} of {} nodes are ready", progress.ready, progress.shares);
    }
    if let Some(deadline) = progress.deadline_cluster_ms {
        let left = text::duration(deadline.saturating_sub(now.cluster_ms));
        let _ = writeln!(out, "  {left} are left until its limit");
    }
    silence_lines(out, progress, now);
    for one in &progress.stuck {
        let what = text::harmless(&one.text);
        let _ = writeln!(out, "  killed on {} and does not end: {what}", one.node);
    }
    for one in &progress.late {
        let what = text::harmless(&one.text);
        let _ = writeln!(out, "  output does not arrive from {}: {what}", one.node);
    }
}

/// That its ranks do nothing, or which of them do not.
fn silence_lines(out: &mut String, progress: &v1::ProgressReport, now: v1::Stamp) {
    if let Some(silent) = progress.silent_ms {
        let (span, since) = (text::duration(silent), now.wall_ms.saturating_sub(silent));
        let since = text::moment(since);
        let _ =
            writeln!(out, "  no rank wrote, computed or moved anything for {span}, since {since}");
    }
    if let Some(at) = progress.stall_cluster_ms {
        let left = text::duration(at.saturating_sub(now.cluster_ms));
        let _ = writeln!(out, "  it ends for that in {left}: stall.kill");
    }
    if !progress.silent_nodes.is_empty() {
        let nodes = progress.silent_nodes.join(", ");
        let _ = writeln!(out, "  all of its ranks on {nodes} are silent; others are not");
    }
    let Some(contrast) = &progress.contrast else { return };
    let ranks: Vec<String> = contrast.ranks.iter().map(silent_rank).collect();
    let (ranks, known) = (ranks.join(", "), contrast.ranks_known);
    let _ = match v1::RankContrastKind::try_from(contrast.kind) {
        Ok(v1::RankContrastKind::FellSilentFirst) => {
            let lead = text::duration(contrast.lead_ms);
            writeln!(out, "  first to fall silent was {ranks}, {lead} before the next of {known}")
        }
        Ok(v1::RankContrastKind::Silent) => {
            writeln!(out, "  silent, while most of {known} ranks are not: {ranks}")
        }
        Ok(v1::RankContrastKind::Active) => {
            writeln!(out, "  not silent, while most of {known} ranks are: {ranks}")
        }
        Ok(v1::RankContrastKind::Unspecified) | Err(_) => Ok(()),
    };
}

fn silent_rank(one: &v1::SilentRank) -> String {
    let span = text::duration(one.silent_ms);
    format!("rank {} on {} (silent for {span})", one.rank, text::harmless(&one.node))
}

fn failure_lines(out: &mut String, failure: &v1::FailureReport, now: v1::Stamp, name: &str) {
    let cause = failure.cause.unwrap_or_default();
    let never = cause.kind == v1::ExitKind::DependencyFailed as i32 || failure.attempt == 0;
    let what = match never {
        true => "it ended without a start".to_string(),
        false => format!("attempt {} ended", failure.attempt),
    };
    let _ = write!(out, "{what}: {}", text::cause(&cause));
    if let Some(rank) = failure.rank {
        let _ = write!(out, ", first at rank {rank}");
    }
    if !failure.node.is_empty() {
        let _ = write!(out, " on {}", failure.node);
    }
    if let Some(ended) = &failure.ended {
        let ago = text::duration(now.wall_ms.saturating_sub(ended.wall_ms));
        let _ = write!(out, ", {ago} ago");
    }
    let _ = writeln!(out, "\n  whose fault: {}", text::whose_fault(&cause));
    for fact in &failure.facts {
        let _ = writeln!(out, "  {}", text::harmless(fact));
    }
    if let Some(peak) = failure.memory_peak_bytes {
        let limit = failure.memory_limit_bytes.map(text::bytes);
        let limit = limit.map_or(String::new(), |limit| format!(" of {limit}"));
        let _ = writeln!(out, "  memory at its peak: {}{limit}", text::bytes(peak));
    }
    let tail = String::from_utf8_lossy(&failure.stderr_tail);
    let lines: Vec<&str> = tail.lines().collect();
    let shown = &lines[lines.len().saturating_sub(TAIL_LINES_MAX)..];
    if !shown.is_empty() {
        out.push_str(match v1::ExitKind::try_from(cause.kind) {
            Ok(v1::ExitKind::PrepareFailed) => "  the last lines that were written before it:\n",
            Ok(_) | Err(_) => "  the last lines of its standard error:\n",
        });
        for line in shown {
            let _ = writeln!(out, "    | {}", text::harmless(line));
        }
    }
    match v1::NextStep::try_from(failure.next) {
        Ok(v1::NextStep::Retry) => {
            let wait = failure.retry_cluster_ms.map(|at| at.saturating_sub(now.cluster_ms));
            let when = wait.map_or(String::new(), |ms| format!(" in {}", text::duration(ms)));
            let _ = writeln!(out, "  next: it is tried again{when}");
        }
        Ok(v1::NextStep::None) => out.push_str("  next: nothing; it is not tried again\n"),
        Ok(v1::NextStep::Unspecified) | Err(_) => {}
    }
    match failure.hint.as_str() {
        "" if never => {}
        "" => {
            let _ = writeln!(out, "  try: yard logs {name} --stderr --attempt {}", failure.attempt);
        }
        hint => {
            let _ = writeln!(out, "  try: {}", text::harmless(hint));
        }
    }
}

fn rank_value(one: &v1::SilentRank) -> Value {
    json!({ "rank": one.rank, "node": one.node, "silent_ms": one.silent_ms })
}

fn contrast(contrast: &v1::RankContrast) -> Value {
    let kind = match v1::RankContrastKind::try_from(contrast.kind) {
        Ok(v1::RankContrastKind::FellSilentFirst) => "FellSilentFirst",
        Ok(v1::RankContrastKind::Silent) => "Silent",
        Ok(v1::RankContrastKind::Active) => "Active",
        Ok(v1::RankContrastKind::Unspecified) | Err(_) => "Unknown",
    };
    json!({
        "kind": kind,
        "ranks": contrast.ranks.iter().map(rank_value).collect::<Vec<_>>(),
        "lead_ms": contrast.lead_ms,
        "ranks_known": contrast.ranks_known,
    })
}

/// The explanation as machines read it.
pub(crate) fn value(answer: &v1::ExplainResponse) -> Value {
    let explanation = answer.explanation.clone().unwrap_or_default();
    let constraints: Vec<String> = explanation.constraints.iter().map(constraint::text).collect();
    let changes: Vec<String> = explanation.changes.iter().map(change_text).collect();
    let waits = explanation.reason != v1::PendingReason::Unspecified as i32;
    let failure = explanation.failure.as_ref().map(|failure| {
        json!({
            "attempt": failure.attempt,
            "cause": super::cause(failure.cause.as_ref()),
            "rank": failure.rank,
            "node": failure.node,
            "ended": super::stamp(failure.ended.as_ref()),
            "stderr_tail": String::from_utf8_lossy(&failure.stderr_tail),
            "memory_peak_bytes": failure.memory_peak_bytes,
            "memory_limit_bytes": failure.memory_limit_bytes,
            "retry_cluster_ms": failure.retry_cluster_ms,
            "hint": failure.hint,
            "facts": failure.facts,
        })
    });
    let progress = explanation.progress.as_ref().map(|progress| {
        json!({
            "attempt": progress.attempt,
            "state": text::attempt_state(progress.state),
            "granted_cluster_ms": progress.granted_cluster_ms,
            "deadline_cluster_ms": progress.deadline_cluster_ms,
            "ready": progress.ready,
            "shares": progress.shares,
            "silent_ms": progress.silent_ms,
            "stuck": progress.stuck.iter().map(super::machine::stuck_value).collect::<Vec<_>>(),
            "late": progress.late.iter().map(super::machine::late_value).collect::<Vec<_>>(),
            "stall_cluster_ms": progress.stall_cluster_ms,
            "silent_nodes": progress.silent_nodes,
            "contrast": progress.contrast.as_ref().map(contrast),
        })
    });
    json!({
        "job_id": explanation.job_id,
        "task_index": explanation.task_index,
        "state": text::task_state(explanation.state),
        "reason": waits.then(|| text::reason(explanation.reason)),
        "constraints": constraints,
        "changes": changes,
        "failure": failure,
        "progress": progress,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::job::tests::{now, sample};

    fn answer(explanation: v1::Explanation) -> v1::ExplainResponse {
        v1::ExplainResponse {
            explanation: Some(explanation),
            job: Some(sample()),
            applied_index: 1,
            now: Some(now()),
        }
    }

    #[test]
    fn a_waiting_job_gets_numbers_and_the_way_out() {
        let explanation = v1::Explanation {
            job_id: 812,
            state: v1::TaskState::Queued.into(),
            outlook: v1::Outlook::Waits.into(),
            reason: v1::PendingReason::Unsatisfiable.into(),
            constraints: vec![v1::Constraint {
                text: "it needs 4 nodes\n2 could ever run it".into(),
                what: None,
            }],
            changes: vec![v1::Change { text: "ask for 2 nodes".into(), what: None }],
            ..v1::Explanation::default()
        };
        assert_eq!(
            render(&answer(explanation)),
            "job 812 (llama-ft) is Queued\nit waits: Unsatisfiable\n  - it needs 4 nodes\n    \
             2 could ever run it\nany of these would let it start at once:\n  - ask for 2 nodes\n"
        );
    }

    #[test]
    fn a_failed_job_says_who_where_and_what_next() {
        let tail: String = (0..30).map(|line| format!("line {line}\n")).collect();
        let failure = v1::FailureReport {
            attempt: 2,
            cause: Some(v1::ExitCause {
                kind: v1::ExitKind::Exited.into(),
                number: 3,
                fault: v1::Fault::User.into(),
                ..v1::ExitCause::default()
            }),
            rank: Some(5),
            node: "n1".into(),
            ended: Some(v1::Stamp { cluster_ms: 0, wall_ms: now().wall_ms - 60_000 }),
            stderr_tail: format!("{tail}\x1b[31mred\n").into_bytes().into(),
            facts: vec!["what happened\x1b".into()],
            memory_peak_bytes: Some(1 << 30),
            memory_limit_bytes: Some(2 << 30),
            next: v1::NextStep::None.into(),
            ..v1::FailureReport::default()
        };
        let text = render(&answer(v1::Explanation {
            state: v1::TaskState::Failed.into(),
            failure: Some(failure),
            ..v1::Explanation::default()
        }));
        for part in [
            "attempt 2 ended: Exited(3), first at rank 5 on n1, 1m ago\n",
            "  whose fault: yours: the code, or a limit that it ran into\n",
            "  what happened\u{fffd}\n",
            "  memory at its peak: 1GiB of 2GiB\n",
            "    | line 11\n",
            "    | \u{fffd}[31mred\n",
            "  next: nothing; it is not tried again\n",
            "  try: yard logs 812 --stderr --attempt 2\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(!text.contains("line 10\n"), "only the last lines are shown");
    }

    #[test]
    fn what_never_started_names_no_attempt_and_no_logs() {
        let failure = v1::FailureReport {
            cause: Some(v1::ExitCause {
                kind: v1::ExitKind::DependencyFailed.into(),
                fault: v1::Fault::User.into(),
                ..v1::ExitCause::default()
            }),
            facts: vec!["it waited for the success of job 7, which is Failed".into()],
            next: v1::NextStep::None.into(),
            ..v1::FailureReport::default()
        };
        let text = render(&answer(v1::Explanation {
            state: v1::TaskState::Failed.into(),
            failure: Some(failure),
            ..v1::Explanation::default()
        }));
        assert_eq!(
            text,
            "job 812 (llama-ft) is Failed\nit ended without a start: DependencyFailed\n  whose \
             fault: that of what it waited for\n  it waited for the success of job 7, which is \
             Failed\n  next: nothing; it is not tried again\n"
        );
    }

    #[test]
    fn a_running_job_shows_its_progress() {
        let progress = v1::ProgressReport {
            attempt: 2,
            state: v1::AttemptState::Preparing.into(),
            granted_cluster_ms: Some(now().cluster_ms - 5_000),
            ready: 1,
            shares: 4,
            ..v1::ProgressReport::default()
        };
        let text = render(&answer(v1::Explanation {
            state: v1::TaskState::Preparing.into(),
            progress: Some(progress),
            ..v1::Explanation::default()
        }));
        assert_eq!(
            text,
            "job 812 (llama-ft) is Preparing\nattempt 2 is preparing, granted 5s ago\n  1 of 4 \
             nodes are ready\n"
        );
    }

    #[test]
    fn a_job_that_does_nothing_names_the_odd_rank() {
        let text = |kind: v1::RankContrastKind| {
            let odd = v1::SilentRank { rank: 3, node: "n7".into(), silent_ms: 130_000 };
            let contrast = v1::RankContrast {
                kind: kind.into(),
                ranks: vec![odd],
                lead_ms: 40_000,
                ranks_known: 8,
            };
            let progress = v1::ProgressReport {
                silent_ms: Some(90_000),
                stall_cluster_ms: Some(now().cluster_ms + 60_000),
                silent_nodes: vec!["n7".into()],
                contrast: Some(contrast),
                ..v1::ProgressReport::default()
            };
            let mut out = String::new();
            silence_lines(&mut out, &progress, now());
            out
        };
        let since = text::moment(now().wall_ms - 90_000);
        let said = text(v1::RankContrastKind::FellSilentFirst);
        let parts = [
            format!("  no rank wrote, computed or moved anything for 1m30s, since {since}\n"),
            "  it ends for that in 1m: stall.kill\n".into(),
            "  all of its ranks on n7 are silent; others are not\n".into(),
            "  first to fall silent was rank 3 on n7 (silent for 2m10s), 40s before the next of 8\n"
                .into(),
        ];
        assert_eq!(said, parts.concat());
        let said = text(v1::RankContrastKind::Silent);
        assert!(said.ends_with("while most of 8 ranks are not: rank 3 on n7 (silent for 2m10s)\n"));
        let said = text(v1::RankContrastKind::Active);
        assert!(said.contains("  not silent, while most of 8 ranks are: rank 3"), "{said}");
    }
}
