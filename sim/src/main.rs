//! Discrete-event simulator.
fn main() {}
