//! The only conversions between messages and domain types.
//!
//! Out of the domain nothing can fail: `From`, or functions that take the [`State`] for the names
//! of things. Into the domain everything can: `TryFrom`, or functions that answer a
//! [`ConvertError`], which names the field and what would be right.
//!
//! [`State`]: yard_core::state::State

mod amount;
mod cause;
mod enums;
mod event;
mod explain;
mod holder;
mod id;
mod job;
mod names;
mod node;
mod setup;
mod task;
mod user;

pub mod detail;
pub mod error;
pub mod page;
pub mod problem;

pub use amount::{range, wall_ms};
pub use enums::{known, known_all};
pub use event::{at, event};
pub use explain::explanation;
pub use holder::{
    experiment, limit_scope, limit_scope_of, pool, queue, queue_change, queue_settings, usage_row,
    workspace,
};
pub use id::{
    boot_id_bytes, cluster_id, cluster_id_bytes, request_id, request_id_bytes, token_id,
    token_id_bytes,
};
pub use job::job;
pub use names::{job_id, node_id, pool_id, queue_id, user_id, workspace_id};
pub use node::{facts_len, node, node_row};
pub use setup::{SetupCounts, pool_setup, setup_counts, setup_for, setup_told};
pub use task::{TaskIndices, attempts, parameters, task_runs};
pub use user::{grants, user};

use yard_common::ErrorCode;

/// Why a message is no value of the domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// An id of the wrong length.
    #[error("{field}: {found} bytes; give {wanted}")]
    Length {
        /// The field.
        field: &'static str,
        /// How many bytes it has.
        found: usize,
        /// How many it must have.
        wanted: usize,
    },
    /// A part that must be there.
    #[error("{field} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A number of an enum that this version does not know, or zero.
    #[error("{field}: {found} is none of the known values")]
    Unknown {
        /// The field.
        field: &'static str,
        /// The number.
        found: i32,
    },
    /// A number outside its range.
    #[error("{field}: {found} is out of range; give {wanted}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// The number.
        found: i128,
        /// What would be right.
        wanted: &'static str,
    },
    /// A key that no page has given.
    #[error("page.after_key: give the next_key of the page before")]
    BadKey,
    /// A name of nothing.
    #[error("there is no {what} {name:?}")]
    NoSuch {
        /// What it would be.
        what: &'static str,
        /// The name, as it was given.
        name: String,
    },
}

impl ConvertError {
    /// The stable code, for the page that says what to do.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            ConvertError::Length { .. }
            | ConvertError::Missing { .. }
            | ConvertError::Unknown { .. }
            | ConvertError::OutOfRange { .. }
            | ConvertError::BadKey => ErrorCode::InvalidArgument,
            ConvertError::NoSuch { .. } => ErrorCode::NotFound,
        }
    }
}
