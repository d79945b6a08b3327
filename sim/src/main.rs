//! `yard-sim`: runs seeds, replays one, tests itself, and tries deliberate bugs.
#![forbid(unsafe_code)]

use clap::{Args, Parser, Subcommand};
use std::io::IsTerminal as _;
use std::io::Read as _;
use std::process::ExitCode;
use std::time::Instant;
use yard_sim::coverage::{FULL_SEEDS, POINTS};
use yard_sim::mutants::{self, MUTANTS, Verdict};
use yard_sim::runner::{Totals, catch_panics, run_seed, run_seeds};

/// Whole clusters in virtual time, from one seed each.
#[derive(Debug, Parser)]
#[command(name = "yard-sim")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs seeds until all are done or a rule is broken.
    Run(Run),
    /// Runs seeds twice each and compares the traces.
    Meta {
        /// How many.
        #[arg(long, default_value_t = 3)]
        seeds: u64,
    },
    /// Runs many seeds for the figures of `docs/benchmarks`.
    Bench,
    /// Wakes each deliberate bug in turn and runs seeds until it is caught.
    Mutants {
        /// This one only.
        #[arg(long)]
        only: Option<String>,
        /// Threads to run seeds on.
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// How many seeds, from `--from` on.
    #[arg(long, conflicts_with_all = ["seed", "random"])]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// This seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// So many seeds that nobody has chosen.
    #[arg(long, conflicts_with = "seed")]
    random: Option<u64>,
    /// Prints what happens, of a single seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// With this deliberate bug; for a build that has them.
    #[arg(long)]
    mutant: Option<String>,
    /// Threads to run seeds on.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> ExitCode {
    catch_panics();
    let good = match Cli::parse().what {
        What::Run(run) => run_command(&run),
        What::Bench => run_many(&(1..=10_000).collect::<Vec<_>>(), 2),
        What::Meta { seeds } => meta(seeds),
        What::Mutants { only, threads } => try_mutants(only.as_deref(), threads),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_command(run: &Run) -> bool {
    if let Some(Err(problem)) = run.mutant.as_deref().map(mutants::wake) {
        eprintln!("error: {problem}");
        return false;
    }
    if let (Some(seed), true) = (run.seed, run.trace) {
        let outcome = run_seed(seed, true);
        print!("{}", outcome.trace.unwrap_or_default());
        return outcome.violation.is_none();
    }
    let seeds: Vec<u64> = match (run.seed, run.random) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => random_seeds(count),
        (None, None) => (run.from..run.from + run.seeds.unwrap_or(100)).collect(),
    };
    run_many(&seeds, run.threads)
}

/// Seeds from the operating system; printed, as nothing else could bring them back.
fn random_seeds(count: u64) -> Vec<u64> {
    let mut bytes = vec![0; count as usize * 8];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.expect("the system has random bytes");
    let seeds = bytes
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("a chunk has eight bytes")) >> 16);
    let seeds: Vec<u64> = seeds.collect();
    println!("random seeds {seeds:?}");
    seeds
}

fn run_many(seeds: &[u64], threads: usize) -> bool {
    let begin = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    let totals = run_seeds(seeds, threads, 1, |done| {
        if terminal && done.is_multiple_of(20) {
            eprint!("\r{done} of {} seeds", seeds.len());
        }
    });
    if terminal {
        eprintln!();
    }
    report(&totals, begin.elapsed().as_millis())
}

/// Prints the figures, one per line as `name value unit`; returns whether all is well.
fn report(totals: &Totals, elapsed_ms: u128) -> bool {
    let (stats, coverage) = (&totals.stats, &totals.coverage);
    println!("seeds {} runs", totals.seeds);
    println!("applied_commands {} commands", stats.commands);
    println!("tasks_ended {} tasks", stats.tasks_ended);
    println!("faults {} faults", stats.faults);
    println!("elections {} leaders", stats.leaders);
    println!("snapshots {} snapshots", stats.snapshots);
    println!("events {} events", stats.events);
    println!("virtual_time {} hours", totals.virtual_us / 3_600_000_000);
    if let Some((commands, tasks, faults)) = totals.least {
        println!("applied_commands_least {commands} commands");
        println!("tasks_ended_least {tasks} tasks");
        println!("faults_least {faults} faults");
    }
    for point in POINTS {
        println!("reached_{} {} times", point.replace(' ', "_"), coverage.count(point));
    }
    println!("elapsed {}.{:03} seconds", elapsed_ms / 1_000, elapsed_ms % 1_000);
    println!("violations {} violations", totals.violations.len());
    for (seed, violation) in &totals.violations {
        println!("broken {} seed {seed}: {}", violation.rule, violation.what);
        println!("replay: cargo run --profile sim -p yard-sim -- run --seed {seed} --trace");
    }
    let missing = coverage.missing();
    let full = totals.seeds >= FULL_SEEDS && totals.violations.is_empty();
    for point in missing.iter().filter(|_| full) {
        println!("never reached: {point}");
    }
    totals.violations.is_empty() && (!full || missing.is_empty())
}

fn meta(seeds: u64) -> bool {
    (1..=seeds).all(|seed| {
        let (one, two) = (run_seed(seed, true), run_seed(seed, true));
        let equal = one.trace == two.trace && one.virtual_us == two.virtual_us;
        println!("seed {seed}: {}", if equal { "the same twice" } else { "DIFFERS" });
        equal
    })
}

fn try_mutants(only: Option<&str>, threads: usize) -> bool {
    let root = std::env::current_dir().expect("there is a current directory");
    let program = match mutants::build(&root) {
        Ok(program) => program,
        Err(error) => {
            eprintln!("error: the build with mutants failed: {error}");
            return false;
        }
    };
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    let mut missed = 0;
    let mut tried = 0;
    for mutant in MUTANTS.iter().filter(|mutant| wanted(mutant.name)) {
        let begin = Instant::now();
        let verdict = mutants::try_mutant(&program, mutant.name, threads);
        let text = match verdict.expect("the program was just built") {
            Verdict::Caught(line) => format!("caught: {line}"),
            Verdict::Missed => {
                missed += 1;
                format!("MISSED; {} should see it", mutant.caught_by)
            }
        };
        tried += 1;
        let ms = begin.elapsed().as_millis();
        println!("{} ({}), {ms} ms: {text}", mutant.name, mutant.breaks);
    }
    println!("mutants {tried} mutants");
    println!("mutants_missed {missed} mutants");
    tried > 0 && missed == 0
}
