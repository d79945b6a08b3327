//! How often a failed attempt is tried again, by whose fault it was and by cause.

use super::declare::record;
use super::json::Json;
use super::problem::Issue;
use super::scalar::{Count, parse_integer};
use super::time::DurationMs;
use super::tree::{Node, Value};
use super::walk::{Detail, Part, Scalar, Walk};
use crate::ErrorCode;
use crate::cause::ExitCause;
use crate::limits::{RETRIES_MAX, RETRY_RULES_MAX};

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

/// The numbers that a cause can be narrowed to, both ends included.
type Range = (u32, u32);

/// Causes by name.
const RETRY_CAUSES: [(&str, RetryCause, Option<Range>); 11] = [
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

    fn read_cause(&mut self, cause: RetryCause, range: Range, node: &Node, walk: &mut Walk<'_>) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::JobSpec;

    #[test]
    fn the_narrower_rule_counts() {
        let job = "{command: a, retry: {on: {exited: {75: 5}, out_of_memory: 1, signaled: 2}}}";
        let spec = JobSpec::from_yaml(job).unwrap();
        let retries = |cause| spec.retry.on.find(cause).map(|rule| rule.retries);
        assert_eq!(retries(ExitCause::Exited(75)), Some(5));
        assert_eq!(retries(ExitCause::Exited(1)), None);
        assert_eq!(retries(ExitCause::OutOfMemory), Some(1));
        assert_eq!(retries(ExitCause::Signaled(9)), Some(2));
        assert_eq!(retries(ExitCause::StoppedWithGang), None);
        assert!(!RetryCause::Exited(None).matches(ExitCause::Exited(0)));
    }

    #[test]
    fn every_cause_has_a_name_of_its_own() {
        for (name, cause, range) in RETRY_CAUSES {
            assert_eq!(cause.name(), name);
            assert_eq!(cause.with_number(7).number().is_some(), range.is_some(), "{name}");
        }
    }
}
