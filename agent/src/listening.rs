//! On which ports processes of this machine listen, from `/proc`.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The state of a socket that listens, as `/proc/net/tcp` has it: TCP_LISTEN.
const LISTENS: &str = "0A";

/// Addresses on which any of these processes listens.
pub(crate) fn of(pids: &[i32]) -> Vec<SocketAddr> {
    let theirs: BTreeSet<u64> = pids.iter().flat_map(|pid| sockets(*pid)).collect();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let tables = tables.iter().filter_map(|path| fs::read_to_string(path).ok());
    let mut found: Vec<SocketAddr> = tables
        .flat_map(|table| listening(&table))
        .filter(|(_, inode)| theirs.contains(inode))
        .map(|(address, _)| address)
        .collect();
    // The same order whoever asks, so that the same one is reached.
    found.sort_unstable();
    found.dedup();
    found
}

/// How to reach from this machine whoever listens on an address.
pub(crate) fn reached_at(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Inodes of the sockets that a process has open; none if it is gone.
fn sockets(pid: i32) -> Vec<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let inode = |link: std::path::PathBuf| {
        link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    links.filter_map(inode).collect()
}

/// Addresses and inodes of the sockets in a table that listen.
fn listening(table: &str) -> Vec<(SocketAddr, u64)> {
    let row = |line: &str| {
        let mut fields = line.split_whitespace();
        let address = fields.nth(1)?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        (state == LISTENS).then_some((parse(address)?, inode))
    };
    table.lines().filter_map(row).collect()
}

/// An address as the kernel writes it: each 32 bits as a number of this machine, in hexadecimal.
fn parse(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = u32::from_str_radix(ip.get(8 * at..8 * at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip = match ip.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let words: Option<Vec<[u8; 4]>> = (0..4).map(word).collect();
            IpAddr::from(<[u8; 16]>::try_from(words?.concat()).ok()?)
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn what_this_process_listens_on_is_found() {
        let own = [std::process::id() as i32];
        for bind in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            // A machine without IPv6 has no such addresses.
            let Ok(listener) = TcpListener::bind(bind) else { continue };
            let address = listener.local_addr().unwrap();
            assert!(of(&own).contains(&address), "{bind}");
            assert!(!of(&[1]).contains(&address), "it is not the first process's");
            let reached = std::net::TcpStream::connect(reached_at(address));
            assert!(reached.is_ok(), "{bind}");
            drop(listener);
            assert!(!of(&own).contains(&address), "{bind} is closed");
        }
    }

    #[test]
    fn rows_that_are_none_are_passed_over() {
        let table = "  sl  local_address rem_address   st\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 9 0 42 1\n\
             1: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000 9 0 43 1\n\
             2: 01:1F91 x 0A\n\n x";
        let ours = if cfg!(target_endian = "little") { "127.0.0.1:8080" } else { "1.0.0.127:8080" };
        assert_eq!(listening(table), [(ours.parse().unwrap(), 42)]);
    }
}
