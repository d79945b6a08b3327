//! `yard`: the one binary. All of it is in the library beside it.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use yard_coordinator::Build;

fn main() -> ExitCode {
    yard_cli::main(Build::CURRENT)
}
