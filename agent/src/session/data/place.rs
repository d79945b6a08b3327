//! Which assignment a question is about: where its files are, which ranks it has, and whether they
//! have ended.

use super::DataError;
use crate::launch::Orders;
use crate::session::Shared;
use crate::shim::DETAIL;
use std::path::PathBuf;
use std::sync::Arc;
use yard_common::id::{AllocationId, AttemptNumber, JobId, TaskIndex};
use yard_common::limits::{DETAIL_BYTES_MAX, RANKS_PER_NODE_MAX};
use yard_common::state::AssignmentState;
use yard_core::agent::AssignmentId;
use yard_proto::internal::AssignmentRef;
use yard_runtime::files;

/// A hostfile has a line for each node of a gang.
const HOSTFILE_BYTES_MAX: usize = 4 * 1024 * 1024;

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

    /// The first of its ranks on this node, by number in the gang; none while nothing tells.
    ///
    /// What its shim was told goes when the assignment is released; the list of nodes stays beside
    /// the output. Where it names this node once for each of several groups, nothing tells which
    /// is which any more.
    pub(super) fn first_rank(&self) -> Result<Option<u32>, DataError> {
        if let Some(orders) = self.orders() {
            return Ok(Some(orders.assignment.first_rank()));
        }
        let path = self.logs().join("hostfile");
        let Ok(text) = files::read_text(&path, HOSTFILE_BYTES_MAX) else { return Ok(None) };
        let (mut before, mut found) = (0u32, Vec::new());
        for line in text.lines() {
            let Some((name, slots)) = line.split_once(" slots=") else { continue };
            if name == self.shared.name {
                found.push(before);
            }
            before = before.saturating_add(slots.parse().unwrap_or(0));
        }
        match found[..] {
            [first] => Ok(Some(first)),
            [] => Ok(None),
            [..] => Err(DataError::not_found(
                "several groups of this attempt ran on this node, and which ranks were whose is \
                 not known any more; its files can be read one by one",
            )),
        }
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
