//! The processes behind the command line: each is a library of its own, run here.

pub(crate) mod agent;
pub(crate) mod coordinator;
pub(crate) mod restore;

use crate::failure::Failure;
use std::path::{Path, PathBuf};
use yard_runtime::telemetry::{self, Format, Telemetry};

/// Starts the log of this process.
fn log(json: bool) -> Result<(), Failure> {
    let format = if json { Format::Json } else { Format::Text };
    let options = telemetry::Options { format, filter: None };
    let hint = format!("set {} to a filter such as info", telemetry::FILTER_VARIABLE);
    Telemetry::start(&options).map(drop).map_err(|error| Failure::local(&error, hint))
}

/// The file with the settings: the one that was named, else the usual one if it is there.
fn settings(named: Option<&Path>, usual: &str) -> Option<PathBuf> {
    let usual = Path::new(usual);
    named.or_else(|| usual.exists().then_some(usual)).map(Path::to_path_buf)
}

/// What starts a daemon: its service if it is installed, else its verb.
fn next(unit: &str, verb: &str) -> String {
    match Path::new("/etc/systemd/system").join(format!("{unit}.service")).exists() {
        true => format!("systemctl start {unit}"),
        false => verb.to_string(),
    }
}

/// A path as the process sees it wherever it is started.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::local(&error, "name an absolute path"))
}
