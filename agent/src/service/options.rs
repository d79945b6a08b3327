//! What an agent is told by its configuration file. Who it is stands in its directory instead.

use crate::cgroup::{GpuNodes, Support};
use crate::driver;
use crate::health::{self, Ours};
use crate::inventory;
use crate::session::memory::NodeFile;
use crate::setup;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use yard_common::id::Sequence;
use yard_common::limits::{
    LABELS_MAX, MAINTENANCE_MS_MAX, MEMBERS_MAX, NODE_DEVICES_MAX, REFUSED_ADDRESSES_MAX,
    ROOT_LOGINS_MAX,
};
use yard_runtime::config::{self, ConfigError, Section, Setting};

/// How long an agent may be away unless asked otherwise, in milliseconds.
const MAINTENANCE_MS: u64 = 120_000;

/// Where machines of a cloud get what they are and may: Azure, AWS, Google and others; Azure's host
/// agent; AWS for containers; AWS by version 6.
const METADATA: [&str; 4] = ["169.254.169.254", "168.63.129.16", "169.254.170.2", "fd00:ec2::254"];

/// What an agent needs to know. Who it is stands in its directory, since it has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The agent's directory; absolute.
    pub directory: PathBuf,
    /// Our own program, which runs as `PROGRAM shim DIR`.
    pub program: PathBuf,
    /// The version of our program.
    pub version: String,
    /// Where members may be beside those that it knows: `host:port`.
    pub coordinators: Vec<String>,
    /// Address that other nodes reach this one by; none: its host name.
    pub address: Option<String>,
    /// Labels, sorted by key.
    pub labels: Vec<(String, String)>,
    /// Pretend to have so many GPUs, which may be none: for `yard dev` alone.
    pub gpus_fake: Option<u16>,
    /// `PATH` of jobs.
    pub job_path: String,
    /// Where the shims of gangs meet if all nodes are on this machine.
    pub gang_dir: Option<PathBuf>,
    /// Name of its control group; none: `yard-` and the node's name. `none` uses no groups.
    pub cgroup: Option<String>,
    /// Run jobs whose owner has no login as the agent's own account, even if that is root: for
    /// machines that belong to one person, as with `yard dev`.
    pub jobs_as_agent: bool,
    /// Whole CPUs are a job's own, and parts of one are so much time. If not, they are a weight.
    pub cpus_bound: bool,
    /// Accounts with the rights of root that jobs may run as.
    pub root_logins: Vec<String>,
    /// Addresses that jobs may not reach, but to ask for names.
    pub refused_addresses: Vec<IpAddr>,
    /// How long it may be away when it is stopped on purpose.
    pub maintenance_ms: u64,
    /// How its health is looked at.
    pub health: health::Options,
    /// How the setup of its pool runs.
    pub setup: setup::Options,
}

impl Options {
    /// Where an agent's directory is unless somebody says otherwise.
    pub const DIRECTORY: &str = "/var/lib/yard/agent";

    /// An agent with this directory and program, and defaults for the rest.
    #[must_use]
    pub fn new(directory: PathBuf, program: PathBuf) -> Options {
        Options {
            directory,
            program,
            version: env!("CARGO_PKG_VERSION").into(),
            coordinators: Vec::new(),
            address: None,
            labels: Vec::new(),
            gpus_fake: None,
            job_path: driver::Options::JOB_PATH.into(),
            gang_dir: None,
            cgroup: None,
            jobs_as_agent: false,
            cpus_bound: true,
            root_logins: Vec::new(),
            refused_addresses: METADATA.iter().filter_map(|text| text.parse().ok()).collect(),
            maintenance_ms: MAINTENANCE_MS,
            health: health::Options::default(),
            setup: setup::Options::default(),
        }
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// If it cannot be read, or has problems; all of them are told.
    pub fn read(path: &Path, program: PathBuf) -> Result<Options, ConfigError> {
        config::read(path, |root| Some(Options::build(root, program)))
    }

    /// Every setting of a configuration file.
    #[must_use]
    pub fn settings() -> Vec<Setting> {
        config::settings(|root| Options::build(root, PathBuf::new()))
    }

    fn build(root: &mut Section<'_>, program: PathBuf) -> Options {
        root.about("Where it keeps who the node is, and scratch and output of jobs");
        let directory = root.path("directory", Path::new(Options::DIRECTORY));
        let mut options = Options::new(directory, program);
        root.about("Further coordinators to try; those that the cluster tells are remembered");
        options.coordinators = root.list("coordinators", MEMBERS_MAX, "\"host:port\"");
        root.about("How the other nodes of a gang reach this one; if not set, by its host name");
        options.address = root.optional("address", "a host name or address");
        root.about("Labels of the node, for place.labels of jobs");
        let labels = root.list::<Label>("labels", LABELS_MAX, "\"key=value\"");
        options.labels = labels.into_iter().map(|label| (label.key, label.value)).collect();
        options.labels.sort();
        root.about("Made-up GPUs, for trying");
        let fake = root.number("gpus_fake", 0, 0..=NODE_DEVICES_MAX as u64);
        options.gpus_fake = u16::try_from(fake).ok().filter(|count| *count > 0);
        root.about("Whether GPUs are looked for");
        if !root.flag("gpus", true) {
            options.gpus_fake = Some(0);
        }
        root.about("PATH of jobs");
        options.job_path = root.value("job_path", options.job_path, "\"/usr/bin:/bin\"");
        root.about("Where gangs meet whose nodes are all on this machine, for trying");
        options.gang_dir = root.optional("gang_dir", "a path");
        root.about("The control group that it makes; if not set, yard- and the name of the node");
        options.cgroup = root.optional("cgroup", "the name of a control group, or \"none\"");
        root.about("Whether jobs whose owner has no login run as the account of the agent");
        options.jobs_as_agent = root.flag("jobs_as_agent", false);
        root.about("Whether jobs get the whole CPUs that they ask for to themselves");
        options.cpus_bound = root.flag("cpus_bound", true);
        root.about("Accounts with the rights of root that may run jobs here");
        options.root_logins = root.list("root_logins", ROOT_LOGINS_MAX, "\"root\"");
        root.about(
            "Addresses that jobs may not reach, such as those that tell a machine's secrets",
        );
        options.refused_addresses = root.list_or(
            "refused_addresses",
            options.refused_addresses,
            REFUSED_ADDRESSES_MAX,
            "\"169.254.169.254\"",
        );
        root.about("How long it may be away when it is stopped on purpose, in milliseconds");
        let range = 1_000..=MAINTENANCE_MS_MAX;
        options.maintenance_ms = root.number("maintenance_ms", MAINTENANCE_MS, range);
        options.health = root.section("health", super::health::read);
        options.setup = root.section("setup", read_setup);
        options
    }

    pub(super) fn inventory(&self, node: &NodeFile) -> inventory::Options {
        inventory::Options {
            root: self.directory.clone(),
            address: self.address.clone(),
            labels: self.labels.clone(),
            gpus_fake: self.gpus_fake,
            node: node.name.clone(),
            version: self.version.clone(),
        }
    }

    pub(super) fn driver(
        &self,
        node: &NodeFile,
        cgroups: &Support,
        checks: Option<driver::Checks>,
    ) -> driver::Options {
        driver::Options {
            root: self.directory.clone(),
            node: node.name.clone(),
            program: self.program.clone(),
            job_path: self.job_path.clone(),
            gang_dir: self.gang_dir.clone(),
            cgroups: cgroups.clone(),
            jobs_as_agent: self.jobs_as_agent,
            cpus_bound: self.cpus_bound,
            root_logins: self.root_logins.clone(),
            gpu_nodes: GpuNodes::default(),
            begin: (node.fence(), Sequence(0)),
            checks,
        }
    }

    /// Its control groups, if their name does not depend on the node.
    #[must_use]
    pub fn own_cgroups(&self) -> Option<Support> {
        self.cgroup.as_deref().filter(|name| *name != "none").map(Support::detect)
    }

    pub(super) fn cgroups(&self, node: &NodeFile) -> Support {
        let mut cgroups = self.all_cgroups(node);
        if !self.cpus_bound {
            cgroups.forget_cpus();
        }
        cgroups.refuse(&self.refused_addresses);
        cgroups
    }

    fn all_cgroups(&self, node: &NodeFile) -> Support {
        self.group_name(node).map_or_else(Support::none, |name| Support::detect(&name))
    }

    /// The name of its control groups; none: it uses none.
    fn group_name(&self, node: &NodeFile) -> Option<String> {
        match self.cgroup.as_deref() {
            Some("none") => None,
            Some(name) => Some(name.to_string()),
            None => Some(format!("yard-{}", node.name)),
        }
    }

    /// What tells its processes from others.
    pub(super) fn ours(&self, node: &NodeFile) -> Ours {
        Ours::new(self.group_name(node), self.program.clone())
    }
}

/// Reads the section `[setup]`.
fn read_setup(section: &mut Section<'_>) -> setup::Options {
    let defaults = setup::Options::default();
    section.about("Whether the setup of the pool may run here, as the account of the agent");
    let allowed = section.flag("allowed", defaults.allowed);
    section.about("PATH of the setup");
    let path = section.value("path", defaults.path, "\"/usr/sbin:/usr/bin:/sbin:/bin\"");
    setup::Options { allowed, path }
}

/// A label of a configuration file.
struct Label {
    key: String,
    value: String,
}

impl std::str::FromStr for Label {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Label, &'static str> {
        let (key, value) = text.split_once('=').ok_or("there is no = in it")?;
        let key = key.trim();
        if key.is_empty() {
            return Err("it has no key");
        }
        Ok(Label { key: key.into(), value: value.trim().into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_core::health::{Action, Rules};

    fn read(text: &str) -> Result<Options, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        Options::read(&path, "/usr/bin/yard".into())
    }

    #[test]
    fn a_file_is_read_and_an_empty_one_has_defaults() {
        let bare = read("").unwrap();
        let directory = PathBuf::from(Options::DIRECTORY);
        assert_eq!(bare, Options::new(directory, "/usr/bin/yard".into()));
        let text = "directory = \"/d\"\ncoordinators = [\"a:1\", \"b:2\"]\naddress = \"n\"\n\
                    labels = [\"rack=7\", \"disk = fast\"]\ngpus_fake = 2\ncgroup = \"none\"\n\
                    [health]\nevery_ms = 500\ncommand = [\"/c\", \"-x\"]\n\
                    xids = [\"13=restart\"]\n";
        let found = read(text).unwrap();
        assert_eq!(found.coordinators, ["a:1", "b:2"]);
        let labels = [("disk", "fast"), ("rack", "7")].map(|(k, v)| (k.into(), v.into()));
        assert_eq!((found.labels, found.gpus_fake), (labels.into(), Some(2)));
        assert_eq!(found.health.every.as_millis(), 500);
        assert_eq!(found.health.command, ["/c", "-x"]);
        let rules = Rules::new([(13, Action::Restart)]).unwrap();
        assert_eq!(found.health.rules, rules);
        assert_eq!(read("gpus = false\n").unwrap().gpus_fake, Some(0));
    }

    #[test]
    fn every_setting_says_what_it_is_for() {
        let silent: Vec<_> =
            Options::settings().into_iter().filter(|one| one.about.is_empty()).collect();
        assert_eq!(silent, [], "say it with Section::about");
    }

    #[test]
    fn every_problem_of_a_file_is_told() {
        let text = "labels = [\"rack\"]\ngpus_fake = 999\nmaintenance_ms = 5\nadress = \"n\"\n\
                    [health]\nevery_ms = 1\nxids = [\"13=kill\"]\n";
        let error = read(text).unwrap_err();
        let fields: Vec<_> = error.problems().iter().map(|one| &*one.field).collect();
        assert_eq!(
            fields,
            ["labels", "gpus_fake", "maintenance_ms", "adress", "health.every_ms", "health.xids"]
        );
    }
}
