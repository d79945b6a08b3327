//! From a job spec and a place in a gang to processes.
//!
//! All of it runs in the shim, before and between the tasks of a chain: looking a user up may take
//! its time, and none of it may hold up the agent.
//!
//! **Invariant:** no string of a user meets a shell, but for a command that is a line, which its
//! shell gets untouched.

mod account;
mod assignment;
mod checkpoint;
mod command;
mod environment;
mod error;
mod files;
mod mpi;
mod orders;
mod plan;
mod private;
mod rlimits;

pub use account::own_login;
pub use assignment::{Assignment, GangNode, GrantedGpu, ShownTasks, TaskParams};
pub(crate) use checkpoint::CheckpointRequest;
pub(crate) use environment::mark;
pub use error::PrepareError;
pub(crate) use files::open_stream;
pub use orders::{Orders, Site};
pub(crate) use plan::{Part, Plan, Process, TaskPlan};
