//! Rules for Rust sources: no unfinished work, no test that is switched off, no silent `unsafe`.

use crate::lexer::{Layers, layers};
use crate::repo::{self, File, Finding};

/// Code that must not stay, and why.
const BANNED_CODE: [(&str, &str); 5] = [
    ("todo!(", "unfinished; return an error that says so, or finish it"),
    ("unimplemented!(", "unfinished; return an error that says so, or finish it"),
    ("dbg!(", "left from debugging"),
    ("#[ignore", "a test that does not run proves nothing; fix it or delete it"),
    ("allow(warnings", "name the one lint, and why"),
];
/// Marks of unfinished work in comments. Each needs an owner.
const MARKS: [&str; 3] = ["TODO", "FIXME", "XXX"];
/// The crates that may be unsafe, in one module each: system calls, and a C interface for tests.
const UNSAFE_CRATES: [&str; 2] = ["agent/", "fake-nvml/"];

/// Banned words in code; a string or comment may name them.
fn banned_code(file: &File) -> Vec<Finding> {
    let layers = layers(&file.text);
    let mut findings = Vec::new();
    for (at, line) in layers.code.iter().enumerate() {
        for (banned, why) in BANNED_CODE {
            if line.contains(banned) {
                findings.push(Finding::new(&file.path, at + 1, format!("{banned}...: {why}")));
            }
        }
    }
    findings
}

/// Tests that pass on any panic, the wrong one too.
fn vague_panics(file: &File) -> Vec<Finding> {
    let code = layers(&file.text).code;
    let mut findings = Vec::new();
    for (at, line) in code.iter().enumerate() {
        let Some((_, attribute)) = line.split_once("#[should_panic") else { continue };
        let rest = code[at + 1..].iter().map(String::as_str);
        let attribute: String = std::iter::once(attribute).chain(rest).collect();
        let attribute = attribute.split(']').next().unwrap_or_default();
        if !attribute.contains("expected") {
            let what = "should_panic needs expected = \"...\"; any panic would pass";
            findings.push(Finding::new(&file.path, at + 1, what));
        }
    }
    findings
}

/// Marks of unfinished work that nobody owns.
fn marks_without_owner(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in layers(&file.text).comments.iter().enumerate() {
        for mark in MARKS {
            for (start, _) in line.match_indices(mark) {
                let rest = &line[start + mark.len()..];
                let word = |c: char| c.is_alphanumeric() || c == '_';
                let whole = !line[..start].ends_with(word) && !rest.starts_with(word);
                if whole && !rest.starts_with('(') {
                    let what = format!("{mark} without an owner: write {mark}(name), or do it");
                    findings.push(Finding::new(&file.path, at + 1, what));
                }
            }
        }
    }
    findings
}

/// Whether a crate has something that no safe code can do: system calls, or a C interface.
fn may_be_unsafe(file: &File) -> bool {
    UNSAFE_CRATES.iter().any(|folder| file.path.starts_with(folder))
}

/// `unsafe` outside the agent, or inside it without its argument.
fn silent_unsafe(file: &File) -> Vec<Finding> {
    let Layers { code, comments } = layers(&file.text);
    let mut findings = Vec::new();
    for (at, line) in code.iter().enumerate() {
        let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let lifts = words.contains(&"unsafe_code") && line.contains("allow(");
        if !lifts && !words.contains(&"unsafe") {
            continue;
        }
        if !may_be_unsafe(file) {
            findings.push(Finding::new(&file.path, at + 1, "unsafe outside the agent"));
            continue;
        }
        // The argument stands in the comment lines right above.
        let above = (0..at).rev().take_while(|i| code[*i].trim().is_empty());
        let argued = above.into_iter().any(|i| comments[i].contains("SAFETY:"));
        if !lifts && !argued {
            findings.push(Finding::new(&file.path, at + 1, "unsafe without // SAFETY: above it"));
        }
    }
    findings
}

/// The root of a crate that does not state its stand on `unsafe`.
fn crate_root_without_stand(file: &File) -> Vec<Finding> {
    let is_root = file.path.ends_with("src/lib.rs") || file.path.ends_with("src/main.rs");
    let stand =
        if may_be_unsafe(file) { "#![deny(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
    let states = || layers(&file.text).code.iter().any(|line| line.trim() == stand);
    if !is_root || states() {
        return Vec::new();
    }
    vec![Finding::new(&file.path, 1, format!("{stand} is missing"))]
}

/// Sources that do not begin with what they are for. Tests beside a module share its doc.
fn without_purpose(file: &File) -> Vec<Finding> {
    if file.text.starts_with("//! ") || file.name().ends_with("tests.rs") {
        return Vec::new();
    }
    vec![Finding::new(&file.path, 1, "the module doc must come first")]
}

/// The findings of a check over all Rust sources.
fn in_all_sources(check: impl Fn(&File) -> Vec<Finding>) -> Vec<Finding> {
    repo::rust_files().flat_map(check).collect()
}

#[test]
fn nothing_is_unfinished_or_switched_off() {
    repo::assert_none("Remove these:", &in_all_sources(banned_code));
}

#[test]
fn expected_panics_say_which() {
    repo::assert_none("Say which panic is expected:", &in_all_sources(vague_panics));
}

#[test]
fn open_ends_have_an_owner() {
    repo::assert_none("Finish these, or name who will:", &in_all_sources(marks_without_owner));
}

#[test]
fn every_source_says_what_it_is_for() {
    let remedy = "Begin with purpose and invariants of the module, as `//!` lines:";
    repo::assert_none(remedy, &in_all_sources(without_purpose));
}

#[test]
fn unsafe_stays_in_the_agent_with_its_argument() {
    let remedy = "Do without unsafe, or move it to the agent's module of system calls:";
    repo::assert_none(remedy, &in_all_sources(silent_unsafe));
}

#[test]
fn every_crate_takes_a_stand_on_unsafe() {
    let remedy = "Add this line below the module doc of the crate's root:";
    repo::assert_none(remedy, &in_all_sources(crate_root_without_stand));
}

#[cfg(test)]
mod the_rules_can_fail {
    use super::*;

    /// Lines that a check complains about.
    fn lines(check: fn(&File) -> Vec<Finding>, path: &str, text: &str) -> Vec<String> {
        check(&File::new(path, text)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn on_banned_code() {
        for (banned, _) in BANNED_CODE {
            let found = lines(banned_code, "a.rs", &format!("fn a() {{\n    {banned}\n}}\n"));
            assert_eq!(found.len(), 1, "{banned}");
            assert!(found[0].starts_with("a.rs:2: "), "{found:?}");
            let spoken = format!("// no {banned} here\nlet a = \"{banned}\";\n");
            assert!(lines(banned_code, "a.rs", &spoken).is_empty(), "{banned}");
        }
    }

    #[test]
    fn on_vague_panics() {
        assert_eq!(lines(vague_panics, "a.rs", "#[should_panic]\nfn a() {}\n").len(), 1);
        let broken = "#[should_panic(\n    expected = \"Gang\"\n)]\nfn a() {}\n";
        assert!(lines(vague_panics, "a.rs", broken).is_empty());
    }

    #[test]
    fn on_marks_without_owner() {
        let source = "// TODO: later\n// TODO(ann): soon\nlet a = \"TODO\"; // mktemp XXXXXX\n";
        assert_eq!(lines(marks_without_owner, "a.rs", source).len(), 1);
    }

    #[test]
    fn on_sources_without_purpose() {
        assert_eq!(lines(without_purpose, "a.rs", "use b;\n//! Late.\n").len(), 1);
        assert!(lines(without_purpose, "a.rs", "//! Does a.\n").is_empty());
        assert!(lines(without_purpose, "a/tests.rs", "use super::*;\n").is_empty());
    }

    #[test]
    fn on_unsafe() {
        let bare = "fn a() {\n    unsafe { b() }\n}\n";
        assert_eq!(lines(silent_unsafe, "core/src/a.rs", bare).len(), 1);
        assert_eq!(lines(silent_unsafe, "agent/src/a.rs", bare).len(), 1);
        let argued = "// SAFETY: b has no preconditions.\n// Really.\nunsafe { b() }\n";
        assert!(lines(silent_unsafe, "agent/src/a.rs", argued).is_empty());
        assert_eq!(lines(silent_unsafe, "core/src/a.rs", argued).len(), 1);
        assert_eq!(lines(silent_unsafe, "core/src/a.rs", "#![allow(unsafe_code)]\n").len(), 1);
        assert!(lines(silent_unsafe, "core/src/a.rs", "#![forbid(unsafe_code)]\n").is_empty());
    }

    #[test]
    fn on_crate_roots() {
        assert_eq!(lines(crate_root_without_stand, "x/src/lib.rs", "pub mod a;\n").len(), 1);
        let weaker = "#![deny(unsafe_code)]\n";
        assert_eq!(lines(crate_root_without_stand, "x/src/lib.rs", weaker).len(), 1);
        assert!(lines(crate_root_without_stand, "agent/src/lib.rs", weaker).is_empty());
        assert!(lines(crate_root_without_stand, "x/src/other.rs", "").is_empty());
    }
}
