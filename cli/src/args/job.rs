//! Verbs about jobs.

use clap::{ArgGroup, Args};
use std::path::PathBuf;
use std::str::FromStr;
use yard_common::spec::time::DurationMs;

/// Where a job comes from, and what is changed of it.
#[derive(Clone, Debug, Default, Args)]
#[command(group = ArgGroup::new("what").args(["file", "words"]).required(true).multiple(true))]
pub(crate) struct JobSource {
    /// A job file (YAML or JSON), a script with `#YARD key=value` lines, or `-` for standard input
    pub(crate) file: Option<PathBuf>,
    /// The command, or further words for the command of the file. Words are run as they are,
    /// without a shell; one quoted word with spaces in it is a line for the shell
    #[arg(last = true, value_name = "CMD")]
    pub(crate) words: Vec<String>,
    /// Set any field of the job file, such as --set resources.memory=64GiB
    #[arg(long, value_name = "FIELD=VALUE")]
    pub(crate) set: Vec<String>,
    /// A task for each index, such as 0-199%16
    #[arg(long, value_name = "INDICES")]
    pub(crate) array: Option<String>,
    /// A task for each row of a file: JSON lines, or CSV with a header. Each row has the
    /// parameters of its task
    #[arg(long, value_name = "FILE")]
    pub(crate) each: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) fields: FieldFlags,
    /// Take warnings as errors
    #[arg(long)]
    pub(crate) strict: bool,
    /// Check and print the job with every default, and submit nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Flags for the fields that are set most; the rest goes with --set.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Fields of the job")]
pub(crate) struct FieldFlags {
    /// Its name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where it waits
    #[arg(long)]
    pub(crate) queue: Option<String>,
    /// Where it runs
    #[arg(long)]
    pub(crate) pool: Option<String>,
    /// -1000 to 1000, low, normal or high
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) priority: Option<String>,
    /// Of each attempt, such as 2d
    #[arg(long, value_name = "DURATION")]
    pub(crate) time_limit: Option<String>,
    /// Machines
    #[arg(long)]
    pub(crate) nodes: Option<String>,
    /// Processes on each machine
    #[arg(long, value_name = "COUNT")]
    pub(crate) ranks_per_node: Option<String>,
    /// Of each machine, such as 8 or h100:8
    #[arg(long)]
    pub(crate) gpus: Option<String>,
    /// Of each machine
    #[arg(long)]
    pub(crate) cpus: Option<String>,
    /// Of each machine, such as 64GiB
    #[arg(long)]
    pub(crate) memory: Option<String>,
    /// plain, torch, mpi and others
    #[arg(long)]
    pub(crate) launch: Option<String>,
    /// A variable of every rank; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Where ranks start
    #[arg(long, value_name = "PATH")]
    pub(crate) workdir: Option<String>,
    /// Start held
    #[arg(long)]
    pub(crate) hold: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) submit: JobSource,
    /// Give the command this terminal, as with --pty -- bash; it ends with the terminal
    #[arg(long, conflicts_with_all = ["file", "array", "each", "dry_run"])]
    pub(crate) pty: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The job, or one task of it
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// The rank beside which it runs
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    pub(crate) rank: u32,
    /// Only in this attempt
    #[arg(long, value_name = "NUMBER")]
    pub(crate) attempt: Option<u32>,
    /// On a terminal, also if this is none
    #[arg(long, short = 't', conflicts_with = "no_pty")]
    pub(crate) pty: bool,
    /// On pipes, also if this is a terminal
    #[arg(long, short = 'T')]
    pub(crate) no_pty: bool,
    /// Program and words, run without a shell; none: a shell
    #[arg(last = true, value_name = "CMD")]
    pub(crate) words: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ForwardArgs {
    /// The job, or one task of it
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// Ports of the job, each on the same one of 127.0.0.1 here or on LOCAL; 0: on any that is free
    #[arg(value_name = "[LOCAL:]PORT", required = true, num_args = 1..=16)]
    pub(crate) ports: Vec<PortPair>,
    /// The rank on whose machine it listens
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    pub(crate) rank: u32,
    /// Only of this attempt
    #[arg(long, value_name = "NUMBER")]
    pub(crate) attempt: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Only these jobs
    #[arg(value_name = "JOB")]
    pub(crate) jobs: Vec<String>,
    /// Jobs of everybody
    #[arg(long, short)]
    pub(crate) all_users: bool,
    /// A row for each machine
    #[arg(long, short)]
    pub(crate) nodes: bool,
    /// Once, also on a terminal
    #[arg(long)]
    pub(crate) once: bool,
}

/// A port here and a port there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortPair {
    /// On this machine; 0: any.
    pub(crate) here: u16,
    /// On the job's machine.
    pub(crate) there: u16,
}

impl FromStr for PortPair {
    type Err = String;

    fn from_str(text: &str) -> Result<PortPair, String> {
        let (here, there) = text.split_once(':').unwrap_or((text, text));
        let port = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|_| plain)
        };
        match (port(here), port(there)) {
            (Some(here), Some(there)) if there > 0 => Ok(PortPair { here, there }),
            _ => Err("write PORT or LOCAL:PORT, such as 8888 or 9000:8888".into()),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    pub(crate) submit: JobSource,
    /// Wait until it has ended, and end as it ended
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Only these jobs
    #[arg(value_name = "JOB")]
    pub(crate) jobs: Vec<String>,
    /// Jobs of everybody
    #[arg(long, short)]
    pub(crate) all_users: bool,
    /// Also all that ended, as far back as is known
    #[arg(long)]
    pub(crate) all: bool,
    /// Only in these states, such as queued,running
    #[arg(long, value_delimiter = ',', value_name = "STATES")]
    pub(crate) state: Vec<String>,
    /// Ended jobs as far back as this
    #[arg(long, value_name = "DURATION", default_value = "1d", conflicts_with = "all")]
    pub(crate) since: DurationMs,
    /// Only of this queue
    #[arg(long)]
    pub(crate) queue: Option<String>,
    /// More columns, as with -o wide
    #[arg(long, short)]
    pub(crate) wide: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The job
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// Its attempts, newest first
    #[arg(long, conflicts_with = "tasks")]
    pub(crate) attempts: bool,
    /// Its tasks
    #[arg(long)]
    pub(crate) tasks: bool,
    /// Only tasks that failed
    #[arg(long, requires = "tasks")]
    pub(crate) failed: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The job, or one task of it
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The job, or one task of it
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// Go on until the job has ended, over all further attempts
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Ranks such as 0,3, or `all`
    #[arg(long, value_name = "RANKS")]
    pub(crate) rank: Option<String>,
    /// Only standard error
    #[arg(long)]
    pub(crate) stderr: bool,
    /// What was written before the ranks: by the prepare command, and on what could not be prepared
    #[arg(long)]
    pub(crate) prepare: bool,
    /// Of this attempt
    #[arg(long, value_name = "NUMBER")]
    pub(crate) attempt: Option<u32>,
    /// Of the attempt before the last
    #[arg(long, conflicts_with = "attempt")]
    pub(crate) previous: bool,
    /// Only the last lines of each rank
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<u32>,
    /// Only what was written since then: 10m, or a time such as 2027-01-31T08:00:00Z
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Each line with the time at which it was written, to about a second
    #[arg(long, short, conflicts_with = "raw")]
    pub(crate) timestamps: bool,
    /// Bytes as they are: without tags, and with what moves the cursor of a terminal
    #[arg(long)]
    pub(crate) raw: bool,
}

#[derive(Debug, Args)]
pub(crate) struct JobsArgs {
    /// The jobs
    #[arg(value_name = "JOB", required = true)]
    pub(crate) jobs: Vec<String>,
    /// Do not ask, however many they are
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    pub(crate) jobs: JobsArgs,
    /// Why; its owner reads it
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    #[command(flatten)]
    pub(crate) jobs: JobsArgs,
    /// Why; its owner reads it
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true)
    .args(["time_limit", "priority", "max_running"]))]
pub(crate) struct SetArgs {
    /// The job
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// A new limit (2d), more (+12h) or less (-1h) of it, or none
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub(crate) time_limit: Option<String>,
    /// -1000 to 1000
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) priority: Option<i32>,
    /// Tasks of the array that may run at the same time; 0: as many as fit
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_running: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// The jobs
    #[arg(value_name = "JOB", required = true)]
    pub(crate) jobs: Vec<String>,
    /// Until one of them has ended
    #[arg(long)]
    pub(crate) any: bool,
    /// At most so long; then the exit code is 124
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<DurationMs>,
}

#[derive(Debug, Args)]
pub(crate) struct ResultsArgs {
    /// The job
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// From this index of the log on; without it, all that is remembered, or with --follow from now
    /// on
    #[arg(long, value_name = "INDEX")]
    pub(crate) from: Option<u64>,
    /// Go on forever; else all up to now
    #[arg(long, short)]
    pub(crate) follow: bool,
}
