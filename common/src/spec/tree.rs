//! The spanned tree: a job file as scalars, lists and mappings, each with the place it came from.
//!
//! The tree holds texts, not numbers or booleans: what a text means is decided by the field that
//! reads it. Bytes, depth and nodes are bounded, and the tree is built without recursion.
//! Anchors, aliases, tags, merge keys and further documents are refused: they make a file mean
//! something that its reader does not see.

use super::problem::{Issue, Problem, Problems, shown};
use crate::ErrorCode;
use crate::limits::{JOB_FILE_BYTES_MAX, JOB_FILE_DEPTH_MAX, JOB_FILE_NODES_MAX};
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The job file.
    File,
    /// A `#YARD` line of a script.
    Directive,
    /// A command-line flag, by name.
    Flag(Arc<str>),
    /// A file of parameters, by name.
    Rows(Arc<str>),
}

/// A place in the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// From 1; 0 when the place is no line of a file.
    pub line: u32,
    /// In characters from 1; 0 when the place is no line of a file.
    pub column: u32,
    /// Which input.
    pub origin: Origin,
}

impl At {
    /// The file as a whole.
    pub(crate) const NOWHERE: At = At { line: 0, column: 0, origin: Origin::File };

    /// A key that sorts places in the order in which people read them.
    pub(crate) fn order(&self) -> (Origin, u32, u32) {
        (self.origin.clone(), self.line, self.column)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Flag(flag) => f.write_str(&shown(flag)),
            Origin::Rows(file) if self.line == 0 => f.write_str(file),
            Origin::Rows(file) if self.column == 0 => write!(f, "{file}:{}", self.line),
            Origin::Rows(file) => write!(f, "{file}:{}:{}", self.line, self.column),
            Origin::File | Origin::Directive if self.line == 0 => f.write_str("file"),
            Origin::File | Origin::Directive => write!(f, "{}:{}", self.line, self.column),
        }
    }
}

/// How a scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without quotes: YAML readers guess its type.
    Plain,
    /// In quotes or as a block: a text.
    Quoted,
    /// On a command line, where nobody guesses.
    Bare,
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Where it starts.
    pub at: At,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text and how it was written.
    Scalar(String, Style),
    /// Values in order.
    List(Vec<Node>),
    /// Entries in order; no key twice.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub text: String,
    /// Where it starts.
    pub at: At,
}

impl Node {
    /// A mapping without entries.
    #[must_use]
    pub fn empty_map() -> Node {
        Node { value: Value::Map(Vec::new()), at: At::NOWHERE }
    }

    /// Whether this is YAML's null: nothing, `~` or `null`, without quotes.
    #[must_use]
    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar(text, Style::Plain) => matches!(text.as_str(), "" | "~" | "null"),
            Value::Scalar(text, Style::Bare) => text == "null",
            Value::Scalar(_, Style::Quoted) | Value::List(_) | Value::Map(_) => false,
        }
    }

    /// The kind of value in words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar(..) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// The value as it is shown in a problem.
    #[must_use]
    pub fn shown(&self) -> String {
        match &self.value {
            Value::Scalar(text, Style::Quoted) => format!("\"{}\"", shown(text)),
            Value::Scalar(text, Style::Plain | Style::Bare) => shown(text),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Map(entries) => format!("a mapping of {}", entries.len()),
        }
    }

    /// The value of a key, when this is a mapping that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k.text == key).map(|(_, n)| n),
            Value::Scalar(..) | Value::List(_) => None,
        }
    }
}

/// Reads YAML. `None`: nothing can be said about its content. A file without any value is an
/// empty mapping.
pub(crate) fn parse_yaml(text: &str, origin: &Origin, problems: &mut Problems) -> Option<Node> {
    let mut builder = Builder { origin, problems, open: Vec::new(), root: None, nodes: 0 };
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                let at = builder.at(&Span::empty(*error.marker()));
                let fix = "correct the text at this place; indentation is by spaces";
                builder.problem(ErrorCode::Syntax, at, error.info(), fix);
                return None;
            }
        };
        match builder.event(event, &span, &mut documents) {
            Step::Next => {}
            Step::Done => break,
            Step::Hopeless => return None,
        }
    }
    Some(builder.root.unwrap_or_else(Node::empty_map))
}

/// Bytes as text within the bounds, without a byte-order mark.
pub(crate) fn decode<'a>(bytes: &'a [u8], problems: &mut Problems) -> Option<&'a str> {
    let mut refuse = |code, line: usize, message: String, fix: &str| {
        let at = At { line: line as u32, column: u32::from(line > 0), origin: Origin::File };
        problems.push(place(Issue::new(code, message, fix), at, String::new(), String::new()));
    };
    if bytes.len() > JOB_FILE_BYTES_MAX {
        let message = format!("{} bytes, at most {JOB_FILE_BYTES_MAX} are read", bytes.len());
        refuse(ErrorCode::FileTooLarge, 0, message, "put data into files of their own");
        return None;
    }
    let line_of = |end: usize| bytes[..end].iter().filter(|b| **b == b'\n').count() + 1;
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let line = line_of(error.valid_up_to());
            let message = "the file is not UTF-8 here".into();
            refuse(ErrorCode::Syntax, line, message, "save the file as UTF-8");
            return None;
        }
    };
    let control = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    if let Some((position, c)) = text.char_indices().find(|(_, c)| control(*c)) {
        let line = text[..position].matches('\n').count() + 1;
        let message = format!("the control character {} stands here", shown(&c.to_string()));
        refuse(ErrorCode::Syntax, line, message, "remove it, or write it as an escape in quotes");
        return None;
    }
    Some(text)
}

/// An issue made a problem.
pub(crate) fn place(issue: Issue, at: At, field: String, value: String) -> Problem {
    let Issue { code, message, nearest, fix } = issue;
    Problem { code, at, field, value, message, nearest, fix }
}

/// A list or mapping whose end was not seen yet.
enum Open {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, seen: BTreeSet<String>, key: Option<Key> },
}

enum Step {
    Next,
    Done,
    Hopeless,
}

struct Builder<'a> {
    origin: &'a Origin,
    problems: &'a mut Problems,
    open: Vec<(Open, At)>,
    root: Option<Node>,
    nodes: usize,
}

impl Builder<'_> {
    fn at(&self, span: &Span) -> At {
        match self.origin {
            Origin::File | Origin::Directive => At {
                line: span.start.line() as u32,
                column: span.start.col() as u32 + 1,
                origin: self.origin.clone(),
            },
            Origin::Flag(_) | Origin::Rows(_) => {
                At { line: 0, column: 0, origin: self.origin.clone() }
            }
        }
    }

    /// The field that is being read, as `a.b[2].c`.
    fn path(&self) -> String {
        let mut path = String::new();
        for (open, _) in &self.open {
            match open {
                Open::List(items) => path.push_str(&format!("[{}]", items.len())),
                Open::Map { key: Some(key), .. } => {
                    let dot = if path.is_empty() { "" } else { "." };
                    path.push_str(&format!("{dot}{}", shown(&key.text)));
                }
                Open::Map { key: None, .. } => {}
            }
        }
        path
    }

    fn problem(&mut self, code: ErrorCode, at: At, message: &str, fix: &str) {
        let field = self.path();
        self.problems.push(place(Issue::new(code, message, fix), at, field, String::new()));
    }

    fn event(&mut self, event: Event<'_>, span: &Span, documents: &mut u32) -> Step {
        let at = self.at(span);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) => {
                *documents += 1;
                if *documents > 1 {
                    let fix = "one job per file: split it at the line ---";
                    self.problem(ErrorCode::Syntax, at, "a second document starts here", fix);
                    return Step::Done;
                }
            }
            Event::Alias(_) => {
                let fix = "write the value out again";
                self.problem(ErrorCode::Syntax, at.clone(), "aliases are not read", fix);
                let value = Value::Scalar(String::new(), Style::Plain);
                return self.value(Node { value, at });
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_marks(anchor, tag.is_some(), &at);
                let style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::SingleQuoted
                    | ScalarStyle::DoubleQuoted
                    | ScalarStyle::Literal
                    | ScalarStyle::Folded => Style::Quoted,
                };
                return self.value(Node { value: Value::Scalar(text.into_owned(), style), at });
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_marks(anchor, tag.is_some(), &at);
                return self.open(Open::List(Vec::new()), at);
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_marks(anchor, tag.is_some(), &at);
                let map = Open::Map { entries: Vec::new(), seen: BTreeSet::new(), key: None };
                return self.open(map, at);
            }
            Event::SequenceEnd | Event::MappingEnd => return self.close(),
        }
        Step::Next
    }

    fn refuse_marks(&mut self, anchor: usize, tag: bool, at: &At) {
        if anchor != 0 {
            let fix = "write the value out where it is needed";
            self.problem(ErrorCode::Syntax, at.clone(), "anchors are not read", fix);
        }
        if tag {
            let fix = "leave the tag out; use quotes for a text";
            self.problem(ErrorCode::Syntax, at.clone(), "tags are not read", fix);
        }
    }

    fn open(&mut self, open: Open, at: At) -> Step {
        if let Some((Open::Map { key: None, .. }, _)) = self.open.last() {
            let message = "a list or mapping stands where a key is expected";
            self.problem(ErrorCode::Syntax, at, message, "write a plain word as the key");
            return Step::Hopeless;
        }
        if self.open.len() == JOB_FILE_DEPTH_MAX {
            let message = format!("deeper than {JOB_FILE_DEPTH_MAX} levels");
            let fix = "no field is that deep; check the brackets and the indentation";
            self.problem(ErrorCode::FileTooLarge, at, &message, fix);
            return Step::Hopeless;
        }
        self.open.push((open, at));
        Step::Next
    }

    fn close(&mut self) -> Step {
        let Some((open, at)) = self.open.pop() else { return Step::Hopeless };
        let value = match open {
            Open::List(items) => Value::List(items),
            Open::Map { entries, .. } => Value::Map(entries),
        };
        self.value(Node { value, at })
    }

    /// Takes a finished value: a key, an entry, an item, or the whole file.
    fn value(&mut self, node: Node) -> Step {
        self.nodes += 1;
        if self.nodes > JOB_FILE_NODES_MAX {
            let message = format!("more than {JOB_FILE_NODES_MAX} values");
            let fix = "put data into files of their own, such as array.each";
            self.problem(ErrorCode::FileTooLarge, node.at, &message, fix);
            return Step::Hopeless;
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some((Open::List(items), _)) => items.push(node),
            Some((Open::Map { key: key @ None, .. }, _)) => {
                if let Value::Scalar(text, _) = node.value {
                    *key = Some(Key { text, at: node.at });
                }
            }
            Some((Open::Map { entries, seen, key: key @ Some(_) }, _)) => {
                // The arm has a key; taking it readies the mapping for the next one.
                let Some(key) = key.take() else { return Step::Hopeless };
                if key.text == "<<" {
                    let fix = "write the merged fields out";
                    self.problem(ErrorCode::Syntax, key.at, "merge keys are not read", fix);
                } else if seen.insert(key.text.clone()) {
                    entries.push((key, node));
                } else {
                    self.duplicate(key, &node);
                }
            }
        }
        Step::Next
    }

    fn duplicate(&mut self, key: Key, second: &Node) {
        let path = self.path();
        let dot = if path.is_empty() { "" } else { "." };
        let field = format!("{path}{dot}{}", shown(&key.text));
        self.problems.push(duplicate_key(key.at, field, second));
    }
}

/// The problem of a key that stands twice.
pub(crate) fn duplicate_key(at: At, field: String, second: &Node) -> Problem {
    let issue = Issue::new(
        ErrorCode::DuplicateKey,
        "the same key stands above already",
        "keep one of the two",
    );
    place(issue, at, field, second.shown())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(text: &str) -> (Option<Node>, Problems) {
        let mut problems = Problems::default();
        let node = parse_yaml(text, &Origin::File, &mut problems);
        (node, problems)
    }

    #[test]
    fn values_keep_their_place_and_style() {
        let (node, problems) = yaml("a: 1\nb:\n  - 'x'\n  - {c: y}\n");
        assert!(problems.is_empty());
        let node = node.unwrap();
        let b = node.get("b").unwrap();
        let Value::List(items) = &b.value else { panic!("{b:?}") };
        assert_eq!(items[0].value, Value::Scalar("x".into(), Style::Quoted));
        assert_eq!((items[0].at.line, items[0].at.column), (3, 5));
        assert_eq!(items[1].get("c").unwrap().value, Value::Scalar("y".into(), Style::Plain));
    }

    #[test]
    fn what_hides_meaning_is_refused() {
        for (text, message) in [
            ("a: &x 1\nb: *x", "anchors are not read"),
            ("a: &x 1\nb: *x", "aliases are not read"),
            ("a: !!str 1", "tags are not read"),
            ("<<: {a: 1}", "merge keys are not read"),
            ("a: 1\n---\nb: 2", "a second document starts here"),
            ("{[a]: 1}", "a list or mapping stands where a key is expected"),
            ("a: 1\na: 2", "the same key stands above already"),
        ] {
            let (_, problems) = yaml(text);
            assert!(problems.list().iter().any(|p| p.message == message), "{text}: {problems}");
        }
    }

    #[test]
    fn depth_and_nodes_are_bounded() {
        for text in [
            "[".repeat(100),
            "- ".repeat(10_000),
            "{a: ".repeat(50),
            format!("[{}]", "1,".repeat(JOB_FILE_NODES_MAX + 1)),
        ] {
            let (node, problems) = yaml(&text);
            assert!(node.is_none());
            assert_eq!(problems.list().last().unwrap().code, ErrorCode::FileTooLarge);
        }
    }

    #[test]
    fn a_duplicate_names_its_field() {
        let (_, problems) = yaml("r:\n  gpus: 1\n  gpus: 2\n");
        let problem = &problems.list()[0];
        assert_eq!((problem.field.as_str(), problem.at.line), ("r.gpus", 3));
    }

    #[test]
    fn bytes_that_are_no_text_name_their_line() {
        let mut problems = Problems::default();
        assert!(decode(b"a: 1\nb: \xff", &mut problems).is_none());
        assert!(decode(b"a: 1\nb: \x1b", &mut problems).is_none());
        assert!(decode(&vec![b' '; JOB_FILE_BYTES_MAX + 1], &mut problems).is_none());
        let lines: Vec<_> = problems.list().iter().map(|p| p.at.line).collect();
        assert_eq!(lines, [2, 2, 0]);
        assert_eq!(decode("\u{feff}a: 1".as_bytes(), &mut problems), Some("a: 1"));
    }
}
