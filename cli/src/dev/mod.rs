//! `yard dev`: a cluster of one's own on this machine. Each coordinator and each node is a process
//! of its own, as in any other cluster; nothing is simulated or left out.

mod down;
mod layout;
mod process;
mod up;

use crate::args::{DevArgs, DevVerb, Global};
use crate::context::Environment;
use crate::failure::{Failure, exit};
use crate::input::confirm;
use crate::output::{Listing, Row, column, put, say};
use layout::{COORDINATOR, Layout};
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;
use yard_coordinator::Build;
use yard_runtime::files::{self, FolderLock};
use yard_runtime::shutdown::{Signal, Signals};

/// The name of the context.
const CONTEXT: &str = "dev";
/// How often a command that stays looks at its processes.
const LOOK: Duration = Duration::from_secs(1);

/// Does what the command line says.
pub(crate) async fn dev(args: &DevArgs, global: &Global, build: Build) -> Result<u8, Failure> {
    let layout = Layout::of_user(&Environment::of_process())?;
    match &args.verb {
        None => run(&layout, args, build).await,
        Some(DevVerb::Status) => status(&layout, global),
        Some(DevVerb::Stop) => {
            let _lock = lock(&layout)?;
            down::stop(&layout).await?;
            Ok(0)
        }
        Some(DevVerb::Reset { yes }) => {
            if !layout.root().exists() {
                say("there is no development cluster");
                return Ok(0);
            }
            confirm("Stop the development cluster, and remove it with all of its jobs?", *yes)?;
            let lock = lock(&layout)?;
            down::stop(&layout).await?;
            down::remove(&layout, lock)?;
            Ok(0)
        }
    }
}

/// One command at a time starts or stops processes.
fn lock(layout: &Layout) -> Result<FolderLock, Failure> {
    files::private_folder(layout.root()).map_err(|error| Failure::local(&error, ""))?;
    let hint = "wait until the other `yard dev` has started or stopped the cluster";
    FolderLock::take(layout.root()).map_err(|error| Failure::local(&error, hint))
}

async fn run(layout: &Layout, args: &DevArgs, build: Build) -> Result<u8, Failure> {
    let lock = lock(layout)?;
    let started = up::start(layout, args, build).await;
    drop(lock);
    started?;
    if args.detach {
        say("try: yard run -- hostname; stop it with: yard dev stop");
        return Ok(0);
    }
    say("try in another terminal: yard run -- hostname; Ctrl-C here stops the cluster");
    let mut signals = Signals::install().map_err(|error| Failure::local(&error, ""))?;
    let mut told = Vec::new();
    loop {
        tokio::select! {
            signal = signals.next() => if signal == Signal::Stop { break },
            () = sleep(LOOK) => tell_ended(layout, &mut told),
        }
        if !layout.exists() || parts(layout).iter().all(|(_, running)| running.is_none()) {
            say("the cluster was stopped");
            return Ok(0);
        }
    }
    let _lock = self::lock(layout)?;
    down::stop(layout).await?;
    Ok(0)
}

/// Tells once of each process that has ended.
fn tell_ended(layout: &Layout, told: &mut Vec<String>) {
    for (part, running) in parts(layout) {
        match running {
            Some(_) => told.retain(|known| *known != part),
            None if told.contains(&part) => {}
            None => {
                let log = layout.log(&part);
                let fix = format!("see {}; `yard dev` starts it again", log.display());
                say(&format!("the process of {part} has ended: {fix}"));
                told.push(part);
            }
        }
    }
}

/// Every part, with its process if it runs.
fn parts(layout: &Layout) -> Vec<(String, Option<process::Running>)> {
    let names = layout.coordinators().into_iter().chain(layout.nodes());
    let found = names.map(|name| {
        let running = process::find(&layout.pid(&name));
        (name, running)
    });
    found.collect()
}

/// Shows the processes; the exit code is 1 if one does not run.
fn status(layout: &Layout, global: &Global) -> Result<u8, Failure> {
    if !layout.exists() {
        let hint = "start one: yard dev";
        return Err(Failure::new(exit::NOT_FOUND, "there is no development cluster", hint));
    }
    let parts = parts(layout);
    let rows = parts.iter().map(|(name, running)| {
        let state = if running.is_some() { "running" } else { "stopped" };
        let pid = running.as_ref().map(|running| running.pid);
        let log = layout.log(name).display().to_string();
        // A node has none, and settings that cannot be read do not hide the process.
        let address = match name.starts_with(COORDINATOR) {
            true => layout.address(name).unwrap_or_default(),
            false => String::new(),
        };
        let value = json!({
            "name": name, "state": state, "pid": pid, "log": log, "address": address,
        });
        let pid = pid.map_or(String::new(), |pid| pid.to_string());
        let cells = vec![name.clone(), state.into(), pid, address, log];
        Row { value, name: name.clone(), cells, ..Row::default() }
    });
    let columns = vec![
        column("NAME"),
        column("STATE"),
        column("PID").right(),
        column("ADDRESS"),
        column("LOG"),
    ];
    let listing = Listing { kind: "DevProcess", columns, rows: rows.collect() };
    put(&listing.render(global.output.unwrap_or_default()))?;
    Ok(u8::from(parts.iter().any(|(_, running)| running.is_none())))
}
