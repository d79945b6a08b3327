//! What a backup says of itself.

use super::facts;
use crate::output::Row;
use crate::text;
use serde_json::{Value, json};
use std::path::Path;
use yard_coordinator::backup::BackupHead;

/// A backup that was written, in one line.
pub(crate) fn line(head: &BackupHead, file: &Path) -> String {
    let (jobs, live) = (head.jobs, head.jobs_live);
    let (cluster, file) = (head.cluster, file.display());
    format!("{file}: cluster {cluster}, {jobs} jobs of which {live} are live")
}

/// A backup: one row, with its text.
pub(crate) fn backup(head: &BackupHead) -> (Row, String) {
    let id = head.cluster.to_string();
    let members = head.members.iter();
    let places: Vec<String> = members.map(|(id, at)| format!("{id} at {at}")).collect();
    let text = facts(&[
        ("cluster", id.clone()),
        ("life", head.incarnation.to_string()),
        ("made", text::moment(head.wall_ms)),
        ("log", head.last.index.to_string()),
        ("jobs", format!("{} live of {} known", head.jobs_live, head.jobs)),
        ("nodes", head.nodes.to_string()),
        ("members", places.join(", ")),
        ("version", format!("{}, feature level {}", head.version, head.feature_level)),
    ]);
    let members = head.members.iter();
    let members = members.map(|(id, at)| json!({ "id": id.0, "address": at }));
    let members: Vec<Value> = members.collect();
    let value = json!({
        "cluster_id": id,
        "incarnation": head.incarnation.0,
        "made": text::moment(head.wall_ms),
        "index": head.last.index.0,
        "jobs": head.jobs,
        "jobs_live": head.jobs_live,
        "nodes": head.nodes,
        "members": members,
        "version": head.version,
        "feature_level": head.feature_level.0,
    });
    (Row { cells: Vec::new(), value, name: id, tones: Vec::new() }, text)
}
