//! A whole member over real TLS on loopback, with users and agents that speak the protocol.
#![allow(clippy::unwrap_used)]

mod access;
mod agent;
mod bad_input;
mod cluster;
mod data;
mod levels;
mod members;
mod pools;
mod stories;
