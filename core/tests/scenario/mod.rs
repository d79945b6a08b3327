//! The language of scenario scripts.

mod script;
mod show;
mod words;

pub(crate) use script::Script;
