//! What comes in: files, standard input, and answers of the user.

use crate::failure::{Failure, exit};
use crate::output::say;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::Path;
use yard_common::limits::JOB_FILE_BYTES_MAX;
use yard_runtime::files::{self, FileError};

/// What to do about too much of it.
const SMALLER: &str = "put data into files of their own, and name them in the job";
/// Jobs from which on a change is asked for again.
const ASK_ABOVE: usize = 10;

/// All of standard input, as text.
pub(crate) fn all_of_standard_input() -> Result<String, Failure> {
    let mut text = String::new();
    let mut bounded = io::stdin().lock().take(JOB_FILE_BYTES_MAX as u64 + 1);
    bounded.read_to_string(&mut text).map_err(|error| Failure::local(&error, ""))?;
    if text.len() > JOB_FILE_BYTES_MAX {
        let message = format!("standard input has more than {JOB_FILE_BYTES_MAX} bytes");
        return Err(Failure::usage(message, SMALLER));
    }
    Ok(text)
}

/// The content of a file that the user named; `-` is standard input.
pub(crate) fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    if path == Path::new("-") {
        return all_of_standard_input().map(String::into_bytes);
    }
    files::read(path, bytes_max).map_err(|error| match error {
        FileError::TooLarge(..) => Failure::usage(error.to_string(), SMALLER),
        error => {
            let hint = "is the path right?";
            Failure::new(exit::NOT_FOUND, crate::failure::chain(&error), hint)
        }
    })
}

/// Asks before a change of many jobs, unless `yes` was given.
pub(crate) fn confirm_many(what: &str, count: usize, yes: bool) -> Result<(), Failure> {
    if yes || count <= ASK_ABOVE {
        return Ok(());
    }
    confirm(&format!("{what} {count} jobs?"), yes)
}

/// Asks for a word to be typed, unless `yes` was given: for what cannot be undone.
pub(crate) fn confirm_word(question: &str, word: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question} Nobody is there to answer"), "add --yes"));
    }
    say(&format!("{question} Type {word} to go on:"));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match read.is_ok() && answer.trim() == word {
        true => Ok(()),
        false => Err(Failure::new(exit::REFUSED, "nothing was changed", "")),
    }
}

/// Asks, unless `yes` was given. Without a terminal nobody could answer: refused.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question} Nobody is there to answer"), "add --yes"));
    }
    say(&format!("{question} [y/N]"));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        true => Ok(()),
        false => Err(Failure::new(exit::REFUSED, "nothing was changed", "")),
    }
}
