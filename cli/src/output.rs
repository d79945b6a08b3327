//! How results are written: tables for people, and forms for machines that carry a version.

use crate::failure::Failure;
use crate::text::harmless;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Version of what machines read. Fields are only ever added.
pub(crate) const API_VERSION: &str = "yard/v1";

/// A form of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// More columns
    Wide,
    /// One JSON document
    Json,
    /// One JSON object per line
    Jsonl,
    /// YAML
    Yaml,
    /// Comma-separated, with a header
    Csv,
    /// Names or ids alone, one per line
    Name,
}

/// How a cell looks on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    Busy,
    Bad,
    Dim,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Tone::Plain => "",
            Tone::Good => "\x1b[32m",
            Tone::Busy => "\x1b[36m",
            Tone::Bad => "\x1b[31m",
            Tone::Dim => "\x1b[2m",
        }
    }
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    title: Cow<'static, str>,
    wide: bool,
    right: bool,
}

/// A column that is always shown.
pub(crate) fn column(title: impl Into<Cow<'static, str>>) -> Column {
    Column { title: title.into(), wide: false, right: false }
}

impl Column {
    /// Shown with `-o wide` only.
    pub(crate) fn wide(self) -> Column {
        Column { wide: true, ..self }
    }

    /// Numbers, which end at one place.
    pub(crate) fn right(self) -> Column {
        Column { right: true, ..self }
    }
}

/// One row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Row {
    /// A text for each column.
    pub(crate) cells: Vec<String>,
    /// What machines read of it: an object.
    pub(crate) value: Value,
    /// What names it.
    pub(crate) name: String,
    /// Looks of single cells, by column.
    pub(crate) tones: Vec<(usize, Tone)>,
}

/// A list of things of one kind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Listing {
    /// What one of them is: `Job`.
    pub(crate) kind: &'static str,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
}

impl Listing {
    /// The whole, in one form. Tables carry colours: whoever writes them strips those if need be.
    pub(crate) fn render(&self, format: Format) -> String {
        match format {
            Format::Table => self.table(false),
            Format::Wide => self.table(true),
            Format::Json => {
                let items: Vec<&Value> = self.rows.iter().map(|row| &row.value).collect();
                let kind = format!("{}List", self.kind);
                pretty(&json!({ "api_version": API_VERSION, "kind": kind, "items": items }))
            }
            Format::Yaml => {
                let items: Vec<&Value> = self.rows.iter().map(|row| &row.value).collect();
                let kind = format!("{}List", self.kind);
                yaml(&json!({ "api_version": API_VERSION, "kind": kind, "items": items }))
            }
            Format::Jsonl => {
                self.rows.iter().map(|row| format!("{}\n", marked(self.kind, &row.value))).collect()
            }
            Format::Csv => self.csv(),
            Format::Name => self.rows.iter().map(|row| format!("{}\n", row.name)).collect(),
        }
    }

    fn table(&self, wide: bool) -> String {
        let shown: Vec<usize> =
            (0..self.columns.len()).filter(|at| wide || !self.columns[*at].wide).collect();
        let width = |at: &usize| {
            let cells = self.rows.iter().filter_map(|row| row.cells.get(*at));
            let widest = cells.map(|cell| one_line(cell).chars().count()).max().unwrap_or(0);
            widest.max(one_line(&self.columns[*at].title).chars().count())
        };
        let widths: Vec<usize> = shown.iter().map(width).collect();
        let mut out = String::new();
        let titles = |at: usize| (one_line(&self.columns[at].title), Tone::Dim);
        self.line(&mut out, &shown, &widths, titles);
        for row in &self.rows {
            let cell = |at: usize| {
                let tone = row.tones.iter().find(|(column, _)| *column == at);
                let text = row.cells.get(at).map_or(String::new(), |text| one_line(text));
                (text, tone.map_or(Tone::Plain, |(_, tone)| *tone))
            };
            self.line(&mut out, &shown, &widths, cell);
        }
        out
    }

    fn line(
        &self,
        out: &mut String,
        shown: &[usize],
        widths: &[usize],
        cell: impl Fn(usize) -> (String, Tone),
    ) {
        for (place, (at, width)) in shown.iter().zip(widths).enumerate() {
            let (text, tone) = cell(*at);
            let last = place + 1 == shown.len();
            let padding = " ".repeat(width.saturating_sub(text.chars().count()));
            let (before, after) = match self.columns[*at].right {
                true => (padding.as_str(), ""),
                false if last => ("", ""),
                false => ("", padding.as_str()),
            };
            let (start, end) = match tone.code() {
                "" => ("", ""),
                code => (code, "\x1b[0m"),
            };
            let gap = if last { "" } else { "  " };
            // Writing to a String never fails.
            let _ = write!(out, "{before}{start}{text}{end}{after}{gap}");
        }
        out.push('\n');
    }

    fn csv(&self) -> String {
        let titles: Vec<String> =
            self.columns.iter().map(|column| column.title.to_lowercase()).collect();
        let mut out = csv_line(&titles);
        for row in &self.rows {
            out.push_str(&csv_line(&row.cells));
        }
        out
    }
}

/// A text as a cell shows it.
fn one_line(text: &str) -> String {
    harmless(text).replace(['\n', '\t'], " ")
}

/// One thing on its own.
pub(crate) fn render_one(kind: &'static str, row: &Row, text: &str, format: Format) -> String {
    match format {
        Format::Table | Format::Wide => text.to_string(),
        Format::Json => pretty(&marked(kind, &row.value)),
        Format::Yaml => yaml(&marked(kind, &row.value)),
        Format::Jsonl => format!("{}\n", marked(kind, &row.value)),
        Format::Name => format!("{}\n", row.name),
        Format::Csv => {
            let empty = Map::new();
            let fields = row.value.as_object().unwrap_or(&empty);
            let keys: Vec<String> = fields.keys().cloned().collect();
            let flat = |value: &Value| match value {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            csv_line(&keys) + &csv_line(&fields.values().map(flat).collect::<Vec<String>>())
        }
    }
}

/// An object with version and kind.
fn marked(kind: &str, value: &Value) -> Value {
    let mut marked = value.clone();
    if let Value::Object(fields) = &mut marked {
        fields.insert("api_version".into(), API_VERSION.into());
        fields.insert("kind".into(), kind.into());
    }
    marked
}

fn pretty(value: &Value) -> String {
    // A Value always has a text.
    format!("{value:#}\n")
}

/// A line of RFC 4180.
fn csv_line(cells: &[String]) -> String {
    let cell = |text: &String| match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.clone(),
    };
    cells.iter().map(cell).collect::<Vec<String>>().join(",") + "\n"
}

/// YAML of a value. Scalars are written as in JSON, which YAML reads in one way only.
pub(crate) fn yaml(value: &Value) -> String {
    let mut out = String::new();
    yaml_into(&mut out, value, 0);
    out
}

fn yaml_into(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                let _ = write!(out, "{:indent$}{key}:", "");
                yaml_below(out, value, indent + 2);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut text = String::new();
                yaml_into(&mut text, item, indent + 2);
                let _ = write!(out, "{:indent$}- {}", "", text.trim_start());
            }
        }
        scalar => {
            let _ = writeln!(out, "{:indent$}{scalar}", "");
        }
    }
}

fn yaml_below(out: &mut String, value: &Value, indent: usize) {
    let nested = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if nested {
        out.push('\n');
        yaml_into(out, value, indent);
    } else {
        let _ = writeln!(out, " {value}");
    }
}

/// Writes results to standard output, without colours unless it is a terminal.
///
/// # Errors
/// If it cannot be written. A reader that has gone away (`| head`) is no error.
pub(crate) fn put(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::local(&error, "is the disk full?"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Says something to the user, on standard error. Nobody fails because nobody listens.
pub(crate) fn say(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{}", harmless(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> Listing {
        let row = |id: u64, name: &str, state: &str, tone| Row {
            cells: vec![id.to_string(), name.into(), state.into(), "x,\"y\"".into()],
            value: json!({ "id": id, "name": name, "tags": ["a", { "b": 1 }], "none": [] }),
            name: id.to_string(),
            tones: vec![(2, tone)],
        };
        Listing {
            kind: "Job",
            columns: vec![
                column("ID").right(),
                column("NAME"),
                column("STATE"),
                column("NOTE").wide(),
            ],
            rows: vec![
                row(8, "a", "Running", Tone::Busy),
                row(812, "llama-ft", "Failed", Tone::Bad),
            ],
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn tables_are_aligned() {
        assert_eq!(
            plain(&listing().render(Format::Table)),
            " ID  NAME      STATE\n  8  a         Running\n812  llama-ft  Failed\n"
        );
        assert!(listing().render(Format::Table).contains("\x1b[31mFailed\x1b[0m"));
        let wide = plain(&listing().render(Format::Wide));
        assert!(wide.starts_with(" ID  NAME      STATE    NOTE\n"), "{wide}");
    }

    #[test]
    fn a_cell_cannot_move_the_cursor() {
        let mut listing = listing();
        listing.rows[0].cells[1] = "a\x1b[2J\nb".into();
        let text = plain(&listing.render(Format::Table));
        assert!(text.contains("a\u{fffd}[2J b "), "{text:?}");
    }

    #[test]
    fn machines_get_a_version_and_all_fields() {
        let read: Value = serde_json::from_str(&listing().render(Format::Json)).unwrap();
        assert_eq!(read["api_version"], "yard/v1");
        assert_eq!(read["kind"], "JobList");
        assert_eq!(read["items"][1]["id"], 812);
        let lines = listing().render(Format::Jsonl);
        for line in lines.lines() {
            let read: Value = serde_json::from_str(line).unwrap();
            assert_eq!((&read["api_version"], &read["kind"]), (&"yard/v1".into(), &"Job".into()));
        }
        assert_eq!(lines.lines().count(), 2);
        assert_eq!(listing().render(Format::Name), "8\n812\n");
        assert_eq!(
            listing().render(Format::Csv),
            "id,name,state,note\n8,a,Running,\"x,\"\"y\"\"\"\n812,llama-ft,Failed,\"x,\"\"y\"\"\"\n"
        );
    }

    #[test]
    fn yaml_has_one_reading() {
        let value = json!({ "a": "no", "b": [1, { "c": null, "d": [] }, [2, 3]], "e": {} });
        assert_eq!(
            yaml(&value),
            "a: \"no\"\nb:\n  - 1\n  - c: null\n    d: []\n  - - 2\n    - 3\ne: {}\n"
        );
        let one = render_one("Job", &listing().rows[0], "", Format::Yaml);
        assert!(one.starts_with("api_version: \"yard/v1\"\nid: 8\nkind: \"Job\"\n"), "{one}");
    }
}
