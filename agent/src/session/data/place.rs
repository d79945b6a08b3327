//! Which assignment a question is about: where its files are, which ranks it has, and whether they
//! have ended.

use super::DataError;
use crate::launch::{Assignment, Orders};
use crate::logs::{AttemptLogs, LogError, Stream, Writer};
use crate::paths::{Paths, tag};
use crate::session::Shared;
use crate::shim::DETAIL;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;
use yard_common::id::{AllocationId, AttemptNumber, JobId, TaskIndex};
use yard_common::limits::{DETAIL_BYTES_MAX, RANKS_PER_NODE_MAX};
use yard_common::state::AssignmentState;
use yard_core::agent::AssignmentId;
use yard_proto::internal::AssignmentRef;
use yard_runtime::files;

/// A note is one number.
const NOTE_BYTES_MAX: usize = 32;

/// One task of one assignment.
#[derive(Clone, Debug)]
pub(super) struct Place {
    shared: Arc<Shared>,
    pub(super) id: AssignmentId,
    pub(super) job: JobId,
    pub(super) task: TaskIndex,
    pub(super) attempt: AttemptNumber,
    /// Its position in the chain, once that is known.
    position: Option<u32>,
}

/// How far a task has come here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nobody here has heard of it.
    Unknown,
    /// It has not ended.
    Going,
    /// Its ranks have ended.
    Over,
}

impl Place {
    pub(super) fn new(
        shared: &Arc<Shared>,
        wanted: Option<AssignmentRef>,
    ) -> Result<Place, DataError> {
        let wanted = wanted.ok_or_else(|| DataError::not_found("no assignment is named"))?;
        let group = u8::try_from(wanted.group)
            .map_err(|_| DataError::not_found(format!("no group {}", wanted.group)))?;
        let allocation = AllocationId(wanted.allocation_id);
        Ok(Place {
            shared: shared.clone(),
            id: AssignmentId { allocation, group },
            job: JobId(wanted.job_id),
            task: wanted.task_index,
            attempt: AttemptNumber(wanted.attempt),
            position: None,
        })
    }

    /// Where its output is.
    pub(super) fn logs(&self) -> PathBuf {
        self.shared.paths.attempt_logs(self.job, self.task, self.attempt)
    }

    /// The scratch directory of its assignment.
    pub(super) fn scratch(&self) -> PathBuf {
        self.shared.paths.scratch(self.job, self.id)
    }

    /// What its shim was told; none once it is released.
    fn orders(&self) -> Option<Orders> {
        let path = self.shared.paths.shim(self.id).join(DETAIL);
        Orders::from_bytes(&files::read(&path, 2 * DETAIL_BYTES_MAX).ok()?).ok()
    }

    /// The user of its ranks, as far as that is known.
    pub(super) fn owner(&self) -> Option<u32> {
        Some(std::fs::symlink_metadata(self.scratch()).ok()?.uid())
    }

    /// The first of its ranks on this node, by number in the gang; none while nothing tells.
    ///
    /// What its shim was told goes when the assignment is released, a note stays beside the
    /// output. Without one, all output of the attempt on this node is of one share, and its ranks
    /// follow each other.
    pub(super) fn first_rank(&self) -> Result<Option<u32>, DataError> {
        if let Some(orders) = self.orders() {
            return Ok(Some(orders.assignment.first_rank()));
        }
        let note = note_path(&self.shared.paths, self.id, self.job);
        if let Ok(text) = files::read_text(&note, NOTE_BYTES_MAX)
            && let Ok(first) = text.trim().parse()
        {
            return Ok(Some(first));
        }
        let logs = AttemptLogs::new(&self.shared.paths, self.job, self.task, self.attempt);
        let streams = match logs.streams() {
            Ok(streams) => streams,
            Err(LogError::Missing) => return Ok(None),
            Err(error) => return Err(DataError::io(error.to_string())),
        };
        let rank = |stream: &Stream| match stream.writer {
            Writer::Rank(rank) => Some(rank),
            Writer::Launcher | Writer::Prepare => None,
        };
        Ok(streams.iter().filter_map(rank).min())
    }

    /// How far it has come.
    pub(super) async fn progress(&mut self) -> Result<Progress, DataError> {
        let shares = self.shared.driver.shares().await;
        let (_, shares) = shares.map_err(|error| DataError::io(error.to_string()))?;
        let Some(share) = shares.into_iter().find(|share| share.id == self.id) else {
            let known = self.logs().exists();
            return Ok(if known { Progress::Over } else { Progress::Unknown });
        };
        let all_over = match share.state {
            AssignmentState::Exited | AssignmentState::Gone | AssignmentState::Reaped => true,
            AssignmentState::Preparing | AssignmentState::Ready | AssignmentState::Running => false,
        };
        if all_over {
            return Ok(Progress::Over);
        }
        if self.position.is_none() {
            let here = self.clone();
            self.position = super::blocking(move || Ok(here.find_position())).await?;
        }
        let ended = self.position.is_some_and(|position| share.ended > position);
        Ok(if ended { Progress::Over } else { Progress::Going })
    }

    fn find_position(&self) -> Option<u32> {
        let orders = self.orders()?;
        let at = orders.chain.tasks().position(|one| one == (self.task, self.attempt))?;
        u32::try_from(at).ok()
    }

    /// A local rank's number in the gang.
    pub(super) fn global_rank(first: u32, local_rank: u32) -> Result<u32, DataError> {
        if local_rank >= RANKS_PER_NODE_MAX {
            return Err(DataError::not_found(format!(
                "no node has a rank {local_rank} of its own"
            )));
        }
        Ok(first.saturating_add(local_rank))
    }
}

fn note_path(paths: &Paths, id: AssignmentId, job: JobId) -> PathBuf {
    paths.logs().join(job.to_string()).join(format!("{}.first", tag(id)))
}

/// Whether a node has several shares of a gang, whose output then lies in one directory.
pub(in crate::session) fn needs_note(assignment: &Assignment) -> bool {
    let own = assignment.node().map(|node| &node.name);
    assignment.nodes.iter().filter(|node| Some(&node.name) == own).count() > 1
}

/// Notes which ranks an assignment has, for those who read its output when it is gone.
pub(in crate::session) fn note(
    paths: &Paths,
    id: AssignmentId,
    job: JobId,
    first_rank: u32,
) -> io::Result<()> {
    let path = note_path(paths, id, job);
    if let Some(folder) = path.parent() {
        // As the shim makes it: ranks pass through it to their output.
        DirBuilder::new().recursive(true).mode(0o711).create(folder)?;
    }
    std::fs::write(path, first_rank.to_string())
}
