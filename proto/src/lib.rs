//! Wire formats: the public gRPC API and the control stream of the agents, with the only
//! conversions to and from the domain types of `yard-common` and `yard-core`.
//!
//! **Invariant:** no generated type leaves this crate for `yard-core`.
//!
//! The crate is empty until the first service is defined; nothing depends on it yet.
#![forbid(unsafe_code)]
