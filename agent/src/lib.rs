//! The per-machine process and its shim.
//!
//! **Invariant:** `unsafe` is denied outside the one module of system calls, where every block has
//! a `// SAFETY:` comment. What to do next is decided by `yard_core::agent`.
//!
//! The crate is empty until the process exists; nothing depends on it yet.
#![deny(unsafe_code)]
