//! What machines of a pool do before they take work, and how far they are.

use super::facts;
use crate::text::{self, NONE, harmless};
use serde_json::{Value, json};
use yard_proto::v1;

/// How far the machines of a pool are, in a list.
pub(crate) fn cell(pool: &v1::Pool) -> String {
    let Some(setup) = &pool.setup else { return NONE.into() };
    let failed = match setup.nodes_failed {
        0 => String::new(),
        count => format!(", {count} failed"),
    };
    format!("{}/{}{failed}", setup.nodes_done, pool.nodes)
}

/// The setup of a pool as machines read it.
pub(crate) fn value(pool: &v1::Pool) -> Value {
    let Some(setup) = &pool.setup else { return Value::Null };
    let mut value = json!({
        "revision": setup.revision,
        "nodes_done": setup.nodes_done,
        "nodes_failed": setup.nodes_failed,
        "nodes_due": setup.nodes_due,
    });
    if let Some(text) = &setup.setup {
        let variables =
            text.variables.iter().map(|one| (one.name.clone(), one.value.clone().into()));
        value["command"] = text.command.clone().into();
        value["variables"] = Value::Object(variables.collect());
        value["timeout_ms"] = text.timeout_ms.into();
    }
    value
}

/// The setup of a pool for people, below the rest; nothing if it has none.
pub(crate) fn describe(pool: &v1::Pool) -> String {
    let Some(setup) = &pool.setup else { return String::new() };
    let (done, failed, due) = (setup.nodes_done, setup.nodes_failed, setup.nodes_due);
    let mut lines = vec![
        ("setup", format!("revision {}", setup.revision)),
        ("nodes", format!("{done} have done it, it failed on {failed}, {due} are still to do it")),
    ];
    if let Some(text) = &setup.setup {
        lines.push(("time", format!("at most {}", text::duration(text.timeout_ms))));
        let variables = text.variables.iter().map(|one| format!("{}={}", one.name, one.value));
        lines.push(("env", harmless(&variables.collect::<Vec<_>>().join(" "))));
    }
    let mut out = format!("\n{}", facts(&lines));
    if let Some(text) = &setup.setup {
        for line in text.command.lines() {
            out.push_str(&format!("    {}\n", harmless(line)));
        }
    }
    out
}

/// How far a machine is with it, as machines read it.
pub(crate) fn node_value(node: &v1::Node) -> Value {
    let Some(setup) = &node.setup else { return Value::Null };
    json!({
        "revision": setup.revision,
        "told_revision": setup.told_revision,
        "stage": text::setup_stage(setup.stage),
        "since_wall_ms": setup.since_wall_ms,
        "due": setup.due,
    })
}

/// How far a machine is with it, for people; empty if there is none.
pub(crate) fn node_line(node: &v1::Node) -> String {
    let Some(setup) = &node.setup else { return String::new() };
    let since = text::moment(setup.since_wall_ms);
    if setup.told_revision != setup.revision {
        return format!("revision {} is still to be done", setup.revision);
    }
    let how = match setup.stage() {
        v1::SetupStage::Done => "done",
        v1::SetupStage::Running => "runs",
        v1::SetupStage::Failed => "failed; see `yard node logs`",
        v1::SetupStage::Refused => "not allowed there",
        v1::SetupStage::Unspecified => "in a way that this version does not know",
    };
    format!("revision {} {how}, since {since}", setup.revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> v1::Pool {
        let variable = v1::SetupVariable { name: "A".into(), value: "1".into() };
        let text = v1::Setup {
            command: "set -e\napt-get install -y x".into(),
            variables: vec![variable],
            timeout_ms: 900_000,
        };
        let setup = v1::PoolSetup {
            revision: 3,
            setup: Some(text),
            nodes_done: 2,
            nodes_failed: 1,
            nodes_due: 1,
        };
        v1::Pool { nodes: 4, setup: Some(setup), ..v1::Pool::default() }
    }

    #[test]
    fn a_pool_shows_what_its_machines_do_and_how_far_they_are() {
        assert_eq!(
            (cell(&pool()).as_str(), cell(&v1::Pool::default()).as_str()),
            ("2/4, 1 failed", "-")
        );
        assert_eq!(
            describe(&pool()),
            "\nsetup  revision 3\nnodes  2 have done it, it failed on 1, 1 are still to do it\n\
             time   at most 15m\nenv    A=1\n    set -e\n    apt-get install -y x\n"
        );
        assert_eq!(value(&pool())["variables"]["A"], "1");
        assert_eq!(describe(&v1::Pool::default()), "");
    }

    #[test]
    fn a_machine_shows_how_far_it_is() {
        let mut setup = v1::NodeSetup { revision: 3, due: true, ..v1::NodeSetup::default() };
        let line = |setup: &v1::NodeSetup| {
            node_line(&v1::Node { setup: Some(*setup), ..v1::Node::default() })
        };
        assert_eq!(line(&setup), "revision 3 is still to be done");
        (setup.told_revision, setup.stage) = (3, v1::SetupStage::Failed.into());
        assert!(line(&setup).starts_with("revision 3 failed; see `yard node logs`, since "));
        assert_eq!(node_line(&v1::Node::default()), "");
    }
}
