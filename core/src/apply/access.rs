use super::Context;
use crate::command::*;
use crate::state::State;
use yard_common::id::TokenId;
impl State {
    pub(super) fn run_access(&mut self, _c: &mut Context, _x: &Access) -> Result<Reply, Rejection> {
        Err(Rejection::BadToken)
    }
    pub(super) fn redeem_token(
        &mut self,
        _c: &Context,
        _t: TokenId,
        _s: &[u8; 32],
        _f: impl Fn(&Scope) -> bool,
    ) -> Result<Scope, Rejection> {
        Err(Rejection::BadToken)
    }
    pub(super) fn expire_token(&mut self, _t: TokenId) {}
}
