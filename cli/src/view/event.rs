//! Events, one line each.

use crate::output::Row;
use crate::text;
use serde_json::{Value, json};
use yard_common::id::TaskRange;
use yard_proto::v1::event::What;
use yard_proto::v1::{Event, ExitCause};

/// What an event is about, and its text.
fn parts(event: &Event) -> (&'static str, String) {
    match &event.what {
        Some(What::Changed(changed)) => {
            let kind = text::object_kind(changed.kind).to_lowercase();
            let name = if changed.name.is_empty() { &changed.id } else { &changed.name };
            ("changed", format!("{kind} {name}"))
        }
        Some(What::Job(moved)) => {
            ("job", format!("{} is {}", moved.job_id, text::job_state(moved.state)))
        }
        Some(What::Tasks(moved)) => {
            let tasks = range(moved.tasks.as_ref());
            let state = text::task_state(moved.state);
            let cause = because(moved.cause.as_ref());
            ("tasks", format!("{}{tasks} are {state}{cause}", moved.job_id))
        }
        Some(What::Granted(granted)) => {
            let (tasks, nodes) = (range(granted.tasks.as_ref()), granted.nodes.join(","));
            let attempt = granted.attempt;
            ("granted", format!("{}{tasks} attempt {attempt} on {nodes}", granted.job_id))
        }
        Some(What::AttemptEnded(ended)) => {
            let (tasks, cause) = (range(ended.tasks.as_ref()), because(ended.cause.as_ref()));
            ("ended", format!("{}{tasks} attempt {}{cause}", ended.job_id, ended.attempt))
        }
        Some(What::Freed(freed)) => ("freed", format!("allocation {}", freed.allocation_id)),
        Some(What::Node(moved)) => {
            let id = moved.node_id.to_string();
            let name = if moved.node.is_empty() { &id } else { &moved.node };
            ("node", format!("{name} is {}", text::node_state(moved.state)))
        }
        Some(What::Silence(changed)) => {
            let tasks = range(changed.tasks.as_ref());
            let what = match changed.since_cluster_ms {
                Some(since_ms) => {
                    let at = event.at.as_ref().map_or(since_ms, |at| at.cluster_ms);
                    let span = text::duration(at.saturating_sub(since_ms));
                    format!("has done nothing for {span}")
                }
                None => "does something again".to_string(),
            };
            ("silence", format!("{}{tasks} attempt {} {what}", changed.job_id, changed.attempt))
        }
        Some(What::Forgotten(forgotten)) => ("forgotten", format!("job {}", forgotten.job_id)),
        None => ("unknown", "an event of a later version".into()),
    }
}

fn range(range: Option<&yard_proto::v1::TaskRange>) -> String {
    let Some(range) = range.filter(|range| range.len > 0) else { return String::new() };
    format!("[{}]", TaskRange { first: range.first, len: range.len })
}

fn because(cause: Option<&ExitCause>) -> String {
    cause.map_or(String::new(), |cause| format!(": {}", text::cause(cause)))
}

/// One event as a line, and as an object.
pub(crate) fn row(event: &Event) -> (Row, String) {
    let (kind, what) = parts(event);
    let at = event.at.as_ref().map_or(String::new(), |at| text::moment(at.wall_ms));
    let line = format!("{at}  {:>8}  {kind:<9}  {what}\n", event.index);
    let value: Value = json!({
        "index": event.index,
        "position": event.position,
        "at": super::stamp(event.at.as_ref()),
        "event": kind,
        "text": what,
    });
    let name = format!("{}.{}", event.index, event.position);
    (Row { cells: Vec::new(), value, name, tones: Vec::new() }, line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_proto::v1;

    #[test]
    fn events_are_one_line_each() {
        let event = |what| Event {
            index: 41,
            position: 2,
            at: Some(v1::Stamp { cluster_ms: 5, wall_ms: 1_800_000_000_123 }),
            what: Some(what),
        };
        let tasks = Some(v1::TaskRange { first: 3, len: 2 });
        let cause =
            Some(ExitCause { kind: v1::ExitKind::OutOfMemory.into(), ..Default::default() });
        let ended = v1::AttemptEnded { job_id: 8, tasks, attempt: 2, cause, allocation_id: 1 };
        let (row, line) = row(&event(What::AttemptEnded(ended)));
        assert_eq!(
            line,
            "2027-01-15T08:00:00Z        41  ended      8[3-4] attempt 2: OutOfMemory\n"
        );
        assert_eq!(row.value["text"], "8[3-4] attempt 2: OutOfMemory");
        assert_eq!(row.name, "41.2");
        let silent = |since_cluster_ms| {
            let silence = v1::SilenceChanged { job_id: 8, tasks, attempt: 2, since_cluster_ms };
            super::row(&event(What::Silence(silence))).1
        };
        assert!(silent(Some(5)).ends_with("8[3-4] attempt 2 has done nothing for 0s\n"));
        assert!(silent(None).ends_with("silence    8[3-4] attempt 2 does something again\n"));
        let moved =
            v1::NodeMoved { node_id: 7, state: v1::NodeState::Lost.into(), ..Default::default() };
        assert!(super::row(&event(What::Node(moved))).1.ends_with("node       7 is Lost\n"));
    }
}
