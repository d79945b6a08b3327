//! The start of a shim: alone in its session, with its record, its socket and its plan.

use super::record::{Entry, History, Writer};
use super::run::Shim;
use super::{DETAIL, GROUP, RECORD, SOCKET, ShimError};
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
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use yard_common::ExitCause;
use yard_common::limits::DETAIL_BYTES_MAX;

/// Everything that comes before the loop. Preparing may fail; that is told to the agent.
pub(super) fn setup(directory: &Path) -> Result<Shim, ShimError> {
    let step = |step| move |source: io::Error| ShimError::Setup { step, source };
    let os = |step| move |errno: nix::errno::Errno| ShimError::Setup { step, source: errno.into() };
    std::env::set_current_dir(directory).map_err(step("enter the directory"))?;
    // It fails for the leader of a group only, which nobody makes us.
    let _ = nix::unistd::setsid();
    let first = sys::take_stdin().map_err(step("take the connection"))?;
    let lock = sys::take_stdout().map_err(step("take the lock"))?;
    nix::sys::prctl::set_child_subreaper(true).map_err(os("become subreaper"))?;
    let signals = signals().map_err(os("set up signals"))?;
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
    let prepared =
        orders.map_err(Failure::from).and_then(|orders| prepare(orders, directory, &home));
    let agent = Wire::new(UnixStream::from(first)).map_err(step("use the connection"))?;
    let mut shim = Shim::new(lock, signals, listener, agent, record, history, lease);
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

fn prepare(orders: Orders, directory: &Path, home: &File) -> Result<Prepared, Failure> {
    let logs = orders.chain.tasks().next().map(|(task, attempt)| {
        Paths::new(&orders.site.root).attempt_logs(orders.assignment.job, task, attempt)
    });
    let made = prepare_parts(orders, directory, home);
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
    Ok(Prepared { orders, plan, jobs, gang })
}

fn is_alone(orders: &Orders) -> bool {
    orders.assignment.nodes.len() < 2
}

/// Leaves the agent's cgroup, so that what stops the agent's unit does not stop the shim. Those
/// that cannot, live with it. The kernel may take milliseconds to move a process, so this comes
/// after the first start.
pub(super) fn enter_group(orders: &Orders) {
    let _ = orders.site.cgroups().find(GROUP).enter_v2();
    let _ = std::fs::write("/proc/self/oom_score_adj", "-999");
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
