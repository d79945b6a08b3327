//! The control-plane process, as a library: `Options -> Service -> Handle`.
//!
//! **Invariant:** openraft types stay inside the module `raft`; every decision is made by
//! `yard-core`, and this crate only carries it out.
#![forbid(unsafe_code)]

pub mod env;
pub mod proposer;
pub mod raft;
pub mod storage;
