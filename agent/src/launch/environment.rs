//! The environment of a rank: nothing of the agent's own, all that DESIGN promises, then what the
//! job sets.

use super::account::Account;
use super::assignment::Assignment;
use super::checkpoint;
use super::files::TaskFiles;
use super::orders::{Orders, Site};
use std::collections::BTreeMap;
use std::path::Path;
use yard_common::id::{AttemptNumber, TaskIndex};
use yard_common::spec::JobSpec;
use yard_common::spec::gang::{GpuIds, Visible};
use yard_common::spec::run::Launch;

/// The variables of one process.
pub(super) type Variables = BTreeMap<String, String>;

/// What all processes of a task on this node have in common.
pub(super) struct Scene<'a> {
    pub(super) spec: &'a JobSpec,
    pub(super) orders: &'a Orders,
    pub(super) account: &'a Account,
    pub(super) scratch: &'a Path,
    /// Where temporary files go.
    pub(super) tmp: &'a Path,
    pub(super) files: &'a TaskFiles,
    pub(super) task: TaskIndex,
    pub(super) attempt: AttemptNumber,
    /// UTC in seconds, when the time limit passes.
    pub(super) end_s: Option<u64>,
    /// The socket through which the job speaks to its shim.
    pub(super) socket: Option<&'a Path>,
}

/// A variable that marks every process of an assignment; found in `/proc` where there is no
/// cgroup.
pub(crate) fn mark(site: &Site, tag: &str) -> String {
    format!("YARD_ASSIGNMENT={}/{tag}", site.root)
}

impl Scene<'_> {
    fn assignment(&self) -> &Assignment {
        &self.orders.assignment
    }

    /// The variables of one rank, or of a process that is no rank (`None`).
    pub(super) fn variables(&self, local_rank: Option<u32>) -> Variables {
        let mut all = Variables::new();
        self.base(&mut all);
        self.job(&mut all);
        self.gang(&mut all);
        self.gpus(local_rank, &mut all);
        if let Some(local_rank) = local_rank {
            let rank = self.assignment().first_rank().saturating_add(local_rank);
            set(&mut all, "YARD_RANK", rank);
            set(&mut all, "YARD_LOCAL_RANK", local_rank);
        }
        self.launcher(local_rank, &mut all);
        all.extend(self.assignment().inherited.iter().cloned());
        let own = self.spec.env.iter();
        all.extend(own.map(|(name, value)| (name.to_string(), value.to_string())));
        let (name, value) = mark(&self.orders.site, &crate::paths::tag(self.orders.id))
            .split_once('=')
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .unwrap_or_default();
        all.insert(name, value);
        all
    }

    fn base(&self, all: &mut Variables) {
        let account = self.account;
        set(all, "HOME", &account.home);
        set(all, "USER", &account.name);
        set(all, "LOGNAME", &account.name);
        set(all, "SHELL", &account.shell);
        set(all, "LANG", "C.UTF-8");
        set(all, "PATH", &self.orders.site.path);
        set(all, "TMPDIR", self.tmp.display());
        set(all, "PYTHONUNBUFFERED", 1);
        let ranks = self.assignment().node().map_or(1, |node| node.ranks.max(1));
        let cpus = self.assignment().amounts.cpu_milli / 1_000 / u64::from(ranks);
        set(all, "OMP_NUM_THREADS", cpus.max(1));
    }

    fn job(&self, all: &mut Variables) {
        let assignment = self.assignment();
        set(all, "YARD_JOB_ID", assignment.job);
        set(all, "YARD_JOB_NAME", &assignment.job_name);
        set(all, "YARD_WORKSPACE", &assignment.workspace);
        set(all, "YARD_EXPERIMENT", assignment.experiment.as_deref().unwrap_or_default());
        set(all, "YARD_OWNER", &assignment.owner);
        set(all, "YARD_TASK_INDEX", assignment.shown(self.task));
        set(all, "YARD_TASK_COUNT", assignment.task_count);
        set(all, "YARD_ATTEMPT", self.attempt);
        let last = assignment.last_cause.map_or(String::new(), |cause| cause.to_string());
        set(all, "YARD_LAST_CAUSE", last);
        set(all, "YARD_ROLE", &assignment.group_name);
        if let Some(code) = &assignment.code_dir {
            set(all, "YARD_CODE_DIR", code);
        }
        let logs = self.files.directory.display();
        set(all, "YARD_LOG_DIR", &logs);
        set(all, "AZ_BATCHAI_STDOUTERR_DIR", &logs);
        set(all, "YARD_JOB_TEMP", self.scratch.display());
        set(all, "AZ_BATCHAI_JOB_TEMP", self.scratch.display());
        if let Some(parent) = self.scratch.parent() {
            set(all, "AZ_BATCHAI_JOB_TEMP_DIR", parent.display());
        }
        if let Some(checkpoint) = &self.spec.checkpoint {
            set(all, "YARD_CHECKPOINT_DIR", &checkpoint.dir);
            let request = checkpoint::path(self.scratch);
            set(all, "YARD_CHECKPOINT_REQUEST", request.display());
        }
        if let Some(end_s) = self.end_s {
            set(all, "YARD_END_TIME", end_s);
        }
        if let Some(socket) = self.socket {
            set(all, "YARD_SOCKET", socket.display());
        }
        for (name, value) in self.params() {
            all.insert(format!("YARD_PARAM_{}", name.to_ascii_uppercase()), value);
        }
    }

    /// The parameters of the task: of the sweep, or as the submitter counted them.
    fn params(&self) -> Vec<(String, String)> {
        if let Some(sweep) = &self.spec.sweep {
            let task = sweep.task(self.task).into_iter();
            return task.map(|(name, value)| (name.to_string(), value)).collect();
        }
        let of_task = self.assignment().params.iter().find(|params| params.task == self.task);
        of_task.map(|params| params.params.clone()).unwrap_or_default()
    }

    fn gang(&self, all: &mut Variables) {
        let assignment = self.assignment();
        let nodes = &assignment.nodes;
        set(all, "YARD_WORLD_SIZE", assignment.world_size());
        set(all, "YARD_LOCAL_WORLD_SIZE", assignment.node().map_or(0, |node| node.ranks));
        set(all, "YARD_NODE_RANK", assignment.node_rank);
        set(all, "YARD_NODE_NAME", &self.orders.site.node);
        set(all, "YARD_NUM_NODES", nodes.len());
        let addresses: Vec<&str> = nodes.iter().map(|node| node.address.as_str()).collect();
        set(all, "YARD_HOSTS", addresses.join(","));
        set(all, "YARD_MASTER_ADDR", addresses.first().copied().unwrap_or_default());
        set(all, "YARD_HOSTFILE", self.files.hostfile.display());
        set(all, "AZ_BATCHAI_MPI_HOST_FILE", self.files.hostfile.display());
        if nodes.len() > 1 {
            set(all, "AZ_BATCH_HOST_LIST", addresses.join(","));
        }
    }

    fn gpus(&self, local_rank: Option<u32>, all: &mut Variables) {
        let assignment = self.assignment();
        let gpus = &self.spec.resources.gpus;
        let mut granted = assignment.gpus.as_slice();
        set(all, "YARD_NUM_GPUS", granted.len());
        set(all, "AZ_BATCHAI_NUM_GPUS", granted.len());
        set(all, "AZ_BATCHAI_NUM_GPUS_PER_NODE", granted.len());
        if let (Visible::Rank, Some(local_rank)) = (gpus.visible, local_rank) {
            let ranks = assignment.node().map_or(1, |node| node.ranks.max(1)) as usize;
            let each = granted.len() / ranks;
            let first = each * local_rank as usize;
            granted = granted.get(first..first + each).unwrap_or_default();
        }
        let names: Vec<String> = granted
            .iter()
            .map(|gpu| match gpus.ids {
                GpuIds::Uuid => gpu.uuid.clone(),
                GpuIds::Index => gpu.index.to_string(),
            })
            .collect();
        set(all, "CUDA_VISIBLE_DEVICES", names.join(","));
    }

    fn launcher(&self, local_rank: Option<u32>, all: &mut Variables) {
        let assignment = self.assignment();
        if self.spec.launch != Launch::Torch {
            return;
        }
        let copy = |all: &mut Variables, from: &str, to: &str| {
            if let Some(value) = all.get(from).cloned() {
                all.insert(to.to_string(), value);
            }
        };
        for (from, to) in [
            ("YARD_MASTER_ADDR", "MASTER_ADDR"),
            ("YARD_RANK", "RANK"),
            ("YARD_LOCAL_RANK", "LOCAL_RANK"),
            ("YARD_WORLD_SIZE", "WORLD_SIZE"),
            ("YARD_LOCAL_WORLD_SIZE", "LOCAL_WORLD_SIZE"),
            ("YARD_NODE_RANK", "NODE_RANK"),
            ("YARD_NODE_RANK", "GROUP_RANK"),
        ] {
            copy(all, from, to);
        }
        set(all, "MASTER_PORT", self.port());
        if local_rank.is_some() {
            copy(all, "YARD_RANK", "AZ_BATCHAI_TASK_INDEX");
        }
        let address = assignment.nodes.first().map_or("", |node| node.address.as_str());
        let method = format!("tcp://{address}:{}", self.port());
        set(all, "AZ_BATCHAI_PYTORCH_INIT_METHOD", method);
        if let Some(backend) = self.spec.launch_options.backend {
            set(all, "AZ_BATCHAI_PYTORCH_BACKEND", backend);
        }
        if let Some(interface) = &self.spec.launch_options.interface {
            set(all, "NCCL_SOCKET_IFNAME", interface);
            set(all, "GLOO_SOCKET_IFNAME", interface);
        }
    }

    /// The port of the first rank. Every node must come to the same without asking: it follows
    /// from the allocation, below the range that the kernel takes ports from by itself.
    fn port(&self) -> u32 {
        let of_job = self.spec.launch_options.port.map(|port| port.get());
        of_job.unwrap_or(20_000 + (self.orders.id.allocation.0 % 12_000) as u32)
    }
}

fn set(all: &mut Variables, name: &str, value: impl ToString) {
    all.insert(name.to_string(), value.to_string());
}
