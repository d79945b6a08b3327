//! `State::apply`: the only way that the state changes. One file per family of commands.
//!
//! A command is checked whole before anything is changed, so a refused one leaves no trace but its
//! audit record. What follows from a change (a job that ends, a task that may go on, a timer that
//! is due) is settled within the same command, within bounds.

mod access;
mod attempt;
mod authorise;
mod bound;
mod cluster;
mod context;
mod health;
mod holder;
mod job;
mod member;
mod node;
mod plan;
mod report;
mod silence;
mod submit;
mod task;
mod timer;

pub(crate) use context::Context;

use crate::command::{Actor, Cluster, Command, Envelope, Object, Rejection, Reply, requires};
use crate::encoding::hash_on;
use crate::event::{Applied, Audit};
use crate::mutant;
use crate::state::{Answer, Made, State};
use yard_common::id::LogIndex;
use yard_common::state::NodeState;

impl State {
    /// Applies one committed command. Commands of one log entry share its index.
    ///
    /// # Panics
    /// If the index falls, or if the command leads to a state that breaks a rule of the house: a
    /// member that stops is better than members that differ.
    pub fn apply(&mut self, index: LogIndex, envelope: &Envelope, command: &Command) -> Applied {
        assert!(index >= self.applied, "index {index} applied after {}", self.applied);
        self.applied = index;
        let mut context = Context::new(index, envelope);
        let reply = self.admit(&mut context, command).and_then(|()| {
            context.now_ms = self.advance_clock(envelope);
            let reply = self.answer(&mut context, envelope, command);
            self.settle(&mut context);
            reply
        });
        self.history_hash = hash_of(self.history_hash, index, &reply, &context);
        self.digest = self.digest.advanced(self);
        let audit = Audit {
            index,
            actor: envelope.actor,
            request: envelope.request,
            wall_ms: envelope.stamp.wall_ms,
            family: command.family().into(),
            outcome: reply.clone(),
        };
        Applied { reply, events: context.events, audit }
    }

    /// Whether the command may be considered at all: it is of the leader that started last, of a
    /// cluster that exists, and of an actor that is not shut out.
    fn admit(&mut self, context: &mut Context, command: &Command) -> Result<(), Rejection> {
        let leader = context.leader;
        if context.actor == Actor::Leader {
            match command {
                Command::Cluster(Cluster::LeaderStarted) => {
                    if self.leader.is_some_and(|current| current >= leader) {
                        return Err(Rejection::StaleLeader);
                    }
                    self.leader = Some(leader);
                    return Ok(());
                }
                // The log itself says so, whoever leads, and before there is a cluster.
                Command::Cluster(Cluster::Members { .. }) => return Ok(()),
                _ => (),
            }
        }
        if self.leader != Some(leader) && !mutant!("leader_not_fenced") {
            return Err(Rejection::StaleLeader);
        }
        let initialise = matches!(command, Command::Cluster(Cluster::Initialise { .. }));
        if self.cluster.is_none() && !initialise {
            return Err(Rejection::WrongState(Object::Cluster, "not initialised yet".into()));
        }
        match context.actor {
            Actor::User(id) => match self.principals.get(id) {
                None => Err(Rejection::NotFound(Object::User(id))),
                Some(user) if user.disabled => Err(Rejection::Revoked(Object::User(id))),
                Some(_) => Ok(()),
            },
            Actor::Node(id) => match self.nodes.get(id) {
                None => Err(Rejection::NotFound(Object::Node(id))),
                Some(node) if node.state == NodeState::Removed => {
                    Err(Rejection::Revoked(Object::Node(id)))
                }
                Some(_) => Ok(()),
            },
            Actor::Leader | Actor::Bearer => Ok(()),
        }
    }

    /// Moves the cluster's time on; it never falls.
    fn advance_clock(&mut self, envelope: &Envelope) -> u64 {
        self.clock.cluster_ms = self.clock.cluster_ms.max(envelope.stamp.cluster_ms);
        if mutant!("clock_falls") {
            self.clock.cluster_ms = envelope.stamp.cluster_ms;
        }
        self.clock.wall_ms = envelope.stamp.wall_ms;
        self.clock.cluster_ms
    }

    /// The answer to a command: the first one again, if its request was answered before.
    fn answer(
        &mut self,
        context: &mut Context,
        envelope: &Envelope,
        command: &Command,
    ) -> Result<Reply, Rejection> {
        let Some(request) = envelope.request else {
            return self.run(context, command);
        };
        let body = hash_on(0, command);
        if let Some(answer) = self.dedup.get(context.actor, request) {
            let (same, object) = match &answer.made {
                Made::Job(job) => (Reply::Job(*job), Object::Job(*job)),
                Made::Other(_, reply) => (reply.clone(), Object::Definition),
            };
            return if answer.body == body {
                Ok(same)
            } else {
                Err(Rejection::AlreadyExists(object))
            };
        }
        let reply = self.run(context, command)?;
        let made = match &reply {
            // A job that was changed is remembered under the request that made it.
            Reply::Job(job) if self.jobs[*job].request == request => Made::Job(*job),
            other => Made::Other(context.now_ms, other.clone()),
        };
        if !mutant!("dedup_forgets") {
            self.dedup.remember(context.actor, request, Answer { body, made });
        }
        Ok(reply)
    }

    /// Does what the command asks, or changes nothing.
    fn run(&mut self, context: &mut Context, command: &Command) -> Result<Reply, Rejection> {
        self.authorise(context.actor, command)?;
        let (needed, have) = (requires(command), self.feature_level);
        if needed > have {
            // Whoever proposed it should have known. Members that do not know it never get here.
            return Err(Rejection::FeatureLevelTooLow { needed, have });
        }
        match command {
            Command::Cluster(command) => self.run_cluster(context, command),
            Command::Access(command) => self.run_access(context, command),
            Command::Holder(command) => self.run_holder(context, command),
            Command::Node(command) => self.run_node(context, command),
            Command::Job(command) => self.run_job(context, command),
            Command::Plan(plan) => self.run_plan(context, plan),
            Command::Report(report) => self.run_report(context, report),
        }
    }

    /// Lets due timers fire, draws the consequences for jobs, and forgets what is too old.
    fn settle(&mut self, context: &mut Context) {
        self.settle_jobs(context);
        self.fire_timers(context);
        self.dedup.expire(context.now_ms);
        self.forget_ended_jobs(context);
    }
}

/// Continues the hash over replies and events.
fn hash_of(
    before: u64,
    index: LogIndex,
    reply: &Result<Reply, Rejection>,
    context: &Context,
) -> u64 {
    // The bug: what each member has by itself gets into the hash.
    let before = match mutant!("hash_by_member") {
        true => before ^ context.events.as_ptr() as u64,
        false => before,
    };
    hash_on(before, &(index, reply, &context.events))
}
