//! Whom the ranks run as.

use super::error::PrepareError;
use crate::sys::Identity;
use nix::unistd::{Uid, User, geteuid, getgrouplist};
use std::ffi::CString;

/// A unix account, as the node's name service knows it.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// Login.
    pub(super) name: String,
    /// Home directory.
    pub(super) home: String,
    /// Login shell.
    pub(super) shell: String,
    /// User and main group.
    pub(super) uid: u32,
    /// Main group.
    pub(super) gid: u32,
    /// Whom a process becomes; none: it already is.
    pub(super) identity: Option<Identity>,
}

/// What a node says of the accounts that its jobs run as.
pub(super) struct Policy<'a> {
    /// The node's name.
    pub(super) node: &'a str,
    /// An owner without a login gets that of the agent, and the agent's own account is one as any
    /// other, even if it is root.
    pub(super) as_agent: bool,
    /// Accounts with the rights of root that jobs may run as.
    pub(super) roots: &'a [String],
}

/// The account of a job's owner on this node.
pub(super) fn resolve(login: Option<&str>, policy: &Policy<'_>) -> Result<Account, PrepareError> {
    let Policy { node, as_agent, roots } = *policy;
    let own = geteuid();
    let user = match login {
        Some(login) => by_name(login)?.ok_or_else(|| PrepareError::NoAccount {
            login: login.to_string(),
            node: node.to_string(),
        })?,
        None if own.is_root() && !as_agent => return Err(PrepareError::NoLogin),
        None => by_uid(own, node)?,
    };
    if !own.is_root() && user.uid != own {
        let own = by_uid(own, node)?.name;
        return Err(PrepareError::OtherAccount { login: user.name, own, node: node.to_string() });
    }
    let is_own = as_agent && user.uid == own;
    if user.uid.is_root() && !is_own && !roots.contains(&user.name) {
        return Err(PrepareError::Root { login: user.name, node: node.to_string() });
    }
    if user.uid.as_raw() == u32::MAX || user.gid.as_raw() == u32::MAX {
        // The system calls take it for "no change".
        return Err(PrepareError::NoAccount { login: user.name, node: node.to_string() });
    }
    let identity = match own.is_root() && !user.uid.is_root() {
        true => Some(Identity {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups(&user)?,
        }),
        false => None,
    };
    Ok(Account {
        home: user.dir.to_string_lossy().into_owned(),
        shell: user.shell.to_string_lossy().into_owned(),
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        name: user.name,
        identity,
    })
}

/// The login of this process, if it has one.
#[must_use]
pub fn own_login() -> Option<String> {
    User::from_uid(geteuid()).ok().flatten().map(|user| user.name)
}

fn by_name(login: &str) -> Result<Option<User>, PrepareError> {
    User::from_name(login).map_err(|errno| PrepareError::Lookup { login: login.to_string(), errno })
}

fn by_uid(uid: Uid, node: &str) -> Result<User, PrepareError> {
    let login = uid.to_string();
    match User::from_uid(uid) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(PrepareError::NoAccount { login, node: node.to_string() }),
        Err(errno) => Err(PrepareError::Lookup { login, errno }),
    }
}

fn groups(user: &User) -> Result<Vec<u32>, PrepareError> {
    let lookup = |errno| PrepareError::Lookup { login: user.name.clone(), errno };
    let name =
        CString::new(user.name.as_str()).map_err(|_| PrepareError::Nul(user.name.clone()))?;
    let groups = getgrouplist(&name, user.gid).map_err(lookup)?;
    Ok(groups.into_iter().map(|gid| gid.as_raw()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_login_names_node_and_fix() {
        let error = resolve(Some("no-such-login"), &policy(false, &[])).unwrap_err();
        assert_eq!(error.step(), yard_common::cause::PrepareStep::Account);
        let text = error.to_string();
        assert!(text.starts_with("there is no account no-such-login on node n1;"), "{text}");
    }

    fn policy(as_agent: bool, roots: &[String]) -> Policy<'_> {
        Policy { node: "n1", as_agent, roots }
    }

    #[test]
    fn only_root_becomes_somebody_else() {
        let own = geteuid();
        let login = User::from_uid(own).unwrap().unwrap().name;
        let named = [login.clone()];
        assert_eq!(resolve(Some(&login), &policy(false, &named)).unwrap().identity, None);
        if own.is_root() {
            let nobody = resolve(Some("nobody"), &policy(true, &[])).unwrap();
            assert_eq!(nobody.identity.unwrap().uid, nobody.uid);
            let error = resolve(None, &policy(false, &[])).unwrap_err();
            // No other try and no other machine would change it.
            assert_eq!(error.step().fault(), yard_common::cause::Fault::User);
            assert!(error.to_string().contains("yard user set NAME --unix LOGIN"), "{error}");
            assert_eq!(resolve(None, &policy(true, &[])).unwrap().name, login);
        } else {
            let error = resolve(Some("root"), &policy(false, &named)).unwrap_err();
            assert!(matches!(error, PrepareError::OtherAccount { .. }), "{error}");
            assert_eq!(resolve(None, &policy(false, &[])).unwrap().name, login);
        }
    }

    #[test]
    fn jobs_run_as_root_only_where_that_account_is_named() {
        if !geteuid().is_root() {
            return;
        }
        let error = resolve(Some("root"), &policy(false, &["toor".into()])).unwrap_err();
        assert!(matches!(error, PrepareError::Root { .. }), "{error}");
        assert_eq!(error.step(), yard_common::cause::PrepareStep::Account);
        let named = ["root".to_string()];
        assert_eq!(resolve(Some("root"), &policy(false, &named)).unwrap().uid, 0);
        assert_eq!(resolve(Some("root"), &policy(true, &[])).unwrap().uid, 0);
    }
}
