//! Rule for the replicated state: it changes only where commands are applied.

use crate::lexer::layers;
use crate::repo::{self, File, Finding};

/// Where the replicated state may be changed.
const MAY_CHANGE_STATE: [&str; 2] = ["core/src/apply/", "core/src/state/"];
/// Methods of tables that change them.
const CHANGES: [&str; 6] = ["get_mut", "push", "insert", "remove", "set", "make_mut"];

/// Product code that takes the state mutably, or changes a table of it. Tests may: they damage a
/// state to see that it is noticed.
fn changes_of_state(file: &File) -> Vec<Finding> {
    let product = file.path.contains("/src/") && !file.name().ends_with("tests.rs");
    if !product || MAY_CHANGE_STATE.iter().any(|folder| file.path.starts_with(folder)) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (at, line) in layers(&file.text).code.iter().enumerate() {
        if line.contains("mod tests") {
            break;
        }
        let mut complain = |what: &str| findings.push(Finding::new(&file.path, at + 1, what));
        if takes_state_mutably(line) {
            complain("takes the state mutably; propose a command");
        }
        if changes_a_table(line) {
            complain("changes a table of the state; propose a command");
        }
    }
    findings
}

/// Whether a line has the type `&mut State`, not `&mut StateOfSomethingElse`.
fn takes_state_mutably(line: &str) -> bool {
    line.split("&mut State").skip(1).any(|rest| {
        let longer = |c: char| c.is_alphanumeric() || c == '_';
        !rest.starts_with(longer)
    })
}

/// Whether a line has `state.<table>.<change>(`.
fn changes_a_table(line: &str) -> bool {
    line.split("state.").skip(1).any(|rest| {
        let mut parts = rest.splitn(3, '.');
        let table = parts.next().unwrap_or_default();
        let method = parts.next().unwrap_or_default().split('(').next().unwrap_or_default();
        let is_word = table.chars().all(|c| c.is_alphanumeric() || c == '_');
        is_word && CHANGES.contains(&method)
    })
}

#[test]
fn only_apply_changes_the_state() {
    let remedy = "State changes only in State::apply (ARCHITECTURE.md, rule 2):";
    let findings: Vec<Finding> = repo::rust_files().flat_map(changes_of_state).collect();
    repo::assert_none(remedy, &findings);
}

#[test]
fn the_rule_can_fail() {
    let count = |path: &str, text: &str| changes_of_state(&File::new(path, text)).len();
    let taken = "fn plan(state: &mut State, other: &mut StateOfPlan) {}\n";
    assert_eq!(count("core/src/scheduler/mod.rs", taken), 1);
    assert_eq!(count("core/src/apply/plan.rs", taken), 0);
    assert_eq!(count("core/tests/check.rs", taken), 0);
    let changed =
        "self.state.nodes.get_mut(id);\nstate.jobs.get(id).push(1);\n// state.a.push(1)\n";
    assert_eq!(count("sim/src/member.rs", changed), 1);
    assert_eq!(count("sim/src/member.rs", "let a = view.state.get_mut(id);\n"), 0);
}
