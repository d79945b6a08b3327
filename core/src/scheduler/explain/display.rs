//! Explanations for people to read.

use super::{Change, Constraint, Explanation, GroupNumbers, Holder, Outlook};
use crate::command::LimitScope;
use crate::state::State;
use std::fmt;
use yard_common::gpu::{GPU_PARTS, GpuCount};
use yard_common::id::{JobId, QueueId};
use yard_common::limits::DURATION_MS_MAX;
use yard_common::spec::time::DurationMs;
use yard_common::{Amounts, Bytes, Cpus};

impl fmt::Display for Explanation {
    /// One line for the outlook, one for each constraint and change.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outlook {
            Outlook::NotPending => write!(f, "{} is {}", self.task, self.state)?,
            Outlook::Starts => write!(f, "{} starts in the next round", self.task)?,
            Outlook::Waits(reason) => write!(f, "{} waits: {reason}", self.task)?,
        }
        for constraint in &self.constraints {
            write!(f, "\n  {constraint}")?;
        }
        for change in &self.changes {
            write!(f, "\n  would start {change}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(&Names::Ids))
    }
}

/// How things are called.
enum Names<'a> {
    /// By their ids and the cluster's time, as in the log.
    Ids,
    /// As people know them at a time, in `cluster_ms`, who may see these jobs alone.
    People(&'a State, u64, &'a dyn Fn(JobId) -> bool),
}

impl Constraint {
    /// As one or more lines for somebody who may see these jobs: with names, and with times from
    /// now on, in `cluster_ms`; the state's own time stands still while nothing happens. Jobs that
    /// are not seen are counted.
    #[must_use]
    pub fn told(&self, view: &State, now_ms: u64, sees: &dyn Fn(JobId) -> bool) -> String {
        self.text(&Names::People(view, now_ms, sees))
    }

    fn text(&self, names: &Names<'_>) -> String {
        match self {
            Constraint::Held(reason) => format!("held: {reason}"),
            Constraint::Suspended(reason) => format!("suspended: {reason}"),
            Constraint::Dependency(jobs) => {
                let jobs: Vec<_> = jobs.iter().map(|job| (*job, 0, 0)).collect();
                format!("waits for {}", names.jobs(&jobs))
            }
            Constraint::NotBefore(at_ms) => names.time("not before", "", *at_ms),
            Constraint::Backoff(until_ms) => names.time("next attempt", " at", *until_ms),
            Constraint::QueueClosed(queue) => {
                format!("queue {} starts nothing", names.queue(*queue))
            }
            Constraint::Throttle { running, max } => {
                format!("{running} of at most {max} tasks of the array hold resources")
            }
            Constraint::Limit(excess) => {
                let amount = |value| quantity(excess.what, value);
                format!(
                    "limit on {} of {}: {} held, {} asked, {} allowed",
                    excess.what,
                    names.scope(excess.scope),
                    amount(excess.held),
                    amount(excess.asked),
                    amount(excess.limit)
                )
            }
            Constraint::Nodes(groups) => {
                groups.iter().map(numbers).collect::<Vec<_>>().join("\n  ")
            }
            Constraint::Claimed(jobs) => {
                let jobs: Vec<_> = jobs.iter().map(|(job, nodes)| (*job, *nodes, 0)).collect();
                format!("kept for those ahead: {}", names.jobs(&jobs))
            }
            Constraint::HeldBy(holders) => {
                let holder = |holder: &Holder| (holder.job, holder.nodes, holder.gpu_parts);
                let holders: Vec<_> = holders.iter().map(holder).collect();
                format!("held by {}", names.jobs(&holders))
            }
            Constraint::InDoubt { silent, unreaped } => {
                format!("in doubt: {silent} silent, {unreaped} with processes not seen gone")
            }
            Constraint::Position { queue, ahead } => {
                format!("place {} in queue {}", u64::from(*ahead) + 1, names.queue(*queue))
            }
        }
    }
}

impl Names<'_> {
    fn queue(&self, id: QueueId) -> String {
        let name = match self {
            Names::Ids => None,
            Names::People(view, ..) => view.queues.get(id).map(|queue| queue.name.to_string()),
        };
        name.unwrap_or_else(|| id.to_string())
    }

    fn scope(&self, scope: LimitScope) -> String {
        let Names::People(view, ..) = self else {
            return match scope {
                LimitScope::Queue(id) => format!("queue {id}"),
                LimitScope::Workspace(id) => format!("workspace {id}"),
                LimitScope::Owner(id) => format!("owner {id}"),
                LimitScope::EachOwner(id) => format!("each owner in queue {id}"),
            };
        };
        match scope {
            LimitScope::Queue(id) => format!("queue {}", self.queue(id)),
            LimitScope::Workspace(id) => {
                let name = view.workspaces.get(id).map(|workspace| workspace.name.to_string());
                format!("workspace {}", name.unwrap_or_else(|| id.to_string()))
            }
            LimitScope::Owner(id) => {
                let name = view.principals.get(id).map(|user| user.name.to_string());
                format!("owner {}", name.unwrap_or_else(|| id.to_string()))
            }
            LimitScope::EachOwner(id) => format!("each owner in queue {}", self.queue(id)),
        }
    }

    /// A time of the cluster. What it counts from means nothing to people.
    fn time(&self, what: &str, at: &str, at_ms: u64) -> String {
        let Names::People(_, now_ms, _) = self else { return format!("{what}{at} {at_ms} ms") };
        let left_ms = at_ms.saturating_sub(*now_ms);
        if left_ms == 0 {
            return format!("{what}: now");
        }
        // Up to the second, and never nothing.
        let left_ms = left_ms.div_ceil(1_000).saturating_mul(1_000).min(DURATION_MS_MAX);
        match DurationMs::new(left_ms) {
            Some(left) => format!("{what}: in {left}"),
            None => format!("{what}: later"),
        }
    }

    /// Jobs, with the nodes and the parts of GPUs that are theirs.
    fn jobs(&self, jobs: &[(JobId, u32, u64)]) -> String {
        let share = |nodes: u32, parts: u64| match (nodes, parts) {
            (0, _) => String::new(),
            (nodes, 0) => format!(" ({})", count(nodes)),
            (nodes, parts) => format!(" ({}, {} GPUs)", count(nodes), gpus(parts)),
        };
        let sees = |job: JobId| match self {
            Names::Ids => true,
            Names::People(.., sees) => sees(job),
        };
        let (seen, hidden): (Vec<_>, Vec<_>) = jobs.iter().partition(|(job, ..)| sees(*job));
        let mut told: Vec<String> = Vec::new();
        if !seen.is_empty() {
            let seen =
                seen.iter().map(|(job, nodes, parts)| format!("{job}{}", share(*nodes, *parts)));
            told.push(format!("job {}", list(seen)));
        }
        if !hidden.is_empty() {
            let nodes = hidden.iter().fold(0u32, |sum, (_, nodes, _)| sum.saturating_add(*nodes));
            let parts = hidden.iter().fold(0u64, |sum, (.., parts)| sum.saturating_add(*parts));
            let other = if seen.is_empty() { "" } else { "other " };
            let plural = if hidden.len() == 1 { "" } else { "s" };
            let share = share(nodes, parts);
            told.push(format!("{} {other}job{plural} that you may not see{share}", hidden.len()));
        }
        told.join(" and ")
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Nodes(nodes) => write!(f, "with {}", count(*nodes)),
            Change::Gpus(gpus) => write!(f, "with {gpus} GPUs a node"),
            Change::Limit { what, bound } => {
                write!(f, "with a limit on {what} of {}", quantity(what, *bound))
            }
            Change::Release => write!(f, "if released"),
            Change::OpenQueue => write!(f, "if its queue were opened"),
        }
    }
}

/// A limited amount in the unit that people use for it.
fn quantity(what: &str, value: u64) -> String {
    match what {
        "gpus" => gpus(value),
        "cpus" => Cpus(u32::try_from(value).unwrap_or(u32::MAX)).to_string(),
        "memory" | "disk" => Bytes(value).to_string(),
        _ => value.to_string(),
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

fn count(nodes: u32) -> String {
    format!("{nodes} node{}", if nodes == 1 { "" } else { "s" })
}

/// Ten-thousandths of a GPU as a number of GPUs.
fn gpus(parts: u64) -> String {
    let whole = u64::from(GPU_PARTS);
    let fraction = format!("{:04}", parts % whole);
    match fraction.trim_end_matches('0') {
        "" => (parts / whole).to_string(),
        fraction => format!("{}.{fraction}", parts / whole),
    }
}

fn amounts(amounts: &Amounts) -> String {
    let cpus = Cpus(u32::try_from(amounts.cpu_milli).unwrap_or(u32::MAX));
    let disk = match amounts.disk_bytes {
        0 => String::new(),
        bytes => format!(", {} disk", Bytes(bytes)),
    };
    let unit = if amounts.cpu_milli == 1000 { "CPU" } else { "CPUs" };
    format!("{cpus} {unit}, {}{disk}", Bytes(amounts.memory_bytes))
}

fn numbers(group: &GroupNumbers) -> String {
    let asked = match group.gpus {
        GpuCount::None => String::new(),
        GpuCount::Whole(1) => ", 1 GPU".into(),
        GpuCount::Whole(count) => format!(", {count} GPUs"),
        GpuCount::Part(parts) => format!(", {} GPU", gpus(parts.into())),
        GpuCount::Mig(profile, count) => format!(", {count} of {profile}"),
    };
    let unfit: Vec<_> = group.unfit.iter().map(|(why, nodes)| format!("{nodes} {why:?}")).collect();
    let unfit = if unfit.is_empty() { String::new() } else { format!(" ({})", unfit.join(", ")) };
    let free_gpus = match group.gpus {
        GpuCount::None => String::new(),
        GpuCount::Whole(_) | GpuCount::Part(_) | GpuCount::Mig(..) => {
            format!(", {} GPUs", group.most_free_gpus)
        }
    };
    let together = group.together.map(|nodes| format!(", {nodes} of them together"));
    let together = together.unwrap_or_default();
    let most = group.most_free.as_ref();
    let most = most.map(|most| format!("; at most {}{free_gpus} free on one", amounts(most)));
    format!(
        "{}: wants {} with {}{asked}; {} of {} could ever, {} can now{together}{unfit}{}",
        group.name,
        count(group.wanted),
        amounts(&group.amounts),
        group.ever,
        group.nodes,
        group.free,
        most.unwrap_or_default(),
    )
}
