//! The start of a process: a fork whose child sets itself up before it is the program.

use super::child::child;
use crate::cgroup::Entrance;
use nix::libc;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

/// A limit of a process: `soft` and `hard` if the system allows them, else as near as it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessLimit {
    /// `RLIMIT_*`.
    pub(crate) resource: libc::__rlimit_resource_t,
    /// The wanted value of both limits; `RLIM_INFINITY` for none.
    pub(crate) value: u64,
}

/// Whom a process becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// User.
    pub(crate) uid: u32,
    /// Main group.
    pub(crate) gid: u32,
    /// All groups.
    pub(crate) groups: Vec<u32>,
}

/// Where a process stands among those that a terminal's keys reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// In a group of its own.
    Group,
    /// In a session of its own.
    Session,
    /// In a session of its own, whose terminal is its standard input.
    Terminal,
}

/// A process to start.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    /// Paths to try, in order.
    pub(crate) paths: &'a [CString],
    /// Words, the name first.
    pub(crate) words: &'a [CString],
    /// `NAME=value` each.
    pub(crate) variables: &'a [CString],
    /// Working directory.
    pub(crate) directory: &'a CStr,
    /// Standard input, output and error.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Its group, session and terminal.
    pub(crate) standing: Standing,
    /// The cgroup to start in.
    pub(crate) cgroup: Option<&'a Entrance>,
    /// Limits.
    pub(crate) limits: &'a [ProcessLimit],
    /// Mode bits that new files do not get.
    pub(crate) umask: u32,
    /// Whom it becomes; none: nobody else.
    pub(crate) identity: Option<&'a Identity>,
    /// It keeps what root may do. Everybody else has no capability, and gets none.
    pub(crate) is_privileged: bool,
    /// It does not run from this time of the boot clock on.
    pub(crate) not_after_ms: u64,
}

/// Where a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartStep {
    /// Before there was a process.
    Fork,
    /// The shim died, or a signal mask could not be set.
    Setup,
    /// Entering the cgroup.
    Cgroup,
    /// Becoming the user.
    Identity,
    /// Entering the working directory.
    Directory,
    /// The time was over.
    Deadline,
    /// Running the program.
    Exec,
}

pub(super) const STEPS: [StartStep; 7] = [
    StartStep::Fork,
    StartStep::Setup,
    StartStep::Cgroup,
    StartStep::Identity,
    StartStep::Directory,
    StartStep::Deadline,
    StartStep::Exec,
];

/// Why a process did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StartError {
    /// Where.
    pub(crate) step: StartStep,
    /// The system's error number.
    pub(crate) errno: i32,
}

/// A process that was forked; it runs the program when the pipe closes.
#[derive(Debug)]
pub(crate) struct Starting {
    /// Its id.
    pub(crate) pid: i32,
    pipe: OwnedFd,
}

impl Starting {
    /// Waits until the program runs, or until it is known why not. A process that did not start
    /// is still to be reaped.
    pub(crate) fn confirm(self) -> Result<i32, StartError> {
        let mut report = [0u8; 8];
        loop {
            match nix::unistd::read(&self.pipe, &mut report) {
                Err(nix::errno::Errno::EINTR) => {}
                Ok(8) => {
                    let number = |at: usize| {
                        i32::from_ne_bytes([
                            report[at],
                            report[at + 1],
                            report[at + 2],
                            report[at + 3],
                        ])
                    };
                    let step = STEPS.get(number(0) as usize).copied();
                    let step = step.unwrap_or(StartStep::Setup);
                    return Err(StartError { step, errno: number(4) });
                }
                // The end: exec closed it. A child that was killed closes it too, and its wait
                // status tells.
                Ok(_) | Err(_) => return Ok(self.pid),
            }
        }
    }
}

/// Everything that the child touches, as raw pointers and numbers.
pub(super) struct Layout {
    pub(super) paths: Vec<*const libc::c_char>,
    pub(super) words: Vec<*const libc::c_char>,
    pub(super) variables: Vec<*const libc::c_char>,
    pub(super) directory: *const libc::c_char,
    pub(super) stdio: [RawFd; 3],
    pub(super) standing: Standing,
    /// To be entered by itself, where the kernel did not start it in its cgroup.
    pub(super) procs: Option<RawFd>,
    pub(super) limits: Vec<ProcessLimit>,
    pub(super) umask: libc::mode_t,
    pub(super) identity: Option<(u32, u32, Vec<libc::gid_t>)>,
    pub(super) is_privileged: bool,
    pub(super) not_after_ms: u64,
    pub(super) parent: libc::pid_t,
    pub(super) pipe: RawFd,
}

/// Forks a process. The caller has one thread; it keeps what the program refers to alive.
///
/// # Errors
/// If there is no process. Everything later is told by [`Starting::confirm`].
pub(crate) fn start(program: &Program<'_>) -> Result<Starting, StartError> {
    let fork_error =
        |errno: nix::errno::Errno| StartError { step: StartStep::Fork, errno: errno as i32 };
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(fork_error)?;
    let list = |texts: &[CString]| {
        let pointers = texts.iter().map(|text| text.as_ptr());
        pointers.chain(std::iter::once(ptr::null())).collect::<Vec<_>>()
    };
    let layout = Layout {
        paths: list(program.paths),
        words: list(program.words),
        variables: list(program.variables),
        directory: program.directory.as_ptr(),
        stdio: program.stdio.map(|fd| fd.as_raw_fd()),
        standing: program.standing,
        procs: program.cgroup.map(|entrance| entrance.procs.as_raw_fd()),
        limits: program.limits.to_vec(),
        umask: program.umask as libc::mode_t,
        identity: program.identity.map(|who| (who.uid, who.gid, who.groups.clone())),
        is_privileged: program.is_privileged,
        not_after_ms: program.not_after_ms,
        parent: nix::unistd::getpid().as_raw(),
        pipe: write.as_raw_fd(),
    };
    let mut layout = layout;
    let directory = program.cgroup.and_then(|at| at.directory.as_ref());
    // SAFETY: the process has one thread, and the child calls only what may be called after a
    // fork: see `child`.
    let pid = match directory.map(|at| unsafe { fork_into(at.as_raw_fd()) }) {
        Some(pid) if pid >= 0 => {
            layout.procs = None;
            pid
        }
        // Kernels before 5.7 cannot, and some sandboxes do not let us.
        // SAFETY: as above.
        _ => unsafe { libc::fork() },
    };
    match pid {
        -1 => Err(fork_error(nix::errno::Errno::last())),
        // SAFETY: this is the child; `layout` and all it points to was copied with the process.
        0 => unsafe { child(&layout) },
        pid => Ok(Starting { pid, pipe: read }),
    }
}

/// See clone(2); the constant of `libc` has too few bits.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Forks a process in a cgroup of version 2: to move it there later would cost milliseconds.
///
/// # Safety
/// As for a fork: one thread, and a child that does next to nothing.
// SAFETY: for callers, see above.
unsafe fn fork_into(directory: RawFd) -> libc::pid_t {
    // SAFETY: all zeros is a clone_args that asks for nothing.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = directory as u64;
    let size = std::mem::size_of::<libc::clone_args>();
    // SAFETY: the pointer is to a structure of ours, of the size that is given. Without CLONE_VM
    // the child has its own copy of everything, as after a fork.
    unsafe { libc::syscall(libc::SYS_clone3, &args, size) as libc::pid_t }
}
