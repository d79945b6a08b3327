//! Rule for foreign formats: the library of the consensus is known in one module only, so that it
//! can be replaced there.

use crate::lexer::layers;
use crate::repo::{self, File, Finding};

/// Names of packages, and the one folder whose code may use each.
const AT_THE_EDGE: [(&str, &str); 1] = [("openraft", "coordinator/src/raft/")];

/// Code elsewhere that names such a package.
fn strays(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in layers(&file.text).code.iter().enumerate() {
        for (package, folder) in AT_THE_EDGE {
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            if !file.path.starts_with(folder) && words.into_iter().any(|word| word == package) {
                let what = format!("{package} outside {folder}");
                findings.push(Finding::new(&file.path, at + 1, what));
            }
        }
    }
    findings
}

#[test]
fn foreign_formats_stay_at_the_edge() {
    let remedy = "Use what the module at the edge offers (ARCHITECTURE.md, rule 6):";
    let findings: Vec<Finding> = repo::rust_files().flat_map(strays).collect();
    repo::assert_none(remedy, &findings);
}

#[test]
fn the_rule_can_fail() {
    let count = |path: &str, text: &str| strays(&File::new(path, text)).len();
    let uses = "use openraft::Raft;\nlet a: openraft::LogId = b();\n";
    assert_eq!(count("coordinator/src/proposer/mod.rs", uses), 2);
    assert_eq!(count("coordinator/src/raft/mod.rs", uses), 0);
    assert_eq!(count("coordinator/src/lib.rs", "// openraft\nlet a = \"openraft\";\n"), 0);
    assert_eq!(count("coordinator/src/lib.rs", "let openraft_like = 1;\n"), 0);
}
