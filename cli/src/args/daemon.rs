//! Verbs of the processes behind the command line: coordinators, agents, and a cluster for trying.

use clap::{Args, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use yard_common::limits::NODE_DEVICES_MAX;
use yard_common::spec::time::DurationMs;

#[derive(Debug, Subcommand)]
pub(crate) enum CoordinatorVerb {
    /// Make a new cluster: its keys, its first coordinator, its first administrator
    Init(CoordinatorInitArgs),
    /// Make this machine a further coordinator of a cluster
    Join(CoordinatorJoinArgs),
    /// Run a coordinator
    Run(CoordinatorRunArgs),
    /// Bring a cluster back from a backup, with this machine as its only coordinator
    Restore(CoordinatorRestoreArgs),
    /// Remove what a coordinator keeps on this machine
    Reset(CoordinatorResetArgs),
    /// Make a coordinator a service of this machine: program, account, settings, systemd unit
    Install(CoordinatorInstallArgs),
    /// Remove the service again
    Uninstall(UninstallArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct InstallArgs {
    /// The file with its settings, which is written if there is none [default: in /etc/yard]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Install into the files of another machine, such as an image, below this directory
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// Print what would be done, with every file, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Start the service, or start it again if something has changed
    #[arg(long)]
    pub(crate) start: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CoordinatorInstallArgs {
    #[command(flatten)]
    pub(crate) install: InstallArgs,
    /// The account that it runs as; it is made if there is none [default: yard]
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    /// The file with its settings [default: in /etc/yard]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Remove settings and data as well, for good
    #[arg(long)]
    pub(crate) purge: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// Where a coordinator keeps what it has.
#[derive(Debug, Args)]
pub(crate) struct SettingsArgs {
    /// The file with its settings [default: /etc/yard/coordinator.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Its folder, instead of the one of the file
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
}

/// Where a new coordinator is, on this machine and for all others.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// Host and port by which everybody is to reach this coordinator; after a restore, where a
    /// former one was [default: the host name, and the port where it listens]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: Option<String>,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CoordinatorJoinArgs {
    /// Coordinators, as HOST:PORT,...
    #[arg(value_name = "HOST:PORT", value_delimiter = ',', required = true)]
    pub(crate) members: Vec<String>,
    /// The token of `yard cluster token`; `-` reads it from standard input, out of sight of `ps`
    pub(crate) token: String,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// How long to try while no coordinator answers
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    pub(crate) patience: DurationMs,
}

#[derive(Debug, Args)]
pub(crate) struct CoordinatorRestoreArgs {
    /// The backup, as `yard cluster snapshot save` wrote it
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CoordinatorResetArgs {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CoordinatorInitArgs {
    /// Host and port by which agents and users reach this coordinator
    #[arg(value_name = "HOST:PORT")]
    pub(crate) address: String,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Name of the first administrator
    #[arg(long, default_value = "admin")]
    pub(crate) admin: String,
    /// The administrator's login on the machines; without it, jobs of theirs cannot run where
    /// agents are root
    #[arg(long, value_name = "LOGIN")]
    pub(crate) unix: Option<String>,
    /// What the cluster is called among the contexts here
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct CoordinatorRunArgs {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Where it listens, instead of what the file says
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Write the log as JSON lines
    #[arg(long)]
    pub(crate) log_json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentVerb {
    /// Make this machine a node of a cluster
    Join(AgentJoinArgs),
    /// Run the agent of this machine
    Run(AgentRunArgs),
    /// Make the agent a service of this machine: program, settings, systemd unit
    Install(InstallArgs),
    /// Remove the service again
    Uninstall(AgentUninstallArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AgentUninstallArgs {
    #[command(flatten)]
    pub(crate) uninstall: UninstallArgs,
    /// End what runs on the node; it is refused otherwise
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AgentJoinArgs {
    /// Coordinators, as HOST:PORT,...
    #[arg(value_name = "HOST:PORT", value_delimiter = ',', required = true)]
    pub(crate) addresses: Vec<String>,
    /// The token of `yard node invite`; `-` reads it from standard input, out of sight of `ps`
    pub(crate) token: String,
    /// Name of the node [default: the host name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The file with its settings [default: /etc/yard/agent.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Its directory, instead of the one of the file
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// How long to try while no coordinator answers
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    pub(crate) patience: DurationMs,
}

#[derive(Debug, Args)]
pub(crate) struct AgentRunArgs {
    /// The file with its settings [default: /etc/yard/agent.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Its directory, instead of the one of the file
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// Write the log as JSON lines
    #[arg(long)]
    pub(crate) log_json: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DevArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<DevVerb>,
    /// How many nodes; those that there are stay [default: 2, or as many as there are]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) nodes: Option<u16>,
    /// How many coordinators: 1, 3 or 5; those that there are stay [default: 1, or as many as
    /// there are]
    #[arg(long, value_name = "N", value_parser = odd)]
    pub(crate) coordinators: Option<u16>,
    /// Return when the cluster is up, and leave it running
    #[arg(long)]
    pub(crate) detach: bool,
    /// Pretend that each node has so many GPUs; they are shown as `fake`
    #[arg(
        long,
        value_name = "K",
        value_parser = clap::value_parser!(u16).range(0..=NODE_DEVICES_MAX as i64)
    )]
    pub(crate) gpus_fake: Option<u16>,
}

/// Reads a number of coordinators.
fn odd(text: &str) -> Result<u16, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("write 1, 3 or 5".into()),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum DevVerb {
    /// Show the processes of the cluster
    Status,
    /// Stop the cluster, and what runs on it; `yard dev` starts it again
    Stop,
    /// Stop the cluster, and remove it with all of its jobs
    Reset {
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}
