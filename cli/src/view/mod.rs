//! Messages of the API as rows, objects and text. Pure: messages in, texts out.

pub(crate) mod backup;
pub(crate) mod cluster;
mod constraint;
pub(crate) mod escapes;
pub(crate) mod event;
pub(crate) mod explain;
pub(crate) mod file;
pub(crate) mod holder;
pub(crate) mod job;
pub(crate) mod lines;
pub(crate) mod machine;
pub(crate) mod node;
pub(crate) mod results;
pub(crate) mod setup;
pub(crate) mod timeline;
pub(crate) mod top;

use serde_json::{Value, json};
use yard_proto::v1;

/// Amounts as machines read them.
pub(crate) fn amounts(amounts: Option<&v1::ResourceAmounts>) -> Value {
    match amounts {
        None => Value::Null,
        Some(amounts) => json!({
            "cpu_milli": amounts.cpu_milli,
            "memory_bytes": amounts.memory_bytes,
            "disk_bytes": amounts.disk_bytes,
        }),
    }
}

/// A cause as machines read it.
pub(crate) fn cause(cause: Option<&v1::ExitCause>) -> Value {
    match cause {
        None => Value::Null,
        Some(cause) => json!({
            "text": crate::text::cause(cause),
            "kind": crate::text::exit_kind(cause.kind),
            "number": cause.number,
            "fault": crate::text::fault(cause.fault),
        }),
    }
}

/// Both times of a moment, as machines read them.
pub(crate) fn stamp(stamp: Option<&v1::Stamp>) -> Value {
    match stamp {
        None => Value::Null,
        Some(stamp) => json!({ "cluster_ms": stamp.cluster_ms, "wall_ms": stamp.wall_ms }),
    }
}

/// Lines `NAME   value` of one thing; those without a value are left out.
pub(crate) fn facts(list: &[(&str, String)]) -> String {
    let shown = list.iter().filter(|(_, value)| !value.is_empty());
    let width = shown.clone().map(|(name, _)| name.len()).max().unwrap_or(0);
    let value = |text: &str| crate::text::harmless(text).replace('\n', " ");
    shown.map(|(name, text)| format!("{name:width$}  {}\n", value(text))).collect()
}
