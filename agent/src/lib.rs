//! The per-machine process and its shim.
//!
//! ```text
//!   session (later) --> driver --Start, Cut, Kill--> shim --fork, exec--> ranks
//!                         |    <--Started, Ended----   |
//!                       store                       record
//! ```
//!
//! - [`driver`] carries out what `yard_core::agent` decides, on one thread; [`store`] keeps what
//!   must survive.
//! - [`shim`] is one small process per assignment that outlives the agent. It prepares, starts,
//!   watches and kills, and writes down what it does before it does it.
//! - [`launch`] turns a job spec and its place in a gang into processes.
//! - [`inventory`] says what the machine has; [`logs`] reads what ranks wrote.
//!
//! **Invariant:** `unsafe` is denied outside the one module of system calls, where every block has
//! a `// SAFETY:` comment. What to do next is decided by `yard_core::agent`.
#![deny(unsafe_code)]

pub mod cgroup;
pub mod driver;
pub mod frames;
pub mod gang;
pub mod inventory;
pub mod launch;
pub mod lease_file;
pub mod logs;
pub mod paths;
mod process;
pub mod shim;
pub mod store;
mod sys;
mod wire;

pub use sys::boot_ms;
