//! Where the parts of a development cluster lie.
//!
//! | path below `~/.local/share/yard/dev` | what |
//! |---|---|
//! | `coordinator/`, `coordinator.toml` | the folder of the first coordinator, and its settings |
//! | `coordinator-2/`, `coordinator-2.toml`, ... | those of further ones |
//! | `n1/`, `n1.toml`, ... | the directory of each node's agent, and its settings |
//! | `gang/` | where shims of nodes on one machine meet |
//! | `NAME.log`, `NAME.pid` | the log and the process of each |

use crate::context::Environment;
use crate::failure::Failure;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use yard_common::limits::CONFIG_FILE_BYTES_MAX;
use yard_runtime::files;

/// The name of the first coordinator among the parts.
pub(super) const COORDINATOR: &str = "coordinator";

/// The name of a coordinator among the parts.
pub(super) fn coordinator(number: u16) -> String {
    match number {
        1 => COORDINATOR.into(),
        number => format!("{COORDINATOR}-{number}"),
    }
}

/// The folder of a development cluster.
#[derive(Clone, Debug)]
pub(super) struct Layout(PathBuf);

impl Layout {
    /// That of this user.
    pub(super) fn of_user(environment: &Environment) -> Result<Layout, Failure> {
        let base = environment.data_home.clone();
        let home = || environment.home.as_ref().map(|home| home.join(".local/share"));
        let hint = "set HOME, or XDG_DATA_HOME";
        let base = base.or_else(home);
        let base = base.ok_or_else(|| Failure::usage("there is no home directory", hint))?;
        Ok(Layout(base.join("yard/dev")))
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    /// A number that other clusters on this machine hardly have too.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }

    /// The folder of a part.
    pub(super) fn folder(&self, part: &str) -> PathBuf {
        self.0.join(part)
    }

    pub(super) fn settings(&self, part: &str) -> PathBuf {
        self.0.join(format!("{part}.toml"))
    }

    pub(super) fn log(&self, part: &str) -> PathBuf {
        self.0.join(format!("{part}.log"))
    }

    pub(super) fn pid(&self, part: &str) -> PathBuf {
        self.0.join(format!("{part}.pid"))
    }

    pub(super) fn gang(&self) -> PathBuf {
        self.0.join("gang")
    }

    /// Whether there is a cluster.
    pub(super) fn exists(&self) -> bool {
        self.folder(COORDINATOR).exists()
    }

    /// The coordinators that there are, in the order of their numbers.
    pub(super) fn coordinators(&self) -> Vec<String> {
        let there = |name: &String| self.folder(name).exists();
        (1..=u16::MAX).map(coordinator).take_while(there).collect()
    }

    /// The nodes that there are, in the order of their numbers.
    pub(super) fn nodes(&self) -> Vec<String> {
        let name = |number: u16| format!("n{number}");
        (1..=u16::MAX).map(name).take_while(|node| self.settings(node).exists()).collect()
    }

    /// Where a coordinator listens: it is in the log of the cluster, and stays.
    pub(super) fn address(&self, part: &str) -> Result<String, Failure> {
        let hint = "yard dev reset removes the cluster";
        let options = yard_coordinator::Options::read(&self.settings(part));
        let options = options.map_err(|error| Failure::local(&error, hint))?;
        Ok(options.listen.to_string())
    }

    /// Where all coordinators listen.
    pub(super) fn addresses(&self) -> Result<Vec<String>, Failure> {
        self.coordinators().iter().map(|part| self.address(part)).collect()
    }

    /// The last lines of a part's log.
    pub(super) fn last_lines(&self, part: &str, count: usize) -> String {
        let bytes = std::fs::read(self.log(part)).unwrap_or_default();
        let start = bytes.len().saturating_sub(CONFIG_FILE_BYTES_MAX);
        let text = String::from_utf8_lossy(&bytes[start..]).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(count)..];
        last.iter().map(|line| format!("    {line}\n")).collect()
    }
}

/// Writes a file of settings.
pub(super) fn write_settings(path: &Path, settings: &impl serde::Serialize) -> Result<(), Failure> {
    let text = toml::to_string(settings).map_err(|error| Failure::local(&error, ""))?;
    files::write_durably(path, text.as_bytes(), files::PRIVATE)
        .map_err(|error| Failure::local(&error, ""))
}
