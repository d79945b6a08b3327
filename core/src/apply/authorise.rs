//! Who may do what: one table, and whatever it does not allow is refused.
//!
//! Roles are looked up in the state at the time of the command, so a role that was taken away
//! counts no more from the next command on. A job in a workspace in which a user has no role is to
//! that user as if it did not exist.

use crate::command::{
    Access, Actor, Cluster, Command, Holder, JobCommand, NodeCommand, Object, Rejection, Role,
    Scope,
};
use crate::state::State;
use std::fmt;
use yard_common::id::{JobId, NodeId, TokenId, WorkspaceId};

/// What an actor must be for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// The leader itself.
    Leader,
    /// Whoever presents a token; the command checks it.
    Bearer,
    /// The agent of this node.
    Agent(NodeId),
    /// The agent of this node, or an operator of the cluster.
    AgentOrOperator(NodeId),
    /// A user with this role in the whole cluster.
    Cluster(Role),
    /// A user with this role in this workspace, or in the whole cluster.
    Workspace(Role, WorkspaceId),
    /// The job's owner who is still a user of its workspace, or an operator of the workspace.
    Job(JobId),
    /// The job's owner who is still a user of its workspace, or an admin of the workspace: whoever
    /// visits a job acts as its owner.
    Visit(JobId),
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::Leader => write!(f, "the leader"),
            Need::Bearer => write!(f, "a token"),
            Need::Agent(node) => write!(f, "the agent of node {node}"),
            Need::AgentOrOperator(node) => {
                write!(f, "the agent of node {node}, or the role Operator in the cluster")
            }
            Need::Cluster(role) => write!(f, "the role {role:?} in the cluster"),
            Need::Workspace(role, workspace) => {
                write!(f, "the role {role:?} in workspace {workspace}")
            }
            Need::Job(job) => {
                write!(f, "the owner of job {job}, or the role Operator in its workspace")
            }
            Need::Visit(job) => {
                write!(f, "the owner of job {job}, or the role Admin in its workspace")
            }
        }
    }
}

impl State {
    /// Whether the actor may ask for this at all. Looks at who asks, never at whether it makes
    /// sense.
    pub(super) fn authorise(&self, actor: Actor, command: &Command) -> Result<(), Rejection> {
        let need = self.need(command);
        if let (Need::Job(id) | Need::Visit(id), Actor::User(_)) = (need, actor)
            && !self.sees(actor, id)
        {
            return Err(Rejection::NotFound(Object::Job(id)));
        }
        if self.meets(actor, need) {
            return Ok(());
        }
        Err(Rejection::NotAllowed(need.to_string()))
    }

    /// The table.
    fn need(&self, command: &Command) -> Need {
        match command {
            Command::Plan(_) => Need::Leader,
            Command::Report(report) => Need::Agent(report.node),
            Command::Cluster(
                Cluster::Initialise { .. }
                | Cluster::LeaderStarted
                | Cluster::Tick
                | Cluster::Restored { .. }
                | Cluster::RaiseFeatureLevel(_)
                | Cluster::Members { .. }
                | Cluster::MemberLeft(_),
            ) => Need::Leader,
            Command::Cluster(Cluster::AddMember(_) | Cluster::RemoveMember(_)) => {
                Need::Cluster(Role::Admin)
            }
            Command::Access(command) => self.need_of_access(command),
            Command::Holder(command) => match command {
                Holder::AddWorkspace(_)
                | Holder::RemoveWorkspace(_)
                // It runs as root where agents do.
                | Holder::SetSetup(..)
                | Holder::SetSetting(..) => Need::Cluster(Role::Admin),
                Holder::AddPool(..)
                | Holder::SetPool(..)
                | Holder::RemovePool(_)
                | Holder::AddQueue(..)
                | Holder::SetQueue(..)
                | Holder::RemoveQueue(_)
                | Holder::SetLimit(..)
                // A volume may lead to any path of a node: no matter for a workspace alone.
                | Holder::AddMount { .. }
                | Holder::SetMount(..)
                | Holder::RemoveMount(_) => Need::Cluster(Role::Operator),
            },
            Command::Node(command) => match command {
                NodeCommand::Join { .. } => Need::Bearer,
                NodeCommand::Update { node, .. } => Need::Agent(*node),
                NodeCommand::Maintenance { node, .. } | NodeCommand::Back(node) => {
                    Need::AgentOrOperator(*node)
                }
                NodeCommand::Suspect { .. }
                | NodeCommand::Lost(_)
                | NodeCommand::Returned { .. }
                | NodeCommand::Lift(_) => Need::Leader,
                NodeCommand::Drain { .. }
                | NodeCommand::Undrain(_)
                | NodeCommand::ConfirmDead(_)
                | NodeCommand::Remove(_)
                | NodeCommand::DrainGpu { .. }
                | NodeCommand::UndrainGpu { .. }
                | NodeCommand::Check(_) => Need::Cluster(Role::Operator),
            },
            Command::Job(command) => match command {
                JobCommand::Submit(submit) => Need::Workspace(Role::User, submit.workspace),
                JobCommand::Replace { job, .. }
                | JobCommand::Adjust { job, .. }
                | JobCommand::Cancel { job, .. }
                | JobCommand::Requeue { job, .. }
                | JobCommand::Hold { job, .. }
                | JobCommand::Release(job)
                | JobCommand::Suspend { job, .. }
                | JobCommand::Resume(job) => Need::Job(*job),
                JobCommand::Visit { job, .. } => Need::Visit(*job),
            },
        }
    }

    fn need_of_access(&self, command: &Access) -> Need {
        match command {
            Access::AddUser { .. }
            | Access::SetUser { .. }
            | Access::DisableUser { .. }
            | Access::Revoke { .. } => Need::Cluster(Role::Admin),
            Access::AddToken { scope, .. } => need_of_scope(*scope),
            Access::DropToken(token) => self.need_of_token(*token),
            Access::RedeemLogin { .. } | Access::JoinMember { .. } => Need::Bearer,
            Access::PutSecret { workspace, .. } | Access::DropSecret { workspace, .. } => {
                Need::Workspace(Role::Admin, *workspace)
            }
        }
    }

    /// Who may make a token may take it back. What is asked for one that does not exist must not
    /// be less: the answer would tell whether it exists.
    fn need_of_token(&self, token: TokenId) -> Need {
        let scope = self.tokens.get(&token).map(|token| token.scope);
        scope.map_or(Need::Cluster(Role::Admin), need_of_scope)
    }

    fn meets(&self, actor: Actor, need: Need) -> bool {
        match need {
            Need::Leader => actor == Actor::Leader,
            Need::Bearer => actor == Actor::Bearer,
            Need::Agent(node) => actor == Actor::Node(node),
            Need::AgentOrOperator(node) => {
                actor == Actor::Node(node) || self.has_role(actor, Role::Operator, None)
            }
            Need::Cluster(role) => self.has_role(actor, role, None),
            Need::Workspace(role, workspace) => self.has_role(actor, role, Some(workspace)),
            Need::Job(id) => self.owns_or_is(actor, id, Role::Operator),
            Need::Visit(id) => self.owns_or_is(actor, id, Role::Admin),
        }
    }

    /// Whether a job is the actor's own, or the actor has this role where the job is.
    fn owns_or_is(&self, actor: Actor, id: JobId, role: Role) -> bool {
        self.jobs.get(id).is_some_and(|job| {
            let least = if actor == Actor::User(job.owner) { Role::User } else { role };
            self.has_role(actor, least, Some(job.workspace))
        })
    }

    /// Whether a user may know that a job exists.
    fn sees(&self, actor: Actor, id: JobId) -> bool {
        let job = self.jobs.get(id);
        job.is_some_and(|job| self.has_role(actor, Role::Viewer, Some(job.workspace)))
    }

    /// Whether the actor is a user with a role, or a higher one, in a workspace; with none: in the
    /// whole cluster. Neither the leader, nor an agent, nor a bearer has any role.
    fn has_role(&self, actor: Actor, role: Role, workspace: Option<WorkspaceId>) -> bool {
        match actor {
            Actor::User(id) => {
                self.principals.get(id).is_some_and(|user| user.has(role, workspace))
            }
            Actor::Leader | Actor::Node(_) | Actor::Bearer => false,
        }
    }
}

fn need_of_scope(scope: Scope) -> Need {
    match scope {
        Scope::Join(_) | Scope::Renew(_) => Need::Cluster(Role::Operator),
        Scope::Login(_) | Scope::Member => Need::Cluster(Role::Admin),
    }
}
