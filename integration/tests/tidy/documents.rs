//! Rules for prose: links lead somewhere, paths that it names exist, decisions are numbered, and
//! every rule of the house says what keeps it.

use crate::repo::{self, File, Finding};

const ADRS: &str = "docs/adr/";
const ADR_SECTIONS: [&str; 3] = ["## Context", "## Decision", "## Consequences"];

/// Lines of a page outside fenced code, numbered from 1.
fn prose(page: &File) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (at, line) in page.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((at + 1, line));
        }
    }
    lines
}

/// A path relative to the folder of a page, resolved to one from the root.
fn resolve(page: &str, target: &str) -> String {
    let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Relative links that lead nowhere.
fn dead_links(page: &File, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, text) in prose(page) {
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or(rest);
            let path = target.split('#').next().unwrap_or(target);
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !path.is_empty() && !exists(&resolve(&page.path, path)) {
                let what = format!("the link to {target} leads nowhere");
                findings.push(Finding::new(&page.path, line, what));
            }
        }
    }
    findings
}

/// Paths in back quotes that start at a top-level folder and do not exist. `*` and `<...>` stand
/// for many files.
fn dead_paths(page: &File, tops: &[String], exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, text) in prose(page) {
        for quoted in text.split('`').skip(1).step_by(2) {
            let path = quoted.trim_end_matches('/');
            let pattern = quoted.contains(['*', '<', ' ', '{']);
            let rooted = path.split_once('/').is_some_and(|(top, _)| tops.iter().any(|t| t == top));
            if rooted && !pattern && !exists(path) {
                findings.push(Finding::new(&page.path, line, format!("`{quoted}` does not exist")));
            }
        }
    }
    findings
}

/// Decisions with gaps in their numbers, without their sections, or missing in the index.
fn adr_problems(pages: &[&File]) -> Vec<Finding> {
    let index = pages.iter().find(|page| page.name() == "README.md");
    let mut findings = Vec::new();
    let decisions = pages.iter().filter(|page| page.name() != "README.md");
    for (at, page) in decisions.enumerate() {
        let mut complain = |what: String| findings.push(Finding::new(&page.path, 1, what));
        let number = format!("{:04}", at + 1);
        if !page.name().starts_with(&format!("{number}-")) {
            complain(format!("the next decision is number {number}"));
        }
        if !page.text.starts_with(&format!("# {number}: ")) {
            complain(format!("the first line must start with `# {number}: `"));
        }
        let headings: Vec<&str> =
            page.text.lines().filter(|line| line.starts_with("## ")).collect();
        if headings != ADR_SECTIONS {
            complain(format!("the sections must be {ADR_SECTIONS:?}, not {headings:?}"));
        }
        if index.is_none_or(|index| !index.text.contains(&format!("({})", page.name()))) {
            complain(format!("{ADRS}README.md has no link to it"));
        }
    }
    findings
}

/// Rules of the house that do not say which test or lint keeps them.
fn unkept_invariants(page: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut start = 0;
    // A paragraph or list item is a unit: it ends at an empty line or at the next item.
    let lines: Vec<(usize, &str)> = prose(page);
    while start < lines.len() {
        let item = |line: &str| line.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        let rest = lines[start + 1..].iter();
        let len = 1 + rest.take_while(|(_, line)| !line.is_empty() && !item(line)).count();
        let unit: Vec<&str> = lines[start..start + len].iter().map(|(_, line)| *line).collect();
        let unit = unit.join(" ");
        if unit.contains("**Invariant") && !unit.contains("Kept by") {
            let what = "the invariant does not say `Kept by ...`";
            findings.push(Finding::new(&page.path, lines[start].0, what));
        }
        start += len;
    }
    findings
}

/// Every page of prose.
fn pages() -> impl Iterator<Item = &'static File> {
    repo::files().iter().filter(|file| file.has_extension("md"))
}

/// Whether the working tree has a file or folder.
fn exists(path: &str) -> bool {
    repo::root().join(path).exists()
}

#[test]
fn links_lead_somewhere() {
    let findings: Vec<Finding> = pages().flat_map(|page| dead_links(page, exists)).collect();
    repo::assert_none("Mend these links:", &findings);
}

#[test]
fn paths_in_prose_exist() {
    let top = |file: &File| file.path.split_once('/').map(|(top, _)| top.to_string());
    let tops: Vec<String> = repo::files().iter().filter_map(top).collect();
    // A decision speaks of its day; other pages speak of today.
    let of_today = pages().filter(|page| !page.path.starts_with(ADRS));
    let findings: Vec<Finding> =
        of_today.flat_map(|page| dead_paths(page, &tops, exists)).collect();
    repo::assert_none("Mend these paths, or say in plain words what is still to come:", &findings);
}

#[test]
fn decisions_are_numbered_and_complete() {
    let decisions: Vec<&File> = pages().filter(|page| page.path.starts_with(ADRS)).collect();
    assert!(decisions.len() > 1, "{ADRS} is empty");
    repo::assert_none("Mend these decisions:", &adr_problems(&decisions));
}

#[test]
fn rules_of_the_house_say_what_keeps_them() {
    let page = repo::get("ARCHITECTURE.md");
    assert!(page.text.matches("**Invariant").count() >= 11, "ARCHITECTURE.md has lost its rules");
    repo::assert_none("Name the test or lint that keeps the rule:", &unkept_invariants(page));
}

#[cfg(test)]
mod the_rules_can_fail {
    use super::*;

    #[test]
    fn on_dead_links() {
        let text = "[a](../b.md#part) [c](https://c) [d](#d) [e](e.md)\n```\n[f](f.md)\n```\n";
        let page = File::new("docs/errors/a.md", text);
        let found = dead_links(&page, |path| path == "docs/b.md");
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["docs/errors/a.md:1: the link to e.md leads nowhere"]);
    }

    #[test]
    fn on_dead_paths() {
        let text = "`core/src/lib.rs`, `core/src/*.rs`, `core/gone.rs`, `etc/x`, `a/b`\n";
        let page = File::new("README.md", text);
        let found = dead_paths(&page, &["core".to_string()], |path| path == "core/src/lib.rs");
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["README.md:1: `core/gone.rs` does not exist"]);
    }

    #[test]
    fn on_decisions_with_gaps() {
        let index = File::new("docs/adr/README.md", "(0001-a.md) (0003-b.md)");
        let body = "\n## Context\n## Decision\n## Consequences\n";
        let first = File::new("docs/adr/0001-a.md", &format!("# 0001: A\n{body}"));
        let third = File::new("docs/adr/0003-b.md", &format!("# 0003: B\n{body}"));
        let bare = File::new("docs/adr/0002-c.md", "# 0002: C\n");
        assert!(adr_problems(&[&index, &first]).is_empty());
        assert_eq!(adr_problems(&[&index, &first, &third]).len(), 2, "a gap: name and title");
        assert_eq!(adr_problems(&[&index, &first, &bare]).len(), 2, "no sections, no link");
    }

    #[test]
    fn on_unkept_invariants() {
        let text = "1. **Invariant 1.** a\n   Kept by b.\n2. **Invariant 2.** c\n\nKept by luck.\n";
        let found = unkept_invariants(&File::new("ARCHITECTURE.md", text));
        assert_eq!(found.len(), 1);
        assert!(found[0].to_string().starts_with("ARCHITECTURE.md:3: "));
    }
}
