//! The program `yard`, as a library: a test makes a later version of it.
//!
//! - `args` is the command line, `verb` has a function for each verb.
//! - `session` is a cluster to ask; `context` says which, and as whom.
//! - `draft` makes jobs of files, scripts, commands and flags, and checks them here.
//! - `daemon` runs coordinators and agents; `dev` a cluster of one's own.
//! - `install` makes them services of a machine.
//! - `view` turns answers into rows and text, `output` writes them in every form.
//! - `failure` is what went wrong, with the exit code.
//!
//! Data goes to standard output, talk to standard error.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

mod args;
mod context;
mod daemon;
mod dev;
mod draft;
mod failure;
mod input;
mod install;
mod members;
mod outcome;
mod output;
mod pages;
mod problems;
mod select;
mod session;
mod terminal;
mod text;
mod verb;
mod view;

use args::Cli;
use failure::{Failure, exit};
use std::io::Write;
use std::process::ExitCode;
use yard_coordinator::Build;

/// Runs the program: reads its words, does what they say, and returns how it ends.
#[must_use]
pub fn main(build: Build) -> ExitCode {
    if let Some(code) = helper() {
        return code;
    }
    let cli = match Cli::of(build.version, std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is there to hear of a failure to print.
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let mut builder = match cli.verb.is_daemon() {
        true => tokio::runtime::Builder::new_multi_thread(),
        false => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::local(&error, "")),
    };
    let is_daemon = cli.verb.is_daemon();
    let ended = runtime.block_on(verb::run(cli, build));
    if !is_daemon {
        // Somebody may have been asked something that is of no interest any more; nobody waits
        // until there is an answer.
        runtime.shutdown_background();
    }
    match ended {
        Ok(code) => code.into(),
        Err(failure) => report(&failure),
    }
}

/// What agents and launchers run this program as; no user types it. It comes before any thread: a
/// shim has one.
fn helper() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next()?.to_str()? {
        "shim" => Some(yard_agent::shim::main(arguments)),
        "shim-dial" => {
            let words = arguments.map(|word| word.to_string_lossy().into_owned());
            Some(yard_agent::shim::dial_main(words))
        }
        "deliver" => {
            let words = arguments.map(|word| word.to_string_lossy().into_owned());
            Some(yard_agent::delivery::main(words))
        }
        _ => None,
    }
}

fn report(failure: &Failure) -> ExitCode {
    let _ = anstream::stderr().lock().write_all(failure.render().as_bytes());
    failure.exit.into()
}
