//! What a program is: its version, and what it understands of the log. `main` says so, and hands it
//! down; so one test can run two versions, of which the later one knows more.

use minicbor::decode::Error as DecodeError;
use yard_common::id::FeatureLevel;
use yard_core::command::{Command, Envelope, FEATURE_LEVEL_MAX, requires};

/// A program.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// Its version, for people.
    pub version: &'static str,
    /// The highest feature level that it understands. It understands all below, too.
    pub feature_level_max: FeatureLevel,
    /// The commands that it knows.
    pub commands: Vocabulary,
}

/// The commands that a program knows, and their bytes in the log.
#[derive(Clone, Copy, Debug)]
pub struct Vocabulary {
    /// The feature level that a command needs.
    pub requires: fn(&Command) -> FeatureLevel,
    /// The bytes of a command.
    pub write: fn(&Command) -> Vec<u8>,
    /// The commands of an entry. An unknown one is an error.
    pub read: fn(&[u8]) -> Result<Commands, DecodeError>,
}

/// The commands of an entry, in order, each with its envelope.
pub type Commands = Vec<(Envelope, Command)>;

impl Build {
    /// This version.
    pub const CURRENT: Build = Build {
        version: env!("CARGO_PKG_VERSION"),
        feature_level_max: FEATURE_LEVEL_MAX,
        commands: Vocabulary { requires, write, read },
    };
}

fn write(command: &Command) -> Vec<u8> {
    minicbor::to_vec(command).expect("writing to memory does not fail")
}

fn read(bytes: &[u8]) -> Result<Commands, DecodeError> {
    minicbor::decode(bytes)
}
