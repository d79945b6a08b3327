//! Bytes that TCP connections of processes carried, as the kernel counts them for each socket.
//!
//! Processes of an attempt share the network of their machine, so its interfaces say nothing about
//! one attempt. The kernel tells of each connection how many bytes came in and were acknowledged,
//! and `/proc` which process holds it. What is not seen: UDP, RDMA, unix sockets, shared memory,
//! and connections that began and ended between two looks.

use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use yard_common::limits::STALL_SOCKETS_MAX;

/// Bytes of one answer of the kernel; it makes them no longer than 32 KiB.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long the kernel may take, in seconds.
const PATIENCE_S: i64 = 2;

// Of linux/netlink.h, linux/sock_diag.h and linux/inet_diag.h.
const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_INFO: u16 = 2;
const TCP: u8 = 6;
/// `struct inet_diag_msg`, and where its inode is.
const MESSAGE_BYTES: usize = 72;
const INODE_AT: usize = 68;
/// Where `struct tcp_info` has the bytes that were acknowledged, and then those that came.
const ACKED_AT: usize = 120;
const RECEIVED_AT: usize = 128;

/// Bytes of every TCP connection of this machine, both ways, by the inode of its socket.
///
/// # Errors
/// If the kernel does not answer.
pub(super) fn all() -> io::Result<BTreeMap<u64, u64>> {
    let mut found = BTreeMap::new();
    for family in [nix::libc::AF_INET, nix::libc::AF_INET6] {
        of_family(family as u8, &mut found)?;
    }
    Ok(found)
}

fn of_family(family: u8, found: &mut BTreeMap<u64, u64>) -> io::Result<()> {
    let (kind, flags) = (SockType::Datagram, SockFlag::SOCK_CLOEXEC);
    let protocol = SockProtocol::NetlinkSockDiag;
    let socket = socket(AddressFamily::Netlink, kind, flags, protocol)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE_S))?;
    send(socket.as_raw_fd(), &question(family), MsgFlags::empty())?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let len = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        if !take(&answer[..len], found)? {
            return Ok(());
        }
    }
}

/// Asks for all connections but those that only listen, with their counts.
fn question(family: u8) -> Vec<u8> {
    const LISTEN: u32 = 1 << 10;
    let mut body = vec![family, TCP, 1 << (INET_DIAG_INFO - 1), 0];
    body.extend_from_slice(&(0xfff & !LISTEN).to_ne_bytes());
    // Whichever address.
    body.extend_from_slice(&[0; 48]);
    let len = (HEADER_BYTES + body.len()) as u32;
    let mut message = len.to_ne_bytes().to_vec();
    message.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&body);
    message
}

/// Takes the messages of an answer in. Returns whether there is more to come.
fn take(mut answer: &[u8], found: &mut BTreeMap<u64, u64>) -> io::Result<bool> {
    while let (Some(len), Some(kind)) = (u32_at(answer, 0), u16_at(answer, 4)) {
        let len = len as usize;
        let Some(message) = answer.get(HEADER_BYTES..len) else { break };
        match kind {
            NLMSG_DONE => return Ok(false),
            NLMSG_ERROR => {
                let error = u32_at(message, 0).map_or(0, |number| (number as i32).wrapping_neg());
                return Err(io::Error::from_raw_os_error(error));
            }
            _ => {
                if let Some((inode, bytes)) = connection(message)
                    && found.len() < STALL_SOCKETS_MAX
                {
                    found.insert(inode, bytes);
                }
            }
        }
        answer = answer.get(aligned(len)..).unwrap_or_default();
    }
    Ok(true)
}

/// Inode and bytes of one connection. One whose process has closed it has no inode.
fn connection(message: &[u8]) -> Option<(u64, u64)> {
    let inode = u64::from(u32_at(message, INODE_AT)?);
    let mut rest = message.get(MESSAGE_BYTES..)?;
    while let (Some(len), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let value = rest.get(4..usize::from(len))?;
        if kind == INET_DIAG_INFO {
            let bytes = u64_at(value, ACKED_AT)?.saturating_add(u64_at(value, RECEIVED_AT)?);
            return (inode > 0).then_some((inode, bytes));
        }
        rest = rest.get(aligned(len.into())..)?;
    }
    None
}

fn aligned(len: usize) -> usize {
    len.saturating_add(3) & !3
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Inodes of the sockets that a process holds, `files_max` of its files looked at.
fn held(pid: i32, files_max: usize) -> Vec<u64> {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let inode = |file: io::Result<std::fs::DirEntry>| {
        let target = std::fs::read_link(file.ok()?.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    files.take(files_max).filter_map(inode).collect()
}

/// What the connections of one assignment carried since somebody began to look.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    /// By inode, at the last look; none: what was before the next look is unknown.
    before: Option<BTreeMap<u64, u64>>,
    all_bytes: u64,
    by_rank: BTreeMap<u32, u64>,
}

impl Traffic {
    /// Looks at the connections of these processes. `all`: those of the machine.
    pub(super) fn look(&mut self, pids: &[(i32, Option<u32>)], all: &BTreeMap<u64, u64>) {
        let mut now = BTreeMap::new();
        let mut left = STALL_SOCKETS_MAX;
        for (pid, rank) in pids {
            let inodes = held(*pid, left);
            left = left.saturating_sub(inodes.len());
            // Processes that share a connection count it once, for the first of them.
            for inode in inodes {
                let Some(bytes) = all.get(&inode) else { continue };
                now.entry(inode).or_insert((*bytes, *rank));
            }
        }
        self.count(&now);
    }

    /// Nobody looks for now: what is carried meanwhile is not counted.
    pub(super) fn pause(&mut self) {
        self.before = None;
    }

    /// Whether the last look counted.
    pub(super) fn is_looked_at(&self) -> bool {
        self.before.is_some()
    }

    fn count(&mut self, now: &BTreeMap<u64, (u64, Option<u32>)>) {
        let after = now.iter().map(|(inode, (bytes, _))| (*inode, *bytes)).collect();
        let Some(before) = self.before.replace(after) else { return };
        for (inode, (bytes, rank)) in now {
            // A connection that is new since the last look carried all of its bytes since then.
            let more = bytes.saturating_sub(before.get(inode).copied().unwrap_or(0));
            self.all_bytes = self.all_bytes.saturating_add(more);
            if let Some(rank) = rank {
                let of_rank = self.by_rank.entry(*rank).or_default();
                *of_rank = of_rank.saturating_add(more);
            }
        }
    }

    /// Bytes of all of them.
    pub(super) fn all_bytes(&self) -> u64 {
        self.all_bytes
    }

    /// Bytes of a rank.
    pub(super) fn of(&self, rank: u32) -> u64 {
        self.by_rank.get(&rank).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn bytes_of_a_connection_are_those_of_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut to = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut from, _) = listener.accept().unwrap();
        let me = [(std::process::id() as i32, Some(7))];
        let mut traffic = Traffic::default();
        traffic.look(&me, &all().unwrap());
        let before = traffic.all_bytes();
        to.write_all(&[b'x'; 50_000]).unwrap();
        from.read_exact(&mut [0; 50_000]).unwrap();
        // What comes back says that all of it was acknowledged.
        from.write_all(b"y").unwrap();
        to.read_exact(&mut [0]).unwrap();
        traffic.look(&me, &all().unwrap());
        // Both ends are of this process.
        let carried = traffic.all_bytes() - before;
        assert!(carried >= 100_000, "{carried}");
        assert_eq!(traffic.of(7), traffic.all_bytes());
        assert_eq!(traffic.of(8), 0);
        let quiet = traffic.all_bytes();
        traffic.look(&me, &BTreeMap::new());
        assert_eq!(traffic.all_bytes(), quiet, "what is gone carries nothing");
    }

    #[test]
    fn a_new_connection_counts_whole_and_a_known_one_what_came_since() {
        let mut traffic = Traffic::default();
        traffic.count(&BTreeMap::from([(1, (100, Some(0))), (2, (5, None))]));
        assert_eq!(traffic.all_bytes(), 0, "it is not known since when");
        traffic.count(&BTreeMap::from([(1, (130, Some(0))), (3, (7, Some(1)))]));
        assert_eq!((traffic.all_bytes(), traffic.of(0), traffic.of(1)), (37, 30, 7));
        traffic.pause();
        traffic.count(&BTreeMap::from([(1, (900, Some(0)))]));
        assert_eq!(traffic.all_bytes(), 37, "nobody looked meanwhile");
    }

    #[test]
    fn answers_that_cannot_be_are_left_out() {
        let mut found = BTreeMap::new();
        // Cut off in every place, and of a length that is none.
        let mut message = vec![0; HEADER_BYTES + MESSAGE_BYTES + 4];
        let len = message.len() as u32;
        message[..4].copy_from_slice(&len.to_ne_bytes());
        message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        for cut in 0..message.len() {
            assert!(take(&message[..cut], &mut found).unwrap());
        }
        message[..4].copy_from_slice(&3u32.to_ne_bytes());
        assert!(take(&message, &mut found).unwrap());
        assert!(found.is_empty());
        message[..4].copy_from_slice(&20u32.to_ne_bytes());
        message[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        message[16..20].copy_from_slice(&(-13i32).to_ne_bytes());
        assert_eq!(take(&message, &mut found).unwrap_err().raw_os_error(), Some(13));
        message[4..6].copy_from_slice(&NLMSG_DONE.to_ne_bytes());
        assert!(!take(&message, &mut found).unwrap());
    }
}
