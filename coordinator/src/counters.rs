//! What is counted for `/metrics`, in the format of OpenMetrics.
//!
//! Counters are kept as things happen; what the state says is read when somebody asks. No label
//! takes a value that a user chooses, so the number of series is bounded.

use crate::member::Member;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use yard_common::condition::ConditionKind;
use yard_common::state::NodeState;
use yard_core::state::State;

/// Label of a count.
type Label = [(&'static str, &'static str); 1];

/// Counters of a member.
#[derive(Default)]
pub(crate) struct Counters {
    /// Calls by the code of their status.
    pub(crate) calls: Family<Label, Counter>,
    /// Rounds of the scheduler.
    pub(crate) plans: Counter,
    /// Rounds that ended with a panic.
    pub(crate) plans_broken: Counter,
    /// Microseconds that rounds took.
    pub(crate) plan_us: Counter,
}

impl Counters {
    /// Counts a call.
    pub(crate) fn call(&self, code: tonic::Code) {
        self.calls.get_or_create(&[("code", word(code))]).inc();
    }
}

/// A code as a word without spaces.
fn word(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// The text that a scraper gets.
pub(crate) fn text(member: &Member) -> String {
    let counters = &member.counters;
    let mut registry = Registry::with_prefix("yard");
    registry.register("calls", "Calls by the code of their status", counters.calls.clone());
    registry.register("plans", "Rounds of the scheduler", counters.plans.clone());
    let broken = counters.plans_broken.clone();
    registry.register("plans_broken", "Rounds of the scheduler that ended with a panic", broken);
    let spent = counters.plan_us.clone();
    registry.register("plan_microseconds", "Time that the scheduler took", spent);
    let (index, state) = member.raft.state();
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut gauge = |name: &str, help: &str, value: u64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(number(value));
        registry.register(name, help, gauge);
    };
    gauge("applied_index", "The last applied position of the log", index.0);
    gauge("leads", "Whether this member leads", u64::from(member.leads()));
    gauge("members", "Members that get the log", member.raft.peers().len() as u64);
    let flush = "Of the latest writes of the log, 99 of 100 were durable after this long";
    gauge("log_flush_p99_microseconds", flush, member.raft.flush_p99_us().unwrap_or(0));
    let disk = member.raft.disks().get(&member.id).copied();
    let (is_full, free_bytes) = disk.map_or((false, 0), |disk| (disk.is_full, disk.free_bytes));
    gauge("disk_full", "Whether the disk has too little room for new work", u64::from(is_full));
    gauge("disk_free_bytes", "Bytes that are free on the disk", free_bytes);
    let (equal, unequal) = member.raft.compared();
    gauge("slices_equal", "Slices of the state found equal with another member's", equal);
    gauge("members_differ", "Differences from other members", unequal);
    gauge("sessions", "Control streams of agents", member.sessions.count() as u64);
    gauge("jobs", "Jobs in the state, ended ones included", state.jobs.len() as u64);
    gauge("jobs_pending", "Jobs with a task that waits in its queue", state.pending.len() as u64);
    gauge("allocations", "Allocations that hold resources", state.allocations.len() as u64);
    let held = state.allocations.iter();
    let stalled = held.filter(|(_, held)| held.silent_since_ms().is_some()).count() as u64;
    let help = "Running attempts of which no rank has done anything for long";
    gauge("attempts_stalled", help, stalled);
    let nodes: Family<Label, Gauge> = Family::default();
    for (_, node) in state.nodes.iter() {
        let label = match node.state {
            NodeState::Up => "up",
            NodeState::Suspect => "suspect",
            NodeState::Lost => "lost",
            NodeState::Removed => "removed",
        };
        nodes.get_or_create(&[("state", label)]).inc();
    }
    registry.register("nodes", "Nodes by their state", nodes);
    health(member, &state, &mut registry);
    let mut text = String::new();
    // Writing to memory does not fail.
    let _ = encode(&mut text, &registry);
    text
}

/// What nodes told of their health. Series are of kinds, never of nodes: there may be thousands.
fn health(member: &Member, state: &State, registry: &mut Registry) {
    let conditions: Family<Label, Gauge> = Family::default();
    for kind in ConditionKind::ALL {
        conditions.get_or_create(&[("kind", kind.name())]).set(0);
    }
    let gpus: Family<Label, Gauge> = Family::default();
    let (mut cordoned, mut unwell, mut setup_due) = (0, 0, 0);
    for (_, node) in state.nodes.iter() {
        for condition in &node.facts.conditions {
            conditions.get_or_create(&[("kind", condition.kind.name())]).inc();
        }
        for (device, parts) in node.facts.devices.iter().zip(node.device_parts.iter()) {
            let label = match (device.healthy, node.may_grant(device), *parts) {
                (false, _, _) => "bad",
                (true, false, _) => "held_back",
                (true, true, 0) => "free",
                (true, true, _) => "used",
            };
            gpus.get_or_create(&[("state", label)]).inc();
        }
        cordoned += i64::from(node.cordoned);
        unwell += i64::from(node.unwell);
        setup_due += i64::from(node.setup_due);
    }
    registry.register("conditions", "What is wrong with nodes and GPUs", conditions);
    registry.register("gpus", "GPUs and MIG instances by their state", gpus);
    let mut gauge = |name: &str, help: &str, value: i64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    gauge("nodes_cordoned", "Nodes that are cordoned", cordoned);
    gauge("nodes_unwell", "Nodes that take no work for a condition", unwell);
    gauge("nodes_setup_due", "Nodes that have not done the setup of their pool", setup_due);
    // Of nodes with a stream to this member: those of the leader.
    let (mut busy_percent, mut power_mw, mut used_bytes, mut told) = (0_u64, 0_u64, 0_u64, 0);
    member.sessions.each_facts(|_, facts| {
        for gpu in &facts.gpus {
            told += 1;
            busy_percent += u64::from(gpu.busy_percent);
            power_mw += u64::from(gpu.power_mw);
            used_bytes = used_bytes.saturating_add(gpu.memory_used_bytes);
        }
    });
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    gauge("gpus_told", "GPUs that the leader has readings of", told);
    gauge("gpu_busy_percent_sum", "How busy these GPUs are, added up", number(busy_percent));
    gauge("gpu_power_milliwatts_sum", "Power that these GPUs draw", number(power_mw));
    gauge("gpu_memory_used_bytes_sum", "Memory of these GPUs in use", number(used_bytes));
}
