//! The calls about people.

use super::Api;
use super::certify::{Shown, shown};
use super::gate::Who;
use super::read::page_of;
use super::refusal::Refusal;
use super::serve::serve;
use tonic::Code;
use yard_common::ErrorCode;
use yard_common::id::PrincipalId;
use yard_core::command::{Access, Actor, Command, Object, Reply, Role, Scope};
use yard_proto::convert::page;
use yard_proto::v1::user_service_server::UserService;
use yard_proto::{convert, v1};
use yard_runtime::identity::{Principal, TokenKind};

serve!(UserService [] {
    who_am_i: v1::WhoAmIRequest => v1::WhoAmIResponse = who_am_i;
    list: v1::ListUsersRequest => v1::ListUsersResponse = list_users;
    get: v1::GetUserRequest => v1::GetUserResponse = get_user;
    add: v1::AddUserRequest => v1::Changed = add_user;
    set: v1::SetUserRequest => v1::Changed = set_user;
    disable: v1::DisableUserRequest => v1::Changed = disable_user;
    create_login_token: v1::CreateLoginTokenRequest => v1::CreateLoginTokenResponse = login_token;
    drop_token: v1::DropTokenRequest => v1::Changed = drop_token;
    login: v1::LoginRequest => v1::CertificateResponse = log_in;
    renew_certificate: v1::RenewCertificateRequest => v1::CertificateResponse = renew_user;
    revoke: v1::RevokeRequest => v1::Changed = revoke;
});

fn unix(login: String) -> Option<String> {
    (!login.is_empty()).then_some(login)
}

impl Api {
    async fn who_am_i(
        &self,
        who: &Who,
        _: v1::WhoAmIRequest,
    ) -> Result<v1::WhoAmIResponse, Refusal> {
        let view = self.view(who, None).await?;
        let user = view.state.principals.get(view.user);
        Ok(v1::WhoAmIResponse {
            user: user.map(|user| convert::user(&view.state, view.user, user)),
            cluster_id: convert::cluster_id_bytes(self.cluster),
            certificate_expires_wall_ms: who.peer()?.not_after_wall_ms,
        })
    }

    async fn list_users(
        &self,
        who: &Who,
        request: v1::ListUsersRequest,
    ) -> Result<v1::ListUsersResponse, Refusal> {
        let view = self.view(who, request.page.as_ref()).await?;
        let after = page::after_number::<u32>(request.page.as_ref())?;
        let users = view.state.principals.iter();
        let behind = users.filter(|(id, _)| after.is_none_or(|after| id.0 > after));
        let rows = behind.map(|(id, user)| (id, convert::user(&view.state, id, user)));
        let (users, next_key) = page_of(rows, request.page.as_ref());
        Ok(v1::ListUsersResponse { users, page: Some(view.page_info(next_key)) })
    }

    async fn get_user(
        &self,
        who: &Who,
        request: v1::GetUserRequest,
    ) -> Result<v1::GetUserResponse, Refusal> {
        let view = self.view(who, None).await?;
        let id = convert::user_id(&view.state, &request.user);
        let id = id.ok().filter(|id| *id == view.user || view.has_everywhere(Role::Operator));
        let id = id.ok_or_else(|| Refusal::no_such("user", &request.user))?;
        let user = view.state.principals.get(id).map(|user| convert::user(&view.state, id, user));
        Ok(v1::GetUserResponse { user, applied_index: view.applied_index() })
    }

    async fn add_user(
        &self,
        who: &Who,
        request: v1::AddUserRequest,
    ) -> Result<v1::Changed, Refusal> {
        let view = self.view(who, None).await?;
        let grants = convert::grants(&view.state, &request.grants)?;
        let add = Access::AddUser { name: request.user, unix: unix(request.unix_login), grants };
        self.changed(who, &request.request_id, Command::Access(add)).await
    }

    async fn set_user(
        &self,
        who: &Who,
        request: v1::SetUserRequest,
    ) -> Result<v1::Changed, Refusal> {
        let view = self.view(who, None).await?;
        let user = convert::user_id(&view.state, &request.user)?;
        let grants = convert::grants(&view.state, &request.grants)?;
        let set = Access::SetUser { user, unix: unix(request.unix_login), grants };
        self.changed(who, &request.request_id, Command::Access(set)).await
    }

    async fn disable_user(
        &self,
        who: &Who,
        request: v1::DisableUserRequest,
    ) -> Result<v1::Changed, Refusal> {
        let view = self.view(who, None).await?;
        let user = convert::user_id(&view.state, &request.user)?;
        let disable = Access::DisableUser { user, disabled: request.disabled };
        self.changed(who, &request.request_id, Command::Access(disable)).await
    }

    async fn login_token(
        &self,
        who: &Who,
        request: v1::CreateLoginTokenRequest,
    ) -> Result<v1::CreateLoginTokenResponse, Refusal> {
        let view = self.view(who, None).await?;
        let user = convert::user_id(&view.state, &request.user)?;
        let what = (TokenKind::Login, Scope::Login(user));
        let minted = self.mint(who, &request.request_id, what, request.life_ms).await?;
        Ok(v1::CreateLoginTokenResponse {
            token: Some(minted.text),
            token_id: convert::token_id_bytes(minted.id),
            expires_wall_ms: minted.expires_wall_ms,
        })
    }

    async fn drop_token(
        &self,
        who: &Who,
        request: v1::DropTokenRequest,
    ) -> Result<v1::Changed, Refusal> {
        let token = convert::token_id(&request.token_id)?;
        let drop = Access::DropToken(token);
        self.changed(who, &request.request_id, Command::Access(drop)).await
    }

    /// Uses a login token up. Whoever calls has no certificate yet.
    async fn log_in(
        &self,
        _: &Who,
        request: v1::LoginRequest,
    ) -> Result<v1::CertificateResponse, Refusal> {
        let shown = shown(&request.token_id, request.token_secret.as_ref())?;
        self.check_token(&shown, &request.request_id).await?;
        let Shown { token, secret_sha256 } = shown;
        // A request that cannot be signed must not cost the token.
        let nobody = Principal::User(PrincipalId(u32::MAX));
        self.issue(&request.csr_der, nobody, &[])?;
        let redeem = Command::Access(Access::RedeemLogin { token, secret_sha256 });
        let written = self.write(Actor::Bearer, &request.request_id, redeem).await?;
        match written.reply {
            Reply::Login(user) => self.certify_user(user, &request.csr_der),
            other => {
                tracing::error!(?other, "a login was answered with something else");
                Err(Refusal::plain(Code::Internal, "the answer names no user"))
            }
        }
    }

    async fn renew_user(
        &self,
        who: &Who,
        request: v1::RenewCertificateRequest,
    ) -> Result<v1::CertificateResponse, Refusal> {
        self.certify_user(who.user()?, &request.csr_der)
    }

    fn certify_user(
        &self,
        id: PrincipalId,
        csr: &[u8],
    ) -> Result<v1::CertificateResponse, Refusal> {
        let (_, state) = self.raft.state();
        let user = state.principals.get(id).filter(|user| !user.disabled);
        let name = user.map(|user| user.name.to_string()).ok_or_else(|| {
            let user = state.name_of(Object::User(id));
            let message = format!("{user} is disabled or revoked");
            Refusal::new(Code::PermissionDenied, ErrorCode::Revoked, message)
        })?;
        let issued = self.issue(csr, Principal::User(id), &[])?;
        self.user_certificate(issued, name)
    }

    async fn revoke(&self, who: &Who, request: v1::RevokeRequest) -> Result<v1::Changed, Refusal> {
        let revoke = Access::Revoke {
            serial: request.serial.to_vec(),
            reason: request.reason,
            expires_wall_ms: request.expires_wall_ms,
        };
        self.changed(who, &request.request_id, Command::Access(revoke)).await
    }
}
