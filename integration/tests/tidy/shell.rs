//! Rules for shell scripts: they stop at the first error, say what they do, and can be run.

use crate::repo::{self, File, Finding};

const FIRST_LINE: &str = "#!/usr/bin/env bash";
const STRICT: &str = "set -euo pipefail";

/// Whether a file is a shell script.
fn is_script(file: &File) -> bool {
    let first = file.text.lines().next().unwrap_or_default();
    file.has_extension("sh") || first.starts_with("#!") && first.contains("sh")
}

/// Scripts that go on after an error, or do not say what they are for.
fn lax_scripts(file: &File) -> Vec<Finding> {
    if !is_script(file) {
        return Vec::new();
    }
    let lines: Vec<&str> = file.text.lines().collect();
    let mut findings = Vec::new();
    let sourced = file.name() == "lib.sh";
    if !sourced && lines[0] != FIRST_LINE {
        findings.push(Finding::new(&file.path, 1, format!("the first line must be {FIRST_LINE}")));
    }
    let commands = |line: &&&str| !line.is_empty() && !line.starts_with('#');
    if lines.iter().find(commands) != Some(&STRICT) {
        let what = format!("the first command must be {STRICT}");
        findings.push(Finding::new(&file.path, 1, what));
    }
    let about = lines.get(1).is_some_and(|line| line.starts_with("# "));
    if !about {
        findings.push(Finding::new(&file.path, 2, "a comment must say what the script is for"));
    }
    findings
}

#[test]
fn scripts_stop_at_the_first_error() {
    let findings: Vec<Finding> = repo::files().iter().flat_map(lax_scripts).collect();
    assert!(repo::files().iter().any(is_script), "no script was found");
    repo::assert_none("Mend these scripts:", &findings);
}

#[cfg(unix)]
#[test]
fn scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    let mut findings = Vec::new();
    for script in repo::files().iter().filter(|file| is_script(file) && file.name() != "lib.sh") {
        let data = std::fs::metadata(repo::root().join(&script.path)).expect("the file was read");
        if data.permissions().mode() & 0o111 == 0 {
            findings.push(Finding::new(&script.path, 1, "not executable: chmod +x"));
        }
    }
    repo::assert_none("Mend these scripts:", &findings);
}

#[cfg(test)]
mod the_rules_can_fail {
    use super::*;

    #[test]
    fn on_lax_scripts() {
        let count = |text: &str| lax_scripts(&File::new("scripts/x", text)).len();
        assert_eq!(count("#!/usr/bin/env bash\n# Does x.\n\nset -euo pipefail\nx\n"), 0);
        assert_eq!(count("#!/usr/bin/env bash\n# Does x.\n\nx\nset -euo pipefail\n"), 1);
        assert_eq!(count("#!/bin/sh\nset -eu\n"), 3, "first line, strictness, purpose");
        assert_eq!(count("plain text\n"), 0);
    }
}
