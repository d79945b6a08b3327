//! The command line: verbs, flags, and their help.
//!
//! Flags are only read here. What they mean is decided by the verbs.

mod admin;
mod daemon;
mod files;
mod job;

pub(crate) use admin::*;
pub(crate) use daemon::*;
pub(crate) use files::*;
pub(crate) use job::*;

use crate::output::Format;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// Runs training jobs on your machines.
#[derive(Debug, Parser)]
#[command(
    name = "yard",
    version = "",
    disable_help_subcommand = true,
    after_help = "A job is named by its id (812), tasks of it (812[3-7]), `last`, `@2` for the \
                  second last,\nits name, or `-` for a list on standard input.\n\
                  Exit codes: 0 done, 1 refused, 64 usage or bad job file, 66 not found, 69 no \
                  coordinator\nreachable, 77 denied; `run` and `wait` give the job's own."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

impl Cli {
    /// Reads the words of a program of this version.
    pub(crate) fn of(
        version: &'static str,
        words: impl IntoIterator<Item = OsString>,
    ) -> Result<Cli, clap::Error> {
        let found = command().version(version).try_get_matches_from(words)?;
        Cli::from_arg_matches(&found)
    }
}

/// Flags of every verb.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Global {
    /// How results are written: table, wide, json, jsonl, yaml, csv or name
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        hide_possible_values = true
    )]
    pub(crate) output: Option<Format>,
    /// The cluster to use [env: YARD_CONTEXT]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Coordinators to ask instead of those of the context, as HOST:PORT,... [env: YARD_ADDR]
    #[arg(long, global = true, value_name = "ADDRESSES")]
    pub(crate) address: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Submit a job, show its phases and its output, and end as it ends
    Run(RunArgs),
    /// Submit a job and print its id
    Submit(SubmitArgs),
    /// List jobs: queued, running, and ended in the last day
    Ls(LsArgs),
    /// Show a job: spec, placement, attempts
    Show(ShowArgs),
    /// Explain why a job waits, failed, or is as it is
    Why(WhyArgs),
    /// Print what the ranks of a job wrote
    Logs(LogsArgs),
    /// Files of a job, on the machine that it ran on: list, copy, print
    #[command(subcommand)]
    Files(FilesVerb),
    /// What running jobs use: CPU, memory, disk, output, silence
    Top(TopArgs),
    /// Run a program beside a rank of a job that runs, as its user; a shell by default
    Exec(ExecArgs),
    /// Reach ports of a job that runs, such as TensorBoard or Jupyter
    Forward(ForwardArgs),
    /// Ask jobs that run for a checkpoint
    Checkpoint(JobsArgs),
    /// End jobs, or tasks of them
    Cancel(CancelArgs),
    /// Start nothing more of a job until it is released
    Hold(HoldArgs),
    /// Let a held job start
    Release(JobsArgs),
    /// Change a job that is queued or running
    Set(SetArgs),
    /// Wait until jobs have ended, and end as they ended
    Wait(WaitArgs),
    /// One row for each task of an array
    Results(ResultsArgs),
    /// Machines: list, show, drain, invite
    #[command(subcommand)]
    Node(NodeVerb),
    /// Sets of machines of one shape
    #[command(subcommand)]
    Pool(PoolVerb),
    /// Queues: order, limits, who may use which pool
    #[command(subcommand)]
    Queue(QueueVerb),
    /// People: roles, logins, invitations
    #[command(subcommand)]
    User(UserVerb),
    /// Log in at a cluster with a token
    Login(LoginArgs),
    /// The coordinators
    #[command(subcommand)]
    Cluster(ClusterVerb),
    /// A cluster of your own, on this machine
    Dev(DevArgs),
    /// Make a cluster; run a coordinator
    #[command(subcommand)]
    Coordinator(CoordinatorVerb),
    /// Make a machine a node; run its agent
    #[command(subcommand)]
    Agent(AgentVerb),
    /// Find what is wrong here, and how to put it right
    Doctor,
    /// Write a job file to start from
    Init(InitArgs),
    /// Print every field of a job file with its default
    Schema,
    /// Say what an error code means, and what to do
    Explain {
        /// The code, such as Y2001
        #[arg(value_name = "CODE")]
        code: String,
    },
    /// Settings of the cluster, and contexts of this machine
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Print what happens in the cluster
    Events(EventsArgs),
    /// Print completions for a shell
    Completion(CompletionArgs),
}

impl Verb {
    /// Whether the process stays, and serves others.
    pub(crate) fn is_daemon(&self) -> bool {
        matches!(self, Verb::Coordinator(CoordinatorVerb::Run(_)) | Verb::Agent(AgentVerb::Run(_)))
    }
}

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// A coordinator, as HOST:PORT
    #[arg(value_name = "HOST:PORT")]
    pub(crate) address: String,
    /// The token of `yard user invite`; `-` reads it from standard input, out of sight of `ps`
    pub(crate) token: String,
    /// What the cluster is called here
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The file to write
    #[arg(default_value = "job.yaml")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// The whole command line, for completions.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_tree_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn help_names_every_verb_in_one_line_each() {
        let help = command().render_help().to_string();
        let verbs: Vec<String> =
            command().get_subcommands().map(|verb| verb.get_name().to_string()).collect();
        assert_eq!(
            verbs.join(" "),
            "run submit ls show why logs files top exec forward checkpoint cancel hold release \
             set wait results node pool queue user login cluster dev coordinator agent doctor \
             init schema explain config events completion"
        );
        for verb in verbs {
            let line = help.lines().find(|line| line.trim().starts_with(&format!("{verb} ")));
            let line = line.unwrap_or_else(|| panic!("{verb} is not in the help"));
            assert!(line.len() <= 100, "{line}");
        }
    }

    #[test]
    fn the_life_of_a_token_says_its_bound() {
        let bound = crate::text::duration(yard_common::limits::TOKEN_LIFE_MS_MAX);
        for line in ["yard node invite --help", "yard user invite ann --help"] {
            let help = parse(line).unwrap_err().to_string();
            assert!(help.contains(&format!("at most {bound}")), "{help}");
        }
    }

    #[test]
    fn a_command_follows_two_dashes_untouched() {
        let cli = parse("yard run --nodes 2 -- python3 train.py --lr 3 -o x").unwrap();
        let Verb::Run(run) = cli.verb else { panic!("run") };
        assert_eq!(run.submit.words, ["python3", "train.py", "--lr", "3", "-o", "x"]);
        assert_eq!(run.submit.file, None);
        assert_eq!(run.submit.fields.nodes.as_deref(), Some("2"));
        assert_eq!(cli.global.output, None);
    }

    #[test]
    fn a_file_may_be_followed_by_words() {
        let cli = parse("yard submit job.yaml --array 0-9%2 --set env.A=b -- --lr 3").unwrap();
        let Verb::Submit(submit) = cli.verb else { panic!("submit") };
        assert_eq!(submit.submit.file.as_deref(), Some(std::path::Path::new("job.yaml")));
        assert_eq!(submit.submit.words, ["--lr", "3"]);
        assert_eq!(submit.submit.set, ["env.A=b"]);
    }

    #[test]
    fn the_version_is_that_of_the_program() {
        let words = ["yard", "--version"].map(OsString::from);
        assert_eq!(Cli::of("9.0.0", words).unwrap_err().to_string(), "yard 9.0.0\n");
    }

    #[test]
    fn global_flags_go_anywhere() {
        for line in ["yard -o json ls", "yard ls -o json", "yard ls --output json"] {
            assert_eq!(parse(line).unwrap().global.output, Some(Format::Json), "{line}");
        }
    }

    #[test]
    fn slips_are_recognised() {
        let error = parse("yard sumbit job.yaml").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSubcommand);
        assert!(error.to_string().contains("'submit'"), "{error}");
        let error = parse("yard ls --al-users").unwrap_err();
        assert!(error.to_string().contains("'--all-users'"), "{error}");
        let error = parse("yard ls -o xml").unwrap_err();
        assert!(error.to_string().contains("jsonl"), "{error}");
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        for line in [
            "yard logs 8 --attempt 2 --previous",
            "yard set 8",
            "yard run",
            "yard submit",
            "yard show",
            "yard wait",
            // The server has none of these yet.
            "yard node invite --renew n1",
            "yard queue set night --preemptible true",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
