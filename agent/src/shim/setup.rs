//! The start of a shim: alone in its session, and then with its record, its socket and its plan.

use super::enlist::{Enlisted, StandBy};
use super::record::{Entry, History, Writer};
use super::run::Shim;
use super::{DETAIL, RECORD, SOCKET, ShimError, VISITS};
use crate::cgroup::CgroupError;
use crate::gang::LocalGang;
use crate::launch::{Orders, Plan, PrepareError};
use crate::lease_file::LeaseFile;
use crate::paths::Paths;
use crate::sys;
use crate::wire::{Wire, short_path};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use yard_common::ExitCause;
use yard_common::limits::DETAIL_BYTES_MAX;

/// A shim with an assignment, and the way in which it hears of its children.
pub(super) struct Ready {
    enlisted: Enlisted,
    signals: SignalFd,
}

fn step(step: &'static str) -> impl Fn(io::Error) -> ShimError {
    move |source| ShimError::Setup { step, source }
}

fn os(step: &'static str) -> impl Fn(nix::errno::Errno) -> ShimError {
    move |errno| ShimError::Setup { step, source: errno.into() }
}

/// Does everything that is the same for all assignments, and waits for one. None: the agent is
/// gone.
pub(super) fn stand_by(groups: Vec<PathBuf>) -> Result<Option<Ready>, ShimError> {
    // It fails for the leader of a group only, which nobody makes us.
    let _ = nix::unistd::setsid();
    let stream = sys::take_stdin().map_err(step("take the connection"))?;
    nix::sys::prctl::set_child_subreaper(true).map_err(os("become subreaper"))?;
    let signals = signals().map_err(os("set up signals"))?;
    // The last to be killed for memory. Those that may not say so live with it.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-999");
    sys::leave_keyring();
    // Directories are made for others to pass, whatever the agent's own habit is.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let stand_by = StandBy::new(stream, groups);
    let waited = stand_by.wait().map_err(step("wait for an assignment"))?;
    Ok(waited.map(|enlisted| Ready { enlisted, signals }))
}

/// Everything between the assignment and the loop. Preparing may fail; that is told to the agent.
pub(super) fn setup(ready: Ready) -> Result<Shim, ShimError> {
    let Ready { enlisted, signals } = ready;
    let Enlisted { directory, lock, log, stand_by } = enlisted;
    let directory = directory.as_path();
    nix::unistd::dup2_stderr(log).map_err(os("open the log"))?;
    std::env::set_current_dir(directory).map_err(step("enter the directory"))?;
    let home = File::open(directory).map_err(step("open the directory"))?;
    let orders = read_orders(directory);
    let mut record = Writer::create(&directory.join(RECORD)).map_err(ShimError::Record)?;
    let mut history = History::default();
    let listener = listen(&home, directory, SOCKET).map_err(step("listen"))?;
    let made = orders.as_ref().map(|orders| Entry::Made {
        id: orders.id,
        job: orders.assignment.job,
        boot: orders.site.boot,
        at_ms: sys::boot_ms(),
    });
    if let Ok(made) = &made {
        record.append(made).map_err(ShimError::Record)?;
        history.apply(made);
    }
    let open = |orders: &Orders| {
        let path = Paths::new(&orders.site.root).lease();
        LeaseFile::create(&path, orders.site.boot)
    };
    // Without it nothing could ever start, and nobody would hear why.
    let lease = orders.as_ref().ok().map(open).transpose().map_err(step("open the lease file"))?;
    let prepared = orders.map_err(Failure::from);
    let prepared = prepared.and_then(|orders| prepare(orders, directory, &home, stand_by.entered));
    let agent = Wire::new(stand_by.stream).map_err(step("use the connection"))?;
    let mut shim = Shim::new(lock, signals, listener, agent, record, history, lease);
    shim.entered = stand_by.groups;
    match prepared {
        Ok(prepared) => shim.on_prepared(prepared)?,
        Err(failure) => {
            eprintln!("{}", failure.text);
            shim.on_prepare_failed(failure.cause)?;
        }
    }
    Ok(shim)
}

/// What preparing gives.
pub(super) struct Prepared {
    pub(super) orders: Orders,
    pub(super) plan: Plan,
    pub(super) jobs: Option<UnixListener>,
    pub(super) gang: Option<(LocalGang, UnixListener)>,
    pub(super) visits: UnixListener,
}

/// Why there is no plan.
struct Failure {
    cause: ExitCause,
    text: String,
}

impl From<PrepareError> for Failure {
    fn from(error: PrepareError) -> Failure {
        Failure { cause: ExitCause::PrepareFailed(error.step()), text: error.to_string() }
    }
}

fn read_orders(directory: &Path) -> Result<Orders, PrepareError> {
    let bytes = std::fs::read(directory.join(DETAIL))
        .map_err(|error| PrepareError::Details(error.to_string()))?;
    if bytes.len() > 2 * DETAIL_BYTES_MAX {
        return Err(PrepareError::Details(format!("{} bytes", bytes.len())));
    }
    Orders::from_bytes(&bytes)
}

fn prepare(
    orders: Orders,
    directory: &Path,
    home: &File,
    entered: Result<(), CgroupError>,
) -> Result<Prepared, Failure> {
    let logs = orders.chain.tasks().next().map(|(task, attempt)| {
        Paths::new(&orders.site.root).attempt_logs(orders.assignment.job, task, attempt)
    });
    let entered = entered.map_err(PrepareError::from);
    let made = entered.and_then(|()| prepare_parts(orders, directory, home));
    // For people: the step alone does not say which value was wrong.
    if let (Err(error), Some(logs)) = (&made, logs) {
        let _ = std::fs::create_dir_all(&logs);
        let file = File::create(logs.join("prepare.err"));
        let _ = file.and_then(|mut file| writeln!(file, "{error}"));
    }
    Ok(made?)
}

fn prepare_parts(orders: Orders, directory: &Path, home: &File) -> Result<Prepared, PrepareError> {
    let plan = Plan::prepare(orders.clone(), directory)?;
    let (mut jobs, mut gang) = (None, None);
    if let Some(path) = plan.socket() {
        let failed = |source| PrepareError::Scratch { path: path.into(), source };
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("job.sock");
        jobs = Some(listen(home, directory, name).map_err(failed)?);
        let (uid, gid) = plan.owner();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(failed)?;
        }
        if let Some(at) = orders.site.gang_dir.as_ref().filter(|_| !is_alone(&orders)) {
            let local = LocalGang::new(at.into(), orders.id.allocation);
            let failed = |source| PrepareError::Scratch { path: at.into(), source };
            let listener = local.listen(orders.assignment.node_rank).map_err(failed)?;
            gang = Some((local, listener));
        }
    }
    let failed = |source| PrepareError::Scratch { path: directory.join(VISITS), source };
    let visits = listen(home, directory, VISITS).map_err(failed)?;
    Ok(Prepared { orders, plan, jobs, gang, visits })
}

fn is_alone(orders: &Orders) -> bool {
    orders.assignment.nodes.len() < 2
}

fn listen(home: &File, directory: &Path, name: &str) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(short_path(home, name))?;
    std::fs::set_permissions(directory.join(name), Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Children are told of by a file descriptor; what stops services passes a shim by.
fn signals() -> nix::Result<SignalFd> {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        sys::ignore(signal)?;
    }
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&children), None)?;
    SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}
