//! What becomes of a job over time: order, waiting, failing, stopping, telling.

use super::json::Json;
use super::problem::Issue;
use super::scalar::{Count, parse_integer};
use super::text::{AbsPath, Name};
use super::time::DurationMs;
use super::tree::{At, Node, Value};
use super::walk::{Detail, MapView, Part, Scalar, Walk, long_form, record, words};
use crate::ErrorCode;
use crate::cause::ExitCause;
use crate::id::JobId;
use crate::limits::{DEPENDENCIES_MAX, PRIORITY_ABS_MAX, RETRIES_MAX, RETRY_RULES_MAX};

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
        parse_integer(text, 1, i64::MAX).map(|id| JobId(id as u64))
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

/// How often something is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Budget {
    /// As often as it happens.
    Unlimited,
    /// At most so often.
    Times(u16),
}

impl Scalar for Budget {
    const WHAT: &'static str = "a number of retries, or unlimited";

    fn parse(text: &str) -> Result<Budget, Issue> {
        if text == "unlimited" {
            return Ok(Budget::Unlimited);
        }
        parse_integer(text, 0, RETRIES_MAX.into()).map(|count| Budget::Times(count as u16))
    }

    fn print(&self) -> Json {
        match self {
            Budget::Unlimited => Json::Text("unlimited".into()),
            Budget::Times(count) => Json::Int((*count).into()),
        }
    }
}

/// Delay before a retry: it doubles from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backoff {
    /// Before the first retry.
    pub min: DurationMs,
    /// Never longer than this.
    pub max: DurationMs,
}

impl Scalar for Backoff {
    const WHAT: &'static str = "a range of delays such as 10s..5m";

    fn parse(text: &str) -> Result<Backoff, Issue> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let (min, max) = (DurationMs::parse(min.trim())?, DurationMs::parse(max.trim())?);
        if min > max {
            let swapped = format!("{max}..{min}");
            let fix = format!("write {swapped}");
            let issue = Issue::new(ErrorCode::OutOfRange, "the range ends before it starts", fix);
            return Err(issue.nearest(Some(swapped)));
        }
        Ok(Backoff { min, max })
    }

    fn print(&self) -> Json {
        Json::Text(format!("{}..{}", self.min, self.max))
    }
}

/// What a retry rule is about. A number narrows it to one exit code, signal or GPU error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RetryCause {
    /// An exit code other than 0.
    Exited(Option<u32>),
    /// A signal.
    Signaled(Option<u32>),
    /// A GPU error, by XID.
    GpuFault(Option<u32>),
    /// The memory limit.
    OutOfMemory,
    /// The time limit.
    TimedOut,
    /// No progress.
    Stalled,
    /// A machine of the gang.
    NodeLost,
    /// A full disk on a node.
    DiskFull,
    /// The program could not be started.
    StartFailed,
    /// A step before the start.
    PrepareFailed,
    /// The exit status cannot be known.
    Lost,
}

/// Causes by name; those with a range can be narrowed to a number in it.
const RETRY_CAUSES: [(&str, RetryCause, Option<(u32, u32)>); 11] = [
    ("exited", RetryCause::Exited(None), Some((1, 255))),
    ("signaled", RetryCause::Signaled(None), Some((1, 64))),
    ("gpu_fault", RetryCause::GpuFault(None), Some((1, 1_000))),
    ("out_of_memory", RetryCause::OutOfMemory, None),
    ("timed_out", RetryCause::TimedOut, None),
    ("stalled", RetryCause::Stalled, None),
    ("node_lost", RetryCause::NodeLost, None),
    ("disk_full", RetryCause::DiskFull, None),
    ("start_failed", RetryCause::StartFailed, None),
    ("prepare_failed", RetryCause::PrepareFailed, None),
    ("lost", RetryCause::Lost, None),
];

impl RetryCause {
    /// Whether an attempt that ended so falls under the rule.
    #[must_use]
    pub fn matches(self, cause: ExitCause) -> bool {
        let is = |wanted: Option<u32>, found: i64| wanted.is_none_or(|n| i64::from(n) == found);
        match (self, cause) {
            (RetryCause::Exited(code), ExitCause::Exited(found)) => {
                found != 0 && is(code, found.into())
            }
            (RetryCause::Signaled(signal), ExitCause::Signaled(found)) => is(signal, found.into()),
            (RetryCause::GpuFault(xid), ExitCause::GpuFault(found)) => is(xid, found.into()),
            (RetryCause::OutOfMemory, ExitCause::OutOfMemory)
            | (RetryCause::TimedOut, ExitCause::TimedOut)
            | (RetryCause::Stalled, ExitCause::Stalled)
            | (RetryCause::NodeLost, ExitCause::NodeLost)
            | (RetryCause::DiskFull, ExitCause::DiskFull)
            | (RetryCause::StartFailed, ExitCause::StartFailed(_))
            | (RetryCause::PrepareFailed, ExitCause::PrepareFailed(_))
            | (RetryCause::Lost, ExitCause::Lost(_)) => true,
            _ => false,
        }
    }

    fn with_number(self, number: u32) -> RetryCause {
        match self {
            RetryCause::Exited(_) => RetryCause::Exited(Some(number)),
            RetryCause::Signaled(_) => RetryCause::Signaled(Some(number)),
            RetryCause::GpuFault(_) => RetryCause::GpuFault(Some(number)),
            other => other,
        }
    }

    fn number(self) -> Option<u32> {
        match self {
            RetryCause::Exited(n) | RetryCause::Signaled(n) | RetryCause::GpuFault(n) => n,
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        let same = std::mem::discriminant(&self);
        let mut causes = RETRY_CAUSES.iter();
        causes.find(|(_, c, _)| std::mem::discriminant(c) == same).map_or("", |(name, _, _)| name)
    }
}

/// A budget for one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RetryRule {
    /// Which ends it is about.
    pub cause: RetryCause,
    /// How often they are tried again.
    pub retries: u16,
}

/// Rules by cause, the narrower before the wider: `{out_of_memory: 1, exited: {75: 5}}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryRules(Vec<RetryRule>);

type Retries = Count<0, { RETRIES_MAX as u32 }>;

impl RetryRules {
    /// The rules; the first that matches is the one that counts.
    #[must_use]
    pub fn rules(&self) -> &[RetryRule] {
        &self.0
    }

    /// The rule for an attempt that ended so.
    #[must_use]
    pub fn find(&self, cause: ExitCause) -> Option<&RetryRule> {
        self.0.iter().find(|rule| rule.cause.matches(cause))
    }

    fn read_cause(
        &mut self,
        cause: RetryCause,
        range: (u32, u32),
        node: &Node,
        walk: &mut Walk<'_>,
    ) {
        for (key, node) in walk.entries(node).unwrap_or_default() {
            walk.within(&key.text, |walk| {
                let number = parse_integer(&key.text, range.0.into(), range.1.into());
                let number =
                    number.map_err(|issue| walk.report(&key.at, key.text.clone(), issue)).ok();
                let retries = Retries::read(node, walk);
                if let (Some(number), Some(retries)) = (number, retries) {
                    let cause = cause.with_number(number as u32);
                    self.0.push(RetryRule { cause, retries: retries.get() as u16 });
                }
            });
        }
    }
}

impl Part for RetryRules {
    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<RetryRules> {
        let mut rules = RetryRules::default();
        for (key, value) in walk.entries(node)? {
            walk.within(&key.text, |walk| {
                let names: Vec<(&'static str, usize)> =
                    RETRY_CAUSES.iter().enumerate().map(|(i, (name, _, _))| (*name, i)).collect();
                let found = super::scalar::parse_word(&key.text, &names, |(name, _)| name);
                let (_, index) = match found {
                    Ok(found) => found,
                    Err(issue) => return walk.report(&key.at, key.text.clone(), issue),
                };
                let (_, cause, range) = RETRY_CAUSES[index];
                match (&value.value, range) {
                    (Value::Map(_), Some(range)) => rules.read_cause(cause, range, value, walk),
                    _ => {
                        if let Some(retries) = Retries::read(value, walk) {
                            rules.0.push(RetryRule { cause, retries: retries.get() as u16 });
                        }
                    }
                }
            });
        }
        if rules.0.len() > RETRY_RULES_MAX {
            let message = format!("{} rules, at most {RETRY_RULES_MAX} are allowed", rules.0.len());
            walk.refuse(node, Issue::new(ErrorCode::OutOfRange, message, "remove some"));
        }
        // By cause, and within a cause the numbers before the rest.
        rules.0.sort_by_key(|rule| (rule.cause.name(), rule.cause.number().is_none(), *rule));
        Some(rules)
    }

    fn write(&self, _: Detail) -> Json {
        let mut fields: Vec<(String, Json)> = Vec::new();
        for rule in &self.0 {
            let (name, retries) = (rule.cause.name(), Json::Int(rule.retries.into()));
            let Some(number) = rule.cause.number() else {
                fields.push((name.into(), retries));
                continue;
            };
            let entry = (number.to_string(), retries);
            match fields.last_mut() {
                Some((last, Json::Map(numbers))) if last == name => numbers.push(entry),
                _ => fields.push((name.into(), Json::Map(vec![entry]))),
            }
        }
        Json::Map(fields)
    }
}

record! {
    /// How often a failed attempt is tried again. `none` in place of the mapping: never.
    pub struct Retry manual {
        /// After failures of machines and of the cluster.
        infra: Retries = Retries::constant(20),
        /// After failures of the job itself.
        user: Retries = Retries::constant(0),
        /// After the cluster took the resources back.
        preempted: Budget = Budget::Unlimited,
        /// How long to wait before.
        backoff: Backoff = Retry::BACKOFF,
        /// Budgets of their own for some causes.
        on: RetryRules = RetryRules::default(),
    }
}

impl Retry {
    const BACKOFF: Backoff = Backoff { min: DurationMs::seconds(10), max: DurationMs::minutes(5) };

    /// Failures of machines 20 times, those of the job never, preemption without end.
    #[must_use]
    pub fn defaults() -> Retry {
        Retry {
            infra: Retries::constant(20),
            user: Retries::constant(0),
            preempted: Budget::Unlimited,
            backoff: Retry::BACKOFF,
            on: RetryRules::default(),
        }
    }

    /// Never.
    #[must_use]
    pub fn never() -> Retry {
        let none = Retries::constant(0);
        Retry { infra: none, preempted: Budget::Times(0), ..Retry::defaults() }
    }
}

impl Part for Retry {
    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<Retry> {
        match &node.value {
            Value::Scalar(text, _) if text == "none" => Some(Retry::never()),
            _ => Retry::read_record(node, walk),
        }
    }

    fn write(&self, detail: Detail) -> Json {
        self.write_record(detail)
    }
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
