//! The agent with real processes: every story runs a driver, its shims, and ranks that exit, hang,
//! fork and are killed.
// Clippy knows tests by their attribute, and not what they are made of.
#![allow(clippy::unwrap_used)]

mod adoption;
mod checkpoint;
mod checks;
mod clean;
mod cuts;
mod disk;
mod ends;
mod gangs;
mod hangs;
#[path = "../support/leftovers.rs"]
mod leftovers;
mod limits;
mod place;
mod prepare;
mod ready;
mod signals;
mod stops;
mod world;
