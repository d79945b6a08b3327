//! Which devices the processes of a control group of version 2 may open: a small program that the
//! kernel runs at each opening. It stays for as long as the group.

use nix::libc;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Of all devices with this major number, those with these minors are allowed. Other majors are not
/// its concern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceRule {
    /// The major number.
    pub(crate) major: u32,
    /// Minors that may be opened.
    pub(crate) allowed: Vec<u32>,
    /// All minors that are there.
    pub(crate) present: Vec<u32>,
}

/// An instruction of eBPF as its eight bytes; see bpf(2) and `linux/bpf.h`.
fn instruction(code: u8, registers: u8, offset: i16, value: u32) -> [u8; 8] {
    let ([a, b], [w, x, y, z]) = (offset.to_ne_bytes(), value.to_ne_bytes());
    [code, registers, a, b, w, x, y, z]
}

/// What is asked for is in a structure at register 1: kind of access, major, minor, 32 bits each.
/// The answer is in register 0: 1 is yes.
fn program(rule: &DeviceRule) -> Vec<[u8; 8]> {
    const LOAD_WORD: u8 = 0x61;
    const UNLESS_EQUAL: u8 = 0x55;
    const SET: u8 = 0xb7;
    const EXIT: u8 = 0x95;
    let answer = |yes| [instruction(SET, 0, 0, yes), instruction(EXIT, 0, 0, 0)];
    let load = |to: u8, from: i16| instruction(LOAD_WORD, to | 1 << 4, from, 0);
    let unless = |register, value, skip| instruction(UNLESS_EQUAL, register, skip, value);
    let mut code = vec![load(2, 4), unless(2, rule.major, 1 + 3 * rule.allowed.len() as i16 + 2)];
    code.push(load(3, 8));
    for minor in &rule.allowed {
        code.push(unless(3, *minor, 2));
        code.extend(answer(1));
    }
    code.extend(answer(0));
    code.extend(answer(1));
    code
}

/// What `BPF_PROG_LOAD` is told.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log: [u64; 2],
    version: u32,
    flags: u32,
}

/// What `BPF_PROG_ATTACH` is told.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// # Safety
/// What the argument points to is as the command wants it.
// SAFETY: for callers, see above.
unsafe fn bpf<T>(command: libc::c_int, argument: &T) -> io::Result<RawFd> {
    // SAFETY: the pointer is to a structure of the size that is given.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, argument, size_of::<T>()) };
    match answer {
        ..0 => Err(io::Error::last_os_error()),
        fd => Ok(fd as RawFd),
    }
}

fn load(rule: &DeviceRule) -> io::Result<OwnedFd> {
    const PROG_LOAD: libc::c_int = 5;
    const CGROUP_DEVICE: u32 = 15;
    const LICENSE: &CStr = c"Apache-2.0";
    let code = program(rule);
    let argument = Load {
        kind: CGROUP_DEVICE,
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log: [0; 2],
        version: 0,
        flags: 0,
    };
    // SAFETY: code and licence outlive the call.
    let fd = unsafe { bpf(PROG_LOAD, &argument)? };
    // SAFETY: the kernel just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the kernel takes such programs from this process.
pub(crate) fn can_filter_devices() -> bool {
    load(&DeviceRule { major: 0, allowed: Vec::new(), present: Vec::new() }).is_ok()
}

/// Applies a rule to a group of version 2, beside those that it is under already.
pub(crate) fn filter_devices(group: BorrowedFd<'_>, rule: &DeviceRule) -> io::Result<()> {
    const PROG_ATTACH: libc::c_int = 8;
    const CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    let program = load(rule)?;
    let argument = Attach {
        target: group.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: it holds numbers alone.
    unsafe { bpf(PROG_ATTACH, &argument) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does, for the instructions that it has.
    fn allows(code: &[[u8; 8]], major: u32, minor: u32) -> bool {
        let (mut registers, mut at) = ([0u32; 4], 0);
        loop {
            let [op, to, a, b, w, x, y, z] = code[at];
            let (to, offset) = (usize::from(to & 0xf), i16::from_ne_bytes([a, b]));
            let value = u32::from_ne_bytes([w, x, y, z]);
            at += 1;
            match op {
                0x61 => registers[to] = if offset == 4 { major } else { minor },
                0x55 if registers[to] != value => at += offset as usize,
                0x55 => {}
                0xb7 => registers[to] = value,
                0x95 => return registers[0] == 1,
                op => panic!("{op:x}"),
            }
        }
    }

    #[test]
    fn what_was_granted_is_allowed_and_no_other_of_its_kind() {
        for allowed in [vec![], vec![3], vec![0, 3, 255]] {
            let code =
                program(&DeviceRule { major: 195, allowed: allowed.clone(), present: vec![] });
            for minor in [0, 1, 3, 255] {
                assert_eq!(allows(&code, 195, minor), allowed.contains(&minor), "{minor}");
                assert!(allows(&code, 1, minor) && allows(&code, 196, minor), "{minor}");
            }
        }
    }
}
