//! Tidy: the rules of the house that can be read off the files of the repository.
//!
//! One module per kind of rule. A rule is a pure function from texts to [`repo::Finding`]s, so
//! that it can be tried on small bad inputs: a rule that cannot fail is no rule. Its test over the
//! real repository lists every finding as `file:line: what`, with the remedy in front.
//!
//! What a compiler or clippy can check is not checked here again: see `Cargo.toml`, `clippy.toml`
//! and `core/clippy.toml`.

mod catalogue;
mod changes;
mod documents;
mod foreign;
mod lexer;
mod mutants;
mod repo;
mod rust;
mod shell;
mod text;
mod workspace;
