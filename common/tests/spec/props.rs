//! Properties: nothing panics, what is written reads back, suggestions are real.

use crate::{directory, good, recipes};
use proptest::prelude::*;
use yard_common::limits::{JOB_FILE_PROBLEMS_MAX, SPEC_BYTES_MAX};
use yard_common::spec::{Draft, Features, JobSpec};

/// Good values of many fields. Any few of them make a job, or a conflict.
const FIELDS: &[(&str, &[&str])] = &[
    ("name", &["a", "llama-ft"]),
    ("workspace", &["team"]),
    ("experiment", &["e1", "null"]),
    ("labels.team.x/y", &["a", "0x1F", ""]),
    ("queue", &["night"]),
    ("pool", &["west", "none"]),
    ("priority", &["-1000", "low", "7", "high"]),
    ("time_limit", &["1ms", "90m", "400d", "none"]),
    ("not_before", &["+2h", "2027-01-31T08:00:00.5-01:30", "1970-01-01T00:00:00Z"]),
    ("after.ok", &["[1, 2]", "[9223372036854775807]"]),
    ("after.failed", &["[3]"]),
    ("hold", &["true", "false"]),
    ("preemptible", &["true", "false", "null"]),
    ("nodes", &["1", "3", "4..16"]),
    ("ranks_per_node", &["auto", "8"]),
    ("resources.cpus", &["auto", "8", "0.125"]),
    ("resources.memory", &["auto", "1.5GiB", "10GB"]),
    ("resources.gpus", &["8", "0", "0.1234", "h100:8", "[h100:2, h200:2]"]),
    ("resources.gpus", &["{count: 2, model: [a100], memory: 80GiB, visible: rank, ids: index}"]),
    ("resources.mig", &["1g.10gb:2", "7g.80gb"]),
    ("resources.disk", &["1TB"]),
    ("exclusive", &["true"]),
    ("place.labels.zone", &["a", "true"]),
    ("place.exclude_nodes", &["[a, b.example.org]"]),
    ("place.within", &["rack"]),
    ("spares", &["1"]),
    ("regrow_after", &["10m", "1m"]),
    ("any_of", &["[{nodes: 2}, {resources: {gpus: 1}}]"]),
    ("launch", &["torch", "mpi", "plain", "ray"]),
    ("launch_options.interface", &["ib0"]),
    ("command", &["a 'b' \"c\"\n\u{1f600}\\", "[a, '', '${YARD_RANK}']", "none?"]),
    ("args", &["[--lr, \"3\", 'null', '']"]),
    ("shell", &["[/bin/sh, -ec]"]),
    ("roles", &["[{name: a, command: [x]}, {name: b, nodes: 2, command: z, ranks_per_node: 2}]"]),
    ("prepare", &["make", "[make, all]"]),
    ("prepare_timeout", &["1h"]),
    ("preflight", &["true"]),
    ("code", &[".", "../src"]),
    ("workdir", &["/work"]),
    ("env.A", &["", "yes", "\\\t\u{7f}\u{feff}é", "[1]"]),
    ("env.B", &["null", "~", "# no comment", "a: b"]),
    ("inherit_env", &["[all]", "[LANG, PATH]", "[]"]),
    ("secrets.S", &["hub", "{secret: hub, as: file}"]),
    ("umask", &["0077", "022"]),
    ("limits", &["{nofile: 1024, memlock: 1GiB, core: max, stack: max, pids: 100}"]),
    ("image", &["nvcr.io/x/y:1@sha256:0", "{ref: a, login: s, shm_size: 1GiB, pull: never}"]),
    ("mounts", &["[{name: a, path: /a}, {nfs: '[::1]:/x', path: b, options: {nconnect: 4}}]"]),
    ("inputs", &["{a: /a, b: {path: b, cache: true, optional: true}}"]),
    ("outputs", &["[a]", "{a: out, b: {under: u, suffix: s}, c: {path: /p}, d: {}}"]),
    ("logs", &["{dir: /logs, max_per_rank: 1MiB, keep: 1d}"]),
    ("checkpoint", &["{dir: /c, mode: published, signal: USR1, notice: 1s, every: 1h}"]),
    ("isolation", &["strict", "tolerant", "{class: fenced, lease: 10s}"]),
    ("retry", &["none", "{infra: 3, user: 2, preempted: 5, backoff: 0s..0s}"]),
    ("retry", &["{on: {exited: {3: 1, 75: 5}, gpu_fault: 2, signaled: {9: 1}, lost: 0}}"]),
    ("retry", &["{on: {exited: 1}}", "{on: {signaled: 2, exited: {1: 1}}}"]),
    ("stop", &["{signal: int, grace: 0s, to: all}"]),
    ("stall", &["{warn: none, kill: 1h}", "{warn: 1m}"]),
    ("array", &["0-199%16", "7", "{each: p.jsonl, max_failures: 3}", "0-90:30,95"]),
    ("array", &["{each: [{lr: 1e-4, s: ''}, {s: 'null', lr: 2}], indices: 1}"]),
    ("sweep", &["{lr: [1e-4, '', 'null'], b: -3..5}"]),
    ("notify", &["[{on: [failed, ended], webhook: w}]", "[]"]),
];

fn settings() -> impl Strategy<Value = Vec<(usize, usize)>> {
    proptest::collection::vec((0..FIELDS.len(), 0..8usize), 0..12)
}

fn draft(settings: &[(usize, usize)]) -> Draft {
    let mut draft = Draft::empty();
    draft.set("command", "a", "--command");
    for (field, value) in settings {
        let (path, values) = FIELDS[*field];
        draft.set(path, values[value % values.len()], "--set");
    }
    draft
}

/// Every field that exists: the file of all defaults has them.
fn known_fields() -> String {
    std::fs::read_to_string(directory().join("defaults.yaml")).unwrap()
}

#[test]
fn each_good_value_is_good_and_reads_back() {
    for (field, (path, values)) in FIELDS.iter().enumerate() {
        for (index, value) in values.iter().enumerate() {
            let mut draft = draft(&[(field, index)]);
            match *path {
                "regrow_after" => draft.set("nodes", "1..2", "--nodes"),
                "launch_options.interface" => draft.set("launch", "mpi", "--launch"),
                "any_of" => draft.set("nodes", "2", "--nodes"),
                "roles" => draft.set("command", "null", "--command"),
                _ => {}
            }
            let spec = draft.validate(&Features::all());
            let spec = spec.unwrap_or_else(|problems| panic!("{path}: {value}\n{problems}"));
            let json = spec.to_json();
            let back = JobSpec::from_json(&json);
            assert_eq!(back.unwrap_or_else(|p| panic!("{json}\n{p}")), spec, "{path}: {value}");
            assert_eq!(good(&draft.print_resolved(&spec)), spec, "{path}: {value}");
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(settings in settings()) {
        let draft = draft(&settings);
        if let Ok(spec) = draft.validate(&Features::all()) {
            let json = spec.to_json();
            prop_assert!(json.len() <= SPEC_BYTES_MAX);
            let back = JobSpec::from_json(&json).unwrap();
            prop_assert_eq!(back.to_json(), json);
            prop_assert_eq!(&back, &spec);
            prop_assert_eq!(&good(&draft.print_resolved(&spec)), &spec);
            prop_assert_eq!(&JobSpec::from_fields(&spec).unwrap(), &spec);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Draft::read(&bytes, Some("job.yaml")).validate(&Features::all());
        let _ = Draft::read_script(&bytes, Some("job.sh")).validate(&Features::all());
    }

    #[test]
    fn any_yaml_is_refused_or_read(
        text in "([a-c\"'\\[\\]{}:,&*!|>%@`#?~\\\\<.0-9-]|: |- |\n|  |command|env|\t|é){0,60}",
    ) {
        if let Err(problems) = Draft::read(text.as_bytes(), None).validate(&Features::all()) {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.list().len() <= JOB_FILE_PROBLEMS_MAX);
        }
    }

    #[test]
    fn a_damaged_recipe_is_refused_or_read(
        recipe in any::<prop::sample::Index>(),
        edits in proptest::collection::vec(
            (any::<prop::sample::Index>(), 0..3u8, "[ -~\n]"), 1..6,
        ),
    ) {
        let recipes = recipes();
        let mut chars: Vec<char> = recipe.get(&recipes).1.chars().collect();
        for (place, kind, with) in edits {
            let place = place.index(chars.len());
            match kind {
                0 => { chars.remove(place); }
                1 => chars.insert(place, with.chars().next().unwrap()),
                _ => chars[place] = with.chars().next().unwrap(),
            }
        }
        let text: String = chars.into_iter().collect();
        match Draft::read(text.as_bytes(), None).validate(&Features::all()) {
            Ok(spec) => prop_assert_eq!(JobSpec::from_json(&spec.to_json()).unwrap(), spec),
            Err(problems) => prop_assert!(problems.list().iter().all(|p| !p.fix.is_empty())),
        }
    }

    #[test]
    fn any_flag_is_refused_or_taken(
        path in "([a-z]{0,4}|env|nodes|mounts|resources|[.\\[\\]0-9]){0,5}", value in "\\PC{0,20}",
    ) {
        let mut draft = Draft::read(b"{command: a, mounts: [{name: a, path: /a}]}", None);
        draft.set(&path, &value, "--set");
        let _ = draft.validate(&Features::all());
    }

    #[test]
    fn suggested_fields_exist(key in "[a-z_]{1,14}", inner in any::<bool>()) {
        let text = if inner {
            format!("{{command: a, resources: {{{key}: 1}}}}")
        } else {
            format!("{{command: a, {key}: 1}}")
        };
        if let Err(problems) = JobSpec::from_yaml(&text) {
            let unknown = problems.list().iter().filter(|p| p.code.number() == 1002);
            for nearest in unknown.filter_map(|problem| problem.nearest.as_deref()) {
                let last = nearest.rsplit('.').next().unwrap();
                prop_assert!(known_fields().contains(&format!("{last}:")), "{nearest}");
            }
        }
    }
}
