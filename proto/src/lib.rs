//! Wire formats: the public gRPC API, and what agents and members say to each other, with the only
//! conversions to and from the domain types of `yard-common` and `yard-core`.
//!
//! - [`v1`] is the public API: stable, fields are only ever added.
//! - [`internal`] is what agents and members say to each other; core types travel in it as CBOR.
//! - [`wire`] has those payloads, each with its bound.
//! - [`convert`] turns domain types into messages and back, and refuses what does not decode.
//! - [`rpcs`] lists every call, for tables that must name each of them.
//!
//! **Invariants:** no generated type leaves this crate for `yard-core`; no bytes from outside
//! panic; a field or a call that was published never changes (`compatibility`, against
//! `published.txt`).
#![forbid(unsafe_code)]

#[cfg(test)]
mod compatibility;
pub mod convert;
mod descriptor;
mod secret;
pub mod wire;

/// The public API.
#[allow(
    missing_docs,
    unreachable_pub,
    rust_2018_idioms,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used
)]
pub mod v1 {
    tonic::include_proto!("yard.v1");
}

/// What agents and members say to each other.
pub mod internal {
    pub use v1::*;

    /// The version that is spoken.
    #[allow(
        missing_docs,
        unreachable_pub,
        rust_2018_idioms,
        clippy::all,
        clippy::pedantic,
        clippy::unwrap_used
    )]
    pub mod v1 {
        tonic::include_proto!("yard.internal.v1");
    }
}

/// Of every answer: the position of the list of members in the log, as whoever answers knows it.
pub const MEMBERS_INDEX: &str = "yard-members-index";

/// Of every answer, refusals among them: the life of the cluster that the member is of, as a
/// number. Whoever has heard of a later one believes nothing of an earlier one: a backup was
/// restored since. Members name theirs in questions as well, and answer those of their own life
/// alone.
pub const LIFE: &str = "yard-life";

pub use descriptor::{PUBLIC_DESCRIPTORS, Rpc, rpcs};
