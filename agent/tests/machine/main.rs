//! The agent with real processes: every story runs a driver, its shims, and ranks that exit, hang,
//! fork and are killed.

mod adoption;
mod ends;
mod gangs;
mod place;
mod stops;
mod world;
