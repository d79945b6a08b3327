//! The control-plane process, as a library: `Options -> Service -> Handle`.
//!
//! **Invariant:** openraft types stay inside the module `raft`; every decision is made by
//! `yard-core`, and this crate only carries it out.
//!
//! The crate is empty until the process exists; nothing depends on it yet.
#![forbid(unsafe_code)]
