//! `yard agent uninstall`, `yard coordinator uninstall`: the way back.
//!
//! **Invariants.** What runs on a node is not ended unless that is asked for in so many words. What
//! cannot be made again (certificates, output of jobs, the log) goes only with `--purge`.

use super::{Daemon, check_root, settings_in, systemd};
use crate::args::UninstallArgs;
use crate::daemon::{agent, coordinator};
use crate::failure::{Failure, exit};
use crate::input::confirm;
use crate::output::say;
use std::fs;
use std::io;
use std::path::Path;
use yard_agent::service;

/// Removes an agent from this machine.
pub(crate) fn uninstall_agent(args: &UninstallArgs, force: bool) -> Result<u8, Failure> {
    check_root(Path::new("/"))?;
    let (settings, _) = settings_in(Path::new("/"), args.config.as_ref(), agent::SETTINGS);
    let options = agent::options_at(&settings)?;
    let directory = &options.directory;
    let refuse = |count: usize| {
        let message = format!("{count} assignments run on this node");
        let hint = "yard node drain NAME, and wait until yard node show NAME has none; --force \
                    ends them";
        Failure::new(exit::REFUSED, message, hint)
    };
    let running = living(directory)?;
    if running > 0 && !force {
        return Err(refuse(running));
    }
    let node = yard_agent::join::joined(directory).ok().flatten();
    let unit = Daemon::Agent.unit_file();
    say(&format!("{} is stopped and removed", unit.display()));
    if let Some(node) = &node {
        let (name, cluster) = (&node.name, node.cluster);
        say(&format!(
            "this machine is node {name} of cluster {cluster}; unless it is to come back,"
        ));
        say(&format!("remove it there first: yard node drain {name}; yard node rm {name}"));
    }
    if running > 0 {
        say(&format!("{running} assignments that run here are ended"));
    }
    tell_purge(args, &settings, directory, "its certificate, and the output of jobs");
    confirm("Go on?", args.yes)?;
    let ran = systemd::is_active(Daemon::Agent.unit());
    disable(Daemon::Agent)?;
    // What was granted meanwhile has started before the agent ended.
    let running = living(directory)?;
    if running > 0 && !force {
        if ran {
            systemd::ask(&["enable", "--now", Daemon::Agent.unit()])?;
        }
        return Err(refuse(running));
    }
    if force {
        let cleared = yard_agent::clear(directory);
        cleared.map_err(|error| Failure::local(&error, "try again"))?;
    }
    remove_groups(&options, node.as_ref().map(|node| node.name.as_str()));
    remove_unit(Daemon::Agent)?;
    remove_file(Path::new(super::LOGIN))?;
    purge(args, &settings, directory)
}

/// Removes a coordinator from this machine.
pub(crate) fn uninstall_coordinator(args: &UninstallArgs) -> Result<u8, Failure> {
    check_root(Path::new("/"))?;
    let (settings, _) = settings_in(Path::new("/"), args.config.as_ref(), coordinator::SETTINGS);
    let options = coordinator::options_at(&settings)?;
    let folder = &options.folder;
    let unit = Daemon::Coordinator.unit_file();
    say(&format!("{} is stopped and removed", unit.display()));
    if let Ok(found) = yard_coordinator::resident(folder)
        && let (Some(member), Some(cluster)) = (found.member, found.cluster)
    {
        say(&format!("this machine is member {member} of cluster {cluster}; unless it is to come"));
        say(&format!(
            "back or the cluster is to end, remove it there first: yard cluster remove {member}"
        ));
    }
    let what = "its certificate, its copy of the log, and of the keys of the cluster's CAs";
    tell_purge(args, &settings, folder, what);
    confirm("Go on?", args.yes)?;
    disable(Daemon::Coordinator)?;
    remove_unit(Daemon::Coordinator)?;
    if args.purge && folder.exists() {
        let reset = yard_coordinator::reset(folder);
        reset.map_err(|error| Failure::local(&error, "remove it by hand if that is meant"))?;
    }
    purge(args, &settings, folder)
}

/// Says what goes for good, or what stays.
fn tell_purge(args: &UninstallArgs, settings: &Path, directory: &Path, what: &str) {
    let (settings, directory) = (settings.display(), directory.display());
    match args.purge {
        true => say(&format!("{settings} and {directory} are removed for good, with {what}")),
        false => {
            say(&format!("{settings} and {directory} stay; --purge removes them, with {what}"))
        }
    }
}

fn purge(args: &UninstallArgs, settings: &Path, directory: &Path) -> Result<u8, Failure> {
    if args.purge {
        let removed = fs::remove_dir_all(directory);
        gone(directory, removed)?;
        remove_file(settings)?;
    }
    say(&format!("removed; {} stays, remove it if nothing else needs it", super::PROGRAM));
    Ok(0)
}

fn living(directory: &Path) -> Result<usize, Failure> {
    yard_agent::living(directory).map_err(|error| Failure::local(&error, ""))
}

/// The groups of a machine that nothing runs on are empty.
fn remove_groups(options: &service::Options, node: Option<&str>) {
    let own = options.own_cgroups();
    let usual = || node.map(|node| yard_agent::cgroup::Support::detect(&format!("yard-{node}")));
    if let Some(groups) = own.or_else(usual) {
        groups.remove();
    }
}

fn disable(daemon: Daemon) -> Result<(), Failure> {
    // Without a manager, or without a unit, there is nothing to stop.
    match systemd::check().is_ok() && daemon.unit_file().exists() {
        true => systemd::ask(&["disable", "--now", daemon.unit()]),
        false => Ok(()),
    }
}

fn remove_unit(daemon: Daemon) -> Result<(), Failure> {
    for path in [daemon.link(), daemon.unit_file()] {
        remove_file(&path)?;
    }
    match systemd::check() {
        Ok(()) => systemd::ask(&["daemon-reload"]),
        Err(_) => Ok(()),
    }
}

fn remove_file(path: &Path) -> Result<(), Failure> {
    gone(path, fs::remove_file(path))
}

fn gone(path: &Path, removed: io::Result<()>) -> Result<(), Failure> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let text = format!("cannot remove {}: {error}", path.display());
            Err(Failure::local(&io::Error::other(text), "run it as root"))
        }
        _ => Ok(()),
    }
}
