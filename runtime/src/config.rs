//! Configuration files of the daemons: TOML, read key by key.
//!
//! A reader asks for each key with its type, default and range. Every problem of a file is told
//! at once, with place, value and fix. A key that nobody asked for is refused, with the nearest
//! one that exists: a misspelt setting that is silently ignored costs a night.
//!
//! ```
//! let text = "listen = \"127.0.0.1:7100\"\n[lease]\nretries = 4\n";
//! let settings = yard_runtime::config::parse(text, "yard.toml", |root| {
//!     let listen = root.required::<std::net::SocketAddr>("listen", "\"0.0.0.0:7100\"");
//!     let retries = root.section("lease", |lease| lease.number("retries", 3, 0..=10));
//!     Some((listen?, retries))
//! });
//! assert_eq!(settings.unwrap(), ("127.0.0.1:7100".parse().unwrap(), 4));
//! ```
//!
//! The same reader says which settings there are ([`settings`]), from which [`template`] makes a
//! file for people: so no list of settings is kept apart from the code that reads them.

mod template;

pub use template::{Setting, template};

use crate::files::{self, FileError};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use yard_common::ErrorCode;
use yard_common::limits::{CONFIG_FILE_BYTES_MAX, CONFIG_PROBLEMS_MAX};
use yard_common::spec::problem::{Problem, shown};
use yard_common::spec::tree::{At, Origin};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration")]
    File(#[from] FileError),
    /// The file is no TOML.
    #[error("{file}:{line}:{column}: {message}")]
    Syntax {
        /// Name of the file.
        file: String,
        /// Line, from 1.
        line: u32,
        /// Column, from 1.
        column: u32,
        /// What is wrong.
        message: String,
    },
    /// Values are wrong, or keys unknown.
    #[error("{}", listed(.file, .problems))]
    Problems {
        /// Name of the file.
        file: String,
        /// All that is wrong, at most `CONFIG_PROBLEMS_MAX`.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// What is wrong with single values.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            ConfigError::Problems { problems, .. } => problems,
            ConfigError::File(_) | ConfigError::Syntax { .. } => &[],
        }
    }
}

fn listed(file: &str, problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|one| format!("{file}:{one}")).collect();
    lines.join("\n")
}

/// Reads a file. `build` asks for every key and returns `None` only if a required one was missing.
///
/// # Errors
/// If the file cannot be read, or has problems.
pub fn read<T>(
    path: &Path,
    build: impl FnOnce(&mut Section<'_>) -> Option<T>,
) -> Result<T, ConfigError> {
    let text = files::read_text(path, CONFIG_FILE_BYTES_MAX)?;
    parse(&text, &path.display().to_string(), build)
}

/// Reads a text, as [`read`] does. `file` is its name in messages.
///
/// # Errors
/// If it has problems.
pub fn parse<T>(
    text: &str,
    file: &str,
    build: impl FnOnce(&mut Section<'_>) -> Option<T>,
) -> Result<T, ConfigError> {
    let table = DeTable::parse(text).map_err(|error| {
        let at = place(text, error.span().map_or(0, |span| span.start));
        let message = error.message().to_string();
        ConfigError::Syntax { file: file.into(), line: at.line, column: at.column, message }
    })?;
    let (mut problems, mut settings) = (Vec::new(), Vec::new());
    let mut root = Section {
        text,
        table: Some(table.get_ref()),
        start: 0,
        prefix: String::new(),
        asked: Vec::new(),
        about: "",
        settings: &mut settings,
        problems: &mut problems,
    };
    let built = build(&mut root);
    root.refuse_unknown();
    if !problems.is_empty() {
        problems.sort_by_key(|problem| (problem.at.line, problem.at.column));
        return Err(ConfigError::Problems { file: file.into(), problems });
    }
    Ok(built.expect("a builder gives up only where a key is missing, and that is a problem"))
}

/// Every setting that a reader asks for, in its order, with its default. Tables with names of the
/// user's are left out.
pub fn settings<T>(build: impl FnOnce(&mut Section<'_>) -> T) -> Vec<Setting> {
    let (mut problems, mut settings) = (Vec::new(), Vec::new());
    let mut root = Section {
        text: "",
        table: None,
        start: 0,
        prefix: String::new(),
        asked: Vec::new(),
        about: "",
        settings: &mut settings,
        problems: &mut problems,
    };
    // What it makes of nothing is of no interest, nor which keys it misses.
    let _ = build(&mut root);
    settings
}

fn place(text: &str, offset: usize) -> At {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    At { line: number(line), column: number(column), origin: Origin::File }
}

/// A table of the file, or one that is not there and has its defaults.
#[derive(Debug)]
pub struct Section<'a> {
    text: &'a str,
    table: Option<&'a DeTable<'a>>,
    /// Where it begins: the place of what is missing.
    start: usize,
    prefix: String,
    asked: Vec<&'static str>,
    /// What the next key is for.
    about: &'static str,
    settings: &'a mut Vec<Setting>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Section<'a> {
    /// A table below this one.
    fn below<'b>(
        &'b mut self,
        name: &str,
        table: Option<&'b DeTable<'a>>,
        start: usize,
    ) -> Section<'b> {
        let prefix = format!("{}{name}.", self.prefix);
        let (text, problems) = (self.text, &mut *self.problems);
        let settings = &mut *self.settings;
        Section { text, table, start, prefix, asked: Vec::new(), about: "", settings, problems }
    }

    /// Says what the key is for that is asked for next.
    pub fn about(&mut self, about: &'static str) -> &mut Section<'a> {
        self.about = about;
        self
    }

    /// Takes down that there is such a setting; `default` is TOML.
    fn note(&mut self, key: &str, what: &str, default: Option<String>) {
        let about = std::mem::take(&mut self.about);
        let key = format!("{}{key}", self.prefix);
        self.settings.push(Setting { key, about, what: what.into(), default });
    }

    /// A value that is read from a string; `default` when the key is not there. `what` says what
    /// a good value is, with an example.
    pub fn value<T: FromStr<Err: Display> + Display>(
        &mut self,
        key: &'static str,
        default: T,
        what: &str,
    ) -> T {
        self.note(key, what, Some(template::quoted(&default.to_string())));
        self.found(key, what).unwrap_or(default)
    }

    /// A value that is read from a string, if the key is there.
    pub fn optional<T: FromStr<Err: Display>>(
        &mut self,
        key: &'static str,
        what: &str,
    ) -> Option<T> {
        self.note(key, what, None);
        self.found(key, what)
    }

    fn found<T: FromStr<Err: Display>>(&mut self, key: &'static str, what: &str) -> Option<T> {
        let value = self.take(key)?;
        self.text_of(key, value, what)
    }

    /// A value that is read from a string, and must be there.
    pub fn required<T: FromStr<Err: Display>>(
        &mut self,
        key: &'static str,
        what: &str,
    ) -> Option<T> {
        self.note(key, what, None);
        if self.table.is_none_or(|table| !table.contains_key(key)) {
            self.asked.push(key);
            let at = place(self.text, self.start);
            let fix = format!("add {key} = {what}");
            self.complain(ErrorCode::FieldMissing, at, key, "", "it must be given", &fix);
            return None;
        }
        self.found(key, what)
    }

    /// A path; a relative one starts at the folder of the process.
    pub fn path(&mut self, key: &'static str, default: &Path) -> PathBuf {
        let what = "a path";
        self.note(key, what, Some(template::quoted(&default.display().to_string())));
        self.found(key, what).unwrap_or_else(|| default.to_path_buf())
    }

    /// A list of values that are read from strings.
    pub fn list<T: FromStr<Err: Display>>(
        &mut self,
        key: &'static str,
        count_max: usize,
        what: &str,
    ) -> Vec<T> {
        self.note(key, &format!("a list of {what}"), Some("[]".into()));
        self.entries(key, count_max, what).unwrap_or_default()
    }

    /// A list of values that are read from strings, which is not empty unless it is said to be.
    pub fn list_or<T: FromStr<Err: Display> + Display>(
        &mut self,
        key: &'static str,
        default: Vec<T>,
        count_max: usize,
        what: &str,
    ) -> Vec<T> {
        let entries: Vec<_> = default.iter().map(|entry| format!("\"{entry}\"")).collect();
        let entries = format!("[{}]", entries.join(", "));
        self.note(key, &format!("a list of {what}"), Some(entries));
        self.entries(key, count_max, what).unwrap_or(default)
    }

    /// What is in a list; none: it is not there.
    fn entries<T: FromStr<Err: Display>>(
        &mut self,
        key: &'static str,
        count_max: usize,
        what: &str,
    ) -> Option<Vec<T>> {
        let value = self.take(key)?;
        let at = place(self.text, value.span().start);
        let Some(list) = value.get_ref().as_array() else {
            self.wrong_type(key, value, &format!("a list of {what}"));
            return Some(Vec::new());
        };
        if list.len() > count_max {
            let count = list.len().to_string();
            let message = format!("more than {count_max} entries");
            let fix = format!("leave at most {count_max}");
            self.complain(ErrorCode::OutOfRange, at, key, &count, &message, &fix);
            return Some(Vec::new());
        }
        Some(list.iter().filter_map(|entry| self.text_of(key, entry, what)).collect())
    }

    /// A whole number within a range.
    pub fn number(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let what = format!("a whole number from {} to {}", range.start(), range.end());
        self.note(key, &what, Some(default.to_string()));
        let Some(value) = self.take(key) else { return default };
        let Some(number) = value.get_ref().as_integer() else {
            self.wrong_type(key, value, "a whole number");
            return default;
        };
        let found = u64::from_str_radix(number.as_str(), number.radix()).ok();
        match found.filter(|found| range.contains(found)) {
            Some(found) => found,
            None => {
                let at = place(self.text, value.span().start);
                let fix = format!("write a number from {} to {}", range.start(), range.end());
                let (code, text) = (ErrorCode::OutOfRange, number.as_str());
                self.complain(code, at, key, text, "it is outside its range", &fix);
                default
            }
        }
    }

    /// Yes or no.
    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.note(key, "true or false", Some(default.to_string()));
        let Some(value) = self.take(key) else { return default };
        match value.get_ref().as_bool() {
            Some(flag) => flag,
            None => {
                self.wrong_type(key, value, "true or false");
                default
            }
        }
    }

    /// A table below this one; its keys have their defaults when it is not there.
    pub fn section<R>(
        &mut self,
        key: &'static str,
        build: impl FnOnce(&mut Section<'_>) -> R,
    ) -> R {
        let value = self.take(key);
        let table = value.and_then(|value| {
            let table = value.get_ref().as_table();
            if table.is_none() {
                self.wrong_type(key, value, "a table");
            }
            table
        });
        let start = value.map_or(self.start, |value| value.span().start);
        let mut below = self.below(key, table, start);
        let built = build(&mut below);
        below.refuse_unknown();
        built
    }

    /// Tables with names that the user chose, such as `[contexts.prod]`, by name.
    pub fn named<R>(
        &mut self,
        key: &'static str,
        count_max: usize,
        mut build: impl FnMut(&str, &mut Section<'_>) -> R,
    ) -> Vec<R> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let Some(tables) = value.get_ref().as_table() else {
            self.wrong_type(key, value, "tables");
            return Vec::new();
        };
        let mut built = Vec::new();
        for (name, value) in tables.iter().take(count_max) {
            let name = name.get_ref().as_ref();
            let Some(table) = value.get_ref().as_table() else {
                self.wrong_type(&format!("{key}.{name}"), value, "a table");
                continue;
            };
            let start = value.span().start;
            let mut below = self.below(&format!("{key}.{name}"), Some(table), start);
            built.push(build(name, &mut below));
            below.refuse_unknown();
        }
        if tables.len() > count_max {
            let (at, count) = (place(self.text, value.span().start), tables.len().to_string());
            let fix = format!("leave at most {count_max}");
            self.complain(ErrorCode::OutOfRange, at, key, &count, "too many tables", &fix);
        }
        built
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.push(key);
        self.table?.get(key)
    }

    fn text_of<T: FromStr<Err: Display>>(
        &mut self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        what: &str,
    ) -> Option<T> {
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key, value, &format!("{what}, in quotes"));
            return None;
        };
        match text.parse() {
            Ok(found) => Some(found),
            Err(error) => {
                let at = place(self.text, value.span().start);
                let fix = format!("write {what}");
                let message = error.to_string();
                self.complain(ErrorCode::UnknownValue, at, key, text, &message, &fix);
                None
            }
        }
    }

    fn wrong_type(&mut self, key: &str, value: &Spanned<DeValue<'_>>, what: &str) {
        let at = place(self.text, value.span().start);
        let raw = self.text.get(value.span()).unwrap_or_default();
        let message = format!("this is of the kind {}", value.get_ref().type_str());
        let fix = format!("write {what}");
        self.complain(ErrorCode::WrongType, at, key, raw, &message, &fix);
    }

    fn complain(
        &mut self,
        code: ErrorCode,
        at: At,
        key: &str,
        value: &str,
        message: &str,
        fix: &str,
    ) {
        if self.problems.len() < CONFIG_PROBLEMS_MAX {
            self.problems.push(Problem {
                code,
                at,
                field: format!("{}{key}", self.prefix),
                value: shown(value),
                message: message.into(),
                nearest: None,
                fix: fix.into(),
            });
        }
    }

    /// Refuses every key that was not asked for.
    fn refuse_unknown(&mut self) {
        let Some(table) = self.table else { return };
        let asked = std::mem::take(&mut self.asked);
        for (key, _) in table.iter() {
            let name = key.get_ref().as_ref();
            if asked.contains(&name) || self.problems.len() >= CONFIG_PROBLEMS_MAX {
                continue;
            }
            let nearest = yard_common::spec::nearest(name, asked.iter().copied());
            let known = asked.join(", ");
            let fix = match nearest {
                Some(nearest) => format!("write {nearest}"),
                None => format!("remove it; what there is: {known}"),
            };
            self.problems.push(Problem {
                code: ErrorCode::UnknownField,
                at: place(self.text, key.span().start),
                field: format!("{}{}", self.prefix, shown(name)),
                value: String::new(),
                message: "there is no such setting".into(),
                nearest: nearest.map(String::from),
                fix,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use yard_common::spec::time::DurationMs;

    #[derive(Debug, PartialEq)]
    struct Settings {
        listen: SocketAddr,
        data: PathBuf,
        peers: Vec<SocketAddr>,
        lease_ms: u64,
        retries: u64,
        strict: bool,
        contexts: Vec<(String, Option<String>)>,
    }

    fn settings(text: &str) -> Result<Settings, ConfigError> {
        parse(text, "yard.toml", |root| {
            let listen = root.required("listen", "\"0.0.0.0:7100\"");
            let data = root.path("data_dir", Path::new("/var/lib/yard"));
            let peers = root.list("peers", 2, "addresses such as \"10.0.0.1:7100\"");
            let (lease_ms, retries) = root.section("lease", |lease| {
                let default = DurationMs::new(3_000).expect("short");
                let time = lease.value("time", default, "a duration such as \"3s\"");
                (time.ms(), lease.number("retries", 3, 0..=10))
            });
            let strict = root.flag("strict", false);
            let contexts = root
                .named("contexts", 2, |name, table| (name.to_string(), table.optional("ca", "x")));
            Some(Settings { listen: listen?, data, peers, lease_ms, retries, strict, contexts })
        })
    }

    #[test]
    fn values_and_defaults_are_read() {
        let text = "listen = \"127.0.0.1:7100\"\npeers = [\"10.0.0.1:1\"]\n[lease]\n\
                    time = \"5s\"\n[contexts.dev]\nca = \"/x\"\n[contexts.prod]\n";
        let found = settings(text).unwrap();
        assert_eq!(found.listen, "127.0.0.1:7100".parse().unwrap());
        assert_eq!(found.data, Path::new("/var/lib/yard"));
        assert_eq!((found.lease_ms, found.retries, found.strict), (5_000, 3, false));
        assert_eq!(found.peers.len(), 1);
        assert_eq!(found.contexts, [("dev".into(), Some("/x".into())), ("prod".into(), None)]);
    }

    #[test]
    fn every_problem_is_told_with_place_and_fix() {
        let text = "lisen = \"127.0.0.1:7100\"\npeers = [\"here\"]\nstrict = 1\n[lease]\n\
                    time = \"long\"\nretries = 11\n";
        let error = settings(text).unwrap_err();
        assert_eq!(
            error.to_string(),
            "yard.toml:1:1  listen  [Y1007]\n    it must be given\n    \
             fix: add listen = \"0.0.0.0:7100\"\n\
             yard.toml:1:1  lisen  [Y1002]\n    there is no such setting\n    \
             did you mean listen?\n    fix: write listen\n\
             yard.toml:2:10  peers = here  [Y1004]\n    invalid socket address syntax\n    \
             fix: write addresses such as \"10.0.0.1:7100\"\n\
             yard.toml:3:10  strict = 1  [Y1003]\n    this is of the kind integer\n    \
             fix: write true or false\n\
             yard.toml:5:8  lease.time = long  [Y1004]\n    this is not a duration; \
             write for instance 90m, 2d, 1h30m, 1-12:00:00 or P7D\n    \
             fix: write a duration such as \"3s\"\n\
             yard.toml:6:11  lease.retries = 11  [Y1005]\n    it is outside its range\n    \
             fix: write a number from 0 to 10"
        );
    }

    #[test]
    fn bad_toml_is_told_with_its_place() {
        let error = settings("listen = \n").unwrap_err().to_string();
        assert!(error.starts_with("yard.toml:1:"), "{error}");
    }

    #[test]
    fn lists_and_problems_are_bounded() {
        let many =
            "listen = \"127.0.0.1:1\"\npeers = [\"1.1.1.1:1\", \"1.1.1.1:1\", \"1.1.1.1:1\"]";
        let error = settings(many).unwrap_err();
        assert_eq!(error.problems()[0].fix, "leave at most 2");
        let unknown: String = (0..500).map(|i| format!("key{i} = 1\n")).collect();
        let error = settings(&unknown).unwrap_err();
        assert_eq!(error.problems().len(), CONFIG_PROBLEMS_MAX);
    }
}
