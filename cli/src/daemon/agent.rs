//! `yard agent`: a machine becomes a node, and the process of one node.

use super::{absolute, log, settings};
use crate::args::{AgentJoinArgs, AgentRunArgs};
use crate::failure::{Failure, chain, exit};
use crate::input::all_of_standard_input;
use crate::output::say;
use std::path::{Path, PathBuf};
use std::time::Duration;
use yard_agent::{join, service};
use yard_coordinator::Build;
use yard_runtime::identity::{Token, TokenKind};

/// Where the settings are unless the command line says otherwise.
pub(crate) const SETTINGS: &str = "/etc/yard/agent.toml";

/// The program that shims run.
pub(crate) fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::local(&error, ""))
}

fn options(config: Option<&Path>, directory: Option<&Path>) -> Result<service::Options, Failure> {
    let mut options = match settings(config, SETTINGS) {
        Some(file) => service::Options::read(&file, program()?)
            .map_err(|error| Failure::new(exit::USAGE, chain(&error), ""))?,
        None => service::Options::new(PathBuf::from(service::Options::DIRECTORY), program()?),
    };
    if let Some(directory) = directory {
        options.directory = absolute(directory)?;
    }
    Ok(options)
}

/// The settings of this file; the defaults, if there is none.
pub(crate) fn options_at(settings: &Path) -> Result<service::Options, Failure> {
    match settings.exists() {
        true => options(Some(settings), None),
        false => Ok(service::Options::new(service::Options::DIRECTORY.into(), program()?)),
    }
}

/// Makes this machine a node.
pub(crate) async fn join(args: &AgentJoinArgs) -> Result<u8, Failure> {
    let options = options(args.config.as_deref(), args.directory.as_deref())?;
    let token = match args.token.as_str() {
        "-" => all_of_standard_input()?.trim().to_string(),
        token => token.to_string(),
    };
    let name = match &args.name {
        Some(name) => name.clone(),
        None => host_name()?,
    };
    let patience = Duration::from_millis(args.patience.ms());
    let joined = enter(&options, &token, args.addresses.clone(), name, patience).await?;
    say(&format!("this machine is node {} of cluster {}", joined.name, joined.cluster));
    say(&format!("next: {}", super::next("yard-agent", "yard agent run")));
    Ok(0)
}

/// Joins with the settings of an agent.
pub(crate) async fn enter(
    options: &service::Options,
    token: &str,
    addresses: Vec<String>,
    name: String,
    patience: Duration,
) -> Result<join::Joined, Failure> {
    let hint = "ask an operator for a new token: yard node invite";
    let token = Token::parse_for(TokenKind::Join, token);
    let token = token.map_err(|error| Failure::usage(chain(&error), hint))?;
    let options = join::Options {
        directory: options.directory.clone(),
        token,
        addresses,
        name,
        address: options.address.clone(),
        labels: options.labels.clone(),
        gpus_fake: options.gpus_fake,
        health: options.health.clone(),
        patience,
    };
    join::join(options).await.map_err(|error| Failure::local(&error, ""))
}

/// The name of this machine, as a node may have it.
pub(crate) fn host_name() -> Result<String, Failure> {
    let hint = "give the node a name: --name NAME";
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let text = text.map_err(|error| Failure::local(&error, hint))?;
    Ok(text.trim().to_ascii_lowercase())
}

/// Runs until a signal says stop, or something breaks. What runs on the node goes on.
pub(crate) async fn run(args: &AgentRunArgs, build: Build) -> Result<u8, Failure> {
    log(args.log_json)?;
    let mut options = options(args.config.as_deref(), args.directory.as_deref())?;
    options.version = build.version.into();
    match service::run(options).await {
        Ok(()) => Ok(0),
        Err(error) => Err(Failure::new(error.exit_code(), chain(&error), "")),
    }
}
