//! Benchmarks of whole clusters: real processes of a release build, on this machine.
//!
//! Prints figures, one per line: `name value unit`. `scripts/bench` runs it.

#![allow(clippy::disallowed_methods)]

mod etcd;
mod flushes;
mod follow;
mod ha;
mod idle;
mod latency;
mod node;
mod recovery;
mod throughput;
mod world;

fn main() {
    let now = latency::wall();
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["latency"] => latency::run(),
        ["throughput"] => throughput::run(),
        ["follow"] => follow::run(),
        ["idle"] => idle::run(),
        ["ha"] => ha::run(),
        ["node"] => node::run(),
        ["recovery"] => recovery::run(),
        // This very program is what the jobs of `latency` and of `follow` run.
        ["stamp", folder] => latency::stamp(now, folder.as_ref()),
        ["flood", folder] => follow::flood(folder.as_ref()),
        // Whoever runs all benchmarks of the workspace starts no clusters by that.
        _ => println!("# give one of: follow, ha, idle, latency, node, recovery, throughput"),
    }
}
