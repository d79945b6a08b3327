//! What goes wrong with real processes, disks and links, under a load whose history is checked.
//!
//! Each test disturbs three members while clients call them, and ends with both checkers: what
//! clients saw must be what the log says, and must fit some order without looking at the log. A
//! history with too little in it is a failure.

mod deaths;
mod disks;
mod links;
mod seeds;

use crate::world::clients::Load;
use std::time::{Duration, Instant};
use yard_integration::replay::Needs;

/// The seed of tests that have a plan of their own.
const SEED: u64 = 1;
/// What a history must have in it to prove anything. What nobody knows comes of clients that gave
/// up: seldom, but all at once.
const NEEDS: Needs = Needs { answered_min: 200, unknown_max: 40 };
/// How soon all is as before once nothing is wrong any more.
const HEALED: Duration = Duration::from_secs(20);

/// Goes on for a while, in which something is wrong.
fn last(time: Duration) {
    std::thread::sleep(time);
}

/// Waits until clients are served again; how long it took.
fn served(load: &Load) -> Duration {
    let began = Instant::now();
    load.await_more(20);
    began.elapsed()
}
