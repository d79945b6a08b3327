//! Client library: finds the leader, retries with the same request id, follows streams.
//!
//! - [`Client`] has a method for each call that `yard` makes. A call is tried on one member after
//!   another, and follows hints to the leader, until it is answered or its patience is over.
//!   Calls that change something carry a request id, made once for all tries: a request takes
//!   effect once.
//! - [`Watch`], [`Logs`] and [`FileBytes`] are streams that go on where they broke, without a gap
//!   and without anything twice.
//! - [`Exec`] and [`Forward`] are visits of a job that runs. They end when they break.
//! - [`login()`] turns a login token into an identity. The server is checked first.
//! - [`ClientError`] says in types what a caller can act on.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

mod calls;
mod client;
mod error;
mod files;
mod login;
mod logs;
mod route;
mod visit;
mod watch;

pub use client::{Client, Options, Roster};
/// The code of what does not exist, or not for this caller.
pub const NOT_FOUND: tonic::Code = tonic::Code::NotFound;
pub use error::{ClientError, Refusal};
pub use files::FileBytes;
pub use login::{LoggedIn, login};
pub use logs::{LogItem, Logs};
pub use visit::{Exec, Forward, Inputs, Visit, VisitOver};
pub use watch::{Watch, WatchItem};

use yard_common::id::RequestId;

/// A new request id.
#[must_use]
pub fn new_request_id() -> RequestId {
    RequestId::from_u128(rand::random())
}
