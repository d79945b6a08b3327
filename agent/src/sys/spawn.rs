//! A child that runs in our memory, on a stack of its own, while we stand still.

use nix::errno::Errno;
use nix::libc;
use std::os::fd::RawFd;

/// Room for what a child does before it is a program, in units of 16 bytes: far more than it takes.
const STACK: usize = 64 * 1024 / 16;

/// See clone(2); the constant of `libc` has too few bits.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// The stack of a child, which begins at a multiple of 16 as all stacks do.
pub(super) struct Stack(Vec<u128>);

impl Stack {
    pub(super) fn new() -> Stack {
        Stack(Vec::with_capacity(STACK))
    }

    fn begin(&mut self) -> *mut libc::c_void {
        self.0.as_mut_ptr().cast()
    }

    fn end(&mut self) -> *mut libc::c_void {
        // SAFETY: the end of what was allocated.
        unsafe { self.0.as_mut_ptr().add(STACK).cast() }
    }
}

/// What the child runs.
type Child<T> = extern "C" fn(&T) -> !;

/// Starts a child, in a control group of version 2 if one is named, and returns when it has become
/// a program or has ended.
///
/// # Safety
/// This process has one thread. What the child does must be allowed to a signal handler, on little
/// stack, and must end in a program or in `_exit`.
// SAFETY: for callers, see above.
pub(super) unsafe fn spawn<T>(
    group: Option<RawFd>,
    stack: &mut Stack,
    child: Child<T>,
    argument: &T,
) -> Result<libc::pid_t, Errno> {
    match group {
        // SAFETY: as for this function.
        Some(group) => unsafe { into_group(group, stack, child, argument) },
        // SAFETY: as for this function.
        None => unsafe { here(stack, child, argument) },
    }
}

/// # Safety
/// See [`spawn`].
// SAFETY: for callers, see above.
unsafe fn here<T>(stack: &mut Stack, child: Child<T>, argument: &T) -> Result<libc::pid_t, Errno> {
    struct Call<'a, T>(Child<T>, &'a T);
    extern "C" fn run<T>(call: *mut libc::c_void) -> libc::c_int {
        // SAFETY: it is what is handed over below, and its owner stands still.
        let Call(child, argument) = unsafe { &*call.cast::<Call<'_, T>>() };
        child(argument)
    }
    let mut call = Call(child, argument);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack grows down from its end; the rest is as for this function.
    let pid = unsafe { libc::clone(run::<T>, stack.end(), flags, (&raw mut call).cast()) };
    Errno::result(pid)
}

/// # Safety
/// See [`spawn`].
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
// SAFETY: for callers, see above.
unsafe fn into_group<T>(
    group: RawFd,
    stack: &mut Stack,
    child: Child<T>,
    argument: &T,
) -> Result<libc::pid_t, Errno> {
    // SAFETY: all zeros is a clone_args that asks for nothing.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP | (libc::CLONE_VM | libc::CLONE_VFORK) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args.stack = stack.begin() as u64;
    args.stack_size = (STACK * 16) as u64;
    args.cgroup = group as u64;
    let answer: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the call takes a structure of ours, of the size that is given. The parent goes on
    // behind it with nothing changed but what is named; the child, which has a stack of its own,
    // calls a function that does not return.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {argument}",
            "call {child}",
            "ud2",
            "2:",
            argument = in(reg) argument,
            child = in(reg) child,
            inout("rax") libc::SYS_clone3 as isize => answer,
            in("rdi") &args,
            in("rsi") size_of::<libc::clone_args>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, {argument}",
            "blr {child}",
            "brk 1",
            "2:",
            argument = in(reg) argument,
            child = in(reg) child,
            in("x8") libc::SYS_clone3,
            inout("x0") &args => answer,
            in("x1") size_of::<libc::clone_args>(),
        );
    }
    // The kernel answers with the number of the error, below zero.
    if answer < 0 { Err(Errno::from_raw(-answer as i32)) } else { Ok(answer as libc::pid_t) }
}

/// Other machines have nobody who tried it.
///
/// # Safety
/// See [`spawn`].
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
// SAFETY: for callers, see above.
unsafe fn into_group<T>(_: RawFd, _: &mut Stack, _: Child<T>, _: &T) -> Result<libc::pid_t, Errno> {
    Err(Errno::ENOSYS)
}
