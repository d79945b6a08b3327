//! The walker: reads typed values out of the spanned tree, and never stops at the first problem.
//!
//! A type that can stand in a job file implements [`Part`]: one function reads it from a node,
//! one writes it as JSON. `record!` and `words!` (`declare.rs`) implement it for a mapping and for
//! a closed list of words. A value that cannot be read is reported and stands in as its default
//! while the rest of the file is checked: the file is refused in any case.

use super::feature::{Feature, Features};
use super::json::Json;
use super::nearest::nearest;
use super::problem::{Issue, Problems, shown};
use super::scalar::check_ambiguous;
use super::tree::{At, Key, Node, Style, Value, place};
use crate::ErrorCode;
use crate::limits::SPEC_ENTRIES_MAX;
use std::collections::BTreeMap;

/// Something that a job file can hold.
pub(crate) trait Part: Sized + Clone + PartialEq {
    /// Items of a list of these.
    const LIST_MAX: usize = SPEC_ENTRIES_MAX;

    /// Reads it; `None` when a problem was reported instead.
    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<Self>;

    /// Writes it so that `read` gives the same value.
    fn write(&self, detail: Detail) -> Json;
}

/// A part that is one scalar.
pub(crate) trait Scalar: Sized + Clone + PartialEq {
    /// What it is, for messages: `a duration such as 90m`.
    const WHAT: &'static str;
    /// Items of a list of these.
    const LIST_MAX: usize = SPEC_ENTRIES_MAX;

    fn parse(text: &str) -> Result<Self, Issue>;

    fn print(&self) -> Json;

    /// The feature that this value needs beyond those of its field.
    fn feature(&self) -> Option<Feature> {
        None
    }
}

impl<T: Scalar> Part for T {
    const LIST_MAX: usize = <T as Scalar>::LIST_MAX;

    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<T> {
        let text = walk.text(node, T::WHAT)?;
        let value = walk.settle(node, T::parse(text))?;
        if let Some(feature) = value.feature() {
            walk.require(feature, &node.at);
        }
        Some(value)
    }

    fn write(&self, _: Detail) -> Json {
        self.print()
    }
}

/// How much is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// What differs from the default.
    Changed,
    /// Every field.
    Whole,
}

/// A step of a field's path.
#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Index(usize),
}

/// The state of a walk over one tree.
pub(crate) struct Walk<'a> {
    pub(crate) problems: Problems,
    features: &'a Features,
    path: Vec<Step>,
}

impl Walk<'_> {
    pub(crate) fn new(features: &Features, problems: Problems) -> Walk<'_> {
        Walk { problems, features, path: Vec::new() }
    }

    /// The field that is being read, as `a.b[2].c`.
    fn field(&self) -> String {
        let mut field = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) => {
                    let dot = if field.is_empty() { "" } else { "." };
                    field.push_str(&format!("{dot}{}", shown(key)));
                }
                Step::Index(index) => field.push_str(&format!("[{index}]")),
            }
        }
        field
    }

    /// The path without positions, as the table of features has it.
    fn pattern(&self) -> String {
        let keys = self.path.iter().filter_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        keys.collect::<Vec<_>>().join(".")
    }

    pub(crate) fn within<T>(&mut self, key: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Step::Key(key.to_string()));
        let result = f(self);
        self.path.pop();
        result
    }

    pub(crate) fn within_item<T>(&mut self, index: usize, f: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Step::Index(index));
        let result = f(self);
        self.path.pop();
        result
    }

    /// Reports a problem of the field that is being read.
    pub(crate) fn report(&mut self, at: &At, value: String, issue: Issue) {
        let field = self.field();
        self.problems.push(place(issue, at.clone(), field, value));
    }

    /// Reports a problem with a node as the bad value.
    pub(crate) fn refuse(&mut self, node: &Node, issue: Issue) {
        self.report(&node.at, node.shown(), issue);
    }

    /// The value, or its issue reported.
    pub(crate) fn settle<T>(&mut self, node: &Node, result: Result<T, Issue>) -> Option<T> {
        result.map_err(|issue| self.refuse(node, issue)).ok()
    }

    /// Refuses the field when the feature is not there.
    pub(crate) fn require(&mut self, feature: Feature, at: &At) {
        if let Some(issue) = self.lack(feature, "leave the field out") {
            self.report(at, String::new(), issue);
        }
    }

    /// The issue of whatever needs a feature that is not there.
    pub(crate) fn lack(&self, feature: Feature, fix: &str) -> Option<Issue> {
        let message = format!("{} are not in this version", feature.name());
        let fix = format!("{fix}, or use a version that has them");
        let issue = Issue::new(ErrorCode::NotInThisVersion, message, fix);
        (!self.features.has(feature)).then_some(issue)
    }

    /// The text of a scalar, unless YAML readers disagree on it.
    pub(crate) fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        let issue = match &node.value {
            _ if node.is_null() => wrong_type(node, what, "write a value, or leave the field out"),
            Value::Scalar(text, Style::Plain) => match check_ambiguous(text) {
                Ok(()) => return Some(text),
                Err(issue) => issue,
            },
            Value::Scalar(text, Style::Quoted | Style::Bare) => return Some(text),
            Value::List(_) | Value::Map(_) => wrong_type(node, what, "write a single value"),
        };
        self.refuse(node, issue);
        None
    }

    /// The items of a list; null is an empty one.
    pub(crate) fn items<'n>(&mut self, node: &'n Node, count_max: usize) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) if items.len() <= count_max => Some(items),
            Value::List(items) => {
                let message = format!("{} items, at most {count_max} are allowed", items.len());
                let issue = Issue::new(ErrorCode::OutOfRange, message, "shorten the list");
                self.refuse(node, issue);
                None
            }
            _ if node.is_null() => Some(&[]),
            Value::Scalar(text, _) => {
                let fix = format!("put it into brackets: [{}]", shown(text));
                self.refuse(node, wrong_type(node, "a list", &fix));
                None
            }
            Value::Map(_) => {
                self.refuse(node, wrong_type(node, "a list", "start each item with a dash"));
                None
            }
        }
    }

    /// The entries of a mapping; null is an empty one.
    pub(crate) fn entries<'n>(&mut self, node: &'n Node) -> Option<&'n [(Key, Node)]> {
        match &node.value {
            Value::Map(entries) => Some(entries),
            _ if node.is_null() => Some(&[]),
            Value::Scalar(..) | Value::List(_) => {
                let fix = "write key: value pairs, indented below, or {key: value}";
                self.refuse(node, wrong_type(node, "a mapping", fix));
                None
            }
        }
    }

    pub(crate) fn map<'n>(&mut self, node: &'n Node) -> Option<MapView<'n>> {
        let entries = self.entries(node)?;
        Some(MapView { at: &node.at, entries, known: Vec::new() })
    }
}

pub(crate) fn wrong_type(node: &Node, what: &str, fix: &str) -> Issue {
    Issue::new(ErrorCode::WrongType, format!("this is {}, not {what}", node.kind()), fix)
}

/// A mapping whose keys are taken one by one; what was not taken is unknown.
pub(crate) struct MapView<'n> {
    pub(crate) at: &'n At,
    entries: &'n [(Key, Node)],
    known: Vec<&'static str>,
}

impl<'n> MapView<'n> {
    /// Whether the file has the key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node)
    }

    /// The value of a field, or its default.
    pub(crate) fn field<T: Part>(
        &mut self,
        walk: &mut Walk<'_>,
        key: &'static str,
        default: T,
    ) -> T {
        self.known.push(key);
        let Some(node) = self.get(key) else { return default };
        walk.within(key, |walk| {
            let Some(value) = T::read(node, walk) else { return default };
            if value != default {
                let features = Features::of_field(&walk.pattern(), || value.write(Detail::Changed));
                for feature in features {
                    walk.require(feature, &node.at);
                }
            }
            value
        })
    }

    /// The value of a field that must be there.
    pub(crate) fn required<T: Part>(
        &mut self,
        walk: &mut Walk<'_>,
        key: &'static str,
    ) -> Option<T> {
        self.known.push(key);
        walk.within(key, |walk| match self.get(key) {
            Some(node) => T::read(node, walk),
            None => {
                let issue =
                    Issue::new(ErrorCode::FieldMissing, "this field is required", "write it");
                walk.report(self.at, String::new(), issue);
                None
            }
        })
    }

    /// Reports the keys that nobody took. `$schema` and `x-...` are free at the top.
    pub(crate) fn finish(&self, walk: &mut Walk<'_>) {
        let top = walk.path.is_empty();
        for (key, node) in self.entries {
            let text = key.text.as_str();
            let extension = top && (text == "$schema" || text.starts_with("x-"));
            if self.known.contains(&text) || extension {
                continue;
            }
            // A suggestion takes time, and a file can have a million unknown keys.
            if walk.problems.is_full() {
                walk.problems.count_more();
                continue;
            }
            let issue = self.unknown(text, top);
            walk.within(text, |walk| walk.report(&key.at, node.shown(), issue));
        }
    }

    fn unknown(&self, key: &str, top: bool) -> Issue {
        let inner = |inner: &(&str, &'static str)| top && inner.0 == key;
        let inner = INNER_FIELDS.iter().find(|field| inner(field)).map(|(_, path)| *path);
        let found = inner.or_else(|| nearest(key, self.known.iter().copied()));
        let fix = match found {
            Some(found) => format!("write {found}"),
            None if self.known.len() <= 12 => {
                format!("remove it; known here are {}", self.known.join(", "))
            }
            None => "remove it; `yard schema` lists all fields".into(),
        };
        Issue::new(ErrorCode::UnknownField, "there is no such field", fix)
            .nearest(found.map(str::to_string))
    }
}

/// Fields that people expect at the top of the file, and where they are.
const INNER_FIELDS: [(&str, &str); 12] = [
    ("gpus", "resources.gpus"),
    ("gpu", "resources.gpus"),
    ("cpus", "resources.cpus"),
    ("cpu", "resources.cpus"),
    ("memory", "resources.memory"),
    ("mem", "resources.memory"),
    ("mig", "resources.mig"),
    ("disk", "resources.disk"),
    ("retries", "retry.user"),
    ("grace", "stop.grace"),
    ("signal", "stop.signal"),
    ("backoff", "retry.backoff"),
];

impl<T: Part> Part for Option<T> {
    /// Null or `none` is nothing.
    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<Option<T>> {
        let none = matches!(
            &node.value,
            Value::Scalar(text, Style::Plain | Style::Bare) if text == "none"
        );
        if node.is_null() || none { Some(None) } else { T::read(node, walk).map(Some) }
    }

    fn write(&self, detail: Detail) -> Json {
        self.as_ref().map_or(Json::Null, |value| value.write(detail))
    }
}

impl<T: Part> Part for Vec<T> {
    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<Vec<T>> {
        let items = walk.items(node, T::LIST_MAX)?;
        let mut list = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            list.extend(walk.within_item(index, |walk| T::read(item, walk)));
        }
        // A list that lost an item would be another list, with other positions.
        (list.len() == items.len()).then_some(list)
    }

    fn write(&self, detail: Detail) -> Json {
        Json::List(self.iter().map(|item| item.write(detail)).collect())
    }
}

/// A key that the user chooses: a variable, a label, an id.
pub(crate) trait UserKey: Scalar + Ord {
    /// Entries of a mapping with such keys.
    const MAP_MAX: usize = SPEC_ENTRIES_MAX;

    fn as_str(&self) -> &str;
}

/// Reads a mapping with keys of the user's choice.
pub(crate) fn read_entries<K: UserKey, V: Part>(
    node: &Node,
    walk: &mut Walk<'_>,
) -> Option<Vec<(K, V)>> {
    let entries = walk.entries(node)?;
    if entries.len() > K::MAP_MAX {
        let message = format!("{} entries, at most {} are allowed", entries.len(), K::MAP_MAX);
        let issue = Issue::new(ErrorCode::OutOfRange, message, "remove some");
        walk.refuse(node, issue);
        return None;
    }
    let mut list = Vec::with_capacity(entries.len());
    for (key, node) in entries {
        walk.within(&key.text, |walk| {
            let name = K::parse(&key.text);
            let name = name.map_err(|issue| walk.report(&key.at, shown(&key.text), issue)).ok();
            let value = V::read(node, walk);
            list.extend(name.zip(value));
        });
    }
    Some(list)
}

impl<K: UserKey, V: Part> Part for BTreeMap<K, V> {
    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<BTreeMap<K, V>> {
        read_entries(node, walk).map(|entries| entries.into_iter().collect())
    }

    fn write(&self, detail: Detail) -> Json {
        let entry = |(key, value): (&K, &V)| (key.as_str().to_string(), value.write(detail));
        Json::Map(self.iter().map(entry).collect())
    }
}

/// A scalar as a mapping that has only this field, for fields with a short form.
pub(crate) fn long_form(node: &Node, key: &str) -> Node {
    let key = Key { text: key.into(), at: node.at.clone() };
    Node { value: Value::Map(vec![(key, node.clone())]), at: node.at.clone() }
}
