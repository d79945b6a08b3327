//! Whether the disk of jobs has room. Before the node says that it has none, output of jobs that
//! have ended goes, the oldest first.

use super::{Shared, health};
use crate::disk::is_scarce;
use crate::logs::Retention;
use crate::paths::Paths;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use yard_common::condition::ConditionKind;
use yard_common::limits::DISK_RESERVE_PERCENT;
use yard_runtime::shutdown::CancellationToken;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(10);

/// Looks until it is stopped.
pub(crate) async fn watch(shared: Arc<Shared>, stop: CancellationToken) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        let paths = shared.paths.clone();
        match tokio::task::spawn_blocking(move || is_short(&paths)).await {
            Ok(why) => health::tell(&shared.findings, ConditionKind::DiskPressure, why),
            Err(error) => tracing::error!(%error, "the disk was not looked at"),
        }
    }
}

/// What is wrong with the disk, after what can go is gone.
fn is_short(paths: &Paths) -> Option<String> {
    let root = paths.root();
    if !is_scarce(root) {
        return None;
    }
    match Retention::new(paths).by_share() {
        Ok(freed) if freed.attempts > 0 => {
            let (attempts, bytes) = (freed.attempts, freed.bytes);
            tracing::warn!(attempts, bytes, "the disk is nearly full; old output was removed");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the disk is nearly full; old output stays"),
    }
    let at = root.display();
    is_scarce(root).then(|| format!("less than {DISK_RESERVE_PERCENT} % of {at} is free"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use std::path::Path;
    use yard_common::id::{AttemptNumber, JobId};

    /// A small disk.
    struct Disk<'a>(&'a Path);

    impl<'a> Disk<'a> {
        fn mount(at: &'a Path) -> Disk<'a> {
            mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some("size=32m")).unwrap();
            Disk(at)
        }
    }

    impl Drop for Disk<'_> {
        fn drop(&mut self) {
            let _ = umount2(self.0, MntFlags::MNT_DETACH);
        }
    }

    #[test]
    fn output_of_ended_jobs_goes_before_anything_is_said() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let _disk = Disk::mount(folder.path());
        let paths = Paths::new(folder.path());
        let fill = |name: &str, mib: usize| {
            std::fs::write(folder.path().join(name), vec![1; mib << 20]).unwrap();
        };
        assert_eq!(is_short(&paths), None);
        let output = paths.attempt_logs(JobId(8), 0, AttemptNumber(1));
        std::fs::create_dir_all(&output).unwrap();
        std::fs::write(output.join("0.out"), vec![b'x'; 8 << 20]).unwrap();
        fill("others", 23);
        assert!(is_scarce(folder.path()));
        assert_eq!(is_short(&paths), None, "there is room after that");
        assert!(!output.exists());
        fill("more", 8);
        let why = is_short(&paths).unwrap();
        assert!(why.starts_with("less than 5 % of "), "{why}");
    }
}
