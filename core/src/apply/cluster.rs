//! Life of the cluster itself.

use super::Context;
use super::bound::between;
use crate::command::{
    Cluster, Grant, Object, PoolChange, QueueChange, Raise, Rejection, Reply, Role,
};
use crate::lease::{Membership, MembershipId};
use crate::state::State;
use crate::table::Ordered;
use std::collections::BTreeSet;
use yard_common::id::{
    AllocationId, ClusterId, Incarnation, JobId, LeaseId, MemberId, NodeId, PrincipalId,
};
use yard_common::limits::{
    LABEL_BYTES_MAX, RESTORE_IDS_LEAST, RESTORE_IDS_PER_S, RESTORE_JOBS_LEAST, RESTORE_JOBS_PER_S,
    RESTORE_NODES_MAX, RESTORE_USERS_MAX, VOTERS_MAX,
};

/// Name of the workspace, pool and queue that every cluster has.
pub(super) const DEFAULT: &str = "default";
/// Where ids of jobs end that a restore skips to: programs that read them as floating point numbers
/// read no further.
const JOB_ID_SKIP_MAX: u64 = 4_000 * 1_000_000_000_000;

impl State {
    pub(super) fn run_cluster(
        &mut self,
        context: &mut Context,
        command: &Cluster,
    ) -> Result<Reply, Rejection> {
        match command {
            Cluster::Initialise { cluster, admin, unix } => {
                self.initialise(context, *cluster, admin, unix.as_deref())
            }
            // The fence was moved before the command got here.
            Cluster::LeaderStarted => Ok(Reply::Done),
            // What is due fires after every command.
            Cluster::Tick => Ok(Reply::Done),
            Cluster::Restored { incarnation, after_ms } => {
                self.begin_incarnation(context, *incarnation, *after_ms)
            }
            Cluster::RaiseFeatureLevel(raise) => self.raise_feature_level(context, raise),
            Cluster::Members { voters, joint } => self.set_members(context, voters, joint.as_ref()),
            Cluster::AddMember(member) => self.let_vote(context, *member),
            Cluster::RemoveMember(member) => self.remove_member(context, *member),
            Cluster::MemberLeft(member) => self.member_left(context, *member),
        }
    }

    /// Makes what every cluster begins with.
    fn initialise(
        &mut self,
        context: &mut Context,
        cluster: ClusterId,
        admin: &str,
        unix: Option<&str>,
    ) -> Result<Reply, Rejection> {
        if self.cluster.is_some() {
            return Err(Rejection::WrongState(Object::Cluster, "initialised already".into()));
        }
        let grant = Grant { workspace: None, role: Role::Admin };
        // Nothing exists yet, so after the check of the names nothing can fail.
        let made = self.add_user(context, admin, unix, &[grant])?;
        self.cluster = Some(cluster);
        context.changed(Object::Cluster);
        self.add_workspace(context, DEFAULT)?;
        self.add_pool(context, DEFAULT, &PoolChange::default())?;
        self.add_queue(context, DEFAULT, &QueueChange::default())?;
        Ok(made)
    }

    /// The state is as of a backup, and agents may be ahead of it: nothing that they hold counts.
    fn begin_incarnation(
        &mut self,
        context: &mut Context,
        incarnation: Incarnation,
        after_ms: u64,
    ) -> Result<Reply, Rejection> {
        if incarnation <= self.incarnation {
            let problem = format!("{incarnation}; this life is {} already", self.incarnation);
            return Err(Rejection::invalid("incarnation", problem));
        }
        let first = incarnation.first_number();
        let next = self.allocations.next_id();
        if next.0 > first {
            let problem = format!("{incarnation}; allocation {next} belongs to a later one");
            return Err(Rejection::invalid("incarnation", problem));
        }
        self.incarnation = incarnation;
        self.leave_out(first, after_ms);
        // A token that was used after the backup would be good again.
        self.drop_tokens(context, |_| true);
        // Whoever joined is part of the cluster that was, and joins anew; no number is used again.
        self.members = Ordered::default();
        let nodes: Vec<_> = self.nodes.iter().map(|(id, _)| id).collect();
        for id in nodes {
            let node = &mut self.nodes[id];
            // Above any lease that the node got after the backup: it would keep that one.
            node.lease = LeaseId(first.max(node.lease.0 + 1));
            node.resync = true;
            self.bump(context, id);
        }
        self.void_all_attempts(context);
        context.changed(Object::Cluster);
        Ok(Reply::Incarnation(self.incarnation))
    }

    /// What was given out after the backup is not given out again: an agent tells its assignments
    /// apart by their ids, certificates name users and nodes by theirs, and people jobs.
    fn leave_out(&mut self, first: u64, after_ms: u64) {
        let after_s = after_ms / 1_000;
        self.allocations.skip_to(AllocationId(first));
        let jobs = RESTORE_JOBS_LEAST.saturating_add(after_s.saturating_mul(RESTORE_JOBS_PER_S));
        let jobs = self.jobs.next_id().0.saturating_add(jobs).min(JOB_ID_SKIP_MAX);
        // A round number shows that it is one of a new life, and two lives do not share one.
        self.jobs.skip_to(JobId(jobs.next_multiple_of(RESTORE_JOBS_PER_S)));
        let ids = RESTORE_IDS_LEAST.saturating_add(after_s.saturating_mul(RESTORE_IDS_PER_S));
        let after = |next: u32, most: u64| {
            next.saturating_add(u32::try_from(ids.min(most)).unwrap_or(u32::MAX))
        };
        self.nodes.skip_to(NodeId(after(self.nodes.next_id().0, RESTORE_NODES_MAX)));
        self.principals.skip_to(PrincipalId(after(self.principals.next_id().0, RESTORE_USERS_MAX)));
    }

    /// Raises the level. That it rises by one only is seen to where all levels are.
    fn raise_feature_level(
        &mut self,
        context: &mut Context,
        raise: &Raise,
    ) -> Result<Reply, Rejection> {
        let Raise { level, version, understood_by } = raise;
        let have = self.feature_level;
        if *level <= have {
            let state = format!("at feature level {have} already; levels only rise");
            return Err(Rejection::WrongState(Object::Cluster, state));
        }
        between("version", version.len(), 1, LABEL_BYTES_MAX)?;
        // One that joined since it was asked for has not been asked.
        if let Some(id) = self.must_understand().difference(understood_by).next() {
            let state = format!("not known to understand feature level {level}");
            return Err(Rejection::WrongState(Object::Member(*id), state));
        }
        self.feature_level = *level;
        self.level_version = version.as_str().into();
        context.changed(Object::Cluster);
        Ok(Reply::Done)
    }

    fn set_members(
        &mut self,
        context: &mut Context,
        voters: &BTreeSet<MemberId>,
        joint: Option<&BTreeSet<MemberId>>,
    ) -> Result<Reply, Rejection> {
        between("voters", voters.len(), 1, VOTERS_MAX)?;
        between("joint", joint.map_or(1, BTreeSet::len), 1, VOTERS_MAX)?;
        let id = MembershipId(context.index);
        self.membership = Membership { id, voters: voters.clone(), joint: joint.cloned() };
        self.member_last = self.member_last.max(self.highest_voter());
        context.changed(Object::Cluster);
        Ok(Reply::Done)
    }
}
