//! Who may make which call: one row for each, and whatever has no row is refused.
//!
//! This is the first gate. What a call is about (which job, whose, in which workspace) is judged
//! where it is read, and by apply where it is changed.

use yard_core::command::Role;

/// What a caller must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Anybody; a token in the request says the rest.
    Token,
    /// A user, whatever it may do.
    User,
    /// A user with this role, or a higher one, in some workspace.
    Somewhere(Role),
    /// A user with this role, or a higher one, in the whole cluster.
    Cluster(Role),
    /// The agent of a node, for that node alone, or a user with this role in the whole cluster.
    AgentOrCluster(Role),
    /// The agent of a node.
    Agent,
    /// A member.
    Member,
    /// Anybody with a certificate.
    Known,
}

use Need::{Agent, AgentOrCluster, Cluster, Known, Member, Somewhere, Token, User};
use Role::{Admin, Operator, Viewer};

/// The rows, sorted by path.
pub(crate) const TABLE: &[(&str, Need)] = &[
    ("/grpc.health.v1.Health/Check", Token),
    ("/grpc.health.v1.Health/List", Known),
    ("/grpc.health.v1.Health/Watch", Known),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Known),
    ("/yard.internal.v1.AgentService/Control", Agent),
    ("/yard.internal.v1.AgentService/CopyLogs", Agent),
    ("/yard.internal.v1.AgentService/Data", Agent),
    ("/yard.internal.v1.AgentService/Join", Token),
    ("/yard.internal.v1.AgentService/Renew", Agent),
    ("/yard.internal.v1.AgentService/RenewCertificate", Agent),
    ("/yard.internal.v1.MemberService/About", Member),
    ("/yard.internal.v1.MemberService/Append", Member),
    ("/yard.internal.v1.MemberService/CallAgent", Member),
    ("/yard.internal.v1.MemberService/Compare", Member),
    ("/yard.internal.v1.MemberService/Forward", Member),
    ("/yard.internal.v1.MemberService/Join", Token),
    ("/yard.internal.v1.MemberService/PreVote", Member),
    ("/yard.internal.v1.MemberService/ReadIndex", Member),
    ("/yard.internal.v1.MemberService/ReadLogCopy", Member),
    ("/yard.internal.v1.MemberService/Recall", Member),
    ("/yard.internal.v1.MemberService/RenewCertificate", Member),
    ("/yard.internal.v1.MemberService/Snapshot", Member),
    ("/yard.internal.v1.MemberService/Sweep", Member),
    ("/yard.internal.v1.MemberService/TransferLeader", Member),
    ("/yard.internal.v1.MemberService/Vote", Member),
    ("/yard.v1.ClusterService/AddMember", Cluster(Admin)),
    ("/yard.v1.ClusterService/CreateMemberToken", Cluster(Admin)),
    ("/yard.v1.ClusterService/Events", Cluster(Viewer)),
    ("/yard.v1.ClusterService/RaiseFeatureLevel", Cluster(Admin)),
    ("/yard.v1.ClusterService/RemoveMember", Cluster(Admin)),
    ("/yard.v1.ClusterService/SaveSnapshot", Cluster(Admin)),
    ("/yard.v1.ClusterService/Status", User),
    ("/yard.v1.ClusterService/TransferLeader", Cluster(Operator)),
    ("/yard.v1.ClusterService/Usage", Somewhere(Viewer)),
    ("/yard.v1.HolderService/CreatePool", Cluster(Operator)),
    ("/yard.v1.HolderService/CreateQueue", Cluster(Operator)),
    ("/yard.v1.HolderService/CreateWorkspace", Cluster(Admin)),
    ("/yard.v1.HolderService/GetPool", Somewhere(Viewer)),
    ("/yard.v1.HolderService/GetQueue", Somewhere(Viewer)),
    ("/yard.v1.HolderService/GetWorkspace", Somewhere(Viewer)),
    ("/yard.v1.HolderService/ListExperiments", Somewhere(Viewer)),
    ("/yard.v1.HolderService/ListLimits", Cluster(Viewer)),
    ("/yard.v1.HolderService/ListPools", Somewhere(Viewer)),
    ("/yard.v1.HolderService/ListQueues", Somewhere(Viewer)),
    ("/yard.v1.HolderService/ListSettings", Cluster(Viewer)),
    ("/yard.v1.HolderService/ListWorkspaces", Somewhere(Viewer)),
    ("/yard.v1.HolderService/RemovePool", Cluster(Operator)),
    ("/yard.v1.HolderService/RemoveQueue", Cluster(Operator)),
    ("/yard.v1.HolderService/RemoveWorkspace", Cluster(Admin)),
    ("/yard.v1.HolderService/SetLimit", Cluster(Operator)),
    ("/yard.v1.HolderService/SetPool", Cluster(Operator)),
    // What it sets runs as root where agents do.
    ("/yard.v1.HolderService/SetPoolSetup", Cluster(Admin)),
    ("/yard.v1.HolderService/SetQueue", Cluster(Operator)),
    ("/yard.v1.HolderService/SetSetting", Cluster(Admin)),
    ("/yard.v1.InteractiveService/Checkpoint", Somewhere(Role::User)),
    ("/yard.v1.InteractiveService/Exec", Somewhere(Role::User)),
    ("/yard.v1.InteractiveService/Forward", Somewhere(Role::User)),
    ("/yard.v1.JobService/Adjust", Somewhere(Role::User)),
    ("/yard.v1.JobService/Attempts", Somewhere(Viewer)),
    ("/yard.v1.JobService/Cancel", Somewhere(Role::User)),
    ("/yard.v1.JobService/Explain", Somewhere(Viewer)),
    ("/yard.v1.JobService/Get", Somewhere(Viewer)),
    ("/yard.v1.JobService/Hold", Somewhere(Role::User)),
    ("/yard.v1.JobService/List", Somewhere(Viewer)),
    ("/yard.v1.JobService/ListFiles", Somewhere(Role::User)),
    ("/yard.v1.JobService/ListTasks", Somewhere(Viewer)),
    ("/yard.v1.JobService/Logs", Somewhere(Viewer)),
    ("/yard.v1.JobService/ReadFile", Somewhere(Role::User)),
    ("/yard.v1.JobService/Release", Somewhere(Role::User)),
    ("/yard.v1.JobService/Replace", Somewhere(Role::User)),
    ("/yard.v1.JobService/Requeue", Somewhere(Role::User)),
    ("/yard.v1.JobService/Resume", Somewhere(Role::User)),
    ("/yard.v1.JobService/Submit", Somewhere(Role::User)),
    ("/yard.v1.JobService/Suspend", Somewhere(Role::User)),
    ("/yard.v1.JobService/Watch", Somewhere(Viewer)),
    ("/yard.v1.NodeService/Check", Cluster(Operator)),
    ("/yard.v1.NodeService/ConfirmDead", Cluster(Operator)),
    ("/yard.v1.NodeService/CreateJoinToken", Cluster(Operator)),
    ("/yard.v1.NodeService/Drain", Cluster(Operator)),
    ("/yard.v1.NodeService/Get", Somewhere(Viewer)),
    ("/yard.v1.NodeService/List", Somewhere(Viewer)),
    ("/yard.v1.NodeService/Maintenance", AgentOrCluster(Operator)),
    ("/yard.v1.NodeService/Remove", Cluster(Operator)),
    ("/yard.v1.NodeService/SetupLog", Cluster(Operator)),
    ("/yard.v1.NodeService/Undrain", Cluster(Operator)),
    ("/yard.v1.SampleService/Latest", Somewhere(Viewer)),
    ("/yard.v1.UserService/Add", Cluster(Admin)),
    ("/yard.v1.UserService/CreateLoginToken", Cluster(Admin)),
    ("/yard.v1.UserService/Disable", Cluster(Admin)),
    ("/yard.v1.UserService/DropToken", Cluster(Operator)),
    ("/yard.v1.UserService/Get", User),
    ("/yard.v1.UserService/List", Cluster(Operator)),
    ("/yard.v1.UserService/Login", Token),
    ("/yard.v1.UserService/RenewCertificate", User),
    ("/yard.v1.UserService/Revoke", Cluster(Admin)),
    ("/yard.v1.UserService/Set", Cluster(Admin)),
    ("/yard.v1.UserService/WhoAmI", User),
];

/// The row of a call.
pub(crate) fn need(path: &str) -> Option<Need> {
    let at = TABLE.binary_search_by(|(row, _)| (*row).cmp(path)).ok()?;
    Some(TABLE[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_a_row_and_every_row_a_call() {
        let calls = yard_proto::rpcs();
        let missing: Vec<_> = calls.iter().filter(|rpc| need(&rpc.path).is_none()).collect();
        assert!(missing.is_empty(), "no row in TABLE: {missing:#?}");
        let ours = TABLE.iter().filter(|(path, _)| path.starts_with("/yard."));
        for (path, _) in ours {
            assert!(calls.iter().any(|rpc| rpc.path == *path), "no such call: {path}");
        }
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0), "TABLE must be sorted");
        assert_eq!(need("/yard.v1.JobService/Nothing"), None);
    }

    #[test]
    fn users_have_no_row_among_the_internal_calls_and_nobody_else_among_the_public_ones() {
        for rpc in yard_proto::rpcs() {
            let fits = match need(&rpc.path).unwrap() {
                Need::Token => true,
                Need::User | Need::Somewhere(_) | Need::Cluster(_) | Need::AgentOrCluster(_) => {
                    rpc.is_public()
                }
                Need::Agent | Need::Member => !rpc.is_public(),
                Need::Known => false,
            };
            assert!(fits, "{}", rpc.path);
        }
    }
}
