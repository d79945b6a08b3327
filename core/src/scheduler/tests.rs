//! The small parts of the planner, each against the plain way to say it.

use super::candidates::{Candidates, Need};
use super::chains::{chain_len, deal};
use super::gpus::{Offer, places_in};
use super::stock::{Free, Kind, Seats};
use crate::command::Inventory;
use crate::command::Stamp;
use crate::fit::Demand;
use crate::job::{After, Decides, Isolation, IsolationClass, JobPlan, Place, Shape};
use crate::retry::{RetryPolicy, Tries};
use crate::state::{Job, Node, Phase, TaskStatus, Tasks, Waits};
use crate::table::{Ordered, Shared};
use proptest::collection::btree_set;
use proptest::prelude::*;
use yard_common::gpu::{GPU_PARTS, GpuCount, GpuDevice, GpuGrant, GpuRequest};
use yard_common::id::*;
use yard_common::state::{JobState, NodeState};
use yard_common::{Amounts, Bytes};

fn kind(gpus: usize, free: impl IntoIterator<Item = Free>) -> Kind {
    let mut open = Ordered::default();
    for free in free {
        open.insert(free, ());
    }
    Kind {
        pool: PoolId(0),
        drain_ms: None,
        gpus: vec![device("h100"); gpus],
        members: Ordered::default(),
        open,
        least: Amounts::ZERO,
    }
}

fn device(model: &str) -> GpuDevice {
    let model = model.to_string();
    GpuDevice { uuid: String::new(), model, memory: Bytes(80 << 30), mig: None, healthy: true }
}

fn node(models: &[&str], held: &[u16]) -> Node {
    let amounts = Amounts { cpu_milli: 8_000, memory_bytes: 64 << 30, disk_bytes: 0 };
    let facts = Inventory {
        boot: BootId::from_u128(1),
        amounts,
        devices: models.iter().map(|model| device(model)).collect(),
        labels: Vec::new(),
        address: String::new(),
        version: String::new(),
        conditions: Vec::new(),
        checked: 0,
        setup: None,
    };
    Node {
        name: "a".into(),
        pool: PoolId(0),
        facts: facts.into(),
        state: NodeState::Up,
        lease: LeaseId(1),
        generation: Generation(1),
        reported: Sequence(0),
        used: Amounts::ZERO,
        device_parts: Shared::from(held.to_vec()),
        allocations: Ordered::default(),
        leftovers: Ordered::default(),
        drain: None,
        cordoned: false,
        maintenance_until_ms: 0,
        back: false,
        resync: false,
        failures: Vec::new(),
        held_back: Vec::new(),
        cordon: None,
        cordons: 0,
        check: 0,
        unwell: false,
        setup_due: false,
    }
}

fn grant(node: &Node, count: GpuCount, model: Option<&str>) -> Option<GpuGrant> {
    let gpus = GpuRequest { count, ..GpuRequest::NONE };
    let demand = Demand { amounts: Amounts::ZERO, gpus: &gpus, exclusive: false };
    Offer { node, room: None }.take(&demand, model)
}

#[test]
fn whole_gpus_are_free_ones_of_one_model() {
    let node = node(&["a100", "h100", "h100", "h100"], &[0, 0, 1, 0]);
    let two = grant(&node, GpuCount::Whole(2), Some("h100"));
    assert_eq!(two, Some(GpuGrant::whole([1, 3].into_iter().collect())));
    assert_eq!(grant(&node, GpuCount::Whole(3), Some("h100")), None);
    assert_eq!(grant(&node, GpuCount::Whole(2), Some("a100")), None);
}

#[test]
fn a_part_goes_to_the_fullest_gpu_with_room() {
    let node = node(&["h100"; 4], &[0, 5_000, 9_000, GPU_PARTS]);
    let part = |parts| grant(&node, GpuCount::Part(parts), Some("h100"));
    assert_eq!(part(1_000), Some(GpuGrant::part(2, 1_000)));
    assert_eq!(part(1_001), Some(GpuGrant::part(1, 1_001)));
    assert_eq!(part(5_001), Some(GpuGrant::part(0, 5_001)));
}

#[test]
fn chains_are_half_of_an_even_share() {
    for (queued, places, max, len) in [
        (1_000, 10, 256, 50),
        (1_000_000, 10, 256, 256),
        (19, 10, 256, 1),
        (40, 10, 256, 2),
        (5, 10, 256, 1),
        (1_000, 10, 1, 1),
    ] {
        assert_eq!(chain_len(queued, places, max), len, "{queued} over {places}");
    }
}

fn job(tasks: Tasks) -> Job {
    let plan = JobPlan {
        name: "job".into(),
        shape: Shape { pool: None, exclusive: false, groups: Vec::new(), place: Place::default() },
        priority: 0,
        time_limit_ms: None,
        not_before_wall_ms: None,
        after: After::default(),
        hold: false,
        preemptible: None,
        retry: RetryPolicy::default(),
        grace_ms: 0,
        prepare_ms: 0,
        isolation: Isolation { class: IsolationClass::Fenced, lease_ms: None },
        decides: Decides::EveryRank,
        array: None,
        any_of: Vec::new(),
        stall_kill_ms: None,
    };
    Job {
        owner: PrincipalId(0),
        workspace: WorkspaceId(0),
        queue: QueueId(0),
        experiment: None,
        plan: plan.into(),
        shape: ShapeId(0),
        spec: Shared::from(Box::from("")),
        request: RequestId::from_u128(1),
        revision: 0,
        submitted: Stamp::default(),
        ended: None,
        tasks,
        allocations: 0,
        waits: Waits::default(),
        state: JobState::Queued,
        cancels: Vec::new(),
    }
}

#[test]
fn tasks_that_were_tried_before_run_alone() {
    let mut tasks = Tasks::new(TaskRange::between(0, 12), Phase::Queued);
    let fresh = *tasks.get(0).unwrap();
    let tried = Tries { user: 1, ..Tries::default() };
    tasks.set(TaskRange::between(4, 6), TaskStatus { tries: tried, ..fresh });
    let running = TaskStatus { phase: Phase::Preparing(AllocationId(1)), ..fresh };
    tasks.set(TaskRange::between(8, 9), running);
    let job = job(tasks);
    let chains = deal(&job, [3, 3, 3, 3, 3, 3, 3]);
    let shown: Vec<String> = chains
        .iter()
        .map(|chain| chain.iter().map(TaskRange::to_string).collect::<Vec<_>>().join(","))
        .collect();
    assert_eq!(shown, ["0-2", "3", "4", "5", "6-7,9", "10-11"]);
}

fn any_free() -> impl Strategy<Value = Free> {
    (0..5u64, 0..6u64, 0..40u32).prop_map(|(gpus, cpus, node)| Free {
        gpu_parts: gpus * 5_000,
        cpu_milli: cpus * 1_000,
        node: NodeId(node),
    })
}

proptest! {
    /// A seat says as much as the record of its node, for shares without GPUs.
    #[test]
    fn places_are_the_same_by_seat_and_by_record(
        used in (0..=8_000u64, 0..=64u64),
        need in (0..=9_000u64, 0..=65u64),
    ) {
        let mut node = node(&["h100"], &[0]);
        node.used = Amounts { cpu_milli: used.0, memory_bytes: used.1 << 30, disk_bytes: 0 };
        let amounts = Amounts { cpu_milli: need.0, memory_bytes: need.1 << 30, disk_bytes: 0 };
        let demand = Demand { amounts, gpus: &GpuRequest::NONE, exclusive: false };
        let mut seats = Seats::default();
        seats.reseat(NodeId(0), Some(&node), 0);
        let seat = seats.get(NodeId(0)).unwrap();
        let by_record = Offer { node: &node, room: None }.places(&demand, None);
        prop_assert_eq!(places_in(&seat.left, 0, &demand), by_record);
    }

    /// The oracle: filter and sort.
    #[test]
    fn candidates_come_best_fit_first(
        with in btree_set(any_free(), 0..40),
        without in btree_set(any_free(), 0..40),
        gpus in 0..4u64,
        cpus in 0..6u64,
    ) {
        let without = without.into_iter().map(|free| Free { gpu_parts: 0, ..free });
        let kinds = [kind(2, with), kind(0, without)];
        let need = Need { gpu_parts: gpus * 5_000, cpu_milli: cpus * 1_000 };
        let found: Vec<NodeId> = Candidates::new(&kinds, [0, 1], need).collect();
        let mut expected: Vec<(bool, Free)> = Vec::new();
        for (at, kind) in kinds.iter().enumerate() {
            let fits = kind.open.iter().map(|(free, ())| *free).filter(|free| {
                free.gpu_parts >= need.gpu_parts && free.cpu_milli >= need.cpu_milli
            });
            expected.extend(fits.map(|free| (gpus == 0 && at == 0, free)));
        }
        expected.sort_unstable();
        let expected: Vec<NodeId> = expected.into_iter().map(|(_, free)| free.node).collect();
        prop_assert_eq!(found, expected);
    }
}
