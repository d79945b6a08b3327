//! Verbs about what holds jobs: nodes, pools, queues, users, settings.

use clap::{Args, Subcommand};
use std::path::PathBuf;
use yard_common::spec::time::DurationMs;

#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// List machines
    Ls {
        /// Only of this pool
        #[arg(long)]
        pool: Option<String>,
    },
    /// Show a machine: what it has, what runs on it
    Show {
        /// Its name
        node: String,
    },
    /// Place nothing new on machines
    Drain(DrainArgs),
    /// End a drain or a cordon
    Undrain {
        /// Their names
        #[arg(required = true)]
        nodes: Vec<String>,
        /// Only this GPU, by its UUID; the node then looks at it anew
        #[arg(long, value_name = "UUID")]
        gpu: Option<String>,
    },
    /// Let machines look anew at what they found wrong with themselves
    Check {
        /// Their names
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Show what the setup of its pool wrote on a machine
    Logs {
        /// Its name
        node: String,
        /// Of the run before the last one
        #[arg(long)]
        previous: bool,
    },
    /// Say that machines are off: nothing of them runs any more
    ConfirmDead {
        /// Their names
        #[arg(required = true)]
        nodes: Vec<String>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Take machines out for good
    Rm {
        /// Their names
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Print a token with which one machine joins
    Invite {
        /// The pool that it joins
        #[arg(long, default_value = "default")]
        pool: String,
        /// How long the token is good; at most 1h
        #[arg(long, value_name = "DURATION", default_value = "1h")]
        life: DurationMs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Their names
    #[arg(required = true)]
    pub(crate) nodes: Vec<String>,
    /// Why, for people
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    /// Only this GPU, by its UUID, and from now on; what runs on it goes on
    #[arg(long, value_name = "UUID", conflicts_with_all = ["after", "deadline"])]
    pub(crate) gpu: Option<String>,
    /// From when on, such as 2h; without it, now
    #[arg(long = "in", value_name = "DURATION")]
    pub(crate) after: Option<DurationMs>,
    /// How long running attempts may go on after that; without it, to their end
    #[arg(long, value_name = "DURATION")]
    pub(crate) deadline: Option<DurationMs>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PoolVerb {
    /// List pools
    Ls,
    /// Show a pool
    Show {
        /// Its name
        pool: String,
    },
    /// Add a pool
    Create(PoolArgs),
    /// Change a pool
    Set(PoolArgs),
    /// Remove a pool that has no nodes
    Rm {
        /// Its name
        pool: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PoolArgs {
    /// Its name
    pub(crate) pool: String,
    /// For people
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// Lease of its nodes; 0s: the cluster's
    #[arg(long, value_name = "DURATION")]
    pub(crate) lease: Option<DurationMs>,
    #[command(flatten)]
    pub(crate) setup: SetupArgs,
}

/// What machines of a pool do before they take work.
#[derive(Debug, Default, Args)]
pub(crate) struct SetupArgs {
    /// A script that each machine runs before it takes work: at join, once a boot, and when it
    /// changes; an empty one takes it away
    #[arg(long, value_name = "FILE", conflicts_with = "setup_command")]
    pub(crate) setup: Option<PathBuf>,
    /// The same as a line for bash
    #[arg(long, value_name = "LINE")]
    pub(crate) setup_command: Option<String>,
    /// How long it may take [default: 15m]
    #[arg(long, value_name = "DURATION")]
    pub(crate) setup_timeout: Option<DurationMs>,
    /// A variable for it, in place of all that it had; not for secrets
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) setup_env: Vec<String>,
    /// Take it away
    #[arg(long, conflicts_with_all = ["setup", "setup_command", "setup_timeout", "setup_env"])]
    pub(crate) no_setup: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueVerb {
    /// List queues
    Ls,
    /// Show a queue
    Show {
        /// Its name
        queue: String,
    },
    /// Add a queue
    Create(QueueArgs),
    /// Change a queue; what is not named stays
    Set(QueueArgs),
    /// Remove a queue that has no jobs
    Rm {
        /// Its name
        queue: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct QueueArgs {
    /// Its name
    pub(crate) queue: String,
    /// Queues of higher priority are planned first
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) priority: Option<i32>,
    /// Pools that it may use, such as a100,h100; `any` for all
    #[arg(long, value_delimiter = ',', value_name = "POOLS")]
    pub(crate) pools: Option<Vec<String>>,
    /// Whether it takes jobs
    #[arg(long, value_name = "true|false")]
    pub(crate) accepts: Option<bool>,
    /// Whether it starts tasks
    #[arg(long, value_name = "true|false")]
    pub(crate) starts: Option<bool>,
    /// Highest priority of its jobs
    #[arg(long, allow_hyphen_values = true, value_name = "PRIORITY")]
    pub(crate) job_priority_max: Option<i32>,
    /// Time limit of jobs that name none; `none` for no limit
    #[arg(long, value_name = "DURATION")]
    pub(crate) time_limit_default: Option<String>,
    /// Longest time limit; `none` for no bound
    #[arg(long, value_name = "DURATION")]
    pub(crate) time_limit_max: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserVerb {
    /// List users
    Ls,
    /// Show a user
    Show {
        /// The name; without it, yourself
        user: Option<String>,
    },
    /// Add a user
    Add(UserArgs),
    /// Change what a user may do; what is not named stays
    Set(UserArgs),
    /// Refuse a user from now on; running jobs go on
    Disable {
        /// The name
        user: String,
    },
    /// Let a disabled user in again
    Enable {
        /// The name
        user: String,
    },
    /// Print a token with which a user logs in once
    Invite {
        /// The name
        user: String,
        /// How long the token is good; at most 1h
        #[arg(long, value_name = "DURATION", default_value = "1h")]
        life: DurationMs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct UserArgs {
    /// The name
    pub(crate) user: String,
    /// The unix account that jobs run as
    #[arg(long, value_name = "LOGIN")]
    pub(crate) unix: Option<String>,
    /// viewer, user, operator or admin
    #[arg(long, value_enum)]
    pub(crate) role: Option<RoleName>,
}

/// What a user may do, in the whole cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RoleName {
    /// Sees jobs and nodes
    Viewer,
    /// Submits jobs, and changes its own
    User,
    /// Changes every job, nodes, queues and pools
    Operator,
    /// Everything
    Admin,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterVerb {
    /// Members, leader, counts; how far behind and how fast the disk of each member is
    Status,
    /// Make a token with which a machine joins as a coordinator: yard coordinator join
    Token {
        /// How long it is good; at most an hour
        #[arg(long, value_name = "DURATION", default_value = "1h")]
        life: DurationMs,
    },
    /// Let a coordinator vote now, also if that makes the number of voters even
    Add {
        /// Its number
        member: u64,
    },
    /// Take a coordinator out for good; the leader hands over first
    Remove {
        /// Its number
        member: u64,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Let another coordinator lead
    TransferLeader {
        /// Its number [default: the one that is furthest]
        member: Option<u64>,
    },
    /// Let the cluster use what all of its coordinators understand now; there is no way back
    RaiseLevel {
        /// The level [default: the next one]
        level: Option<u32>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Backups of the cluster
    #[command(subcommand)]
    Snapshot(SnapshotVerb),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotVerb {
    /// Write a backup, with the keys of the cluster's CAs in it: keep it as one keeps a key
    Save {
        /// Where to; must not exist
        file: PathBuf,
    },
    /// Check a backup, and show what it is of; asks no cluster
    Show {
        /// The backup
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// List the settings of the cluster
    Ls,
    /// Change a setting of the cluster
    Set {
        /// Its name
        name: String,
        /// Its value
        value: String,
    },
    /// Remove a setting: its default is back
    Unset {
        /// Its name
        name: String,
    },
    /// List the clusters that this machine knows
    Contexts,
    /// Use another cluster from now on
    Use {
        /// Its name here
        context: String,
    },
}
