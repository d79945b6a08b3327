//! Containers of the state: cloned in constant time, changed by copying only what is shared.
//!
//! The leader plans over a clone and a snapshot is built from one, while apply goes on. A clone
//! shares every page with its original; the first change of a page after a clone copies that
//! page alone. Two versions are compared by the pages that they still share.

mod ordered;
mod paged;
mod runs;
mod shared;

pub use ordered::Ordered;
pub use paged::{Named, Table};
pub use runs::Runs;
pub use shared::Shared;
