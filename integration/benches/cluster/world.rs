//! A cluster of real processes to measure, made by `yard dev` in a folder of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use yard_client::{Client, Options};
use yard_proto::v1;
use yard_runtime::identity::Identity;

/// A cluster. Dropping it stops and removes it.
pub(crate) struct World {
    root: TempDir,
    yard: PathBuf,
    addresses: Vec<String>,
}

impl World {
    /// Starts a cluster with so many nodes. `YARD_BIN` names the program.
    pub(crate) fn start(nodes: u16) -> World {
        World::start_with(nodes, 1)
    }

    /// Starts a cluster with so many nodes and coordinators.
    pub(crate) fn start_with(nodes: u16, coordinators: u16) -> World {
        let root = tempfile::tempdir().expect("there is room");
        // A copy, which can be replaced.
        let yard = root.path().join("yard");
        let mut world = World { root, yard, addresses: Vec::new() };
        world.replace_program();
        let (nodes, count) = (nodes.to_string(), coordinators.to_string());
        world.yard(&["dev", "--detach", "--nodes", &nodes, "--coordinators", &count]);
        let address = |number| {
            let file = world.dev().join(coordinator(number)).with_extension("toml");
            let settings = std::fs::read_to_string(file);
            let settings = settings.expect("`yard dev` wrote it");
            let listen = settings.lines().find_map(|line| line.strip_prefix("listen = "));
            listen.expect("it listens").trim_matches('"').to_string()
        };
        world.addresses = (1..=coordinators.into()).map(address).collect();
        world
    }

    /// Puts another file in the place of the program: those that run it go on with the old one.
    pub(crate) fn replace_program(&self) {
        let yard = std::env::var_os("YARD_BIN").expect("YARD_BIN names the program to measure");
        let new = self.root.path().join("yard.new");
        std::fs::copy(yard, &new).expect("there is room");
        std::fs::rename(new, &self.yard).expect("there is room");
    }

    /// Starts what does not run.
    pub(crate) fn start_again(&self) {
        self.yard(&["dev", "--detach"]);
    }

    /// Sends a signal to a process.
    pub(crate) fn signal(&self, pid: u32, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name} {pid}");
    }

    /// Makes one more coordinator, and starts it.
    pub(crate) fn join_member(&self) -> Member {
        let token = self.yard(&["cluster", "token"]);
        let folder = self.root.path().join("joined").display().to_string();
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let own = free.expect("there is a free port").to_string();
        let (at, token) = (self.addresses[0].as_str(), token.trim());
        self.yard(&["coordinator", "join", at, token, "--address", &own, "--folder", &folder]);
        let run = ["coordinator", "run", "--folder", &folder, "--listen", &own];
        let child = self.command(&run).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Member(child.expect("the program can be run"))
    }

    /// The names of the coordinators that began the cluster.
    pub(crate) fn coordinators(&self) -> Vec<String> {
        (1..=self.addresses.len()).map(coordinator).collect()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.yard);
        command
            .args(words)
            .env("XDG_CONFIG_HOME", self.root.path().join("config"))
            .env("XDG_DATA_HOME", self.root.path().join("data"));
        command
    }

    /// Runs the program to its end. What it printed.
    fn yard(&self, words: &[&str]) -> String {
        let output = self.command(words).output().expect("the program can be run");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "yard {}: {told}", words.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The folder of the cluster.
    pub(crate) fn dev(&self) -> PathBuf {
        self.root.path().join("data/yard/dev")
    }

    /// A folder for what jobs write.
    pub(crate) fn scratch(&self) -> PathBuf {
        let scratch = self.root.path().join("scratch");
        std::fs::create_dir_all(&scratch).expect("there is room");
        scratch
    }

    /// The process of a part.
    pub(crate) fn pid(&self, part: &str) -> u32 {
        let text = std::fs::read_to_string(self.dev().join(format!("{part}.pid")));
        let text = text.expect("the part runs");
        let pid = text.split(' ').next().and_then(|pid| pid.parse().ok());
        pid.expect("the file begins with the id of a process")
    }

    /// A client with a connection of its own.
    pub(crate) fn client(&self) -> Client {
        self.client_from(0)
    }

    /// A client that asks this member first, counted from 0 and around.
    pub(crate) fn client_from(&self, member: usize) -> Client {
        let folder = self.root.path().join("config/yard/contexts/dev");
        let identity = Identity::load(&folder).expect("`yard dev` made the administrator");
        let mut addresses = self.addresses.clone();
        addresses.rotate_left(member % self.addresses.len());
        Client::connect(&Options::new(addresses, identity)).expect("it is legal")
    }
}

/// What `yard dev` calls a coordinator, counted from 1.
fn coordinator(number: usize) -> String {
    match number {
        1 => "coordinator".to_string(),
        number => format!("coordinator-{number}"),
    }
}

/// A coordinator that joined. Dropping it kills it.
pub(crate) struct Member(Child);

impl Drop for Member {
    fn drop(&mut self) {
        // Both fail only for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.yard(&["dev", "reset", "--yes"]);
    }
}

/// A request for a job of this text, which stands in a folder.
pub(crate) fn submit(spec: String, folder: &Path) -> v1::SubmitRequest {
    v1::SubmitRequest {
        spec,
        format: v1::SpecFormat::Json.into(),
        submit_dir: folder.display().to_string(),
        ..v1::SubmitRequest::default()
    }
}

/// All jobs.
pub(crate) async fn jobs(client: &Client) -> Vec<v1::Job> {
    let (mut all, mut page) = (Vec::new(), None);
    loop {
        let request = v1::ListJobsRequest { page, ..Default::default() };
        let answer = client.jobs(request).await.expect("it answers");
        all.extend(answer.jobs);
        let info = answer.page.expect("a list says where it ends");
        if info.next_key.is_empty() {
            return all;
        }
        page = Some(v1::Page { after_key: info.next_key, ..Default::default() });
    }
}

/// Whether a job in this state has ended.
pub(crate) fn has_ended(state: i32) -> bool {
    matches!(
        v1::JobState::try_from(state),
        Ok(v1::JobState::Succeeded | v1::JobState::Failed | v1::JobState::Cancelled)
    )
}

/// Median and 99th percentile in milliseconds.
pub(crate) fn percentiles(took: &[Duration]) -> (f64, f64) {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)];
    (at(50).as_secs_f64() * 1e3, at(99).as_secs_f64() * 1e3)
}

/// Prints median and 99th percentile of a step.
pub(crate) fn print(name: &str, took: &[Duration]) {
    let (p50, p99) = percentiles(took);
    println!("{name}_p50 {p50:.2} ms");
    println!("{name}_p99 {p99:.2} ms");
}

/// How often something can be done in this time, per second.
pub(crate) fn rate(count: usize, began: Instant) -> f64 {
    count as f64 / began.elapsed().as_secs_f64()
}

/// CPU time of a process itself, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, rest) = text.rsplit_once(") ").expect("its name is in parentheses");
    let ticks = |at: usize| rest.split(' ').nth(at).and_then(|ticks| ticks.parse::<u64>().ok());
    // The kernel counts a hundred of them a second, wherever this runs.
    (ticks(11).unwrap_or(0) + ticks(12).unwrap_or(0)) as f64 / 100.0
}

/// Memory that a process holds, in KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let count = line.and_then(|line| line.split_whitespace().next());
    count.and_then(|count| count.parse().ok()).expect("the kernel says so")
}
