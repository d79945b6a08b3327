//! A small model of what a cluster does with jobs and GPUs, and the words that its log is told in.
//!
//! Written from what is promised, not from the code that keeps it: jobs of one task on one node,
//! requests that are answered once, GPUs with one holder.

use crate::history::{Answer, Call, JobNumber, Phase, Refusal, RequestNumber, Shown};
use std::collections::BTreeMap;

/// What holds GPUs: an attempt. Its number is never used again.
pub type HolderNumber = u64;

/// A GPU: its node, and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gpu {
    /// The node.
    pub node: u32,
    /// Its place.
    pub device: u32,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its job is done.
    Well,
    /// Its job has failed.
    Badly,
    /// It is nobody's fault: its job gets another one.
    Again,
}

/// One thing that the log says, in the words of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A client asked, and the state said this.
    Asked {
        /// As which request.
        request: RequestNumber,
        /// What.
        call: Call,
        /// What the state said.
        said: Answer,
    },
    /// An attempt holds these now.
    Granted {
        /// Its job.
        job: JobNumber,
        /// The attempt.
        holder: HolderNumber,
        /// All that it holds.
        gpus: Vec<Gpu>,
    },
    /// The ranks of an attempt have ended, or never started because its end was asked for.
    Exited {
        /// The attempt.
        holder: HolderNumber,
        /// How.
        end: End,
    },
    /// Nothing of an attempt is left: what it held is free.
    Reaped(HolderNumber),
}

/// One thing in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its entry; one entry can have many.
    pub index: u64,
    /// What it says.
    pub input: Input,
}

/// A job of the model.
#[derive(Clone, Copy, Debug)]
struct Job {
    phase: Phase,
    held: bool,
}

/// An attempt of the model.
#[derive(Clone, Debug)]
struct Attempt {
    job: JobNumber,
    gpus: Vec<Gpu>,
    ended: bool,
}

/// The model: what is known after some part of the log.
#[derive(Clone, Debug, Default)]
pub struct Model {
    jobs: Vec<Job>,
    /// Requests that had an effect, with what was asked and answered.
    answers: BTreeMap<RequestNumber, (Call, Answer)>,
    attempts: BTreeMap<HolderNumber, Attempt>,
    holders: BTreeMap<Gpu, HolderNumber>,
}

impl Model {
    /// Takes the next thing of the log.
    ///
    /// # Errors
    /// If the model would never do this, or says something else.
    pub fn take(&mut self, input: &Input) -> Result<(), String> {
        match input {
            Input::Asked { request, call, said } => {
                let expected = self.ask(*request, *call);
                if expected != *said {
                    return Err(format!("{call:?} was told {said:?} instead of {expected:?}"));
                }
                Ok(())
            }
            Input::Granted { job, holder, gpus } => self.grant(*job, *holder, gpus),
            Input::Exited { holder, end } => self.exit(*holder, *end),
            Input::Reaped(holder) => self.reap(*holder),
        }
    }

    /// How a job is; none: there is no such job.
    #[must_use]
    pub fn show(&self, job: JobNumber) -> Answer {
        match self.job(job) {
            Some(Job { phase, held }) => Answer::Shown(Shown { phase: *phase, held: *held }),
            None => Answer::Refused(Refusal::NotFound),
        }
    }

    /// Whether a request has had an effect.
    #[must_use]
    pub fn knows(&self, request: RequestNumber) -> bool {
        self.answers.contains_key(&request)
    }

    /// Answers a change: as before, if its request has had an effect.
    fn ask(&mut self, request: RequestNumber, call: Call) -> Answer {
        if let Some((first, answer)) = self.answers.get(&request) {
            return if *first == call { *answer } else { Answer::Refused(Refusal::Exists) };
        }
        let answer = match call {
            Call::Submit(_) => {
                self.jobs.push(Job { phase: Phase::Waiting, held: false });
                Answer::Job(self.jobs.len() as JobNumber - 1)
            }
            Call::Cancel(job) => self.change(job, cancel),
            Call::Hold(job) => self.change(job, hold),
            Call::Release(job) => self.change(job, release),
            Call::Show(job) => self.show(job),
        };
        if !matches!(answer, Answer::Refused(_)) {
            self.answers.insert(request, (call, answer));
        }
        answer
    }

    fn change(&mut self, job: JobNumber, change: fn(&mut Job) -> Option<u32>) -> Answer {
        let Some(job) = self.job_mut(job) else { return Answer::Refused(Refusal::NotFound) };
        if job.phase.is_over() {
            return Answer::Refused(Refusal::WrongState);
        }
        change(job).map_or(Answer::Refused(Refusal::WrongState), Answer::Tasks)
    }

    fn grant(&mut self, job: JobNumber, holder: HolderNumber, gpus: &[Gpu]) -> Result<(), String> {
        if let Some((gpu, other)) =
            gpus.iter().find_map(|gpu| self.holders.get(gpu).map(|other| (gpu, other)))
        {
            return Err(format!("{gpu:?} goes to attempt {holder}, and {other} has it"));
        }
        if self.attempts.contains_key(&holder) {
            return Err(format!("attempt {holder} was granted before"));
        }
        let found = self.job_mut(job).ok_or(format!("job {job} is granted and does not exist"))?;
        if found.phase != Phase::Waiting || found.held {
            return Err(format!("job {job} is granted and is {found:?}"));
        }
        found.phase = Phase::Active;
        for gpu in gpus {
            self.holders.insert(*gpu, holder);
        }
        self.attempts.insert(holder, Attempt { job, gpus: gpus.to_vec(), ended: false });
        Ok(())
    }

    fn exit(&mut self, holder: HolderNumber, end: End) -> Result<(), String> {
        let attempt = self.attempts.get_mut(&holder);
        let attempt = attempt.ok_or(format!("attempt {holder} ends and was never granted"))?;
        if std::mem::replace(&mut attempt.ended, true) {
            return Err(format!("attempt {holder} ends twice"));
        }
        let number = attempt.job;
        let job = self.job_mut(number).ok_or(format!("job {number} is gone"))?;
        // A cancel that was answered stands, however the ranks ended.
        job.phase = match (job.phase, end) {
            (Phase::Stopping, _) => Phase::Cancelled,
            (Phase::Active, End::Well) => Phase::Succeeded,
            (Phase::Active, End::Badly) => Phase::Failed,
            (Phase::Active, End::Again) => Phase::Waiting,
            (phase, _) => {
                return Err(format!("attempt {holder} of job {number} ends at {phase:?}"));
            }
        };
        job.held &= !job.phase.is_over();
        Ok(())
    }

    fn reap(&mut self, holder: HolderNumber) -> Result<(), String> {
        match self.attempts.get(&holder) {
            Some(attempt) if attempt.ended => {
                for gpu in &attempt.gpus {
                    self.holders.remove(gpu);
                }
                Ok(())
            }
            Some(_) => Err(format!("attempt {holder} is reaped before it ended")),
            None => Err(format!("attempt {holder} is reaped and was never granted")),
        }
    }

    fn job(&self, number: JobNumber) -> Option<&Job> {
        self.jobs.get(usize::try_from(number).ok()?)
    }

    fn job_mut(&mut self, number: JobNumber) -> Option<&mut Job> {
        self.jobs.get_mut(usize::try_from(number).ok()?)
    }
}

/// Ends a job. What runs is stopped first.
fn cancel(job: &mut Job) -> Option<u32> {
    match job.phase {
        Phase::Waiting => *job = Job { phase: Phase::Cancelled, held: false },
        _ => job.phase = Phase::Stopping,
    }
    Some(1)
}

/// Keeps a job from starting; of one that runs only the next attempt.
fn hold(job: &mut Job) -> Option<u32> {
    let waited = job.phase == Phase::Waiting && !job.held;
    job.held = true;
    Some(u32::from(waited))
}

/// Lets a job start again.
fn release(job: &mut Job) -> Option<u32> {
    if !job.held {
        return None;
    }
    job.held = false;
    Some(u32::from(job.phase == Phase::Waiting))
}
