//! Harness for tests that span crates. Tests of the repository itself live in `tests/tidy/`.
#![forbid(unsafe_code)]
