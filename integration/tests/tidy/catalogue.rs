//! Rules that keep lists and things in step: limits and their use, error codes and their pages,
//! invariants of the simulator and the architecture page.

use crate::lexer::layers;
use crate::repo::{self, File, Finding};
use std::collections::BTreeSet;
use yard_common::ErrorCode;

const LIMITS: &str = "common/src/limits.rs";
const CODES: &str = "common/src/code.rs";
const ARCHITECTURE: &str = "ARCHITECTURE.md";
const ERROR_PAGES: &str = "docs/errors/";
const INVARIANTS: &str = "sim/src/invariants/";
/// Crates of which the code map names every module.
const MAPPED: [&str; 2] = ["common/src/", "core/src/"];

/// Words of the code of a source, comments and strings left out.
fn words(file: &File) -> BTreeSet<String> {
    let code = layers(&file.text).code.join("\n");
    let word = |c: char| c.is_alphanumeric() || c == '_';
    code.split(|c| !word(c)).map(str::to_string).collect()
}

/// Constants that a file declares, with their lines.
fn public_constants(file: &File) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, line) in file.text.lines().enumerate() {
        if let Some(rest) = line.strip_prefix("pub const ") {
            let name = rest.split(':').next().unwrap_or(rest);
            found.push((name.trim().to_string(), at + 1));
        }
    }
    found
}

/// Limits that nothing keeps. A relation between two limits is no use of either.
fn unused_limits(limits: &File, sources: &[File]) -> Vec<Finding> {
    let mut used = BTreeSet::new();
    for source in sources.iter().filter(|source| source.path != limits.path) {
        used.append(&mut words(source));
    }
    let unused = |(name, line): (String, usize)| {
        let finding = Finding::new(&limits.path, line, format!("{name} is used nowhere"));
        (!used.contains(&name)).then_some(finding)
    };
    public_constants(limits).into_iter().filter_map(unused).collect()
}

/// What is wrong with the page of one error code.
fn page_problems(code: ErrorCode, pages: &[File]) -> Vec<Finding> {
    let path = format!("{ERROR_PAGES}{code}.md");
    let Some(page) = pages.iter().find(|page| page.path == path) else {
        return vec![Finding::new(&path, 1, format!("there is no page for {code}"))];
    };
    let mut findings = Vec::new();
    let title = format!("# {code}: {}", code.title());
    if page.text.lines().next() != Some(title.as_str()) {
        findings.push(Finding::new(&path, 1, format!("the first line must be `{title}`")));
    }
    let headings: Vec<&str> = page.text.lines().filter(|line| line.starts_with("## ")).collect();
    if headings != ["## Cause", "## Remedy"] {
        let what = format!("the sections must be Cause and Remedy, not {headings:?}");
        findings.push(Finding::new(&path, 1, what));
    }
    for section in page.text.split("\n## ").skip(1) {
        let (heading, body) = section.split_once('\n').unwrap_or((section, ""));
        if body.trim().is_empty() {
            findings.push(Finding::new(&path, 1, format!("{heading} says nothing")));
        }
    }
    findings
}

/// Codes that nothing ever gives.
fn idle_codes(codes: &[ErrorCode], sources: &[File]) -> Vec<Finding> {
    let others = sources.iter().filter(|source| source.path != CODES);
    let code: Vec<String> = others.map(|source| layers(&source.text).code.join("\n")).collect();
    let given = |code_name: &str| {
        let longer = |c: char| c.is_alphanumeric() || c == '_';
        let ends = |rest: &str| !rest.starts_with(longer);
        code.iter().any(|code| code.split(code_name).skip(1).any(ends))
    };
    let idle = codes.iter().filter(|code| !given(&format!("ErrorCode::{code:?}")));
    idle.map(|code| Finding::new(CODES, 1, format!("{code} ({code:?}) is never given"))).collect()
}

/// Pages of codes that do not exist, and pages that the index does not name.
fn stray_pages(codes: &[ErrorCode], pages: &[File]) -> Vec<Finding> {
    let index = pages.iter().find(|page| page.name() == "README.md");
    let mut findings = Vec::new();
    for page in pages.iter().filter(|page| page.name() != "README.md") {
        let stem = page.name().trim_end_matches(".md");
        if !codes.iter().any(|code| code.to_string() == stem) {
            findings.push(Finding::new(&page.path, 1, format!("{CODES} has no code {stem}")));
        }
        if index.is_none_or(|index| !index.text.contains(&format!("({stem}.md)"))) {
            let what = format!("{ERROR_PAGES}README.md has no link to it");
            findings.push(Finding::new(&page.path, 1, what));
        }
    }
    findings
}

/// Files of invariants that the architecture page does not name. Parts of one, in a folder of its
/// name, go by the invariant.
fn unnamed_invariants(architecture: &File, sources: &[File]) -> Vec<Finding> {
    let unnamed = |file: &File| {
        let path = file.path.strip_prefix(INVARIANTS).filter(|path| *path != "mod.rs")?;
        let name = path.split_once('/').map_or(path.into(), |(folder, _)| format!("{folder}.rs"));
        let named = architecture.text.contains(&format!("`{name}`"));
        let what = format!("{} does not name `{name}`", architecture.path);
        (!named).then(|| Finding::new(&file.path, 1, what))
    };
    sources.iter().filter_map(unnamed).collect()
}

/// Modules of the first level that the code map does not name.
fn unmapped_modules(architecture: &File, sources: &[File]) -> Vec<Finding> {
    let mut modules = BTreeSet::new();
    for source in sources {
        for folder in MAPPED {
            let Some(inside) = source.path.strip_prefix(folder) else { continue };
            let module = match inside.split_once('/') {
                Some((module, _)) => format!("{folder}{module}/"),
                None => source.path.clone(),
            };
            modules.insert(module);
        }
    }
    // `retry.rs` and `retry/` are one module.
    let mapped = |path: &str| architecture.text.contains(&format!("`{path}`"));
    let named = |path: &str| match path.strip_suffix('/') {
        Some(folder) => mapped(path) || mapped(&format!("{folder}.rs")),
        None => mapped(path) || path.ends_with("/lib.rs"),
    };
    let unnamed = modules.iter().filter(|path| !named(path));
    let what = format!("{} does not name it", architecture.path);
    unnamed.map(|path| Finding::new(path, 1, what.clone())).collect()
}

/// The pages of the error catalogue.
fn error_pages() -> Vec<File> {
    let in_folder = |file: &&File| file.path.starts_with(ERROR_PAGES);
    repo::files().iter().filter(in_folder).cloned().collect()
}

#[test]
fn every_limit_is_kept_somewhere() {
    let sources: Vec<File> = repo::rust_files().cloned().collect();
    let remedy = "Check these limits where they apply, or delete them:";
    repo::assert_none(remedy, &unused_limits(repo::get(LIMITS), &sources));
}

#[test]
fn every_error_code_has_its_page() {
    let pages = error_pages();
    let problems = |code: &ErrorCode| page_problems(*code, &pages);
    let findings: Vec<Finding> = ErrorCode::ALL.iter().flat_map(problems).collect();
    repo::assert_none("Write the page as docs/errors/README.md says:", &findings);
}

#[test]
fn every_error_code_is_given_somewhere() {
    let product = repo::rust_files().filter(|file| file.path.contains("/src/"));
    let sources: Vec<File> = product.cloned().collect();
    let remedy = "Give the code where it belongs; its number may not be used again:";
    repo::assert_none(remedy, &idle_codes(ErrorCode::ALL, &sources));
}

#[test]
fn every_error_page_has_its_code() {
    let remedy = "Delete the page, or add the code and the link:";
    repo::assert_none(remedy, &stray_pages(ErrorCode::ALL, &error_pages()));
}

#[test]
fn every_invariant_is_named_in_the_architecture() {
    let sources: Vec<File> = repo::rust_files().cloned().collect();
    let remedy = "Say in ARCHITECTURE.md what this invariant keeps:";
    repo::assert_none(remedy, &unnamed_invariants(repo::get(ARCHITECTURE), &sources));
}

#[test]
fn the_code_map_names_every_module() {
    let sources: Vec<File> = repo::rust_files().cloned().collect();
    let remedy = "Add a row to the code map of ARCHITECTURE.md:";
    repo::assert_none(remedy, &unmapped_modules(repo::get(ARCHITECTURE), &sources));
}

#[cfg(test)]
mod the_rules_can_fail {
    use super::*;

    /// Findings as text.
    fn lines(findings: Vec<Finding>) -> Vec<String> {
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn on_unused_limits() {
        let limits = File::new(LIMITS, "pub const A_MAX: usize = 1;\npub const B_MAX: u8 = 2;\n");
        let spoken = File::new("a.rs", "// B_MAX\nlet a = \"B_MAX\" + A_MAX + NOT_B_MAX;\n");
        let found = lines(unused_limits(&limits, &[limits.clone(), spoken]));
        assert_eq!(found, ["common/src/limits.rs:2: B_MAX is used nowhere"]);
    }

    #[test]
    fn on_bad_error_pages() {
        let code = ErrorCode::NotFound;
        let good = format!("# {code}: {}\n\n## Cause\n\nx\n\n## Remedy\n\ny\n", code.title());
        let problems = |text: &str| {
            let page = File::new(&format!("{ERROR_PAGES}{code}.md"), text);
            page_problems(code, &[page]).len()
        };
        assert_eq!(problems(&good), 0);
        assert_eq!(problems(&good.replace("such", "SUCH")), 1, "the title is another");
        assert_eq!(problems(&good.replace("## Remedy", "## Advice")), 1, "a section is another");
        assert_eq!(problems(&good.replace("\ny\n", "\n")), 1, "a section is empty");
        assert_eq!(page_problems(code, &[]).len(), 1, "the page is missing");
    }

    #[test]
    fn on_idle_codes() {
        let codes = [ErrorCode::Stale, ErrorCode::StaleLeader];
        let longer = File::new("a.rs", "// ErrorCode::Stale\nf(ErrorCode::StaleLeader)\n");
        let found = lines(idle_codes(&codes, &[longer]));
        assert_eq!(found, ["common/src/code.rs:1: Y2009 (Stale) is never given"]);
    }

    #[test]
    fn on_stray_error_pages() {
        let index = File::new("docs/errors/README.md", "[Y2001](Y2001.md)\n");
        let known = File::new("docs/errors/Y2001.md", "");
        let stray = File::new("docs/errors/Y9999.md", "");
        let codes = [ErrorCode::NotFound];
        assert!(stray_pages(&codes, &[index.clone(), known.clone()]).is_empty());
        assert_eq!(stray_pages(&codes, &[index, stray]).len(), 2, "no code, and not in the index");
        assert_eq!(stray_pages(&codes, &[known]).len(), 1, "no index");
    }

    #[test]
    fn on_unnamed_invariants() {
        let page = File::new(ARCHITECTURE, "`gang.rs` keeps gangs whole; gone.rs is not marked\n");
        let source = |name: &str| File::new(&format!("{INVARIANTS}{name}"), "");
        let known = [source("mod.rs"), source("gang.rs"), source("gang/part.rs")];
        assert!(unnamed_invariants(&page, &known).is_empty());
        let found = lines(unnamed_invariants(&page, &[source("gone.rs"), source("lost/gang.rs")]));
        assert_eq!(
            found,
            [
                "sim/src/invariants/gone.rs:1: ARCHITECTURE.md does not name `gone.rs`",
                "sim/src/invariants/lost/gang.rs:1: ARCHITECTURE.md does not name `lost.rs`",
            ]
        );
    }

    #[test]
    fn on_unmapped_modules() {
        let page =
            File::new(ARCHITECTURE, "`core/src/fit.rs`, `core/src/retry.rs`, `core/src/a/`\n");
        let source = |path: &str| File::new(path, "");
        let known =
            ["core/src/lib.rs", "core/src/fit.rs", "core/src/retry/tests.rs", "sim/src/x.rs"];
        assert!(unmapped_modules(&page, &known.map(source)).is_empty());
        let new = ["core/src/a/b.rs", "core/src/plan/c.rs", "common/src/d.rs"];
        assert_eq!(unmapped_modules(&page, &new.map(source)).len(), 2, "plan/ and d.rs");
    }
}
