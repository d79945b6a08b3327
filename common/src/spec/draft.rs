//! A draft: what the user gave, in a file, in a script, or by flags, before it is a job.
//!
//! Flags go over the file, field by field, before anything is checked: so a problem of a flag
//! names the flag, and a field that a flag replaces can do no harm.

use super::each;
use super::job::JobFields;
use super::json::parse_json;
use super::problem::{Issue, Problem, Problems, shown};
use super::rows;
use super::run::Command;
use super::text::Name;
use super::tree::{At, Key, Node, Origin, Style, Value, decode, parse_yaml, place};
use super::walk::{Detail, Part, Walk};
use super::{Features, JobSpec, print};
use crate::ErrorCode;
use crate::limits::{JOB_FILE_DEPTH_MAX, SPEC_BYTES_MAX};

/// A job that is being put together.
#[derive(Clone, Debug)]
pub struct Draft {
    root: Node,
    problems: Problems,
    file: Option<String>,
    /// Whether the content of the file is known. Else only the problems of reading count.
    readable: bool,
}

/// Mappings whose keys users choose: what follows in a path is one key, dots and all.
const USER_KEYED: [&str; 7] =
    ["env", "labels", "secrets", "inputs", "outputs", "sweep", "place.labels"];

impl Draft {
    /// Nothing yet.
    #[must_use]
    pub fn empty() -> Draft {
        Draft { root: Node::empty_map(), problems: Problems::default(), file: None, readable: true }
    }

    /// Reads a job file, YAML or JSON. The file's name is for messages, and for the name of a
    /// job that has none. Never fails: problems come out with [`Draft::validate`].
    #[must_use]
    pub fn read(bytes: &[u8], file: Option<&str>) -> Draft {
        let mut problems = Problems::default();
        let root = decode(bytes, &mut problems).and_then(|text| parse(text, &mut problems));
        Draft {
            readable: root.is_some(),
            root: root.unwrap_or_else(Node::empty_map),
            problems,
            file: file.map(str::to_string),
        }
    }

    /// Reads the canonical form: JSON and nothing else.
    pub(crate) fn read_json(text: &str) -> Draft {
        let mut problems = Problems::default();
        let root =
            decode(text.as_bytes(), &mut problems).and_then(|text| parse_json(text, &mut problems));
        Draft {
            readable: root.is_some(),
            root: root.unwrap_or_else(Node::empty_map),
            problems,
            file: None,
        }
    }

    /// Reads the `#YARD key=value` lines of a script: those in the comments at its head, before
    /// the first command.
    #[must_use]
    pub fn read_script(bytes: &[u8], file: Option<&str>) -> Draft {
        let mut draft = Draft { file: file.map(str::to_string), ..Draft::empty() };
        let Some(text) = decode(bytes, &mut draft.problems) else {
            draft.readable = false;
            return draft;
        };
        let mut at_head = true;
        for (index, line) in text.lines().enumerate() {
            at_head &= line.trim().is_empty() || line.starts_with('#');
            let Some(directive) = line.strip_prefix("#YARD") else { continue };
            let at = At { line: index as u32 + 1, column: 1, origin: Origin::Directive };
            let assignment = directive.split_once('=');
            match assignment {
                Some((path, value)) if at_head && directive.starts_with([' ', '\t']) => {
                    draft.set_at(path.trim(), value.trim(), at);
                }
                _ => {
                    let fix = "write #YARD key=value at the head of the script";
                    let message = "this line is no directive, or stands after the first command";
                    let issue = Issue::new(ErrorCode::Syntax, message, fix);
                    draft.problems.push(place(issue, at, String::new(), shown(line)));
                }
            }
        }
        draft
    }

    /// Sets a field by its path (`resources.gpus`, `env.LR`, `roles[0].nodes`) over what is
    /// there. The value is one text, or YAML when it starts with a bracket, a brace or a quote;
    /// variables and labels are always texts.
    /// `flag` is the name for messages: `--nodes`.
    pub fn set(&mut self, path: &str, value: &str, flag: &str) {
        self.set_at(path, value, flag_at(flag));
    }

    /// Sets a field to a text that is taken as it is, such as a whole script.
    pub fn set_text(&mut self, path: &str, text: &str, flag: &str) {
        let value = Value::Scalar(text.to_string(), Style::Quoted);
        self.put(path, Node { value, at: flag_at(flag) });
    }

    /// Sets a field to a list of words, each taken as it is.
    pub fn set_words(&mut self, path: &str, words: &[&str], flag: &str) {
        let at = flag_at(flag);
        let item = |word: &&str| Node {
            value: Value::Scalar((*word).to_string(), Style::Bare),
            at: at.clone(),
        };
        let node = Node { value: Value::List(words.iter().map(item).collect()), at: at.clone() };
        self.put(path, node);
    }

    /// The file of parameters that `array.each` names.
    #[must_use]
    pub fn each_file(&self) -> Option<&str> {
        let node = self.root.get("array")?.get("each").filter(|node| !node.is_null())?;
        match &node.value {
            Value::Scalar(path, _) => Some(path),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Puts the rows of a file of parameters (JSON lines, or CSV with a header) in place of its
    /// name: a task for each row. An array that is there already picks rows by their index, and
    /// says how many tasks run at a time; `%16` is the short form for that alone.
    pub fn set_rows(&mut self, bytes: &[u8], file: &str) {
        let mut found = Problems::default();
        let rows = rows::read(bytes, file, &mut found);
        let at = At { line: 0, column: 0, origin: Origin::Rows(shown(file).into()) };
        let value = match rows.is_empty() {
            false => Value::List(rows),
            // Nothing is said of what the rows lack: the problems of the file are told instead.
            true => Value::Scalar("rows".into(), Style::Quoted),
        };
        found.list().iter().for_each(|problem| self.problems.push(problem.clone()));
        (0..found.left_out()).for_each(|_| self.problems.count_more());
        self.put("array.each", Node { value, at });
    }

    /// Sets which tasks of the array there are, and how many run at a time, in its short form.
    /// What else the file says of the array stays.
    pub fn set_array(&mut self, text: &str, flag: &str) {
        let is_mapping = |node: &Node| matches!(node.value, Value::Map(_));
        if !self.root.get("array").is_some_and(is_mapping) {
            return self.set("array", text, flag);
        }
        let (indices, running) = short_form(text);
        if let Some(indices) = indices {
            self.set("array.indices", indices, flag);
        }
        if let Some(running) = running {
            self.set("array.max_running", running, flag);
        }
    }

    /// Writes out the short form of an array.
    fn lengthen_array(&mut self) {
        let Value::Map(entries) = &mut self.root.value else { return };
        let array = entries.iter_mut().find(|(key, _)| key.text == "array");
        let Some((_, node)) = array.filter(|(_, node)| !node.is_null()) else { return };
        let Value::Scalar(text, style) = &node.value else { return };
        let (indices, running) = short_form(text);
        let part = |name: &str, text: &str| {
            let value = Node { value: Value::Scalar(text.into(), *style), at: node.at.clone() };
            (Key { text: name.into(), at: node.at.clone() }, value)
        };
        let indices = indices.map(|indices| part("indices", indices));
        let running = running.map(|running| part("max_running", running));
        node.value = Value::Map(indices.into_iter().chain(running).collect());
    }

    /// Whether a field of the top is written, be it with its default.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.root.get(key).is_some()
    }

    fn set_at(&mut self, path: &str, value: &str, at: At) {
        let is_text = path.starts_with("env.") || path.starts_with("labels.");
        let node = if !is_text && value.starts_with(['[', '{', '"', '\'']) {
            parse_yaml(value, &at.origin, &mut self.problems).map(|node| Node { at, ..node })
        } else {
            let style = if is_text { Style::Quoted } else { Style::Bare };
            Some(Node { value: Value::Scalar(value.to_string(), style), at })
        };
        if let Some(node) = node {
            self.put(path, node);
        }
    }

    fn put(&mut self, path: &str, node: Node) {
        if path.starts_with("array.") {
            self.lengthen_array();
        }
        let (at, shown_value) = (node.at.clone(), node.shown());
        if let Err(issue) = put(&mut self.root, &steps(path), node) {
            self.problems.push(place(issue, at, shown(path), shown_value));
        }
    }

    /// Checks everything, and makes the job.
    ///
    /// # Errors
    /// All problems at once, in the order of their lines.
    pub fn validate(&self, features: &Features) -> Result<JobSpec, Problems> {
        let mut walk = Walk::new(features, self.problems.clone());
        let fields =
            if self.readable { JobFields::read_record(&self.root, &mut walk) } else { None };
        let mut problems = walk.problems;
        if problems.is_empty() {
            let mut fields = fields.expect("a walk reports a problem when it makes no value");
            fields.name = fields.name.take().or_else(|| Some(self.default_name(&fields)));
            let spec = JobSpec { fields };
            let size = spec.to_json().len();
            if size <= SPEC_BYTES_MAX {
                return Ok(spec);
            }
            problems.push(too_large(&spec, size));
        }
        Err(problems.finish(self.file.as_deref()))
    }

    /// The whole job as YAML, each field with a comment that says where it came from. Reading
    /// the text gives the same job.
    #[must_use]
    pub fn print_resolved(&self, spec: &JobSpec) -> String {
        print::whole(spec, &self.root)
    }

    /// The name of a job that says none: its file's, else its program's.
    fn default_name(&self, fields: &JobFields) -> Name {
        let stem = |path: &str| {
            let file = path.rsplit('/').next().unwrap_or(path);
            let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
            Name::from_any(if stem.is_empty() { file } else { stem })
        };
        let of_command = || match fields.command.as_ref()? {
            Command::Shell(line) => stem(program(&mut line.as_str().split_whitespace())?),
            // `bash -c 'LINE'`: the line is words of its own.
            Command::Exec(words) => {
                let mut words = words.iter().flat_map(|word| word.as_str().split_whitespace());
                stem(program(&mut words)?)
            }
        };
        let name = self.file.as_deref().and_then(stem).or_else(of_command);
        name.unwrap_or_else(Name::fallback)
    }
}

/// The parts of the short form of an array, `0-99%16`: its indices, and how many run at a time.
fn short_form(text: &str) -> (Option<&str>, Option<&str>) {
    let (indices, running) = text.split_once('%').map_or((text, None), |(i, r)| (i, Some(r)));
    (Some(indices).filter(|indices| !indices.is_empty()), running)
}

fn too_large(spec: &JobSpec, size: usize) -> Problem {
    let mut message = format!("the job takes {size} bytes, at most {SPEC_BYTES_MAX}");
    let rows = spec.array.as_ref().and_then(|array| array.each.as_ref()).map(|each| {
        let bytes = each.write(Detail::Changed).to_string().len();
        message.push_str(&format!("; {bytes} of them are the rows of each"));
        bytes
    });
    let of_rows = rows.is_some_and(|bytes| bytes > size / 2);
    let fix = if of_rows { each::TOO_LARGE } else { "put data into files of their own" };
    let field = if of_rows { "array.each" } else { "" };
    let issue = Issue::new(ErrorCode::FileTooLarge, message, fix);
    place(issue, At::NOWHERE, field.into(), String::new())
}

fn flag_at(flag: &str) -> At {
    At { line: 0, column: 0, origin: Origin::Flag(flag.into()) }
}

/// JSON when it is JSON, else YAML. A JSON file with a mistake gets JSON's message.
fn parse(text: &str, problems: &mut Problems) -> Option<Node> {
    if text.trim_start().starts_with('{') {
        let mut of_json = problems.clone();
        let root = parse_json(text, &mut of_json);
        let looks_like_json = text.trim_start()[1..].trim_start().starts_with('"');
        if root.is_some() || looks_like_json {
            *problems = of_json;
            return root;
        }
    }
    parse_yaml(text, &Origin::File, problems)
}

/// The word of a command that tells most: the script of an interpreter, else the program.
fn program<'a>(words: &mut dyn Iterator<Item = &'a str>) -> Option<&'a str> {
    let is_assignment = |word: &str| word.contains('=') && !word.starts_with('/');
    let mut words = words.skip_while(|word| is_assignment(word));
    let first = words.next()?;
    let interpreter = first.rsplit('/').next().unwrap_or(first);
    let interpreters = ["python", "bash", "sh", "perl", "ruby", "julia", "Rscript", "torchrun"];
    if interpreters.iter().any(|name| interpreter.starts_with(name)) {
        let tells = |word: &&str| !word.starts_with('-') && !is_assignment(word);
        return words.find(tells).or(Some(first));
    }
    Some(first)
}

/// The steps of a path; `roles[0].nodes` is `roles`, `0`, `nodes`.
fn steps(path: &str) -> Vec<String> {
    for prefix in USER_KEYED {
        if let Some(key) = path.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) {
            let keys = prefix.split('.').map(str::to_string);
            return keys.chain([key.to_string()]).collect();
        }
    }
    let plain = path.replace('[', ".").replace(']', "");
    plain.split('.').map(str::to_string).collect()
}

/// Puts a node at the place that the steps name, with mappings made on the way.
fn put(root: &mut Node, steps: &[String], node: Node) -> Result<(), Issue> {
    let bad = |message: &str| {
        let fix = "write the path of a field, such as resources.gpus";
        Issue::new(ErrorCode::UnknownField, message, fix)
    };
    if steps.len() > JOB_FILE_DEPTH_MAX || steps.iter().any(String::is_empty) {
        return Err(bad("this is no path of a field"));
    }
    let mut here = root;
    for step in steps {
        if here.is_null() {
            here.value = Value::Map(Vec::new());
        }
        here = match &mut here.value {
            Value::Map(entries) => {
                let found = entries.iter().position(|(key, _)| key.text == *step);
                let index = found.unwrap_or_else(|| {
                    let key = Key { text: step.clone(), at: node.at.clone() };
                    let empty = Value::Scalar(String::new(), Style::Plain);
                    entries.push((key, Node { value: empty, at: node.at.clone() }));
                    entries.len() - 1
                });
                &mut entries[index].1
            }
            Value::List(items) => {
                let index = step.parse::<usize>().ok();
                let item = index.and_then(|index| items.get_mut(index));
                item.ok_or_else(|| bad("the list in the file has no such item"))?
            }
            Value::Scalar(text, _) => {
                let message = format!("the field above it is {} already", shown(text));
                let fix = "set the field above it as a whole";
                return Err(Issue::new(ErrorCode::Conflict, message, fix));
            }
        };
    }
    *here = node;
    Ok(())
}
