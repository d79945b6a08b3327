//! End to end: the real `yard`, real processes, real disks, one module per theme.
//!
//! Every test has a cluster of its own, made by `yard dev` below a folder of its own, and speaks
//! to it as people do: by the command line. [`world`] has the fixture. Nothing here waits for time
//! to pass: tests wait for what must become true, and give up after a bound that a good run never
//! meets.

mod agent;
mod array;
#[path = "../shared/calls.rs"]
mod calls;
#[path = "../shared/chance.rs"]
mod chance;
mod checkpoint;
mod coordinator;
mod cuts;
mod dev;
mod disk;
mod documents;
mod faults;
mod gpus;
mod hand;
mod members;
mod mpi;
mod output;
mod refused;
mod restore;
mod run;
mod setup;
mod shim;
mod stall;
mod stuck;
#[path = "../shared/teller.rs"]
mod teller;
mod top;
mod upgrade;
mod user;
mod visit;
mod wire;
mod world;
