//! Reads: the state as it was after everything that was answered before the call, and who may see
//! what of it.

use super::Api;
use super::gate::Who;
use super::refusal::Refusal;
use crate::member::barrier::BarrierError;
use std::time::Duration;
use tokio::time::timeout;
use yard_common::id::{JobId, LogIndex, PrincipalId, WorkspaceId};
use yard_core::command::{Role, Stamp};
use yard_core::state::{Job, State};
use yard_proto::{convert, v1};

/// How long a read waits until this member is as far as it must be.
const CATCH_UP: Duration = Duration::from_secs(5);

/// A state that is not stale, and who looks at it.
pub(super) struct View {
    /// The state.
    pub(super) state: State,
    /// Who looks.
    pub(super) user: PrincipalId,
    /// The time, which runs on while nothing is applied. For people: nothing decides by it.
    now: Stamp,
}

impl Api {
    /// The state for a user, as it is here: for what apply checks again.
    pub(super) fn glance(&self, who: &Who) -> Result<View, Refusal> {
        let user = who.user()?;
        let (_, state) = self.raft.state();
        Ok(self.view_of(state, user))
    }

    /// The state for a user, as fresh as anybody has seen it.
    pub(super) async fn view(&self, who: &Who, page: Option<&v1::Page>) -> Result<View, Refusal> {
        let user = who.user()?;
        let state = self.fresh(LogIndex(convert::page::index_min(page))).await?;
        Ok(self.view_of(state, user))
    }

    /// A user's look at a state.
    pub(super) fn view_of(&self, state: State, user: PrincipalId) -> View {
        let now = self.now(&state);
        View { state, user, now }
    }

    /// The time, as a leader keeps it. Others go by the time since the last command.
    pub(super) fn now(&self, state: &State) -> Stamp {
        let wall_ms = self.env.wall_ms();
        let since_ms = wall_ms.saturating_sub(state.clock.wall_ms);
        let cluster_ms = self.raft.cluster_ms();
        let cluster_ms = cluster_ms.unwrap_or(state.now_ms().saturating_add(since_ms));
        Stamp { cluster_ms: cluster_ms.max(state.now_ms()), wall_ms }
    }

    /// The state, as fresh as anybody has seen it, and at least as far as this.
    pub(super) async fn fresh(&self, least: LogIndex) -> Result<State, Refusal> {
        let index = self.barrier.index().await?.max(least);
        match timeout(CATCH_UP, self.applied(index)).await {
            Ok(true) => Ok(self.raft.state().1),
            Ok(false) => Err(BarrierError::Stopped.into()),
            Err(_) => Err(Refusal::unavailable("this member is behind; ask another one")),
        }
    }
}

impl View {
    /// Whether the user has a role in a workspace.
    pub(super) fn has(&self, role: Role, workspace: WorkspaceId) -> bool {
        self.state.principals.get(self.user).is_some_and(|user| user.has(role, Some(workspace)))
    }

    /// Whether a job is the user's own, or the user has this role where the job is.
    pub(super) fn owns_or_is(&self, job: &Job, role: Role) -> bool {
        let least = if job.owner == self.user { Role::User } else { role };
        self.has(least, job.workspace)
    }

    /// Whether the user has a role in the whole cluster.
    pub(super) fn has_everywhere(&self, role: Role) -> bool {
        self.state.principals.get(self.user).is_some_and(|user| user.has(role, None))
    }

    /// Whether the user may know that a workspace, and what is in it, exists.
    pub(super) fn sees(&self, workspace: WorkspaceId) -> bool {
        self.has(Role::Viewer, workspace)
    }

    /// Whether the user may know that a job exists.
    pub(super) fn sees_job(&self, id: JobId) -> bool {
        self.state.jobs.get(id).is_some_and(|job| self.sees(job.workspace))
    }

    /// A job that the user may see. One in a foreign workspace does not exist.
    pub(super) fn job(&self, number: u64) -> Result<(JobId, &Job), Refusal> {
        let id = convert::job_id(&self.state, number)?;
        let job = self.state.jobs.get(id).filter(|job| self.sees(job.workspace));
        job.map(|job| (id, job)).ok_or_else(|| Refusal::no_such("job", number))
    }

    /// A workspace that the user may see.
    pub(super) fn workspace(&self, name: &str) -> Result<WorkspaceId, Refusal> {
        let id = convert::workspace_id(&self.state, name)?;
        if self.sees(id) { Ok(id) } else { Err(Refusal::no_such("workspace", name)) }
    }

    /// Where the log is.
    pub(super) fn applied_index(&self) -> u64 {
        self.state.applied.0
    }

    /// What is told about a page that was read. `next_key`: of its last row, if there are more.
    pub(super) fn page_info(&self, next_key: Option<String>) -> v1::PageInfo {
        v1::PageInfo { now: self.now(), ..convert::page::info(&self.state, next_key) }
    }

    /// The cluster's time, in milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        self.now.cluster_ms
    }

    /// The cluster's time.
    pub(super) fn now(&self) -> Option<v1::Stamp> {
        Some(self.now.into())
    }
}

/// A page of rows, in the order of their keys: `rows` begins behind the key of the page before.
/// Returns the rows, and the key to go on behind.
pub(super) fn page_of<K: ToString, T>(
    rows: impl Iterator<Item = (K, T)>,
    page: Option<&v1::Page>,
) -> (Vec<T>, Option<String>) {
    let rows_max = convert::page::rows_max(page);
    let mut found = Vec::new();
    let mut last = None;
    for (key, row) in rows {
        if found.len() >= rows_max {
            return (found, last);
        }
        last = Some(key.to_string());
        found.push(row);
    }
    (found, None)
}
