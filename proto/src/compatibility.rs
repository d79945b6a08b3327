//! What was published stays as it is: every field, value and call of the descriptors against the
//! list in `published.txt`.
//!
//! A line that is gone or reads otherwise breaks those who still speak it. A new line is written
//! down with `UPDATE=1 cargo test -p yard-proto`, and reviewed like code.

use crate::descriptor::descriptors;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto};
use std::collections::BTreeSet;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/published.txt");

/// Calls that change something and carry no request id, and why that does no harm.
const WITHOUT_REQUEST_ID: [&str; 8] = [
    // Within the submission.
    "/yard.v1.JobService/Replace",
    // Done twice, these are as done once.
    "/yard.v1.ClusterService/AddMember",
    "/yard.v1.ClusterService/RemoveMember",
    "/yard.v1.ClusterService/TransferLeader",
    // A visit lasts as long as its stream, and changes nothing that outlasts it.
    "/yard.v1.InteractiveService/Checkpoint",
    "/yard.v1.InteractiveService/Exec",
    "/yard.v1.InteractiveService/Forward",
    // What it saves is saved by whoever asked.
    "/yard.v1.ClusterService/SaveSnapshot",
];
/// How calls are named that change nothing. A new certificate changes nothing of the old one.
const READING: [&str; 14] = [
    "List",
    "Get",
    "Attempts",
    "Explain",
    "Watch",
    "Latest",
    "Logs",
    "SetupLog",
    "ReadFile",
    "WhoAmI",
    "Status",
    "Events",
    "Usage",
    "RenewCertificate",
];

/// Everything that somebody may rely on, a line each.
fn present() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in descriptors().file {
        let package = file.package().to_string();
        for message in &file.message_type {
            add_message(&package, message, &mut lines);
        }
        for wanted in &file.enum_type {
            add_enum(&package, wanted, &mut lines);
        }
    }
    for rpc in crate::rpcs() {
        let stream = |streams: bool| if streams { "stream " } else { "" };
        let (asks, answers) = (stream(rpc.client_streams), stream(rpc.server_streams));
        let crate::Rpc { path, request, response, .. } = rpc;
        lines.insert(format!("rpc {path} ({asks}{request}) returns ({answers}{response})"));
    }
    lines
}

fn add_message(scope: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", message.name());
    lines.insert(format!("message {name}"));
    for field in &message.field {
        lines.insert(format!("field {name} {}", field_text(message, field)));
    }
    for inner in &message.nested_type {
        add_message(&name, inner, lines);
    }
    for inner in &message.enum_type {
        add_enum(&name, inner, lines);
    }
}

fn field_text(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let kind = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_string(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    let label = match field.label() {
        Label::Repeated => "repeated ",
        Label::Optional | Label::Required if field.proto3_optional() => "optional ",
        Label::Optional | Label::Required => "",
    };
    // The group that proto3 makes for an optional field is nobody's business.
    let choice = field.oneof_index.filter(|_| !field.proto3_optional());
    let choice = choice.and_then(|at| message.oneof_decl.get(usize::try_from(at).ok()?));
    let choice = choice.map(|choice| format!(" of {}", choice.name())).unwrap_or_default();
    format!("{:03} {} {label}{kind}{choice}", field.number(), field.name())
}

fn add_enum(scope: &str, wanted: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", wanted.name());
    for value in &wanted.value {
        lines.insert(format!("value {name} {:03} {}", value.number(), value.name()));
    }
}

/// What is new, unless something that was published is gone.
fn additions(
    published: &BTreeSet<String>,
    present: &BTreeSet<String>,
) -> Result<Vec<String>, Vec<String>> {
    let gone: Vec<String> = published.difference(present).cloned().collect();
    if gone.is_empty() { Ok(present.difference(published).cloned().collect()) } else { Err(gone) }
}

fn published() -> BTreeSet<String> {
    let text = std::fs::read_to_string(FILE).unwrap_or_default();
    text.lines().map(str::to_string).collect()
}

#[test]
fn what_was_published_stays() {
    let present = present();
    let added = additions(&published(), &present).unwrap_or_else(|gone| {
        panic!("these were published and must stay as they are:\n{}", gone.join("\n"))
    });
    if added.is_empty() {
        return;
    }
    let update = std::env::var_os("UPDATE").is_some();
    assert!(update, "new, to be written down with UPDATE=1:\n{}", added.join("\n"));
    let lines: Vec<String> = present.into_iter().collect();
    std::fs::write(FILE, lines.join("\n") + "\n").unwrap();
}

#[test]
fn the_comparison_can_fail() {
    let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_string()).collect();
    let published: BTreeSet<String> = lines(&["field a.B 001 c uint32", "message a.B"]);
    let renumbered = lines(&["field a.B 002 c uint32", "message a.B"]);
    let gone = additions(&published, &renumbered).unwrap_err();
    assert_eq!(gone, ["field a.B 001 c uint32"]);
    let grown = lines(&["field a.B 001 c uint32", "field a.B 002 d bool", "message a.B"]);
    assert_eq!(additions(&published, &grown).unwrap(), ["field a.B 002 d bool"]);
}

#[test]
fn lines_tell_types_labels_and_choices() {
    let present = present();
    for line in [
        "field yard.v1.Job 008 state yard.v1.JobState",
        "field yard.v1.Job 012 time_limit_ms optional uint64",
        "field yard.v1.Job 033 nodes_held repeated string",
        "field yard.v1.WatchResponse 002 compacted yard.v1.Compacted of what",
        "value yard.v1.JobState 000 JOB_STATE_UNSPECIFIED",
        "rpc /yard.v1.JobService/Watch (yard.v1.WatchJobsRequest) \
         returns (stream yard.v1.WatchResponse)",
    ] {
        assert!(present.contains(line), "{line}");
    }
}

#[test]
fn every_enum_begins_with_what_is_not_specified() {
    let files = descriptors().file;
    let enums: Vec<_> = files.iter().flat_map(|file| &file.enum_type).collect();
    assert!(enums.len() > 10);
    for wanted in enums {
        let first = &wanted.value[0];
        assert_eq!(first.number(), 0, "{}", wanted.name());
        assert!(first.name().ends_with("_UNSPECIFIED"), "{}", first.name());
    }
}

#[test]
fn what_changes_something_carries_a_request_id() {
    let files = descriptors().file;
    let public = crate::rpcs().into_iter().filter(crate::Rpc::is_public);
    for rpc in public {
        let name = rpc.path.rsplit('/').next().unwrap();
        let reads = READING.iter().any(|start| name.starts_with(start));
        let request = rpc.request.rsplit('.').next().unwrap();
        let mut messages = files.iter().flat_map(|file| &file.message_type);
        let message = messages.find(|message| message.name() == request).unwrap();
        let carries = message.field.iter().any(|field| field.name() == "request_id");
        let wanted = !reads && !WITHOUT_REQUEST_ID.contains(&rpc.path.as_str());
        assert_eq!(carries, wanted, "{}", rpc.path);
    }
}
