//! What becomes of a job over time: order, waiting, failing, stopping, telling.

use super::declare::{record, words};
use super::json::Json;
use super::problem::Issue;
use super::scalar::parse_integer;
use super::text::{AbsPath, Name};
use super::time::DurationMs;
use super::tree::{At, Node, Value};
use super::walk::{Detail, MapView, Part, Scalar, Walk, long_form};
use crate::ErrorCode;
use crate::id::JobId;
use crate::limits::{DEPENDENCIES_MAX, PRIORITY_ABS_MAX};

/// Priority within a queue, -1000 to 1000; higher comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(i16);

impl Priority {
    /// What a job has that says nothing.
    pub const NORMAL: Priority = Priority(0);

    /// The number.
    #[must_use]
    pub fn get(self) -> i16 {
        self.0
    }
}

impl Scalar for Priority {
    const WHAT: &'static str = "a priority: -1000 to 1000, low, normal or high";

    fn parse(text: &str) -> Result<Priority, Issue> {
        if text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            let max = i64::from(PRIORITY_ABS_MAX);
            return parse_integer(text, -max, max).map(|value| Priority(value as i16));
        }
        let words = [("low", -500), ("normal", 0), ("high", 500)];
        super::scalar::parse_word(text, &words, |(word, _)| word).map(|(_, value)| Priority(value))
    }

    fn print(&self) -> Json {
        Json::Int(self.0.into())
    }
}

impl Scalar for JobId {
    const WHAT: &'static str = "the number of a job";
    const LIST_MAX: usize = DEPENDENCIES_MAX;

    fn parse(text: &str) -> Result<JobId, Issue> {
        parse_integer(text, 0, i64::MAX).map(|id| JobId(id as u64))
    }

    fn print(&self) -> Json {
        Json::Int(self.0 as i64)
    }
}

record! {
    /// Jobs that must end first.
    pub struct After check check_after {
        /// These must succeed.
        ok: Vec<JobId> = Vec::new(),
        /// These must end in any way.
        any: Vec<JobId> = Vec::new(),
        /// These must fail.
        failed: Vec<JobId> = Vec::new(),
        /// Arrays of the same size: each task waits for the task of its own index to succeed.
        each: Vec<JobId> = Vec::new(),
    }
}

impl After {
    /// No job.
    pub const NONE: After =
        After { ok: Vec::new(), any: Vec::new(), failed: Vec::new(), each: Vec::new() };

    /// Every job that is waited for.
    pub fn jobs(&self) -> impl Iterator<Item = JobId> {
        [&self.ok, &self.any, &self.failed, &self.each].into_iter().flatten().copied()
    }
}

fn check_after(value: &After, map: &MapView<'_>, walk: &mut Walk<'_>) {
    let mut jobs: Vec<JobId> = value.jobs().collect();
    if jobs.len() > DEPENDENCIES_MAX {
        let message = format!("{} jobs, at most {DEPENDENCIES_MAX} are allowed", jobs.len());
        let issue = Issue::new(ErrorCode::OutOfRange, message, "wait for fewer jobs");
        walk.report(map.at, String::new(), issue);
    }
    jobs.sort_unstable();
    if let Some(pair) = jobs.windows(2).find(|pair| pair[0] == pair[1]) {
        let issue =
            Issue::new(ErrorCode::Conflict, "this job is named twice", "name it in one list");
        walk.report(map.at, pair[0].to_string(), issue);
    }
}

words! {
    /// A signal that a job may ask for. `SIG` in front is understood.
    pub enum SignalName("the name of a signal") {
        /// Hang up.
        Hup = "HUP",
        /// Interrupt, as Ctrl-C.
        Int = "INT",
        /// Quit.
        Quit = "QUIT",
        /// For the job's own use.
        Usr1 = "USR1",
        /// For the job's own use.
        Usr2 = "USR2",
        /// Terminate.
        Term = "TERM",
    }
}

/// A signal to the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(pub SignalName);

impl Scalar for Signal {
    const WHAT: &'static str = "the name of a signal such as TERM";

    fn parse(text: &str) -> Result<Signal, Issue> {
        let upper = text.to_ascii_uppercase();
        SignalName::parse(upper.strip_prefix("SIG").unwrap_or(&upper)).map(Signal)
    }

    fn print(&self) -> Json {
        self.0.print()
    }
}

words! {
    /// How checkpoints are kept.
    pub enum CheckpointMode("simple or published") {
        /// The script writes to one directory, as it likes.
        Simple = "simple",
        /// Each attempt has its own directory, and publishes what is whole.
        Published = "published",
    }
}

record! {
    /// Where checkpoints are, and how they are asked for.
    pub struct Checkpoint check check_checkpoint {
        /// The directory.
        dir: AbsPath,
        /// How they are kept.
        mode: CheckpointMode = CheckpointMode::Simple,
        /// A signal beside the request file; none: the file only.
        signal: Option<Signal> = None,
        /// How long before the time limit one is asked for.
        notice: DurationMs = DurationMs::seconds(120),
        /// How often one is asked for; none: when it is needed.
        every: Option<DurationMs> = None,
        /// How long a job may go on writing one after it should have stopped.
        max_grace: DurationMs = DurationMs::minutes(10),
    }
}

fn check_checkpoint(value: &Checkpoint, map: &MapView<'_>, walk: &mut Walk<'_>) {
    not_zero("every", value.every, map, walk);
}

/// Reports a duration of zero where that has no meaning.
pub(crate) fn not_zero(
    key: &'static str,
    value: Option<DurationMs>,
    map: &MapView<'_>,
    walk: &mut Walk<'_>,
) {
    if value.is_some_and(|value| value.ms() == 0) {
        let at = map.get(key).map_or(map.at, |node| &node.at);
        let fix = "write a longer time, or leave the field out";
        let issue = Issue::new(ErrorCode::OutOfRange, "zero has no meaning here", fix);
        walk.within(key, |walk| walk.report(at, "0s".into(), issue));
    }
}

words! {
    /// What happens to ranks whose machine cannot be reached.
    pub enum IsolationClass("fenced, strict or tolerant") {
        /// The task starts elsewhere after the lease; old ranks kill themselves later.
        Fenced = "fenced",
        /// No instruction of the old attempt runs after the first of the new one.
        Strict = "strict",
        /// Neither moved nor killed for hours.
        Tolerant = "tolerant",
    }
}

record! {
    /// How attempts are kept apart.
    pub struct Isolation short "class" check check_isolation {
        /// The class.
        class: IsolationClass = IsolationClass::Fenced,
        /// How long the machine may be silent; none: as the cluster has it.
        lease: Option<DurationMs> = None,
    }
}

impl Isolation {
    /// Fenced, with the cluster's lease.
    pub const DEFAULT: Isolation = Isolation { class: IsolationClass::Fenced, lease: None };
}

fn check_isolation(value: &Isolation, map: &MapView<'_>, walk: &mut Walk<'_>) {
    not_zero("lease", value.lease, map, walk);
}

words! {
    /// Who gets the stop signal.
    pub enum StopTo("main or all") {
        /// Each rank's main process.
        Main = "main",
        /// Every process of the attempt.
        All = "all",
    }
}

record! {
    /// How ranks are stopped.
    pub struct Stop {
        /// The first signal.
        signal: Signal = Signal(SignalName::Term),
        /// How long until everything is killed.
        grace: DurationMs = DurationMs::seconds(30),
        /// Who gets the signal.
        to: StopTo = StopTo::Main,
    }
}

impl Stop {
    /// TERM to the main processes, and 30 s.
    pub const DEFAULT: Stop =
        Stop { signal: Signal(SignalName::Term), grace: DurationMs::seconds(30), to: StopTo::Main };
}

record! {
    /// What happens when ranks write nothing.
    pub struct Stall check check_stall {
        /// After this a warning is shown; none: never.
        warn: Option<DurationMs> = Some(DurationMs::minutes(10)),
        /// After this the attempt ends as stalled; none: never.
        kill: Option<DurationMs> = None,
    }
}

impl Stall {
    /// A warning after 10 minutes.
    pub const DEFAULT: Stall = Stall { warn: Some(DurationMs::minutes(10)), kill: None };
}

fn check_stall(value: &Stall, map: &MapView<'_>, walk: &mut Walk<'_>) {
    not_zero("warn", value.warn, map, walk);
    not_zero("kill", value.kill, map, walk);
    if let (Some(warn), Some(kill)) = (value.warn, value.kill)
        && kill < warn
    {
        let at: &At = map.get("kill").map_or(map.at, |node| &node.at);
        let message = format!("the attempt would end before the warning after {warn}");
        let issue = Issue::new(ErrorCode::Conflict, message, "let stall.warn come first, or none");
        walk.within("kill", |walk| walk.report(at, kill.to_string(), issue));
    }
}

words! {
    /// What a webhook is told of.
    pub enum NotifyOn("an event of a job") {
        /// An attempt runs.
        Started = "started",
        /// An attempt failed and is tried again.
        Retried = "retried",
        /// No progress.
        Stalled = "stalled",
        /// The job succeeded.
        Succeeded = "succeeded",
        /// The job failed.
        Failed = "failed",
        /// The job was cancelled.
        Cancelled = "cancelled",
        /// The job ended in any way.
        Ended = "ended",
    }
}

record! {
    /// A webhook of the cluster that is told of events.
    pub struct Notify {
        /// Of which.
        on: Vec<NotifyOn>,
        /// The webhook's name.
        webhook: Name,
    }
}
