use super::Context;
use crate::command::*;
use crate::state::State;
impl State {
    pub(super) fn run_cluster(
        &mut self,
        _a: &mut Context,
        _c: &Cluster,
    ) -> Result<Reply, Rejection> {
        Ok(Reply::Done)
    }
}
