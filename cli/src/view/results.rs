//! Results of the tasks of a job: a row for each, with its parameters.

use crate::output::{Listing, Row, column};
use crate::text::{self, NONE};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use yard_common::spec::JobSpec;
use yard_proto::v1;

/// How long an attempt took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Took {
    ms: u64,
    /// Whether that is of several tasks together: each of them took no longer.
    together: bool,
}

/// A row for each task. `attempts` tell how long they took, as far as that is remembered.
pub(crate) fn listing(
    job: u64,
    runs: &[v1::TaskRun],
    attempts: &[v1::Attempt],
    spec: Option<&JobSpec>,
) -> Listing {
    let took = durations(attempts);
    let tasks = || {
        runs.iter().flat_map(|run| {
            let range = run.tasks.unwrap_or_default();
            (range.first..range.first.saturating_add(range.len)).map(move |task| (task, run))
        })
    };
    let parameters = |task: u32| spec.map(|spec| spec.parameters(task)).unwrap_or_default();
    // All tasks of a job have the same parameters.
    let first = tasks().next().map(|(task, _)| parameters(task)).unwrap_or_default();
    let mut columns = vec![column("TASK").right()];
    columns.extend(first.iter().map(|(name, _)| column((*name).to_string())));
    columns.extend([
        column("STATE"),
        column("EXIT"),
        column("TRY").right(),
        column("DURATION").right(),
        column("OUTPUT"),
    ]);
    let rows = tasks().map(|(task, run)| {
        let took = took.get(&(task, run.attempt)).copied();
        row(job, task, run, &parameters(task), took, &first)
    });
    let rows = rows.collect();
    Listing { kind: "Result", columns, rows }
}

/// How long attempts took, by task and attempt.
fn durations(attempts: &[v1::Attempt]) -> BTreeMap<(u32, u32), Took> {
    let mut found = BTreeMap::new();
    for attempt in attempts {
        let (Some(started), Some(ended)) = (&attempt.started, &attempt.ended) else { continue };
        let range = attempt.tasks.unwrap_or_default();
        let ms = ended.cluster_ms.saturating_sub(started.cluster_ms);
        let took = Took { ms, together: range.len > 1 };
        for task in range.first..range.first.saturating_add(range.len) {
            found.insert((task, attempt.attempt), took);
        }
    }
    found
}

fn row(
    job: u64,
    task: u32,
    run: &v1::TaskRun,
    parameters: &[(&str, String)],
    took: Option<Took>,
    columns: &[(&str, String)],
) -> Row {
    let value_of = |name: &str| {
        let found = parameters.iter().find(|(known, _)| *known == name);
        found.map_or(String::new(), |(_, value)| value.clone())
    };
    let map: Map<String, Value> = parameters
        .iter()
        .map(|(name, value)| ((*name).to_string(), value.clone().into()))
        .collect();
    let state = text::task_state(run.state);
    let shown = took.map_or(NONE.into(), |took| {
        let most = if took.together { "<" } else { "" };
        format!("{most}{}", text::span(took.ms))
    });
    // Where a node keeps it is the node's business; this reads it from there.
    let output = match run.attempt {
        0 => NONE.to_string(),
        _ => format!("yard logs {job}[{task}]"),
    };
    let mut cells = vec![task.to_string()];
    cells.extend(columns.iter().map(|(name, _)| value_of(name)));
    cells.extend([
        state.clone(),
        run.cause.as_ref().map_or(NONE.into(), text::cause),
        run.attempt.to_string(),
        shown,
        output,
    ]);
    Row {
        cells,
        value: json!({
            "task": task,
            "state": state,
            "cause": super::cause(run.cause.as_ref()),
            "attempt": run.attempt,
            "duration_ms": took.map(|took| took.ms),
            "duration_is_bound": took.is_some_and(|took| took.together),
            "parameters": map,
        }),
        name: task.to_string(),
        tones: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn run(first: u32, len: u32, state: v1::TaskState) -> v1::TaskRun {
        let tasks = Some(v1::TaskRange { first, len });
        v1::TaskRun { tasks, state: state.into(), attempt: 1, ..v1::TaskRun::default() }
    }

    fn attempt(first: u32, len: u32, number: u32, took_ms: u64) -> v1::Attempt {
        let at = |cluster_ms| Some(v1::Stamp { cluster_ms, wall_ms: cluster_ms });
        v1::Attempt {
            tasks: Some(v1::TaskRange { first, len }),
            attempt: number,
            started: at(100),
            ended: at(100 + took_ms),
            ..v1::Attempt::default()
        }
    }

    #[test]
    fn each_task_has_a_row_with_parameters_and_duration() {
        let runs = [run(0, 3, v1::TaskState::Succeeded), run(3, 1, v1::TaskState::Failed)];
        let list = [attempt(0, 2, 1, 40), attempt(2, 1, 2, 70_000), attempt(3, 1, 1, 70_000)];
        let spec = JobSpec::from_yaml("command: x\nsweep: { lr: [1, 2], Seed: 0..1 }\n").unwrap();
        let text = listing(7, &runs, &list, Some(&spec)).render(Format::Csv);
        let expected = "\
task,lr,seed,state,exit,try,duration,output
0,1,0,Succeeded,-,1,<0.04s,yard logs 7[0]
1,1,1,Succeeded,-,1,<0.04s,yard logs 7[1]
2,2,0,Succeeded,-,1,-,yard logs 7[2]
3,2,1,Failed,-,1,1m10s,yard logs 7[3]
";
        assert_eq!(text, expected);
    }

    #[test]
    fn rows_of_parameters_are_columns() {
        let yaml = "command: x\narray: { each: [{a: 1, b: x}, {b: z, a: 2}] }\n";
        let spec = JobSpec::from_yaml(yaml).unwrap();
        let list = listing(7, &[run(0, 2, v1::TaskState::Queued)], &[], Some(&spec));
        let text = list.render(Format::Csv);
        assert!(text.contains("\n1,2,z,Queued,-,1,-,"), "{text}");
        let json = list.render(Format::Jsonl);
        assert!(json.contains(r#""parameters":{"a":"2","b":"z"}"#), "{json}");
        let plain = listing(7, &[run(0, 1, v1::TaskState::Queued)], &[], None);
        assert!(plain.render(Format::Csv).starts_with("task,state,exit,"));
    }
}
