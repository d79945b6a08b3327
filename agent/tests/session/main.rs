//! The agent against a coordinator that the test plays: real TLS, real streams, real processes.
// Clippy knows tests by their attribute, and not what they are made of.
#![allow(clippy::unwrap_used)]

mod cluster;
mod data;
mod delivering;
mod joining;
mod keeping;
#[path = "../support/leftovers.rs"]
mod leftovers;
mod member;
mod node;
mod streams;
