//! The service manager of this machine, through its own command.

use crate::failure::{Failure, exit};
use std::path::Path;
use std::process::{Command, Stdio};

/// There while systemd runs the machine.
const RUNS: &str = "/run/systemd/system";

/// Refuses a machine that systemd does not run.
pub(super) fn check() -> Result<(), Failure> {
    match Path::new(RUNS).is_dir() {
        true => Ok(()),
        false => {
            let hint = "run `yard coordinator run` or `yard agent run` by whatever starts services \
                        here; --root DIR installs into an image";
            Err(Failure::new(exit::REFUSED, "systemd does not run this machine", hint))
        }
    }
}

/// Whether a unit runs, or is on its way.
pub(super) fn is_active(unit: &str) -> bool {
    let ran = Command::new("systemctl").args(["is-active", unit]).stdin(Stdio::null()).output();
    ran.is_ok_and(|ran| {
        let said = String::from_utf8_lossy(&ran.stdout).trim().to_string();
        matches!(said.as_str(), "active" | "activating" | "reloading")
    })
}

/// Asks the manager for something; it must succeed.
pub(super) fn ask(words: &[&str]) -> Result<(), Failure> {
    let shown = format!("systemctl {}", words.join(" "));
    let ran = Command::new("systemctl").args(words).stdin(Stdio::null()).output();
    let ran = ran.map_err(|error| {
        Failure::new(exit::REFUSED, format!("systemctl cannot be run: {error}"), "")
    })?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr).trim().to_string();
    let hint = match words.last() {
        Some(unit) if matches!(words.first(), Some(&"start" | &"restart")) => {
            format!("look at its log: journalctl -u {unit} -n 20")
        }
        _ => String::new(),
    };
    Err(Failure::new(exit::REFUSED, format!("{shown}: {said}"), hint))
}
