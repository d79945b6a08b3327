//! Where what happens meets what must hold.

use crate::invariants::{Broken, Checks, Seen, Step};
use crate::log::Entry;
use crate::truth::Run;
use crate::world::World;
use std::collections::BTreeSet;
use yard_common::ExitCause;
use yard_common::id::{AttemptNumber, PoolId};
use yard_common::id::{ClusterId, JobId, LeaderId, LogIndex, MemberId, TaskIndex, TokenId};
use yard_common::state::{NodeState, TaskState};
use yard_core::agent::{AssignmentId, Ending, Fence, ReportKind};
use yard_core::command::{
    Access, Actor, Cluster, Command, Envelope, Grant, Holder, JobCommand, NodeCommand, PoolChange,
    QueueChange, Rejection, Reply, Role, Scope,
};
use yard_core::event::{Applied, Event as Fact};
use yard_core::scheduler::{Planned, Policy};

impl World {
    /// Shows something to every invariant.
    fn show(&mut self, look: impl FnOnce(&World, &mut Checks) -> Option<Broken>) {
        let mut checks = std::mem::take(&mut self.checks);
        let broken = look(self, &mut checks);
        self.checks = checks;
        if let Some((rule, what)) = broken {
            self.break_rule(rule, what);
        }
    }

    /// A member applies an entry.
    pub fn apply_entry(&mut self, at: usize, entry: &Entry) {
        let index = entry.position.index;
        let first = index > self.seen_index;
        let mut outcomes = Vec::with_capacity(entry.commands.len());
        for (nth, (envelope, command)) in entry.commands.iter().enumerate() {
            let applied = self.members[at].state.apply(LogIndex(index), envelope, command);
            self.tell_keeper(at, command, &applied);
            if first {
                self.observe_applied(at, (index, nth), envelope, command, &applied);
            }
            if self.members[at].lead().is_some_and(|lead| lead.started) {
                self.react(at, &applied);
            }
            outcomes.push(applied.reply);
        }
        self.seen_index = self.seen_index.max(index);
        self.members[at].applied = entry.position;
        self.observe_replica(at);
        self.after_entry(at, index, &outcomes);
    }

    /// Tells a member's part in the lease what was applied.
    fn tell_keeper(&mut self, at: usize, command: &Command, applied: &Applied) {
        let now_us = self.now_us;
        let member = &mut self.members[at];
        let local_ms = member.local_ms(now_us);
        match command {
            Command::Cluster(Cluster::Members { .. }) if applied.reply.is_ok() => {
                member.keeper.membership_applied(member.state.membership.clone(), local_ms);
            }
            Command::Node(_) if applied.reply.is_ok() => {
                let ids: Vec<_> = member.state.nodes.iter().map(|(id, n)| (id, n.lease)).collect();
                for (node, lease) in ids {
                    member.keeper.lease_applied(node, lease);
                }
            }
            _ => {}
        }
    }

    /// Compares a replica with those that were at the same entry before.
    pub fn observe_replica(&mut self, at: usize) {
        self.show(|world, checks| {
            let member = &world.members[at];
            let (index, state) = (member.applied.index, &member.state);
            checks.see(&Seen::Replica { member: at, index, state }, &world.truth)
        });
    }

    fn observe_applied(
        &mut self,
        at: usize,
        (index, nth): (u64, usize),
        envelope: &Envelope,
        command: &Command,
        applied: &Applied,
    ) {
        self.stats.commands += 1;
        self.note(|_| {
            let text = format!("{command:?}");
            let text: String = text.chars().take(160).collect();
            let reply = format!("{:?}", applied.reply);
            let reply: String = reply.chars().take(120).collect();
            format!("{index}.{nth} {:?} {text} -> {reply}", envelope.actor)
        });
        if let (Ok(Reply::Job(job)), Command::Job(JobCommand::Submit(submit)), Some(request)) =
            (&applied.reply, command, envelope.request)
        {
            if self.truth.jobs.contains_key(job) {
                self.reached("duplicate submit answered");
            }
            self.learn_job(envelope.actor, request, *job, &submit.plan);
        }
        if let (Ok(_), Command::Job(JobCommand::Replace { job, new, .. })) =
            (&applied.reply, command)
            && let Some(known) = self.truth.jobs.get_mut(job)
        {
            known.plan = new.plan.clone();
        }
        if applied.reply == Err(Rejection::StaleLeader) {
            self.reached("stale leader refused");
        }
        for fact in &applied.events {
            self.learn_fact(at, fact);
        }
        self.cover(at, command, applied);
        self.show(|world, checks| {
            let state = &world.members[at].state;
            checks.see(
                &Seen::Applied(Step { index, nth, envelope, command, applied, state }),
                &world.truth,
            )
        });
    }

    fn learn_fact(&mut self, at: usize, fact: &Fact) {
        match fact {
            Fact::Granted { allocation, .. } => {
                if let Some(granted) = self.members[at].state.allocations.get(*allocation) {
                    for share in &granted.shares {
                        let key = (*allocation, share.group, share.node.0 as usize);
                        self.truth.grants.insert(key, share.gpus);
                    }
                }
            }
            Fact::Tasks { tasks, state, cause, .. } if state.is_terminal() => {
                self.stats.tasks_ended += u64::from(tasks.len);
                if *cause == Some(ExitCause::DependencyFailed) {
                    self.reached("dependency failed");
                } else if *state == TaskState::Failed {
                    self.reached("retry budget spent");
                }
            }
            Fact::Node { state: NodeState::Lost, .. } => self.reached("node lost"),
            _ => {}
        }
    }

    /// Notes which feared states a command came upon.
    fn cover(&mut self, at: usize, command: &Command, applied: &Applied) {
        match command {
            Command::Node(NodeCommand::Lift(_)) if applied.reply.is_ok() => {
                self.reached("promise lifted");
            }
            Command::Node(NodeCommand::Returned { .. }) if applied.reply.is_ok() => {
                self.reached("node returned");
            }
            Command::Report(report) if applied.reply.is_ok() => {
                let state = &self.members[at].state;
                let ended = applied.events.iter().any(|fact| {
                    matches!(fact, Fact::AttemptEnded { cause: ExitCause::Cancelled, .. })
                });
                let mut points = Vec::new();
                if { applied.events.iter() }.any(|fact| {
                    matches!(fact, Fact::AttemptEnded { cause: ExitCause::Stalled, .. })
                }) {
                    points.push("attempt ended for its silence");
                }
                for one in &report.reports {
                    let known = state.allocations.contains(one.assignment.allocation);
                    match &one.what {
                        ReportKind::Recalled(_) => {
                            points.push("chain recalled");
                        }
                        ReportKind::Exited(_) if !known && applied.events.is_empty() => {
                            points.push("exit reported after the node was lost");
                        }
                        ReportKind::Exited(exits)
                            if ended && exits.iter().any(|exit| exit.cause.is_success()) =>
                        {
                            points.push("cancel raced with the exit");
                        }
                        ReportKind::Exited(exits)
                            if known
                                && !ended
                                && exits
                                    .iter()
                                    .any(|e| e.status.is_some() && !e.cause.is_success()) =>
                        {
                            points.push("gang stopped by one failure");
                        }
                        ReportKind::Reaped if !known && !applied.events.is_empty() => {
                            points.push("in-doubt share reaped")
                        }
                        _ => {}
                    }
                }
                for point in points {
                    self.reached(point);
                }
            }
            _ => {}
        }
    }

    /// The scheduler has decided.
    pub fn observe_plan(&mut self, at: usize, planned: &Planned, now_ms: u64, policy: &Policy) {
        self.show(|world, checks| {
            let state = &world.members[at].state;
            checks.see(&Seen::Planned { state, planned, now_ms, policy }, &world.truth)
        });
    }

    /// An agent obeys a desired set.
    pub fn observe_obeyed(&mut self, machine: usize, fence: Fence) {
        self.show(|world, checks| checks.see(&Seen::Obeyed { machine, fence }, &world.truth));
    }

    /// A client got an answer.
    pub fn observe_answer(
        &mut self,
        at: usize,
        wish: &crate::client::Wish,
        answer: &Result<Reply, Rejection>,
    ) {
        let actor = Actor::User(self.clients[at].user);
        self.show(|world, checks| {
            let (request, again) = (wish.request, wish.again.as_ref());
            checks.see(
                &Seen::Answered { actor, request, command: &wish.command, answer, again },
                &world.truth,
            )
        });
    }

    /// Ranks of a task start.
    pub fn rank_started(
        &mut self,
        machine: usize,
        assignment: AssignmentId,
        job: JobId,
        (task, attempt): (TaskIndex, AttemptNumber),
    ) {
        let (from_us, until_us, ending) = (self.now_us, None, None);
        let was_frozen = false;
        let run =
            Run { job, task, attempt, assignment, machine, from_us, until_us, ending, was_frozen };
        self.note(|_| format!("machine {machine} runs {job}[{task}]#{attempt} as {assignment}"));
        let older = self.truth.runs_of(job, task);
        let overlaps = { older }.any(|run| run.attempt < attempt && run.until_us.is_none());
        if overlaps {
            self.reached("overlap of a fenced attempt");
        }
        let at = self.truth.start(run);
        self.show(|world, checks| checks.see(&Seen::Started(&world.truth.runs[at]), &world.truth));
    }

    /// Ranks of a task end.
    pub fn rank_ended(
        &mut self,
        machine: usize,
        assignment: AssignmentId,
        job: JobId,
        (task, attempt): (TaskIndex, AttemptNumber),
        ending: Option<Ending>,
    ) {
        self.note(|_| {
            format!("machine {machine} ends {job}[{task}]#{attempt} as {assignment}: {ending:?}")
        });
        let at = self.truth.end(machine, assignment, ending);
        self.show(|world, checks| checks.see(&Seen::Ended(&world.truth.runs[at]), &world.truth));
    }

    /// Audits the state that is furthest.
    pub fn audit(&mut self) {
        self.show(|world, checks| {
            let state = &world.members[world.latest_member()?].state;
            checks.see(&Seen::Audit { state, machines: &world.machines }, &world.truth)
        });
    }

    /// The end of a run.
    pub fn finish(&mut self) {
        self.show(|world, checks| {
            let state = &world.members[world.latest_member()?].state;
            let requests = &world.requests;
            checks.see(&Seen::Over { state, requests, members: &world.members }, &world.truth)
        });
    }

    /// What the first leader proposes: the cluster, its users and queues, and all machines.
    pub fn first_commands(
        &mut self,
        at: usize,
        leader: LeaderId,
    ) -> (Vec<(Envelope, Command)>, BTreeSet<MemberId>) {
        let admin = Actor::User(yard_common::id::PrincipalId(0));
        let voters = self.members[at].disk.membership().voters.clone();
        let mut commands = Vec::new();
        let cluster = ClusterId::from_u128(7);
        let initialise = Cluster::Initialise { cluster, admin: "root-admin".into(), unix: None };
        commands.push((Actor::Leader, Command::Cluster(initialise)));
        let members = Cluster::Members { voters: voters.clone(), joint: None };
        commands.push((Actor::Leader, Command::Cluster(members)));
        for name in ["ada", "bob"] {
            let grants = vec![Grant { workspace: None, role: Role::User }];
            let add = Access::AddUser { name: name.into(), unix: None, grants };
            commands.push((admin, Command::Access(add)));
        }
        for name in ["night", "side"] {
            let add = Holder::AddQueue(name.into(), QueueChange::default());
            commands.push((admin, Command::Holder(add)));
        }
        let pool = Holder::AddPool("second".into(), PoolChange::default());
        commands.push((admin, Command::Holder(pool)));
        for (nth, machine) in self.machines.iter().enumerate() {
            let (token, secret_sha256) = (TokenId::from_u128(nth as u128 + 1), [7; 32]);
            let pool = PoolId(0);
            let scope = Scope::Join(pool);
            let add = Access::AddToken { token, secret_sha256, scope, life_ms: 60_000 };
            commands.push((admin, Command::Access(add)));
            let (name, inventory) = (machine.name.clone(), machine.inventory(1));
            let join = NodeCommand::Join { token, secret_sha256, name, inventory };
            commands.push((Actor::Bearer, Command::Node(join)));
        }
        let stamp = |(actor, command)| (self.envelope(at, leader, actor, None), command);
        (commands.into_iter().map(stamp).collect(), voters)
    }
}
