//! How a machine becomes a member, and gets its next certificates.
//!
//! **Invariant.** The keys of the authority leave this member in two answers alone: to a machine
//! that showed the secret of a token for members, and in the backup that an administrator saves,
//! over a connection on which this member has proved itself. A token that was used gives them to
//! the same key again, and to nobody else.

use super::Api;
use super::certify::{Shown, bad, shown};
use super::refusal::Refusal;
use tonic::Code;
use yard_common::id::{FeatureLevel, LogIndex, MemberId};
use yard_core::command::{Access, Actor, Command, Reply};
use yard_proto::v1::Secret;
use yard_proto::{convert, internal};
use yard_runtime::identity::{Issued, Principal, key_sha256};
use yard_runtime::tls::endpoint;

impl Api {
    pub(super) async fn join_member(
        &self,
        request: internal::JoinMemberRequest,
    ) -> Result<internal::JoinMemberResponse, Refusal> {
        let shown = shown(&request.token_id, request.token_secret.as_ref())?;
        let key_sha256 = key_sha256(&request.csr_der)?;
        self.check_member_token(&shown, &request.request_id, &key_sha256).await?;
        let address = request.address.clone();
        if endpoint(&address).is_err() {
            return Err(Refusal::invalid("address", "write host:port"));
        }
        self.check_version(&request.version, FeatureLevel(request.feature_level_max))?;
        let taken = |peer: &crate::storage::Peer| peer.address == address;
        let (_, state) = self.raft.state();
        let known = state.member_of(shown.token, &shown.secret_sha256, &key_sha256);
        // Those that founded the cluster have their address in the log alone.
        if known.is_none() && self.raft.peers().values().any(taken) {
            return Err(Refusal::invalid("address", "another member has it"));
        }
        // A request that cannot be signed must not cost the token.
        let names: Vec<String> = crate::folder::host_of(&address).into_iter().collect();
        self.issue(&request.csr_der, Principal::Member(MemberId(u64::MAX)), &names)?;
        let Shown { token, secret_sha256 } = shown;
        let level_max = FeatureLevel(request.feature_level_max);
        let join = Access::JoinMember { token, secret_sha256, key_sha256, address, level_max };
        let join = Command::Access(join);
        let written = self.write(Actor::Bearer, &request.request_id, join).await?;
        let Reply::Member(member) = written.reply else {
            tracing::error!(reply = ?written.reply, "a join was answered with something else");
            return Err(Refusal::plain(Code::Internal, "the answer names no member"));
        };
        let (_, state) = self.raft.state();
        // An answer that was remembered may be older than the end of the member, or of the token.
        if state.member_of(token, &secret_sha256, &key_sha256) != Some(member) {
            return Err(bad());
        }
        let issued = self.issue(&request.csr_der, Principal::Member(member), &names)?;
        tracing::info!(%member, "a machine joined as a member");
        let keys = self.authority()?.keys_pem();
        let keys = keys.iter().map(|key| Secret::from(key.to_string()));
        Ok(internal::JoinMemberResponse {
            member_id: member.0,
            cluster_id: convert::cluster_id_bytes(self.cluster),
            certificate: Some(self.member_certificate(issued)?),
            members: Some(self.members(&state)),
            authority_key_pem: keys.collect(),
            incarnation: state.incarnation.0,
        })
    }

    /// Looks whether a token can be good, or was used by the holder of this very key.
    async fn check_member_token(
        &self,
        shown: &Shown,
        request_id: &[u8],
        key_sha256: &[u8; 32],
    ) -> Result<(), Refusal> {
        let state = self.fresh(LogIndex(0)).await?;
        if state.member_of(shown.token, &shown.secret_sha256, key_sha256).is_some() {
            return Ok(());
        }
        self.check_token(shown, request_id).await
    }

    pub(super) fn renew_member(
        &self,
        member: MemberId,
        csr: &[u8],
    ) -> Result<internal::MemberCertificate, Refusal> {
        let address = self.address_of(member).ok_or_else(|| Refusal::no_such("member", member))?;
        let names = crate::folder::host_of(&address.address).into_iter().collect::<Vec<_>>();
        let issued = self.issue(csr, Principal::Member(member), &names)?;
        self.member_certificate(issued)
    }

    fn member_certificate(&self, issued: Issued) -> Result<internal::MemberCertificate, Refusal> {
        let expires_wall_ms = issued.peer.not_after_wall_ms;
        // In the order of the trees: member, node, user.
        let certificate = self.agent_certificate(issued)?;
        let mut trees = certificate.trust_der.into_iter().map(|der| vec![der]);
        let mut tree = || trees.next().unwrap_or_default();
        Ok(internal::MemberCertificate {
            chain_der: certificate.chain_der,
            member_trust_der: tree(),
            node_trust_der: tree(),
            user_trust_der: tree(),
            expires_wall_ms,
        })
    }
}
