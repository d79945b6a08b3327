//! Clients: each has one request under way, and asks again with the same id until it is answered.

use crate::message::{Event, Message, Party};
use crate::rng::mix;
use crate::truth::{Behaviour, JobTruth};
use crate::world::{Phase, World};
use std::rc::Rc;
use yard_common::id::{JobId, NodeId, PrincipalId, QueueId, RequestId};
use yard_core::command::{
    Actor, Command, Holder, HolderLimit, JobCommand, LimitScope, NodeCommand, QueueChange,
    Rejection, Reply,
};

/// Commands that a task takes from its submission to its end, roughly.
const COMMANDS_PER_TASK: u64 = 8;

/// A client.
#[derive(Debug)]
pub struct Client {
    /// As whom it asks. The first is the operator.
    pub user: PrincipalId,
    /// What it asked and was not answered yet.
    pub wish: Option<Wish>,
    /// Rises with each thought, so that a timeout of an earlier one is ignored.
    pub nth: u64,
    /// Number of its requests.
    made: u64,
    target: usize,
    /// Whether it waits for an answer.
    waits: bool,
}

/// A request under way.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Its id.
    pub request: RequestId,
    /// What.
    pub command: Rc<Command>,
    behaviour: Option<Behaviour>,
    /// Whether it was answered before and is only asked again.
    pub again: Option<Result<Reply, Rejection>>,
}

impl Client {
    /// A client of a user.
    #[must_use]
    pub fn new(user: u32) -> Client {
        Client { user: PrincipalId(user), wish: None, nth: 0, made: 0, target: 0, waits: false }
    }
}

impl World {
    /// A client thinks of something, or has waited long enough.
    pub fn on_client(&mut self, at: usize, nth: u64) {
        if self.clients[at].nth != nth {
            return;
        }
        if self.clients[at].wish.is_none() {
            let Some((command, behaviour)) = self.think(at) else {
                let wait_us = self.workload.pause_us();
                return self.client_again(at, wait_us);
            };
            let client = &mut self.clients[at];
            client.made += 1;
            let words = [self.scenario.seed, at as u64, client.made];
            let id = u128::from(mix(&words)) << 64 | u128::from(mix(&[words[2], words[1], 9]));
            let request = RequestId::from_u128(id);
            self.requests.insert((Actor::User(client.user), request), command.clone());
            let command = Rc::new(command);
            client.wish = Some(Wish { request, command, behaviour, again: None });
        } else if self.clients[at].waits {
            self.clients[at].target = (self.clients[at].target + 1) % self.members.len();
        }
        self.clients[at].waits = true;
        self.ask(at);
    }

    fn client_again(&mut self, at: usize, wait_us: u64) {
        self.clients[at].nth += 1;
        let nth = self.clients[at].nth;
        self.after(wait_us, Event::Client { client: at, nth });
    }

    fn ask(&mut self, at: usize) {
        let client = &self.clients[at];
        let Some(wish) = &client.wish else { return };
        let (request, command) = (wish.request, Rc::clone(&wish.command));
        let actor = Actor::User(client.user);
        let to = Party::Member(client.target);
        self.send(Party::Client(at), to, Message::Ask { request, actor, command });
        let wait_us = self.workload.patience_us();
        self.client_again(at, wait_us);
    }

    /// An answer arrives.
    pub fn on_answer(
        &mut self,
        at: usize,
        request: RequestId,
        answer: Option<Result<Reply, Rejection>>,
        hint: Option<usize>,
    ) {
        let members = self.members.len();
        let client = &mut self.clients[at];
        let Some(wish) = client.wish.clone().filter(|wish| wish.request == request) else { return };
        client.waits = false;
        if let Some(hint) = hint {
            client.target = hint;
        }
        let Some(answer) = answer else {
            if hint.is_none() {
                client.target = (client.target + 1) % members;
            }
            let wait_us = self.workload.pause_us() / 4;
            return self.client_again(at, wait_us);
        };
        self.observe_answer(at, &wish, &answer);
        let wait_us = self.workload.pause_us();
        self.client_again(at, wait_us);
        if let (Ok(Reply::Job(job)), Command::Job(JobCommand::Submit(submit))) =
            (&answer, &*wish.command)
        {
            let len = submit.plan.array.as_ref().map(|array| array.tasks.len);
            if !self.known.iter().any(|(known, _)| known == job) {
                self.known.push((*job, len));
            }
        }
        let repeat = wish.again.is_none() && answer.is_ok() && self.workload.choose(20) == 0;
        self.clients[at].wish = None;
        if repeat {
            self.reached("answered request asked again");
            self.clients[at].wish = Some(Wish { again: Some(answer), ..wish });
        }
    }

    /// What a client wants next.
    fn think(&mut self, at: usize) -> Option<(Command, Option<Behaviour>)> {
        match (self.phase, at) {
            (Phase::Busy, 0) => return Some((self.operate(), None)),
            (Phase::Healing | Phase::Over, 0) => {
                return self.tidy_up().map(|command| (command, None));
            }
            _ if self.has_enough() => return None,
            _ => {}
        }
        let nth = self.requests.len() as u64;
        let wall_ms = 1_800_000_000_000 + self.now_us / 1_000;
        let known = std::mem::take(&mut self.known);
        let submit = self.workload.submit(nth, wall_ms, &known);
        let submits = known.is_empty() || self.workload.choose(100) < 62;
        let command = if submits {
            let command = Command::Job(JobCommand::Submit(Box::new(submit.0)));
            (command, Some(submit.1))
        } else {
            let from = known.len().saturating_sub(20) as u64;
            let pick = from + self.workload.choose(known.len() as u64 - from);
            let (job, len) = known[pick as usize];
            (Command::Job(self.workload.change(job, len, submit)), None)
        };
        self.known = known;
        Some(command)
    }

    /// Whether what clients asked for so far is likely to make as many commands as the run wants.
    fn has_enough(&self) -> bool {
        let Some(at) = self.latest_member() else { return true };
        let jobs = self.members[at].state.jobs.iter();
        let open = jobs.filter(|(_, job)| !job.state.is_terminal()).map(|(_, job)| {
            let counts = job.tasks.counts();
            u64::from(job.tasks.range().len - counts.ended())
        });
        self.stats.commands + COMMANDS_PER_TASK * open.sum::<u64>() >= self.scenario.commands
    }

    /// What an operator does on a busy day.
    fn operate(&mut self) -> Command {
        match self.workload.choose(10) {
            0..6 => {
                let node = NodeId(self.workload.choose(self.machines.len() as u64) as u32);
                self.workload.operate(node)
            }
            6..8 => {
                let queue = QueueId(1 + self.workload.choose(2) as u32);
                let accepts = self.workload.choose(4) > 0;
                let starts = self.workload.choose(3) > 0;
                let priority = self.workload.choose(3) as i32;
                let change = QueueChange { accepts, starts, priority, ..QueueChange::default() };
                Command::Holder(Holder::SetQueue(queue, change))
            }
            _ => {
                let scope = match self.workload.choose(3) {
                    0 => LimitScope::Owner(PrincipalId(1)),
                    1 => LimitScope::Queue(QueueId(1)),
                    _ => LimitScope::EachOwner(QueueId(0)),
                };
                let tasks = Some(1 + self.workload.choose(8));
                let gpu_parts = Some(10_000 * (3 + self.workload.choose(8)));
                let limit = HolderLimit { tasks, gpu_parts, ..HolderLimit::default() };
                let limit = (self.workload.choose(2) > 0).then_some(limit);
                Command::Holder(Holder::SetLimit(scope, limit))
            }
        }
    }

    /// After the last fault an operator opens whatever is closed, as far as it can see.
    fn tidy_up(&mut self) -> Option<Command> {
        let at = self.latest_member()?;
        let state = &self.members[at].state;
        for (id, node) in state.nodes.iter() {
            if node.cordoned || node.drain.is_some() {
                return Some(Command::Node(NodeCommand::Undrain(id)));
            }
        }
        for (id, queue) in state.queues.iter() {
            if !queue.set.starts {
                return Some(Command::Holder(Holder::SetQueue(id, QueueChange::default())));
            }
        }
        if let Some((scope, _)) = state.holdings.limits().next() {
            return Some(Command::Holder(Holder::SetLimit(*scope, None)));
        }
        let soon_ms = state.now_ms() + 60_000;
        for (id, job) in state.jobs.iter().filter(|(_, job)| !job.state.is_terminal()) {
            if job.waits.held.is_some() {
                return Some(Command::Job(JobCommand::Release(id)));
            }
            if job.waits.suspended.is_some() {
                return Some(Command::Job(JobCommand::Resume(id)));
            }
            if job.waits.until_ms > soon_ms {
                // The wall clock of a leader was years behind when the job came.
                let reason = "far too long".into();
                let cancel = JobCommand::Cancel { job: id, tasks: None, reason };
                return Some(Command::Job(cancel));
            }
        }
        None
    }

    /// What a job was meant to be, as soon as it has an id.
    pub fn learn_job(
        &mut self,
        actor: Actor,
        request: RequestId,
        job: JobId,
        plan: &yard_core::job::JobPlan,
    ) {
        let client = self.clients.iter().find(|client| Actor::User(client.user) == actor);
        let wish = client.and_then(|client| client.wish.as_ref());
        let behaviour = wish.filter(|wish| wish.request == request).and_then(|w| w.behaviour);
        let behaviour = behaviour.unwrap_or(Behaviour { run_ms: (20, 200), permille: (0, 0, 0) });
        self.truth.jobs.entry(job).or_insert(JobTruth { plan: plan.clone(), behaviour });
    }
}
