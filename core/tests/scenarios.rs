//! Scenario scripts: `scenarios/*.txt` hold commands, `----`, and what must come of them.
//!
//! Each block ends with an empty line; `#` starts a comment. The commands are listed in
//! `scenario/script.rs`. `UPDATE_SCENARIOS=1` writes down what comes of them now, to be read as a
//! diff.

// These tests read scripts and one variable of the environment; core itself may not.
#![allow(clippy::disallowed_methods)]

mod scenario;
mod support;

use scenario::Script;
use std::path::{Path, PathBuf};

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = std::fs::read_dir(&folder).expect("tests/scenarios can be read");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// Runs a script, and returns it with what came of its commands.
fn run(text: &str) -> String {
    let mut script = Script::new();
    let mut out = String::new();
    let mut block: Vec<&str> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        if line != "----" {
            let is_command = !line.starts_with('#') && !line.trim().is_empty();
            block.extend(is_command.then_some(line));
            continue;
        }
        let outputs = block.drain(..).map(|command| script.run(command));
        let output: String = outputs.collect();
        out.push_str(if output.is_empty() { "ok\n" } else { &output });
        // What was expected is dropped: the caller compares the whole text.
        if lines.by_ref().find(|line| line.trim().is_empty()).is_some() {
            out.push('\n');
        }
    }
    assert!(block.is_empty(), "commands at the end without ----: {block:?}");
    out
}

#[test]
fn scripts_do_what_they_say() {
    let update = std::env::var_os("UPDATE_SCENARIOS").is_some();
    let paths = scripts();
    assert!(paths.len() >= 8, "scripts are missing");
    for path in paths {
        let expected = std::fs::read_to_string(&path).unwrap();
        let found = run(&expected);
        if update {
            std::fs::write(&path, found).unwrap();
            continue;
        }
        let first = expected.lines().zip(found.lines()).find(|(a, b)| a != b);
        assert!(
            expected == found,
            "{}: expected {first:?} the other way round; the whole of it:\n{found}",
            path.display()
        );
    }
}

#[test]
fn a_script_that_expects_something_else_is_noticed() {
    let text = "join a cpus=4\nsubmit one\nplan\n----\nnothing\n";
    assert_ne!(run(text), text);
}
