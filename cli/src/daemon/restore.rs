//! `yard coordinator restore`: a cluster comes back from a backup.

use super::coordinator::{above, hand_over, heir, place};
use crate::args::CoordinatorRestoreArgs;
use crate::failure::{Failure, chain, exit};
use crate::input::confirm_word;
use crate::output::say;
use crate::session::now_wall_ms;
use crate::text;
use crate::view;
use std::sync::Arc;
use yard_coordinator::backup::{self, Contents};
use yard_coordinator::env::SystemEnv;
use yard_coordinator::{Build, RestoreError, RestoreOptions};

/// Jobs that are named one by one.
const JOBS_SHOWN: usize = 10;

/// Makes the folder of a coordinator out of a backup.
pub(crate) async fn restore(args: &CoordinatorRestoreArgs, build: Build) -> Result<u8, Failure> {
    let (options, address) = place(&args.place)?;
    let backup =
        backup::open(&args.file, &build).map_err(|error| crate::verb::backup::refused(&error))?;
    let heir = heir(&options)?;
    let folder = options.folder;
    explain(&backup, &address);
    let cluster = backup.head.cluster.to_string();
    confirm_word("Begin a new life of this cluster?", &cluster, args.yes)?;
    above(&folder)?;
    let options = RestoreOptions { folder: folder.clone(), address: address.clone(), build };
    let restored = yard_coordinator::restore(options, backup, Arc::new(SystemEnv)).await;
    let restored = restored.map_err(|error| failure(&error))?;
    hand_over(&folder, heir)?;
    let (member, life) = (restored.member, restored.incarnation);
    say(&format!("restored in {}: life {life}, member {member}, at {address}", folder.display()));
    let next = super::next("yard-coordinator", "yard coordinator run");
    say(&format!("next: {next}; then `yard cluster token` for each further coordinator"));
    Ok(0)
}

fn explain(backup: &Contents, address: &str) {
    let head = &backup.head;
    let (_, facts) = view::backup::backup(head);
    say(facts.trim_end());
    let age_ms = now_wall_ms().saturating_sub(head.wall_ms);
    let running: Vec<String> =
        backup.running().take(JOBS_SHOWN).map(|(id, name)| format!("{id} ({name})")).collect();
    let count = backup.running().count();
    if count > 0 {
        let more = if count > running.len() { ", and others" } else { "" };
        say(&format!("{count} jobs had running tasks: {}{more}", running.join(", ")));
    }
    say(&format!("what was answered after it, {} ago, is lost", text::duration(age_ms)));
    say("what runs on the nodes is stopped; tasks that had not ended run again");
    say("coordinators of before must not run any more: stop them, and reset them");
    if !head.members.iter().any(|(_, at)| at == address) {
        say(&format!("note: none of them was at {address}; agents ask where one of them was"));
    }
}

fn failure(error: &RestoreError) -> Failure {
    let hint = match error {
        RestoreError::Address(_) => "write --address HOST:PORT",
        RestoreError::Place(_) => "name a folder that is empty or not there: --folder",
        _ => "",
    };
    Failure::new(exit::REFUSED, chain(error), hint)
}
