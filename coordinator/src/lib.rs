//! The control-plane process, as a library: `Options -> Service -> Handle`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`mod@env`] | the seam to clocks, chance, files, connections and work that blocks |
//! | [`storage`] | log, snapshots and promises on the disk |
//! | [`raft`], [`proposer`] | the consensus, and what it offers to everything above |
//! | `compare` | members compare what they hold |
//! | `member` | what every member does: leases, recent events, reads that are not stale |
//! | `leader` | the work of a leader: scheduler, time, judgement of silence |
//! | `copies` | what ranks wrote lately, for when their node is gone |
//! | `sessions` | control streams of agents, and questions to them |
//! | `api` | the calls, behind one gate |
//! | `folder`, `service` | how a member is made, started and stopped |
//! | [`backup`], `restore` | a cluster in one file, and back |
//!
//! **Invariant:** openraft types stay inside the module `raft`; every decision is made by
//! `yard-core`, and this crate only carries it out.
#![forbid(unsafe_code)]

mod api;
pub mod backup;
mod build;
mod certificate;
mod compare;
mod config;
mod copies;
mod counters;
pub mod env;
mod folder;
mod join;
mod leader;
mod member;
mod pace;
mod peers;
mod place;
pub mod proposer;
pub mod raft;
mod reset;
mod restore;
mod service;
mod sessions;
pub mod storage;

pub use build::{Build, Commands, Vocabulary};
pub use certificate::ReplaceError;
pub use folder::{InitError, InitOptions, Initialised, LifeError, init};
pub use join::{JoinError, JoinOptions, Joined, join};
pub use place::PlaceError;
pub use reset::{ResetError, Resident, reset, resident};
pub use restore::{RestoreError, RestoreOptions, Restored, restore};
pub use service::{
    EXIT_CODE, EXIT_FOLDER, EXIT_VERSION, Handle, Options, ServeError, Service, features,
};
