//! Core types as payloads of internal messages: CBOR with numbered fields, each type with its
//! bound, in both directions.
//!
//! What comes from outside is checked before it is used: the length first, then that the bytes are
//! exactly one value, then the bounds that the type itself has. No bytes panic.

use bytes::Bytes;
use minicbor::{Decode, Encode};
use yard_common::id::{LeaderId, LeaseId, LogIndex, MemberId, NodeId, RequestId};
use yard_common::limits::{AGENT_SENDS_MAX, NODES_MAX, PAYLOAD_BYTES_MAX, SMALL_PAYLOAD_BYTES_MAX};
use yard_core::agent::{Desired, Fence, Report};
use yard_core::command::{Actor, Command, Inventory, Rejection, Reply};
use yard_core::lease::{Ack, Refusal, Renewal, Said};

/// Why bytes are no payload of a kind, or a value cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// More bytes than the kind may have.
    #[error("{what}: {found} bytes, at most {limit} are allowed")]
    TooLong {
        /// The kind.
        what: &'static str,
        /// How many it has.
        found: usize,
        /// The bound.
        limit: usize,
    },
    /// Not the bytes of such a value.
    #[error("{what}: not readable: {why}")]
    Unreadable {
        /// The kind.
        what: &'static str,
        /// What the decoder says.
        why: String,
    },
    /// Bytes behind the value.
    #[error("{what}: {extra} bytes too many behind the value")]
    Trailing {
        /// The kind.
        what: &'static str,
        /// How many.
        extra: usize,
    },
    /// A value outside its bounds.
    #[error("{what}: {why}")]
    OutOfBounds {
        /// The kind.
        what: &'static str,
        /// Which bound.
        why: String,
    },
}

/// A value that travels as CBOR within an internal message.
pub trait Payload: Encode<()> + for<'b> Decode<'b, ()> {
    /// What it is called in errors.
    const NAME: &'static str;
    /// Bytes that it may have.
    const BYTES_MAX: usize;

    /// Whether the value keeps the bounds that its type has.
    ///
    /// # Errors
    /// The first bound that is broken, for people.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// The bytes.
    ///
    /// # Errors
    /// If there are more than the kind may have.
    fn to_payload(&self) -> Result<Bytes, PayloadError> {
        let bytes = minicbor::to_vec(self).map_err(|error| unreadable::<Self>(&error))?;
        within::<Self>(&bytes)?;
        Ok(bytes.into())
    }

    /// The value of the bytes.
    ///
    /// # Errors
    /// If the bytes are too many, not exactly one value, or the value breaks a bound.
    fn from_payload(bytes: &[u8]) -> Result<Self, PayloadError> {
        within::<Self>(bytes)?;
        let mut decoder = minicbor::Decoder::new(bytes);
        let value: Self = decoder.decode().map_err(|error| unreadable::<Self>(&error))?;
        let extra = bytes.len() - decoder.position();
        if extra > 0 {
            return Err(PayloadError::Trailing { what: Self::NAME, extra });
        }
        value.check().map_err(|why| PayloadError::OutOfBounds { what: Self::NAME, why })?;
        Ok(value)
    }
}

fn within<T: Payload>(bytes: &[u8]) -> Result<(), PayloadError> {
    if bytes.len() > T::BYTES_MAX {
        let (what, found, limit) = (T::NAME, bytes.len(), T::BYTES_MAX);
        return Err(PayloadError::TooLong { what, found, limit });
    }
    Ok(())
}

fn unreadable<T: Payload>(error: &dyn std::fmt::Display) -> PayloadError {
    PayloadError::Unreadable { what: T::NAME, why: error.to_string() }
}

/// Declares payloads without bounds of their own.
macro_rules! payloads {
    ($($name:ty = $text:literal, $limit:expr;)+) => {
        $(impl Payload for $name {
            const NAME: &'static str = $text;
            const BYTES_MAX: usize = $limit;
        })+
    };
}

payloads! {
    Renewal = "renewal", SMALL_PAYLOAD_BYTES_MAX;
    Ack = "ack", SMALL_PAYLOAD_BYTES_MAX;
    Refusal = "refusal", SMALL_PAYLOAD_BYTES_MAX;
    Fence = "fence", SMALL_PAYLOAD_BYTES_MAX;
    Inventory = "inventory", SMALL_PAYLOAD_BYTES_MAX;
    Forward = "forwarded command", PAYLOAD_BYTES_MAX;
    Forwarded = "answer to a forwarded command", PAYLOAD_BYTES_MAX;
}

impl Payload for Desired {
    const NAME: &'static str = "desired set";
    const BYTES_MAX: usize = PAYLOAD_BYTES_MAX;

    fn check(&self) -> Result<(), String> {
        Desired::check(self).map_err(|error| error.to_string())
    }
}

impl Payload for Vec<Report> {
    const NAME: &'static str = "reports";
    const BYTES_MAX: usize = PAYLOAD_BYTES_MAX;

    fn check(&self) -> Result<(), String> {
        at_most("reports", self.len(), usize::try_from(AGENT_SENDS_MAX).unwrap_or(usize::MAX))
    }
}

fn at_most(what: &str, found: usize, limit: usize) -> Result<(), String> {
    if found > limit {
        return Err(format!("{found} {what}, at most {limit} are allowed"));
    }
    Ok(())
}

/// A client's command on its way from the member that was asked to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Forward {
    /// Who asks; the member has authenticated it.
    #[n(0)]
    pub actor: Actor,
    /// As which request.
    #[n(1)]
    pub request: Option<RequestId>,
    /// What is asked.
    #[n(2)]
    pub command: Command,
}

/// The leader's answer to a [`Forward`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Forwarded {
    /// Where the command stands in the log: whoever has applied it sees its effect.
    #[n(0)]
    pub index: LogIndex,
    /// What came of it.
    #[n(1)]
    pub outcome: Result<Reply, Rejection>,
}

/// The leader asks a member how silent all nodes are, and whether some can be given up.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Sweep {
    /// Who asks; ignored if the member has voted for a later one.
    #[n(0)]
    pub leader: LeaderId,
    /// Leases that the leader wants promised away if they are silent for long enough.
    #[n(1)]
    pub asks: Vec<(NodeId, LeaseId)>,
}

impl Payload for Sweep {
    const NAME: &'static str = "sweep";
    const BYTES_MAX: usize = PAYLOAD_BYTES_MAX;

    fn check(&self) -> Result<(), String> {
        at_most("nodes", self.asks.len(), NODES_MAX)
    }
}

/// A member's answer to a [`Sweep`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Swept {
    /// The leader that asked.
    #[n(0)]
    pub leader: LeaderId,
    /// Who answers.
    #[n(1)]
    pub member: MemberId,
    /// How long each node has been silent, in milliseconds.
    #[n(2)]
    pub silent_ms: Vec<(NodeId, u64)>,
    /// What the member says about leases that it was asked about. Those that it is still busy
    /// with are left out.
    #[n(3)]
    pub said: Vec<Said>,
}

impl Payload for Swept {
    const NAME: &'static str = "answer to a sweep";
    const BYTES_MAX: usize = PAYLOAD_BYTES_MAX;

    fn check(&self) -> Result<(), String> {
        at_most("nodes", self.silent_ms.len(), NODES_MAX)?;
        at_most("answers", self.said.len(), NODES_MAX)
    }
}
