//! Users, their roles, tokens, refused certificates, secrets.
//!
//! At all times an enabled user has the role of an admin in the whole cluster: otherwise nobody
//! could ever give it to anybody again. Whatever is wrong with a token, the answer is the same.

use super::Context;
use super::bound::{at_most_bytes, between, legal_name, room};
use crate::command::{Access, Actor, Grant, Object, Rejection, Reply, Role, Scope};
use crate::state::{Principal, Revocation, Secret, SecretKey, State, Timer, Token};
use crate::table::Shared;
use yard_common::id::{PrincipalId, TokenId, WorkspaceId};
use yard_common::limits;

/// Characters of a login, as `useradd` allows them.
const LOGIN_BYTES_MAX: usize = 32;

impl State {
    pub(super) fn run_access(
        &mut self,
        context: &mut Context,
        command: &Access,
    ) -> Result<Reply, Rejection> {
        match command {
            Access::AddUser { name, unix, grants } => {
                self.add_user(context, name, unix.as_deref(), grants)
            }
            Access::SetUser { user, unix, grants } => {
                self.set_user(context, *user, unix.as_deref(), grants)
            }
            Access::DisableUser { user, disabled } => self.disable_user(context, *user, *disabled),
            Access::AddToken { token, secret_sha256, scope, life_ms } => {
                self.add_token(context, *token, secret_sha256, *scope, *life_ms)
            }
            Access::DropToken(token) => {
                self.take_token(*token).ok_or(Rejection::NotFound(Object::Token(*token)))?;
                context.changed(Object::Token(*token));
                Ok(Reply::Done)
            }
            Access::RedeemLogin { token, secret_sha256 } => {
                self.redeem_login(context, *token, secret_sha256)
            }
            Access::Revoke { serial, reason, expires_wall_ms } => {
                self.revoke(context, serial, reason, *expires_wall_ms)
            }
            Access::PutSecret { workspace, name, ciphertext, version } => {
                let key = SecretKey { workspace: *workspace, name: name.as_str().into() };
                self.put_secret(context, key, ciphertext, *version)
            }
            Access::DropSecret { workspace, name } => {
                let key = SecretKey { workspace: *workspace, name: name.as_str().into() };
                self.drop_secret(context, &key)
            }
            Access::JoinMember { token, secret_sha256, key_sha256, address, level_max } => {
                let proof = (*token, secret_sha256, key_sha256);
                self.join_member(context, proof, address, *level_max)
            }
        }
    }

    /// Adds a user with a new name; also the first one.
    pub(super) fn add_user(
        &mut self,
        context: &mut Context,
        name: &str,
        unix: Option<&str>,
        grants: &[Grant],
    ) -> Result<Reply, Rejection> {
        legal_name("name", name)?;
        legal_login(unix)?;
        let grants = self.legal_grants(grants)?;
        if let Some(taken) = self.principals.find(name) {
            return Err(Rejection::AlreadyExists(Object::User(taken)));
        }
        room("users", self.principals.len(), limits::PRINCIPALS_MAX)?;
        let unix = unix.map(Box::from);
        let user = Principal { name: name.into(), unix, grants, disabled: false };
        let object = Object::User(self.principals.push(name, user));
        context.changed(object);
        Ok(Reply::Made(object))
    }

    fn set_user(
        &mut self,
        context: &mut Context,
        id: PrincipalId,
        unix: Option<&str>,
        grants: &[Grant],
    ) -> Result<Reply, Rejection> {
        let old = self.user(id)?;
        legal_login(unix)?;
        let grants = self.legal_grants(grants)?;
        let new = Principal { unix: unix.map(Box::from), grants, ..old.clone() };
        self.replace_user(context, id, new)
    }

    fn disable_user(
        &mut self,
        context: &mut Context,
        id: PrincipalId,
        disabled: bool,
    ) -> Result<Reply, Rejection> {
        let new = Principal { disabled, ..self.user(id)?.clone() };
        let reply = self.replace_user(context, id, new)?;
        if disabled {
            // A key that fell into wrong hands may have made tokens that outlive it.
            self.drop_tokens(context, |token| {
                token.by == Actor::User(id) || token.scope == Scope::Login(id)
            });
        }
        Ok(reply)
    }

    fn user(&self, id: PrincipalId) -> Result<&Principal, Rejection> {
        self.principals.get(id).ok_or(Rejection::NotFound(Object::User(id)))
    }

    /// Puts a user's new record in place, unless no admin would be left.
    fn replace_user(
        &mut self,
        context: &mut Context,
        id: PrincipalId,
        new: Principal,
    ) -> Result<Reply, Rejection> {
        let is_admin = |user: &Principal| user.has(Role::Admin, None);
        let stays = is_admin(&new)
            || self.principals.iter().any(|(other, user)| other != id && is_admin(user));
        if !stays {
            let state = "the last admin of the cluster; make another one first".into();
            return Err(Rejection::WrongState(Object::User(id), state));
        }
        self.principals[id] = new;
        context.changed(Object::User(id));
        Ok(Reply::Done)
    }

    /// Checks roles, and sorts them: one in each workspace.
    fn legal_grants(&self, grants: &[Grant]) -> Result<Vec<Grant>, Rejection> {
        between("grants", grants.len(), 0, limits::GRANTS_MAX)?;
        let mut grants = grants.to_vec();
        grants.sort_unstable();
        if grants.windows(2).any(|pair| pair[0].workspace == pair[1].workspace) {
            return Err(Rejection::invalid(
                "grants",
                "two roles in one place; name the higher one",
            ));
        }
        for workspace in grants.iter().filter_map(|grant| grant.workspace) {
            self.existing_workspace(workspace)?;
        }
        Ok(grants)
    }

    pub(super) fn existing_workspace(&self, id: WorkspaceId) -> Result<(), Rejection> {
        self.workspaces.get(id).ok_or(Rejection::NotFound(Object::Workspace(id))).map(|_| ())
    }

    fn add_token(
        &mut self,
        context: &mut Context,
        id: TokenId,
        secret_sha256: &[u8; 32],
        scope: Scope,
        life_ms: u64,
    ) -> Result<Reply, Rejection> {
        between("life_ms", life_ms, 1, limits::TOKEN_LIFE_MS_MAX)?;
        self.legal_scope(scope)?;
        if self.tokens.contains(&id) {
            return Err(Rejection::AlreadyExists(Object::Token(id)));
        }
        room("unused tokens", self.tokens.len(), limits::TOKENS_MAX)?;
        let ends_ms = context.now_ms.saturating_add(life_ms);
        let token = Token { secret_sha256: *secret_sha256, scope, ends_ms, by: context.actor };
        self.tokens.insert(id, token);
        self.timers.set(ends_ms, Timer::Token(id));
        context.changed(Object::Token(id));
        Ok(Reply::Made(Object::Token(id)))
    }

    /// Whether what a token is for exists.
    fn legal_scope(&self, scope: Scope) -> Result<(), Rejection> {
        let (exists, object) = match scope {
            Scope::Join(pool) => (self.pools.get(pool).is_some(), Object::Pool(pool)),
            Scope::Renew(node) => (self.nodes.get(node).is_some(), Object::Node(node)),
            Scope::Member => (true, Object::Cluster),
            Scope::Login(user) if self.user(user)?.disabled => {
                return Err(Rejection::Revoked(Object::User(user)));
            }
            Scope::Login(user) => (true, Object::User(user)),
        };
        if exists { Ok(()) } else { Err(Rejection::NotFound(object)) }
    }

    /// What a token is good for, if it is good for what is wanted, and its secret is right.
    /// Changes nothing.
    pub(super) fn check_token(
        &self,
        context: &Context,
        id: TokenId,
        secret_sha256: &[u8; 32],
        fits: impl Fn(&Scope) -> bool,
    ) -> Result<Scope, Rejection> {
        let token = self.tokens.get(&id);
        let good = token.filter(|token| {
            token.matches(secret_sha256) && token.ends_ms > context.now_ms && fits(&token.scope)
        });
        good.map(|token| token.scope).ok_or(Rejection::BadToken)
    }

    /// Uses a token up. One that is not good is left as it is.
    pub(super) fn redeem_token(
        &mut self,
        context: &mut Context,
        id: TokenId,
        secret_sha256: &[u8; 32],
        fits: impl Fn(&Scope) -> bool,
    ) -> Result<Scope, Rejection> {
        let scope = self.check_token(context, id, secret_sha256, fits)?;
        self.take_token(id);
        context.changed(Object::Token(id));
        Ok(scope)
    }

    fn redeem_login(
        &mut self,
        context: &mut Context,
        id: TokenId,
        secret_sha256: &[u8; 32],
    ) -> Result<Reply, Rejection> {
        let is_login = |scope: &Scope| matches!(scope, Scope::Login(_));
        match self.redeem_token(context, id, secret_sha256, is_login)? {
            Scope::Login(user) => Ok(Reply::Login(user)),
            Scope::Join(_) | Scope::Member | Scope::Renew(_) => Err(Rejection::BadToken),
        }
    }

    /// Takes a token and its timer out.
    fn take_token(&mut self, id: TokenId) -> Option<Token> {
        let token = self.tokens.remove(&id)?;
        self.timers.unset(token.ends_ms, Timer::Token(id));
        Some(token)
    }

    /// The end of a token has come.
    pub(super) fn expire_token(&mut self, id: TokenId) {
        self.take_token(id);
    }

    /// Takes all tokens of a kind back.
    pub(super) fn drop_tokens(&mut self, context: &mut Context, wanted: impl Fn(&Token) -> bool) {
        let found = self.tokens.iter().filter(|(_, token)| wanted(token));
        let found: Vec<_> = found.map(|(id, _)| *id).collect();
        for id in found {
            self.take_token(id);
            context.changed(Object::Token(id));
        }
    }

    fn revoke(
        &mut self,
        context: &mut Context,
        serial: &[u8],
        reason: &str,
        expires_wall_ms: u64,
    ) -> Result<Reply, Rejection> {
        between("serial", serial.len(), 1, limits::SERIAL_BYTES_MAX)?;
        at_most_bytes("reason", reason.as_bytes(), limits::REASON_BYTES_MAX)?;
        let serial = serial.to_vec();
        if self.revocations.contains(&serial) {
            return Err(Rejection::AlreadyExists(Object::Definition));
        }
        let now_ms = context.wall_ms;
        let ended = self.revocations.iter().filter(|(_, old)| old.expires_wall_ms <= now_ms);
        let ended: Vec<_> = ended.map(|(serial, _)| serial.clone()).collect();
        let left = self.revocations.len() - ended.len();
        room("revoked certificates", left, limits::REVOCATIONS_MAX)?;
        for old in ended {
            self.revocations.remove(&old);
        }
        let revocation = Revocation { reason: reason.into(), expires_wall_ms, by: context.actor };
        self.revocations.insert(serial, revocation);
        context.changed(Object::Definition);
        Ok(Reply::Done)
    }

    fn put_secret(
        &mut self,
        context: &mut Context,
        key: SecretKey,
        ciphertext: &[u8],
        version: u32,
    ) -> Result<Reply, Rejection> {
        let by = context.user()?;
        self.existing_workspace(key.workspace)?;
        legal_name("name", &key.name)?;
        between("ciphertext", ciphertext.len(), 1, limits::SECRET_BYTES_MAX)?;
        let old = self.secrets.get(&key).map(|secret| secret.version);
        if old.unwrap_or(0).checked_add(1) != Some(version) {
            return Err(Rejection::Changed(Object::Definition));
        }
        if old.is_none() {
            room("secrets", self.secrets.len(), limits::DEFINITIONS_MAX)?;
            self.workspaces[key.workspace].holds += 1;
        }
        let secret = Secret { version, ciphertext: Shared::from(ciphertext.to_vec()), by };
        self.secrets.insert(key, secret);
        context.changed(Object::Definition);
        Ok(Reply::Done)
    }

    fn drop_secret(&mut self, context: &mut Context, key: &SecretKey) -> Result<Reply, Rejection> {
        self.secrets.remove(key).ok_or(Rejection::NotFound(Object::Definition))?;
        self.workspaces[key.workspace].holds -= 1;
        context.changed(Object::Definition);
        Ok(Reply::Done)
    }
}

/// Whether a login is one that ranks may run as: `[a-z_][a-z0-9_-]{0,31}`, so no number that a
/// node could take for a uid, and not `root`.
fn legal_login(unix: Option<&str>) -> Result<(), Rejection> {
    let Some(login) = unix else { return Ok(()) };
    let first = |b: u8| b.is_ascii_lowercase() || b == b'_';
    let rest = |b: u8| first(b) || b.is_ascii_digit() || b == b'-';
    let legal = login.bytes().next().is_some_and(first) && login.bytes().all(rest);
    if !legal || login.len() > LOGIN_BYTES_MAX {
        let problem = "not a legal login: 1 to 32 of a-z, 0-9, _ and -, the first of them a-z or _";
        return Err(Rejection::invalid("unix", problem));
    }
    if login == "root" {
        return Err(Rejection::invalid("unix", "root runs no jobs; name another login"));
    }
    Ok(())
}
