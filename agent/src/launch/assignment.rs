//! What the coordinator tells an agent of an assignment beside the desired set.

use minicbor::{Decode, Encode};
use yard_common::id::{JobId, TaskIndex, TaskRange};
use yard_common::{Amounts, ExitCause};

/// Everything about one assignment that the desired set does not say.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Assignment {
    /// The job.
    #[n(0)]
    pub job: JobId,
    /// Its name.
    #[n(1)]
    pub job_name: String,
    /// Its workspace.
    #[n(2)]
    pub workspace: String,
    /// Its experiment.
    #[n(3)]
    pub experiment: Option<String>,
    /// Its owner's name.
    #[n(4)]
    pub owner: String,
    /// Its owner's unix account; none: the agent's own, if the agent is not root.
    #[n(5)]
    pub login: Option<String>,
    /// The spec in its canonical form.
    #[n(6)]
    pub spec: String,
    /// Tasks of the job.
    #[n(7)]
    pub task_count: u32,
    /// The group that runs here.
    #[n(8)]
    pub group: u8,
    /// The group's name.
    #[n(9)]
    pub group_name: String,
    /// Position of this node in `nodes`.
    #[n(10)]
    pub node_rank: u32,
    /// Every node of the gang in the order of its ranks.
    #[n(11)]
    pub nodes: Vec<GangNode>,
    /// GPUs that are granted here, in the order of the node's inventory.
    #[n(12)]
    pub gpus: Vec<GrantedGpu>,
    /// What is granted here.
    #[n(13)]
    pub amounts: Amounts,
    /// Parameters of tasks of the chain, where they do not follow from the spec.
    #[n(14)]
    pub params: Vec<TaskParams>,
    /// Variables of the submitter's shell that the job passes on.
    #[n(15)]
    pub inherited: Vec<(String, String)>,
    /// The directory on the node that holds the unpacked code.
    #[n(16)]
    pub code_dir: Option<String>,
    /// The directory of submission.
    #[n(17)]
    pub submit_dir: Option<String>,
    /// How the task's last attempt ended.
    #[n(18)]
    pub last_cause: Option<ExitCause>,
    /// Tasks of the chain whose index, as people see it, is not their position within the job.
    #[n(19)]
    #[cbor(default)]
    pub shown: Vec<ShownTasks>,
    /// How long an attempt may run, by the job or its queue; none: as long as it likes.
    #[n(20)]
    pub time_limit_ms: Option<u64>,
    /// Ten-thousandths that it may use of each of its GPUs.
    #[n(21)]
    #[cbor(default)]
    pub gpu_parts: u16,
}

/// One node of a gang.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GangNode {
    /// Its group.
    #[n(0)]
    pub group: u8,
    /// Its name.
    #[n(1)]
    pub name: String,
    /// Where the others reach it.
    #[n(2)]
    pub address: String,
    /// Ranks on it.
    #[n(3)]
    pub ranks: u32,
}

/// A GPU that an assignment may use.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GrantedGpu {
    /// NVML's UUID.
    #[n(0)]
    pub uuid: String,
    /// Position in the node's inventory.
    #[n(1)]
    pub index: u32,
}

/// Parameters of one task.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TaskParams {
    /// The task.
    #[n(0)]
    pub task: TaskIndex,
    /// Name and value.
    #[n(1)]
    pub params: Vec<(String, String)>,
}

/// Neighbouring tasks of an array with gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ShownTasks {
    /// Their positions within the job.
    #[n(0)]
    pub tasks: TaskRange,
    /// The index of the first as people see it; the others follow on.
    #[n(1)]
    pub first: TaskIndex,
}

impl Assignment {
    /// The index of a task as people see it: `array: 5,10` has the tasks 5 and 10, at the
    /// positions 0 and 1.
    #[must_use]
    pub fn shown(&self, task: TaskIndex) -> TaskIndex {
        let shown = self.shown.iter().find(|shown| shown.tasks.contains(task));
        shown.map_or(task, |shown| shown.first.saturating_add(task - shown.tasks.first))
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> Option<&GangNode> {
        self.nodes.get(self.node_rank as usize).filter(|node| node.group == self.group)
    }

    /// The first rank on this node.
    #[must_use]
    pub fn first_rank(&self) -> u32 {
        let before = self.nodes.iter().take(self.node_rank as usize);
        before.fold(0, |sum: u32, node| sum.saturating_add(node.ranks))
    }

    /// Ranks of the whole gang.
    #[must_use]
    pub fn world_size(&self) -> u32 {
        self.nodes.iter().fold(0, |sum: u32, node| sum.saturating_add(node.ranks))
    }
}
