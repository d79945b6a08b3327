//! Whether the answers of a history are those of the model, in the order of the log.
//!
//! The log tells the order, so this costs little. What it shows: the state answers what the model
//! answers; what a client was told is what the state said, or the model at that entry; an effect
//! that was told is in the log, once, and every later read has it; entries come in the order of
//! real time; and nothing is in the log that nobody asked for. What it cannot show is a lie about
//! indices that hides a stale answer: that is for [`crate::linear`].

use crate::history::{Answer, Call, History, Operation, Outcome, RequestNumber};
use crate::model::{Input, Model, Record};
use std::collections::BTreeMap;
use std::fmt;

/// What a history must have in it to prove anything.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Calls that were answered, at least.
    pub answered_min: usize,
    /// Calls whose outcome nobody knows, at most.
    pub unknown_max: usize,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The history itself, or too little is in it.
    History(String),
    /// The log, as the model sees it.
    Log {
        /// The entry.
        index: u64,
        /// Why.
        why: String,
    },
    /// What a client was told.
    Told {
        /// The call, as people read it.
        operation: String,
        /// Why.
        why: String,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::History(why) => write!(f, "the history proves nothing: {why}"),
            Wrong::Log { index, why } => write!(f, "entry {index} of the log: {why}"),
            Wrong::Told { operation, why } => write!(f, "{why}\n  {operation}"),
        }
    }
}

/// A request in the log.
#[derive(Clone, Copy, Debug)]
struct Said {
    index: u64,
    call: Call,
    answer: Answer,
}

/// Checks a history against the log that all members agree on.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(history: &History, log: &[Record], needs: Needs) -> Result<(), Wrong> {
    history.check().map_err(Wrong::History)?;
    enough(history, needs)?;
    replay(log)?;
    let said = requests(log);
    everything_was_asked_for(history, &said)?;
    let (firsts, floors) = (firsts(history), floors(history, log, &said));
    let views = views(history, log, &floors);
    for (at, operation) in history.operations.iter().enumerate() {
        let why = match operation.request {
            Some(request) => {
                let said = said.get(&request).map_or(&[][..], Vec::as_slice);
                let first = firsts.get(&request) == Some(&at);
                in_time(said, first, floors[at]).and_then(|()| {
                    let stale = settled_below(operation, floors[at], log);
                    changed(operation, said).and(stale)
                })
            }
            None => settled_below(operation, floors[at], log)
                .and_then(|()| shown(operation, views.get(&at))),
        };
        why.map_err(|why| Wrong::Told { operation: operation.to_string(), why })?;
    }
    Ok(())
}

fn enough(history: &History, needs: Needs) -> Result<(), Wrong> {
    let (answered, unknown) = (history.answered(), history.unknown());
    if answered < needs.answered_min {
        let why = format!("{answered} calls were answered, {} are needed", needs.answered_min);
        return Err(Wrong::History(why));
    }
    if unknown > needs.unknown_max {
        let why = format!("of {unknown} calls nobody knows what came, {} may", needs.unknown_max);
        return Err(Wrong::History(why));
    }
    Ok(())
}

/// The state said what the model says.
fn replay(log: &[Record]) -> Result<(), Wrong> {
    let mut model = Model::default();
    let mut last = 0;
    for Record { index, input } in log {
        let wrong = |why| Wrong::Log { index: *index, why };
        if *index < last {
            return Err(wrong(format!("it comes after entry {last}")));
        }
        last = *index;
        model.take(input).map_err(wrong)?;
    }
    Ok(())
}

/// What the log says of each request, in its order.
fn requests(log: &[Record]) -> BTreeMap<RequestNumber, Vec<Said>> {
    let mut said: BTreeMap<RequestNumber, Vec<Said>> = BTreeMap::new();
    for Record { index, input } in log {
        if let Input::Asked { request, call, said: answer } = input {
            let one = Said { index: *index, call: *call, answer: *answer };
            said.entry(*request).or_default().push(one);
        }
    }
    said
}

fn everything_was_asked_for(
    history: &History,
    said: &BTreeMap<RequestNumber, Vec<Said>>,
) -> Result<(), Wrong> {
    let mut asked: BTreeMap<RequestNumber, Vec<Call>> = BTreeMap::new();
    for operation in &history.operations {
        if let Some(request) = operation.request {
            asked.entry(request).or_default().push(operation.call);
        }
    }
    for (request, all) in said {
        for one in all {
            if !asked.get(request).is_some_and(|calls| calls.contains(&one.call)) {
                let why = format!("nobody asked for {:?} as {request:x}", one.call);
                return Err(Wrong::Log { index: one.index, why });
            }
        }
    }
    Ok(())
}

/// The last entry with something in it, up to an index: entries without commands leave no trace.
fn settle(log: &[Record], index: u64) -> u64 {
    let behind = log.partition_point(|record| record.index <= index);
    behind.checked_sub(1).map_or(0, |last| log[last].index)
}

/// For each call, how far the log was known to be when it began: everything that was told before.
fn floors(
    history: &History,
    log: &[Record],
    said: &BTreeMap<RequestNumber, Vec<Said>>,
) -> Vec<u64> {
    let mut ends: Vec<(u64, u64)> = Vec::new();
    for operation in &history.operations {
        let (Some(ended), Some((answer, index))) = (operation.ended, operation.answered()) else {
            continue;
        };
        // An answer that names no entry comes of one of these, and not of an earlier one.
        let said = operation.request.and_then(|request| said.get(&request));
        let first = || said?.iter().find(|one| one.answer == answer).map(|one| one.index);
        ends.extend(index.or_else(first).map(|index| (ended.order, settle(log, index))));
    }
    ends.sort_unstable();
    let (mut next, mut floor) = (0, 0);
    let operations = history.operations.iter();
    let floor_of = |operation: &Operation| {
        while next < ends.len() && ends[next].0 < operation.began.order {
            floor = floor.max(ends[next].1);
            next += 1;
        }
        floor
    };
    operations.map(floor_of).collect()
}

/// The first call of each request, by position.
fn firsts(history: &History) -> BTreeMap<RequestNumber, usize> {
    let mut firsts = BTreeMap::new();
    for (at, operation) in history.operations.iter().enumerate() {
        if let Some(request) = operation.request {
            firsts.entry(request).or_insert(at);
        }
    }
    firsts
}

/// What the model shows to each read that was answered, at the entry that it named. One that found
/// no job names none: then there was none at the least that it had to know.
fn views(history: &History, log: &[Record], floors: &[u64]) -> BTreeMap<usize, Answer> {
    let mut reads = Vec::new();
    for (at, operation) in history.operations.iter().enumerate() {
        if let (Some(job), true, Some((_, index))) =
            (operation.call.job(), operation.call.is_read(), operation.answered())
        {
            reads.push((index.unwrap_or(floors[at]), at, job));
        }
    }
    reads.sort_unstable();
    let (mut model, mut next) = (Model::default(), 0);
    let mut views = BTreeMap::new();
    for (index, at, job) in reads {
        while next < log.len() && log[next].index <= index {
            model.take(&log[next].input).expect("it was replayed before");
            next += 1;
        }
        views.insert(at, model.show(job));
    }
    views
}

/// Nothing of a request is in the log up to what was told before its first call began.
fn in_time(said: &[Said], first: bool, floor: u64) -> Result<(), String> {
    match said.iter().find(|one| first && one.index <= floor) {
        Some(early) => {
            Err(format!("entry {} has it, and entry {floor} was told before", early.index))
        }
        None => Ok(()),
    }
}

/// What is told comes of an entry that is not older than what was told before.
fn settled_below(operation: &Operation, floor: u64, log: &[Record]) -> Result<(), String> {
    match operation.answered() {
        Some((_, Some(index))) if settle(log, index) < floor => {
            Err(format!("stale: told of entry {index}, and entry {floor} was told before"))
        }
        Some(_) | None => Ok(()),
    }
}

/// A change: what was told is what the state said to this very request.
fn changed(operation: &Operation, said: &[Said]) -> Result<(), String> {
    let mut own = said.iter().filter(|one| one.call == operation.call);
    match operation.outcome {
        Outcome::Unknown => Ok(()),
        Outcome::Failed => match own.find(|one| !matches!(one.answer, Answer::Refused(_))) {
            Some(effect) => Err(format!("it failed for sure, and entry {} has it", effect.index)),
            None => Ok(()),
        },
        Outcome::Answered { answer, index } => match own.find(|one| one.answer == answer) {
            Some(found) if index.is_some_and(|index| found.index > index) => {
                Err(format!("it was told of entry {index:?}, and it is entry {}", found.index))
            }
            Some(_) => Ok(()),
            None => Err(format!("the state never said so; it said {said:?}")),
        },
    }
}

/// A read: the model shows the same at that entry.
fn shown(operation: &Operation, expected: Option<&Answer>) -> Result<(), String> {
    match (operation.answered(), expected) {
        (Some((answer, index)), Some(expected)) if answer != *expected => {
            Err(format!("at entry {index:?} it is {expected:?}"))
        }
        _ => Ok(()),
    }
}
