//! The agent's side of everything that is said between a node and the coordinator.
//!
//! ```text
//!   lease    renewals    --> every member       its own connection each
//!   control  reports     --> the leader         one stream; desired sets come back
//!   data     logs, files --> whoever asked      a connection for each question, dialled back
//!   output   copies      --> two members        its own connection each
//!   certificate, maintenance --> any member
//!   health   what is wrong with the machine: told with what it has
//! ```
//!
//! What to do next is decided by `yard_core::agent`, behind [`crate::driver`]; until when ranks may
//! run by `yard_core::lease`. Here is only what carries their words.
//!
//! **Invariants:** no task waits for another one's connection. What comes from outside is checked
//! where it comes in, and never panics. A stream loses nothing: what is not acknowledged comes
//! again, in order.

pub(crate) mod certificate;
pub(crate) mod control;
mod data;
mod detail;
pub(crate) mod facts;
pub(crate) mod health;
pub(crate) mod lease;
pub(crate) mod link;
pub(crate) mod maintenance;
pub(crate) mod memory;
pub(crate) mod output;
pub(crate) mod room;
pub(crate) mod roster;
mod stream;
pub(crate) mod told;

pub use memory::MemoryError;

use crate::driver;
use crate::paths::Paths;
use crate::samples::Samples;
use crate::setup::Heard;
use lease::Succession;
use memory::Memory;
use roster::Rosters;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use yard_core::agent::{Fence, Lease};
use yard_core::command::Inventory;
use yard_proto::v1;
use yard_runtime::tls::ClientTls;

/// What the tasks of a session have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The node's name.
    pub(crate) name: String,
    pub(crate) tls: Arc<ClientTls>,
    pub(crate) driver: Arc<driver::Handle>,
    pub(crate) paths: Paths,
    /// Our own program.
    pub(crate) program: PathBuf,
    /// What assignments use.
    pub(crate) samples: Samples,
    pub(crate) memory: Memory,
    pub(crate) rosters: Rosters,
    /// What the machine has.
    pub(crate) inventory: watch::Receiver<Inventory>,
    /// What it is like now.
    pub(crate) facts: watch::Receiver<v1::NodeFacts>,
    /// What the holder of the lease has reached.
    pub(crate) held: watch::Receiver<Lease>,
    pub(crate) successions: mpsc::Sender<Succession>,
    /// Raised with each new certificate.
    pub(crate) certificate: watch::Receiver<u64>,
    /// The set that is obeyed.
    pub(crate) fence: watch::Sender<Fence>,
    /// What parts of the agent find wrong with the machine.
    pub(crate) findings: watch::Sender<health::Findings>,
    /// Processes of assignments that were killed and do not end.
    pub(crate) stuck: watch::Sender<Vec<v1::StuckProcesses>>,
    /// Output that does not arrive in the directory of its job.
    pub(crate) late: watch::Sender<Vec<v1::LateOutput>>,
    /// What the pool wants of the machine before it takes work.
    pub(crate) setup: watch::Sender<Heard>,
    /// The last check of itself that the node is asked for.
    pub(crate) asked: watch::Sender<u32>,
}

/// What no session goes on after.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fatal {
    /// The driver has ended; why, it says itself.
    #[error("the driver has ended")]
    Driver,
    /// A file of the agent cannot be written.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}
