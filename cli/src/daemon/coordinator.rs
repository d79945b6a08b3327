//! `yard coordinator`: a new cluster, and the process of one coordinator.

use super::{absolute, log, settings};
use crate::args::{CoordinatorInitArgs, CoordinatorRunArgs};
use crate::context::{Contexts, Environment, check_name};
use crate::failure::{Failure, exit};
use crate::output::say;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use yard_coordinator::env::SystemEnv;
use yard_coordinator::{EXIT_CODE, EXIT_FOLDER, InitOptions, Options, ServeError, Service};
use yard_runtime::shutdown::{Signal, Signals};

/// Where the settings are unless the command line says otherwise.
const SETTINGS: &str = "/etc/yard/coordinator.toml";

fn options(config: Option<&Path>, folder: Option<&Path>) -> Result<Options, Failure> {
    let mut options = match settings(config, SETTINGS) {
        Some(file) => Options::read(&file)
            .map_err(|error| Failure::new(exit::USAGE, crate::failure::chain(&error), ""))?,
        None => Options::new(PathBuf::from(Options::FOLDER), Options::LISTEN),
    };
    if let Some(folder) = folder {
        options.folder = absolute(folder)?;
    }
    Ok(options)
}

/// Makes a cluster, and the context of its first administrator.
pub(crate) async fn init(args: &CoordinatorInitArgs) -> Result<u8, Failure> {
    check_name(&args.name)?;
    let options = options(args.config.as_deref(), args.folder.as_deref())?;
    let folder = Environment::of_process().folder()?;
    let mut contexts = Contexts::load(&folder)?;
    if contexts.contexts.contains_key(&args.name) {
        let message = format!("there is a context {:?} already", args.name);
        let hint = "give the cluster another name: --name NAME";
        return Err(Failure::new(exit::REFUSED, message, hint));
    }
    make(&options.folder, &args.address, &args.admin, args.unix.clone(), &mut |made| {
        remember(&mut contexts, &folder, &args.name, made)
    })
    .await?;
    say(&format!("made the cluster in {}", options.folder.display()));
    say(&format!("you are its administrator {}; the context is {}", args.admin, args.name));
    if args.unix.is_none() {
        let user = &args.admin;
        say(&format!("note: {user} has no login; `yard user set {user} --unix LOGIN` gives one"));
    }
    say("next: yard coordinator run; then `yard node invite` for each machine");
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
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|error| Failure::local(&error, "make the folder above it, or run as root"))?;
    }
    let made = yard_coordinator::init(options, Arc::new(SystemEnv)).await;
    keep(&made.map_err(|error| Failure::local(&error, ""))?)
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
pub(crate) async fn run(args: &CoordinatorRunArgs) -> Result<u8, Failure> {
    log(args.log_json)?;
    let mut options = options(args.config.as_deref(), args.folder.as_deref())?;
    if let Some(listen) = args.listen {
        options.listen = listen;
    }
    let mut signals = Signals::install().map_err(|error| Failure::local(&error, ""))?;
    let service = match Service::start(options, Arc::new(SystemEnv)).await {
        Ok(service) => service,
        Err(error) => return Err(failure(&error)),
    };
    let handle = service.handle();
    let ended = service.wait();
    tokio::pin!(ended);
    loop {
        tokio::select! {
            outcome = &mut ended => return outcome.map(|()| 0).map_err(|error| failure(&error)),
            signal = signals.next() => match signal {
                Signal::Stop => handle.shutdown(),
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
        ServeError::Fatal(_) | ServeError::Part(_) => EXIT_CODE,
        _ => exit::REFUSED,
    };
    let hint = match error {
        ServeError::Identity(_) => "make the cluster first: yard coordinator init HOST:PORT",
        ServeError::Listen(..) => "name another address with --listen, or stop what uses this one",
        _ if error.is_of_folder() => {
            "remove this coordinator with `yard cluster remove ID` on another one, run `yard \
             coordinator reset` here, and join under a new id; if it was the only one, restore a \
             snapshot"
        }
        _ => "",
    };
    let mut failure = Failure::new(code, crate::failure::chain(error), hint);
    failure.code = error.code().map(|code| code.to_string());
    failure
}
