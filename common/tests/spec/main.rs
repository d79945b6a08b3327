//! The job spec from outside: files in, jobs or problems out.
//!
//! `bad.yaml` has a mistake on nearly every line; `bad.txt` is what its author reads. The recipes
//! are the kinds of job that people write; `<recipe>.json` is what is stored of each.
//! `YARD_BLESS=1` writes the expected texts anew; read the difference before you commit it.
#![allow(clippy::unwrap_used)] // Helpers are not `#[test]`s, and a test may panic.

mod each;
mod features;
mod pages;
mod props;
mod rules;

use std::path::{Path, PathBuf};
use yard_common::ErrorCode;
use yard_common::gpu::GpuCount;
use yard_common::limits::SPEC_BYTES_MAX;
use yard_common::spec::{Draft, Features, JobFields, JobSpec, Problem};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spec")
}

/// The job of a file that must be good.
fn good(text: &str) -> JobSpec {
    JobSpec::from_yaml(text).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

/// The problems of a file that must be bad.
fn bad(text: &str) -> Vec<Problem> {
    match JobSpec::from_yaml(text) {
        Ok(_) => panic!("taken as good: {text}"),
        Err(problems) => problems.list().to_vec(),
    }
}

fn assert_golden(name: &str, actual: &str) {
    let path = directory().join(name);
    if std::env::var_os("YARD_BLESS").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{name} differs; YARD_BLESS=1 writes it anew");
}

/// The recipes, as (name, text), in the order of their names.
fn recipes() -> Vec<(String, String)> {
    let entries = std::fs::read_dir(directory().join("recipes")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    assert!(paths.len() >= 8, "recipes are missing");
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_string();
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_mistake_is_told_at_once() {
    let bytes = std::fs::read(directory().join("bad.yaml")).unwrap();
    let problems = Draft::read(&bytes, Some("bad.yaml")).validate(&Features::all()).unwrap_err();
    assert!(problems.list().len() >= 40, "{problems}");
    assert_golden("bad.txt", &problems.to_string());
}

#[test]
fn recipes_are_stored_as_they_are_expected() {
    for (name, text) in recipes() {
        let file = format!("{name}.yaml");
        let draft = Draft::read(text.as_bytes(), Some(&file));
        let spec = draft.validate(&Features::all()).unwrap_or_else(|problems| panic!("{problems}"));
        assert_golden(&format!("recipes/{name}.json"), &format!("{}\n", spec.to_json()));
        assert_eq!(JobSpec::from_json(&spec.to_json()).unwrap(), spec, "{name}");
        assert_eq!(good(&draft.print_resolved(&spec)), spec, "{name}");
    }
}

#[test]
fn a_file_of_all_defaults_is_the_file_of_one_line() {
    let text = std::fs::read_to_string(directory().join("defaults.yaml")).unwrap();
    let (whole, minimal) = (good(&text), good("command: python3 train.py"));
    assert_eq!(whole, minimal);
    assert_eq!(minimal.to_json(), r#"{"name":"train","command":"python3 train.py"}"#);
    // The file has every field, so that this test speaks of every default.
    let keys = |text: &str| -> Vec<String> {
        let top = text.lines().filter(|line| !line.starts_with([' ', '#']));
        top.map(|line| line.split(':').next().unwrap().to_string()).collect()
    };
    let draft = Draft::read(b"command: python3 train.py", None);
    assert_eq!(keys(&text), keys(&draft.print_resolved(&minimal)));
}

#[test]
fn the_resolved_job_says_where_each_value_came_from() {
    let (_, text) = recipes().into_iter().find(|(name, _)| name == "container").unwrap();
    let mut draft = Draft::read(text.as_bytes(), None);
    draft.set("nodes", "2", "--nodes");
    draft.set("env.LR", "1e-3", "--set env.LR");
    draft.set_words("args", &["--note", "yes"], "--");
    let spec = draft.validate(&Features::all()).unwrap();
    let printed = draft.print_resolved(&spec);
    assert_golden("resolved.txt", &printed);
    assert_eq!(good(&printed), spec);
}

#[test]
fn fields_are_read_as_what_they_mean() {
    let recipe = |wanted: &str| {
        let (_, text) = recipes().into_iter().find(|(name, _)| name == wanted).unwrap();
        good(&text)
    };
    let torch = recipe("torch");
    assert_eq!((torch.name(), torch.nodes.max()), ("llama-ft", 4));
    assert_eq!(torch.resources.gpu_request().count, GpuCount::Whole(8));
    assert_eq!(torch.time_limit.unwrap().ms(), 172_800_000);
    let sweep = recipe("sweep");
    assert_eq!(sweep.task_count(), Some(30));
    let task = sweep.sweep.as_ref().unwrap().task(13);
    let task: Vec<String> = task.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(task, ["lr=3e-4", "seed=3"]);
    let array = recipe("array");
    assert_eq!(array.resources.gpu_request().count, GpuCount::Part(2_500));
    assert_eq!(array.task_count(), Some(200));
    assert_eq!(array.array.as_ref().unwrap().max_running.unwrap().get(), 16);
}

#[test]
fn a_job_without_a_name_is_called_after_its_file_or_program() {
    for (file, command, name) in [
        (Some("jobs/Digits_DDP.v2.yaml"), "python3 train.py", "digits-ddp-v2"),
        (Some(".yaml"), "python3 train.py", "yaml"),
        (None, "python3 -u src/train_bert.py --lr 3", "train-bert"),
        (None, "LR=3 /opt/bin/solver", "solver"),
        (None, "python3", "python3"),
        (None, "[bash, -c, 'exit $((3 * YARD_RANK))']", "exit"),
        (None, "[sh, -c, 'A=1 ./solve.sh --fast; sleep 1']", "solve"),
        (None, "???", "job"),
    ] {
        let text = match command.starts_with('[') {
            true => format!("command: {command}"),
            false => format!("command: {command:?}"),
        };
        let spec = Draft::read(text.as_bytes(), file).validate(&Features::all()).unwrap();
        assert_eq!(spec.name(), name, "{command}");
    }
}

#[test]
fn flags_go_over_the_file_and_errors_name_them() {
    let mut draft = Draft::read(b"nodes: nonsense\ncommand: a\nisolation: strict", Some("j.yaml"));
    draft.set("nodes", "8", "--nodes");
    draft.set("resources.gpus", "h100:8", "--gpus");
    draft.set("mounts", "[{name: a, path: /a}]", "--mount");
    draft.set("mounts[0].path", "/b", "--set mounts[0].path");
    draft.set("env.GREETING", "yes", "--env");
    let spec = draft.validate(&Features::all()).unwrap();
    assert_eq!(spec.nodes.min(), 8);
    assert_eq!(spec.mounts[0].path.as_str(), "/b");
    draft.set("isolation.lease", "60s", "--lease");
    draft.set("resources.gpu", "1", "--set resources.gpu");
    draft.set("a..b", "1", "--set a..b");
    draft.set("mounts[7].path", "/b", "--set mounts[7].path");
    let problems = draft.validate(&Features::all()).unwrap_err();
    assert_golden("flags.txt", &problems.to_string());
}

#[test]
fn directives_stand_at_the_head_of_a_script() {
    let script = "#!/bin/bash\n#YARD nodes=4\n#YARD resources.gpus = h100:8\n# talk\n\necho\n";
    let mut draft = Draft::read_script(script.as_bytes(), Some("train.sh"));
    draft.set("command", "./train.sh", "script");
    let spec = draft.validate(&Features::all()).unwrap();
    assert_eq!((spec.name(), spec.nodes.min()), ("train", 4));
    let late = "echo\n#YARD nodes=4\n#YARDnodes=4\n";
    let mut draft = Draft::read_script(late.as_bytes(), Some("train.sh"));
    draft.set("command", "./train.sh", "script");
    let problems = draft.validate(&Features::all()).unwrap_err();
    let lines: Vec<u32> = problems.list().iter().map(|problem| problem.at.line).collect();
    assert_eq!(lines, [2, 3]);
}

#[test]
fn fields_can_be_changed_by_a_program_and_are_checked_again() {
    let spec = good("{command: a, nodes: 4}");
    let mut fields: JobFields = (*spec).clone();
    fields.hold = true;
    assert!(JobSpec::from_fields(&fields).unwrap().hold);
    fields.command = None;
    assert!(JobSpec::from_fields(&fields).is_err());
}

#[test]
fn a_job_that_is_too_large_to_store_is_refused() {
    let mut draft = Draft::read(b"command: a", None);
    for name in ["env.A", "env.B"] {
        draft.set(name, &"x".repeat(SPEC_BYTES_MAX / 2), "--env");
    }
    let problems = draft.validate(&Features::all()).unwrap_err();
    assert_eq!(problems.list()[0].code, ErrorCode::FileTooLarge);
    draft.set("env.B", "[1]", "--env");
    assert_eq!(draft.validate(&Features::all()).unwrap().env.len(), 2);
}
