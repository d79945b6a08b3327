//! The end of a development cluster.

use super::layout::Layout;
use super::{CONTEXT, process};
use crate::context::{Contexts, Environment};
use crate::failure::Failure;
use crate::output::say;
use futures_util::future::try_join_all;
use std::path::PathBuf;
use std::time::Duration;
use yard_runtime::files::FolderLock;

/// How long a process may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Stops every process: agents, what runs on their nodes, the coordinators.
pub(super) async fn stop(layout: &Layout) -> Result<(), Failure> {
    let mut ended = 0;
    let nodes = layout.nodes();
    // Each of them asks the coordinator first whether it may leave.
    let agents = nodes.iter().filter_map(|node| process::find(&layout.pid(node)));
    try_join_all(agents.map(|running| async move { running.stop(PATIENCE).await })).await?;
    for node in &nodes {
        let directory = layout.folder(node);
        let cleared = tokio::task::spawn_blocking(move || yard_agent::clear(&directory)).await;
        let cleared = cleared.map_err(|error| Failure::local(&error, ""))?;
        ended += cleared.map_err(|error| Failure::local(&error, ""))?;
    }
    // All at once: nobody is left to hand over to.
    let parts = layout.coordinators();
    let coordinators = parts.iter().filter_map(|part| process::find(&layout.pid(part)));
    try_join_all(coordinators.map(|running| async move { running.stop(PATIENCE).await })).await?;
    if ended > 0 {
        say(&format!("{ended} running attempts were ended; `yard dev` starts their jobs again"));
    }
    say("the development cluster is stopped");
    Ok(())
}

/// Removes its folder, and its context.
pub(super) fn remove(layout: &Layout, lock: FolderLock) -> Result<(), Failure> {
    let hint = "remove the folder as the user who owns it";
    for node in layout.nodes() {
        let options = yard_agent::service::Options::read(&layout.settings(&node), PathBuf::new());
        if let Some(groups) = options.ok().and_then(|options| options.own_cgroups()) {
            groups.remove();
        }
    }
    drop(lock);
    std::fs::remove_dir_all(layout.root()).map_err(|error| Failure::local(&error, hint))?;
    let folder = Environment::of_process().folder()?;
    let mut contexts = Contexts::load(&folder)?;
    if let Some(context) = contexts.remove(CONTEXT) {
        contexts.save(&folder)?;
        if let Some(own) = context.identity.parent().filter(|own| own.starts_with(&folder)) {
            // What is left of it opens nothing: its cluster is gone.
            let _ = std::fs::remove_dir_all(own);
        }
    }
    say("the development cluster is removed");
    Ok(())
}
