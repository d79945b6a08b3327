//! Watches: events from an index on, until the watcher goes.

use super::Api;
use super::data::name_of;
use super::gate::Who;
use super::read::View;
use super::refusal::Refusal;
use crate::member::recent::{Happened, Page};
use crate::sessions::Answers;
use futures_util::stream;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::Status;
use yard_common::id::{AllocationId, JobId, LogIndex, PrincipalId, WorkspaceId};
use yard_common::limits::{WATCH_EVENTS_MAX, WATCH_JOBS_MAX};
use yard_core::command::Object;
use yard_core::event::Event;
use yard_proto::v1::watch_response::What;
use yard_proto::{convert, v1};

/// How often a quiet watch is told how far it is.
const QUIET: Duration = Duration::from_secs(3);

/// What a watcher wants to know.
enum Wanted {
    /// Jobs that it may see: these, or those of a workspace.
    Jobs { ids: BTreeSet<JobId>, workspace: Option<WorkspaceId> },
    /// Everything of these kinds.
    All(Vec<v1::EventKind>),
}

/// One watch.
struct Watch {
    api: Api,
    user: PrincipalId,
    wanted: Wanted,
    /// The position that comes next.
    next: u64,
    seen: watch::Receiver<LogIndex>,
    out: VecDeque<v1::WatchResponse>,
    /// When it must be told how far it is, if nothing else is told before.
    due: Instant,
    /// Whether it was told all that had happened when it began.
    is_level: bool,
    over: bool,
}

impl Api {
    /// Events of jobs.
    pub(super) async fn watch_jobs(
        &self,
        who: &Who,
        request: v1::WatchJobsRequest,
    ) -> Result<Answers<v1::WatchResponse>, Refusal> {
        if request.job_ids.len() > WATCH_JOBS_MAX {
            let problem = format!("{} jobs; at most {WATCH_JOBS_MAX}", request.job_ids.len());
            return Err(Refusal::invalid("job_ids", &problem));
        }
        let view = self.view(who, None).await?;
        let workspace = match request.workspace.as_str() {
            "" => None,
            name => Some(view.workspace(name)?),
        };
        let ids: Result<BTreeSet<JobId>, Refusal> =
            request.job_ids.iter().map(|id| view.job(*id).map(|(id, _)| id)).collect();
        let wanted = Wanted::Jobs { ids: ids?, workspace };
        let answers = self.watch_from(&view, request.from_index, wanted);
        Ok(self.while_admitted(who, None, answers))
    }

    /// Everything that happens.
    pub(super) async fn watch_all(
        &self,
        who: &Who,
        request: v1::EventsRequest,
    ) -> Result<Answers<v1::WatchResponse>, Refusal> {
        let view = self.view(who, None).await?;
        // A kind of a newer version matches nothing here.
        let kinds = request.kinds().collect();
        let answers = self.watch_from(&view, request.from_index, Wanted::All(kinds));
        Ok(self.while_admitted(who, None, answers))
    }

    fn watch_from(
        &self,
        view: &View,
        from_index: u64,
        wanted: Wanted,
    ) -> Answers<v1::WatchResponse> {
        let next = if from_index == 0 { view.applied_index() + 1 } else { from_index };
        let watch = Watch {
            api: self.clone(),
            user: view.user,
            wanted,
            next,
            seen: self.recent.seen(),
            out: VecDeque::new(),
            due: Instant::now() + QUIET,
            is_level: false,
            over: false,
        };
        Box::pin(stream::unfold(watch, |mut watch| async move {
            let response = watch.next().await?;
            Some((Ok::<_, Status>(response), watch))
        }))
    }
}

impl Watch {
    async fn next(&mut self) -> Option<v1::WatchResponse> {
        loop {
            if let Some(response) = self.out.pop_front() {
                return Some(response);
            }
            if self.over {
                return None;
            }
            self.seen.borrow_and_update();
            let before = self.next;
            match self.api.recent.from(self.next, WATCH_EVENTS_MAX) {
                Page::Some(happened, next) => {
                    self.next = next;
                    self.tell(&happened);
                }
                Page::Compacted(first_index) => {
                    self.over = true;
                    self.say(What::Compacted(v1::Compacted { first_index }));
                }
            }
            if !self.out.is_empty() {
                continue;
            }
            // Also while much happens that is nothing to this watch.
            if Instant::now() >= self.due {
                let applied_index = self.next - 1;
                self.say(What::Progress(v1::Progress { applied_index }));
            } else if self.next == before {
                match std::mem::replace(&mut self.is_level, true) {
                    true => self.wait().await,
                    // Who wants what has happened so far need not wait to know that this is all.
                    false => {
                        self.say(What::Progress(v1::Progress { applied_index: self.next - 1 }))
                    }
                }
            }
        }
    }

    /// Waits for something new, or until it must be told how far the watch is.
    async fn wait(&mut self) {
        let stop = self.api.stop.clone();
        tokio::select! {
            () = stop.cancelled() => self.over = true,
            () = sleep_until(self.due) => {}
            changed = self.seen.changed() => self.over = changed.is_err(),
        }
    }

    fn say(&mut self, what: What) {
        self.due = Instant::now() + QUIET;
        self.out.push_back(v1::WatchResponse { what: Some(what) });
    }

    fn tell(&mut self, happened: &[Happened]) {
        if happened.is_empty() {
            return;
        }
        let (_, state) = self.api.raft.state();
        let view = self.api.view_of(state, self.user);
        for one in happened {
            let mut position = 0;
            for event in &one.events {
                // Counted whether told or not, so that every watch has the same positions.
                let told = self.wants(&view, event);
                for mut what in convert::event(&view.state, event) {
                    if told {
                        self.place(&view, &mut what);
                        let event = convert::at(one.index, position, one.at, what);
                        self.say(What::Event(event));
                    }
                    position += 1;
                }
            }
        }
    }

    /// Adds where an attempt is, or was: what has ended is not in the state any more.
    fn place(&self, view: &View, what: &mut v1::event::What) {
        if let v1::event::What::Granted(granted) = what
            && granted.nodes.is_empty()
        {
            let nodes = self.api.attempts.nodes_of(AllocationId(granted.allocation_id));
            granted.nodes = nodes.into_iter().map(|node| name_of(&view.state, node)).collect();
        }
    }

    /// The job that an event is about.
    fn job_of(&self, event: &Event) -> Option<JobId> {
        match event {
            Event::Changed(Object::Job(job)) | Event::Forgotten(job) => Some(*job),
            Event::Job { job, .. }
            | Event::Tasks { job, .. }
            | Event::Granted { job, .. }
            | Event::AttemptEnded { job, .. }
            | Event::Silence { job, .. } => Some(*job),
            // It is not in the state any more.
            Event::Freed(allocation) | Event::ShareLost { allocation, .. } => {
                self.api.attempts.job_of(*allocation)
            }
            Event::Changed(_) | Event::Node { .. } | Event::Desired { .. } => None,
        }
    }

    fn wants(&self, view: &View, event: &Event) -> bool {
        match &self.wanted {
            Wanted::All(kinds) => kinds.is_empty() || kinds.contains(&kind_of(event)),
            Wanted::Jobs { ids, workspace } => {
                let Some(id) = self.job_of(event) else { return false };
                let asked = ids.is_empty() || ids.contains(&id);
                let job = view.state.jobs.get(id);
                // One that was forgotten can be told of only to those who named it.
                let seen = job.map_or(ids.contains(&id), |job| {
                    view.sees(job.workspace) && workspace.is_none_or(|only| only == job.workspace)
                });
                asked && seen
            }
        }
    }
}

/// The kind of an event.
fn kind_of(event: &Event) -> v1::EventKind {
    match event {
        Event::Changed(_) | Event::Desired { .. } => v1::EventKind::Objects,
        Event::Job { .. } | Event::Forgotten(_) => v1::EventKind::Jobs,
        Event::Tasks { .. } => v1::EventKind::Tasks,
        Event::Silence { .. } | Event::ShareLost { .. } => v1::EventKind::Attempts,
        Event::Granted { .. } | Event::AttemptEnded { .. } | Event::Freed(_) => {
            v1::EventKind::Attempts
        }
        Event::Node { .. } => v1::EventKind::Nodes,
    }
}
