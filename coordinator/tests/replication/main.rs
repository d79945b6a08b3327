//! Whole members in one thread: restarts, crashes at any step, changes of the leader.

mod cluster;
mod single;
mod support;
