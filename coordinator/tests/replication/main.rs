//! Whole members in one thread: restarts, crashes at any step, changes of the leader.
#![allow(clippy::unwrap_used)]

mod cluster;
mod compare;
mod disk;
mod single;
mod stuck;
mod support;
mod versions;
