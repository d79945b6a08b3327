//! What clients asked, when, and what they were told.
//!
//! Each begin and each end of a call has a place in one order, which is the real one: all clients
//! of a test share a process. A call without an answer may have taken effect or not, and may yet.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Number of a job.
pub type JobNumber = u64;
/// Who calls. Never two calls at a time: who has no answer goes on under another number.
pub type ClientNumber = u32;
/// Made by a client; the same one again is the same request.
pub type RequestNumber = u128;

/// When something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Its place in the order of all moments of a history.
    pub order: u64,
    /// For people: milliseconds of the test's time.
    pub at_ms: u64,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// A new job; bodies that differ have different numbers.
    Submit(u64),
    /// End it.
    Cancel(JobNumber),
    /// Do not start it.
    Hold(JobNumber),
    /// It may start again.
    Release(JobNumber),
    /// How is it?
    Show(JobNumber),
}

impl Call {
    /// The job that it names.
    #[must_use]
    pub fn job(self) -> Option<JobNumber> {
        match self {
            Call::Submit(_) => None,
            Call::Cancel(job) | Call::Hold(job) | Call::Release(job) | Call::Show(job) => Some(job),
        }
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_read(self) -> bool {
        matches!(self, Call::Show(_))
    }
}

/// How far a job is, as far as its owner cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It holds nothing.
    Waiting,
    /// It holds resources.
    Active,
    /// It holds resources, and its end was asked for.
    Stopping,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
    /// Its owner ended it.
    Cancelled,
}

impl Phase {
    /// Whether it is never left.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed | Phase::Cancelled)
    }
}

/// How a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shown {
    /// How far.
    pub phase: Phase,
    /// Whether it may not start.
    pub held: bool,
}

/// Why the state says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// There is no such job.
    NotFound,
    /// The request was used with another body.
    Exists,
    /// The job is over, or not held.
    WrongState,
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// The job, new or found again.
    Job(JobNumber),
    /// Tasks that it took effect on.
    Tasks(u32),
    /// How the job is.
    Shown(Shown),
    /// Nothing was changed.
    Refused(Refusal),
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nobody knows: it may have taken effect, or may yet.
    Unknown,
    /// For sure it had no effect and never will.
    Failed,
    /// It was answered.
    Answered {
        /// What.
        answer: Answer,
        /// Everybody who has applied this entry of the log knows it. A refusal names none.
        index: Option<u64>,
    },
}

/// A call with what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who called.
    pub client: ClientNumber,
    /// As which request; none for a read.
    pub request: Option<RequestNumber>,
    /// What.
    pub call: Call,
    /// When it began.
    pub began: Moment,
    /// When it ended; none: it has not.
    pub ended: Option<Moment>,
    /// What came of it.
    pub outcome: Outcome,
}

impl Operation {
    /// The answer, and the entry that it named.
    #[must_use]
    pub fn answered(&self) -> Option<(Answer, Option<u64>)> {
        match self.outcome {
            Outcome::Answered { answer, index } => Some((answer, index)),
            Outcome::Unknown | Outcome::Failed => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation { client, request, call, began, ended, outcome } = self;
        write!(f, "[{:>4} {:>6} ms] client {client}: {call:?}", began.order, began.at_ms)?;
        if let Some(request) = request {
            write!(f, " as {request:x}")?;
        }
        match ended {
            Some(ended) => write!(f, " -> [{:>4} {:>6} ms] ", ended.order, ended.at_ms)?,
            None => write!(f, " -> ")?,
        }
        match outcome {
            Outcome::Unknown => write!(f, "no answer"),
            Outcome::Failed => write!(f, "failed"),
            Outcome::Answered { answer, index: Some(index) } => write!(f, "{answer:?} at {index}"),
            Outcome::Answered { answer, index: None } => write!(f, "{answer:?}"),
        }
    }
}

/// All calls of a test, in the order in which they began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The calls.
    pub operations: Vec<Operation>,
}

impl History {
    /// How many calls were answered.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.operations.iter().filter(|operation| operation.answered().is_some()).count()
    }

    /// How many calls have an outcome that nobody knows.
    #[must_use]
    pub fn unknown(&self) -> usize {
        let unknown = |operation: &&Operation| operation.outcome == Outcome::Unknown;
        self.operations.iter().filter(unknown).count()
    }

    /// What is wrong with the history itself: then it proves nothing, whatever a checker says.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), String> {
        let mut moments = BTreeMap::new();
        let mut busy: BTreeMap<ClientNumber, Option<u64>> = BTreeMap::new();
        let mut last = None;
        for operation in &self.operations {
            let Operation { client, request, call, began, ended, outcome } = operation;
            for moment in std::iter::once(began).chain(ended) {
                if moments.insert(moment.order, ()).is_some() {
                    return Err(format!("two moments in one place: {operation}"));
                }
            }
            if last.is_some_and(|last| last > began.order) {
                return Err(format!("it began before the one in front of it: {operation}"));
            }
            last = Some(began.order);
            if ended.is_some_and(|ended| ended.order < began.order) {
                return Err(format!("it ended before it began: {operation}"));
            }
            if ended.is_none() != (*outcome == Outcome::Unknown) {
                return Err(format!("only what has no end has no outcome: {operation}"));
            }
            if request.is_none() != call.is_read() {
                return Err(format!("a change has a request, a read has none: {operation}"));
            }
            let before = busy.insert(*client, ended.map(|ended| ended.order));
            if before.is_some_and(|free| free.is_none_or(|free| free > began.order)) {
                return Err(format!("its client was busy: {operation}"));
            }
        }
        Ok(())
    }
}

/// Writes a history down while it happens. Clones write the same one.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Recording>>);

#[derive(Debug, Default)]
struct Recording {
    operations: Vec<Operation>,
    moments: u64,
}

/// A call under way.
#[derive(Debug)]
#[must_use]
pub struct Begun(usize);

impl Recorder {
    fn with<T>(&self, work: impl FnOnce(&mut Recording) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A call begins. Its outcome is unknown until it is told.
    pub fn begin(
        &self,
        client: ClientNumber,
        request: Option<RequestNumber>,
        call: Call,
        at_ms: u64,
    ) -> Begun {
        self.with(|recording| {
            let began = recording.moment(at_ms);
            let (ended, outcome) = (None, Outcome::Unknown);
            recording.operations.push(Operation { client, request, call, began, ended, outcome });
            Begun(recording.operations.len() - 1)
        })
    }

    /// A call ends. One with an unknown outcome never does.
    ///
    /// # Panics
    /// If the outcome is unknown.
    pub fn end(&self, begun: Begun, outcome: Outcome, at_ms: u64) {
        assert_ne!(outcome, Outcome::Unknown, "what is unknown has not ended");
        self.with(|recording| {
            let ended = recording.moment(at_ms);
            let operation = &mut recording.operations[begun.0];
            (operation.ended, operation.outcome) = (Some(ended), outcome);
        });
    }

    /// Something happens that is no call.
    #[must_use]
    pub fn moment(&self, at_ms: u64) -> Moment {
        self.with(|recording| recording.moment(at_ms))
    }

    /// What was written so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.with(|recording| History { operations: recording.operations.clone() })
    }
}

impl Recording {
    fn moment(&mut self, at_ms: u64) -> Moment {
        self.moments += 1;
        Moment { order: self.moments, at_ms }
    }
}
