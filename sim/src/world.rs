//! One run: everything that exists, and what happens next.

use crate::agenda::Agenda;
use crate::client::Client;
use crate::clock::{Clock, MS, SECOND, Us};
use crate::coverage::Coverage;
use crate::invariants::{self, Checks, Violation};
use crate::machine::Machine;
use crate::member::Member;
use crate::message::{Event, Fault, Message, Party};
use crate::net::Net;
use crate::rng::Rng;
use crate::scenario::{FAULTS_MIN, Scenario};
use crate::truth::Truth;
use crate::workload::Workload;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use yard_common::id::{JobId, MemberId, RequestId};
use yard_core::command::{Actor, Command};

/// True time within which everything must have ended after the last fault.
const PATIENCE_US: Us = 2_400 * SECOND;

/// True time after which faults stop, even if they kept the run from getting far.
const FAULTY_US: Us = 150 * SECOND;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Clients ask, things break.
    Busy,
    /// Nothing breaks any more; everything is to come to its end.
    Healing,
    /// It has.
    Over,
}

/// Counts of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Commands of the log that were applied, each counted once.
    pub commands: u64,
    /// Tasks that ended for good.
    pub tasks_ended: u64,
    /// Faults.
    pub faults: u64,
    /// Elections won.
    pub leaders: u64,
    /// Snapshots taken.
    pub snapshots: u64,
    /// Events.
    pub events: u64,
}

/// Everything that exists.
#[derive(Debug)]
pub struct World {
    /// True time.
    pub now_us: Us,
    /// What is to happen.
    pub agenda: Agenda<Event>,
    /// Chance of the network and of disks.
    pub rng: Rng,
    /// Chance of faults.
    pub rng_faults: Rng,
    /// The frame.
    pub scenario: Scenario,
    /// Where the run is.
    pub phase: Phase,
    /// Members of the coordinator, those that are not yet or no more included.
    pub members: Vec<Member>,
    /// A new member and the one that it replaces.
    pub replacement: Option<(usize, usize)>,
    /// Machines.
    pub machines: Vec<Machine>,
    /// Clients.
    pub clients: Vec<Client>,
    /// What clients ask for.
    pub workload: Workload,
    /// Jobs that clients know, with the lengths of their arrays.
    pub known: Vec<(JobId, Option<u32>)>,
    /// Every request that was ever made.
    pub requests: BTreeMap<(Actor, RequestId), Command>,
    /// The network.
    pub net: Net,
    /// What really happened.
    pub truth: Truth,
    /// What must hold.
    pub checks: Checks,
    /// The first rule that was broken.
    pub violation: Option<Violation>,
    /// The last entry that any member has applied.
    pub seen_index: u64,
    /// Streams of agents so far.
    pub streams: u64,
    /// Counts.
    pub stats: Stats,
    /// Feared states.
    pub coverage: Coverage,
    /// The trace, if one is wanted.
    pub trace: Option<String>,
    healing_us: Us,
    quiet_us: Option<Us>,
}

impl World {
    /// The world of a seed, before anything happens.
    #[must_use]
    pub fn new(seed: u64, trace: bool) -> World {
        let scenario = Scenario::new(seed);
        let mut rng = Rng::new(seed, 2);
        // The rule of leases trusts rates to within a thousandth.
        let mut clock = |edge: bool| {
            let drift =
                if edge { rng.pick(&[-1_000, 1_000]) } else { rng.below(2_001) as i64 - 1_000 };
            Clock::new(0, drift)
        };
        let voters: Vec<MemberId> = (1..=scenario.voters as u64).map(MemberId).collect();
        let members = (1..=(scenario.voters + scenario.spares) as u64).map(|id| {
            let mut member = Member::new(MemberId(id), &voters, clock(id.is_multiple_of(2)));
            member.enrolled = id <= scenario.voters as u64;
            member
        });
        let members: Vec<_> = members.collect();
        let mut machines = Vec::new();
        for at in 0..scenario.machines {
            let model = if at % 3 == 2 { "a100" } else { "h100" };
            let gpus = if at % 4 == 3 { Vec::new() } else { vec![model; 4] };
            machines.push(Machine::new(at, clock(at.is_multiple_of(2)), 8, gpus));
        }
        let clients: Vec<_> =
            (0..scenario.clients as u32).map(|at| Client::new(at.min(2))).collect();
        World {
            now_us: 0,
            agenda: Agenda::default(),
            rng_faults: Rng::new(seed, 3),
            phase: Phase::Busy,
            replacement: None,
            net: Net::new(members.len(), machines.len(), clients.len()),
            members,
            machines,
            clients,
            workload: match scenario.lease_trouble {
                true => Workload::new(seed).about_leases(),
                false => Workload::new(seed),
            },
            known: Vec::new(),
            requests: BTreeMap::new(),
            truth: Truth::new(seed),
            checks: invariants::all(),
            violation: None,
            seen_index: 0,
            streams: 0,
            stats: Stats::default(),
            coverage: Coverage::default(),
            trace: trace.then(String::new),
            healing_us: 0,
            quiet_us: None,
            rng,
            scenario,
        }
    }

    /// Lets everything happen, to the end or to the first broken rule.
    pub fn run(&mut self) {
        for at in 0..self.members.len() {
            if self.members[at].enrolled {
                self.start_member(at);
            }
        }
        for at in 0..self.machines.len() {
            self.boot_machine(at);
        }
        for client in 0..self.clients.len() {
            self.after(2 * SECOND, Event::Client { client, nth: 0 });
        }
        self.after(3 * SECOND, Event::Fault(Fault::Next));
        self.after(SECOND, Event::Oversee);
        while self.phase != Phase::Over && self.violation.is_none() {
            let Some((at_us, event)) = self.agenda.pop() else { break };
            self.now_us = at_us;
            self.truth.now_us = at_us;
            self.stats.events += 1;
            self.happen(event);
        }
    }

    /// Enters an event.
    pub fn after(&mut self, wait_us: Us, event: Event) {
        self.agenda.at(self.now_us + wait_us, event);
    }

    /// Writes a line of the trace.
    pub fn note(&mut self, line: impl FnOnce(&World) -> String) {
        if self.trace.is_some() {
            let text = line(self);
            let now_us = self.now_us;
            if let Some(trace) = &mut self.trace {
                let _ = writeln!(trace, "{:>12.3} ms  {text}", now_us as f64 / 1_000.0);
            }
        }
    }

    /// A feared state was reached.
    pub fn reached(&mut self, point: &'static str) {
        self.coverage.reach(point);
        self.note(|_| format!("reached: {point}"));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { from, to, message } => self.on_arrive(from, to, *message),
            Event::Synced { member, life, done } => {
                if self.members[member].up && self.members[member].life == life {
                    self.on_synced(member, *done);
                }
            }
            Event::Election { member, life } => {
                if self.members[member].up && self.members[member].life == life {
                    self.on_election(member);
                }
            }
            Event::Lead { member, life, leader, what } => {
                if self.members[member].up && self.members[member].life == life {
                    self.on_lead(member, leader, what);
                }
            }
            Event::Agent { .. }
            | Event::Deadline { .. }
            | Event::Shim { .. }
            | Event::ShimSaid { .. } => self.happen_on_machine(event),
            Event::Client { client, nth } => self.on_client(client, nth),
            Event::Fault(fault) => self.on_fault(fault),
            Event::Oversee => self.oversee(),
        }
    }

    fn happen_on_machine(&mut self, event: Event) {
        let at = match &event {
            Event::Agent { machine, .. }
            | Event::Deadline { machine, .. }
            | Event::Shim { machine, .. }
            | Event::ShimSaid { machine, .. } => *machine,
            Event::Arrive { .. }
            | Event::Synced { .. }
            | Event::Election { .. }
            | Event::Lead { .. }
            | Event::Client { .. }
            | Event::Fault(_)
            | Event::Oversee => return,
        };
        let mut event = Some(event);
        if !self.machine_runs(at, &mut event) {
            return;
        }
        let machine = &self.machines[at];
        let alive = |life: u32| machine.agent.is_some() && machine.agent_life == life;
        match event {
            Some(Event::Agent { life, what, .. }) if alive(life) => self.on_agent(at, what),
            Some(Event::ShimSaid { life, id, event, .. }) if alive(life) => {
                self.agent_step(at, yard_core::agent::Input::Shim(id, event));
            }
            Some(Event::Deadline { boot, .. }) if machine.boot == boot => {
                self.look_at_deadlines(at);
            }
            Some(Event::Shim { boot, id, nth, what, .. }) if machine.boot == boot => {
                self.on_shim(at, id, nth, what);
            }
            Some(_) | None => {}
        }
    }

    /// A member hears a message.
    pub fn member_hears(&mut self, at: usize, from: Party, message: Message) {
        let by = match from {
            Party::Member(by) | Party::Machine(by) | Party::Client(by) => by,
        };
        match message {
            Message::VoteAsk { candidate, last } => self.on_vote_ask(at, from, candidate, last),
            Message::VoteSay { candidate, granted, vote } => {
                let member = &mut self.members[at];
                member.term_seen = member.term_seen.max(vote.term);
                self.on_vote_say(at, by, candidate, granted);
            }
            Message::Append { leader, previous, entries, commit } => {
                self.on_append(at, from, leader, previous, &entries, commit);
            }
            Message::Install { leader, snapshot, .. } => self.on_install(at, leader, &snapshot),
            Message::AppendSay { ok, index, vote, leader } => {
                let current = self.members[at].lead().is_some_and(|lead| lead.id == leader);
                if current || vote > leader {
                    self.on_append_say(at, by, ok, index, vote);
                }
            }
            Message::Renew(renewal) => {
                let member = &mut self.members[at];
                let local_ms = member.local_ms(self.now_us);
                let said = match member.keeper.on_renewal(&renewal, local_ms) {
                    Ok(ack) => Message::Ack(ack),
                    Err(refusal) => Message::Refuse(refusal),
                };
                if let Message::Refuse(refusal) = &said {
                    let text = format!("member {at} refuses {}: {refusal:?}", renewal.node);
                    self.note(|_| text);
                }
                self.send(Party::Member(at), from, said);
            }
            Message::Sweep { leader, asks } => self.on_sweep(at, from, leader, &asks),
            Message::Swept { leader, member, silent, said } => {
                self.on_swept(at, leader, member, silent, &said);
            }
            Message::Ask { request, actor, command } => {
                self.on_ask(at, by, request, actor, &command);
            }
            Message::Hello(hello) => self.on_hello(at, by, &hello),
            Message::Reports { stream, nth, reports } => {
                self.on_reports(at, by, stream, nth, reports);
            }
            Message::Forward { commands } => self.on_forward(at, commands),
            Message::Away { stream, for_ms } => self.on_away(at, by, stream, for_ms),
            Message::Ack(_)
            | Message::Refuse(_)
            | Message::Answer { .. }
            | Message::Welcome { .. }
            | Message::Goodbye { .. }
            | Message::Granted { .. }
            | Message::Reported { .. } => {}
        }
    }

    /// A machine hears a message; one that stands still or is off hears nothing.
    pub fn machine_hears(&mut self, at: usize, message: Message) {
        if self.machines[at].power != crate::machine::Power::On {
            return;
        }
        match message {
            Message::Ack(ack) => self.on_ack(at, &ack),
            Message::Welcome { stream, desired } => {
                self.on_welcome(at, stream, desired.as_deref());
            }
            Message::Goodbye { stream, hint } => self.on_goodbye(at, stream, hint),
            Message::Reported { stream, upto } => self.on_reported(at, stream, upto),
            Message::Granted { stream, for_ms } => self.on_granted(at, stream, for_ms),
            _ => {}
        }
    }

    /// The member that has applied the most.
    #[must_use]
    pub fn latest_member(&self) -> Option<usize> {
        let members = self.members.iter().enumerate().filter(|(_, member)| member.up);
        members.max_by_key(|(_, member)| member.applied.index).map(|(at, _)| at)
    }

    /// Looks at the run as a whole, once a second.
    fn oversee(&mut self) {
        self.audit();
        match self.phase {
            Phase::Busy => {
                let done = self.stats.commands >= self.scenario.commands;
                let too_long = self.now_us > FAULTY_US;
                if (done || too_long) && self.stats.faults >= FAULTS_MIN {
                    self.phase = Phase::Healing;
                    self.healing_us = self.now_us;
                    self.note(|_| "everything heals".into());
                    self.heal();
                }
            }
            Phase::Healing => {
                // Faults that were planned before may still have hit.
                self.heal();
                if let Some(what) = self.unfinished() {
                    self.quiet_us = None;
                    if self.now_us > self.healing_us + PATIENCE_US {
                        self.break_rule("every_job_ends", what);
                    }
                } else if *self.quiet_us.get_or_insert(self.now_us) + 3 * SECOND <= self.now_us {
                    self.finish();
                    self.phase = Phase::Over;
                }
            }
            Phase::Over => {}
        }
        let wait_us = if self.phase == Phase::Busy { SECOND } else { 500 * MS };
        self.after(wait_us, Event::Oversee);
    }

    /// A rule is broken.
    pub fn break_rule(&mut self, rule: &'static str, what: String) {
        if self.violation.is_none() {
            self.note(|_| format!("BROKEN: {rule}: {what}"));
            self.violation = Some(Violation { rule, what });
        }
    }
}
