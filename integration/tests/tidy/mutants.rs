//! Rule for mutants, the deliberate bugs that the simulator must catch: the list of
//! `sim/src/mutants.rs` and the places in the code agree.

use crate::lexer::layers;
use crate::repo::{self, File, Finding};
use std::collections::BTreeMap;

const LIST: &str = "sim/src/mutants.rs";

/// Mutants with the first place that names each.
type Places = BTreeMap<String, (String, usize)>;

/// Mutants that code names, as in `mutant!("late_lease")`.
fn in_code(sources: &[File]) -> Places {
    let mut places = Places::new();
    for source in sources.iter().filter(|source| source.path != LIST) {
        // Comments may speak of mutants: only a mark that is code counts.
        let code = layers(&source.text).code;
        for (at, (line, code)) in source.text.lines().zip(&code).enumerate() {
            let marks = code.matches("mutant!(\"").count();
            for rest in line.split("mutant!(\"").skip(1).take(marks) {
                let name = rest.split('"').next().unwrap_or(rest);
                places.entry(name.to_string()).or_insert((source.path.clone(), at + 1));
            }
        }
    }
    places
}

/// Mutants of the list: the first text of each `mutant("name", ..)`.
fn in_list(list: &File) -> Places {
    let mut places = Places::new();
    let code = layers(&list.text).code;
    let mut expected = false;
    for (at, (line, code)) in list.text.lines().zip(&code).enumerate() {
        expected = expected || code.contains("mutant(") && !code.contains("fn ");
        if expected && code.contains('"') {
            let name = line.split('"').nth(1).unwrap_or_default();
            places.entry(name.to_string()).or_insert((list.path.clone(), at + 1));
            expected = false;
        }
    }
    places
}

/// Mutants that stand in one of the two places only.
fn one_sided(list: &File, sources: &[File]) -> Vec<Finding> {
    let (listed, coded) = (in_list(list), in_code(sources));
    let missing = |from: &Places, other: &Places, what: &str| {
        let lone = from.iter().filter(|(name, _)| !other.contains_key(*name));
        let finding = |(name, (path, line)): (&String, &(String, usize))| {
            Finding::new(path, *line, format!("mutant {name:?} {what}"))
        };
        lone.map(finding).collect::<Vec<Finding>>()
    };
    let mut findings = missing(&coded, &listed, &format!("is not in {LIST}"));
    findings.extend(missing(&listed, &coded, "stands nowhere in the code"));
    findings
}

#[test]
fn the_list_of_mutants_is_complete() {
    let sources: Vec<File> = repo::rust_files().cloned().collect();
    let list = repo::find(LIST).expect("the simulator has a list of mutants");
    let remedy = "Add the mutant to the list, or delete the stale one:";
    repo::assert_none(remedy, &one_sided(list, &sources));
}

#[test]
fn the_rule_can_fail() {
    let list =
        File::new(LIST, "// \"old_one\"\nmutant(\"late_lease\", \"a lease\"),\nmutant(\n\"b_c\",");
    let code = "if mutant!(\"late_lease\") {}\n// mutant!(\"spoken_of\")\n\
                if yard_core::mutant!(\"half_gang\") {}\n";
    let found = one_sided(&list, &[File::new("core/src/a.rs", code)]);
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "core/src/a.rs:3: mutant \"half_gang\" is not in sim/src/mutants.rs",
            "sim/src/mutants.rs:4: mutant \"b_c\" stands nowhere in the code",
        ]
    );
}
