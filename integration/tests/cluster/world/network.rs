//! Machines of a network of their own: namespaces on one bridge, with links that can be cut one
//! way. Nothing of it is visible outside, and everything goes with the test.
//!
//! What arrives from a machine that is cut off is thrown away by a routing rule, as by a broken
//! switch: connections that are open stay open and hear nothing.

use super::guard::Guard;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::AsFd;
use std::process::Command;

/// A network of machines, counted from 1.
pub(crate) struct Network {
    name: String,
    machines: u8,
    _guard: Guard,
}

impl Network {
    /// Makes it.
    pub(crate) fn new(machines: u8) -> Network {
        // An id alone may be that of a test that was killed.
        let began = std::fs::metadata("/proc/self").and_then(|own| own.modified());
        let began = began.ok().and_then(|at| at.elapsed().ok()).map_or(0, |since| since.as_nanos());
        let name = format!("yard-{}-{}", std::process::id(), began % 1_000_000);
        let of = |machine| format!("{name}-{machine}");
        let all: Vec<String> = (1..=machines).map(of).chain([format!("{name}-switch")]).collect();
        let network = Network { _guard: Guard::of_network(&all.join(" ")), name, machines };
        let switch = network.switch();
        ip(&format!("netns add {switch}"));
        ip(&format!("-n {switch} link add name sw0 type bridge"));
        ip(&format!("-n {switch} link set sw0 up"));
        for machine in 1..=machines {
            let (at, address) = (network.namespace(machine), Network::address(machine));
            ip(&format!("netns add {at}"));
            ip(&format!("-n {at} link set lo up"));
            ip(&format!("-n {at} link add eth0 type veth peer name v{machine} netns {switch}"));
            ip(&format!("-n {switch} link set v{machine} master sw0 up"));
            ip(&format!("-n {at} addr add {address}/24 dev eth0"));
            ip(&format!("-n {at} link set eth0 up"));
            // Rules come before the table of the machine's own addresses, also for connections
            // that are open.
            let early = "echo 0 > /proc/sys/net/ipv4/ip_early_demux";
            run(&["netns", "exec", &at, "sh", "-c", early]);
            ip(&format!("-n {at} rule add pref 10 lookup local"));
            ip(&format!("-n {at} rule del pref 0"));
        }
        network
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }

    /// The namespace of a machine.
    pub(crate) fn namespace(&self, machine: u8) -> String {
        format!("{}-{machine}", self.name)
    }

    /// What runs a program on a machine.
    pub(crate) fn within(&self, machine: u8) -> [String; 4] {
        ["ip".into(), "netns".into(), "exec".into(), self.namespace(machine)]
    }

    /// The address of a machine.
    pub(crate) fn address(machine: u8) -> String {
        format!("10.77.0.{machine}")
    }

    /// A further address of a machine: that of another number.
    pub(crate) fn also(&self, machine: u8, number: u8) {
        let (at, address) = (self.namespace(machine), Network::address(number));
        ip(&format!("-n {at} addr add {address}/24 dev eth0"));
    }

    /// Moves this thread to a machine.
    pub(crate) fn enter(&self, machine: u8) {
        enter(&self.namespace(machine));
    }

    /// From now on, what one machine sends does not reach another.
    pub(crate) fn cut(&self, from: u8, to: u8) {
        ip(&format!("-n {} rule add pref 1 {}", self.namespace(to), blackhole(from)));
    }

    /// Ends such a cut.
    pub(crate) fn heal(&self, from: u8, to: u8) {
        ip(&format!("-n {} rule del pref 1 {}", self.namespace(to), blackhole(from)));
    }
}

fn blackhole(from: u8) -> String {
    format!("from {} blackhole", Network::address(from))
}

/// Moves this thread to a namespace, and with it the threads and processes that it starts.
pub(crate) fn enter(namespace: &str) {
    let file = std::fs::File::open(format!("/run/netns/{namespace}"));
    let file = file.expect("the namespace was made");
    let network = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(file.as_fd(), network).expect("the test is root");
}

impl Drop for Network {
    fn drop(&mut self) {
        let machines = (1..=self.machines).map(|machine| self.namespace(machine));
        for namespace in machines.chain([self.switch()]) {
            let _ = Command::new("ip").args(["netns", "del", &namespace]).status();
        }
    }
}

fn ip(words: &str) {
    run(&words.split(' ').collect::<Vec<_>>());
}

fn run(words: &[&str]) {
    let output = Command::new("ip").args(words).output().expect("ip is installed");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {told}", words.join(" "));
}
