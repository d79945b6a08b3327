//! What a shim runs: prepared once, then asked for each task of its chain.

use super::account::{self, Account};
use super::checkpoint::CheckpointRequest;
use super::command;
use super::environment::{Scene, Variables};
use super::error::PrepareError;
use super::files::{self, TaskFiles};
use super::mpi;
use super::orders::Orders;
use super::private;
use super::rlimits;
use crate::cgroup::{CpuBound, Entrance, Group, GroupLimits};
use crate::delivery::{Delivery, Target};
use crate::paths::{Paths, tag};
use crate::shim::CPUS;
use crate::sys::{Identity, ProcessLimit};
use nix::libc;
use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use yard_common::id::{AttemptNumber, TaskIndex};
use yard_common::spec::JobSpec;
use yard_common::spec::policy::SignalName;
use yard_common::spec::run::{Command, Launch};
use yard_common::spec::scalar::Limit;

/// What this node has to do for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Its ranks, all started by the shim.
    Ranks,
    /// One process that starts the ranks of the whole gang.
    Launcher,
    /// Programs that the launcher on the first node asks for.
    Helpers,
}

/// One process to start.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its rank on this node; none for a launcher.
    pub(crate) local_rank: Option<u32>,
    /// Paths to try.
    pub(crate) paths: Vec<CString>,
    /// Words, the name first.
    pub(crate) words: Vec<CString>,
    /// `NAME=value` each.
    pub(crate) variables: Vec<CString>,
    /// Files for output and errors.
    pub(crate) streams: [PathBuf; 2],
}

/// The processes of one task on this node.
#[derive(Debug)]
pub(crate) struct TaskPlan {
    /// What to do.
    pub(crate) part: Part,
    /// What to start at once.
    pub(crate) processes: Vec<Process>,
    files: TaskFiles,
    task: TaskIndex,
    attempt: AttemptNumber,
    end_s: Option<u64>,
    /// Variables of the gang's launcher and of what it starts; none: there is no launcher.
    launcher: Option<Variables>,
}

/// An assignment that is ready to run.
#[derive(Debug)]
pub(crate) struct Plan {
    orders: Orders,
    spec: JobSpec,
    account: Account,
    scratch: PathBuf,
    /// Where its ranks put what nobody else shall see.
    tmp: PathBuf,
    directory: CString,
    limits: Vec<ProcessLimit>,
    /// What it does not get on this node, for people.
    notes: Vec<String>,
    socket: Option<PathBuf>,
    hostfile: PathBuf,
    /// The group of its ranks.
    pub(crate) group: Group,
    entrance: Option<Entrance>,
}

impl Plan {
    /// Checks everything that can be checked before the start, and makes what is needed. `home` is
    /// the directory of the shim.
    pub(crate) fn prepare(orders: Orders, home: &Path) -> Result<Plan, PrepareError> {
        let assignment = &orders.assignment;
        let spec = JobSpec::from_json(&assignment.spec)
            .map_err(|problems| PrepareError::Spec(problems.to_string()))?;
        let shape = || PrepareError::Shape {
            node: assignment.node_rank,
            nodes: assignment.nodes.len(),
            group: assignment.group,
        };
        assignment.node().ok_or_else(shape)?;
        if !is_launched(spec.launch) {
            return Err(PrepareError::Launcher(spec.launch));
        }
        let many = spec.launch == Launch::Mpi && assignment.nodes.len() > 1;
        if many && orders.site.gang_dir.is_none() {
            return Err(PrepareError::NoGang(assignment.nodes.len()));
        }
        let policy = account::Policy {
            node: &orders.site.node,
            as_agent: orders.site.jobs_as_agent,
            roots: &orders.site.root_logins,
        };
        let account = account::resolve(assignment.login.as_deref(), &policy)?;
        let scratch = Paths::new(&orders.site.root).scratch(assignment.job, orders.id);
        files::make_scratch(&scratch, &account)?;
        let directory = working_directory(&orders, &spec, &scratch)?;
        let tmp = private::tmp(&orders.site, &account, &scratch.join("tmp"), &directory);
        let directory = text(&directory.to_string_lossy())?;
        let group = make_group(&orders, &spec, home)?;
        let entrance = group.open_v2()?;
        let hostfile = home.join("hostfile");
        files::write_hostfile(&hostfile, assignment)?;
        let socket = (spec.launch == Launch::Mpi).then(|| home.join("job.sock"));
        if socket.is_some() {
            write_script(&home.join(mpi::SCRIPT), &orders.site.program)?;
        }
        let (limits, notes) = rlimits::of(&spec.limits);
        Ok(Plan {
            orders,
            spec,
            account,
            scratch,
            tmp,
            directory,
            limits,
            notes,
            socket,
            hostfile,
            group,
            entrance,
        })
    }

    /// Kills every process of the group, once. What is started later moves into the group by
    /// itself: kernels since 6.14, and older ones that were mended alike, kill at birth whatever
    /// they are to start in a group that was ever killed as a whole.
    pub(crate) fn kill(&mut self) {
        self.group.kill();
        if let Some(entrance) = &mut self.entrance {
            entrance.directory = None;
        }
    }

    /// The cgroup that its processes start in.
    pub(crate) fn entrance(&self) -> Option<&Entrance> {
        self.entrance.as_ref()
    }

    /// Whose processes it starts.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.account.identity.as_ref()
    }

    /// Whether its processes keep what root may do.
    pub(crate) fn is_privileged(&self) -> bool {
        self.account.uid == 0
    }

    /// The user of the job.
    pub(crate) fn owner(&self) -> (u32, u32) {
        (self.account.uid, self.account.gid)
    }

    /// The shell of somebody who visits the job: its user's, or the job's where that is no shell.
    fn shell(&self) -> String {
        let own = self.account.shell.as_str();
        let is_shell =
            own.starts_with('/') && !own.ends_with("/nologin") && !own.ends_with("/false");
        let of_job = || self.spec.shell.first().map(|word| word.as_str().to_string());
        let own = Some(own.to_string()).filter(|_| is_shell);
        own.or_else(of_job).unwrap_or_else(|| "/bin/sh".into())
    }

    /// The working directory.
    pub(crate) fn directory(&self) -> &CString {
        &self.directory
    }

    /// Limits of each process.
    pub(crate) fn limits(&self) -> &[ProcessLimit] {
        &self.limits
    }

    /// The mode that new files do not get.
    pub(crate) fn umask(&self) -> u32 {
        u32::from(self.spec.umask.bits())
    }

    /// The signal that asks ranks to stop.
    pub(crate) fn stop_signal(&self) -> i32 {
        number(self.spec.stop.signal.0)
    }

    /// How a checkpoint is asked for; none: the job has none.
    pub(crate) fn checkpoint(&self) -> Option<CheckpointRequest<'_>> {
        let checkpoint = self.spec.checkpoint.as_ref()?;
        let limit_ms = self.orders.assignment.time_limit_ms;
        Some(CheckpointRequest {
            scratch: &self.scratch,
            owner: self.owner(),
            signal: checkpoint.signal.map(|signal| number(signal.0)),
            due_ms: limit_ms.map(|limit| limit.saturating_sub(checkpoint.notice.ms())),
        })
    }

    /// Whether the signal goes to every process, not to the main ones alone.
    pub(crate) fn stops_all(&self) -> bool {
        self.spec.stop.to == yard_common::spec::policy::StopTo::All
    }

    /// The job's own grace in milliseconds.
    pub(crate) fn grace_ms(&self) -> u64 {
        self.spec.stop.grace.ms()
    }

    /// What the output of one rank may take.
    pub(crate) fn log_bytes_max(&self) -> u64 {
        self.spec.logs.max_per_rank.0
    }

    /// The socket for the job's own processes, if it needs one.
    pub(crate) fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Position of a node of the gang by its name.
    pub(crate) fn node_of(&self, name: &str) -> Option<u32> {
        let position = self.orders.assignment.nodes.iter().position(|node| node.name == name)?;
        u32::try_from(position).ok()
    }

    /// Where the output of a task goes.
    pub(crate) fn log_directory(&self, task: TaskIndex, attempt: AttemptNumber) -> PathBuf {
        let paths = Paths::new(&self.orders.site.root);
        paths.attempt_logs(self.orders.assignment.job, task, attempt)
    }

    /// Whether output goes to a directory of the user's as well.
    pub(crate) fn is_delivered(&self) -> bool {
        self.spec.logs.dir.is_some()
    }

    /// What becomes of the output of an attempt beside the node's own files.
    fn delivery(&self, task: TaskIndex, attempt: AttemptNumber) -> Option<Delivery> {
        let Orders { assignment, site, .. } = &self.orders;
        let dir = self.spec.logs.dir.as_ref()?.as_str().to_string();
        let job = assignment.job;
        let folder = match self.spec.array.is_some() || self.spec.sweep.is_some() {
            true => format!("{job}/task-{}/attempt-{attempt}", assignment.shown(task)),
            false => format!("{job}/attempt-{attempt}"),
        };
        let target = Target::new(dir, self.identity(), self.umask());
        let (node, bytes_max) = (site.node.clone(), self.log_bytes_max());
        Some(Delivery { target, folder, node, bytes_max })
    }

    /// The files of a task, with a note of where else they go.
    fn files(&self, task: TaskIndex, attempt: AttemptNumber) -> Result<TaskFiles, PrepareError> {
        let directory = self.log_directory(task, attempt);
        let files = files::make_task(directory, &self.hostfile, &self.account)?;
        if let Some(delivery) = self.delivery(task, attempt) {
            let path = || files.directory.clone();
            let noted = delivery.note(&files.directory);
            noted.map_err(|source| PrepareError::Scratch { path: path(), source })?;
        }
        Ok(files)
    }

    /// What the processes of a task find.
    fn scene<'a>(
        &'a self,
        files: &'a TaskFiles,
        task: TaskIndex,
        attempt: AttemptNumber,
        end_s: Option<u64>,
    ) -> Scene<'a> {
        Scene {
            spec: &self.spec,
            orders: &self.orders,
            account: &self.account,
            scratch: &self.scratch,
            tmp: &self.tmp,
            files,
            task,
            attempt,
            end_s,
            socket: self.socket.as_deref(),
        }
    }

    /// What this node does for a task of the chain.
    pub(crate) fn task(
        &self,
        task: TaskIndex,
        attempt: AttemptNumber,
    ) -> Result<TaskPlan, PrepareError> {
        let assignment = &self.orders.assignment;
        let files = self.files(task, attempt)?;
        files.note(&self.notes);
        let end_s = assignment.time_limit_ms.and_then(|ms| wall_s()?.checked_add(ms / 1_000));
        let scene = self.scene(&files, task, attempt, end_s);
        let first = assignment.node_rank == 0;
        let part = match self.spec.launch {
            Launch::Mpi | Launch::Custom if !first => Part::Helpers,
            Launch::Mpi => Part::Launcher,
            _ => Part::Ranks,
        };
        let mut launcher = (part != Part::Ranks).then(|| scene.variables(None));
        if let (Some(variables), Some(socket)) = (&mut launcher, &self.socket) {
            let script = socket.with_file_name(mpi::SCRIPT);
            mpi::settings(&self.spec, assignment, &script, self.account.uid, variables);
            for rank in self.ranks() {
                let owner = assignment.first_rank().saturating_add(rank).to_string();
                for stream in files.streams(&owner) {
                    files::make_stream(&stream, &self.account)?;
                }
            }
        }
        let processes = match (part, &launcher) {
            (Part::Launcher, Some(variables)) => {
                let command = command::words(&self.spec, self.command()?, variables);
                let hostfile = &files.hostfile;
                let words = mpi::launcher(&self.spec, assignment, hostfile, command);
                vec![process(None, &words, variables, files.streams("launcher"))?]
            }
            (Part::Helpers | Part::Launcher, _) => Vec::new(),
            (Part::Ranks, _) => {
                let mut processes = Vec::new();
                for local_rank in self.ranks() {
                    let variables = scene.variables(Some(local_rank));
                    let words = command::words(&self.spec, self.command()?, &variables);
                    let owner = assignment.first_rank().saturating_add(local_rank).to_string();
                    let streams = files.streams(&owner);
                    processes.push(process(Some(local_rank), &words, &variables, streams)?);
                }
                processes
            }
        };
        Ok(TaskPlan { part, processes, files, task, attempt, end_s, launcher })
    }

    /// Whether the job has a command of its own to run before its tasks.
    pub(crate) fn has_preparation(&self) -> bool {
        self.spec.prepare.is_some()
    }

    /// How long that may take, in milliseconds.
    pub(crate) fn prepare_ms(&self) -> u64 {
        self.spec.prepare_timeout.ms()
    }

    /// The command that is run once before the first task, with what the task finds but for what
    /// only ranks have.
    pub(crate) fn preparation(&self) -> Result<Process, PrepareError> {
        let assignment = &self.orders.assignment;
        let shape = || PrepareError::Shape {
            node: assignment.node_rank,
            nodes: assignment.nodes.len(),
            group: assignment.group,
        };
        let command = self.spec.prepare.as_ref().ok_or_else(shape)?;
        let (task, attempt) = self.orders.chain.tasks().next().ok_or_else(shape)?;
        let files = self.files(task, attempt)?;
        let scene = self.scene(&files, task, attempt, None);
        let variables = scene.variables(None);
        let words = command::alone(&self.spec, command, &variables);
        process(None, &words, &variables, files.streams("prepare"))
    }

    /// The program that makes the directory of the output, as the job's user.
    pub(crate) fn folder_maker(&self) -> Result<Process, PrepareError> {
        let shape = || PrepareError::Shape {
            node: self.orders.assignment.node_rank,
            nodes: self.orders.assignment.nodes.len(),
            group: self.orders.assignment.group,
        };
        let (task, attempt) = self.orders.chain.tasks().next().ok_or_else(shape)?;
        let files = self.files(task, attempt)?;
        let delivery = self.delivery(task, attempt).ok_or_else(shape)?;
        let Delivery { target, folder, node, .. } = delivery;
        let words = ["yard", "deliver", target.dir.as_str(), &folder, &node].map(text);
        Ok(Process {
            local_rank: None,
            // The program itself, wherever it lies, and also when it was replaced meanwhile.
            paths: vec![text("/proc/self/exe")?],
            words: words.into_iter().collect::<Result<_, _>>()?,
            variables: Vec::new(),
            streams: files.streams("prepare"),
        })
    }

    /// Local ranks that this node starts or makes room for. `custom` has one for the whole gang.
    fn ranks(&self) -> std::ops::Range<u32> {
        let ranks = self.orders.assignment.node().map_or(0, |node| node.ranks);
        match self.spec.launch {
            Launch::Custom => 0..1,
            _ => 0..ranks,
        }
    }

    fn command(&self) -> Result<&Command, PrepareError> {
        let assignment = &self.orders.assignment;
        let role = self.spec.roles.get(usize::from(assignment.group)).map(|role| &role.command);
        role.or(self.spec.command.as_ref()).ok_or(PrepareError::Shape {
            node: assignment.node_rank,
            nodes: assignment.nodes.len(),
            group: assignment.group,
        })
    }
}

impl TaskPlan {
    /// A program that the launcher of the gang asks this node to run.
    pub(crate) fn helper(&self, plan: &Plan, words: &[String]) -> Result<Process, PrepareError> {
        // The words are Open MPI's own, made for a shell: this is what `ssh` does with them.
        let line = ["/bin/sh".to_string(), "-c".to_string(), words.join(" ")];
        process(None, &line, &self.variables(plan), self.files.streams("launcher"))
    }

    /// Variables of a process that is no rank.
    fn variables(&self, plan: &Plan) -> Variables {
        let scene = || plan.scene(&self.files, self.task, self.attempt, self.end_s);
        self.launcher.clone().unwrap_or_else(|| scene().variables(None))
    }

    /// A program that somebody runs beside a rank, with the rank's variables. Without words it is
    /// a shell.
    pub(crate) fn visitor(
        &self,
        plan: &Plan,
        local_rank: u32,
        words: &[String],
        term: Option<&str>,
    ) -> Result<Process, PrepareError> {
        let rank = self.processes.iter().find(|process| process.local_rank == Some(local_rank));
        // Ranks that somebody else starts, such as `mpirun`, have what all of them have.
        let mut variables = rank.map_or_else(|| self.variables(plan), Process::variables);
        if let Some(term) = term {
            variables.insert("TERM".into(), term.into());
        }
        let shell = [plan.shell()];
        let words = if words.is_empty() { &shell } else { words };
        process(Some(local_rank), words, &variables, Default::default())
    }
}

impl Process {
    fn variables(&self) -> Variables {
        let texts = self.variables.iter().map(|text| text.to_string_lossy());
        texts.filter_map(|text| text.split_once('=').map(|(n, v)| (n.into(), v.into()))).collect()
    }
}

/// Whether this release has the launcher. The others are refused at submission.
fn is_launched(launch: Launch) -> bool {
    match launch {
        Launch::Plain | Launch::Torch | Launch::Mpi | Launch::Custom => true,
        Launch::Torchrun
        | Launch::Tensorflow
        | Launch::Jax
        | Launch::Horovod
        | Launch::Deepspeed
        | Launch::Chainer
        | Launch::Cntk
        | Launch::Caffe
        | Launch::Caffe2
        | Launch::Ray => false,
    }
}

fn number(signal: SignalName) -> i32 {
    match signal {
        SignalName::Hup => libc::SIGHUP,
        SignalName::Int => libc::SIGINT,
        SignalName::Quit => libc::SIGQUIT,
        SignalName::Usr1 => libc::SIGUSR1,
        SignalName::Usr2 => libc::SIGUSR2,
        SignalName::Term => libc::SIGTERM,
    }
}

fn process(
    local_rank: Option<u32>,
    words: &[String],
    variables: &Variables,
    streams: [PathBuf; 2],
) -> Result<Process, PrepareError> {
    let path = variables.get("PATH").map_or("", String::as_str);
    let program = words.first().map_or("", String::as_str);
    let texts = |list: Vec<String>| list.iter().map(|one| text(one)).collect::<Result<_, _>>();
    Ok(Process {
        local_rank,
        paths: texts(command::paths(program, path))?,
        words: texts(words.to_vec())?,
        variables: texts(
            variables.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        )?,
        streams,
    })
}

/// Where ranks start. It is looked at as the agent; the rank enters it as the user.
fn working_directory(
    orders: &Orders,
    spec: &JobSpec,
    scratch: &Path,
) -> Result<PathBuf, PrepareError> {
    let assignment = &orders.assignment;
    let root = assignment.code_dir.as_ref().or(assignment.submit_dir.as_ref());
    let root = root.map_or(scratch, Path::new);
    let path = spec.workdir.as_ref().map_or(root.to_path_buf(), |at| root.join(at.as_str()));
    if path.is_dir() {
        return Ok(path);
    }
    Err(PrepareError::Workdir { path, node: orders.site.node.clone() })
}

/// The group of the ranks, with its limits.
fn make_group(orders: &Orders, spec: &JobSpec, home: &Path) -> Result<Group, PrepareError> {
    let Orders { assignment, site, .. } = orders;
    let amounts = &assignment.amounts;
    let own = std::fs::read_to_string(home.join(CPUS)).ok().and_then(|text| text.parse().ok());
    let limits = GroupLimits {
        memory_bytes: Some(amounts.memory_bytes).filter(|bytes| *bytes > 0),
        pids: match spec.limits.pids {
            None => Some(rlimits::pids()),
            Some(Limit::Max) => None,
            Some(Limit::At(count)) => Some(count.get()),
        },
        cpu_milli: Some(amounts.cpu_milli).filter(|milli| *milli > 0),
        cpus: match own {
            Some(cpus) => CpuBound::Own(cpus),
            None if site.cpus_bound && amounts.cpu_milli > 0 => CpuBound::Time,
            None => CpuBound::Free,
        },
    };
    let group = site.cgroups().group(&tag(orders.id), &limits)?;
    if let Some(rule) = site.gpu_nodes.rule(&assignment.gpus) {
        group.allow_devices(&rule, site.cgroup_programs)?;
    }
    Ok(group)
}

fn write_script(path: &Path, program: &str) -> Result<(), PrepareError> {
    let failed = |source| PrepareError::Scratch { path: path.into(), source };
    std::fs::write(path, mpi::script(program)).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).map_err(failed)
}

fn text(text: &str) -> Result<CString, PrepareError> {
    CString::new(text).map_err(|_| PrepareError::Nul(text.to_string()))
}

fn wall_s() -> Option<u64> {
    Some(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::spec::{Draft, Feature, Features};

    #[test]
    fn what_a_coordinator_takes_can_be_launched() {
        let there = [Feature::LaunchTorch, Feature::LaunchMpi, Feature::LaunchCustom];
        let features = there.into_iter().fold(Features::NONE, Features::with);
        for launch in Launch::ALL.iter().copied() {
            let text = format!("command: a\nlaunch: {launch}");
            let taken = Draft::read(text.as_bytes(), None).validate(&features);
            assert_eq!(taken.is_ok(), is_launched(launch), "{launch}");
        }
    }
}
