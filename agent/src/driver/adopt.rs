//! The start of a driver: which shims are there, and what they have done meanwhile.

use super::shims::Shim;
use crate::paths::{Paths, from_tag};
use crate::shim::RECORD;
use crate::shim::message::FromShim;
use crate::shim::record::History;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use yard_common::id::BootId;
use yard_core::agent::{AssignmentId, Found, Kept, Order, Record};

/// How long a living shim may take to answer. One that does not is taken by its record, and
/// connected to later.
const ANSWER: Duration = Duration::from_secs(1);

/// What is there of earlier agents.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    /// Shims, living and dead.
    pub(super) shims: BTreeMap<AssignmentId, Shim>,
    /// What the automaton is told of them.
    pub(super) found: Vec<Found>,
}

/// Looks at every directory of a shim.
pub(super) fn look(paths: &Paths, kept: &Kept, boot: BootId) -> std::io::Result<Adopted> {
    let mut adopted = Adopted::default();
    for entry in std::fs::read_dir(paths.shims())? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(from_tag) else { continue };
        let mut shim = Shim::found(entry.path());
        let alive = !shim.lock_is_free() && answers(&mut shim);
        let record = entry.path().join(RECORD);
        let record_of = kept.records.get(&id);
        if !alive && !record.exists() {
            // It never lived, so it never got an order.
            if record_of.is_none() {
                let _ = std::fs::remove_dir_all(entry.path());
            } else if kept.boot == boot && record_of.is_some_and(is_expected) {
                // The agent died between writing and making it, or while it was checked for: it is
                // told anew to prepare it, and whatever comes before that comes again. No lock and
                // no record are the witnesses that nothing ran.
                adopted.found.push(History::default().found(id, true, boot, 0, None, 0));
            }
            continue;
        }
        let chain_len = record_of.map_or(0, |record| record.assignment.chain.len());
        let ordered =
            record_of.filter(|record| record.order == Order::Start).map(|record| record.len);
        let ended = record_of.map_or(0, |record| record.ended);
        // An unreadable record tells nothing: everything may have started.
        let history = History::read(&record).unwrap_or(History {
            damaged: true,
            boot: Some(boot),
            ..History::default()
        });
        adopted.found.push(history.found(id, alive, boot, chain_len, ordered, ended));
        if !alive {
            shim = Shim::dead(entry.path());
        }
        adopted.shims.insert(id, shim);
    }
    Ok(adopted)
}

/// Whether the agent had ordered a shim that still has something to do.
fn is_expected(record: &Record) -> bool {
    record.order > Order::Nothing && record.is_live() && record.stop.is_none()
}

/// Whether the shim lives. Waits for its first word, which comes after it has heard all that an
/// earlier agent said.
fn answers(shim: &mut Shim) -> bool {
    let end = Instant::now() + ANSWER;
    while Instant::now() < end {
        if shim.lock_is_free() {
            return false;
        }
        if shim.wire().is_none() && shim.connect().is_err() {
            // It may be about to listen.
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let Some(wire) = shim.wire() else { continue };
        let mut fds = [PollFd::new(wire.fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::from(20u8));
        let mut has_answered = false;
        for message in shim.receive() {
            match message {
                FromShim::State(_) => has_answered = true,
                FromShim::Stuck(text) => shim.stuck = Some(text),
                // What else it says is in its record too.
                FromShim::Prepared
                | FromShim::Failed(_)
                | FromShim::Started(_)
                | FromShim::Ended(..)
                | FromShim::Cut(_)
                | FromShim::Reaped
                | FromShim::Ready => {}
            }
        }
        if has_answered {
            return true;
        }
    }
    true
}
