//! Between the start of a child and its program.
//!
//! **Invariant:** nothing here allocates, locks or panics, and nothing is changed but the child's
//! own state and its word to the parent: the memory is the parent's, which stands still.

use super::boot_ms;
use super::start::{Layout, ProcessLimit, Standing, StartStep};
use nix::libc;
use std::os::fd::RawFd;
use std::ptr;

/// Why a child is not the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub(super) step: StartStep,
    pub(super) errno: i32,
}

/// What the child does until it is the program.
pub(super) extern "C" fn child(layout: &Layout) -> ! {
    // SAFETY: this is the child: it is what `start` runs.
    let (step, errno) = unsafe { run(layout) };
    layout.failure.set(Some(Failure { step, errno }));
    // SAFETY: it never returns and runs no handler.
    unsafe { libc::_exit(127) }
}

fn errno() -> i32 {
    // SAFETY: __errno_location is the thread's own.
    unsafe { *libc::__errno_location() }
}

/// Becomes the program. Returns where that failed, and the system's error number.
///
/// # Safety
/// Only in the child.
// SAFETY: for callers, see above.
unsafe fn run(layout: &Layout) -> (StartStep, i32) {
    // SAFETY: plain system calls on numbers and on pointers that the layout keeps valid.
    unsafe {
        match layout.standing {
            Standing::Group => libc::setpgid(0, 0),
            Standing::Session | Standing::Terminal => libc::setsid(),
        };
        // If the shim dies, its ranks have no witness: they end with it.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        reset_signals(layout.ignored);
        if let Some(procs) = layout.procs
            && libc::write(procs, c"0".as_ptr().cast(), 1) != 1
        {
            return (StartStep::Cgroup, errno());
        }
        reset_priority();
        for (target, fd) in layout.stdio.iter().enumerate() {
            if libc::dup2(*fd, target as RawFd) < 0 {
                return (StartStep::Setup, errno());
            }
        }
        if layout.standing == Standing::Terminal
            && libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) != 0
        {
            return (StartStep::Setup, errno());
        }
        for limit in &layout.limits {
            set_limit(limit);
        }
        libc::umask(layout.umask);
        let identity = layout.identity.as_ref();
        let identity = identity.map(|(uid, gid, groups)| (*uid, *gid, groups.as_slice()));
        if !become_user(identity, layout.is_privileged) {
            return (StartStep::Identity, errno());
        }
        // A change of identity clears it.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        if libc::getppid() != layout.parent {
            return (StartStep::Setup, libc::ESRCH);
        }
        if libc::chdir(layout.directory) != 0 {
            return (StartStep::Directory, errno());
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
            return (StartStep::Deadline, libc::ETIME);
        }
        let mut failure = libc::ENOENT;
        for path in layout.paths.iter().filter(|path| !path.is_null()) {
            libc::execve(*path, layout.words.as_ptr(), layout.variables.as_ptr());
            match errno() {
                libc::ENOENT | libc::ENOTDIR => {}
                other => failure = other,
            }
        }
        (StartStep::Exec, failure)
    }
}

/// The place in every queue that a program has by default, whatever the agent's own is.
///
/// # Safety
/// Only in the child.
// SAFETY: for callers, see above.
unsafe fn reset_priority() {
    // SAFETY: system calls on numbers, and on strings and structures of ours.
    unsafe {
        // The shim is the last to be killed for memory, its ranks are not.
        let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY);
        if score >= 0 {
            libc::write(score, c"0".as_ptr().cast(), 1);
            libc::close(score);
        }
        // Both may be refused to an agent that runs behind all others and may not go ahead.
        let parameters: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &parameters);
        libc::setpriority(libc::PRIO_PROCESS, 0, 0);
    }
}

/// Becomes the user for good, without any privilege unless the user is root. Returns whether all of
/// that is so.
///
/// # Safety
/// Only in the child, or in a process that has one thread.
// SAFETY: for callers, see above.
pub(super) unsafe fn become_user(
    identity: Option<(u32, u32, &[libc::gid_t])>,
    is_privileged: bool,
) -> bool {
    // SAFETY: system calls on numbers, and on a list of ours.
    unsafe {
        if !is_privileged {
            // What could be had from programs that give more than their user has. Only who may
            // do so drops it; for all others `no_new_privs` is what counts.
            let mut capability: libc::c_ulong = 0;
            while libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) == 0 {
                capability += 1;
            }
        }
        if let Some((uid, gid, groups)) = identity {
            // The calls themselves: those of the library would speak to threads of the parent.
            let done = libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) == 0
                && libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0
                && libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0;
            if !done || !has_become(uid, gid, groups.len()) {
                return false;
            }
        }
        is_privileged || drop_privileges()
    }
}

/// Whether the kernel agrees that this is who we are, and that there is no way back.
///
/// # Safety
/// Only in the child.
// SAFETY: for callers, see above.
unsafe fn has_become(uid: u32, gid: u32, groups: usize) -> bool {
    // SAFETY: the pointers are to numbers of ours; no groups are written for a size of 0.
    unsafe {
        let (mut users, mut mains) = ([0; 3], [0; 3]);
        let [real, effective, saved] = &mut users;
        let told = libc::getresuid(real, effective, saved) == 0;
        let [real, effective, saved] = &mut mains;
        let told = told && libc::getresgid(real, effective, saved) == 0;
        let is_so = told
            && users == [uid; 3]
            && mains == [gid; 3]
            && libc::getgroups(0, ptr::null_mut()) == groups as libc::c_int;
        // Last: it leaves the error number of the refusal that is wanted.
        let stays = uid == 0 || libc::syscall(libc::SYS_setresuid, 0, 0, 0) != 0;
        is_so && stays
    }
}

/// Gives up every capability, and the means to get one. Returns whether none is left.
///
/// # Safety
/// Only in the child.
// SAFETY: for callers, see above.
unsafe fn drop_privileges() -> bool {
    /// `_LINUX_CAPABILITY_VERSION_3`, and this process.
    const HEADER: [u32; 2] = [0x2008_0522, 0];
    let none = [[0u32; 3]; 2];
    let mut left = [[u32::MAX; 3]; 2];
    let mut header = HEADER;
    // SAFETY: the pointers are to arrays of ours, of the layout of the kernel's structures: version
    // and process; effective, permitted and inheritable, in two halves.
    unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        libc::syscall(libc::SYS_capset, header.as_mut_ptr(), none.as_ptr()) == 0
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_capget, header.as_mut_ptr(), left.as_mut_ptr()) == 0
            && left == none
    }
}

/// Signals as a program expects them: none blocked, none ignored. Those that are caught go back to
/// their default with the program.
///
/// # Safety
/// Only in the child.
// SAFETY: for callers, see above.
unsafe fn reset_signals(ignored: &[libc::c_int]) {
    // SAFETY: the set is ours; setting a default needs no handler.
    unsafe {
        // All zeros are the default.
        let default = [0u64; 4];
        for signal in ignored {
            let (new, old) = (default.as_ptr(), ptr::null_mut::<u64>());
            libc::syscall(libc::SYS_rt_sigaction, *signal, new, old, 8usize);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, ptr::null_mut());
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
