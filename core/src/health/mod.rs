//! Health of machines and GPUs, decided from what an agent saw: which error of a driver means
//! what, and which conditions hold.
//!
//! ```text
//!   XIDs, readings --> judge --> conditions --> the coordinator, as they come and go
//!                         \----> attempts that are ended, or whose end is blamed on a GPU
//! ```
//!
//! **Invariants:** an error that nobody knows takes the GPU out of use once it is idle, and never
//! ends an attempt. A condition that comes and goes from one look to the next is not told. What
//! bars a GPU says how it ends: by itself, by a check, or with the next boot.

mod judge;
mod reading;
mod xid;

pub use judge::{Judge, Judged, Seen};
pub use reading::{Answer, Link, Reading, Recovery};
pub use xid::{Action, Blame, Rules, RulesError, Verdict, XidRule, decide, rule_of};
