//! Three coordinators, each on a machine of its own, with a network between them that can be cut.

use super::network::Network;
use super::wires::{LINKED, Wires};
use super::yard::{Ran, Running, Yard};
use super::{Home, await_some, await_true, private_folder};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::runtime::Runtime;
use yard_client::{Client, Options};
use yard_proto::v1;
use yard_runtime::identity::Identity;

/// The machines of the members, which have their numbers.
pub(crate) const MEMBERS: [u8; 3] = [1, 2, 3];
/// The machine of the user, to which no link is ever cut: that of the test itself.
pub(crate) const USER: u8 = 4;
/// Where the wires between the members are.
const WIRES: u8 = 5;
/// A machine that runs jobs.
pub(crate) const NODE: u8 = 6;
/// GPUs that it says to have.
pub(crate) const GPUS: u32 = 2;
/// Where members listen.
pub(crate) const PORT: u16 = 7100;
/// How long a client of a test waits for one member before it asks the next.
const TRY: Duration = Duration::from_secs(1);

/// What a trio is made of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Setup {
    /// Members, users and machines reach members by wires that can be disturbed; the number is
    /// the seed of their jitter.
    pub(crate) wired: Option<u64>,
    /// There is a machine that runs jobs.
    pub(crate) node: bool,
    /// The folders of members are on disks of so many MiB.
    pub(crate) disk_mib: Option<u32>,
    /// Further lines of the settings of each member.
    pub(crate) settings: &'static str,
}

/// Three coordinators. The thread of the test moves to the machine of the user.
pub(crate) struct Trio {
    wires: Option<Wires>,
    members: BTreeMap<u8, Running>,
    disks: BTreeMap<u8, Disk>,
    _agent: Option<Running>,
    runtime: Runtime,
    client: Client,
    pub(crate) home: Home,
    pub(crate) network: Network,
}

impl Trio {
    pub(crate) fn start(setup: Setup) -> Trio {
        let (network, home) = (Network::new(NODE), Home::new());
        network.enter(USER);
        private_folder(&home.path("config"));
        let wires = setup.wired.map(|seed| {
            LINKED.iter().for_each(|at| network.also(WIRES, *at));
            let (namespace, target) = (network.namespace(WIRES), |member| (member, PORT));
            Wires::start(&namespace, seed, MEMBERS.map(target))
        });
        let disk = |member: u8| {
            let folder = home.path(&format!("disk{member}"));
            setup.disk_mib.map(|mib| (member, Disk::mount(folder, mib)))
        };
        let disks = MEMBERS.into_iter().filter_map(disk).collect();
        let mut made = Making { network, home, wires, disks, members: BTreeMap::new() };
        let context = made.begin(setup.settings);
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let client = runtime.block_on(async { connect(made.addresses(), &context) });
        let agent = setup.node.then(|| made.node());
        let Making { network, home, wires, disks, members } = made;
        let trio = Trio { wires, members, disks, _agent: agent, runtime, client, home, network };
        trio.await_whole();
        trio
    }

    /// Where the members are reached, from this one on.
    fn addresses(&self, from: usize) -> Vec<String> {
        let mut all = MEMBERS.map(|member| address(self.wires.is_some(), member)).to_vec();
        all.rotate_left(from % MEMBERS.len());
        all
    }

    /// A client with connections of its own, which asks this member first, counted from 0 and
    /// around. To be made within the runtime.
    pub(crate) fn client_from(&self, member: usize) -> Client {
        connect(self.addresses(member), &self.home.path("config/yard/contexts/trio"))
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(crate) fn wires(&self) -> &Wires {
        self.wires.as_ref().expect("it has wires")
    }

    /// `yard` at the machine of the user.
    pub(crate) fn yard(&self, words: &[&str]) -> Yard {
        self.home.yard(words)
    }

    /// How the cluster is.
    pub(crate) fn status(&self) -> Option<v1::StatusResponse> {
        let request = v1::StatusRequest::default();
        self.runtime.block_on(self.client.status(request)).ok()
    }

    /// The number of the leader, once there is one.
    pub(crate) fn leader(&self) -> u8 {
        await_some("a leader", || self.leader_now())
    }

    /// Whom somebody takes for the leader.
    pub(crate) fn leader_now(&self) -> Option<u8> {
        let request = v1::StatusRequest { brief: true };
        let status = self.runtime.block_on(self.client.status(request)).ok()?;
        u8::try_from(status.leader?.member_id).ok()
    }

    /// Waits until one leads, and the others vote and have everything.
    pub(crate) fn await_whole(&self) {
        await_true("three members are up to date", || {
            let Some(status) = self.status() else { return false };
            let fine = |member: &&v1::Member| {
                let roles = [v1::MemberRole::Leader, v1::MemberRole::Follower];
                roles.contains(&member.role()) && member.lag_entries == Some(0)
            };
            status.leader.is_some() && status.members.iter().filter(fine).count() == 3
        });
    }

    /// The process of a member.
    pub(crate) fn member(&self, member: u8) -> super::process::Process {
        let pid = self.members[&member].id().cast_signed();
        super::process::Process::find(pid).unwrap_or_else(|| panic!("member {member} has ended"))
    }

    /// Kills a member, and waits until it is gone.
    pub(crate) fn kill(&mut self, member: u8) {
        let process = self.member(member);
        process.kill();
        process.await_end();
    }

    /// Starts a member that has ended.
    pub(crate) fn start_again(&mut self, member: u8) {
        let running = run(&self.home, &self.network, &self.disks, member);
        self.members.insert(member, running);
    }

    /// Waits until a member ends by itself.
    pub(crate) fn end_of(&mut self, member: u8) -> Ran {
        self.members.remove(&member).expect("it was started").end()
    }

    /// The folder of a member, as this process sees it.
    pub(crate) fn folder(&self, member: u8) -> PathBuf {
        match self.disks.get(&member) {
            Some(disk) => disk.seen().join("coordinator"),
            None => self.home.path(&format!("disk{member}/coordinator")),
        }
    }

    /// The disk of a member, as this process sees it.
    pub(crate) fn disk(&self, member: u8) -> PathBuf {
        self.disks[&member].seen()
    }
}

/// Where everybody reaches a member.
fn address(wired: bool, member: u8) -> String {
    let machine = if wired { LINKED[usize::from(member) - 1] } else { member };
    format!("{}:{PORT}", Network::address(machine))
}

fn connect(addresses: Vec<String>, context: &Path) -> Client {
    let identity = Identity::load(context).expect("`init` made the administrator");
    let options = Options { try_timeout: TRY, ..Options::new(addresses, identity) };
    Client::connect(&options).expect("it is legal")
}

/// What there is before there is a cluster.
struct Making {
    network: Network,
    home: Home,
    wires: Option<Wires>,
    disks: BTreeMap<u8, Disk>,
    members: BTreeMap<u8, Running>,
}

impl Making {
    fn addresses(&self) -> Vec<String> {
        MEMBERS.map(|member| address(self.wires.is_some(), member)).to_vec()
    }

    /// Begins a cluster and lets all members in; the folder of its context.
    fn begin(&mut self, more: &str) -> PathBuf {
        for member in MEMBERS {
            let folder = self.home.path(&format!("disk{member}"));
            if !self.disks.contains_key(&member) {
                private_folder(&folder);
            }
            let listen = format!("{}:{PORT}", Network::address(member));
            let mut text = format!("folder = {:?}\n", folder.join("coordinator"));
            writeln!(text, "listen = {listen:?}\n{more}").expect("writing to memory works");
            fs::write(settings(&self.home, member), text).expect("a file can be written");
        }
        let all = self.addresses();
        let words = ["coordinator", "init", &all[0], "--name", "trio"];
        self.on(1, &words).ok();
        self.run(1);
        await_true("the first member serves", || {
            self.home.yard(&["cluster", "status"]).run().code == 0
        });
        for member in [2, 3] {
            let token = self.home.yard(&["cluster", "token"]).ok().out.trim().to_string();
            let own = &all[usize::from(member) - 1];
            let words = ["coordinator", "join", &all[0], "-", "--address", own];
            self.on(member, &words).input(&token).ok();
            self.run(member);
        }
        self.home.path("config/yard/contexts/trio")
    }

    fn on(&self, member: u8, words: &[&str]) -> Yard {
        on(&self.home, &self.network, &self.disks, member, words)
    }

    fn run(&mut self, member: u8) {
        self.members.insert(member, run(&self.home, &self.network, &self.disks, member));
    }

    /// A machine that runs jobs as whoever runs the test.
    fn node(&self) -> Running {
        let (file, own) = (self.home.path("agent.toml"), Network::address(NODE));
        let text = format!(
            "directory = {:?}\naddress = {own:?}\ncgroup = \"none\"\njobs_as_agent = true\n\
             gpus_fake = {GPUS}\n",
            self.home.path("agent")
        );
        fs::write(&file, text).expect("a file can be written");
        let file = file.display().to_string();
        let token = self.home.yard(&["node", "invite"]).ok().out;
        let all = self.addresses().join(",");
        let within = self.network.within(NODE);
        let within = within.each_ref().map(String::as_str);
        let join = ["agent", "join", &all, "-", "--name", "n1", "--config", &file];
        self.home.yard(&join).within(&within).input(&token).ok();
        let running = self.home.yard(&["agent", "run", "--config", &file]).within(&within).spawn();
        await_true("n1 is up", || {
            let shown = self.home.yard(&["node", "show", "n1", "-o", "json"]).run();
            shown.code == 0 && shown.json()["state"] == "Up"
        });
        running
    }
}

fn settings(home: &Home, member: u8) -> PathBuf {
    home.path(&format!("m{member}.toml"))
}

/// A verb of a coordinator on its machine.
fn on(
    home: &Home,
    network: &Network,
    disks: &BTreeMap<u8, Disk>,
    member: u8,
    words: &[&str],
) -> Yard {
    let file = settings(home, member).display().to_string();
    let words = [words, &["--config", &file]].concat();
    let disk = disks.get(&member).map(Disk::within);
    let within = disk.into_iter().flatten().chain(network.within(member));
    let within: Vec<String> = within.collect();
    home.yard(&words).within(&within.iter().map(String::as_str).collect::<Vec<_>>())
}

fn run(home: &Home, network: &Network, disks: &BTreeMap<u8, Disk>, member: u8) -> Running {
    on(home, network, disks, member, &["coordinator", "run"]).spawn()
}

/// A small disk in memory, in a mount namespace of its own. It goes with the test: whoever holds
/// it ends when nobody writes to it any more.
struct Disk {
    folder: PathBuf,
    holder: Child,
}

impl Disk {
    fn mount(folder: PathBuf, mib: u32) -> Disk {
        private_folder(&folder);
        let script = "mount -t tmpfs -o size=\"$0\",mode=0700 tmpfs \"$1\" && touch \"$1/there\" \
                      && exec cat";
        let words = ["--mount", "--propagation", "private", "sh", "-c", script];
        let holder = Command::new("unshare")
            .args(words)
            .arg(format!("{mib}m"))
            .arg(&folder)
            .stdin(Stdio::piped())
            .spawn()
            .expect("unshare is installed");
        let disk = Disk { folder, holder };
        await_true("the small disk is mounted", || disk.seen().join("there").exists());
        disk
    }

    /// What runs a program that sees it.
    fn within(&self) -> [String; 2] {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.holder.id());
        ["nsenter".into(), namespace]
    }

    /// Where this process sees it.
    fn seen(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.folder.strip_prefix("/").expect("it is absolute"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
