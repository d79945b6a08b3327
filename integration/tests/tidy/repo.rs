//! What the rules read, and how they report.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A text file of the repository.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// Path from the root of the repository, with `/`.
    pub(crate) path: String,
    /// Its content.
    pub(crate) text: String,
}

impl File {
    /// A file that exists in a test only.
    pub(crate) fn new(path: &str, text: &str) -> File {
        File { path: path.to_string(), text: text.to_string() }
    }

    /// Whether the file's name ends in `.extension`.
    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }

    /// Last part of the path.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// One place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    /// A finding in a line, counted from 1.
    pub(crate) fn new(path: &str, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: path.to_string(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Fails with every finding, and with what to do about them.
#[track_caller]
pub(crate) fn assert_none(remedy: &str, findings: &[Finding]) {
    let list: Vec<String> = findings.iter().map(|finding| format!("  {finding}")).collect();
    assert!(list.is_empty(), "{remedy}\n{}", list.join("\n"));
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("integration/ lies in the repository")
}

/// Every text file of the repository, by path.
pub(crate) fn files() -> &'static [File] {
    static FILES: OnceLock<Vec<File>> = OnceLock::new();
    FILES.get_or_init(|| {
        let mut paths = paths_of_git().unwrap_or_else(paths_of_walk);
        paths.sort();
        paths.dedup();
        // Pictures and the like are not UTF-8 and have no lines to check; a file that git knows
        // may be deleted in the working tree.
        let read = |path: String| {
            let text = std::fs::read_to_string(root().join(&path)).ok()?;
            Some(File { path, text })
        };
        let files: Vec<File> = paths.into_iter().filter_map(read).collect();
        assert!(files.len() > 20, "only {} files found under {}", files.len(), root().display());
        files
    })
}

/// The Rust sources among [`files`].
pub(crate) fn rust_files() -> impl Iterator<Item = &'static File> {
    files().iter().filter(|file| file.has_extension("rs"))
}

/// The file at a path, if the repository has it.
pub(crate) fn find(path: &str) -> Option<&'static File> {
    files().iter().find(|file| file.path == path)
}

/// The file at a path that the repository must have.
#[track_caller]
pub(crate) fn get(path: &str) -> &'static File {
    find(path).unwrap_or_else(|| panic!("{path} is missing"))
}

/// Tracked files, and new ones that git does not ignore. `None` outside a git checkout, or when
/// git refuses the folder because another user owns it.
fn paths_of_git() -> Option<Vec<String>> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").arg("-C").arg(root()).args(arguments).output().ok()?;
    if !output.status.success() {
        return None;
    }
    let list = String::from_utf8(output.stdout).ok()?;
    Some(list.split('\0').filter(|path| !path.is_empty()).map(str::to_string).collect())
}

/// Every file below the root but build outputs: for a source archive without `.git`.
fn paths_of_walk() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("a folder of the repository is readable");
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            if name == ".git" || name.starts_with("target") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(inside) = path.strip_prefix(root()) {
                found.push(inside.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    found
}

#[test]
fn the_walk_finds_what_git_finds() {
    let Some(tracked) = paths_of_git() else { return };
    let walked = paths_of_walk();
    for path in ["Cargo.toml", "common/src/limits.rs", ".cargo/config.toml"] {
        assert!(tracked.iter().any(|found| found == path), "git lists no {path}");
        assert!(walked.iter().any(|found| found == path), "the walk finds no {path}");
    }
}
