//! Which devices the processes of a control group of version 2 may open: a small program that the
//! kernel runs at each opening. It stays for as long as the group.

use super::bpf::{self, Instruction, Kind, answer, load_word, skip_unless};
use std::io;
use std::os::fd::BorrowedFd;

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

/// What is asked for is in a structure at register 1: kind of access, major, minor, 32 bits each.
/// The answer is in register 0: 1 is yes.
fn program(rule: &DeviceRule) -> Vec<Instruction> {
    let others = 1 + 3 * rule.allowed.len() as i16 + 2;
    let mut code = vec![load_word(2, 4), skip_unless(2, rule.major, others)];
    code.push(load_word(3, 8));
    for minor in &rule.allowed {
        code.push(skip_unless(3, *minor, 2));
        code.extend(answer(true));
    }
    code.extend(answer(false));
    code.extend(answer(true));
    code
}

/// Whether the kernel takes such programs from this process.
pub(crate) fn can_filter_devices() -> bool {
    let rule = DeviceRule { major: 0, allowed: Vec::new(), present: Vec::new() };
    bpf::load(Kind::Device, &program(&rule)).is_ok()
}

/// Applies a rule to a group of version 2, beside those that it is under already.
pub(crate) fn filter_devices(group: BorrowedFd<'_>, rule: &DeviceRule) -> io::Result<()> {
    let program = bpf::load(Kind::Device, &program(rule))?;
    bpf::attach(group, &program, Kind::Device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::bpf::run;

    fn allows(code: &[Instruction], major: u32, minor: u32) -> bool {
        run(code, &[0, major, minor])
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
