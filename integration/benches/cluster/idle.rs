//! What an idle cluster of one node costs: memory and CPU of its processes, and the size of the
//! program.
//!
//! Prints figures, one per line: `name value unit`.

use crate::world::{World, cpu_seconds, resident_kib};
use std::time::Duration;

/// How long the cluster is looked at.
const LONG: Duration = Duration::from_secs(20);

/// Measures, and prints.
pub(crate) fn run() {
    let world = World::start(1);
    let parts = ["coordinator", "n1"];
    let before = parts.map(|part| cpu_seconds(world.pid(part)));
    std::thread::sleep(LONG);
    for (part, before) in parts.into_iter().zip(before) {
        let pid = world.pid(part);
        let share = 100.0 * (cpu_seconds(pid) - before) / LONG.as_secs_f64();
        println!("idle_cpu_{part} {share:.2} percent_of_a_core");
        println!("idle_memory_{part} {:.1} MiB", resident_kib(pid) as f64 / 1024.0);
    }
    let yard = std::env::var_os("YARD_BIN").expect("the cluster was started with it");
    let bytes = std::fs::metadata(yard).expect("it is there").len();
    println!("program {:.1} MiB", bytes as f64 / (1024.0 * 1024.0));
}
