//! What one command carries along while it is applied.

use crate::command::{Actor, Envelope, Object};
use crate::event::Event;
use yard_common::id::{JobId, LeaderId, LogIndex, RequestId, TaskRange};

/// One command on its way through the state.
pub(crate) struct Context {
    /// Position in the log.
    pub(crate) index: LogIndex,
    /// Who asks.
    pub(crate) actor: Actor,
    /// Who led.
    pub(crate) leader: LeaderId,
    /// As which request.
    pub(crate) request: Option<RequestId>,
    /// The cluster's time.
    pub(crate) now_ms: u64,
    /// The wall clock, for people.
    pub(crate) wall_ms: u64,
    /// What happened, in order.
    pub(crate) events: Vec<Event>,
    /// Jobs of which tasks moved: their state and place in the queue are settled at the end.
    pub(crate) touched: Vec<JobId>,
    /// Tasks that ended for good: arrays that wait for them index by index look at them.
    pub(crate) ended: Vec<(JobId, TaskRange)>,
}

impl Context {
    /// For a command that is about to be applied.
    pub(crate) fn new(index: LogIndex, envelope: &Envelope) -> Context {
        Context {
            index,
            actor: envelope.actor,
            leader: envelope.leader,
            request: envelope.request,
            now_ms: envelope.stamp.cluster_ms,
            wall_ms: envelope.stamp.wall_ms,
            events: Vec::new(),
            touched: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Tells watchers that an object came, changed or went.
    pub(crate) fn changed(&mut self, object: Object) {
        self.events.push(Event::Changed(object));
    }

    /// Notes that the state of a job is to be settled.
    pub(crate) fn touch(&mut self, job: JobId) {
        if self.touched.last() != Some(&job) {
            self.touched.push(job);
        }
    }
}
