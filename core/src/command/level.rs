//! Which feature level a command needs.
//!
//! A member that meets a command which it does not know stops, so nobody may write one before all
//! members know it. This is the one place that says since which level a command may be written:
//! whoever proposes asks here, and apply refuses what came all the same (docs/adr/0014).

use super::{Access, Cluster, Command, Holder, JobCommand, NodeCommand};
use yard_common::id::FeatureLevel;

/// The highest feature level that this version understands.
pub const FEATURE_LEVEL_MAX: FeatureLevel = FeatureLevel(0);
/// What all versions understand.
const FIRST: FeatureLevel = FeatureLevel(0);

/// The feature level that the cluster must have for a command as it is. A command with a field
/// that older members would skip needs the level of that field, where it is set.
#[must_use]
pub fn requires(command: &Command) -> FeatureLevel {
    match command {
        Command::Cluster(command) => of_cluster(command),
        Command::Access(command) => of_access(command),
        Command::Holder(command) => of_holder(command),
        Command::Node(command) => of_node(command),
        Command::Job(command) => of_job(command),
        Command::Plan(_) | Command::Report(_) => FIRST,
    }
}

fn of_cluster(command: &Cluster) -> FeatureLevel {
    match command {
        // Levels rise one by one: each step may have work of its own.
        Cluster::RaiseFeatureLevel(raise) => FeatureLevel(raise.level.0.saturating_sub(1)),
        Cluster::Initialise { .. }
        | Cluster::LeaderStarted
        | Cluster::Tick
        | Cluster::Restored { .. }
        | Cluster::Members { .. }
        | Cluster::AddMember(_)
        | Cluster::RemoveMember(_)
        | Cluster::MemberLeft(_) => FIRST,
    }
}

fn of_access(command: &Access) -> FeatureLevel {
    match command {
        Access::AddUser { .. }
        | Access::SetUser { .. }
        | Access::DisableUser { .. }
        | Access::AddToken { .. }
        | Access::DropToken(_)
        | Access::RedeemLogin { .. }
        | Access::Revoke { .. }
        | Access::PutSecret { .. }
        | Access::DropSecret { .. }
        | Access::JoinMember { .. } => FIRST,
    }
}

fn of_holder(command: &Holder) -> FeatureLevel {
    match command {
        Holder::AddWorkspace(_)
        | Holder::RemoveWorkspace(_)
        | Holder::AddPool(..)
        | Holder::SetPool(..)
        | Holder::RemovePool(_)
        | Holder::AddQueue(..)
        | Holder::SetQueue(..)
        | Holder::RemoveQueue(_)
        | Holder::SetLimit(..)
        | Holder::SetSetting(..)
        | Holder::AddMount { .. }
        | Holder::SetMount(..)
        | Holder::RemoveMount(_)
        | Holder::SetSetup(..) => FIRST,
    }
}

fn of_node(command: &NodeCommand) -> FeatureLevel {
    match command {
        NodeCommand::Join { .. }
        | NodeCommand::Update { .. }
        | NodeCommand::Suspect { .. }
        | NodeCommand::Lost(_)
        | NodeCommand::Returned { .. }
        | NodeCommand::Lift(_)
        | NodeCommand::Maintenance { .. }
        | NodeCommand::Back(_)
        | NodeCommand::Drain { .. }
        | NodeCommand::Undrain(_)
        | NodeCommand::ConfirmDead(_)
        | NodeCommand::Remove(_)
        | NodeCommand::DrainGpu { .. }
        | NodeCommand::UndrainGpu { .. }
        | NodeCommand::Check(_) => FIRST,
    }
}

fn of_job(command: &JobCommand) -> FeatureLevel {
    match command {
        JobCommand::Submit(_)
        | JobCommand::Replace { .. }
        | JobCommand::Adjust { .. }
        | JobCommand::Cancel { .. }
        | JobCommand::Requeue { .. }
        | JobCommand::Hold { .. }
        | JobCommand::Release(_)
        | JobCommand::Suspend { .. }
        | JobCommand::Resume(_)
        | JobCommand::Visit { .. } => FIRST,
    }
}
