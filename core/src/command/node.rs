//! Commands about the life of a node.

use super::SetupReport;
use crate::lease::{Lift, Lost};
use minicbor::{Decode, Encode};
use yard_common::Amounts;
use yard_common::condition::{Bars, ConditionKind};
use yard_common::gpu::GpuDevice;
use yard_common::id::{BootId, LeaseId, NodeId, TokenId};

/// Life of a node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum NodeCommand {
    /// A machine joins with a token of its pool.
    #[n(0)]
    Join {
        /// Public part of the token.
        #[n(0)]
        token: TokenId,
        /// SHA-256 of the secret that was presented.
        #[n(1)]
        secret_sha256: [u8; 32],
        /// Unique name.
        #[n(2)]
        name: String,
        /// What it has.
        #[n(3)]
        inventory: Inventory,
    },
    /// The agent tells what its machine has now. A new boot id says that nothing of before runs.
    #[n(1)]
    Update {
        /// The node; must be the actor.
        #[n(0)]
        node: NodeId,
        /// What it has.
        #[n(1)]
        inventory: Inventory,
    },
    /// A majority of members has not heard of it for a while: nothing new is placed there.
    #[n(2)]
    Suspect {
        /// The node.
        #[n(0)]
        node: NodeId,
        /// The lease that this is about.
        #[n(1)]
        lease: LeaseId,
    },
    /// A majority of members promised never to renew this lease again.
    #[n(3)]
    Lost(#[n(0)] Lost),
    /// It is heard of again, under its present lease.
    #[n(4)]
    Returned {
        /// The node.
        #[n(0)]
        node: NodeId,
        /// The lease under which it is heard.
        #[n(1)]
        lease: LeaseId,
    },
    /// It is alive, although some members promised its lease away: mints the next one.
    #[n(10)]
    Lift(#[n(0)] Lift),
    /// Its agent stops for a while on purpose: silence until then means nothing.
    #[n(5)]
    Maintenance {
        /// The node; the agent itself or an operator asks.
        #[n(0)]
        node: NodeId,
        /// For how long in milliseconds, at most `MAINTENANCE_MS_MAX`; 0 ends it if the agent asks,
        /// and is [`NodeCommand::Back`] otherwise.
        #[n(1)]
        for_ms: u64,
    },
    /// Its agent is back before that: work is placed there again. Its ranks may count on the time
    /// that was granted, so it is not given up before that is over.
    #[n(11)]
    Back(#[n(0)] NodeId),
    /// Nothing new is placed on it, from now or a later time on.
    #[n(6)]
    Drain {
        /// The node.
        #[n(0)]
        node: NodeId,
        /// When and how.
        #[n(1)]
        plan: DrainPlan,
    },
    /// Ends a drain or a cordon.
    #[n(7)]
    Undrain(#[n(0)] NodeId),
    /// Its provider or an operator says that the machine is off: nothing of it runs any more.
    #[n(8)]
    ConfirmDead(#[n(0)] NodeId),
    /// Takes it out for good. It must hold nothing.
    #[n(9)]
    Remove(#[n(0)] NodeId),
    /// Nothing new is placed on one of its GPUs.
    #[n(12)]
    DrainGpu {
        /// The node.
        #[n(0)]
        node: NodeId,
        /// UUID of the GPU or MIG instance.
        #[n(1)]
        gpu: String,
        /// For people.
        #[n(2)]
        reason: String,
    },
    /// Ends that; and the node looks anew at what it found wrong with the GPU.
    #[n(13)]
    UndrainGpu {
        /// The node.
        #[n(0)]
        node: NodeId,
        /// UUID of the GPU or MIG instance.
        #[n(1)]
        gpu: String,
    },
    /// The node looks anew at what it found wrong with itself.
    #[n(14)]
    Check(#[n(0)] NodeId),
}

/// When and how a node is emptied.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DrainPlan {
    /// From when on nothing may run there, in milliseconds from the command; 0: now.
    #[n(0)]
    pub in_ms: u64,
    /// How long running attempts may go on after that, in milliseconds; `None`: to their end.
    #[n(1)]
    pub deadline_ms: Option<u64>,
    /// For people.
    #[n(2)]
    pub reason: String,
}

/// What a machine has, as its agent found it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Inventory {
    /// This boot of its kernel.
    #[n(0)]
    pub boot: BootId,
    /// What jobs may use of CPU, memory and disk.
    #[n(1)]
    pub amounts: Amounts,
    /// GPUs and MIG instances, in an order that holds for the life of the boot.
    #[n(2)]
    pub devices: Vec<GpuDevice>,
    /// Labels, sorted by key; topology levels among them.
    #[n(3)]
    pub labels: Vec<(String, String)>,
    /// Host name or address that other nodes reach it by.
    #[n(4)]
    pub address: String,
    /// Version of the agent.
    #[n(5)]
    pub version: String,
    /// What is wrong with it, each kind once for the machine and once for each device.
    #[n(6)]
    #[cbor(default)]
    pub conditions: Vec<Condition>,
    /// The check that was done last, of those that the coordinator asked for.
    #[n(7)]
    #[cbor(default)]
    pub checked: u32,
    /// How far the setup of its pool is in this boot; none: it has heard of none.
    #[n(8)]
    #[cbor(default)]
    pub setup: Option<SetupReport>,
}

impl Inventory {
    /// Whether something keeps all new work from the machine, apart from the setup of its pool:
    /// of that the state knows by itself, see [`Node::setup_due`](crate::state::Node).
    #[must_use]
    pub fn is_unwell(&self) -> bool {
        let bars = |kind: ConditionKind| kind.bars() == Bars::Node && kind != ConditionKind::Setup;
        self.conditions.iter().any(|condition| bars(condition.kind))
    }
}

/// Something that is wrong with a machine or one of its devices.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Condition {
    /// What.
    #[n(0)]
    pub kind: ConditionKind,
    /// Position of the device that it is about, if it is about one.
    #[n(1)]
    pub device: Option<u16>,
    /// Since when, by the machine's clock, in milliseconds since 1970. For people.
    #[n(2)]
    pub since_wall_ms: u64,
    /// Why, for people.
    #[n(3)]
    pub why: String,
    /// Whether it holds until the machine boots again, whatever a check finds.
    #[n(4)]
    pub until_boot: bool,
}
