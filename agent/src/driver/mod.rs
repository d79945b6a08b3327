//! Carries out what the agent's automaton decides: one thread that owns automaton, store and the
//! connections to shims, and a handle for everybody else.
//!
//! ```text
//!   Handle --desired, lease, connected, acknowledged--> thread --step--> automaton
//!          <--reports--------------------------------         \--orders--> shims
//! ```
//!
//! The thread takes in all that has come, steps the automaton for each, writes all changes with
//! one flush, and only then does what follows. So a burst of exits costs one flush.
//!
//! **Invariants:** nothing is done before what it follows from is on disk. A storage error ends
//! the driver; the shims go on, and the next agent adopts them.

mod adopt;
mod check;
mod clean;
mod cpus;
mod disk;
mod handle;
mod make;
mod perform;
mod ready;
mod remains;
mod shims;
mod turn;

pub use check::{Check, Checks, Refused, Wanted};
pub use handle::{Driver, DriverError, Handle, Options, Released, Share};
pub(crate) use remains::Remains;
