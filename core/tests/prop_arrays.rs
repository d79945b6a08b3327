//! An array against the obvious version of it: as many separate jobs, one for each task. What is
//! done to the tasks of the one is done to the others; each task must be where its job is.

// A test that cannot go on says so by failing.
#![allow(clippy::unwrap_used)]

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use support::*;
use yard_common::ExitCause;
use yard_common::id::*;
use yard_core::command::*;
use yard_core::job::JobPlan;
use yard_core::state::TaskStatus;

const LEN: u32 = 9;

#[derive(Clone, Debug)]
enum Op {
    /// A run of queued tasks runs to its end, as a chain, each with its own cause.
    Run {
        first: u32,
        causes: Vec<u8>,
    },
    Cancel {
        first: u32,
        len: u32,
    },
    Hold,
    Release,
    Wait {
        seconds: u16,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0..LEN, vec(0..5u8, 1..5)).prop_map(|(first, causes)| Op::Run { first, causes }),
        2 => (0..LEN, 1..4u32).prop_map(|(first, len)| Op::Cancel { first, len }),
        1 => Just(Op::Hold),
        1 => Just(Op::Release),
        2 => (0..400u16).prop_map(|seconds| Op::Wait { seconds }),
    ]
}

fn cause(number: u8) -> ExitCause {
    match number {
        0 | 1 => ExitCause::Exited(0),
        2 => ExitCause::Exited(7),
        3 => ExitCause::OutOfMemory,
        _ => ExitCause::DiskFull,
    }
}

/// A cluster, and the tasks in it: indices of one array, or jobs of their own.
struct Side {
    lab: Lab,
    node: NodeId,
    array: Option<JobId>,
    jobs: Vec<JobId>,
}

impl Side {
    fn new(plan: &JobPlan, as_array: bool) -> Side {
        let mut lab = Lab::new();
        let node = lab.join("n", 16, &[]);
        if as_array {
            let array = Some(lab.submit(plan.clone()));
            return Side { lab, node, array, jobs: Vec::new() };
        }
        let single = JobPlan { array: None, ..plan.clone() };
        let jobs = (0..LEN).map(|_| lab.submit(single.clone())).collect();
        Side { lab, node, array: None, jobs }
    }

    fn status(&self, index: u32) -> TaskStatus {
        let (job, task) = self.task(index);
        *self.lab.state.jobs[job].tasks.get(task).unwrap()
    }

    fn task(&self, index: u32) -> (JobId, u32) {
        match self.array {
            Some(job) => (job, index),
            None => (self.jobs[index as usize], 0),
        }
    }

    /// Runs queued tasks to their ends: the array as one chain, jobs one after the other.
    fn run(&mut self, first: u32, causes: &[u8]) {
        let count = causes.len() as u32;
        if let Some(job) = self.array {
            let allocation = self.lab.place(job, TaskRange { first, len: count }, &[self.node]);
            for number in causes {
                self.lab.start(self.node, allocation, 1);
                self.lab.exit(self.node, allocation, cause(*number));
            }
            self.lab.reap(self.node, allocation);
            return;
        }
        for (index, number) in (first..).zip(causes) {
            let job = self.jobs[index as usize];
            let allocation = self.lab.place(job, TaskRange::one(0), &[self.node]);
            self.lab.run_to_end(self.node, allocation, cause(*number));
            // A node that fails several jobs is cordoned; an array is one job.
            if self.lab.state.nodes[self.node].cordoned {
                let undrain = NodeCommand::Undrain(self.node);
                self.lab.ok(self.lab.user(), Command::Node(undrain));
            }
        }
    }

    /// What may be refused is refused alike: for jobs one by one, since each ends on its own.
    fn each(&mut self, range: TaskRange, command: impl Fn(JobId, Option<TaskRange>) -> JobCommand) {
        let user = self.lab.user();
        if let Some(job) = self.array {
            let _ = self.lab.apply(user, None, Command::Job(command(job, Some(range))));
            return;
        }
        for index in range.indices().filter(|index| *index < LEN) {
            let job = self.jobs[index as usize];
            let _ = self.lab.apply(user, None, Command::Job(command(job, None)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_array_is_many_jobs(ops in vec(op(), 1..40), user in 0..3u16) {
        let mut plan = array(LEN);
        plan.retry.user = user;
        plan.retry.infra = 2;
        let (mut one, mut many) = (Side::new(&plan, true), Side::new(&plan, false));
        for op in ops {
            match op {
                Op::Run { first, causes } => {
                    let queued = |index: &u32| {
                        *index < LEN && one.status(*index).phase == yard_core::state::Phase::Queued
                    };
                    let len = (first..).zip(&causes).take_while(|(i, _)| queued(i)).count();
                    if len > 0 {
                        one.run(first, &causes[..len]);
                        many.run(first, &causes[..len]);
                    }
                }
                Op::Cancel { first, len } => {
                    let range = TaskRange::between(first, (first + len).min(LEN));
                    let cancel = |job, tasks| JobCommand::Cancel { job, tasks, reason: "".into() };
                    one.each(range, cancel);
                    many.each(range, cancel);
                }
                Op::Hold => {
                    let hold = |job, _| JobCommand::Hold { job, reason: "".into() };
                    one.each(TaskRange { first: 0, len: LEN }, hold);
                    many.each(TaskRange { first: 0, len: LEN }, hold);
                }
                Op::Release => {
                    one.each(TaskRange { first: 0, len: LEN }, |job, _| JobCommand::Release(job));
                    many.each(TaskRange { first: 0, len: LEN }, |job, _| JobCommand::Release(job));
                }
                Op::Wait { seconds } => {
                    one.lab.wait(u64::from(seconds) * 1_000);
                    many.lab.wait(u64::from(seconds) * 1_000);
                }
            }
            for index in 0..LEN {
                prop_assert_eq!(one.status(index), many.status(index), "task {}", index);
            }
        }
    }
}
