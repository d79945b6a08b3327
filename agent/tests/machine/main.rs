//! The agent with real processes: every story runs a driver, its shims, and ranks that exit, hang,
//! fork and are killed.
// Clippy knows tests by their attribute, and not what they are made of.
#![allow(clippy::unwrap_used)]

mod adoption;
mod ends;
mod gangs;
#[path = "../support/leftovers.rs"]
mod leftovers;
mod place;
mod prepare;
mod ready;
mod stops;
mod world;
