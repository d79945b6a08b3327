//! The fixture: a folder with its own home, configuration and data, and a cluster in it that ends
//! with the test.

pub(crate) mod clients;
pub(crate) mod gate;
pub(crate) mod guard;
pub(crate) mod logbook;
pub(crate) mod network;
pub(crate) mod process;
pub(crate) mod silence;
pub(crate) mod trio;
pub(crate) mod wires;
pub(crate) mod yard;

use guard::Guard;
use process::Process;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use yard::{Ran, Yard};

/// Longer than anything takes that works. A good run never waits it out.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(10);
/// What `yard dev` calls the first process.
pub(crate) const COORDINATOR: &str = "coordinator";
/// Ports that tests use: above those of `yard dev`, below those that the kernel hands out.
const PORTS: std::ops::Range<u16> = 17_100..18_100;
/// Where a port is reserved, so that two tests never mean the same one: another address of
/// loopback, which nobody else uses.
const RESERVE: Ipv4Addr = Ipv4Addr::new(127, 0, 77, 1);
/// What a job asks for that must find room beside others.
pub(crate) const SMALL: [&str; 4] = ["--cpus", "0.1", "--memory", "32MiB"];

/// Waits until `look` finds something.
///
/// # Panics
/// After [`PATIENCE`], with what was awaited.
pub(crate) fn await_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "after {PATIENCE:?} still not: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Waits until something is true.
pub(crate) fn await_true(what: &str, mut look: impl FnMut() -> bool) {
    await_some(what, || look().then_some(()));
}

/// A port of loopback that no other test means while this lives.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    _reserved: TcpListener,
}

impl Port {
    /// Reserves one. A coordinator that is killed gets it back: in between nobody takes it.
    pub(crate) fn reserve() -> Port {
        // Tests that start together begin at different numbers.
        let start = std::process::id() as usize % PORTS.len();
        let numbers = PORTS.cycle().skip(start).take(PORTS.len());
        let mut reserved = numbers.filter_map(|number| {
            let reserved = TcpListener::bind((RESERVE, number)).ok()?;
            // Free for the cluster itself, too.
            TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
            Some(Port { number, _reserved: reserved })
        });
        reserved.next().expect("a port is free")
    }

    /// As `HOST:PORT`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

/// Makes a folder that nobody else may enter: `yard` refuses others.
pub(crate) fn private_folder(path: &Path) {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path).expect("a folder can be made");
}

/// A folder with everything that a user has.
pub(crate) struct Home {
    folder: tempfile::TempDir,
    program: PathBuf,
    _guard: Guard,
}

impl Home {
    pub(crate) fn new() -> Home {
        // Short: paths of unix sockets have at most 107 bytes.
        let folder = tempfile::Builder::new().prefix("yard-").tempdir();
        let folder = folder.expect("a folder can be made");
        let (path, program) = (folder.path().to_path_buf(), yard::program());
        let (config, data) = (path.join("config"), path.join("data"));
        let vars: [(&str, &OsStr); 3] = [
            ("HOME", path.as_os_str()),
            ("XDG_CONFIG_HOME", config.as_os_str()),
            ("XDG_DATA_HOME", data.as_os_str()),
        ];
        let guard = Guard::of_home(path.as_os_str(), program.as_os_str(), &vars);
        let home = Home { folder, program, _guard: guard };
        for part in ["config", "data", "work", "bin"] {
            private_folder(&home.path(part));
        }
        home
    }

    /// One with a program of its own, which can be replaced while it runs.
    pub(crate) fn with_program() -> Home {
        let mut home = Home::new();
        home.program = home.path("bin/yard");
        home.install(&yard::program());
        home
    }

    /// Replaces the program, as a package does: by another file of its name.
    pub(crate) fn install(&self, program: &Path) {
        let part = self.path("bin/part");
        let linked = fs::hard_link(program, &part);
        linked.or_else(|_| fs::copy(program, &part).map(drop)).expect("a program can be copied");
        fs::rename(&part, self.path("bin/yard")).expect("a file can be renamed");
        // Two names of one file are left as they are.
        let _ = fs::remove_file(part);
    }

    pub(crate) fn path(&self, part: &str) -> PathBuf {
        self.folder.path().join(part)
    }

    /// Where jobs are submitted from.
    pub(crate) fn work(&self) -> PathBuf {
        self.path("work")
    }

    /// `yard` as the user of this home.
    pub(crate) fn yard<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) -> Yard {
        self.yard_with(&self.path("config"), words)
    }

    /// `yard` with another folder of configuration: another user.
    pub(crate) fn yard_with<S: AsRef<std::ffi::OsStr>>(&self, config: &Path, words: &[S]) -> Yard {
        self.yard_by(&self.program, config, words)
    }

    /// Another version of the program, as the user of this home.
    pub(crate) fn yard_of<S: AsRef<std::ffi::OsStr>>(&self, program: &Path, words: &[S]) -> Yard {
        self.yard_by(program, &self.path("config"), words)
    }

    fn yard_by<S: AsRef<std::ffi::OsStr>>(
        &self,
        program: &Path,
        config: &Path,
        words: &[S],
    ) -> Yard {
        Yard::new(program, words)
            .env("HOME", self.folder.path())
            .env("XDG_CONFIG_HOME", config)
            .env("XDG_DATA_HOME", &self.path("data"))
            .directory(&self.work())
    }
}

impl Drop for Home {
    /// Kills what is left of this test: a process that was started with a path of this folder.
    fn drop(&mut self) {
        for process in process::started_with(self.folder.path()) {
            process.kill();
        }
    }
}

/// A cluster of `yard dev`, with a port of its own.
pub(crate) struct Cluster {
    pub(crate) home: Home,
    pub(crate) port: Port,
}

impl Cluster {
    /// Starts one with so many nodes. The cluster is made as `yard dev` makes it, but for the
    /// port: a coordinator that is down for a moment must find its own again, and other tests
    /// start clusters meanwhile.
    pub(crate) fn start(nodes: u16) -> Cluster {
        Cluster::start_with(nodes, "")
    }

    /// Starts one whose nodes may be silent for a minute: tests that kill agents and shims on a
    /// busy machine must not race against the lease of 3 seconds.
    pub(crate) fn start_patient(nodes: u16) -> Cluster {
        let cluster = Cluster::start_with(nodes, "longest_lease_ms = 60000\n");
        cluster.yard(&["pool", "set", "default", "--lease", "1m"]).ok();
        cluster
    }

    /// Starts a patient one whose program can be replaced.
    pub(crate) fn start_to_upgrade(nodes: u16) -> Cluster {
        let settings = "longest_lease_ms = 60000\n";
        let cluster = Cluster::start_in(Home::with_program(), nodes, settings);
        cluster.yard(&["pool", "set", "default", "--lease", "1m"]).ok();
        cluster
    }

    fn start_with(nodes: u16, settings: &str) -> Cluster {
        Cluster::start_in(Home::new(), nodes, settings)
    }

    fn start_in(home: Home, nodes: u16, settings: &str) -> Cluster {
        let cluster = Cluster { home, port: Port::reserve() };
        let address = cluster.port.address();
        private_folder(&cluster.dev(""));
        let folder = cluster.dev(COORDINATOR);
        let text = format!("folder = {folder:?}\nlisten = {address:?}\n{settings}");
        let file = cluster.dev("coordinator.toml");
        fs::write(&file, text).expect("a file can be written");
        let file = file.display().to_string();
        let words = ["coordinator", "init", &address, "--config", &file, "--name", "dev"];
        cluster.yard(&words).ok();
        let nodes = nodes.to_string();
        cluster.yard(&["dev", "--nodes", &nodes, "--detach"]).ok();
        cluster
    }

    /// A file of the cluster.
    pub(crate) fn dev(&self, part: &str) -> PathBuf {
        self.home.path("data/yard/dev").join(part)
    }

    /// `yard` as the administrator.
    pub(crate) fn yard<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) -> Yard {
        self.home.yard(words)
    }

    /// Submits a small job; the words are flags, `--` and the command.
    pub(crate) fn submit(&self, words: &[&str]) -> u64 {
        let words = [&["submit"][..], &SMALL, words].concat();
        let ran = self.yard(&words).ok();
        ran.out.trim().parse().unwrap_or_else(|_| panic!("no id: {ran}"))
    }

    /// What a verb says as JSON.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        self.yard(&[words, &["-o", "json"]].concat()).ok().json()
    }

    pub(crate) fn job(&self, job: u64) -> Value {
        self.json(&["show", &job.to_string()])
    }

    /// Waits for the end of a job; the exit code is that of `yard wait`.
    pub(crate) fn wait(&self, job: u64) -> i32 {
        let ran: Ran = self.yard(&["wait", &job.to_string(), "--timeout", "1m"]).run();
        ran.code
    }

    /// The process of a part of the cluster.
    pub(crate) fn part(&self, part: &str) -> Process {
        let file = self.dev(&format!("{part}.pid"));
        process::of_file(&file).unwrap_or_else(|| panic!("{part} does not run"))
    }

    /// Kills a part, and waits until it is gone.
    pub(crate) fn kill(&self, part: &str) {
        let process = self.part(part);
        process.kill();
        process.await_end();
    }

    /// Starts what does not run.
    pub(crate) fn start_again(&self) {
        self.yard(&["dev", "--detach"]).ok();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        // Nobody is waiting for an orderly end, and the parts say goodbye one after another.
        let parts = fs::read_dir(self.dev("")).into_iter().flatten().flatten();
        let files = parts.map(|entry| entry.path());
        for file in files.filter(|file| file.extension().is_some_and(|end| end == "pid")) {
            if let Some(process) = process::of_file(&file) {
                process.kill();
            }
        }
        let reset = self.yard(&["dev", "reset", "--yes"]).run();
        // What is left is killed with the home. A second panic would hide the first.
        if reset.code != 0 && !std::thread::panicking() {
            panic!("the cluster cannot be removed: {reset}");
        }
    }
}

impl Cluster {
    /// The end of each log, for a test that fails.
    fn print_logs(&self) {
        let parts = fs::read_dir(self.dev("")).into_iter().flatten().flatten();
        let files = parts.map(|entry| entry.path());
        for file in files.filter(|file| file.extension().is_some_and(|end| end == "log")) {
            let text = fs::read(&file).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(20)..].join("\n");
            eprintln!("--- {}\n{last}", file.display());
        }
    }
}
