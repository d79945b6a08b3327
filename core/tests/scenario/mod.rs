//! The language of scenario scripts.

mod script;
mod show;
mod words;

pub use script::Script;
