//! A file system that never answers: what waits for it cannot be ended, until it is aborted.

use super::guard::Guard;
use super::private_folder;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// One that takes every request and answers none, but the first, which the kernel waits for before
/// it sends any.
pub(crate) struct Silence {
    folder: tempfile::TempDir,
    /// The file by which the kernel gives the file system up.
    abort: PathBuf,
    asked: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
    _guard: Guard,
}

/// Mounts by the program, which gets the device, if there is one, as its standard input.
fn mount(kind: &str, options: &str, at: &Path, device: Option<&File>) -> bool {
    let mut command = Command::new("mount");
    command.args(["-i", "-t", kind, "-o", options, kind]).arg(at).stderr(Stdio::null());
    if let Some(device) = device {
        command.stdin(device.try_clone().expect("a file can be cloned"));
    }
    command.status().expect("mount is installed").success()
}

/// The number of the device that is mounted there. Nobody may ask the file system itself.
fn number_of(at: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts can be read");
    let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines.find(|words| Path::new(words[4]) == at).expect("it is mounted");
    line[2].split_once(':').expect("a device has two numbers").1.to_string()
}

impl Silence {
    /// None: this machine has no FUSE, or does not let us.
    pub(crate) fn mount() -> Option<Silence> {
        let device = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let folder = tempfile::Builder::new().prefix("yard-silence-").tempdir();
        let folder = folder.expect("a folder can be made");
        let guard = Guard::of_mounts(folder.path().as_os_str());
        let (place, control) = (folder.path().join("place"), folder.path().join("control"));
        [&place, &control].into_iter().for_each(|path| private_folder(path));
        let options = "fd=0,rootmode=40000,user_id=0,group_id=0";
        if !mount("fuse", options, &place, Some(&device)) {
            return None;
        }
        let abort = control.join(number_of(&place)).join("abort");
        let asked = Arc::new(AtomicBool::new(false));
        let server = {
            let asked = Arc::clone(&asked);
            std::thread::spawn(move || serve(device, &asked))
        };
        let silence = Silence { folder, abort, asked, server: Some(server), _guard: guard };
        let controls = mount("fusectl", "rw", &control, None);
        assert!(controls && silence.abort.exists(), "a file system that is there can be aborted");
        Some(silence)
    }

    /// A file on it. Whoever opens it waits.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("place/file")
    }

    /// Whether somebody waits: only then can it not be killed any more.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// The kernel is told that nobody will ever answer: what waits fails.
    pub(crate) fn abort(&mut self) {
        let Some(server) = self.server.take() else { return };
        // The server holds the device until then: without this word it would be waited for forever.
        fs::write(&self.abort, "1").expect("the file system can be aborted");
        let _ = server.join();
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if self.abort.exists() {
            self.abort();
        }
        for part in ["control", "place"] {
            let _ = Command::new("umount").arg("-l").arg(self.folder.path().join(part)).status();
        }
    }
}

/// Until the kernel gives it up.
fn serve(mut device: File, asked: &AtomicBool) {
    const INIT: u32 = 26;
    let mut request = vec![0; 256 * 1024];
    while let Ok(len) = device.read(&mut request) {
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
        device.write_all(&answer).expect("the kernel waits for this");
    }
}
