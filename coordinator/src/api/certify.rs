//! Issues certificates and tokens, on members that hold the keys of the authority.
//!
//! **Invariants.** Names come from the state, never from a request. A request is looked at before
//! a token is used up, so that a bad one costs nobody a token.

use super::Api;
use super::gate::Who;
use super::refusal::Refusal;
use tonic::Code;
use yard_common::ErrorCode;
use yard_common::id::{LogIndex, TokenId};
use yard_common::limits::TOKEN_LIFE_MS_MAX;
use yard_core::command::{Access, Actor, Command, Scope};
use yard_proto::v1::Secret;
use yard_proto::{convert, internal, v1};
use yard_runtime::identity::{
    Authority, CERTIFICATE_LIFE_MS, Issued, Principal, Secret as TokenSecret, TokenKind,
};

/// A token that was shown: its public part, and the hash of its secret.
pub(super) struct Shown {
    pub(super) token: TokenId,
    pub(super) secret_sha256: [u8; 32],
}

/// A token that was made.
pub(super) struct Minted {
    pub(super) text: Secret,
    pub(super) id: TokenId,
    pub(super) expires_wall_ms: u64,
}

impl Api {
    pub(super) fn authority(&self) -> Result<&Authority, Refusal> {
        self.authority.as_ref().ok_or_else(|| {
            Refusal::unavailable("this member has no keys of the authority; ask another member")
        })
    }

    /// Issues a certificate. `names`: the names and addresses of the holder's server.
    pub(super) fn issue(
        &self,
        csr: &[u8],
        principal: Principal,
        names: &[String],
    ) -> Result<Issued, Refusal> {
        let now_ms = self.env.wall_ms();
        let authority = self.authority()?;
        Ok(authority.issue(csr, principal, names, now_ms, CERTIFICATE_LIFE_MS)?)
    }

    /// What the holder of a certificate trusts.
    fn trust_der(&self) -> Result<Vec<bytes::Bytes>, Refusal> {
        let certificates = self.authority()?.trust().certificates();
        Ok(certificates.iter().map(|der| bytes::Bytes::copy_from_slice(der)).collect())
    }

    /// A certificate for an agent.
    pub(super) fn agent_certificate(
        &self,
        issued: Issued,
    ) -> Result<internal::AgentCertificate, Refusal> {
        Ok(internal::AgentCertificate {
            chain_der: vec![issued.certificate.into()],
            trust_der: self.trust_der()?,
            expires_wall_ms: issued.peer.not_after_wall_ms,
        })
    }

    /// A certificate for a user.
    pub(super) fn user_certificate(
        &self,
        issued: Issued,
        name: String,
    ) -> Result<v1::CertificateResponse, Refusal> {
        Ok(v1::CertificateResponse {
            chain_der: vec![issued.certificate.into()],
            trust_der: self.trust_der()?,
            expires_wall_ms: issued.peer.not_after_wall_ms,
            principal: issued.peer.principal.uri(self.cluster),
            name,
            cluster_id: convert::cluster_id_bytes(self.cluster),
        })
    }

    /// Makes a token, and stores its hash.
    pub(super) async fn mint(
        &self,
        who: &Who,
        request_id: &[u8],
        (kind, scope): (TokenKind, Scope),
        life_ms: u64,
    ) -> Result<Minted, Refusal> {
        let life_ms = if life_ms == 0 { TOKEN_LIFE_MS_MAX } else { life_ms };
        // Asked again, the same request gets the same token: apply would refuse another one.
        let (user, request) = (who.user()?, convert::request_id(request_id)?);
        let mut asked = format!("{user}.{}.{life_ms}.", request.to_u128()).into_bytes();
        // By its numbered fields, which other releases know too.
        minicbor::encode(scope, &mut asked).expect("writing to memory does not fail");
        let token = self.authority()?.token(kind, &asked);
        let add = Access::AddToken {
            token: token.id,
            secret_sha256: token.secret.sha256(),
            scope,
            life_ms,
        };
        self.change(who, request_id, Command::Access(add)).await?;
        let text = Secret::from(token.reveal().to_string());
        // Counted from when it was made. It may be used up by now, if this is a retry.
        let (_, state) = self.raft.state();
        let ends_ms = state.tokens.get(&token.id).map_or(state.now_ms(), |token| token.ends_ms);
        let left_ms = ends_ms.saturating_sub(state.now_ms());
        let expires_wall_ms = self.env.wall_ms().saturating_add(left_ms);
        Ok(Minted { text, id: token.id, expires_wall_ms })
    }
}

impl Api {
    /// Looks whether a token can be good, before anything is signed or written to the log for
    /// somebody whom nobody knows. A request that was answered before finds its answer.
    pub(super) async fn check_token(
        &self,
        shown: &Shown,
        request_id: &[u8],
    ) -> Result<(), Refusal> {
        let request = convert::request_id(request_id)?;
        let state = self.fresh(LogIndex(0)).await?;
        let known = state.tokens.get(&shown.token);
        let good = known.is_some_and(|token| token.matches(&shown.secret_sha256));
        if good || state.dedup.get(Actor::Bearer, request).is_some() { Ok(()) } else { Err(bad()) }
    }
}

/// Whatever is wrong with a token, the answer is the same.
pub(super) fn bad() -> Refusal {
    let message = "the token is not valid";
    Refusal::new(Code::Unauthenticated, ErrorCode::BadToken, message)
}

/// Reads a token that was shown.
pub(super) fn shown(token_id: &[u8], secret: Option<&Secret>) -> Result<Shown, Refusal> {
    let token = convert::token_id(token_id).map_err(|_| bad())?;
    let secret = secret.and_then(|secret| TokenSecret::from_text(&secret.text)).ok_or_else(bad)?;
    Ok(Shown { token, secret_sha256: secret.sha256() })
}
