//! Users and what they may do.

use super::ConvertError;
use super::enums::known;
use crate::v1;
use yard_common::id::PrincipalId;
use yard_core::command::{Grant, LimitScope};
use yard_core::state::{HoldingKey, Principal, State};

/// A user, with what it holds and may hold.
#[must_use]
pub fn user(state: &State, id: PrincipalId, user: &Principal) -> v1::User {
    v1::User {
        id: id.0,
        name: user.name.to_string(),
        unix_login: user.unix.as_deref().unwrap_or_default().to_string(),
        grants: user.grants.iter().map(|grant| told_grant(state, grant)).collect(),
        disabled: user.disabled,
        held: Some((&state.holdings.get(HoldingKey::Owner(id))).into()),
        limit: state.holdings.limit(LimitScope::Owner(id)).map(Into::into),
    }
}

fn told_grant(state: &State, grant: &Grant) -> v1::Grant {
    let workspace = grant.workspace.map(|id| match state.workspaces.get(id) {
        Some(workspace) => workspace.name.to_string(),
        // A grant in a workspace that went is a grant nowhere, and must not look like one
        // everywhere.
        None => id.to_string(),
    });
    let mut message = v1::Grant { workspace: workspace.unwrap_or_default(), role: 0 };
    message.set_role(grant.role.into());
    message
}

/// What a user is to be allowed.
///
/// # Errors
/// If a workspace does not exist, or a role is not known.
pub fn grants(state: &State, grants: &[v1::Grant]) -> Result<Vec<Grant>, ConvertError> {
    let read = |grant: &v1::Grant| {
        let workspace = match grant.workspace.as_str() {
            "" => None,
            name => Some(super::names::workspace_id(state, name)?),
        };
        Ok(Grant { workspace, role: known::<v1::Role, _>("role", grant.role)? })
    };
    grants.iter().map(read).collect()
}
