//! What clients of a recorded history ask for, and what answers mean in its words.

use crate::chance::Chance;
use yard_common::ErrorCode;
use yard_integration::history::{Answer, Call, ClientNumber, JobNumber, Phase, Refusal, Shown};
use yard_proto::v1;

/// Whether a job of this body can ever start. The others ask for more than any machine has.
pub(crate) fn moves(body: u64) -> bool {
    body.is_multiple_of(2)
}

/// The requests of one client.
pub(crate) struct Requests {
    number: ClientNumber,
    /// Numbers that it goes on under, one by one.
    step: ClientNumber,
    count: u64,
    /// The last change that it asked for, which it may ask for again.
    last: Option<(u128, Call)>,
}

impl Requests {
    /// Of client `number` of `of`.
    pub(crate) fn new(number: ClientNumber, of: ClientNumber) -> Requests {
        Requests { number, step: of, count: 0, last: None }
    }

    /// Who asks.
    pub(crate) fn client(&self) -> ClientNumber {
        self.number
    }

    /// Nobody knows what became of the last one; whoever goes on is somebody else.
    pub(crate) fn go_on_as_another(&mut self) {
        self.number += self.step;
    }

    /// What it asks for next; a change goes as a request. `jobs`: those that it may ask about.
    pub(crate) fn next(&mut self, chance: &mut Chance, jobs: &[JobNumber]) -> (Option<u128>, Call) {
        let call = match (choose(chance, jobs, self.last.is_some()), self.last) {
            (Choice::Change(call), _) => call,
            (Choice::Read(call), _) => return (None, call),
            (Choice::Again, last) => {
                let (request, call) = last.expect("there is one to ask for again");
                return (Some(request), call);
            }
        };
        self.count += 1;
        let request = u128::from(self.number) << 64 | u128::from(self.count);
        self.last = Some((request, call));
        (Some(request), call)
    }
}

/// What a client does next.
#[derive(Clone, Copy, Debug)]
enum Choice {
    /// It asks for something new.
    Change(Call),
    /// It asks for its last change again, under the same request.
    Again,
    /// It looks.
    Read(Call),
}

/// Chooses. `jobs`: those that it may ask about; `has_asked`: whether there is a last change.
fn choose(chance: &mut Chance, jobs: &[JobNumber], has_asked: bool) -> Choice {
    let job = chance.of(jobs);
    Choice::Change(match (chance.within(0, 20), job) {
        (0..3, _) | (_, None) => Call::Submit(chance.within(0, 1_000_000)),
        (3..5, Some(job)) => Call::Cancel(job),
        (5..9, Some(job)) => Call::Hold(job),
        (9..12, Some(job)) => Call::Release(job),
        (12, Some(_)) if has_asked => return Choice::Again,
        (_, Some(job)) => return Choice::Read(Call::Show(job)),
    })
}

/// What a refusal of the state with this code means; none: it says nothing about the job.
pub(crate) fn refusal(code: &str) -> Option<Refusal> {
    let is = |known: ErrorCode| code == known.to_string();
    match () {
        () if is(ErrorCode::NotFound) => Some(Refusal::NotFound),
        () if is(ErrorCode::AlreadyExists) => Some(Refusal::Exists),
        () if is(ErrorCode::WrongState) => Some(Refusal::WrongState),
        () => None,
    }
}

/// How a job is, in the words of a history.
pub(crate) fn shown(told: v1::GetJobResponse) -> (Answer, Option<u64>) {
    let job = told.job.unwrap_or_default();
    let shown = Shown { phase: phase(job.state()), held: job.held.is_some() };
    (Answer::Shown(shown), Some(told.applied_index))
}

/// What a change of a job was answered with.
pub(crate) fn changed(told: v1::JobChanged) -> (Answer, Option<u64>) {
    (Answer::Tasks(told.tasks), Some(told.applied_index))
}

/// What a submit was answered with.
pub(crate) fn submitted(told: v1::SubmitResponse) -> (Answer, Option<u64>) {
    (Answer::Job(told.job_id), Some(told.applied_index))
}

fn phase(state: v1::JobState) -> Phase {
    match state {
        v1::JobState::Queued => Phase::Waiting,
        v1::JobState::Preparing | v1::JobState::Running => Phase::Active,
        v1::JobState::Stopping => Phase::Stopping,
        v1::JobState::Succeeded => Phase::Succeeded,
        v1::JobState::Failed => Phase::Failed,
        v1::JobState::Cancelled => Phase::Cancelled,
        v1::JobState::Unspecified => panic!("a job without a state"),
    }
}
