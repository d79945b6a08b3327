//! The units of systemd.

use crate::failure::Failure;
use std::path::Path;

/// Ports below this one are for those that may.
const PORT_FREE: u16 = 1024;

/// What a unit is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words<'a> {
    /// The program.
    pub(super) program: &'a Path,
    /// Its file of settings.
    pub(super) settings: &'a Path,
    /// The directory of the daemon.
    pub(super) directory: &'a Path,
}

const HEAD: &str = "\
# Written by yard, which writes it anew when it is installed again. What is to be different on this
# machine goes into a file of its own: systemctl edit ";

/// Refuses a path that would mean something else in a unit.
pub(super) fn check_path(path: &Path) -> Result<(), Failure> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    match path.to_str().is_some_and(|text| text.starts_with('/') && text.chars().all(legal)) {
        true => Ok(()),
        false => {
            let hint = "write an absolute path of letters, digits and the signs . _ - + @";
            Err(Failure::usage(format!("{} cannot stand in a unit", path.display()), hint))
        }
    }
}

/// The unit of an agent. It runs as root, as it starts processes of all users; what it starts
/// inherits what stands here, so there is nothing that would restrict jobs.
pub(super) fn agent(words: Words<'_>) -> String {
    let Words { program, settings, directory } = words;
    let (program, settings) = (program.display(), settings.display());
    let node = directory.join("identity/node");
    let node = node.display();
    format!(
        "\
{HEAD}yard-agent
[Unit]
Description=Trainyard agent: runs jobs on this machine
Wants=network-online.target
After=network-online.target nss-user-lookup.target time-sync.target remote-fs.target
# A machine that is no node yet has nothing to run: yard agent join.
ConditionPathExists={node}
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} agent run --config {settings}
ExecReload=/bin/kill -HUP $MAINPID
# Jobs outlive the agent. Their control groups lie outside of this unit.
KillMode=process
OOMPolicy=continue
Restart=always
# Before the lease of what runs is over.
RestartSec=500ms
# Its directory is not that of a node: to start it again does not help.
RestartPreventExitStatus=65
TimeoutStartSec=5min
TimeoutStopSec=30s
WatchdogSec=2min
OOMScoreAdjust=-900
UMask=0022
# What jobs may have at most.
LimitNOFILE=1048576
LimitNPROC=infinity
LimitMEMLOCK=infinity
LimitCORE=0:infinity
TasksMax=infinity

[Install]
WantedBy=multi-user.target
"
    )
}

/// The unit of a coordinator. It needs its directory and the network, and gets nothing else.
pub(super) fn coordinator(words: Words<'_>, user: &str, port: u16) -> String {
    let Words { program, settings, directory } = words;
    let (program, settings, folder) = (program.display(), settings.display(), directory.display());
    let data = directory.join("data");
    let data = data.display();
    let capabilities = match port < PORT_FREE {
        true => {
            "AmbientCapabilities=CAP_NET_BIND_SERVICE\n\
                 CapabilityBoundingSet=CAP_NET_BIND_SERVICE"
        }
        false => "CapabilityBoundingSet=",
    };
    let homes = ["/home", "/root", "/run/user"];
    let home = match homes.iter().any(|home| directory.starts_with(home)) {
        true => "read-only",
        false => "yes",
    };
    format!(
        "\
{HEAD}yard-coordinator
[Unit]
Description=Trainyard coordinator: queues and places jobs
Wants=network-online.target
After=network-online.target time-sync.target
# Without a cluster there is nothing to run: yard coordinator init, or join.
ConditionPathExists={data}
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} coordinator run --config {settings}
ExecReload=/bin/kill -HUP $MAINPID
User={user}
Group={user}
Restart=always
RestartSec=500ms
# Its folder cannot be relied on, or its program is too old: to start it again does not help.
RestartPreventExitStatus=65 78
TimeoutStartSec=5min
TimeoutStopSec=30s
WatchdogSec=1min
OOMScoreAdjust=-800
UMask=0077
LimitNOFILE=1048576
# A core would hold the keys of the cluster.
LimitCORE=0
ReadWritePaths={folder}
{capabilities}
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome={home}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"
    )
}

/// What keeps the system from removing shared memory of jobs when their user logs out.
pub(super) const LOGIN: &str = "\
# Written by yard: jobs of a user go on when the user logs out, and so must their shared memory.
[Login]
RemoveIPC=no
";

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words<'static> {
        Words {
            program: Path::new("/usr/local/bin/yard"),
            settings: Path::new("/etc/yard/x.toml"),
            directory: Path::new("/var/lib/yard/x"),
        }
    }

    /// The values of a key.
    fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
        let lines = unit.lines().filter_map(|line| line.split_once('='));
        lines.filter(|(found, _)| *found == key).map(|(_, value)| value).collect()
    }

    #[test]
    fn jobs_outlive_the_agent() {
        let unit = agent(words());
        assert_eq!(values(&unit, "KillMode"), ["process"]);
        assert_eq!(values(&unit, "OOMPolicy"), ["continue"]);
        assert_eq!(values(&unit, "TasksMax"), ["infinity"]);
        assert_eq!(values(&unit, "LimitMEMLOCK"), ["infinity"]);
        let run = "/usr/local/bin/yard agent run --config /etc/yard/x.toml";
        assert_eq!(values(&unit, "ExecStart"), [run]);
        let node = "/var/lib/yard/x/identity/node";
        assert_eq!(values(&unit, "ConditionPathExists"), [node]);
        // A mount namespace or a filter of the agent would be one of all jobs.
        let narrow = ["Private", "Protect", "Restrict", "SystemCall", "NoNewPrivileges", "User="];
        let lines = || unit.lines().filter(|line| !line.starts_with("RestartPrevent"));
        for word in narrow {
            assert!(!lines().any(|line| line.starts_with(word)), "{word}");
        }
    }

    #[test]
    fn a_coordinator_gets_no_more_than_it_needs() {
        let unit = coordinator(words(), "yard", 7100);
        assert_eq!(values(&unit, "User"), ["yard"]);
        assert_eq!(values(&unit, "CapabilityBoundingSet"), [""]);
        assert_eq!(values(&unit, "ReadWritePaths"), ["/var/lib/yard/x"]);
        assert_eq!(values(&unit, "RestartPreventExitStatus"), ["65 78"]);
        assert_eq!(values(&unit, "ProtectHome"), ["yes"]);
        let low = coordinator(words(), "yard", 443);
        assert_eq!(values(&low, "AmbientCapabilities"), ["CAP_NET_BIND_SERVICE"]);
        let home = Words { directory: Path::new("/home/ann/c"), ..words() };
        assert_eq!(values(&coordinator(home, "yard", 7100), "ProtectHome"), ["read-only"]);
    }

    #[test]
    fn codes_that_a_restart_does_not_mend_are_those_of_the_processes() {
        let [folder, version] = [yard_coordinator::EXIT_FOLDER, yard_coordinator::EXIT_VERSION];
        let unit = coordinator(words(), "yard", 7100);
        let codes = values(&unit, "RestartPreventExitStatus");
        assert_eq!(codes, [format!("{folder} {version}")]);
        let codes = [yard_agent::service::EXIT_DIRECTORY.to_string()];
        assert_eq!(values(&agent(words()), "RestartPreventExitStatus"), codes);
    }

    #[test]
    fn paths_that_systemd_would_read_as_something_else_are_refused() {
        check_path(Path::new("/srv/yard/agent-1.d")).unwrap();
        for path in ["/a b", "/a%n", "relative", "/a$b", "/a\"b", "/a\\b", "/a\nb"] {
            assert!(check_path(Path::new(path)).is_err(), "{path}");
        }
    }
}
