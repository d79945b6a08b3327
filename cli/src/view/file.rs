//! Files of a job.

use crate::output::{Column, Listing, Row, column};
use crate::text::{self, NONE};
use serde_json::json;
use yard_proto::v1;

fn columns() -> Vec<Column> {
    vec![column("NAME"), column("KIND"), column("SIZE").right(), column("CHANGED")]
}

/// What a directory has.
pub(crate) fn listing(entries: &[v1::FileEntry]) -> Listing {
    Listing { kind: "File", columns: columns(), rows: entries.iter().map(row).collect() }
}

/// The directories of a job.
pub(crate) fn roots() -> Listing {
    let root = |name: &str| {
        row(&v1::FileEntry {
            name: name.into(),
            kind: v1::FileKind::Directory.into(),
            ..v1::FileEntry::default()
        })
    };
    Listing { kind: "File", columns: columns(), rows: vec![root("logs"), root("scratch")] }
}

fn row(entry: &v1::FileEntry) -> Row {
    let kind = match entry.kind() {
        v1::FileKind::File => "file",
        v1::FileKind::Directory => "directory",
        v1::FileKind::Link => "link",
        v1::FileKind::Other | v1::FileKind::Unspecified => "other",
    };
    let is_file = entry.kind() == v1::FileKind::File;
    let size = if is_file { text::bytes(entry.size_bytes) } else { NONE.into() };
    let at_ms = entry.modified_wall_ms;
    let changed = if at_ms == 0 { NONE.into() } else { text::moment(at_ms) };
    Row {
        cells: vec![entry.name.clone(), kind.into(), size, changed],
        value: json!({
            "name": entry.name,
            "kind": kind,
            "size_bytes": entry.size_bytes,
            "modified_wall_ms": at_ms,
        }),
        name: entry.name.clone(),
        tones: Vec::new(),
    }
}
