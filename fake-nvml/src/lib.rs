//! A stand-in for `libnvidia-ml.so.1`, NVIDIA's library about GPUs, for tests on machines without
//! one. It is loaded exactly as the real one: a file of that name in `LD_LIBRARY_PATH`.
//!
//! A file says what there is, and is read again at every call, so that a test can change it under
//! a running agent: `YARD_FAKE_NVML=FILE`. Without it there are no GPUs. [`Script`] writes such
//! files.
//!
//! **Invariant:** `unsafe` stands in the one module of what the library exports, since a C
//! interface passes pointers. Nothing but tests links or loads this crate.
#![deny(unsafe_code)]
// The names are those of the interface.
#![allow(non_snake_case)]

mod exports;
mod script;

pub use script::{Gpu, Script};
