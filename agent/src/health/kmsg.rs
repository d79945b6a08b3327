//! XIDs from the messages of the kernel, for drivers that do not hand them out.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use yard_common::limits::GPU_EVENTS_MAX;

/// Bytes of one message; the kernel cuts longer ones.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// The messages of the kernel from now on.
#[derive(Debug)]
pub(super) struct Kmsg(File);

impl Kmsg {
    pub(super) fn open(path: &Path) -> std::io::Result<Kmsg> {
        let flags = nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        // What was said before this boot of the agent was heard by the one before.
        file.seek(SeekFrom::End(0))?;
        Ok(Kmsg(file))
    }

    /// What came since, a bounded number at a time: address of the GPU, and XID.
    pub(super) fn take(&mut self) -> Vec<(String, u32)> {
        let mut found = Vec::new();
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        for _ in 0..GPU_EVENTS_MAX {
            match self.0.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    let text = String::from_utf8_lossy(&buffer[..count]);
                    found.extend(text.lines().filter_map(xid_of));
                }
                // Messages were lost: the next read goes on behind them.
                Err(error) if error.raw_os_error() == Some(nix::libc::EPIPE) => {}
                Err(_) => break,
            }
        }
        found
    }
}

/// The XID in a line: `NVRM: Xid (PCI:0000:17:00): 79, pid=1234, GPU has fallen off the bus.`
fn xid_of(line: &str) -> Option<(String, u32)> {
    // Lines of programs cannot look like it: theirs do not begin so.
    let message = line.split_once(';').map_or(line, |(_, message)| message);
    let rest = message.strip_prefix("NVRM: Xid (PCI:")?;
    let (address, rest) = rest.split_once("): ")?;
    let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let legal = |c: char| c.is_ascii_hexdigit() || c == ':' || c == '.';
    if address.len() > 32 || !address.chars().all(legal) {
        return None;
    }
    Some((address.to_ascii_lowercase(), number.parse().ok()?))
}

/// Whether two addresses of the PCI bus are the same device: the kernel leaves the function away,
/// and NVML writes a longer domain.
pub(super) fn same_device(kernel: &str, nvml: &str) -> bool {
    let key = |text: &str| {
        let text = text.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let mut parts = text.rsplit(':').map(|part| u32::from_str_radix(part, 16).ok());
        let (device, bus) = (parts.next().flatten(), parts.next().flatten());
        (parts.next().flatten().unwrap_or(0), bus, device)
    };
    let (kernel, nvml) = (key(kernel), key(nvml));
    kernel.1.is_some() && kernel.2.is_some() && kernel == nvml
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_of_the_driver_are_read_and_others_are_not() {
        for (line, expected) in [
            (
                "4,1234,5678,-;NVRM: Xid (PCI:0000:17:00): 79, pid='<unknown>', GPU has fallen",
                Some(("0000:17:00", 79)),
            ),
            ("NVRM: Xid (PCI:0000:3B:00): 13, pid=77", Some(("0000:3b:00", 13))),
            ("NVRM: Xid (PCI:0000:17:00): 48", Some(("0000:17:00", 48))),
            ("NVRM: Xid (PCI:0000:17:00): , pid=1", None),
            ("NVRM: Xid (PCI:0000:17:00): 99999999999", None),
            ("NVRM: Xid (PCI:; rm -rf): 79", None),
            ("12,1,1,-;login: NVRM: Xid (PCI:0000:17:00): 79", None),
            ("", None),
        ] {
            let expected = expected.map(|(address, xid)| (address.to_string(), xid));
            assert_eq!(xid_of(line), expected, "{line}");
        }
    }

    #[test]
    fn addresses_are_compared_by_what_they_mean() {
        assert!(same_device("0000:17:00", "00000000:17:00.0"));
        assert!(same_device("0001:3b:00", "00000001:3B:00.0"));
        assert!(!same_device("0000:17:00", "00000001:17:00.0"));
        assert!(!same_device("", ""));
    }

    #[test]
    fn what_was_said_before_is_not_heard_again() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let line = |xid| format!("NVRM: Xid (PCI:0000:17:00): {xid}, x\n");
        file.write_all(line(13).as_bytes()).unwrap();
        let mut kmsg = Kmsg::open(file.path()).unwrap();
        assert_eq!(kmsg.take(), []);
        file.write_all((line(79) + &line(45)).as_bytes()).unwrap();
        let heard: Vec<u32> = kmsg.take().into_iter().map(|(_, xid)| xid).collect();
        assert_eq!(heard, [79, 45]);
    }
}
