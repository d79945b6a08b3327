//! The start of a process: a child that sets itself up in our memory before it is the program.
//!
//! As with `vfork`, and as `posix_spawn` does it: nothing is copied, and we stand still until the
//! child runs the program or has ended. With memory of its own the child would cost a fifth of what
//! starting a small program costs.

use super::child::{Failure, child};
use super::spawn::{self, Stack};
use crate::cgroup::Entrance;
use nix::errno::Errno;
use nix::libc;
use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::OnceLock;

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

/// Why a process did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StartError {
    /// Where.
    pub(crate) step: StartStep,
    /// The system's error number.
    pub(crate) errno: i32,
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
    /// Signals that this process ignores, and the program shall not.
    pub(super) ignored: &'static [libc::c_int],
    /// Why it is not the program; written by the child.
    pub(super) failure: Cell<Option<Failure>>,
}

/// Starts a process, and waits until it is the program. The caller has one thread.
///
/// # Errors
/// If it is not: where that failed. Nothing is left of it then.
pub(crate) fn start(program: &Program<'_>) -> Result<i32, StartError> {
    let list = |texts: &[CString]| {
        let pointers = texts.iter().map(|text| text.as_ptr());
        pointers.chain(std::iter::once(ptr::null())).collect::<Vec<_>>()
    };
    let mut layout = Layout {
        paths: list(program.paths),
        words: list(program.words),
        variables: list(program.variables),
        directory: program.directory.as_ptr(),
        stdio: program.stdio.map(|fd| fd.as_raw_fd()),
        standing: program.standing,
        procs: None,
        limits: program.limits.to_vec(),
        umask: program.umask as libc::mode_t,
        identity: program.identity.map(|who| (who.uid, who.gid, who.groups.clone())),
        is_privileged: program.is_privileged,
        not_after_ms: program.not_after_ms,
        parent: nix::unistd::getpid().as_raw(),
        ignored: ignored(),
        failure: Cell::new(None),
    };
    let mut stack = Stack::new();
    // SAFETY: this process has one thread, and stands still while the child uses its memory; all
    // that the layout points to lives on.
    let run = |layout: &Layout, stack: &mut Stack, directory| unsafe {
        spawn::spawn(directory, stack, child, layout)
    };
    let directory = program.cgroup.and_then(|at| at.directory.as_ref());
    let started = match directory {
        Some(at) => run(&layout, &mut stack, Some(at.as_raw_fd())),
        None => Err(Errno::ENOSYS),
    };
    // Kernels before 5.7 cannot start it there, and some sandboxes do not let us: it goes there.
    let started = started.or_else(|_| {
        layout.procs = program.cgroup.map(|entrance| entrance.procs.as_raw_fd());
        run(&layout, &mut stack, None)
    });
    let failed = |errno: Errno| StartError { step: StartStep::Fork, errno: errno as i32 };
    let pid = started.map_err(failed)?;
    match layout.failure.get() {
        // One that was killed before it was the program has a status that tells.
        None => Ok(pid),
        Some(Failure { step, errno }) => {
            let pid = nix::unistd::Pid::from_raw(pid);
            while let Err(Errno::EINTR) = nix::sys::wait::waitpid(pid, None) {}
            Err(StartError { step, errno })
        }
    }
}

/// What this process ignores: programs would go on ignoring it. It does not change any more when
/// the first program starts.
fn ignored() -> &'static [libc::c_int] {
    static IGNORED: OnceLock<Vec<libc::c_int>> = OnceLock::new();
    IGNORED.get_or_init(|| {
        let is_ignored = |signal: &libc::c_int| {
            // The call itself rather than the library's, which refuses the two that it uses. What
            // is done with the signal comes first; no kernel's structure is longer.
            let (new, mut old) = (ptr::null::<u64>(), [0u64; 4]);
            // SAFETY: nothing is set; the pointer is to room of ours.
            let asked = unsafe {
                libc::syscall(libc::SYS_rt_sigaction, *signal, new, old.as_mut_ptr(), 8usize)
            };
            asked == 0 && old[0] == libc::SIG_IGN as u64
        };
        (1..=64).filter(is_ignored).collect()
    })
}
