//! From the validated spec to what decisions need of it.

use super::{After, Array, Ask, Decides, Group, Isolation, IsolationClass, JobPlan, Place, Shape};
use crate::retry::{CausePattern, RetryPolicy, RetryRule};
use yard_common::cause::{LostReason, PrepareStep};
use yard_common::gpu::GpuCount;
use yard_common::id::{PoolId, TaskRange};
use yard_common::spec::gang::{self, Nodes, RanksPerNode, Resources};
use yard_common::spec::policy;
use yard_common::spec::retry::{self as spec_retry, Budget, RetryCause};
use yard_common::spec::run::Launch;
use yard_common::spec::scalar::Auto;
use yard_common::spec::time::NotBefore;
use yard_common::spec::{JobSpec, array::Indices};
use yard_common::{Bytes, ExitCause};

/// What the spec names, or leaves open, and only the place of submission knows.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The pool that the spec names.
    pub pool: Option<PoolId>,
    /// The wall clock, in milliseconds UTC since 1970: `not_before: +2h` counts from it.
    pub wall_ms: u64,
    /// Rows of `array.each`; 0 without one.
    pub rows: u32,
}

/// Compiles a job.
///
/// Positions of an array with gaps (`0-3,8`) are counted without them: the edge that shows a task
/// to people translates by `array.indices`.
#[must_use]
pub fn compile(spec: &JobSpec, context: &Context) -> JobPlan {
    let main = Shape {
        pool: context.pool,
        exclusive: spec.exclusive,
        groups: groups(spec),
        place: place(&spec.place),
    };
    let other = |alternative: &gang::Alternative| {
        let (nodes, resources) = (alternative.nodes, &alternative.resources);
        let one = group("main", nodes, spec.ranks_per_node, resources, spec.launch);
        Shape { groups: vec![one], ..main.clone() }
    };
    JobPlan {
        name: spec.name().into(),
        priority: spec.priority.get().into(),
        time_limit_ms: spec.time_limit.map(|limit| limit.ms()),
        not_before_wall_ms: spec.not_before.map(|not_before| match not_before {
            NotBefore::At(wall_ms) => wall_ms,
            NotBefore::After(delay) => context.wall_ms.saturating_add(delay.ms()),
        }),
        after: After {
            ok: spec.after.ok.clone(),
            any: spec.after.any.clone(),
            failed: spec.after.failed.clone(),
            each: spec.after.each.clone(),
        },
        hold: spec.hold,
        preemptible: spec.preemptible,
        retry: retry(&spec.retry),
        grace_ms: spec.stop.grace.ms(),
        prepare_ms: spec.prepare_timeout.ms(),
        isolation: Isolation {
            class: match spec.isolation.class {
                policy::IsolationClass::Fenced => IsolationClass::Fenced,
                policy::IsolationClass::Strict => IsolationClass::Strict,
                policy::IsolationClass::Tolerant => IsolationClass::Tolerant,
            },
            lease_ms: spec.isolation.lease.map(|lease| lease.ms()),
        },
        decides: match spec.launch {
            // One program on the first node stands for all: it starts the ranks, and its exit is
            // theirs.
            Launch::Custom | Launch::Mpi => Decides::FirstRank,
            _ => Decides::EveryRank,
        },
        array: array(spec, context.rows),
        any_of: spec.any_of.iter().map(other).collect(),
        stall_kill_ms: spec.stall.kill.map(|kill| kill.ms()),
        shape: main,
    }
}

/// The groups of the gang: the roles, or the one that the top of the spec describes.
fn groups(spec: &JobSpec) -> Vec<Group> {
    if spec.roles.is_empty() {
        let ranks = spec.ranks_per_node;
        return vec![group("main", spec.nodes, ranks, &spec.resources, spec.launch)];
    }
    let role = |role: &gang::Role| {
        let ranks = role.ranks_per_node;
        group(role.name.as_str(), role.nodes, ranks, &role.resources, spec.launch)
    };
    spec.roles.iter().map(role).collect()
}

fn group(
    name: &str,
    nodes: Nodes,
    ranks: RanksPerNode,
    resources: &Resources,
    launch: Launch,
) -> Group {
    let gpus = resources.gpu_request();
    let per_gpu = match gpus.count {
        GpuCount::Whole(count) | GpuCount::Mig(_, count) if launch.is_per_gpu() => count.into(),
        GpuCount::None | GpuCount::Whole(_) | GpuCount::Part(_) | GpuCount::Mig(..) => 1,
    };
    Group {
        name: name.into(),
        nodes_min: nodes.min(),
        nodes_max: nodes.max(),
        ranks_per_node: ranks.fixed().map_or(per_gpu, |ranks| ranks.get()),
        cpus: ask(resources.cpus, |cpus| cpus.0.into()),
        memory: ask(resources.memory, |memory| memory.0),
        disk: resources.disk.unwrap_or(Bytes(0)),
        gpus,
    }
}

fn ask<T: Copy>(asked: Auto<T>, amount: impl Fn(T) -> u64) -> Ask {
    asked.fixed().map_or(Ask::Auto, |asked| Ask::Exactly(amount(asked)))
}

fn place(place: &gang::Place) -> Place {
    let names = |nodes: &[yard_common::spec::text::NodeName]| {
        nodes.iter().map(|name| name.as_str().to_string()).collect()
    };
    let labels = place.labels.iter();
    Place {
        labels: labels.map(|(k, v)| (k.as_str().to_string(), v.as_str().to_string())).collect(),
        exclude_nodes: names(&place.exclude_nodes),
        only_nodes: names(&place.only_nodes),
        within: place.within.as_ref().map(|level| level.as_str().to_string()),
        prefer: place.prefer.as_ref().map(|level| level.as_str().to_string()),
    }
}

fn retry(retry: &spec_retry::Retry) -> RetryPolicy {
    let rule =
        |rule: &spec_retry::RetryRule| RetryRule { on: pattern(rule.cause), limit: rule.retries };
    let count = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    RetryPolicy {
        infra: count(retry.infra.get()),
        user: count(retry.user.get()),
        preempted: match retry.preempted {
            Budget::Unlimited => None,
            Budget::Times(times) => Some(times),
        },
        backoff_min_ms: retry.backoff.min.ms(),
        backoff_max_ms: retry.backoff.max.ms(),
        rules: retry.on.rules().iter().map(rule).collect(),
    }
}

/// A cause with its number stands for that number alone; without, for all of its kind.
fn pattern(cause: RetryCause) -> CausePattern {
    let exactly = |number: u32, make: fn(i32) -> ExitCause| {
        CausePattern::Exactly(make(i32::try_from(number).unwrap_or(i32::MAX)))
    };
    match cause {
        RetryCause::Exited(Some(code)) => exactly(code, ExitCause::Exited),
        RetryCause::Signaled(Some(signal)) => exactly(signal, ExitCause::Signaled),
        RetryCause::GpuFault(Some(xid)) => CausePattern::Exactly(ExitCause::GpuFault(xid)),
        RetryCause::Exited(None) => CausePattern::Kind(ExitCause::Exited(1)),
        RetryCause::Signaled(None) => CausePattern::Kind(ExitCause::Signaled(1)),
        RetryCause::GpuFault(None) => CausePattern::Kind(ExitCause::GpuFault(0)),
        RetryCause::OutOfMemory => CausePattern::Kind(ExitCause::OutOfMemory),
        RetryCause::TimedOut => CausePattern::Kind(ExitCause::TimedOut),
        RetryCause::Stalled => CausePattern::Kind(ExitCause::Stalled),
        RetryCause::NodeLost => CausePattern::Kind(ExitCause::NodeLost),
        RetryCause::DiskFull => CausePattern::Kind(ExitCause::DiskFull),
        RetryCause::StartFailed => CausePattern::Kind(ExitCause::StartFailed(0)),
        RetryCause::PrepareFailed => {
            CausePattern::Kind(ExitCause::PrepareFailed(PrepareStep::Workdir))
        }
        RetryCause::Lost => CausePattern::Kind(ExitCause::Lost(LostReason::Unknown)),
    }
}

fn array(spec: &JobSpec, rows: u32) -> Option<Array> {
    if let Some(array) = &spec.array {
        let shown = match array.indices.as_ref().map_or(&[][..], Indices::ranges) {
            [_] => Vec::new(),
            ranges => ranges.to_vec(),
        };
        return Some(Array {
            tasks: array.indices.as_ref().map_or(TaskRange { first: 0, len: rows }, positions),
            shown,
            running_max: array.max_running.map(|count| count.get()),
            failures_max: array.max_failures.map(|count| count.get()),
        });
    }
    let sweep = spec.sweep.as_ref()?;
    let tasks = TaskRange { first: 0, len: sweep.count() };
    Some(Array { tasks, running_max: None, failures_max: None, shown: Vec::new() })
}

/// The positions of an array: its indices, if they have no gaps.
fn positions(indices: &Indices) -> TaskRange {
    match indices.ranges() {
        [range] => *range,
        _ => TaskRange { first: 0, len: indices.count() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::gpu::GpuRequest;

    fn compiled(json: &str) -> JobPlan {
        let spec = JobSpec::from_json(json).unwrap_or_else(|problems| panic!("{problems}"));
        compile(&spec, &Context { pool: None, wall_ms: 1_000, rows: 7 })
    }

    #[test]
    fn a_launcher_that_stands_for_its_ranks_decides() {
        let decides = |launch: &str| {
            let json = r#"{"name":"a","command":"true","launch":"LAUNCH"}"#;
            compiled(&json.replace("LAUNCH", launch)).decides
        };
        assert_eq!(decides("mpi"), Decides::FirstRank);
        assert_eq!(decides("custom"), Decides::FirstRank);
        assert_eq!(decides("torch"), Decides::EveryRank);
    }

    #[test]
    fn the_common_case_has_the_defaults_of_the_format() {
        let plan = compiled(r#"{"name":"a","command":"true"}"#);
        assert_eq!((&*plan.name, plan.priority, plan.tasks()), ("a", 0, TaskRange::one(0)));
        assert_eq!((plan.grace_ms, plan.prepare_ms), (30_000, 900_000));
        assert_eq!(plan.retry, RetryPolicy::default());
        let group = &plan.shape.groups[0];
        assert_eq!((group.nodes_min, group.nodes_max, group.ranks_per_node), (1, 1, 1));
        assert_eq!((group.cpus, group.memory), (Ask::Auto, Ask::Auto));
        assert_eq!(group.gpus, GpuRequest::NONE);
    }

    #[test]
    fn a_torch_gang_has_a_rank_for_each_gpu() {
        let json = r#"{"name":"a","nodes":4,"resources":{"gpus":"h100:8"},"launch":"torch",
            "command":"true","time_limit":"2d","not_before":"+1s"}"#;
        let plan = compiled(json);
        assert_eq!(plan.shape.groups[0].ranks_per_node, 8);
        assert_eq!(plan.shape.nodes_min(), 4);
        assert_eq!(plan.time_limit_ms, Some(2 * 24 * 3_600_000));
        assert_eq!(plan.not_before_wall_ms, Some(2_000));
    }

    #[test]
    fn retry_rules_and_arrays_are_taken_over() {
        let json = r#"{"name":"a","command":"true","array":"5-9%2",
            "retry":{"user":3,"on":{"exited":{"75":5},"out_of_memory":1}}}"#;
        let plan = compiled(json);
        let array = plan.array.clone().unwrap();
        assert_eq!((array.tasks, array.running_max), (TaskRange { first: 5, len: 5 }, Some(2)));
        assert_eq!(plan.retry.user, 3);
        let exact = CausePattern::Exactly(ExitCause::Exited(75));
        assert!(plan.retry.rules.contains(&RetryRule { on: exact, limit: 5 }));
        let gaps = compiled(r#"{"name":"a","command":"true","array":"0-3,8"}"#);
        assert_eq!(gaps.tasks(), TaskRange { first: 0, len: 5 });
    }
}
