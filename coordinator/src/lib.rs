//! The control-plane process, as a library: `Options -> Service -> Handle`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`mod@env`] | the seam to clocks, chance, files, connections and work that blocks |
//! | [`storage`] | log, snapshots and promises on the disk |
//! | [`raft`], [`proposer`] | the consensus, and what it offers to everything above |
//! | `member` | what every member does: leases, recent events, reads that are not stale |
//! | `leader` | the work of a leader: scheduler, time, judgement of silence |
//! | `sessions` | control streams of agents, and questions to them |
//! | `api` | the calls, behind one gate |
//! | `folder`, `service` | how a member is made, started and stopped |
//!
//! **Invariant:** openraft types stay inside the module `raft`; every decision is made by
//! `yard-core`, and this crate only carries it out.
#![forbid(unsafe_code)]

mod api;
mod certificate;
mod config;
mod counters;
pub mod env;
mod folder;
mod leader;
mod member;
mod peers;
pub mod proposer;
pub mod raft;
mod service;
mod sessions;
pub mod storage;

pub use certificate::ReplaceError;
pub use folder::{InitError, InitOptions, Initialised, init};
pub use service::{EXIT_CODE, Handle, Options, ServeError, Service, features};
