//! What ranks write: followed while everything but them dies, bounded, copied, and read as files.

mod bounds;
mod copies;
mod directory;
mod files;
mod follow;

use crate::world::{Cluster, await_true};
use std::path::PathBuf;

/// Lines that are counted up until a file is there, and then their number.
fn counting(stop: &std::path::Path) -> String {
    format!(
        "i=0; until [ -e {} ]; do for k in {{1..500}}; do echo $i; i=$((i+1)); done; sleep 0.02; \
         done; echo end $i",
        stop.display()
    )
}

/// Each line comes once and in order, and the last one says that they are all.
fn assert_counted(text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    let (last, lines) = lines.split_last().expect("there are lines");
    for (at, line) in lines.iter().enumerate() {
        assert_eq!(*line, at.to_string(), "line {at}");
    }
    assert_eq!(*last, format!("end {}", lines.len()));
}

/// The file of a stream of the first attempt of a job on a node.
fn stream(cluster: &Cluster, node: &str, job: u64, name: &str) -> PathBuf {
    let path = cluster.dev(node).join(format!("logs/{job}/0.1/{name}"));
    await_true("the rank wrote something", || path.metadata().is_ok_and(|found| found.len() > 0));
    path
}
