//! The start of a development cluster: what is not there is made, what does not run is started.

use super::layout::{COORDINATOR, Layout, coordinator, write_settings};
use super::{CONTEXT, process};
use crate::args::DevArgs;
use crate::context::{Contexts, Environment};
use crate::daemon::{agent, coordinator as daemon};
use crate::failure::{Failure, exit};
use crate::output::say;
use crate::text;
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use yard_client::Client;
use yard_common::name::is_name;
use yard_coordinator::Build;
use yard_proto::v1;

/// Nodes of a new cluster.
const NODES: u16 = 2;
/// How long the coordinator may take to lead, and the nodes to be up.
const PATIENCE: Duration = Duration::from_secs(30);
/// A node that was silent for longer is not up yet, in milliseconds.
const HEARD_MS: u64 = 1_000;
/// The node that gets the GPUs of the machine.
const FIRST: &str = "n1";
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// The life of a token that is used at once.
const TOKEN_MS: u64 = 60_000;

#[derive(Serialize)]
struct CoordinatorSettings {
    folder: PathBuf,
    listen: String,
}

#[derive(Serialize)]
struct NodeSettings {
    directory: PathBuf,
    coordinators: Vec<String>,
    address: String,
    gang_dir: PathBuf,
    cgroup: String,
    gpus_fake: u16,
    gpus: bool,
    jobs_as_agent: bool,
    cpus_bound: bool,
}

/// Starts the whole, and waits until its nodes are up.
pub(super) async fn start(layout: &Layout, args: &DevArgs, build: Build) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let folder = environment.folder()?;
    if !layout.exists() {
        make(layout, &folder).await?;
    }
    for part in layout.coordinators() {
        start_part(layout, &part, &["coordinator", "run"])?;
    }
    let mut contexts = Contexts::load(&folder)?;
    if contexts.current.as_deref() != Some(CONTEXT) {
        contexts.switch(CONTEXT)?;
        contexts.save(&folder)?;
    }
    let context = contexts.contexts[CONTEXT].clone();
    let client = Client::connect(&context.options(context.load_identity()?, false))?;
    lead(layout, &client).await?;
    grow(layout, args.coordinators.unwrap_or(1), &client, build).await?;
    let addresses = layout.addresses()?;
    if addresses != context.addresses {
        let known = contexts.contexts.get_mut(CONTEXT);
        known.into_iter().for_each(|known| known.addresses.clone_from(&addresses));
        contexts.save(&folder)?;
    }
    let there = layout.nodes();
    let wanted = args.nodes.unwrap_or(if there.is_empty() { NODES } else { 0 });
    let names = (1..=wanted).map(|number| format!("n{number}"));
    let more: Vec<String> = names.filter(|name| !there.contains(name)).collect();
    let mut kept = 0;
    for node in there.iter().chain(&more) {
        let running = process::find(&layout.pid(node)).is_some();
        if running {
            kept += 1;
        } else {
            settle(layout, node, &addresses, args.gpus_fake)?;
            join(layout, node, &client).await?;
        }
        start_part(layout, node, &["agent", "run"])?;
    }
    let nodes: Vec<String> = there.into_iter().chain(more).collect();
    await_nodes(layout, &client, &nodes).await?;
    tell_unchanged(args, nodes.len(), kept);
    let (list, root) = (addresses.join(", "), layout.root().display());
    say(&format!("coordinator at {list}, context {CONTEXT}, files in {root}"));
    Ok(())
}

/// Says what was wished and is not done to a cluster that is there.
fn tell_unchanged(args: &DevArgs, nodes: usize, running: usize) {
    if args.nodes.is_some_and(|wanted| usize::from(wanted) < nodes) {
        say(&format!("note: there are {nodes} nodes; `yard dev reset` makes room for fewer"));
    }
    if args.gpus_fake.is_some() && running > 0 {
        say("note: the GPUs of nodes that run stay as they are; `yard dev stop` stops them first");
    }
}

/// Adds coordinators until there are so many, and waits until all of them vote.
async fn grow(layout: &Layout, wanted: u16, client: &Client, build: Build) -> Result<(), Failure> {
    let there = layout.coordinators();
    for part in (1..=wanted).map(coordinator).filter(|part| !there.contains(part)) {
        let listen = match layout.settings(&part).exists() {
            // An earlier start got no further.
            true => layout.address(&part)?,
            false => free_port(layout.hash(), &layout.addresses()?)?.to_string(),
        };
        take_back(client, &listen).await?;
        let request = v1::CreateMemberTokenRequest { life_ms: TOKEN_MS, ..Default::default() };
        let token = client.member_token(request).await?.token.unwrap_or_default().text;
        let folder = layout.folder(&part);
        let settings = CoordinatorSettings { folder: folder.clone(), listen: listen.clone() };
        if !layout.settings(&part).exists() {
            write_settings(&layout.settings(&part), &settings)?;
        }
        daemon::enter(&folder, &token, layout.addresses()?, &listen, PATIENCE, build).await?;
        start_part(layout, &part, &["coordinator", "run"])?;
    }
    let end = Instant::now() + PATIENCE;
    for part in layout.coordinators() {
        let address = layout.address(&part)?;
        while !votes(client, &address).await? {
            check(layout, &part, end)?;
            sleep(LOOK).await;
        }
    }
    Ok(())
}

/// Takes back a join that was let in and never heard of it: there is no folder for its member, so
/// nobody can be it.
async fn take_back(client: &Client, address: &str) -> Result<(), Failure> {
    let status = client.status(v1::StatusRequest { brief: true }).await?;
    for lost in status.members.iter().filter(|member| member.address == address) {
        let request = v1::RemoveMemberRequest { member_id: lost.id };
        client.remove_member(request).await?;
    }
    Ok(())
}

/// Whether the coordinator at this address votes.
async fn votes(client: &Client, address: &str) -> Result<bool, Failure> {
    let status = client.status(v1::StatusRequest { brief: true }).await?;
    let found = status.members.iter().find(|member| member.address == address);
    let role = found.map(v1::Member::role);
    Ok(matches!(role, Some(v1::MemberRole::Leader | v1::MemberRole::Follower)))
}

/// Makes the cluster, its administrator, and the context.
async fn make(layout: &Layout, folder: &Path) -> Result<(), Failure> {
    let listen = free_port(layout.hash(), &[])?.to_string();
    let admin = yard_agent::launch::own_login().filter(|login| is_name(login));
    let admin = admin.unwrap_or_else(|| "admin".into());
    let settings =
        CoordinatorSettings { folder: layout.folder(COORDINATOR), listen: listen.clone() };
    write_settings(&layout.settings(COORDINATOR), &settings)?;
    let mut contexts = Contexts::load(folder)?;
    let mut keep = |made: &_| daemon::remember(&mut contexts, folder, CONTEXT, made);
    daemon::make(&layout.folder(COORDINATOR), &listen, &admin, None, &mut keep).await
}

/// Starts a part unless it runs.
fn start_part(layout: &Layout, part: &str, words: &[&str]) -> Result<(), Failure> {
    if process::find(&layout.pid(part)).is_none() {
        process::start(layout, part, words)?;
    }
    Ok(())
}

/// Writes the settings of a node. Without a wish, its GPUs stay as they are.
fn settle(
    layout: &Layout,
    node: &str,
    addresses: &[String],
    gpus_fake: Option<u16>,
) -> Result<(), Failure> {
    let settings = layout.settings(node);
    if gpus_fake.is_none() && settings.exists() {
        return Ok(());
    }
    // Names of groups are the machine's, and there may be other development clusters on it.
    let place = layout.hash();
    write_settings(
        &settings,
        &NodeSettings {
            directory: layout.folder(node),
            coordinators: addresses.to_vec(),
            address: "127.0.0.1".into(),
            gang_dir: layout.gang(),
            cgroup: format!("yard-dev-{place:016x}-{node}"),
            gpus_fake: gpus_fake.unwrap_or(0),
            // All nodes are on one machine, and each GPU belongs to one of them.
            gpus: node == FIRST || gpus_fake.is_some_and(|count| count > 0),
            // The machine is one person's; without root that is the only account anyway.
            jobs_as_agent: true,
            // Its nodes share the CPUs of one machine, each of them counting all of these.
            cpus_bound: false,
        },
    )
}

/// Makes a directory that of a node, unless it is one.
async fn join(layout: &Layout, node: &str, client: &Client) -> Result<(), Failure> {
    let program = agent::program()?;
    let options = yard_agent::service::Options::read(&layout.settings(node), program);
    let options = options.map_err(|error| Failure::local(&error, ""))?;
    let joined = yard_agent::join::joined(&options.directory);
    if joined.map_err(|error| Failure::local(&error, ""))?.is_some() {
        return Ok(());
    }
    let request = v1::CreateJoinTokenRequest {
        pool: "default".into(),
        life_ms: TOKEN_MS,
        ..Default::default()
    };
    let token = client.join_token(request).await?.token.unwrap_or_default().text;
    let addresses = options.coordinators.clone();
    agent::enter(&options, &token, addresses, node.to_string(), PATIENCE).await?;
    Ok(())
}

/// Waits until a coordinator leads.
async fn lead(layout: &Layout, client: &Client) -> Result<(), Failure> {
    let end = Instant::now() + PATIENCE;
    loop {
        let status = client.status(v1::StatusRequest { brief: true }).await;
        if status.is_ok_and(|status| status.leader.is_some()) {
            return Ok(());
        }
        check(layout, COORDINATOR, end)?;
        sleep(LOOK).await;
    }
}

/// Waits until the nodes are up.
async fn await_nodes(layout: &Layout, client: &Client, nodes: &[String]) -> Result<(), Failure> {
    let end = Instant::now() + PATIENCE;
    for node in nodes {
        loop {
            let request = v1::GetNodeRequest { node: node.clone() };
            let found = client.node(request).await?.node.unwrap_or_default();
            check(layout, node, end)?;
            let heard = found.silent_ms.is_some_and(|silent_ms| silent_ms < HEARD_MS);
            if found.state() == v1::NodeState::Up && heard {
                let gpus = match found.gpus.first() {
                    None => String::new(),
                    Some(gpu) => format!(", {} GPUs ({})", found.gpus.len(), gpu.model),
                };
                let amounts = found.amounts.unwrap_or_default();
                let (cpus, memory) = (amounts.cpu_milli, amounts.memory_bytes);
                let (cpus, memory) = (text::cpus(cpus), text::bytes(memory));
                say(&format!("{node} is up: {cpus} CPUs, {memory}{gpus}"));
                break;
            }
            sleep(LOOK).await;
        }
    }
    Ok(())
}

/// Fails when a part has ended, or takes too long.
fn check(layout: &Layout, part: &str, end: Instant) -> Result<(), Failure> {
    let ended = process::find(&layout.pid(part)).is_none();
    if !ended && Instant::now() < end {
        return Ok(());
    }
    let what = match ended {
        true => format!("{part} ended when it started"),
        false => format!("{part} is not up after {} s", PATIENCE.as_secs()),
    };
    let message = format!("{what}; its log ends with\n{}", layout.last_lines(part, 8));
    Err(Failure::new(exit::REFUSED, message, format!("see {}", layout.log(part).display())))
}

/// A port of loopback that nothing uses now, and that is none of the taken ones. `wish` says where
/// to begin: clusters that wish differently do not meet, also while one of them is stopped.
fn free_port(wish: u64, taken: &[String]) -> Result<SocketAddr, Failure> {
    const PORTS: std::ops::Range<u16> = 7_100..8_100;
    let count = u64::from(PORTS.end - PORTS.start);
    let nth = |step: u64| PORTS.start + (wish.wrapping_add(step) % count) as u16;
    let any = std::iter::once(0);
    let listener = (0..count)
        .map(nth)
        .chain(any)
        .filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?.local_addr().ok())
        // Whoever has it may not listen yet.
        .find(|address| !taken.contains(&address.to_string()));
    listener.ok_or_else(|| Failure::new(exit::REFUSED, "no port of 127.0.0.1 is free", ""))
}
