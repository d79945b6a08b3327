//! The system calls that no safe wrapper gives: the boot clock, waiting for children without
//! reaping them, starting a process with everything set up between fork and exec, and filters for
//! the devices and the addresses of a control group.
//!
//! **Invariant:** this is the only module with `unsafe`. Between the start of a child and its
//! program nothing is allocated and nothing is locked: all that it needs is laid out before.
#![allow(unsafe_code)]

mod addresses;
mod bpf;
mod child;
mod devices;
mod spawn;
mod start;

pub(crate) use addresses::refuse_addresses;
pub(crate) use devices::{DeviceRule, can_filter_devices, filter_devices};
pub(crate) use start::{Identity, ProcessLimit, Program, Standing, StartError, StartStep, start};

use nix::libc;
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

/// This process is somebody else from now on, for good and without any privilege. It has one
/// thread.
///
/// # Errors
/// If the system refuses; who it is then is not known, and it must end.
pub(crate) fn become_user(identity: &Identity) -> io::Result<()> {
    let Identity { uid, gid, groups } = identity;
    // SAFETY: the process has one thread, and the list outlives the call.
    match unsafe { child::become_user(Some((*uid, *gid, groups)), false) } {
        true => Ok(()),
        false => Err(io::Error::last_os_error()),
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
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
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

/// Gives this process and all that it starts a session keyring of their own, which is empty: that
/// of the agent may hold keys. A kernel without keyrings has none to share.
pub(crate) fn leave_keyring() {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: without a name the call takes no pointer.
    unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>()) };
}
