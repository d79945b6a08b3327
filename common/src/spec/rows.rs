//! Files of parameters: JSON lines, or CSV with a header, as the rows of `array.each`.

use super::json::parse_json;
use super::problem::{Issue, Problems, shown};
use super::tree::{At, Key, Node, Origin, Style, Value, decode, place};
use crate::ErrorCode;
use crate::limits::EACH_ROWS_MAX;
use std::sync::Arc;

/// The rows of a file, as far as they can be read. What is wrong is told with its line.
pub(crate) fn read(bytes: &[u8], file: &str, problems: &mut Problems) -> Vec<Node> {
    let mut reader = Rows { file: shown(file).into(), problems, rows: Vec::new(), too_many: false };
    let mut found = Problems::default();
    let text = decode(bytes, &mut found);
    reader.adopt(&found, |at| at.clone());
    if let Some(text) = text {
        match is_csv(file, text) {
            true => reader.csv(text),
            false => reader.json_lines(text),
        }
        if reader.rows.is_empty() && reader.problems.is_empty() {
            reader.refuse(0, 0, "the file has no row", "write a row of parameters for each task");
        }
    }
    reader.rows
}

/// By the name, else by how it begins.
fn is_csv(file: &str, text: &str) -> bool {
    match file.rsplit_once('.').map(|(_, extension)| extension) {
        Some("csv") => true,
        Some("jsonl" | "ndjson" | "json") => false,
        _ => !text.trim_start().starts_with('{'),
    }
}

struct Rows<'a> {
    file: Arc<str>,
    problems: &'a mut Problems,
    rows: Vec<Node>,
    too_many: bool,
}

impl Rows<'_> {
    fn at(&self, line: u32, column: u32) -> At {
        At { line, column, origin: Origin::Rows(self.file.clone()) }
    }

    fn refuse(&mut self, line: u32, column: u32, message: &str, fix: &str) {
        let issue = Issue::new(ErrorCode::Syntax, message, fix);
        let at = self.at(line, column);
        self.problems.push(place(issue, at, String::new(), String::new()));
    }

    /// Takes over the problems of a part of the file.
    fn adopt(&mut self, found: &Problems, line: impl Fn(&At) -> At) {
        for problem in found.list() {
            let At { line, column, .. } = line(&problem.at);
            self.problems
                .push(super::problem::Problem { at: self.at(line, column), ..problem.clone() });
        }
    }

    /// Adds a row; one too many stands for all that follow, and is refused as such later.
    fn add(&mut self, row: Node) -> bool {
        self.rows.push(row);
        self.too_many = self.rows.len() > EACH_ROWS_MAX;
        !self.too_many
    }

    fn json_lines(&mut self, text: &str) {
        let mut number = 0;
        for line in text.lines() {
            number += 1;
            if line.trim().is_empty() {
                continue;
            }
            let mut found = Problems::default();
            let node = parse_json(line, &mut found);
            self.adopt(&found, |at| At { line: number, ..at.clone() });
            if let Some(node) = node {
                let node = self.placed(node, number);
                if !self.add(node) {
                    return;
                }
            }
        }
    }

    /// The node, with all of its places in this file.
    fn placed(&self, node: Node, line: u32) -> Node {
        let at = self.at(line, node.at.column);
        let value = match node.value {
            Value::Map(entries) => {
                let entry = |(key, value): (Key, Node)| {
                    let at = self.at(line, key.at.column);
                    (Key { text: key.text, at }, self.placed(value, line))
                };
                Value::Map(entries.into_iter().map(entry).collect())
            }
            // Nothing that a row may hold: it is refused as a whole.
            other @ (Value::List(_) | Value::Scalar(..)) => other,
        };
        Node { value, at }
    }

    fn csv(&mut self, text: &str) {
        let mut records = Records { text, line: 1 };
        let mut header: Option<Vec<Field>> = None;
        while let Some(record) = records.next_record() {
            let (line, fields) = match record {
                Ok(record) => record,
                Err((line, message)) => {
                    let fix = "put a value with a comma, quote or line break into double quotes, \
                        and write a quote in it twice";
                    return self.refuse(line, 0, message, fix);
                }
            };
            match &header {
                None => header = self.header(line, fields),
                Some(names) if names.len() == fields.len() => {
                    let entry = |(name, field): (&Field, Field)| {
                        let key = Key { text: name.text.clone(), at: self.at(line, field.column) };
                        let value = Value::Scalar(field.text, Style::Quoted);
                        (key, Node { value, at: self.at(line, field.column) })
                    };
                    let entries = names.iter().zip(fields).map(entry).collect();
                    let row = Node { value: Value::Map(entries), at: self.at(line, 1) };
                    if !self.add(row) {
                        return;
                    }
                }
                Some(names) => {
                    let message =
                        format!("{} values, and the header names {}", fields.len(), names.len());
                    self.refuse(line, 0, &message, "write a value for each column");
                }
            }
            if header.is_none() {
                return;
            }
        }
    }

    /// The names of the columns; none if two are alike, as no row would have a meaning then.
    fn header(&mut self, line: u32, fields: Vec<Field>) -> Option<Vec<Field>> {
        for (index, field) in fields.iter().enumerate() {
            if fields[..index].iter().any(|before| before.text == field.text) {
                let message = format!("two columns are called {}", shown(&field.text));
                self.refuse(line, field.column, &message, "rename one");
                return None;
            }
        }
        Some(fields)
    }
}

struct Field {
    text: String,
    column: u32,
}

/// The records of a CSV text (RFC 4180). Blank lines are none.
struct Records<'a> {
    text: &'a str,
    line: u32,
}

/// A record with its line, or what is wrong in which line; then nothing can be said of the rest.
type Record = Result<(u32, Vec<Field>), (u32, &'static str)>;

impl Records<'_> {
    fn next_record(&mut self) -> Option<Record> {
        while let Some(rest) =
            self.text.strip_prefix("\r\n").or_else(|| self.text.strip_prefix('\n'))
        {
            self.text = rest;
            self.line += 1;
        }
        if self.text.is_empty() {
            return None;
        }
        let (line, whole) = (self.line, self.text);
        let mut fields = Vec::new();
        loop {
            // Of a record over several lines, columns count on from its first.
            let before = &whole[..whole.len() - self.text.len()];
            let column = before.chars().count() as u32 + 1;
            let text = match self.field() {
                Ok(text) => text,
                Err(message) => return Some(Err((self.line, message))),
            };
            fields.push(Field { text, column });
            if let Some(rest) = self.text.strip_prefix(',') {
                self.text = rest;
                continue;
            }
            if !self.text.is_empty() {
                // The field ended at a line break.
                let rest = self.text.strip_prefix("\r\n").unwrap_or(self.text);
                self.text = rest.strip_prefix('\n').unwrap_or(rest);
                self.line += 1;
            }
            return Some(Ok((line, fields)));
        }
    }

    fn field(&mut self) -> Result<String, &'static str> {
        let Some(mut rest) = self.text.strip_prefix('"') else {
            let end = self.text.find([',', '\n']).unwrap_or(self.text.len());
            let (field, rest) = self.text.split_at(end);
            let field = if rest.starts_with(',') {
                field
            } else {
                field.strip_suffix('\r').unwrap_or(field)
            };
            if field.contains('"') {
                return Err("a quote stands inside a value without quotes");
            }
            self.text = rest;
            return Ok(field.to_string());
        };
        let mut out = String::new();
        loop {
            let Some((part, after)) = rest.split_once('"') else {
                return Err("the quote is not closed");
            };
            out.push_str(part);
            if let Some(after) = after.strip_prefix('"') {
                out.push('"');
                rest = after;
                continue;
            }
            self.line += out.matches('\n').count() as u32;
            self.text = after;
            let ends = after.is_empty() || after.starts_with([',', '\n']);
            let ends = ends || after.starts_with("\r\n");
            return if ends { Ok(out) } else { Err("something follows the closing quote") };
        }
    }
}
