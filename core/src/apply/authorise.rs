use crate::command::*;
use crate::state::State;
impl State {
    pub(super) fn authorise(&self, _a: Actor, _c: &Command) -> Result<(), Rejection> {
        Ok(())
    }
}
