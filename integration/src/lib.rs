//! Harness for tests that span crates: what clients saw, and whether a cluster can have done that.
//!
//! | module | what it holds |
//! |---|---|
//! | [`history`] | calls of clients, with when they began and ended and what was told |
//! | [`model`] | the words that a log is told in, and a small model of what they do |
//! | [`replay`] | whether the answers are those of the model, in the order of the log |
//! | [`linear`] | whether answers fit any order at all, without looking at the log |
//! | [`objects`] | what a job, a request and a GPU do, one by one, for the latter |
//!
//! **Invariant:** nothing here uses the code that is checked, so that a mistake has to be made
//! twice to go unnoticed. Tests of the repository itself live in `tests/tidy/`.
#![forbid(unsafe_code)]

pub mod history;
pub mod linear;
pub mod model;
pub mod objects;
pub mod replay;
