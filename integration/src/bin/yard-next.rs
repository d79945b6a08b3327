//! A later version of `yard`, for tests of upgrades: the same program, which understands one more
//! feature level and knows one more command. Until there are two releases, this is the other one.
//!
//! The command sets the setting `next`. The log has it in a form that only this program reads.
#![forbid(unsafe_code)]

use minicbor::decode::Error;
use minicbor::{Decoder, Encoder};
use std::process::ExitCode;
use yard_common::id::FeatureLevel;
use yard_coordinator::{Build, Commands, Vocabulary};
use yard_core::command::{Command, Holder};

/// A number that no family of commands has.
const FAMILY: u32 = 1_000;
/// The setting that earlier versions cannot set.
const SETTING: &str = "next";
/// The level that it needs.
const LEVEL: FeatureLevel = FeatureLevel(Build::CURRENT.feature_level_max.0 + 1);

fn main() -> ExitCode {
    yard_cli::main(Build {
        version: concat!(env!("CARGO_PKG_VERSION"), "-next"),
        feature_level_max: LEVEL,
        commands: Vocabulary { requires, write, read },
    })
}

/// The value of the new command, if it is one.
fn value(command: &Command) -> Option<&str> {
    match command {
        Command::Holder(Holder::SetSetting(name, Some(value))) if name == SETTING => Some(value),
        _ => None,
    }
}

fn requires(command: &Command) -> FeatureLevel {
    match value(command) {
        Some(_) => LEVEL,
        None => (Build::CURRENT.commands.requires)(command),
    }
}

fn write(command: &Command) -> Vec<u8> {
    let Some(value) = value(command) else { return (Build::CURRENT.commands.write)(command) };
    let mut encoder = Encoder::new(Vec::new());
    let infallible = "writing to memory does not fail";
    let encoder = encoder.array(2).expect(infallible).u32(FAMILY).expect(infallible);
    encoder.array(1).expect(infallible).str(value).expect(infallible);
    std::mem::take(encoder.writer_mut())
}

fn read(bytes: &[u8]) -> Result<Commands, Error> {
    let mut decoder = Decoder::new(bytes);
    let count = decoder.array()?.ok_or_else(|| Error::message("a list has a length"))?;
    let pairs = (0..count).map(|_| {
        decoder.array()?;
        Ok((decoder.decode()?, read_one(&mut decoder)?))
    });
    pairs.collect()
}

fn read_one(decoder: &mut Decoder<'_>) -> Result<Command, Error> {
    let mut ahead = decoder.probe();
    ahead.array()?;
    if ahead.u32()? != FAMILY {
        return decoder.decode();
    }
    decoder.array()?;
    decoder.skip()?;
    decoder.array()?;
    let value = decoder.str()?.to_string();
    Ok(Command::Holder(Holder::SetSetting(SETTING.into(), Some(value))))
}
