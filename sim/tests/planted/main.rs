//! A checker that cannot fail is no checker: each is shown something that breaks its rule, and
//! where that is cheap, something next to it that does not.

use std::collections::{BTreeMap, BTreeSet};
use yard_common::ExitCause;
use yard_common::gpu::{GpuCount, GpuRequest};
use yard_common::id::*;
use yard_core::command::*;
use yard_core::event::{Applied, Audit, Event};
use yard_core::job::{Ask, IsolationClass, JobPlan, Shape};
use yard_core::scheduler::{Budget, Cache, Policy, plan};
use yard_core::state::State;
use yard_sim::clock::Clock;
use yard_sim::invariants::{Checks, Seen, Step, all};
use yard_sim::machine::Machine;
use yard_sim::truth::{Behaviour, JobTruth, Truth};
use yard_sim::workload::Workload;

/// Makes a test of each function that shows a violation, and a list of the rules that they break.
macro_rules! planted {
    ($($rule:literal: $shown:ident),* $(,)?) => {
        /// The rules that a violation of this file breaks.
        pub(super) const RULES: &[&str] = &[$($rule),*];

        mod planted {
            $(#[test]
            fn $shown() {
                assert_eq!(super::$shown(), Some($rule));
            })*
        }
    };
}

mod attempts;
mod cluster;
mod jobs;
mod resources;

/// The rule that was broken, as a checker names it.
type Found = Option<&'static str>;

const LEADER: LeaderId = LeaderId { term: 1, member: MemberId(1) };
/// Late enough for whatever a lab does.
const LATE_US: u64 = 1 << 40;
const ADMIN: Actor = Actor::User(PrincipalId(0));

#[test]
fn every_rule_has_a_planted_violation() {
    let planted = [attempts::RULES, cluster::RULES, jobs::RULES, resources::RULES].concat();
    let planted: BTreeSet<&str> = planted.into_iter().collect();
    let checks = all();
    // The world asks this one.
    let rules: BTreeSet<&str> = checks.names().chain(["every_job_ends"]).collect();
    assert_eq!(rules, planted, "left: all rules; right: those that a test sees broken");
}

/// A job of the witness with this isolation.
fn truth(class: IsolationClass) -> Truth {
    let mut truth = Truth::new(1);
    let mut plan = Workload::new(1).submit(1, 0, &[]).0.plan;
    plan.isolation.class = class;
    let behaviour = Behaviour { run_ms: (1, 1), permille: (0, 0, 0) };
    truth.jobs.insert(JobId(1), JobTruth { plan, behaviour });
    truth
}

/// Checkers to which things are shown.
struct Shown {
    checks: Checks,
    truth: Truth,
}

impl Shown {
    /// A leader has started.
    fn begun() -> Shown {
        let mut shown = Shown { checks: all(), truth: truth(IsolationClass::Fenced) };
        shown.truth.now_us = LATE_US;
        let first = (LEADER, Command::Cluster(Cluster::LeaderStarted));
        assert_eq!(shown.command(first, Ok(Reply::Done), vec![], &State::default()), None);
        shown
    }

    fn see(&mut self, seen: &Seen<'_>) -> Found {
        self.checks.see(seen, &self.truth).map(|(rule, _)| rule)
    }

    /// Shows one applied command.
    fn command(
        &mut self,
        (leader, command): (LeaderId, Command),
        reply: Result<Reply, Rejection>,
        events: Vec<Event>,
        state: &State,
    ) -> Found {
        let (actor, request) = (Actor::User(PrincipalId(1)), Some(RequestId::from_u128(1)));
        let envelope = Envelope { actor, leader, stamp: Stamp::default(), request };
        let audit = Audit {
            index: LogIndex(1),
            actor,
            request,
            wall_ms: 0,
            family: "job".into(),
            outcome: reply.clone(),
        };
        let applied = Applied { reply, events, audit };
        let step = Step {
            index: 1,
            nth: 0,
            envelope: &envelope,
            command: &command,
            applied: &applied,
            state,
        };
        self.see(&Seen::Applied(step))
    }

    /// Shows facts.
    fn facts(&mut self, events: Vec<Event>, state: &State) -> Found {
        self.command(tick(), Ok(Reply::Done), events, state)
    }

    /// Shows a state once more.
    fn audit(&mut self, state: &State) -> Found {
        self.see(&Seen::Audit { state, machines: &[] })
    }

    /// Shows the end of a run.
    fn over(&mut self, state: &State) -> Found {
        let asked = |(_, job): (JobId, &yard_core::state::Job)| {
            let command = tick().1;
            ((Actor::User(job.owner), job.request), command)
        };
        let requests: BTreeMap<_, _> = state.jobs.iter().map(asked).collect();
        self.see(&Seen::Over { state, requests: &requests, members: &[] })
    }
}

fn tick() -> (LeaderId, Command) {
    (LEADER, Command::Cluster(Cluster::Tick))
}

fn granted_to(job: JobId, attempt: u32) -> Event {
    let (allocation, tasks) = (AllocationId(1), TaskRange::one(0));
    Event::Granted { allocation, job, tasks, attempt: AttemptNumber(attempt) }
}

fn granted(attempt: u32) -> Event {
    granted_to(JobId(1), attempt)
}

fn ended(attempt: u32, cause: ExitCause) -> Event {
    let (allocation, job, tasks) = (AllocationId(1), JobId(1), TaskRange::one(0));
    Event::AttemptEnded { job, tasks, attempt: AttemptNumber(attempt), cause, allocation }
}

/// A real state of two machines with four GPUs each, made by commands.
struct Lab {
    state: State,
    requests: u128,
}

impl Lab {
    fn new() -> Lab {
        let mut lab = Lab { state: State::default(), requests: 0 };
        lab.apply(Actor::Leader, Command::Cluster(Cluster::LeaderStarted));
        let cluster = ClusterId::from_u128(7);
        let initialise = Cluster::Initialise { cluster, admin: "root-admin".into(), unix: None };
        lab.apply(Actor::Leader, Command::Cluster(initialise));
        for at in 0..2 {
            let (token, secret_sha256) = (TokenId::from_u128(at as u128 + 1), [7; 32]);
            let scope = Scope::Join(PoolId(0));
            let add = Access::AddToken { token, secret_sha256, scope, life_ms: 60_000 };
            lab.apply(ADMIN, Command::Access(add));
            let machine = Machine::new(at, Clock::new(0, 0), 8, vec!["h100"; 4]);
            let (name, inventory) = (machine.name.clone(), machine.inventory(1));
            let join = NodeCommand::Join { token, secret_sha256, name, inventory };
            lab.apply(Actor::Bearer, Command::Node(join));
        }
        lab
    }

    /// Applies a command, which must be accepted: the reply, and what happened.
    fn apply(&mut self, actor: Actor, command: Command) -> (Reply, Vec<Event>) {
        self.requests += 1;
        let request = matches!(actor, Actor::User(_)).then(|| RequestId::from_u128(self.requests));
        let cluster_ms = self.state.now_ms() + 100;
        let stamp = Stamp { cluster_ms, wall_ms: 1_800_000_000_000 + cluster_ms };
        let envelope = Envelope { actor, leader: LEADER, stamp, request };
        let index = LogIndex(self.state.applied.0 + 1);
        let applied = self.state.apply(index, &envelope, &command);
        match applied.reply {
            Ok(reply) => (reply, applied.events),
            Err(why) => panic!("{command:?} was refused: {why}"),
        }
    }

    /// A job of so many nodes, one CPU and one GPU on each.
    fn submit(&mut self, nodes: u32, change: impl FnOnce(&mut JobPlan)) -> JobId {
        let (mut submit, _) = Workload::new(1).submit(1, 0, &[]);
        let plan = &mut submit.plan;
        let mut group = plan.shape.groups.swap_remove(0);
        (group.nodes_min, group.nodes_max, group.cpus) = (nodes, nodes, Ask::Exactly(1_000));
        group.gpus = GpuRequest { count: GpuCount::Whole(1), ..GpuRequest::NONE };
        let place = Default::default();
        plan.shape = Shape { pool: None, exclusive: false, groups: vec![group], place };
        (plan.array, plan.hold, plan.after) = (None, false, Default::default());
        (plan.not_before_wall_ms, plan.time_limit_ms) = (None, None);
        change(plan);
        (submit.queue, submit.experiment) = (QueueId(0), None);
        match self.apply(ADMIN, Command::Job(JobCommand::Submit(Box::new(submit)))).0 {
            Reply::Job(job) => job,
            other => panic!("{other:?}"),
        }
    }

    /// What the scheduler makes of it.
    fn plan(&self) -> Plan {
        let (now_ms, policy) = (self.state.now_ms(), Policy::default());
        plan(&mut Cache::default(), &self.state, now_ms, &policy, Budget::UNLIMITED).plan
    }

    /// Starts what can start; returns the grants.
    fn start(&mut self) -> Vec<Event> {
        let (_, events) = self.apply(Actor::Leader, Command::Plan(self.plan()));
        let grants = events.into_iter().filter(|event| matches!(event, Event::Granted { .. }));
        let grants: Vec<Event> = grants.collect();
        assert!(!grants.is_empty(), "nothing started");
        grants
    }

    /// The only allocation.
    fn allocation(&self) -> AllocationId {
        self.state.allocations.iter().next().expect("something was granted").0
    }
}
