//! What has two forms keeps its value through both.

#![allow(missing_docs, clippy::unwrap_used)]

use proptest::prelude::*;
use yard_common::cause::{Fault, LostReason, PrepareStep};
use yard_common::condition::{Bars, ConditionKind};
use yard_common::id::{ClusterId, RequestId, TaskRange, TokenId};
use yard_common::state::{AssignmentState, AttemptState, JobState, NodeState, TaskState};
use yard_common::{Amounts, ExitCause, PendingReason};
use yard_core::command::{HolderLimit, PoolChange, Role, SetupStage, Stamp};
use yard_core::fit::Unfit;
use yard_core::job::IsolationClass;
use yard_proto::convert::{self, ConvertError, TaskIndices, known, known_all};
use yard_proto::v1;

/// Every number of the wire that has a value comes back as itself, through the domain.
macro_rules! same_numbers {
    ($($name:ident: $count:literal),+ $(,)?) => {$(
        let mut found = 0;
        for raw in 1..100 {
            let Ok(value) = known::<v1::$name, $name>("field", raw) else { continue };
            assert_eq!(v1::$name::from(value) as i32, raw, stringify!($name));
            found += 1;
        }
        assert_eq!(found, $count, stringify!($name));
        let unknown = known::<v1::$name, $name>("field", 0);
        assert_eq!(unknown, Err(ConvertError::Unknown { field: "field", found: 0 }));
        assert!(known::<v1::$name, $name>("field", 4_711).is_err());
    )+};
}

#[test]
fn enums_have_the_same_values_on_both_sides() {
    same_numbers!(
        JobState: 7,
        TaskState: 9,
        AttemptState: 4,
        AssignmentState: 6,
        NodeState: 4,
        PendingReason: 15,
        PrepareStep: 14,
        LostReason: 5,
        Fault: 5,
        IsolationClass: 3,
        Role: 4,
        Unfit: 22,
        ConditionKind: 13,
        Bars: 3,
        SetupStage: 4,
    );
    let states = known_all::<v1::JobState, JobState>("states", &[1, 6]).unwrap();
    assert_eq!(states, [JobState::Queued, JobState::Failed]);
    assert!(known_all::<v1::JobState, JobState>("states", &[1, 99]).is_err());
}

fn any_cause() -> impl Strategy<Value = ExitCause> {
    prop_oneof![
        any::<i32>().prop_map(ExitCause::Exited),
        any::<i32>().prop_map(ExitCause::Signaled),
        any::<u32>().prop_map(ExitCause::GpuFault),
        any::<i32>().prop_map(ExitCause::StartFailed),
        (1..=11).prop_map(|raw| {
            ExitCause::PrepareFailed(known::<v1::PrepareStep, _>("step", raw).unwrap())
        }),
        (1..=5)
            .prop_map(|raw| { ExitCause::Lost(known::<v1::LostReason, _>("lost", raw).unwrap()) }),
        prop::sample::select(vec![
            ExitCause::OutOfMemory,
            ExitCause::TimedOut,
            ExitCause::Preempted,
            ExitCause::Drained,
            ExitCause::Suspended,
            ExitCause::PlannedEvent,
            ExitCause::Resized,
            ExitCause::Requeued,
            ExitCause::Cancelled,
            ExitCause::DependencyFailed,
            ExitCause::NodeLost,
            ExitCause::DiskFull,
            ExitCause::Stalled,
            ExitCause::StoppedWithGang,
        ]),
    ]
}

/// Indices with gaps, and the plain list of them.
fn any_indices() -> impl Strategy<Value = (String, Vec<u32>)> {
    prop::collection::btree_set(0u32..40, 1..30).prop_map(|indices| {
        let texts: Vec<String> = indices.iter().map(u32::to_string).collect();
        (texts.join(","), indices.into_iter().collect())
    })
}

proptest! {
    #[test]
    fn causes(cause in any_cause()) {
        let message = v1::ExitCause::from(cause);
        prop_assert_eq!(ExitCause::try_from(&message), Ok(cause));
        let fault = v1::Fault::from(cause.fault());
        prop_assert_eq!(message.fault(), fault);
    }

    #[test]
    fn any_message_is_a_cause_or_refused(
        kind in -2i32..30, number in any::<i64>(), step in -2i32..20, lost in -2i32..10,
    ) {
        let message = v1::ExitCause { kind, number, step, lost, fault: 0 };
        if let Ok(cause) = ExitCause::try_from(&message) {
            prop_assert_eq!(v1::ExitCause::from(cause).kind, kind);
        }
    }

    #[test]
    fn ids(value in any::<u128>()) {
        let request = RequestId::from_u128(value);
        prop_assert_eq!(convert::request_id(&convert::request_id_bytes(request)), Ok(request));
        let token = TokenId::from_u128(value);
        prop_assert_eq!(convert::token_id(&convert::token_id_bytes(token)), Ok(token));
        let cluster = ClusterId::from_u128(value);
        prop_assert_eq!(convert::cluster_id(&convert::cluster_id_bytes(cluster)), Ok(cluster));
    }

    #[test]
    fn amounts_and_limits(
        parts in any::<[u64; 3]>(), gpus in any::<Option<u64>>(), tasks in any::<Option<u64>>(),
    ) {
        let [cpu_milli, memory_bytes, disk_bytes] = parts;
        let amounts = Amounts { cpu_milli, memory_bytes, disk_bytes };
        prop_assert_eq!(Amounts::from(&v1::ResourceAmounts::from(&amounts)), amounts);
        let limit = HolderLimit { amounts, gpu_parts: gpus, tasks, jobs: Some(1) };
        prop_assert_eq!(HolderLimit::from(&v1::HolderLimit::from(&limit)), limit);
        let stamp = Stamp { cluster_ms: parts[0], wall_ms: parts[1] };
        prop_assert_eq!(Stamp::from(v1::Stamp::from(stamp)), stamp);
        let set = PoolChange { description: "x".into(), lease_ms: parts[2] };
        prop_assert_eq!(PoolChange::from(&v1::PoolSettings::from(&set)), set);
    }

    /// The oracle is the plain list of indices: position by position.
    #[test]
    fn indices_of_people((text, list) in any_indices(), first in 0u32..45, len in 1u32..45) {
        let yaml = format!("command: 'true'\narray: '{text}'\n");
        let spec = yard_common::spec::JobSpec::from_yaml(&yaml).unwrap();
        // Without a gap a task has its index for a position, as the compiled job counts them.
        let context = yard_core::job::Context { pool: None, wall_ms: 0, rows: 0 };
        let plan = yard_core::job::compile(&spec, &context);
        let (indices, base) = (TaskIndices::of(&plan), plan.tasks().first);
        for (position, index) in (base..).zip(&list) {
            prop_assert_eq!(indices.shown_one(position), *index);
        }
        let wanted = TaskRange { first, len };
        let meant = (base..).zip(&list).filter(|(_, index)| wanted.contains(**index));
        let meant: Vec<u32> = meant.map(|(position, _)| position).collect();
        let has_gaps = !list.iter().copied().eq(base..base + list.len() as u32);
        if has_gaps {
            let found = indices.positions(wanted);
            let found: Vec<u32> = found.into_iter().flat_map(TaskRange::indices).collect();
            prop_assert_eq!(found, meant);
            let all = TaskRange { first: 0, len: list.len() as u32 };
            let shown = indices.shown(all).into_iter().flat_map(TaskRange::indices);
            prop_assert_eq!(shown.collect::<Vec<_>>(), list);
        }
    }
}

#[test]
fn an_id_of_another_length_is_refused_with_the_right_one() {
    let error = convert::request_id(&[1; 15]).unwrap_err();
    assert_eq!(error.to_string(), "request_id: 15 bytes; give 16");
}

#[test]
fn a_range_is_not_empty_and_does_not_wrap() {
    let read = |first, len| convert::range(Some(&v1::TaskRange { first, len }));
    assert_eq!(read(3, 2), Ok(Some(TaskRange { first: 3, len: 2 })));
    assert_eq!(convert::range(None), Ok(None));
    assert!(read(3, 0).is_err());
    assert!(read(u32::MAX, 2).is_err());
}

#[test]
fn a_time_of_the_cluster_is_shown_on_the_wall() {
    let now = v1::Stamp { cluster_ms: 5_000, wall_ms: 1_000_000 };
    assert_eq!(convert::wall_ms(4_000, &now), 999_000);
    assert_eq!(convert::wall_ms(6_500, &now), 1_001_500);
    assert_eq!(convert::wall_ms(0, &v1::Stamp { cluster_ms: 9, wall_ms: 3 }), 0);
}
