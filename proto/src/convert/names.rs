//! Names of things to what they name.

use super::ConvertError;
use yard_common::id::{JobId, NodeId, PoolId, PrincipalId, QueueId, WorkspaceId};
use yard_common::limits::NAME_BYTES_MAX;
use yard_core::state::State;

/// Declares the look-up of a name.
macro_rules! find {
    ($($(#[$doc:meta])* $name:ident -> $id:ty, $table:ident, $what:literal;)+) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// If there is none.
            pub fn $name(state: &State, name: &str) -> Result<$id, ConvertError> {
                state.$table.find(name).ok_or_else(|| no_such($what, name))
            }
        )+
    };
}

find! {
    /// The queue of a name.
    queue_id -> QueueId, queues, "queue";
    /// The pool of a name.
    pool_id -> PoolId, pools, "pool";
    /// The workspace of a name.
    workspace_id -> WorkspaceId, workspaces, "workspace";
    /// The user of a name.
    user_id -> PrincipalId, principals, "user";
    /// The node of a name.
    node_id -> NodeId, nodes, "node";
}

/// The job of a number.
///
/// # Errors
/// If there is none. A number too large for any table is none, too.
pub fn job_id(state: &State, number: u64) -> Result<JobId, ConvertError> {
    let id = JobId(number);
    let known = usize::try_from(number).is_ok() && state.jobs.contains(id);
    if known { Ok(id) } else { Err(no_such("job", &number.to_string())) }
}

fn no_such(what: &'static str, name: &str) -> ConvertError {
    // An answer is not an echo of everything that was sent.
    let name = name.chars().take(NAME_BYTES_MAX).collect();
    ConvertError::NoSuch { what, name }
}
