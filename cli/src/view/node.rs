//! Machines.

use super::{amounts, facts};
use crate::output::{Listing, Row, Tone, column};
use crate::text::{self, NONE};
use serde_json::{Value, json};
use yard_proto::v1;

/// Nodes as a list.
pub(crate) fn listing(nodes: &[v1::Node]) -> Listing {
    let columns = vec![
        column("NAME"),
        column("STATE"),
        column("REASON"),
        column("POOL"),
        column("GPUS(free/all/bad)").right(),
        column("CPUS").right(),
        column("MEM").right(),
        column("JOBS").right(),
        column("VERSION"),
        column("SEEN").right(),
        column("ID").right().wide(),
        column("ADDRESS").wide(),
        column("GPU MODELS").wide(),
        column("HEALTH").wide(),
    ];
    Listing { kind: "Node", columns, rows: nodes.iter().map(row).collect() }
}

fn row(node: &v1::Node) -> Row {
    let (cpus, memory) = match (&node.used, &node.amounts) {
        (Some(used), Some(all)) => (
            format!(
                "{}/{}",
                text::cpus(all.cpu_milli - used.cpu_milli.min(all.cpu_milli)),
                text::cpus(all.cpu_milli)
            ),
            text::bytes(all.memory_bytes),
        ),
        (None, Some(all)) => (text::cpus(all.cpu_milli), text::bytes(all.memory_bytes)),
        (_, None) => (NONE.into(), NONE.into()),
    };
    let cells = vec![
        node.name.clone(),
        text::node_state(node.state),
        conditions(node),
        node.pool.clone(),
        format!("{}/{}/{}", node.gpus_free, node.gpus.len(), node.gpus_bad),
        cpus,
        memory,
        node.job_ids.len().to_string(),
        node.agent_version.clone(),
        seen(node),
        node.id.to_string(),
        node.address.clone(),
        models(node),
        kinds(&node.health, |_| true),
    ];
    let tone = match v1::NodeState::try_from(node.state) {
        Ok(v1::NodeState::Up) if node.conditions.is_empty() => Tone::Good,
        Ok(v1::NodeState::Up | v1::NodeState::Suspect) => Tone::Busy,
        Ok(v1::NodeState::Lost) => Tone::Bad,
        Ok(v1::NodeState::Removed | v1::NodeState::Unspecified) | Err(_) => Tone::Dim,
    };
    Row { cells, value: value(node), name: node.name.clone(), tones: vec![(1, tone)] }
}

fn conditions(node: &v1::Node) -> String {
    let words: Vec<String> =
        node.conditions.iter().map(|condition| text::node_condition(*condition)).collect();
    match (words.is_empty(), &node.drain) {
        (true, _) => NONE.into(),
        (false, None) if node.conditions.contains(&v1::NodeCondition::Unwell.into()) => {
            let bars = |one: &v1::HealthCondition| one.bars() == v1::Bars::Node;
            format!("{}: {}", words.join(","), kinds(&node.health, bars))
        }
        (false, None) if node.cordon.is_some() => {
            let reason = node.cordon.as_ref().map(|cordon| cordon.reason.as_str());
            format!("{}: {}", words.join(","), reason.unwrap_or_default())
        }
        (false, Some(drain)) if !drain.reason.is_empty() => {
            format!("{}: {}", words.join(","), drain.reason)
        }
        (false, _) => words.join(","),
    }
}

/// Kinds of conditions, each once.
fn kinds(all: &[v1::HealthCondition], wanted: impl Fn(&v1::HealthCondition) -> bool) -> String {
    let mut kinds: Vec<String> =
        all.iter().filter(|one| wanted(one)).map(|one| text::condition_kind(one.kind)).collect();
    kinds.dedup();
    if kinds.is_empty() { NONE.into() } else { kinds.join(",") }
}

fn seen(node: &v1::Node) -> String {
    node.silent_ms.map_or(NONE.into(), |ms| format!("{} ago", text::duration(ms)))
}

/// Models with their counts: `2 h100, 6 h200`.
fn models(node: &v1::Node) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for gpu in &node.gpus {
        *counts.entry(gpu.model.as_str()).or_insert(0_u32) += 1;
    }
    let texts: Vec<String> =
        counts.iter().map(|(model, count)| format!("{count} {model}")).collect();
    if texts.is_empty() { NONE.into() } else { texts.join(", ") }
}

/// A node as machines read it.
pub(crate) fn value(node: &v1::Node) -> Value {
    let gpus: Vec<Value> = node
        .gpus
        .iter()
        .map(|gpu| {
            json!({
                "uuid": gpu.uuid,
                "model": gpu.model,
                "memory_bytes": gpu.memory_bytes,
                "mig_profile": gpu.mig_profile,
                "healthy": gpu.healthy,
                "parts_used": gpu.parts_used,
                "held_back": gpu.held_back,
            })
        })
        .collect();
    let labels: serde_json::Map<String, Value> =
        node.labels.iter().map(|label| (label.key.clone(), label.value.clone().into())).collect();
    let conditions: Vec<String> =
        node.conditions.iter().map(|condition| text::node_condition(*condition)).collect();
    let health = node.health.iter().map(|one| {
        json!({
            "kind": text::condition_kind(one.kind),
            "gpu": one.gpu,
            "since_wall_ms": one.since_wall_ms,
            "why": one.why,
            "until_boot": one.until_boot,
            "bars": text::bars(one.bars),
        })
    });
    let health: Vec<Value> = health.collect();
    let held_back = node.held_back.iter().map(
        |one| json!({ "gpu": one.gpu, "reason": one.reason, "since_wall_ms": one.since_wall_ms }),
    );
    let held_back: Vec<Value> = held_back.collect();
    json!({
        "id": node.id,
        "name": node.name,
        "pool": node.pool,
        "state": text::node_state(node.state),
        "conditions": conditions,
        "amounts": amounts(node.amounts.as_ref()),
        "used": amounts(node.used.as_ref()),
        "gpus": gpus,
        "gpus_free": node.gpus_free,
        "gpus_bad": node.gpus_bad,
        "labels": labels,
        "address": node.address,
        "agent_version": node.agent_version,
        "drain_reason": node.drain.as_ref().map(|drain| drain.reason.clone()),
        "cordoned": node.cordoned,
        "cordon_reason": node.cordon.as_ref().map(|cordon| cordon.reason.clone()),
        "health": health,
        "held_back": held_back,
        "check_asked": node.check_asked,
        "check_done": node.check_done,
        "setup": super::setup::node_value(node),
        "job_ids": node.job_ids,
        "silent_ms": node.silent_ms,
    })
}

/// One node for people.
pub(crate) fn describe(node: &v1::Node) -> String {
    let amount = |amounts: &Option<v1::ResourceAmounts>| match amounts {
        None => String::new(),
        Some(amounts) => format!(
            "{} CPUs, {} memory, {} disk",
            text::cpus(amounts.cpu_milli),
            text::bytes(amounts.memory_bytes),
            text::bytes(amounts.disk_bytes)
        ),
    };
    let labels: Vec<String> =
        node.labels.iter().map(|label| format!("{}={}", label.key, label.value)).collect();
    let jobs: Vec<String> = node.job_ids.iter().map(u64::to_string).collect();
    let mut out = facts(&[
        ("node", format!("{} (id {})", node.name, node.id)),
        ("state", text::node_state(node.state)),
        ("reason", conditions(node).trim_matches('-').to_string()),
        ("pool", node.pool.clone()),
        ("has", amount(&node.amounts)),
        ("used", amount(&node.used)),
        ("labels", labels.join(" ")),
        ("address", node.address.clone()),
        ("agent", node.agent_version.clone()),
        ("seen", seen(node).trim_matches('-').to_string()),
        ("jobs", jobs.join(" ")),
        ("setup", super::setup::node_line(node)),
    ]);
    for gpu in &node.gpus {
        let health = match (gpu.held_back, gpu.healthy) {
            (true, _) => ", held back",
            (false, true) => "",
            (false, false) => ", bad",
        };
        let mig = match gpu.mig_profile.as_str() {
            "" => String::new(),
            profile => format!(" {profile}"),
        };
        let (memory, used) = (text::bytes(gpu.memory_bytes), text::gpus(gpu.parts_used.into()));
        out.push_str(&format!(
            "gpu  {}{mig}, {memory}, {used} used{health}  {}\n",
            gpu.model, gpu.uuid
        ));
    }
    out.push_str(&health_lines(node));
    for left in &node.leftovers {
        let doubt =
            if left.in_doubt { "in doubt: its processes may live on" } else { "not reaped yet" };
        out.push_str(&format!("left behind by job {}, {doubt}\n", left.job_id));
    }
    out
}

/// What is wrong, a line each: what, since when, why, and what it keeps from running.
fn health_lines(node: &v1::Node) -> String {
    let mut out = String::new();
    for one in &node.health {
        let at = if one.gpu.is_empty() { String::new() } else { format!("  {}", one.gpu) };
        let bars = match v1::Bars::try_from(one.bars) {
            Ok(v1::Bars::Gpu) => ", takes no new work there",
            Ok(v1::Bars::Node) => ", takes no new work",
            Ok(v1::Bars::Nothing | v1::Bars::Unspecified) | Err(_) => "",
        };
        let boot = if one.until_boot { ", until the machine boots again" } else { "" };
        let (kind, since) = (text::condition_kind(one.kind), text::moment(one.since_wall_ms));
        let why = text::harmless(&one.why);
        out.push_str(&format!("{kind} since {since}: {why}{bars}{boot}{at}\n"));
    }
    for held in &node.held_back {
        let why =
            text::harmless(if held.reason.is_empty() { "no reason given" } else { &held.reason });
        let since = text::moment(held.since_wall_ms);
        out.push_str(&format!("held back since {since}: {why}  {}\n", held.gpu));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn sample() -> v1::Node {
        let gpu = |uuid: &str, healthy| v1::GpuDevice {
            uuid: uuid.into(),
            model: "h100".into(),
            memory_bytes: 80 << 30,
            healthy,
            ..v1::GpuDevice::default()
        };
        v1::Node {
            id: 7,
            name: "n7".into(),
            pool: "default".into(),
            state: v1::NodeState::Up.into(),
            conditions: vec![v1::NodeCondition::Draining.into()],
            amounts: Some(v1::ResourceAmounts {
                cpu_milli: 64_000,
                memory_bytes: 512 << 30,
                disk_bytes: 0,
            }),
            used: Some(v1::ResourceAmounts { cpu_milli: 8_000, ..Default::default() }),
            gpus: vec![gpu("GPU-1", true), gpu("GPU-2", false)],
            gpus_free: 1,
            gpus_bad: 1,
            agent_version: "0.1.0".into(),
            drain: Some(v1::Drain { reason: "new disk".into(), ..v1::Drain::default() }),
            job_ids: vec![8, 9],
            silent_ms: Some(1_200),
            ..v1::Node::default()
        }
    }

    #[test]
    fn a_list_says_why_a_node_takes_nothing() {
        let text = listing(&[sample()]).render(Format::Csv);
        let row = text.lines().nth(1).unwrap();
        assert_eq!(
            row,
            "n7,Up,Draining: new disk,default,1/2/1,56/64,512GiB,2,0.1.0,1s ago,7,,2 h100,-"
        );
        assert_eq!(value(&sample())["gpus"][1]["healthy"], false);
    }

    #[test]
    fn what_is_wrong_is_told_with_what_it_bars() {
        let condition = |kind: v1::ConditionKind, bars: v1::Bars, gpu: &str| v1::HealthCondition {
            kind: kind.into(),
            bars: bars.into(),
            gpu: gpu.into(),
            why: "why".into(),
            ..v1::HealthCondition::default()
        };
        let mut node = sample();
        node.drain = None;
        node.conditions = vec![v1::NodeCondition::Unwell.into()];
        node.health = vec![
            condition(v1::ConditionKind::GpuSlow, v1::Bars::Nothing, "GPU-1"),
            condition(v1::ConditionKind::CheckFailed, v1::Bars::Node, ""),
        ];
        assert_eq!(conditions(&node), "Unwell: CheckFailed");
        assert_eq!(value(&node)["health"][0]["kind"], "GpuSlow");
        let text = describe(&node);
        assert!(text.contains(": why  GPU-1\n"), "{text}");
        assert!(text.contains(": why, takes no new work\n"), "{text}");
    }

    #[test]
    fn a_description_lists_each_device() {
        let text = describe(&sample());
        assert!(text.contains("gpu  h100, 80GiB, 0 used  GPU-1\n"), "{text}");
        assert!(text.contains("0 used, bad  GPU-2\n"), "{text}");
        assert!(text.contains("jobs    8 9\n"), "{text}");
    }
}
