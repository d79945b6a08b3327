//! What clients ask for: jobs of every kind, and changes of them.

use crate::clock::{MS, SECOND};
use crate::rng::Rng;
use crate::truth::Behaviour;
use yard_common::Bytes;
use yard_common::gpu::{GpuCount, GpuRequest};
use yard_common::id::{JobId, QueueId, TaskRange, WorkspaceId};
use yard_core::command::{Adjust, Command, DrainPlan, JobCommand, NodeCommand, Submit};
use yard_core::job::{
    After, Array, Ask, Decides, Group, Isolation, IsolationClass, JobPlan, Place, Shape,
};
use yard_core::retry::RetryPolicy;

/// Draws commands.
#[derive(Debug)]
pub struct Workload {
    rng: Rng,
    /// Shares of the isolation classes in a thousand: strict, tolerant.
    strict: u64,
    tolerant: u64,
    /// Shortest and longest run of a task, of the jobs whose tasks run longest.
    run_ms: (u64, u64),
}

impl Workload {
    /// The workload of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Workload {
        let mut rng = Rng::new(seed, 5);
        let strict = rng.pick(&[0, 200, 400, 900]);
        let tolerant = rng.pick(&[0, 30, 60]);
        let run_ms = (20, rng.pick(&[1_500, 4_000, 12_000]));
        Workload { rng, strict, tolerant, run_ms }
    }

    /// Strict tasks that run longer than a lease.
    #[must_use]
    pub fn about_leases(self) -> Workload {
        Workload { strict: 900, run_ms: (6_000, 15_000), ..self }
    }

    /// A new job. `known`: jobs that it may wait for, with the lengths of their arrays.
    pub fn submit(
        &mut self,
        nth: u64,
        wall_ms: u64,
        known: &[(JobId, Option<u32>)],
    ) -> (Submit, Behaviour) {
        let mut plan = self.single();
        let kind = self.rng.below(100);
        if kind < 35 {
            let len = self.rng.magnitude(2, 24) as u32;
            let failures_max = self.rng.chance(150).then(|| self.rng.below(3) as u32);
            let running_max = self.rng.chance(300).then(|| self.rng.between(1, 4) as u32);
            let tasks = TaskRange { first: self.rng.below(3) as u32, len };
            plan.array = Some(Array { tasks, running_max, failures_max, shown: Vec::new() });
        } else if kind < 60 {
            self.make_gang(&mut plan);
        }
        self.ask_gpus(&mut plan);
        self.wait_for(&mut plan, known);
        if self.rng.chance(60) {
            plan.hold = true;
        }
        if self.rng.chance(60) {
            plan.not_before_wall_ms = Some(wall_ms + self.rng.between(1, 15_000));
        }
        if self.rng.chance(200) {
            plan.time_limit_ms = Some(self.rng.magnitude(800, 20_000));
        }
        if self.rng.chance(200) {
            plan.stall_kill_ms = Some(self.rng.magnitude(200, 5_000));
        }
        plan.priority = self.rng.between(0, 6) as i32 - 3;
        let fails = self.rng.pick(&[0, 0, 50, 400, 1_000]);
        let permille = (fails, self.rng.pick(&[0, 0, 30]), self.rng.pick(&[0, 10, 100]));
        let (shortest, most) = self.run_ms;
        let longest = self.rng.magnitude(200, most).max(shortest);
        let behaviour = Behaviour { run_ms: (shortest, longest), permille };
        let queue = QueueId(self.rng.pick(&[0, 0, 0, 1, 2]));
        let experiment = self.rng.chance(200).then(|| format!("exp-{}", self.rng.below(4)));
        let spec = format!("{{\"nth\": {nth}}}").into();
        (Submit { workspace: WorkspaceId(0), queue, experiment, plan, spec }, behaviour)
    }

    fn single(&mut self) -> JobPlan {
        let roll = self.rng.below(1_000);
        let class = if roll < self.strict {
            IsolationClass::Strict
        } else if roll < self.strict + self.tolerant {
            IsolationClass::Tolerant
        } else {
            IsolationClass::Fenced
        };
        let retry = RetryPolicy {
            infra: 40,
            user: self.rng.pick(&[0, 0, 1, 2]),
            preempted: None,
            backoff_min_ms: 500,
            backoff_max_ms: 4_000,
            rules: Vec::new(),
        };
        let cpus = self.rng.between(1, 3);
        JobPlan {
            name: "job".into(),
            shape: Shape {
                pool: None,
                exclusive: false,
                groups: vec![group("main", 1, cpus)],
                place: Place::default(),
            },
            priority: 0,
            time_limit_ms: None,
            not_before_wall_ms: None,
            after: After::default(),
            hold: false,
            preemptible: None,
            retry,
            grace_ms: self.rng.pick(&[0, 1_000, 3_000]),
            prepare_ms: 30_000,
            isolation: Isolation { class, lease_ms: None },
            decides: Decides::EveryRank,
            array: None,
            any_of: Vec::new(),
            stall_kill_ms: None,
        }
    }

    fn make_gang(&mut self, plan: &mut JobPlan) {
        let cpus = self.rng.between(1, 4);
        let nodes = self.rng.between(2, 4) as u32;
        plan.shape.groups = vec![group("main", nodes, cpus)];
        if self.rng.chance(300) {
            plan.shape.groups.push(group("side", 1, 1));
            plan.decides = self.rng.pick(&[Decides::EveryRank, Decides::FirstRank]);
        }
        plan.shape.exclusive = plan.shape.groups.len() == 1 && self.rng.chance(150);
    }

    fn ask_gpus(&mut self, plan: &mut JobPlan) {
        let count = match self.rng.below(100) {
            0..35 => GpuCount::None,
            35..75 => GpuCount::Whole(self.rng.between(1, 3) as u16),
            _ => GpuCount::Part(self.rng.pick(&[2_500, 5_000, 7_000])),
        };
        let models = if self.rng.chance(200) { vec!["h100".to_string()] } else { Vec::new() };
        if count != GpuCount::None {
            let groups = plan.shape.groups.len() as u64;
            let at = self.rng.below(groups) as usize;
            plan.shape.groups[at].gpus = GpuRequest { count, models, memory_min: Bytes(0) };
        }
    }

    fn wait_for(&mut self, plan: &mut JobPlan, known: &[(JobId, Option<u32>)]) {
        if known.is_empty() || !self.rng.chance(180) {
            return;
        }
        let from = known.len().saturating_sub(12) as u64;
        let (job, len) = known[self.rng.between(from, known.len() as u64 - 1) as usize];
        match self.rng.below(4) {
            0 => plan.after.ok.push(job),
            1 => plan.after.any.push(job),
            2 => plan.after.failed.push(job),
            _ => {
                // Index by index; arrays begin at 0 to 2, so some are refused.
                if let (Some(array), Some(len)) = (&mut plan.array, len) {
                    array.tasks.len = len;
                    plan.after.each.push(job);
                }
            }
        }
    }

    /// A change of a job.
    pub fn change(
        &mut self,
        job: JobId,
        len: Option<u32>,
        again: (Submit, Behaviour),
    ) -> JobCommand {
        let reason = String::from("because");
        let range = len.filter(|_| self.rng.chance(500)).map(|len| {
            let first = self.rng.below(u64::from(len)) as u32;
            TaskRange { first, len: 1 + self.rng.below(u64::from(len - first)) as u32 }
        });
        match self.rng.below(100) {
            0..30 => JobCommand::Cancel { job, tasks: range, reason },
            30..45 => JobCommand::Requeue { job, tasks: range },
            45..55 => JobCommand::Hold { job, reason },
            55..65 => JobCommand::Release(job),
            65..73 => JobCommand::Suspend { job, reason },
            73..83 => JobCommand::Resume(job),
            83..88 => JobCommand::Replace { job, revision: 0, new: Box::new(again.0) },
            _ => JobCommand::Adjust { job, change: self.adjust(len.is_some()) },
        }
    }

    fn adjust(&mut self, array: bool) -> Adjust {
        Adjust {
            priority: self.rng.chance(500).then(|| self.rng.between(0, 10) as i32 - 5),
            time_limit_ms: self.rng.chance(300).then(|| self.rng.magnitude(500, 30_000)),
            running_max: (array && self.rng.chance(400)).then(|| self.rng.below(5) as u32),
        }
    }

    /// What an operator does to a node.
    pub fn operate(&mut self, node: yard_common::id::NodeId) -> Command {
        let reason = String::from("disk");
        let deadline_ms = self.rng.pick(&[None, Some(500), Some(8_000)]);
        let in_ms = self.rng.pick(&[0, 0, 4_000]);
        Command::Node(match self.rng.below(12) {
            0..3 => NodeCommand::Drain { node, plan: DrainPlan { in_ms, deadline_ms, reason } },
            3..9 => NodeCommand::Undrain(node),
            9 => NodeCommand::Back(node),
            _ => NodeCommand::Maintenance { node, for_ms: self.rng.pick(&[0, 2_000, 6_000]) },
        })
    }

    /// Time between two wishes of a client.
    pub fn pause_us(&mut self) -> u64 {
        self.rng.magnitude(20, 600) * MS
    }

    /// How long a client waits for an answer.
    pub fn patience_us(&mut self) -> u64 {
        self.rng.between(SECOND / 2, 2 * SECOND)
    }

    /// A number below `end`, for choices of clients.
    pub fn choose(&mut self, end: u64) -> u64 {
        self.rng.below(end)
    }
}

/// A group of so many nodes with so many CPUs each.
fn group(name: &str, nodes: u32, cpus: u64) -> Group {
    Group {
        name: name.into(),
        nodes_min: nodes,
        nodes_max: nodes,
        ranks_per_node: 1,
        cpus: Ask::Exactly(cpus * 1_000),
        memory: Ask::Exactly(1 << 30),
        disk: Bytes(0),
        gpus: GpuRequest::NONE,
    }
}
