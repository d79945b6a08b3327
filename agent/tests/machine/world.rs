//! What the stories have in common: a node with a driver, and what a coordinator would say.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;
use yard_agent::cgroup::{GpuNodes, Support};
use yard_agent::driver::{Driver, Handle, Options};
use yard_agent::launch::{Assignment, GangNode, GrantedGpu};
use yard_agent::logs::{AttemptLogs, Kind, Piece, Writer};
use yard_agent::paths::Paths;
use yard_common::id::{
    AllocationId, AttemptNumber, Generation, Incarnation, JobId, LeaseId, Sequence,
};
use yard_common::spec::JobSpec;
use yard_common::{Amounts, ExitCause};
use yard_core::agent::{
    AssignmentId, Chain, Desired, DesiredAssignment, DesiredPhase, Exit, Fence, Isolation, Lease,
    Report, ReportKind,
};

/// The program that is shim and killable agent.
pub(crate) const HOST: &str = env!("CARGO_BIN_EXE_yard-agent-host");
/// No story takes this long. What waits longer fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// A lease that nobody outlives.
pub(crate) const LONG_MS: u64 = 3_600_000;

/// An assignment of group 0.
pub(crate) fn id(allocation: u64) -> AssignmentId {
    AssignmentId { allocation: AllocationId(allocation), group: 0 }
}

/// A job's details, on one node.
pub(crate) fn assignment(yaml: &str) -> Assignment {
    let spec = JobSpec::from_yaml(yaml).unwrap_or_else(|problems| panic!("{problems}"));
    let ranks = spec.ranks_per_node.fixed().map_or(1, |ranks| ranks.get());
    let own = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap();
    Assignment {
        job: JobId(812),
        job_name: spec.name().into(),
        workspace: "default".into(),
        experiment: None,
        owner: "ann".into(),
        login: Some(own.name),
        spec: spec.to_json(),
        task_count: spec.task_count().unwrap_or(1),
        group: 0,
        group_name: "main".into(),
        node_rank: 0,
        nodes: vec![GangNode { group: 0, name: "n1".into(), address: "127.0.0.1".into(), ranks }],
        gpus: Vec::<GrantedGpu>::new(),
        amounts: Amounts { cpu_milli: 2_000, memory_bytes: 0, disk_bytes: 0 },
        params: Vec::new(),
        inherited: Vec::new(),
        code_dir: None,
        submit_dir: None,
        last_cause: None,
        shown: Vec::new(),
        time_limit_ms: None,
        gpu_parts: 0,
    }
}

/// What the coordinator wants of one assignment.
pub(crate) fn wanted(allocation: u64, chain: Chain, phase: DesiredPhase) -> DesiredAssignment {
    DesiredAssignment {
        id: id(allocation),
        job: JobId(812),
        keep: chain.len(),
        chain,
        phase,
        isolation: Isolation::Fenced,
    }
}

/// The chain of one task.
pub(crate) fn one() -> Chain {
    Chain::one(0, AttemptNumber(1))
}

/// A set of the given generation.
pub(crate) fn set(generation: u64, assignments: Vec<DesiredAssignment>) -> Desired {
    let fence = Fence { incarnation: Incarnation(1), generation: Generation(generation) };
    Desired { fence, lease: LeaseId(1), assignments, check: 0 }
}

/// A lease whose deadlines are all so far ahead.
pub(crate) fn lease(ahead_ms: u64) -> Lease {
    let at_ms = yard_agent::boot_ms() + ahead_ms;
    Lease {
        id: LeaseId(1),
        strict_ms: at_ms,
        fenced_ms: at_ms,
        tolerant_ms: at_ms,
        maintenance_ms: 0,
    }
}

/// Options of a driver in a directory.
pub(crate) fn options(root: &Path, node: &str, cgroups: Support) -> Options {
    Options {
        root: root.into(),
        node: node.into(),
        program: HOST.into(),
        job_path: Options::JOB_PATH.into(),
        gang_dir: None,
        cgroups,
        jobs_as_agent: false,
        cpus_bound: true,
        // The stories run as whoever runs the tests.
        root_logins: vec!["root".into()],
        gpu_nodes: GpuNodes::default(),
        begin: (Fence::NONE, Sequence(0)),
        checks: None,
    }
}

/// The control groups of this machine, under a name of the story's own.
pub(crate) fn cgroups(root: &Path) -> Support {
    Support::detect(&group_name(root))
}

pub(crate) fn group_name(root: &Path) -> String {
    let name = root.file_name().unwrap().to_string_lossy();
    format!("yard-test-{}", name.trim_start_matches('.'))
}

/// A directory of an agent, that leaves neither processes nor groups when the story is over, even
/// if it went wrong.
pub(crate) struct Root(TempDir);

impl Root {
    pub(crate) fn new() -> Root {
        Root(tempfile::tempdir().unwrap())
    }

    /// Below a directory of the story's own.
    pub(crate) fn below(directory: &Path) -> Root {
        Root(tempfile::tempdir_in(directory).unwrap())
    }

    /// Outside the places that jobs have for themselves, and where other users can pass. Only
    /// root can make it.
    pub(crate) fn open_to_all() -> Root {
        let directory = tempfile::tempdir_in("/var/lib").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(directory.path(), mode).unwrap();
        Root(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        crate::leftovers::kill_below(self.path());
        let support = cgroups(self.path());
        let groups = support.v2.iter().chain(support.v1.iter().map(|(_, path)| path));
        for group in groups {
            let inner = std::fs::read_dir(group).into_iter().flatten().flatten();
            for inner in inner.filter(|entry| entry.path().is_dir()) {
                // A group empties a moment after its processes have ended: those that stood by end
                // by themselves, and whoever inherits them reaps them.
                let end = std::time::Instant::now() + Duration::from_secs(10);
                while std::fs::remove_dir(inner.path()).is_err() && std::time::Instant::now() < end
                {
                    let _ = std::fs::write(inner.path().join("cgroup.kill"), "1");
                    let left = std::fs::read_to_string(inner.path().join("cgroup.procs"));
                    for pid in left.iter().flat_map(|pids| pids.lines()) {
                        let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap_or(0));
                        if pid.as_raw() > 1 {
                            let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
                        }
                    }
                    std::thread::yield_now();
                }
            }
            let _ = std::fs::remove_dir(group);
        }
    }
}

/// A node whose driver runs in this process.
pub(crate) struct Node {
    pub(crate) root: Root,
    pub(crate) handle: Handle,
    pub(crate) heard: Heard,
    reports: tokio::sync::mpsc::Receiver<Report>,
    generation: u64,
}

/// What a coordinator has heard.
#[derive(Default, Debug)]
pub(crate) struct Heard {
    pub(crate) reports: Vec<Report>,
}

impl Heard {
    /// How each task ended, in order, and with what evidence.
    pub(crate) fn exits(
        &self,
        of: AssignmentId,
    ) -> Vec<(ExitCause, Option<ExitCause>, Option<u32>)> {
        let of = self.reports.iter().filter(|report| report.assignment == of);
        let exits = of.filter_map(|report| match &report.what {
            ReportKind::Exited(exits) => Some(exits),
            _ => None,
        });
        let each = |exit: &Exit| {
            let one = (exit.cause, exit.status, exit.rank);
            vec![one; exit.link.tasks.len as usize]
        };
        exits.flatten().flat_map(each).collect()
    }

    /// The causes alone.
    pub(crate) fn causes(&self, of: AssignmentId) -> Vec<ExitCause> {
        self.exits(of).into_iter().map(|(cause, _, _)| cause).collect()
    }

    /// Tasks that were reported as started.
    pub(crate) fn started(&self, of: AssignmentId) -> u32 {
        let of = self.reports.iter().filter(|report| report.assignment == of);
        of.map(|report| match &report.what {
            ReportKind::Started(chain) => chain.len(),
            _ => 0,
        })
        .sum()
    }

    pub(crate) fn is_reaped(&self, of: AssignmentId) -> bool {
        self.reports.iter().any(|r| r.assignment == of && r.what == ReportKind::Reaped)
    }

    pub(crate) fn is_ready(&self, of: AssignmentId) -> bool {
        self.reports.iter().any(|r| r.assignment == of && r.what == ReportKind::Ready)
    }

    /// Takes a report in; one that was heard before changes nothing.
    pub(crate) fn hear(&mut self, report: Report) {
        if self.reports.last().is_none_or(|last| last.sequence < report.sequence) {
            self.reports.push(report);
        }
    }
}

impl Node {
    /// A node with a long lease.
    pub(crate) async fn start() -> Node {
        Node::with(Root::new(), "n1", |_| {}).await
    }

    pub(crate) async fn with(root: Root, name: &str, change: impl FnOnce(&mut Options)) -> Node {
        let mut options = options(root.path(), name, cgroups(root.path()));
        change(&mut options);
        let handle = Driver::start(options).await.unwrap();
        let reports = handle.connected().await.unwrap();
        handle.lease(lease(LONG_MS)).await.unwrap();
        Node { root, handle, reports, heard: Heard::default(), generation: 0 }
    }

    pub(crate) async fn desire(
        &mut self,
        assignments: Vec<DesiredAssignment>,
        details: Vec<(AssignmentId, Assignment)>,
    ) {
        self.generation += 1;
        self.handle.desired(set(self.generation, assignments), details).await.unwrap();
    }

    /// Runs one job of one node.
    pub(crate) async fn run(&mut self, allocation: u64, yaml: &str) {
        let wanted = wanted(allocation, one(), DesiredPhase::Run);
        self.desire(vec![wanted], vec![(id(allocation), assignment(yaml))]).await;
    }

    /// Hears reports until something holds.
    pub(crate) async fn until(&mut self, holds: impl Fn(&Heard) -> bool) {
        while !holds(&self.heard) {
            let next = tokio::time::timeout(PATIENCE, self.reports.recv()).await;
            let report = next.unwrap_or_else(|_| panic!("heard only {:#?}", self.heard));
            let report = report.expect("the driver goes on");
            self.handle.acknowledged(report.sequence).await.unwrap();
            self.heard.hear(report);
        }
    }

    /// Runs a job to its end, and says how it ended.
    pub(crate) async fn end_of(&mut self, allocation: u64, yaml: &str) -> ExitCause {
        self.run(allocation, yaml).await;
        self.until(|heard| heard.is_reaped(id(allocation))).await;
        self.heard.causes(id(allocation))[0]
    }

    pub(crate) fn output(&self, task: u32, writer: Writer, kind: Kind) -> String {
        output(self.root.path(), task, writer, kind)
    }
}

/// What a rank wrote in the first attempt of a task.
pub(crate) fn output(root: &Path, task: u32, writer: Writer, kind: Kind) -> String {
    let logs = AttemptLogs::new(&Paths::new(root), JobId(812), task, AttemptNumber(1));
    let read = logs.open(writer, kind).unwrap().read(0, 65_536).unwrap();
    let Piece::Bytes(bytes) = read else { panic!("{read:?}") };
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Looks until something holds that nobody tells of, such as a file.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < end, "it never came about: {what}");
        std::thread::yield_now();
    }
}

/// Whether a process lives.
pub(crate) fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The lines of `NAME=value` as a map.
pub(crate) fn variables(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines.map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// An agent in a process of its own, to be killed.
pub(crate) struct Agent {
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Agent {
    pub(crate) fn start(root: &Path) -> Agent {
        Agent::with_cgroup(root, &group_name(root))
    }

    pub(crate) fn with_cgroup(root: &Path, cgroup: &str) -> Agent {
        Agent::run(Command::new(HOST).arg("agent").arg(root).arg(cgroup))
    }

    /// By a command that becomes the agent.
    pub(crate) fn run(command: &mut Command) -> Agent {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Agent { child, input, lines }
    }

    fn say(&mut self, line: &str) {
        // An agent that was killed does not hear it.
        let _ = writeln!(self.input, "{line}");
    }

    pub(crate) fn lease(&mut self, ahead_ms: u64) {
        self.say(&format!("lease {ahead_ms}"));
    }

    pub(crate) fn acknowledge(&mut self, up_to: Sequence) {
        self.say(&format!("acknowledged {up_to}"));
    }

    pub(crate) fn desire(&mut self, set: &Desired, details: &[(AssignmentId, Assignment)]) {
        let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let set = hex(minicbor::to_vec(set).unwrap());
        let details = hex(minicbor::to_vec(details).unwrap());
        self.say(&format!("desired {set} {details}"));
    }

    /// The next report.
    pub(crate) fn report(&mut self) -> Report {
        decode(&self.lines.recv_timeout(PATIENCE).expect("the agent reports"))
    }

    /// Hears reports until something holds.
    pub(crate) fn until(&mut self, heard: &mut Heard, holds: impl Fn(&Heard) -> bool) {
        while !holds(heard) {
            let report = self.report();
            self.acknowledge(report.sequence);
            heard.hear(report);
        }
    }

    /// Hears reports until something holds. Returns false if the agent died first.
    pub(crate) fn until_or_death(
        &mut self,
        heard: &mut Heard,
        holds: impl Fn(&Heard) -> bool,
    ) -> bool {
        while !holds(heard) {
            let report = match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => decode(&line),
                Err(mpsc::RecvTimeoutError::Disconnected) => return false,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("heard only {heard:#?}"),
            };
            self.acknowledge(report.sequence);
            heard.hear(report);
        }
        true
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// As one that is stopped in order.
    pub(crate) fn leave(self) {
        let Agent { mut child, input, .. } = self;
        drop(input);
        assert!(child.wait().unwrap().success());
    }

    /// As `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn decode(line: &str) -> Report {
    let digit = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..line.len()).step_by(2).map(digit).collect();
    minicbor::decode(&bytes).unwrap()
}

/// The directory of the shim of an assignment.
pub(crate) fn shim_directory(root: &Path, allocation: u64) -> PathBuf {
    Paths::new(root).shim(id(allocation))
}
