//! Processes that nobody can end: they wait in the kernel for a file system that never answers.

use crate::world::{Node, PATIENCE, eventually, id, one, wanted};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use tempfile::TempDir;
use yard_common::ExitCause;
use yard_core::agent::DesiredPhase;

/// A file system that takes every request and answers none, but the first, which the kernel waits
/// for before it sends any.
struct Silence {
    place: TempDir,
    ends: Arc<AtomicBool>,
    /// It has taken a request that it does not answer.
    asked: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Silence {
    /// None: this machine has no FUSE, or does not let us.
    fn mount() -> Option<Silence> {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK);
        let device = options.open("/dev/fuse").ok()?;
        let place = tempfile::tempdir().unwrap();
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("silence"), place.path(), Some("fuse"), flags, Some(data.as_str())).ok()?;
        let (ends, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let server = {
            let (ends, asked) = (ends.clone(), asked.clone());
            std::thread::spawn(move || serve(device, &ends, &asked))
        };
        Some(Silence { place, ends, asked, server: Some(server) })
    }

    fn path(&self) -> &Path {
        self.place.path()
    }

    /// The kernel is told that nobody will ever answer: what waited fails.
    fn give_up(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(server) = self.server.take() {
            server.join().unwrap();
        }
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.give_up();
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

/// The device is closed when it returns.
fn serve(mut device: File, ends: &AtomicBool, asked: &AtomicBool) {
    const INIT: u32 = 26;
    let mut request = vec![0; 256 * 1024];
    while !ends.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(20u8)) != Ok(1) {
            continue;
        }
        let Ok(len) = device.read(&mut request) else { continue };
        if len < 16 || request[4..8] != INIT.to_ne_bytes() {
            asked.store(true, Ordering::Relaxed);
            continue;
        }
        // Head: length, no error, which request. Then version 7.31, no features, small sizes.
        let mut answer = Vec::new();
        answer.extend(80u32.to_ne_bytes());
        answer.extend(0u32.to_ne_bytes());
        answer.extend(&request[8..16]);
        for word in [7u32, 31, 65_536, 0, 12 | 9 << 16, 65_536, 1, 1] {
            answer.extend(word.to_ne_bytes());
        }
        answer.resize(80, 0);
        device.write_all(&answer).unwrap();
    }
}

#[tokio::test]
async fn what_does_not_end_is_told_of_and_keeps_what_it_holds() {
    let Some(mut silence) = Silence::mount() else { return };
    let mut node = Node::start().await;
    let yaml = format!("command: [cat, {}/x]", silence.path().display());
    node.run(1, &yaml).await;
    node.until(|heard| heard.started(id(1)) == 1).await;
    // Before its request is taken it can still be killed.
    eventually("it hangs", || silence.asked.load(Ordering::Relaxed));
    let stop = DesiredPhase::Stop { cause: ExitCause::Cancelled, grace_ms: 100 };
    node.desire(vec![wanted(1, one(), stop)], Vec::new()).await;
    let told = async {
        loop {
            let (_, shares) = node.handle.shares().await.unwrap();
            match shares.iter().find_map(|share| share.stuck.clone()) {
                Some(stuck) => break stuck,
                None => tokio::task::yield_now().await,
            }
        }
    };
    let stuck = tokio::time::timeout(PATIENCE, told).await.expect("the node says what hangs");
    assert!(stuck.starts_with("cat (") && stuck.contains("in state D"), "{stuck}");
    // Others go on.
    let mut other = crate::world::assignment("command: 'true'");
    other.job = yard_common::id::JobId(2);
    let both = vec![wanted(1, one(), stop), wanted(2, one(), DesiredPhase::Run)];
    node.desire(both, vec![(id(2), other)]).await;
    node.until(|heard| heard.is_reaped(id(2))).await;
    assert!(!node.heard.is_reaped(id(1)), "it holds what it holds until it is gone");
    silence.give_up();
    node.until(|heard| heard.is_reaped(id(1))).await;
    assert_eq!(node.heard.causes(id(1)), [ExitCause::Cancelled]);
    node.handle.shutdown().await.unwrap();
}
