//! What one agent does next: desired set in, observed machine in, actions out.

mod chain;
mod desired;
mod report;

pub use chain::{Chain, ChainLink};
pub use desired::{
    ASSIGNMENTS_MAX, AssignmentId, Desired, DesiredAssignment, DesiredError, DesiredPhase, Fence,
};
pub use report::{Exit, Report, ReportKind};
