//! Explanations for people to read.

use super::{Change, Constraint, Explanation, GroupNumbers, Outlook};
use crate::command::LimitScope;
use std::fmt;
use yard_common::gpu::{GPU_PARTS, GpuCount};
use yard_common::id::JobId;
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
        match self {
            Constraint::Held(reason) => write!(f, "held: {reason}"),
            Constraint::Suspended(reason) => write!(f, "suspended: {reason}"),
            Constraint::Dependency(jobs) => {
                write!(f, "waits for job {}", list(jobs.iter().map(JobId::to_string)))
            }
            Constraint::NotBefore(at_ms) => write!(f, "not before {at_ms} ms"),
            Constraint::Backoff(until_ms) => write!(f, "next attempt at {until_ms} ms"),
            Constraint::QueueClosed(queue) => write!(f, "queue {queue} starts nothing"),
            Constraint::Throttle { running, max } => {
                write!(f, "{running} of at most {max} tasks of the array hold resources")
            }
            Constraint::Limit(excess) => {
                let amount = |value| quantity(excess.what, value);
                write!(
                    f,
                    "limit on {} of {}: {} held, {} asked, {} allowed",
                    excess.what,
                    scope(excess.scope),
                    amount(excess.held),
                    amount(excess.asked),
                    amount(excess.limit)
                )
            }
            Constraint::Nodes(groups) => {
                write!(f, "{}", groups.iter().map(numbers).collect::<Vec<_>>().join("\n  "))
            }
            Constraint::Claimed(jobs) => {
                let jobs = jobs.iter().map(|(job, nodes)| format!("{job} ({})", count(*nodes)));
                write!(f, "kept for those ahead: job {}", list(jobs))
            }
            Constraint::HeldBy(holders) => {
                let holders = holders.iter().map(|holder| {
                    let gpus = match holder.gpu_parts {
                        0 => String::new(),
                        parts => format!(", {} GPUs", gpus(parts)),
                    };
                    format!("{} ({}{gpus})", holder.job, count(holder.nodes))
                });
                write!(f, "held by job {}", list(holders))
            }
            Constraint::InDoubt { silent, unreaped } => {
                write!(f, "in doubt: {silent} silent, {unreaped} with processes not seen gone")
            }
            Constraint::Position { queue, ahead } => {
                write!(f, "place {} in queue {queue}", ahead + 1)
            }
        }
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

fn scope(scope: LimitScope) -> String {
    match scope {
        LimitScope::Queue(id) => format!("queue {id}"),
        LimitScope::Workspace(id) => format!("workspace {id}"),
        LimitScope::Owner(id) => format!("owner {id}"),
        LimitScope::EachOwner(id) => format!("each owner in queue {id}"),
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
    format!(
        "{}: wants {} with {}{asked}; {} of {} could ever, {} can now{together}{unfit}; at most \
         {}{free_gpus} free on one",
        group.name,
        count(group.wanted),
        amounts(&group.amounts),
        group.ever,
        group.nodes,
        group.free,
        amounts(&group.most_free),
    )
}
