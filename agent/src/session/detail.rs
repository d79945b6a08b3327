//! What the coordinator tells of an assignment, turned into what the launcher takes. The one place
//! where it is checked: whatever comes, the answer is an assignment or an error.

use crate::launch::{Assignment, GangNode, GrantedGpu, ShownTasks, TaskParams};
use thiserror::Error;
use yard_common::ExitCause;
use yard_common::gpu::GPU_PARTS;
use yard_common::id::{AllocationId, JobId, TaskRange};
use yard_common::limits::{
    ARRAY_TASKS_MAX, CHAIN_TASKS_MAX, GANG_NODES_MAX, LABEL_BYTES_MAX, NAME_BYTES_MAX,
    NODE_DEVICES_MAX, RANKS_PER_NODE_MAX, SPEC_BYTES_MAX, SPEC_ENTRIES_MAX,
};
use yard_core::agent::AssignmentId;
use yard_core::command::Inventory;
use yard_proto::convert::ConvertError;
use yard_proto::internal::{self as wire, Detail, DetailTask};

/// Why details are refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum DetailError {
    /// A value past its bound.
    #[error("{field}: {found}, at most {limit}")]
    Bound { field: &'static str, found: u64, limit: u64 },
    /// A value that must be there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// This node's place is not one of the gang.
    #[error("node_rank: {node_rank} of {nodes} nodes is no place of group {group}")]
    Place { node_rank: u32, nodes: usize, group: u8 },
    /// Ranks are numbered in another way.
    #[error("gang[{at}].first_rank: {found}, and {expected} ranks come before it")]
    FirstRank { at: usize, found: u32, expected: u32 },
    /// A device that the machine does not have.
    #[error("gpu_uuids: this machine has no {0:?}")]
    Gpu(String),
    /// A part is not readable.
    #[error("{0}")]
    Part(#[from] ConvertError),
}

type Result<T> = std::result::Result<T, DetailError>;

/// Which assignment details are of.
pub(crate) fn id(detail: &Detail) -> Result<AssignmentId> {
    Ok(AssignmentId { allocation: AllocationId(detail.allocation_id), group: group(detail.group)? })
}

/// The assignment of details; devices have the position that the machine's inventory gives them.
pub(crate) fn assignment(detail: Detail, inventory: &Inventory) -> Result<Assignment> {
    let group = group(detail.group)?;
    within("spec", detail.spec.len(), SPEC_BYTES_MAX)?;
    within("task_count", detail.task_count as usize, ARRAY_TASKS_MAX as usize)?;
    within("tasks", detail.tasks.len(), CHAIN_TASKS_MAX as usize)?;
    let nodes = gang(&detail)?;
    let here = nodes.get(detail.node_rank as usize);
    if here.is_none_or(|node| node.group != group) {
        let node_rank = detail.node_rank;
        return Err(DetailError::Place { node_rank, nodes: nodes.len(), group });
    }
    let amounts = detail.amounts.as_ref().ok_or(DetailError::Missing("amounts"))?;
    Ok(Assignment {
        job: JobId(detail.job_id),
        amounts: amounts.into(),
        last_cause: last_cause(&detail.tasks)?,
        shown: shown(&detail.tasks)?,
        params: params(detail.tasks)?,
        gpus: gpus(detail.gpu_uuids, inventory)?,
        group,
        node_rank: detail.node_rank,
        nodes,
        task_count: detail.task_count,
        time_limit_ms: detail.time_limit_ms,
        gpu_parts: u16::try_from(detail.gpu_parts_each).unwrap_or(GPU_PARTS).min(GPU_PARTS),
        job_name: name("job_name", detail.job_name)?,
        workspace: name("workspace", detail.workspace)?,
        experiment: Some(name("experiment", detail.experiment)?).filter(|name| !name.is_empty()),
        owner: label("owner", detail.owner)?,
        login: Some(label("unix_login", detail.unix_login)?).filter(|login| !login.is_empty()),
        group_name: name("group_name", detail.group_name)?,
        spec: detail.spec,
        // They come with the upload of code, which no release has yet.
        inherited: Vec::new(),
        code_dir: None,
        submit_dir: None,
    })
}

fn within(field: &'static str, found: usize, limit: usize) -> Result<()> {
    if found > limit {
        let (found, limit) = (found as u64, limit as u64);
        return Err(DetailError::Bound { field, found, limit });
    }
    Ok(())
}

fn name(field: &'static str, text: String) -> Result<String> {
    within(field, text.len(), NAME_BYTES_MAX)?;
    Ok(text)
}

fn label(field: &'static str, text: String) -> Result<String> {
    within(field, text.len(), LABEL_BYTES_MAX)?;
    Ok(text)
}

fn group(found: u32) -> Result<u8> {
    let limit = u64::from(u8::MAX);
    u8::try_from(found).map_err(|_| DetailError::Bound {
        field: "group",
        found: found.into(),
        limit,
    })
}

fn gang(detail: &Detail) -> Result<Vec<GangNode>> {
    within("gang", detail.gang.len(), GANG_NODES_MAX as usize)?;
    let mut nodes = Vec::with_capacity(detail.gang.len());
    let mut before = 0u32;
    for (at, node) in detail.gang.iter().enumerate() {
        let wire::GangNode { ranks, first_rank, .. } = *node;
        within("gang.ranks", ranks as usize, RANKS_PER_NODE_MAX as usize)?;
        if first_rank != before {
            return Err(DetailError::FirstRank { at, found: first_rank, expected: before });
        }
        // At most 10,000 nodes of 1,024 ranks.
        before += ranks;
        nodes.push(GangNode {
            group: group(node.group)?,
            name: label("gang.name", node.name.clone())?,
            address: label("gang.address", node.address.clone())?,
            ranks,
        });
    }
    Ok(nodes)
}

fn gpus(uuids: Vec<String>, inventory: &Inventory) -> Result<Vec<GrantedGpu>> {
    within("gpu_uuids", uuids.len(), NODE_DEVICES_MAX)?;
    let mut granted = Vec::with_capacity(uuids.len());
    for uuid in uuids {
        let at = inventory.devices.iter().position(|device| device.uuid == uuid);
        let Some(index) = at.and_then(|at| u32::try_from(at).ok()) else {
            return Err(DetailError::Gpu(uuid.chars().take(LABEL_BYTES_MAX).collect()));
        };
        granted.push(GrantedGpu { uuid, index });
    }
    granted.sort_by_key(|gpu| gpu.index);
    Ok(granted)
}

/// Why the attempts before ended, if they all ended in the same way: ranks are told one cause.
fn last_cause(tasks: &[DetailTask]) -> Result<Option<ExitCause>> {
    let cause = |task: &DetailTask| task.last_cause.as_ref().map(ExitCause::try_from).transpose();
    let mut causes = Vec::new();
    for task in tasks {
        causes.push(cause(task)?);
    }
    causes.dedup();
    Ok(if causes.len() == 1 { causes[0] } else { None })
}

/// The tasks whose index is not their position. Those of a range differ by the same number.
fn shown(tasks: &[DetailTask]) -> Result<Vec<ShownTasks>> {
    let mut all = Vec::new();
    for task in tasks {
        let range = range(task)?;
        if task.shown_first != range.first {
            all.push(ShownTasks { tasks: range, first: task.shown_first });
        }
    }
    Ok(all)
}

fn range(task: &DetailTask) -> Result<TaskRange> {
    let range = yard_proto::convert::range(task.tasks.as_ref())?;
    range.ok_or(DetailError::Missing("tasks.tasks"))
}

fn params(tasks: Vec<DetailTask>) -> Result<Vec<TaskParams>> {
    let mut all = Vec::new();
    for task in tasks {
        if task.parameters.is_empty() {
            continue;
        }
        within("parameters", task.parameters.len(), SPEC_ENTRIES_MAX)?;
        let range = range(&task)?;
        let pairs = task.parameters.into_iter().map(|one| (one.key, one.value)).collect();
        all.push(TaskParams { task: range.first, params: pairs });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::gpu::GpuDevice;
    use yard_common::id::BootId;
    use yard_common::{Amounts, Bytes};
    use yard_proto::v1;

    fn inventory() -> Inventory {
        let device = |uuid: &str| GpuDevice {
            uuid: uuid.into(),
            model: "t4".into(),
            memory: Bytes(1 << 30),
            mig: None,
            healthy: true,
        };
        Inventory {
            boot: BootId::from_u128(1),
            amounts: Amounts::ZERO,
            devices: vec![device("g0"), device("g1"), device("g2")],
            labels: Vec::new(),
            address: "a".into(),
            version: "1".into(),
            conditions: Vec::new(),
            checked: 0,
            setup: None,
        }
    }

    fn node(group: u32, ranks: u32, first_rank: u32) -> wire::GangNode {
        wire::GangNode { group, ranks, first_rank, name: "n".into(), ..Default::default() }
    }

    fn detail() -> Detail {
        let task = |first, kind: v1::ExitKind| DetailTask {
            tasks: Some(v1::TaskRange { first, len: 1 }),
            last_cause: Some(v1::ExitCause { kind: kind.into(), ..Default::default() }),
            parameters: vec![wire::TaskParameter { key: "lr".into(), value: "1".into() }],
            shown_first: first,
        };
        Detail {
            allocation_id: 57,
            group: 1,
            job_id: 8,
            job_name: "j".into(),
            spec: "{}".into(),
            node_rank: 1,
            gang: vec![node(0, 2, 0), node(1, 3, 2)],
            gpu_uuids: vec!["g2".into(), "g1".into()],
            amounts: Some(v1::ResourceAmounts::default()),
            task_count: 9,
            time_limit_ms: Some(7_000),
            tasks: vec![task(3, v1::ExitKind::NodeLost), task(5, v1::ExitKind::NodeLost)],
            ..Default::default()
        }
    }

    #[test]
    fn details_become_an_assignment() {
        let (detail, inventory) = (detail(), inventory());
        assert_eq!(id(&detail).unwrap().to_string(), "57/1");
        let found = assignment(detail, &inventory).unwrap();
        assert_eq!((found.first_rank(), found.world_size()), (2, 5));
        let gpus: Vec<_> = found.gpus.iter().map(|gpu| (gpu.index, &*gpu.uuid)).collect();
        assert_eq!(gpus, [(1, "g1"), (2, "g2")]);
        assert_eq!((found.login, found.experiment), (None, None));
        assert_eq!(found.time_limit_ms, Some(7_000));
        assert_eq!(found.last_cause, Some(ExitCause::NodeLost));
        let params: Vec<_> = found.params.iter().map(|one| one.task).collect();
        assert_eq!(params, [3, 5]);
    }

    #[test]
    fn tasks_of_an_array_with_gaps_keep_their_index() {
        // `array: 0-3,8-9,12` from position 3 on.
        let mut detail = detail();
        let task = |first, len, shown_first| DetailTask {
            tasks: Some(v1::TaskRange { first, len }),
            shown_first,
            ..Default::default()
        };
        detail.tasks = vec![task(3, 1, 3), task(4, 2, 8), task(6, 1, 12)];
        let found = assignment(detail, &inventory()).unwrap();
        let shown: Vec<u32> = (3..7).map(|task| found.shown(task)).collect();
        assert_eq!(shown, [3, 8, 9, 12]);
        assert_eq!(found.shown.len(), 2, "what follows from the position is not stored");
    }

    #[test]
    fn causes_that_differ_are_not_one_cause() {
        let mut detail = detail();
        detail.tasks[1].last_cause = None;
        assert_eq!(assignment(detail, &inventory()).unwrap().last_cause, None);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_field() {
        type Spoil = fn(&mut Detail);
        let cases: [(Spoil, &str); 12] = [
            (|d| d.group = 256, "group: 256, at most 255"),
            (|d| d.spec = "x".repeat(SPEC_BYTES_MAX + 1), "spec: "),
            (|d| d.node_rank = 2, "node_rank: 2 of 2 nodes is no place of group 1"),
            (|d| d.node_rank = 0, "node_rank: 0 of 2 nodes is no place of group 1"),
            (|d| d.node_rank = u32::MAX, "node_rank: "),
            (|d| d.gang[1].first_rank = 1, "gang[1].first_rank: 1, and 2 ranks come before it"),
            (|d| d.gang[0].ranks = u32::MAX, "gang.ranks: "),
            (|d| d.gpu_uuids[0] = "g9".into(), "gpu_uuids: this machine has no \"g9\""),
            (|d| d.amounts = None, "amounts is missing"),
            (|d| d.tasks[0].tasks = None, "tasks.tasks is missing"),
            (|d| d.tasks[0].last_cause = Some(Default::default()), "kind: "),
            (|d| d.job_name = "x".repeat(NAME_BYTES_MAX + 1), "job_name: "),
        ];
        for (spoil, text) in cases {
            let mut detail = detail();
            spoil(&mut detail);
            let error = assignment(detail, &inventory()).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error} is not {text}");
        }
    }
}
