//! The log of a cluster in the words of the model.

use std::collections::BTreeMap;
use yard_common::ExitCause;
use yard_common::id::NodeId;
use yard_core::agent::ReportKind;
use yard_core::command::{Actor, Command, Envelope, JobCommand, Rejection, Reply};
use yard_core::event::{Applied, Event};
use yard_integration::history::{Answer, Call, Refusal};
use yard_integration::model::{End, Gpu, Input, Record};

/// Tells a log in the words of the model.
#[derive(Default)]
pub(crate) struct Teller {
    records: Vec<Record>,
    /// The last report of each node that took effect: what comes again is no news.
    reported: BTreeMap<NodeId, u64>,
}

impl Teller {
    /// A command of an entry, and what came of it.
    pub(crate) fn tell(
        &mut self,
        index: u64,
        envelope: &Envelope,
        command: &Command,
        applied: &Applied,
    ) {
        self.asked(index, envelope, command, applied);
        self.happened(index, command, applied);
    }

    /// What was told.
    pub(crate) fn into_records(self) -> Vec<Record> {
        self.records
    }

    fn say(&mut self, index: u64, input: Input) {
        self.records.push(Record { index, input });
    }

    fn asked(&mut self, index: u64, envelope: &Envelope, command: &Command, applied: &Applied) {
        let (Actor::User(_), Some(request)) = (envelope.actor, envelope.request) else { return };
        let Some(call) = call_of(command) else { return };
        if let Some(said) = said(&applied.reply) {
            self.say(index, Input::Asked { request: request.to_u128(), call, said });
        }
    }

    /// What of a command concerns GPUs.
    fn happened(&mut self, index: u64, command: &Command, applied: &Applied) {
        if let (Command::Plan(plan), Ok(Reply::Planned { placements })) = (command, &applied.reply)
        {
            for (placement, taken) in plan.placements.iter().zip(placements) {
                let Ok(allocation) = taken else { continue };
                let gpus = placement.shares.iter().flat_map(|share| {
                    let device = |at| Gpu { node: share.node.0, device: at as u32 };
                    share.gpus.devices.positions().map(device)
                });
                let (job, holder) = (placement.job.0, allocation.0);
                self.say(index, Input::Granted { job, holder, gpus: gpus.collect() });
            }
        }
        for event in &applied.events {
            if let Event::AttemptEnded { allocation, cause, .. } = event {
                self.say(index, Input::Exited { holder: allocation.0, end: end_of(*cause) });
            }
        }
        let (Command::Report(report), Ok(_)) = (command, &applied.reply) else { return };
        for one in &report.reports {
            let last = self.reported.entry(report.node).or_default();
            if one.sequence.0 == *last + 1 {
                *last = one.sequence.0;
                if one.what == ReportKind::Reaped {
                    self.say(index, Input::Reaped(one.assignment.allocation.0));
                }
            }
        }
    }
}

fn end_of(cause: ExitCause) -> End {
    match cause {
        ExitCause::Exited(0) => End::Well,
        ExitCause::Exited(_) => End::Badly,
        // A cancel is known from what was asked; everything else is not the job's fault.
        _ => End::Again,
    }
}

fn call_of(command: &Command) -> Option<Call> {
    let Command::Job(command) = command else { return None };
    match command {
        JobCommand::Submit(submit) => {
            let body = submit.plan.name.strip_prefix("job-").and_then(|body| body.parse().ok());
            Some(Call::Submit(body.expect("the clients name jobs by their bodies")))
        }
        JobCommand::Cancel { job, .. } => Some(Call::Cancel(job.0)),
        JobCommand::Hold { job, .. } => Some(Call::Hold(job.0)),
        JobCommand::Release(job) => Some(Call::Release(job.0)),
        _ => None,
    }
}

/// What the state said; none: nothing, as the leader was replaced.
fn said(reply: &Result<Reply, Rejection>) -> Option<Answer> {
    match reply {
        Ok(Reply::Job(job)) => Some(Answer::Job(job.0)),
        Ok(Reply::Tasks(tasks)) => Some(Answer::Tasks(*tasks)),
        Err(Rejection::NotFound(_)) => Some(Answer::Refused(Refusal::NotFound)),
        Err(Rejection::AlreadyExists(_)) => Some(Answer::Refused(Refusal::Exists)),
        Err(Rejection::WrongState(..)) => Some(Answer::Refused(Refusal::WrongState)),
        Err(Rejection::StaleLeader) => None,
        other => panic!("no client of this test gets {other:?}"),
    }
}
