//! Which addresses the processes of a control group of version 2 may not reach: small programs that
//! the kernel runs when they connect, or send without a connection. They stay for as long as the
//! group.

use super::bpf::{self, Instruction, Kind, answer, load_word, skip_unless};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::BorrowedFd;

/// Names of machines are asked for at this port: at some clouds, of the very address that gives
/// their credentials away.
const DNS_PORT: u16 = 53;

/// Where a program finds what is asked for (`struct bpf_sock_addr`), in bytes.
const V4_AT: i16 = 4;
const V6_AT: i16 = 8;
const PORT_AT: i16 = 24;

/// What is in the structure of an address: its bytes, in the order of the network.
fn words(bytes: &[u8]) -> Vec<u32> {
    let word = |at: &[u8]| u32::from_ne_bytes([at[0], at[1], at[2], at[3]]);
    bytes.chunks_exact(4).map(word).collect()
}

/// Refuses these addresses, each given as its words, which are at `at`. The answer to all else, and
/// to whoever asks for names, is yes.
fn program(at: i16, addresses: &[Vec<u32>]) -> Vec<Instruction> {
    let port = u32::from(DNS_PORT.to_be());
    let mut code = vec![load_word(2, PORT_AT), skip_unless(2, port, 2)];
    code.extend(answer(true));
    for address in addresses {
        // A word that differs leads behind the refusal.
        let count = address.len() as i16;
        for (index, word) in address.iter().enumerate() {
            let index = index as i16;
            code.push(load_word(2, at + 4 * index));
            code.push(skip_unless(2, *word, 2 * (count - index - 1) + 2));
        }
        code.extend(answer(false));
    }
    code.extend(answer(true));
    code
}

/// The programs, with what each is asked.
fn programs(addresses: &[IpAddr]) -> [(Kind, Vec<Instruction>); 4] {
    let of_v4 = |address: &IpAddr| match address {
        IpAddr::V4(address) => Some(words(&address.octets())),
        IpAddr::V6(address) => address.to_ipv4_mapped().map(|address| words(&address.octets())),
    };
    let of_v6 = |address: &IpAddr| -> Ipv6Addr {
        match address {
            // A socket of version 6 reaches those of version 4 by another name.
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => *address,
        }
    };
    let v4 = program(V4_AT, &addresses.iter().filter_map(of_v4).collect::<Vec<_>>());
    let v6: Vec<_> = addresses.iter().map(|one| words(&of_v6(one).octets())).collect();
    let v6 = program(V6_AT, &v6);
    let (connects, sends) = ([Kind::Connect4, Kind::Connect6], [Kind::Send4, Kind::Send6]);
    [(connects[0], v4.clone()), (connects[1], v6.clone()), (sends[0], v4), (sends[1], v6)]
}

/// Refuses these addresses, and no others, to a group of version 2 and all below it.
pub(crate) fn refuse_addresses(group: BorrowedFd<'_>, addresses: &[IpAddr]) -> io::Result<()> {
    for (kind, code) in programs(addresses) {
        if addresses.is_empty() {
            bpf::detach(group, kind)?;
        } else {
            bpf::attach(group, &bpf::load(kind, &code)?, kind)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether an address may be reached at a port.
    fn reaches(refused: &[IpAddr], address: &str, port: u16) -> bool {
        let address: IpAddr = address.parse().unwrap();
        let mut asked = [0u32; 7];
        asked[6] = u32::from(port.to_be());
        let kinds = match address {
            IpAddr::V4(address) => {
                asked[1] = words(&address.octets())[0];
                [Kind::Connect4, Kind::Send4]
            }
            IpAddr::V6(address) => {
                asked[2..6].copy_from_slice(&words(&address.octets()));
                [Kind::Connect6, Kind::Send6]
            }
        };
        let programs = programs(refused);
        let of = |kind| programs.iter().find(|(one, _)| *one == kind).map(|(_, code)| code);
        let [connects, sends] = kinds.map(|kind| bpf::run(of(kind).unwrap(), &asked));
        assert_eq!(connects, sends);
        connects
    }

    #[test]
    fn what_is_refused_is_refused_by_all_its_names_and_nothing_else_is() {
        let refused = ["169.254.169.254", "168.63.129.16", "fd00:ec2::254"];
        let refused = refused.map(|address| address.parse().unwrap());
        let asked = [
            ("169.254.169.254", false),
            ("168.63.129.16", false),
            ("::ffff:169.254.169.254", false),
            ("fd00:ec2::254", false),
            ("169.254.169.253", true),
            ("254.169.254.169", true),
            ("fd00:ec2::255", true),
            ("fd00:ec3::254", true),
            ("::1", true),
            ("10.0.0.4", true),
        ];
        for (address, may) in asked {
            assert_eq!(reaches(&refused, address, 80), may, "{address}");
            assert!(reaches(&refused, address, DNS_PORT), "{address}");
            assert!(reaches(&[], address, 80), "{address}");
        }
    }
}
