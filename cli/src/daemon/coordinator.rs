//! `yard coordinator`: a new cluster, and the process of one coordinator.

use super::{absolute, log, settings};
use crate::args::{
    CoordinatorInitArgs, CoordinatorJoinArgs, CoordinatorResetArgs, CoordinatorRunArgs, PlaceArgs,
    SettingsArgs,
};
use crate::context::{Contexts, Environment, check_name};
use crate::failure::{Failure, chain, exit};
use crate::input::{all_of_standard_input, confirm};
use crate::install::account::{self, Account};
use crate::output::say;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use yard_common::ErrorCode;
use yard_coordinator::env::SystemEnv;
use yard_coordinator::{
    Build, EXIT_CODE, EXIT_FOLDER, EXIT_VERSION, InitOptions, JoinError, JoinOptions, Joined,
    Options, ServeError, Service,
};
use yard_runtime::identity::{Token, TokenKind};
use yard_runtime::notify::Manager;
use yard_runtime::shutdown::{Signal, Signals};

/// Where the settings are unless the command line says otherwise.
pub(crate) const SETTINGS: &str = "/etc/yard/coordinator.toml";
/// The unit of systemd that runs it.
const UNIT: &str = "yard-coordinator";

fn options(args: &SettingsArgs) -> Result<Options, Failure> {
    let mut options = match settings(args.config.as_deref(), SETTINGS) {
        Some(file) => Options::read(&file)
            .map_err(|error| Failure::new(exit::USAGE, crate::failure::chain(&error), ""))?,
        None => Options::new(PathBuf::from(Options::FOLDER), Options::LISTEN),
    };
    if let Some(folder) = &args.folder {
        options.folder = absolute(folder)?;
    }
    Ok(options)
}

/// The settings of a new coordinator, and the address by which it is to be reached.
pub(super) fn place(args: &PlaceArgs) -> Result<(Options, String), Failure> {
    let options = options(&args.settings)?;
    let address = match &args.address {
        Some(address) => address.clone(),
        None => format!("{}:{}", super::agent::host_name()?, options.listen.port()),
    };
    Ok((options, address))
}

/// The settings of this file; the defaults, if there is none.
pub(crate) fn options_at(settings: &Path) -> Result<Options, Failure> {
    match settings.exists() {
        true => options(&SettingsArgs { config: Some(settings.into()), folder: None }),
        false => Ok(Options::new(PathBuf::from(Options::FOLDER), Options::LISTEN)),
    }
}

/// Makes a cluster, and the context of its first administrator.
pub(crate) async fn init(args: &CoordinatorInitArgs) -> Result<u8, Failure> {
    check_name(&args.name)?;
    let options = options(&args.settings)?;
    let folder = Environment::of_process().folder()?;
    let mut contexts = Contexts::load(&folder)?;
    if contexts.contexts.contains_key(&args.name) {
        let message = format!("there is a context {:?} already", args.name);
        let hint = "give the cluster another name: --name NAME";
        return Err(Failure::new(exit::REFUSED, message, hint));
    }
    let heir = heir(&options)?;
    make(&options.folder, &args.address, &args.admin, args.unix.clone(), &mut |made| {
        remember(&mut contexts, &folder, &args.name, made)
    })
    .await?;
    hand_over(&options.folder, heir)?;
    say(&format!("made the cluster in {}", options.folder.display()));
    say(&format!("you are its administrator {}; the context is {}", args.admin, args.name));
    if args.unix.is_none() {
        let user = &args.admin;
        say(&format!("note: {user} has no login; `yard user set {user} --unix LOGIN` gives one"));
    }
    let next = super::next(UNIT, "yard coordinator run");
    say(&format!("next: {next}; then `yard node invite` for each machine"));
    Ok(0)
}

/// Makes a cluster, and hands its administrator to `keep`.
pub(crate) async fn make(
    folder: &Path,
    address: &str,
    admin: &str,
    unix: Option<String>,
    keep: &mut dyn FnMut(&yard_coordinator::Initialised) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let options = InitOptions {
        folder: folder.to_path_buf(),
        address: address.to_string(),
        admin: admin.to_string(),
        admin_unix: unix,
    };
    above(folder)?;
    let made = yard_coordinator::init(options, Arc::new(SystemEnv)).await;
    keep(&made.map_err(|error| Failure::local(&error, ""))?)
}

/// Makes this machine a further coordinator.
pub(crate) async fn join(args: &CoordinatorJoinArgs, build: Build) -> Result<u8, Failure> {
    let (options, address) = place(&args.place)?;
    let token = match args.token.as_str() {
        "-" => all_of_standard_input()?.trim().to_string(),
        token => token.to_string(),
    };
    let patience = Duration::from_millis(args.patience.ms());
    let members = args.members.clone();
    let heir = heir(&options)?;
    let joined = enter(&options.folder, &token, members, &address, patience, build).await?;
    hand_over(&options.folder, heir)?;
    let (member, cluster) = (joined.member, joined.cluster);
    say(&format!("this machine is member {member} of cluster {cluster}, at {address}"));
    let next = super::next(UNIT, "yard coordinator run");
    say(&format!("next: {next}; it votes once it has caught up, if that leaves an odd number"));
    Ok(0)
}

/// Joins, with the folder of a new member.
pub(crate) async fn enter(
    folder: &Path,
    token: &str,
    members: Vec<String>,
    address: &str,
    patience: Duration,
    build: Build,
) -> Result<Joined, Failure> {
    let hint = "ask an administrator for a new token: yard cluster token";
    let token = Token::parse_for(TokenKind::Member, token);
    let token = token.map_err(|error| Failure::usage(chain(&error), hint))?;
    above(folder)?;
    let address = address.to_string();
    let folder = folder.to_path_buf();
    let options = JoinOptions { folder, token, members, address, patience, build };
    let joined = yard_coordinator::join(options).await;
    joined.map_err(|error| {
        let (code, hint) = match &error {
            JoinError::Refused(refused)
                if refused.reason == ErrorCode::VersionTooOld.to_string() =>
            {
                (exit::REFUSED, "the token is as good as before")
            }
            JoinError::Refused(_) => (exit::DENIED, hint),
            JoinError::Foreign(_) => {
                (exit::DENIED, "is the address right? Tokens are good at their own cluster alone")
            }
            JoinError::Nobody { .. } => {
                (exit::UNREACHABLE, "name coordinators that run, or wait longer: --patience")
            }
            _ => (exit::REFUSED, ""),
        };
        Failure::new(code, chain(&error), hint)
    })
}

/// Removes what a coordinator keeps here.
pub(crate) fn reset(args: &CoordinatorResetArgs) -> Result<u8, Failure> {
    let options = options(&args.settings)?;
    let folder = &options.folder;
    let failed = |error: yard_coordinator::ResetError| Failure::local(&error, "");
    let found = yard_coordinator::resident(folder).map_err(failed)?;
    let who = match (found.member, found.cluster) {
        (Some(member), Some(cluster)) => format!("member {member} of cluster {cluster}"),
        _ => "a coordinator whose certificate cannot be read".into(),
    };
    say(&format!("{} is the folder of {who}:", folder.display()));
    say("  its certificate: it comes back only by `yard coordinator join`, as another member");
    say("  its copy of the log: if no other voting member has it, all jobs are gone for good");
    say("  its copy of the keys of the cluster's CAs");
    if let Some(member) = found.member {
        say(&format!(
            "unless the cluster is to end, remove it there first: yard cluster remove {member}"
        ));
    }
    confirm("Remove all of that?", args.yes)?;
    yard_coordinator::reset(folder).map_err(failed)?;
    say(&format!("{} is removed", folder.display()));
    Ok(0)
}

/// The account that gets what this process is about to make: that of the settings, if root makes
/// it.
pub(super) fn heir(options: &Options) -> Result<Option<Account>, Failure> {
    let Some(name) = options.user.as_deref() else { return Ok(None) };
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let found = account::find(name)?;
    let missing = || {
        let message = format!("there is no account {name} on this machine");
        Failure::new(exit::REFUSED, message, "yard coordinator install makes it")
    };
    found.ok_or_else(missing).map(Some)
}

/// Hands a folder to the account that is to have it.
pub(super) fn hand_over(folder: &Path, heir: Option<Account>) -> Result<(), Failure> {
    let Some(account) = heir else { return Ok(()) };
    let hint = format!("run: chown -R {}:{} {}", account.uid, account.gid, folder.display());
    account::hand_over(folder, account).map_err(|error| Failure::local(&error, hint))
}

/// Refuses to run as another account than that of the settings: what it wrote could not be read by
/// the service any more.
fn check_account(user: Option<&str>) -> Result<(), Failure> {
    let Some(name) = user else { return Ok(()) };
    let own = rustix::process::geteuid().as_raw();
    match account::find(name) {
        Ok(found) if found.is_none_or(|account| account.uid != own) => {
            let message = format!("its settings say that it runs as {name}");
            let hint = format!("systemctl start {UNIT}; or sudo -u {name} yard coordinator run");
            Err(Failure::new(exit::REFUSED, message, hint))
        }
        // One that cannot be looked up is no reason to stand still.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Makes the folder above a new one.
pub(super) fn above(folder: &Path) -> Result<(), Failure> {
    let hint = "make the folder above it, or run as root";
    match folder.parent() {
        Some(parent) => {
            std::fs::create_dir_all(parent).map_err(|error| Failure::local(&error, hint))
        }
        None => Ok(()),
    }
}

/// Adds the context of a new cluster.
pub(crate) fn remember(
    contexts: &mut Contexts,
    folder: &Path,
    name: &str,
    made: &yard_coordinator::Initialised,
) -> Result<(), Failure> {
    let own = contexts.add(folder, name, vec![made.address.clone()]);
    made.admin.save(&own).map_err(|error| Failure::local(&error, ""))?;
    contexts.save(folder)
}

/// Runs until a signal says stop, or something breaks.
pub(crate) async fn run(args: &CoordinatorRunArgs, build: Build) -> Result<u8, Failure> {
    log(args.log_json)?;
    let mut options = options(&args.settings)?;
    if let Some(listen) = args.listen {
        options.listen = listen;
    }
    options.build = build;
    check_account(options.user.as_deref())?;
    let manager = Manager::of_process();
    let mut signals = Signals::install().map_err(|error| Failure::local(&error, ""))?;
    let service = match Service::start(options, Arc::new(SystemEnv)).await {
        Ok(service) => service,
        Err(error) => return Err(failure(&error)),
    };
    let handle = service.handle();
    let ended = service.wait();
    tokio::pin!(ended);
    // It listens; whether there is a leader is not for this machine to say.
    manager.ready();
    let mut pulse = manager.pulse();
    loop {
        tokio::select! {
            outcome = &mut ended => return outcome.map(|()| 0).map_err(|error| failure(&error)),
            () = pulse.beat() => manager.alive(),
            signal = signals.next() => match signal {
                Signal::Stop => {
                    manager.stopping();
                    handle.shutdown();
                }
                Signal::Reload => {
                    if let Err(error) = handle.reload() {
                        tracing::warn!(%error, "the certificate is not read again");
                    }
                }
            },
        }
    }
}

fn failure(error: &ServeError) -> Failure {
    let code = match error {
        _ if error.is_of_folder() => EXIT_FOLDER,
        _ if error.is_of_version() => EXIT_VERSION,
        ServeError::Fatal(_) | ServeError::Part(_) => EXIT_CODE,
        _ => exit::REFUSED,
    };
    let hint = match error {
        ServeError::Identity(_) => {
            "make the cluster first: yard coordinator init HOST:PORT; or join one: yard \
             coordinator join"
        }
        ServeError::Listen(..) => "name another address with --listen, or stop what uses this one",
        _ if error.is_of_version() => {
            "install it on this machine and start the coordinator again; its folder is well, and \
             nothing is lost"
        }
        _ if error.is_of_folder() => {
            "remove this coordinator with `yard cluster remove ID` on another one, run `yard \
             coordinator reset` here, and join under a new id; if it was the only one, \
             restore a backup: `yard coordinator restore FILE`"
        }
        _ => "",
    };
    let mut failure = Failure::new(code, crate::failure::chain(error), hint);
    failure.code = error.code().map(|code| code.to_string());
    failure
}
