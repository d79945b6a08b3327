//! Small programs that the kernel runs for the processes of a control group of version 2: how they
//! are written, loaded and attached. See bpf(2) and `linux/bpf.h`.

use nix::libc;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// An instruction as its eight bytes.
pub(super) type Instruction = [u8; 8];

const LOAD_WORD: u8 = 0x61;
/// Compares 32 bits: the wider comparison would take the value for a signed one.
const SKIP_UNLESS_EQUAL: u8 = 0x56;
const SET: u8 = 0xb7;
const EXIT: u8 = 0x95;

fn instruction(code: u8, registers: u8, offset: i16, value: u32) -> Instruction {
    let ([a, b], [w, x, y, z]) = (offset.to_ne_bytes(), value.to_ne_bytes());
    [code, registers, a, b, w, x, y, z]
}

/// Loads 32 bits of the structure at register 1, from this offset in bytes.
pub(super) fn load_word(to: u8, from: i16) -> Instruction {
    instruction(LOAD_WORD, to | 1 << 4, from, 0)
}

/// Skips so many instructions, unless a register holds this value.
pub(super) fn skip_unless(register: u8, value: u32, count: i16) -> Instruction {
    instruction(SKIP_UNLESS_EQUAL, register, count, value)
}

/// Ends with a yes or a no.
pub(super) fn answer(yes: bool) -> [Instruction; 2] {
    [instruction(SET, 0, 0, u32::from(yes)), instruction(EXIT, 0, 0, 0)]
}

/// What a program is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whether a device may be opened. Several programs of a group must all say yes.
    Device,
    /// Whether an address may be connected to. A group has one program; a new one replaces it.
    Connect4,
    /// The same of version 6.
    Connect6,
    /// Whether something may be sent to an address without a connection; one program.
    Send4,
    /// The same of version 6.
    Send6,
}

impl Kind {
    /// The type of the program, and where it is attached.
    fn numbers(self) -> (u32, u32) {
        const CGROUP_DEVICE: u32 = 15;
        const CGROUP_SOCK_ADDR: u32 = 18;
        match self {
            Kind::Device => (CGROUP_DEVICE, 6),
            Kind::Connect4 => (CGROUP_SOCK_ADDR, 10),
            Kind::Connect6 => (CGROUP_SOCK_ADDR, 11),
            Kind::Send4 => (CGROUP_SOCK_ADDR, 14),
            Kind::Send6 => (CGROUP_SOCK_ADDR, 15),
        }
    }
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
    name: [u8; 16],
    interface: u32,
    place: u32,
}

/// What `BPF_PROG_ATTACH` and `BPF_PROG_DETACH` are told.
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

/// Hands a program to the kernel.
pub(super) fn load(kind: Kind, code: &[Instruction]) -> io::Result<OwnedFd> {
    const PROG_LOAD: libc::c_int = 5;
    const LICENSE: &CStr = c"Apache-2.0";
    let (number, place) = kind.numbers();
    let argument = Load {
        kind: number,
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log: [0; 2],
        version: 0,
        flags: 0,
        name: [0; 16],
        interface: 0,
        place,
    };
    // SAFETY: code and licence outlive the call.
    let fd = unsafe { bpf(PROG_LOAD, &argument)? };
    // SAFETY: the kernel just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Has a group ask a program, and all groups below it.
pub(super) fn attach(group: BorrowedFd<'_>, program: &OwnedFd, kind: Kind) -> io::Result<()> {
    const PROG_ATTACH: libc::c_int = 8;
    const ALLOW_MULTI: u32 = 2;
    let argument = Attach {
        target: group.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: kind.numbers().1,
        flags: if kind == Kind::Device { ALLOW_MULTI } else { 0 },
    };
    // SAFETY: it holds numbers alone.
    unsafe { bpf(PROG_ATTACH, &argument) }.map(drop)
}

/// Takes the one program of a group away, if there is one.
pub(super) fn detach(group: BorrowedFd<'_>, kind: Kind) -> io::Result<()> {
    const PROG_DETACH: libc::c_int = 9;
    let (target, kind) = (group.as_raw_fd() as u32, kind.numbers().1);
    let argument = Attach { target, program: 0, kind, flags: 0 };
    // SAFETY: it holds numbers alone.
    match unsafe { bpf(PROG_DETACH, &argument) } {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

/// Runs a program as the kernel does, for the instructions that it has. `words` is the structure
/// at register 1.
#[cfg(test)]
pub(super) fn run(code: &[Instruction], words: &[u32]) -> bool {
    let (mut registers, mut at) = ([0u32; 6], 0);
    loop {
        let [op, to, a, b, w, x, y, z] = code[at];
        let (to, offset) = (usize::from(to & 0xf), i16::from_ne_bytes([a, b]));
        let value = u32::from_ne_bytes([w, x, y, z]);
        at += 1;
        match op {
            LOAD_WORD => registers[to] = words[offset as usize / 4],
            SKIP_UNLESS_EQUAL if registers[to] != value => at += offset as usize,
            SKIP_UNLESS_EQUAL => {}
            SET => registers[to] = value,
            EXIT => return registers[0] == 1,
            op => panic!("{op:x}"),
        }
    }
}
