//! What a story that went wrong leaves behind.

use std::path::Path;

/// Kills whatever has its working directory below this one: so a shim is known where there is no
/// control group, and its ranks end with it.
pub(crate) fn kill_below(directory: &Path) {
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let at = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if let Some(pid) = pid.filter(|_| at.starts_with(directory)) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}
