//! The whole job as YAML, with a comment after each field that says where its value came from.

use super::JobSpec;
use super::json::Json;
use super::scalar::check_ambiguous;
use super::tree::{Node, Origin, Value};
use super::walk::Detail;
use std::fmt::Write;

/// The column in which comments start, when the value leaves room.
const COMMENT_COLUMN: usize = 44;
/// A list longer than this gets a line for each item.
const FLOW_CHARS_MAX: usize = 70;

pub(crate) fn whole(spec: &JobSpec, source: &Node) -> String {
    let mut out = String::new();
    if let Json::Map(fields) = spec.fields.write_record(Detail::Whole) {
        print_fields(&fields, Some(source), 0, &mut out);
    }
    out
}

fn print_fields(fields: &[(String, Json)], source: Option<&Node>, indent: usize, out: &mut String) {
    for (key, value) in fields {
        let given = source.and_then(|source| source.get(key));
        let head = format!("{:indent$}{}:", "", scalar(key));
        match (value, given.map(|node| &node.value)) {
            // A mapping that is partly given: every field says where it came from.
            (Json::Map(inner), Some(Value::Map(_))) if !inner.is_empty() => {
                out.push_str(&head);
                out.push('\n');
                print_fields(inner, given, indent + 2, out);
            }
            (Json::List(items), Some(_)) if flow(value).len() > FLOW_CHARS_MAX => {
                line(out, &head, &origin(given));
                for item in items {
                    // Never fails: a String takes everything.
                    let _ = writeln!(out, "{:indent$}  - {}", "", flow(item));
                }
            }
            _ => line(out, &format!("{head} {}", flow(value)), &origin(given)),
        }
    }
}

fn line(out: &mut String, text: &str, comment: &str) {
    let _ = writeln!(out, "{text:<COMMENT_COLUMN$}  # {comment}");
}

fn origin(given: Option<&Node>) -> String {
    let Some(node) = given else { return "default".into() };
    match &node.at.origin {
        Origin::File => format!("line {}", node.at.line),
        Origin::Directive => format!("#YARD, line {}", node.at.line),
        Origin::Flag(flag) => super::problem::shown(flag),
        Origin::Rows(file) => file.to_string(),
    }
}

/// A value on one line.
fn flow(value: &Json) -> String {
    match value {
        Json::Text(text) => scalar(text),
        Json::List(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Map(fields) if fields.is_empty() => "{}".into(),
        Json::Map(fields) => {
            let field = |(key, value): &(String, Json)| format!("{}: {}", scalar(key), flow(value));
            let fields: Vec<String> = fields.iter().map(field).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Json::Null | Json::Bool(_) | Json::Int(_) => value.to_string(),
    }
}

/// A text without quotes when every YAML reader takes it for that text.
fn scalar(text: &str) -> String {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"_-./@%+ ".contains(&b);
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
    let word = matches!(text, "null" | "none" | "true" | "false");
    let plain = starts && !word && !text.ends_with(' ') && text.bytes().all(inner);
    if plain && check_ambiguous(text).is_ok() {
        text.to_string()
    } else {
        Json::Text(text.to_string()).to_string()
    }
}
