//! People.

use super::nodes::token_row;
use crate::args::{RoleName, UserArgs, UserVerb};
use crate::failure::Failure;
use crate::output::say;
use crate::session::{Session, all_pages};
use crate::text;
use crate::verb::holders::show_one;
use crate::view;
use yard_proto::v1;

/// Does what the command line says.
pub(crate) async fn user(session: &Session, verb: &UserVerb) -> Result<u8, Failure> {
    match verb {
        UserVerb::Ls => ls(session).await?,
        UserVerb::Show { user } => show(session, user.as_deref()).await?,
        UserVerb::Add(args) => {
            let role = args.role.unwrap_or(RoleName::User);
            let request = v1::AddUserRequest {
                user: args.user.clone(),
                unix_login: args.unix.clone().unwrap_or_default(),
                grants: vec![everywhere(role)],
                ..v1::AddUserRequest::default()
            };
            session.client.add_user(request).await?;
            let name = &args.user;
            say(&format!("{name} is added; `yard user invite {name}` makes a token to log in"));
        }
        UserVerb::Set(args) => set(session, args).await?,
        UserVerb::Disable { user } => disable(session, user, true).await?,
        UserVerb::Enable { user } => disable(session, user, false).await?,
        UserVerb::Invite { user, life } => {
            let request = v1::CreateLoginTokenRequest {
                user: user.clone(),
                life_ms: life.ms(),
                ..v1::CreateLoginTokenRequest::default()
            };
            let answer = session.client.login_token(request).await?;
            tell_token(session, answer.token, answer.expires_wall_ms)?;
        }
    }
    Ok(0)
}

/// Prints a token, which is shown once.
pub(super) fn tell_token(
    session: &Session,
    token: Option<v1::Secret>,
    expires_wall_ms: u64,
) -> Result<(), Failure> {
    let text = token.unwrap_or_default().text;
    session.one("Token", &token_row(&text, expires_wall_ms), &format!("{text}\n"))?;
    let ends = text::moment(expires_wall_ms);
    say(&format!("note: it is good once, until {ends}, and cannot be shown again"));
    Ok(())
}

async fn ls(session: &Session) -> Result<(), Failure> {
    let (users, _) = all_pages(|page| async move {
        let answer = session.client.users(v1::ListUsersRequest { page: Some(page) }).await?;
        Ok((answer.users, answer.page))
    })
    .await?;
    session.list(&view::holder::users(&users))
}

async fn get(session: &Session, name: &str) -> Result<v1::User, Failure> {
    let answer = session.client.user(v1::GetUserRequest { user: name.to_string() }).await?;
    Ok(answer.user.unwrap_or_default())
}

async fn show(session: &Session, name: Option<&str>) -> Result<(), Failure> {
    let user = match name {
        Some(name) => get(session, name).await?,
        None => session.client.who_am_i(v1::WhoAmIRequest {}).await?.user.unwrap_or_default(),
    };
    show_one(session, view::holder::users(std::slice::from_ref(&user)))
}

async fn set(session: &Session, args: &UserArgs) -> Result<(), Failure> {
    if args.unix.is_none() && args.role.is_none() {
        return Err(Failure::usage("nothing to change", "name --role or --unix"));
    }
    let present = get(session, &args.user).await?;
    let request = v1::SetUserRequest {
        user: args.user.clone(),
        unix_login: args.unix.clone().unwrap_or_else(|| present.unix_login.clone()),
        grants: new_grants(present.grants, args.role),
        ..v1::SetUserRequest::default()
    };
    session.client.set_user(request).await?;
    say(&format!("{} is changed", args.user));
    Ok(())
}

/// The grants with another role in the whole cluster; those of workspaces stay.
fn new_grants(present: Vec<v1::Grant>, role: Option<RoleName>) -> Vec<v1::Grant> {
    let Some(role) = role else { return present };
    let of_workspaces = present.into_iter().filter(|grant| !grant.workspace.is_empty());
    std::iter::once(everywhere(role)).chain(of_workspaces).collect()
}

fn everywhere(role: RoleName) -> v1::Grant {
    let role = match role {
        RoleName::Viewer => v1::Role::Viewer,
        RoleName::User => v1::Role::User,
        RoleName::Operator => v1::Role::Operator,
        RoleName::Admin => v1::Role::Admin,
    };
    v1::Grant { workspace: String::new(), role: role.into() }
}

async fn disable(session: &Session, name: &str, disabled: bool) -> Result<(), Failure> {
    let request = v1::DisableUserRequest { user: name.to_string(), disabled, ..Default::default() };
    session.client.disable_user(request).await?;
    say(&format!("{name} is {}", if disabled { "disabled" } else { "enabled" }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_role_leaves_workspaces_alone() {
        let of_team = v1::Grant { workspace: "team".into(), role: v1::Role::Admin.into() };
        let present = vec![everywhere(RoleName::User), of_team.clone()];
        assert_eq!(new_grants(present.clone(), None), present);
        let new = new_grants(present, Some(RoleName::Operator));
        assert_eq!(new, [everywhere(RoleName::Operator), of_team]);
    }
}
