use super::Context;
use crate::command::*;
use crate::state::State;
impl State {
    pub(super) fn run_holder(&mut self, _a: &mut Context, _c: &Holder) -> Result<Reply, Rejection> {
        Ok(Reply::Done)
    }
}
