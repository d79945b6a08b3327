//! The system calls that no safe wrapper gives: the boot clock, waiting for children without
//! reaping them, and starting a process with everything set up between fork and exec.
//!
//! **Invariant:** this is the only module with `unsafe`. Between fork and exec nothing is
//! allocated and nothing is locked: all that the child needs is laid out before.
#![allow(unsafe_code)]

use crate::cgroup::Entrance;
use nix::libc;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use tokio::io::unix::AsyncFd;

/// Milliseconds of the boot clock, which also runs while the machine is suspended.
#[must_use]
pub fn boot_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours. The clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    time.tv_sec as u64 * 1_000 + time.tv_nsec as u64 / 1_000_000
}

/// What the kernel says of an ended process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitStatus {
    /// It returned this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
}

/// The answer to a question about children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// This one has ended.
    Ended(i32, WaitStatus),
    /// None has ended.
    Running,
    /// There is no such child.
    Nobody,
}

/// Asks about any child (`None`) or one, without waiting. With `reap` the answer is given once.
pub(crate) fn wait(pid: Option<i32>, reap: bool) -> io::Result<Waited> {
    // SAFETY: all zeros is a siginfo_t; the kernel leaves it so when nobody has ended.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let (kind, id) = match pid {
        Some(pid) => (libc::P_PID, pid as libc::id_t),
        None => (libc::P_ALL, 0),
    };
    let keep = if reap { 0 } else { libc::WNOWAIT };
    // SAFETY: the pointer is to a siginfo_t of ours.
    let result = unsafe { libc::waitid(kind, id, &mut info, libc::WEXITED | libc::WNOHANG | keep) };
    if result != 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ECHILD) => Ok(Waited::Nobody),
            Some(libc::EINTR) => Ok(Waited::Running),
            _ => Err(error),
        };
    }
    // SAFETY: waitid succeeded, so these fields are those of a child, or zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok(match (pid, info.si_code) {
        (0, _) => Waited::Running,
        (pid, libc::CLD_EXITED) => Waited::Ended(pid, WaitStatus::Exited(status)),
        (pid, _) => Waited::Ended(pid, WaitStatus::Signaled(status)),
    })
}

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

const STEPS: [StartStep; 7] = [
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
struct Layout {
    paths: Vec<*const libc::c_char>,
    words: Vec<*const libc::c_char>,
    variables: Vec<*const libc::c_char>,
    directory: *const libc::c_char,
    stdio: [RawFd; 3],
    standing: Standing,
    /// To be entered by itself, where the kernel did not start it in its cgroup.
    procs: Option<RawFd>,
    limits: Vec<ProcessLimit>,
    umask: libc::mode_t,
    identity: Option<(u32, u32, Vec<libc::gid_t>)>,
    not_after_ms: u64,
    parent: libc::pid_t,
    pipe: RawFd,
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
        not_after_ms: program.not_after_ms,
        parent: nix::unistd::getpid().as_raw(),
        pipe: write.as_raw_fd(),
    };
    let mut layout = layout;
    // SAFETY: the process has one thread, and the child calls only what may be called after a
    // fork: see `child`.
    let pid = match program.cgroup.map(|at| unsafe { fork_into(at.directory.as_raw_fd()) }) {
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

/// What the child does until it is the program.
///
/// # Safety
/// Only right after a fork. Every pointer of the layout is valid; nothing here allocates.
// SAFETY: for callers, see above.
unsafe fn child(layout: &Layout) -> ! {
    let fail = |step: StartStep, errno: i32| -> ! {
        let position = STEPS.iter().position(|known| *known == step).unwrap_or(1) as i32;
        let mut report = [0u8; 8];
        report[..4].copy_from_slice(&position.to_ne_bytes());
        report[4..].copy_from_slice(&errno.to_ne_bytes());
        // SAFETY: the buffer is ours; _exit never returns and runs no handler.
        unsafe {
            libc::write(layout.pipe, report.as_ptr().cast(), report.len());
            libc::_exit(127)
        }
    };
    // SAFETY: __errno_location is the thread's own.
    let errno = || unsafe { *libc::__errno_location() };
    // SAFETY: plain system calls on numbers and on pointers that the layout keeps valid.
    unsafe {
        match layout.standing {
            Standing::Group => libc::setpgid(0, 0),
            Standing::Session | Standing::Terminal => libc::setsid(),
        };
        // If the shim dies, its ranks have no witness: they end with it.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        reset_signals();
        if let Some(procs) = layout.procs
            && libc::write(procs, c"0".as_ptr().cast(), 1) != 1
        {
            fail(StartStep::Cgroup, errno());
        }
        // The shim is the last to be killed for memory, its ranks are not.
        let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY);
        if score >= 0 {
            libc::write(score, c"0".as_ptr().cast(), 1);
            libc::close(score);
        }
        for (target, fd) in layout.stdio.iter().enumerate() {
            if libc::dup2(*fd, target as RawFd) < 0 {
                fail(StartStep::Setup, errno());
            }
        }
        if layout.standing == Standing::Terminal
            && libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) != 0
        {
            fail(StartStep::Setup, errno());
        }
        for limit in &layout.limits {
            set_limit(limit);
        }
        libc::umask(layout.umask);
        if let Some(identity) = &layout.identity
            && !become_user(identity)
        {
            fail(StartStep::Identity, errno());
        }
        if libc::getppid() != layout.parent {
            fail(StartStep::Setup, libc::ESRCH);
        }
        if libc::chdir(layout.directory) != 0 {
            fail(StartStep::Directory, errno());
        }
        // Whatever was opened without close-on-exec by a library stays here. Kernels before 5.11
        // do not know the flag; then only what we opened is closed.
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC as libc::c_int,
        );
        // Here rather than before the fork: the machine may have stood still in between.
        if boot_ms() >= layout.not_after_ms {
            fail(StartStep::Deadline, libc::ETIME);
        }
        let mut failure = libc::ENOENT;
        for path in layout.paths.iter().filter(|path| !path.is_null()) {
            libc::execve(*path, layout.words.as_ptr(), layout.variables.as_ptr());
            match errno() {
                libc::ENOENT | libc::ENOTDIR => {}
                other => failure = other,
            }
        }
        fail(StartStep::Exec, failure)
    }
}

/// Becomes somebody else for good. Returns whether that worked.
///
/// # Safety
/// Only in the child.
// SAFETY: for callers, see above.
unsafe fn become_user((uid, gid, groups): &(u32, u32, Vec<libc::gid_t>)) -> bool {
    // SAFETY: system calls on numbers, and on a list that the layout keeps.
    unsafe {
        let done = libc::setgroups(groups.len(), groups.as_ptr()) == 0
            && libc::setresgid(*gid, *gid, *gid) == 0
            && libc::setresuid(*uid, *uid, *uid) == 0;
        // A change of identity clears it.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        // It must not be possible to go back.
        done && (*uid == 0 || libc::setresuid(0, 0, 0) != 0)
    }
}

/// Signals as a program expects them: none blocked, none ignored.
///
/// # Safety
/// Only in the child.
// SAFETY: for callers, see above.
unsafe fn reset_signals() {
    // SAFETY: the set is ours; setting a default needs no handler. Errors are for numbers that
    // cannot be set, such as SIGKILL.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, ptr::null_mut());
        // The call itself rather than the library's, which refuses the two that it uses. All zeros
        // are the default; no kernel's structure is longer.
        let default = [0u64; 4];
        for signal in 1..=64 {
            let (new, old) = (default.as_ptr(), ptr::null_mut::<u64>());
            libc::syscall(libc::SYS_rt_sigaction, signal, new, old, 8usize);
        }
    }
}

/// Sets both limits, or the soft one as high as the hard one allows.
///
/// # Safety
/// Only in the child.
// SAFETY: for callers, see above.
unsafe fn set_limit(limit: &ProcessLimit) {
    let wanted = libc::rlimit { rlim_cur: limit.value, rlim_max: limit.value };
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointers are to structures of ours.
    unsafe {
        if libc::setrlimit(limit.resource, &wanted) != 0
            && libc::getrlimit(limit.resource, &mut now) == 0
        {
            now.rlim_cur = limit.value.min(now.rlim_max);
            libc::setrlimit(limit.resource, &now);
        }
    }
}

/// From now on a signal does nothing to this process. Programs that it starts have the default.
pub(crate) fn ignore(signal: nix::sys::signal::Signal) -> nix::Result<()> {
    use nix::sys::signal::SigHandler;
    // SAFETY: no handler is installed, and none is replaced: this process has none.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }.map(|_| ())
}

/// A file that is waited for by the runtime, and never waits itself.
pub(crate) fn watched(fd: OwnedFd) -> io::Result<AsyncFd<File>> {
    // SAFETY: fcntl with numbers.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    // SAFETY: as above.
    if flags < 0
        || unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0
    {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a `File` owns its descriptor, and is neither replaced nor closed while it is watched.
    Ok(unsafe { AsyncFd::register(File::from(fd)) }?)
}

/// Tells a terminal its size in characters; whoever runs on it hears of the change.
pub(crate) fn set_terminal_size(terminal: BorrowedFd<'_>, size: &libc::winsize) -> io::Result<()> {
    // SAFETY: the pointer is to a structure of the kind that this request takes.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes file descriptor 0 over from the process that started this one, and puts `/dev/null` in
/// its place.
pub(crate) fn take_stdin() -> io::Result<OwnedFd> {
    // SAFETY: fcntl with a number.
    let taken = unsafe { libc::fcntl(libc::STDIN_FILENO, libc::F_DUPFD_CLOEXEC, 3) };
    if taken < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it, and nobody else knows it.
    let taken = unsafe { OwnedFd::from_raw_fd(taken) };
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    // SAFETY: dup2 with numbers; nobody owns the standard three.
    if unsafe { libc::dup2(null.as_raw_fd(), libc::STDIN_FILENO) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(taken)
}

/// The first bytes of a stream, and the open files that were sent with them. Waits.
pub(crate) fn receive_files(
    stream: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let mut parts = [io::IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let got = loop {
        let got = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags);
        match got {
            Err(nix::errno::Errno::EINTR) => {}
            got => break got?,
        }
    };
    let mut files = Vec::new();
    for message in got.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = message {
            // SAFETY: the kernel just made them for this process, and nobody else knows them.
            files.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((got.bytes, files))
}
