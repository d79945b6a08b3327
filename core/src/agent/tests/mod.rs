//! Stories for the cases that one can name, and chaos for those that one cannot. Both run the
//! automaton against the toy world of `world.rs`, which checks the rules at every step.

mod chaos;
mod faults;
mod machine;
mod recovery;
mod script;
mod silence;
mod stories;
mod world;
