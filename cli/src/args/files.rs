//! Verbs about the files of a job.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum FilesVerb {
    /// List a directory of a job
    Ls(FilesArgs),
    /// Copy a file or a directory here; goes on where an earlier copy of a file broke off
    Get(FilesGetArgs),
    /// Print a file
    Cat(FilesCatArgs),
}

/// Where a file is.
#[derive(Debug, Args)]
pub(crate) struct FilesArgs {
    /// The job, or one task of it
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// A directory, beginning with `logs` or `scratch`
    #[arg(value_name = "PATH", default_value = "")]
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) spot: FilesSpot,
}

#[derive(Debug, Args)]
pub(crate) struct FilesGetArgs {
    /// The job, or one task of it
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// A file or a directory, beginning with `logs` or `scratch`
    #[arg(value_name = "PATH")]
    pub(crate) path: String,
    /// Where it goes [default: its own name, here]
    #[arg(value_name = "TO")]
    pub(crate) to: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) spot: FilesSpot,
}

#[derive(Debug, Args)]
pub(crate) struct FilesCatArgs {
    /// The job, or one task of it
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// A file, beginning with `logs/` or `scratch/`
    #[arg(value_name = "PATH")]
    pub(crate) path: String,
    /// The first byte
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub(crate) offset: u64,
    /// At most so many bytes
    #[arg(long, value_name = "BYTES")]
    pub(crate) len: Option<u64>,
    #[command(flatten)]
    pub(crate) spot: FilesSpot,
}

/// Of which attempt, and on which machine.
#[derive(Debug, Args)]
pub(crate) struct FilesSpot {
    /// Of this attempt [default: the last]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) attempt: Option<u32>,
    /// On this node [default: the first of the attempt]
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
}
