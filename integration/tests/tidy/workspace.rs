//! Rules for the workspace: which crate may use which, where packages come from, and that every
//! crate obeys the shared lints.

use crate::repo::{self, File, Finding};

/// What each crate may use of the others, in rising order: dependencies point one way.
const MAY_USE: [(&str, &[&str]); 11] = [
    ("common", &[]),
    ("core", &["common"]),
    ("proto", &["common", "core"]),
    ("runtime", &["common"]),
    ("client", &["common", "proto", "runtime"]),
    ("coordinator", &["common", "core", "proto", "runtime"]),
    ("agent", &["common", "core", "proto", "runtime"]),
    ("sim", &["common", "core"]),
    ("fake-nvml", &[]),
    ("cli", &["common", "core", "proto", "runtime", "client", "coordinator", "agent"]),
    ("integration", &EVERY_CRATE),
];
const EVERY_CRATE: [&str; 10] = [
    "common",
    "core",
    "proto",
    "runtime",
    "client",
    "coordinator",
    "agent",
    "sim",
    "fake-nvml",
    "cli",
];
/// Foreign packages of the crates that must run no runtime. A new one is a decision.
const PURE: [(&str, &[&str]); 2] = [
    ("common", &["minicbor", "saphyr-parser", "thiserror", "proptest"]),
    ("core", &["minicbor", "thiserror", "xxhash-rust", "proptest"]),
];
/// Where every package of `Cargo.lock` comes from.
const PUBLIC_REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Keys of the dependency tables of a manifest, with their lines.
fn dependencies(manifest: &File) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut in_table = false;
    for (at, line) in manifest.text.lines().enumerate() {
        let line = line.trim();
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            // A table of its own: [dependencies.name]
            in_table = table.ends_with("dependencies");
            if let Some((head, name)) = table.rsplit_once('.')
                && head.ends_with("dependencies")
            {
                found.push((name.to_string(), at + 1));
            }
        } else if in_table && !line.is_empty() && !line.starts_with('#') {
            let key = line.split(['=', '.']).next().unwrap_or(line).trim();
            found.push((key.trim_matches('"').to_string(), at + 1));
        }
    }
    found
}

/// The folder of a crate from its manifest's path; `None` for the workspace's own manifest.
fn folder(manifest: &File) -> Option<&str> {
    manifest.path.strip_suffix("/Cargo.toml")
}

/// Dependencies of a crate that point the wrong way, or bring a runtime where none may be.
fn wrong_dependencies(manifest: &File) -> Vec<Finding> {
    let Some(folder) = folder(manifest) else { return Vec::new() };
    let Some((_, may_use)) = MAY_USE.iter().find(|(name, _)| *name == folder) else {
        let what = format!("{folder} is not in the table MAY_USE: where does it stand?");
        return vec![Finding::new(&manifest.path, 1, what)];
    };
    let foreign_list = PURE.iter().find(|(name, _)| *name == folder).map(|(_, list)| list);
    let mut findings = Vec::new();
    for (key, line) in dependencies(manifest) {
        if let Some(used) = key.strip_prefix("yard-") {
            if !may_use.contains(&used) {
                let what = format!("{folder} may use {may_use:?} only, not {used}");
                findings.push(Finding::new(&manifest.path, line, what));
            }
        } else if foreign_list.is_some_and(|list| !list.contains(&key.as_str())) {
            let what = format!("{key} is not in the closed list of packages that {folder} uses");
            findings.push(Finding::new(&manifest.path, line, what));
        }
    }
    findings
}

/// Crates that do not inherit the lints and the facts of the workspace.
fn stray_settings(manifest: &File) -> Vec<Finding> {
    if folder(manifest).is_none() {
        return Vec::new();
    }
    let wanted = [
        "[lints]\nworkspace = true\n",
        "edition.workspace = true\n",
        "rust-version.workspace = true\n",
        "license.workspace = true\n",
    ];
    let missing = wanted.iter().filter(|part| !manifest.text.contains(**part));
    missing.map(|part| Finding::new(&manifest.path, 1, format!("{part:?} is missing"))).collect()
}

/// Packages that come from elsewhere than the public registry.
fn foreign_sources(lock: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in lock.text.lines().enumerate() {
        let Some(source) = line.strip_prefix("source = ") else { continue };
        if source.trim_matches('"') != PUBLIC_REGISTRY {
            findings.push(Finding::new(&lock.path, at + 1, format!("{source} is not crates.io")));
        }
    }
    findings
}

/// Settings of cargo that point to a registry of one's own.
fn private_registries(file: &File) -> Vec<Finding> {
    let numbered = file.text.lines().enumerate();
    let names_one = |line: &str| {
        ["[source", "[registr", "registry =", "registry=", "replace-with", "index ="]
            .iter()
            .any(|mark| line.trim_start().contains(mark) && !line.trim_start().starts_with('#'))
    };
    let found = numbered.filter(|(_, line)| names_one(line));
    found.map(|(at, line)| Finding::new(&file.path, at + 1, line.trim())).collect()
}

/// Every manifest of the repository.
fn manifests() -> impl Iterator<Item = &'static File> {
    repo::files().iter().filter(|file| file.name() == "Cargo.toml")
}

#[test]
fn dependencies_point_one_way() {
    let remedy = "Move the code to the crate where it belongs (ARCHITECTURE.md, code map):";
    let findings: Vec<Finding> = manifests().flat_map(wrong_dependencies).collect();
    repo::assert_none(remedy, &findings);
}

#[test]
fn the_table_of_crates_has_no_cycle() {
    for (at, (name, may_use)) in MAY_USE.iter().enumerate() {
        for used in *may_use {
            let earlier = MAY_USE[..at].iter().any(|(earlier, _)| earlier == used);
            assert!(earlier, "{name} uses {used}, which does not stand above it in MAY_USE");
        }
    }
}

#[test]
fn every_crate_inherits_the_shared_settings() {
    let remedy = "Inherit these from the workspace:";
    let findings: Vec<Finding> = manifests().flat_map(stray_settings).collect();
    repo::assert_none(remedy, &findings);
    let workspace = &repo::get("Cargo.toml").text;
    for lint in ["unsafe_code = \"deny\"", "unwrap_used = \"deny\"", "missing_docs = \"warn\""] {
        assert!(workspace.contains(lint), "Cargo.toml has lost the lint {lint}");
    }
}

#[test]
fn packages_come_from_the_public_registry() {
    let settings = repo::files().iter().filter(|file| file.has_extension("toml"));
    let mut findings: Vec<Finding> = settings.flat_map(private_registries).collect();
    findings.extend(foreign_sources(repo::get("Cargo.lock")));
    repo::assert_none("Anyone must be able to build this from crates.io:", &findings);
}

#[cfg(test)]
mod the_rules_can_fail {
    use super::*;

    /// Number of findings of a check on a manifest.
    fn count(check: fn(&File) -> Vec<Finding>, path: &str, text: &str) -> usize {
        check(&File::new(path, text)).len()
    }

    #[test]
    fn on_dependencies_that_point_back() {
        let manifest = "[dependencies]\nyard-core.workspace = true\n# yard-sim = 1\n";
        assert_eq!(count(wrong_dependencies, "common/Cargo.toml", manifest), 1);
        assert_eq!(count(wrong_dependencies, "sim/Cargo.toml", manifest), 0);
        let table = "[dev-dependencies.yard-sim]\npath = \"../sim\"\n[features]\nyard-x = []\n";
        assert_eq!(count(wrong_dependencies, "core/Cargo.toml", table), 1);
        assert_eq!(count(wrong_dependencies, "integration/Cargo.toml", table), 0);
        assert_eq!(count(wrong_dependencies, "new/Cargo.toml", ""), 1, "an unknown crate");
    }

    #[test]
    fn on_runtimes_in_core() {
        let manifest = "[target.'cfg(unix)'.dependencies]\ntokio = \"1\"\nminicbor = \"2\"\n";
        assert_eq!(count(wrong_dependencies, "core/Cargo.toml", manifest), 1);
        assert_eq!(count(wrong_dependencies, "agent/Cargo.toml", manifest), 0);
    }

    #[test]
    fn on_settings_of_its_own() {
        let manifest = "edition = \"2021\"\nrust-version.workspace = true\n";
        assert_eq!(count(stray_settings, "x/Cargo.toml", manifest), 3);
    }

    #[test]
    fn on_private_registries() {
        let lock = format!("source = \"{PUBLIC_REGISTRY}\"\nsource = \"git+https://x\"\n");
        assert_eq!(count(foreign_sources, "Cargo.lock", &lock), 1);
        let config = "[source.crates-io]\nreplace-with = \"mine\"\n[registries.mine]\n";
        assert_eq!(count(private_registries, ".cargo/config.toml", config), 3);
        assert_eq!(count(private_registries, "Cargo.toml", "clap = \"4\"\n"), 0);
    }
}
