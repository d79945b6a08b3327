//! Discrete-event simulator of Trainyard: whole clusters in virtual time, from one seed.
//!
//! It drives the same code as the real processes, all of `yard-core`: the replicated state, the
//! scheduler, leases, retries and the automaton of the agent. Around it is a world that breaks:
//! members that crash and lose what they had not flushed, leaders that are deposed and go on,
//! a network that loses, repeats and reorders, machines that lose power or stand still, clocks
//! that drift and jump. A [witness](truth) notes what really ran; [invariants] hold
//! it against what was promised.
//!
//! Everything of a run follows from its seed.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]
// Fields of messages and events say by their names what they are.
#![allow(missing_docs)]

pub mod agenda;
pub mod agent_host;
pub mod away;
pub mod client;
pub mod clock;
pub mod coverage;
pub mod faults;
pub mod invariants;
pub mod leader;
pub mod log;
pub mod machine;
pub mod member;
pub mod message;
pub mod mutants;
pub mod net;
pub mod observe;
pub mod raft;
pub mod rng;
pub mod runner;
pub mod scenario;
pub mod shim;
pub mod sweep;
pub mod truth;
pub mod workload;
pub mod world;
