//! The disk of a coordinator: full, damaged, and wanted by two.

use crate::world::yard::Running;
use crate::world::{Home, Port, await_some, await_true};
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A coordinator without machines: jobs wait in it, and that is all that this needs.
struct Lone {
    home: Home,
    port: Port,
}

impl Lone {
    /// With its settings written, and nothing else.
    fn new() -> Lone {
        let lone = Lone { home: Home::new(), port: Port::reserve() };
        let (folder, listen) = (lone.folder(), lone.port.address());
        let text = format!(
            "folder = {folder:?}\nlisten = {listen:?}\ndisk_floor_mib = 2\ndisk_reserve_mib = 2\n"
        );
        fs::create_dir(lone.home.path("disk")).expect("a folder can be made");
        fs::write(lone.settings(), text).expect("a file can be written");
        lone
    }

    fn settings(&self) -> PathBuf {
        self.home.path("coordinator.toml")
    }

    fn folder(&self) -> PathBuf {
        self.home.path("disk/coordinator")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder().join("data").join(name)
    }

    fn words<'a>(&self, words: &[&'a str], settings: &'a str) -> Vec<&'a str> {
        [words, &["--config", settings]].concat()
    }

    fn init(&self) {
        let (settings, address) = (self.settings().display().to_string(), self.port.address());
        let words = ["coordinator", "init", &address, "--name", "lone"];
        self.home.yard(&[&words[..], &["--config", &settings]].concat()).ok();
    }

    /// Starts it, and waits until it serves.
    fn run(&self) -> Running {
        let settings = self.settings().display().to_string();
        let running = self.home.yard(&self.words(&["coordinator", "run"], &settings)).spawn();
        self.await_served();
        running
    }

    fn await_served(&self) {
        await_true("it serves", || self.home.yard(&["ls"]).run().code == 0);
    }

    /// Runs it; it must end by itself, with this code, and say so.
    fn refuses(&self, code: i32, says: &[&str]) {
        let settings = self.settings().display().to_string();
        let words = self.words(&["coordinator", "run"], &settings);
        self.home.yard(&words).exits(code).says(says);
    }

    /// Submits a job that waits for a machine; its id, or what it was refused with.
    fn submit(&self, name: &str) -> Result<u64, String> {
        let words = ["submit", "--name", name, "--cpus", "1", "--", "true"];
        let ran = self.home.yard(&words).run();
        match ran.code {
            0 => Ok(ran.out.trim().parse().expect("an id")),
            _ => Err(ran.to_string()),
        }
    }

    fn alarms(&self) -> Vec<Value> {
        let status = self.home.yard(&["cluster", "status", "-o", "json"]).ok().json();
        status["alarms"].as_array().cloned().expect("a list of alarms")
    }
}

#[test]
fn a_second_process_keeps_out() {
    let lone = Lone::new();
    lone.init();
    let _first = lone.run();
    let settings = lone.settings().display().to_string();
    let other = Port::reserve();
    let words = ["coordinator", "run", "--listen", &other.address(), "--config", &settings];
    lone.home.yard(&words).exits(1).says(&["another process uses this data folder"]);
    assert_eq!(lone.submit("after"), Ok(0), "the first one serves on");
}

#[test]
fn what_is_damaged_or_not_its_own_is_refused_and_left_alone() {
    let lone = Lone::new();
    lone.init();
    let running = lone.run();
    for nth in 0..5 {
        lone.submit(&format!("job-{nth}")).expect("there is room");
    }
    drop(running);
    let log = lone.file("log-00000000000000000001");
    let bytes = fs::read(&log).expect("the log can be read");
    let middle = bytes.iter().rposition(|byte| *byte != 0).expect("there is something") / 2;
    write_at(&log, middle as u64, &[!bytes[middle]]);
    lone.refuses(65, &["[Y3002]", "log-00000000000000000001", "byte", "yard coordinator reset"]);
    assert_ne!(fs::read(&log).expect("it is there"), bytes, "nothing was repaired");
    write_at(&log, middle as u64, &[bytes[middle]]);
    // Cut, as a disk that was copied in part.
    fs::write(&log, &bytes[..middle]).expect("the log can be written");
    lone.refuses(65, &["[Y3002]", "log-00000000000000000001"]);
    fs::write(&log, &bytes).expect("the log can be written");
    // Of another cluster.
    let other = Lone::new();
    other.init();
    let meta = fs::read(lone.file("meta")).expect("it can be read");
    fs::copy(other.file("meta"), lone.file("meta")).expect("it can be copied");
    lone.refuses(65, &["[Y3003]", "belongs to member 1 of cluster"]);
    fs::write(lone.file("meta"), meta).expect("it can be written");
    let _running = lone.run();
    let jobs = lone.home.yard(&["ls", "--all", "-o", "name"]).ok().out;
    assert_eq!(jobs.lines().count(), 5, "{jobs}");
}

fn write_at(path: &Path, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).expect("the file can be opened");
    file.write_all_at(bytes, at).expect("the file can be written");
}

/// Mounts a small disk in a mount namespace of its own, makes a cluster there if there is none,
/// and runs what follows.
const ON_A_SMALL_DISK: &str = r#"
set -e
mount -t tmpfs -o size=16m,mode=0700 tmpfs "$DISK"
"$0" coordinator init "$ADDRESS" --name lone --config "$SETTINGS"
exec "$0" "$@"
"#;

/// Writes until nothing more fits.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("a file can be made");
    let zeros = vec![0; 64 << 10];
    while file.write_all(&zeros).is_ok() {}
    while file.write_all(&zeros[..512]).is_ok() {}
}

#[test]
fn a_full_disk_takes_nothing_new_loses_nothing_and_passes() {
    let lone = Lone::new();
    let settings = lone.settings();
    let words = ["coordinator", "run", "--config"].map(std::ffi::OsString::from);
    let words = [&words[..], &[settings.clone().into_os_string()]].concat();
    let process = lone
        .home
        .yard(&words)
        .env("DISK", &lone.home.path("disk"))
        .env("ADDRESS", Path::new(&lone.port.address()))
        .env("SETTINGS", &settings)
        .within(&["unshare", "--mount", "--propagation", "private", "sh", "-c", ON_A_SMALL_DISK])
        .spawn();
    lone.await_served();
    let first = lone.submit("first").expect("there is room");
    // The disk as that process sees it.
    let root = PathBuf::from(format!("/proc/{}/root", process.id()));
    let disk = root.join(lone.home.path("disk").strip_prefix("/").expect("it is absolute"));
    let reserve = disk.join("coordinator/data/reserve");
    await_true("the reserve is there", || reserve.exists());
    assert_eq!(lone.alarms(), [] as [Value; 0]);
    let filler = disk.join("filler");
    fill(&filler);
    let mut acked = vec![first];
    let refused = await_some("new work is refused", || match lone.submit("more") {
        Ok(id) => {
            acked.push(id);
            None
        }
        Err(refused) => Some(refused),
    });
    assert!(refused.contains("[Y3001]") && refused.contains("disk is full"), "{refused}");
    let alarms = lone.alarms();
    assert_eq!((&alarms[0]["code"], &alarms[0]["member"]), (&"Y3001".into(), &1.into()));
    let status = lone.home.yard(&["cluster", "status"]).ok();
    assert!(status.out.contains("alarm[Y3001]: member 1"), "{status}");
    // What ends something is taken, many times over.
    for _ in 0..20 {
        lone.home.yard(&["hold", &first.to_string()]).ok();
    }
    lone.home.yard(&["cancel", &first.to_string()]).ok();
    assert!(lone.submit("still").is_err());
    fs::remove_file(&filler).expect("it can be removed");
    let freed = Instant::now();
    let after = await_some("new work is taken again", || lone.submit("after").ok());
    let took = freed.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    eprintln!("new work again after {took:?}");
    await_true("the alarm is over", || lone.alarms().is_empty());
    acked.push(after);
    let jobs = lone.home.yard(&["ls", "--all", "-o", "name"]).ok().out;
    let jobs: Vec<u64> = jobs.lines().map(|id| id.parse().expect("an id")).collect();
    assert!(acked.iter().all(|id| jobs.contains(id)), "{acked:?} {jobs:?}");
}
