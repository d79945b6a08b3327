//! `yard agent install`, `yard coordinator install`: a machine gets a daemon that starts with it.
//!
//! | module | what it holds |
//! |---|---|
//! | `plan` | what is done, as steps that are shown or carried out |
//! | `unit` | the units of systemd |
//! | `account` | the account of a coordinator, and what is handed to it |
//! | `systemd` | the service manager |
//! | `remove` | the way back |

pub(crate) mod account;
mod plan;
mod remove;
mod systemd;
mod unit;

pub(crate) use remove::{uninstall_agent, uninstall_coordinator};

use crate::args::InstallArgs;
use crate::daemon::{agent, coordinator};
use crate::failure::{Failure, exit};
use crate::output::{put, say};
use plan::{Came, Plan, Step};
use std::path::{Path, PathBuf};
use unit::Words;
use yard_runtime::config::template;

/// Where the program goes.
const PROGRAM: &str = "/usr/local/bin/yard";
/// Where units of the machine's own lie.
const UNITS: &str = "/etc/systemd/system";
/// Units that start with the machine.
const WANTED: &str = "multi-user.target.wants";
/// What is told to the login manager.
const LOGIN: &str = "/etc/systemd/logind.conf.d/50-yard.conf";
/// The account of a coordinator, unless another is named.
const USER: &str = "yard";

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Daemon {
    Agent,
    Coordinator,
}

impl Daemon {
    fn unit(self) -> &'static str {
        match self {
            Daemon::Agent => "yard-agent",
            Daemon::Coordinator => "yard-coordinator",
        }
    }

    fn unit_file(self) -> PathBuf {
        Path::new(UNITS).join(format!("{}.service", self.unit()))
    }

    fn link(self) -> PathBuf {
        Path::new(UNITS).join(WANTED).join(format!("{}.service", self.unit()))
    }

    /// What makes the machine one that has something to run.
    fn first(self) -> &'static str {
        match self {
            Daemon::Agent => "yard agent join HOST:PORT -",
            Daemon::Coordinator => "yard coordinator init HOST:PORT, or yard coordinator join",
        }
    }
}

/// A setting for an image is read where it will be.
fn settings_in(root: &Path, named: Option<&PathBuf>, usual: &str) -> (PathBuf, PathBuf) {
    let there = named.map_or(Path::new(usual), PathBuf::as_path).to_path_buf();
    let here = root.join(there.strip_prefix("/").unwrap_or(&there));
    (there, here)
}

/// Only root writes to the places of the system; an image may be anybody's.
fn check_root(root: &Path) -> Result<(), Failure> {
    match root != Path::new("/") || rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(Failure::new(exit::DENIED, "only root installs daemons", "run it by sudo")),
    }
}

/// Installs an agent.
pub(crate) fn agent(args: &InstallArgs) -> Result<u8, Failure> {
    let (settings, here) = settings_in(&args.root, args.config.as_ref(), agent::SETTINGS);
    let options = agent::options_at(&here)?;
    let program = Path::new(PROGRAM);
    let words = Words { program, settings: &settings, directory: &options.directory };
    let head = "Settings of the agent of this machine. Each is here with its default: take the # \
                away to change one, and run: systemctl restart yard-agent";
    let text = template(head, &yard_agent::service::Options::settings(), &[]);
    let steps = vec![
        Step::Program(program.into()),
        Step::File { path: settings.clone(), text, keeps: true },
        Step::Directory { path: options.directory.clone(), mode: 0o711 },
        Step::File { path: LOGIN.into(), text: unit::LOGIN.into(), keeps: true },
        Step::File { path: Daemon::Agent.unit_file(), text: unit::agent(words), keeps: false },
        link(Daemon::Agent),
    ];
    let is_member = yard_agent::join::joined(&options.directory).is_ok_and(|node| node.is_some());
    install(args, Daemon::Agent, words, steps, is_member)
}

/// Installs a coordinator.
pub(crate) fn coordinator(args: &InstallArgs, user: Option<&str>) -> Result<u8, Failure> {
    let (settings, here) = settings_in(&args.root, args.config.as_ref(), coordinator::SETTINGS);
    let is_new = !here.exists();
    let options = coordinator::options_at(&here)?;
    let user = match (user, &options.user) {
        (Some(named), Some(set)) if named != set => {
            let message = format!("{} says user = {set:?}", settings.display());
            return Err(Failure::usage(message, "change it there"));
        }
        (named, set) => named.or(set.as_deref()).unwrap_or(USER).to_string(),
    };
    account::check_name(&user)?;
    let program = Path::new(PROGRAM);
    let words = Words { program, settings: &settings, directory: &options.folder };
    let head = "Settings of the coordinator of this machine. Each is here with its default: take \
                the # away to change one, and run: systemctl restart yard-coordinator";
    let given = [("user", user.as_str())];
    let text = template(head, &yard_coordinator::Options::settings(), &given);
    let above = options.folder.parent().unwrap_or(Path::new("/")).to_path_buf();
    let unit = unit::coordinator(words, &user, options.listen.port());
    let steps = vec![
        Step::Account { name: user.clone(), home: options.folder.clone() },
        Step::Program(program.into()),
        Step::File { path: settings.clone(), text, keeps: true },
        Step::Directory { path: above, mode: 0o755 },
        Step::Owner { path: options.folder.clone(), name: user.clone() },
        Step::File { path: Daemon::Coordinator.unit_file(), text: unit, keeps: false },
        link(Daemon::Coordinator),
    ];
    let is_member = options.folder.join("data").exists();
    let code = install(args, Daemon::Coordinator, words, steps, is_member)?;
    if !is_new && options.user.is_none() {
        let settings = settings.display();
        say(&format!(
            "note: add user = {user:?} to {settings}, so that what root makes is its own"
        ));
    }
    Ok(code)
}

fn link(daemon: Daemon) -> Step {
    Step::Link { path: daemon.link(), to: daemon.unit_file() }
}

/// Shows or carries out the steps, and starts the daemon if that was asked for.
fn install(
    args: &InstallArgs,
    daemon: Daemon,
    words: Words<'_>,
    steps: Vec<Step>,
    is_member: bool,
) -> Result<u8, Failure> {
    unit::check_path(words.settings)?;
    unit::check_path(words.directory)?;
    let plan = Plan { root: args.root.clone(), steps };
    if args.dry_run {
        put(&plan.show())?;
        return Ok(0);
    }
    check_root(&args.root)?;
    let here = args.root == Path::new("/");
    if here {
        systemd::check()?;
    }
    let came = plan.carry_out()?;
    if !here {
        return Ok(0);
    }
    let unit = daemon.unit();
    if came.contains(&Came::Changed) {
        systemd::ask(&["daemon-reload"])?;
    }
    if !is_member {
        say(&format!("next: {}; then systemctl start {unit}", daemon.first()));
        return Ok(0);
    }
    let runs = systemd::is_active(unit);
    match (args.start, runs) {
        (true, true) if !came.contains(&Came::Changed) => say(&format!("{unit} runs")),
        (true, _) => {
            systemd::ask(&["restart", unit])?;
            say(&format!("{unit} is {}", if runs { "started again" } else { "started" }));
        }
        (false, true) => say(&format!("next: systemctl restart {unit}, if something has changed")),
        (false, false) => say(&format!("next: systemctl start {unit}")),
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn args(root: &Path) -> InstallArgs {
        InstallArgs { config: None, root: root.into(), dry_run: false, start: false }
    }

    fn read(root: &Path, path: &str) -> String {
        fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Every file below, with its bytes.
    fn all(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut left = vec![root.to_path_buf()];
        while let Some(at) = left.pop() {
            for entry in fs::read_dir(at).unwrap().flatten() {
                match entry.file_type().unwrap() {
                    kind if kind.is_dir() => left.push(entry.path()),
                    kind if kind.is_file() => {
                        found.push((entry.path(), fs::read(entry.path()).unwrap()));
                    }
                    _ => {}
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn an_image_gets_an_agent_and_twice_is_once() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        agent(&args(root)).unwrap();
        let unit = read(root, "etc/systemd/system/yard-agent.service");
        assert!(unit.contains("ExecStart=/usr/local/bin/yard agent run --config /etc/yard/agent"));
        let link = root.join("etc/systemd/system/multi-user.target.wants/yard-agent.service");
        let unit_file = Path::new("/etc/systemd/system/yard-agent.service");
        assert_eq!(fs::read_link(link).unwrap(), unit_file);
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("usr/local/bin/yard"), mode("var/lib/yard/agent")), (0o755, 0o711));
        assert_eq!(mode("etc/yard/agent.toml"), 0o644);
        assert!(read(root, "etc/yard/agent.toml").contains("\n#maintenance_ms = 120000\n"));
        let before = all(root);
        agent(&args(root)).unwrap();
        assert_eq!(all(root), before);
    }

    #[test]
    fn settings_that_were_edited_stay_and_count() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        agent(&args(root)).unwrap();
        let settings = root.join("etc/yard/agent.toml");
        let text = read(root, "etc/yard/agent.toml");
        let text =
            text.replace("#directory = \"/var/lib/yard/agent\"", "directory = \"/srv/yard\"");
        fs::write(&settings, &text).unwrap();
        fs::write(root.join("etc/systemd/system/yard-agent.service"), "old").unwrap();
        agent(&args(root)).unwrap();
        assert_eq!(read(root, "etc/yard/agent.toml"), text);
        let unit = read(root, "etc/systemd/system/yard-agent.service");
        assert!(unit.contains("ConditionPathExists=/srv/yard/identity/node"), "{unit}");
        fs::write(&settings, "directory = \"/srv/a b\"\n").unwrap();
        let refused = agent(&args(root)).unwrap_err();
        assert!(refused.message.contains("cannot stand in a unit"), "{refused:?}");
    }

    #[test]
    fn a_dry_run_writes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let dry = InstallArgs { dry_run: true, ..args(root.path()) };
        agent(&dry).unwrap();
        coordinator(&dry, None).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_coordinator_runs_as_the_account_of_its_settings() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir_all(root.join("etc/yard")).unwrap();
        // Both are there already: none is to be made.
        fs::write(root.join("etc/passwd"), "yard:x:998:997::/:/\nother:x:1:1::/:/\n").unwrap();
        coordinator(&args(root), None).unwrap();
        let unit = read(root, "etc/systemd/system/yard-coordinator.service");
        assert!(unit.contains("\nUser=yard\n"), "{unit}");
        assert!(read(root, "etc/yard/coordinator.toml").contains("\nuser = \"yard\"\n"));
        let refused = coordinator(&args(root), Some("other")).unwrap_err();
        assert!(refused.message.contains("says user = \"yard\""), "{refused:?}");
        assert!(coordinator(&args(root), Some("no name")).is_err());
    }

    #[test]
    fn what_is_written_can_be_read() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.toml");
        let settings = yard_agent::service::Options::settings();
        fs::write(&path, template("x", &settings, &[])).unwrap();
        let found = yard_agent::service::Options::read(&path, "p".into()).unwrap();
        let bare = yard_agent::service::Options::new("/var/lib/yard/agent".into(), "p".into());
        assert_eq!(found, bare);
        let settings = yard_coordinator::Options::settings();
        fs::write(&path, template("x", &settings, &[("user", "yard")])).unwrap();
        let found = yard_coordinator::Options::read(&path).unwrap();
        assert_eq!(found.user.as_deref(), Some("yard"));
    }
}
