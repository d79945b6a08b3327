//! Queues, pools, users, settings, contexts, and the cluster as a whole.

use super::amounts;
use crate::context::Contexts;
use crate::output::{Listing, Row, Tone, column};
use crate::text::{self, NONE};
use serde_json::{Value, json};
use yard_proto::v1;

fn yes(flag: bool) -> String {
    if flag { "yes".into() } else { "no".into() }
}

fn limit_ms(ms: Option<u64>) -> String {
    ms.map_or(NONE.into(), text::duration)
}

/// Queues as a list.
pub(crate) fn queues(queues: &[v1::Queue]) -> Listing {
    let columns = vec![
        column("NAME"),
        column("PRIO").right(),
        column("TAKES"),
        column("STARTS"),
        column("PENDING").right(),
        column("RUNNING").right(),
        column("GPUS").right(),
        column("LIMIT").right(),
        column("POOLS"),
    ];
    let row = |queue: &v1::Queue| {
        let settings = queue.settings.clone().unwrap_or_default();
        let held = queue.held.unwrap_or_default();
        let pools = settings.pools.join(",");
        Row {
            cells: vec![
                queue.name.clone(),
                settings.priority.to_string(),
                yes(settings.accepts),
                yes(settings.starts),
                queue.jobs_pending.to_string(),
                held.tasks.to_string(),
                text::gpus(held.gpu_parts),
                limit_ms(settings.time_limit_max_ms),
                if pools.is_empty() { "any".into() } else { pools },
            ],
            value: queue_value(queue),
            name: queue.name.clone(),
            tones: vec![(3, if settings.starts { Tone::Plain } else { Tone::Bad })],
        }
    };
    Listing { kind: "Queue", columns, rows: queues.iter().map(row).collect() }
}

fn queue_value(queue: &v1::Queue) -> Value {
    let settings = queue.settings.clone().unwrap_or_default();
    let held = queue.held.unwrap_or_default();
    json!({
        "id": queue.id,
        "name": queue.name,
        "priority": settings.priority,
        "pools": settings.pools,
        "accepts": settings.accepts,
        "starts": settings.starts,
        "job_priority_max": settings.job_priority_max,
        "time_limit_default_ms": settings.time_limit_default_ms,
        "time_limit_max_ms": settings.time_limit_max_ms,
        "preemptible": settings.preemptible,
        "jobs": queue.jobs,
        "jobs_pending": queue.jobs_pending,
        "held": { "amounts": amounts(held.amounts.as_ref()), "gpus": text::gpus(held.gpu_parts),
                  "tasks": held.tasks, "jobs": held.jobs },
    })
}

/// Pools as a list.
pub(crate) fn pools(pools: &[v1::Pool]) -> Listing {
    let columns = vec![
        column("NAME"),
        column("NODES").right(),
        column("CPUS").right(),
        column("MEM").right(),
        column("GPUS").right(),
        column("LEASE").right(),
        column("SETUP"),
        column("DESCRIPTION"),
    ];
    let row = |pool: &v1::Pool| {
        let settings = pool.settings.clone().unwrap_or_default();
        let floor = pool.floor.as_ref();
        Row {
            cells: vec![
                pool.name.clone(),
                pool.nodes.to_string(),
                floor.map_or(NONE.into(), |floor| text::cpus(floor.cpu_milli)),
                floor.map_or(NONE.into(), |floor| text::bytes(floor.memory_bytes)),
                pool.floor_gpus.to_string(),
                if settings.lease_ms == 0 {
                    NONE.into()
                } else {
                    text::duration(settings.lease_ms)
                },
                super::setup::cell(pool),
                settings.description.clone(),
            ],
            value: json!({
                "id": pool.id,
                "name": pool.name,
                "description": settings.description,
                "lease_ms": settings.lease_ms,
                "nodes": pool.nodes,
                "floor": amounts(floor),
                "floor_gpus": pool.floor_gpus,
                "setup": super::setup::value(pool),
            }),
            name: pool.name.clone(),
            tones: Vec::new(),
        }
    };
    Listing { kind: "Pool", columns, rows: pools.iter().map(row).collect() }
}

/// Users as a list.
pub(crate) fn users(users: &[v1::User]) -> Listing {
    let columns = vec![
        column("NAME"),
        column("ROLE"),
        column("UNIX"),
        column("STATE"),
        column("JOBS").right(),
        column("GPUS").right(),
    ];
    let row = |user: &v1::User| {
        let grants: Vec<String> = user.grants.iter().map(grant).collect();
        let held = user.held.unwrap_or_default();
        let state = if user.disabled { "disabled" } else { "enabled" };
        let values: Vec<Value> = user
            .grants
            .iter()
            .map(|grant| json!({ "workspace": grant.workspace, "role": text::role(grant.role) }))
            .collect();
        Row {
            cells: vec![
                user.name.clone(),
                if grants.is_empty() { NONE.into() } else { grants.join(" ") },
                if user.unix_login.is_empty() { NONE.into() } else { user.unix_login.clone() },
                state.into(),
                held.jobs.to_string(),
                text::gpus(held.gpu_parts),
            ],
            value: json!({
                "id": user.id,
                "name": user.name,
                "unix": user.unix_login,
                "grants": values,
                "disabled": user.disabled,
                "jobs": held.jobs,
            }),
            name: user.name.clone(),
            tones: vec![(3, if user.disabled { Tone::Bad } else { Tone::Plain })],
        }
    };
    Listing { kind: "User", columns, rows: users.iter().map(row).collect() }
}

/// `admin`, or `user@team` for one workspace.
fn grant(grant: &v1::Grant) -> String {
    let role = text::role(grant.role).to_lowercase();
    match grant.workspace.as_str() {
        "" => role,
        workspace => format!("{role}@{workspace}"),
    }
}

/// Settings of the cluster.
pub(crate) fn settings(settings: &[v1::Setting]) -> Listing {
    let row = |setting: &v1::Setting| Row {
        cells: vec![setting.name.clone(), setting.value.clone()],
        value: json!({ "name": setting.name, "value": setting.value }),
        name: setting.name.clone(),
        tones: Vec::new(),
    };
    let columns = vec![column("NAME"), column("VALUE")];
    Listing { kind: "Setting", columns, rows: settings.iter().map(row).collect() }
}

/// Clusters that this machine knows.
pub(crate) fn contexts(contexts: &Contexts) -> Listing {
    let rows = contexts.contexts.iter().map(|(name, context)| {
        let current = contexts.current.as_ref() == Some(name);
        Row {
            cells: vec![
                if current { "*".into() } else { String::new() },
                name.clone(),
                context.addresses.join(","),
            ],
            value: json!({ "name": name, "current": current, "addresses": context.addresses }),
            name: name.clone(),
            tones: Vec::new(),
        }
    });
    let columns = vec![column(""), column("NAME"), column("ADDRESSES")];
    Listing { kind: "Context", columns, rows: rows.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn queues_say_what_they_do() {
        let queue = v1::Queue {
            name: "gpu".into(),
            settings: Some(v1::QueueSettings {
                accepts: true,
                starts: false,
                priority: 3,
                time_limit_max_ms: Some(86_400_000),
                ..v1::QueueSettings::default()
            }),
            jobs_pending: 4,
            held: Some(v1::Holding { gpu_parts: 15_000, tasks: 2, ..v1::Holding::default() }),
            ..v1::Queue::default()
        };
        let text = queues(&[queue]).render(Format::Csv);
        assert_eq!(text.lines().nth(1), Some("gpu,3,yes,no,4,2,1.5,1d,any"));
    }

    #[test]
    fn users_show_roles_and_workspaces() {
        let grant = |workspace: &str, role: v1::Role| v1::Grant {
            workspace: workspace.into(),
            role: role.into(),
        };
        let user = v1::User {
            name: "ann".into(),
            grants: vec![grant("", v1::Role::User), grant("team", v1::Role::Admin)],
            disabled: true,
            ..v1::User::default()
        };
        let text = users(&[user]).render(Format::Csv);
        assert_eq!(text.lines().nth(1), Some("ann,user admin@team,-,disabled,0,0"));
    }
}
