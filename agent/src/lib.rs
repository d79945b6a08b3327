//! The per-machine process and its shim.
//!
//! ```text
//!           session --> driver --Start, Cut, Kill--> shim --fork, exec--> ranks
//!                         |    <--Started, Ended----   |
//!                       store                       record
//! ```
//!
//! - [`join`] makes a machine a node; [`service`] is the process of one; [`session`] carries what
//!   node and coordinator say to each other.
//! - [`driver`] carries out what `yard_core::agent` decides, on one thread; [`store`] keeps what
//!   must survive.
//! - [`shim`] is one small process per assignment that outlives the agent. It prepares, starts,
//!   watches and kills, and writes down what it does before it does it.
//! - [`launch`] turns a job spec and its place in a gang into processes.
//! - [`clear()`] ends everything that runs when a machine leaves for good; [`living`] counts it.
//! - [`health`] looks whether the machine is well; [`inventory`] says what it has; [`logs`] reads
//!   what ranks wrote.
//!
//! **Invariant:** `unsafe` is denied outside the one module of system calls, where every block has
//! a `// SAFETY:` comment. What to do next is decided by `yard_core::agent`.
#![deny(unsafe_code)]

pub mod cgroup;
mod clear;
pub mod delivery;
mod disk;
pub mod driver;
pub mod frames;
pub mod gang;
pub mod health;
pub mod inventory;
pub mod join;
pub mod launch;
pub mod lease_file;
mod listening;
pub mod logs;
pub mod paths;
pub mod process;
mod samples;
pub mod service;
pub mod session;
pub mod setup;
pub mod shim;
pub mod store;
mod sys;
mod visit;
mod wire;

pub use clear::{ClearError, clear, living};
pub use sys::boot_ms;
