use super::Context;
use crate::command::*;
use crate::lease::{Membership, MembershipId};
use crate::state::State;
impl State {
    pub(super) fn run_cluster(
        &mut self,
        context: &mut Context,
        c: &Cluster,
    ) -> Result<Reply, Rejection> {
        if let Cluster::Members { voters, joint } = c {
            self.membership = Membership {
                id: MembershipId(context.index),
                voters: voters.clone(),
                joint: joint.clone(),
            };
        }
        Ok(Reply::Done)
    }
}
