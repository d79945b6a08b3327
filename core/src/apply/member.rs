//! Life of a member of the coordinator: it joins, votes, leaves.
//!
//! Apply only writes down what is wanted. The membership of the log changes by entries of the log
//! itself, which the leader proposes.

use super::Context;
use super::bound::{between, room};
use crate::command::{Object, Rejection, Reply, Scope};
use crate::lease::Membership;
use crate::state::{Joined, Member, State};
use std::collections::BTreeSet;
use yard_common::id::{FeatureLevel, MemberId, TokenId};
use yard_common::limits::{LABEL_BYTES_MAX, MEMBERS_MAX};

/// What a machine shows to join: the token, the hash of its secret, and that of its own key.
type Proof<'a> = (TokenId, &'a [u8; 32], &'a [u8; 32]);

impl State {
    pub(super) fn join_member(
        &mut self,
        context: &mut Context,
        (token, secret_sha256, key_sha256): Proof<'_>,
        address: &str,
        level_max: FeatureLevel,
    ) -> Result<Reply, Rejection> {
        if let Some(id) = self.member_of(token, secret_sha256, key_sha256) {
            return Ok(Reply::Member(id));
        }
        let fits = |scope: &Scope| *scope == Scope::Member;
        self.check_token(context, token, secret_sha256, fits)?;
        between("address", address.len(), 1, LABEL_BYTES_MAX)?;
        if level_max < self.feature_level {
            let problem = format!("{level_max}; the cluster is at {}", self.feature_level);
            return Err(Rejection::invalid("level_max", problem));
        }
        let taken =
            |(_, member): &(&MemberId, &Member)| !member.leaves && &*member.address == address;
        if let Some((id, _)) = self.members.iter().find(taken) {
            let problem =
                format!("member {id} has it; if that one is gone for good, remove it first");
            return Err(Rejection::invalid("address", problem));
        }
        // Founders have no records, and agents take no longer list.
        room("members", self.members.len() + 1, MEMBERS_MAX)?;
        let ends_ms = self.tokens.get(&token).map_or(0, |token| token.ends_ms);
        self.redeem_token(context, token, secret_sha256, fits)?;
        let joined =
            Joined { token, secret_sha256: *secret_sha256, key_sha256: *key_sha256, ends_ms };
        let id = MemberId(self.member_last.max(self.highest_voter()) + 1);
        self.member_last = id.0;
        let address = address.into();
        let member = Member { address, joined: Some(joined), votes: false, leaves: false };
        self.members.insert(id, member);
        context.changed(Object::Member(id));
        Ok(Reply::Member(id))
    }

    /// The member that joined by this proof, as long as the token would be good.
    #[must_use]
    pub fn member_of(
        &self,
        token: TokenId,
        secret_sha256: &[u8; 32],
        key_sha256: &[u8; 32],
    ) -> Option<MemberId> {
        let now_ms = self.now_ms();
        let found = self.members.iter().find(|(_, member)| {
            let joined = member.joined.as_ref().filter(|joined| joined.ends_ms > now_ms);
            !member.leaves
                && joined.is_some_and(|joined| joined.matches(token, secret_sha256, key_sha256))
        });
        found.map(|(id, _)| *id)
    }

    /// Members that must understand whatever is in the log: those that vote, and those that joined.
    /// Not those that are to leave, which may be gone for good.
    #[must_use]
    pub fn must_understand(&self) -> BTreeSet<MemberId> {
        let Membership { voters, joint, .. } = &self.membership;
        let ids = voters
            .iter()
            .chain(joint.iter().flatten())
            .chain(self.members.iter().map(|(id, _)| id));
        let leaves = |id: &MemberId| self.members.get(id).is_some_and(|member| member.leaves);
        ids.filter(|id| !leaves(id)).copied().collect()
    }

    /// Whether a member was part of the cluster, and is not any more. Numbers are never given out
    /// twice, so that it never will be again.
    #[must_use]
    pub fn has_left(&self, id: MemberId) -> bool {
        let is_known = self.members.contains(&id) || self.membership.is_voter(id);
        id.0 <= self.member_last && !is_known
    }

    pub(super) fn let_vote(
        &mut self,
        context: &mut Context,
        id: MemberId,
    ) -> Result<Reply, Rejection> {
        let known = self.members.get(&id).cloned();
        match known {
            Some(member) if !member.leaves => {
                self.members.insert(id, Member { votes: true, ..member });
            }
            // One that founded the cluster.
            None if self.membership.is_voter(id) => {}
            Some(_) | None => return Err(Rejection::NotFound(Object::Member(id))),
        }
        context.changed(Object::Member(id));
        Ok(Reply::Done)
    }

    pub(super) fn remove_member(
        &mut self,
        context: &mut Context,
        id: MemberId,
    ) -> Result<Reply, Rejection> {
        let object = Object::Member(id);
        let votes = self.membership.is_voter(id);
        let known = self.members.get(&id).cloned();
        if known.is_none() && !votes {
            return Err(Rejection::NotFound(object));
        }
        let voters = self.membership.joint.as_ref().unwrap_or(&self.membership.voters);
        let leaves = |id: &MemberId| self.members.get(id).is_some_and(|member| member.leaves);
        if votes && !voters.iter().any(|other| *other != id && !leaves(other)) {
            let state = "the last voting member; add another one first".into();
            return Err(Rejection::WrongState(object, state));
        }
        let founder = || Member { address: "".into(), joined: None, votes: true, leaves: true };
        let member = known.map_or_else(founder, |known| Member { leaves: true, ..known });
        self.members.insert(id, member);
        context.changed(object);
        Ok(Reply::Done)
    }

    /// The highest number among the voters. A state of an earlier release knows of no other one.
    pub(super) fn highest_voter(&self) -> u64 {
        let (old, new) = (&self.membership.voters, &self.membership.joint);
        old.iter().chain(new.iter().flatten()).map(|id| id.0).max().unwrap_or(0)
    }

    pub(super) fn member_left(
        &mut self,
        context: &mut Context,
        id: MemberId,
    ) -> Result<Reply, Rejection> {
        let object = Object::Member(id);
        let record = self.members.get(&id).ok_or(Rejection::NotFound(object))?;
        if !record.leaves || self.membership.is_voter(id) {
            return Err(Rejection::WrongState(object, "part of the cluster".into()));
        }
        self.members.remove(&id);
        context.changed(object);
        Ok(Reply::Done)
    }
}
