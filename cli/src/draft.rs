//! From files, scripts, commands and flags to the text of one job.
//!
//! Everything is checked here first, so that a bad job file gets every problem at once, with its
//! lines, and nothing is sent. What is sent is the canonical form. What a cluster can do, only the
//! cluster knows: so a job is read once, and may be checked twice.

use crate::args::{FieldFlags, JobSource};
use crate::failure::Failure;
use crate::input;
use crate::problems;
use std::path::{Path, PathBuf};
use yard_common::limits::JOB_FILE_BYTES_MAX;
use yard_common::spec::gang::Nodes;
use yard_common::spec::{Draft, Features, JobSpec, Problems};

/// A job that was read, and not checked yet.
#[derive(Clone, Debug)]
pub(crate) struct Unchecked {
    draft: Draft,
    /// What was read of the file.
    text: Option<String>,
    is_script: bool,
    file_name: String,
    warnings: Vec<String>,
}

/// A job that is ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    /// The job.
    pub(crate) spec: JobSpec,
    /// The same with every default, and where each value came from.
    pub(crate) resolved: String,
    /// The name of the file, for messages.
    pub(crate) file_name: String,
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
    /// What it was made of.
    pub(crate) unchecked: Unchecked,
}

/// What interprets scripts, and how it is handed a whole script as one word.
const INTERPRETERS: [(&str, &str); 12] = [
    ("bash", "-c"),
    ("sh", "-c"),
    ("dash", "-c"),
    ("zsh", "-c"),
    ("ksh", "-c"),
    ("fish", "-c"),
    ("python", "-c"),
    ("perl", "-e"),
    ("ruby", "-e"),
    ("node", "-e"),
    ("julia", "-e"),
    ("Rscript", "-e"),
];

/// What runs scripts with such names. None of them begins as bash would have it.
const EXTENSIONS: [(&str, &str); 10] = [
    ("py", "python3"),
    ("pl", "perl"),
    ("rb", "ruby"),
    ("js", "node"),
    ("jl", "julia"),
    ("R", "Rscript"),
    ("r", "Rscript"),
    ("zsh", "zsh"),
    ("ksh", "ksh"),
    ("fish", "fish"),
];

/// Reads a job.
pub(crate) fn read(source: &JobSource) -> Result<Unchecked, Failure> {
    let content = match &source.file {
        Some(path) => Some(input::read(path, JOB_FILE_BYTES_MAX)?),
        None => None,
    };
    assemble(source, content.as_deref(), |path| input::read(path, JOB_FILE_BYTES_MAX))
}

/// The part without files: `content` is that of the job file; `rows` reads a file of parameters.
fn assemble(
    source: &JobSource,
    content: Option<&[u8]>,
    rows: impl Fn(&Path) -> Result<Vec<u8>, Failure>,
) -> Result<Unchecked, Failure> {
    let file_name = source.file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let name = name_of(&file_name);
    let mut warnings = Vec::new();
    let is_script = content.is_some_and(|bytes| is_script(name, bytes));
    let mut draft = match content {
        None => Draft::empty(),
        Some(bytes) if is_script => {
            let mut draft = Draft::read_script(bytes, name);
            add_script(&mut draft, name, &String::from_utf8_lossy(bytes), &mut warnings)?;
            draft
        }
        Some(bytes) => Draft::read(bytes, name),
    };
    apply_flags(&mut draft, &source.fields)?;
    if let Some(array) = &source.array {
        draft.set_array(array, "--array");
    }
    for assignment in &source.set {
        let (path, value) = split(assignment, "--set")?;
        draft.set(path, value, "--set");
    }
    if let Some(path) = rows_of(source, &draft)? {
        draft.set_rows(&rows(&path)?, &path.display().to_string());
    }
    let words: Vec<&str> = source.words.iter().map(String::as_str).collect();
    match (content.is_some(), words.is_empty()) {
        (_, true) => {}
        (true, false) => draft.set_words("args", &words, "--"),
        (false, false) => set_command(&mut draft, &words),
    }
    let text = content.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Ok(Unchecked { draft, text, is_script, file_name, warnings })
}

/// Words are executed as they are. One word alone with space in it is a line that was quoted as a
/// whole, for the shell, as ssh takes it.
fn set_command(draft: &mut Draft, words: &[&str]) {
    match words {
        [line] if line.contains(char::is_whitespace) => draft.set_text("command", line, "--"),
        words => draft.set_words("command", words, "--"),
    }
}

/// The file of parameters: that of the flag, else the one that the job names, which is relative to
/// the job file.
fn rows_of(source: &JobSource, draft: &Draft) -> Result<Option<PathBuf>, Failure> {
    let standard = |path: &Option<PathBuf>| path.as_deref() == Some(Path::new("-"));
    if standard(&source.file) && standard(&source.each) {
        let message = "the job and its parameters cannot both come from standard input";
        return Err(Failure::usage(message, "put one of them into a file"));
    }
    let named = || {
        let beside = source.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        draft.each_file().map(|path| beside.join(path))
    };
    Ok(source.each.clone().or_else(named))
}

impl Unchecked {
    /// Checks it for a cluster that has these features.
    pub(crate) fn check(&self, features: &Features) -> Result<Prepared, Failure> {
        let mut draft = self.draft.clone();
        let spec = match self.validated(&draft, features) {
            // A script starts the rest of its gang itself, as people who come from sbatch expect.
            // On one machine that is what happens anyway.
            Ok(spec) if self.is_script && spec.nodes != Nodes::ONE && !draft.has("launch") => {
                draft.set("launch", "custom", "script");
                self.validated(&draft, features)?
            }
            other => other?,
        };
        Ok(Prepared {
            resolved: draft.print_resolved(&spec),
            spec,
            file_name: self.file_name.clone(),
            warnings: self.warnings.clone(),
            unchecked: self.clone(),
        })
    }

    fn validated(&self, draft: &Draft, features: &Features) -> Result<JobSpec, Failure> {
        let file = name_of(&self.file_name);
        draft.validate(features).map_err(|found| told(&found, file, self.text.as_deref()))
    }
}

/// The name of a file in messages; standard input has none.
fn name_of(file: &str) -> Option<&str> {
    (!file.is_empty() && file != "-").then_some(file)
}

/// All problems, with their lines.
fn told(found: &Problems, file: Option<&str>, text: Option<&str>) -> Failure {
    let count = found.list().len() + found.left_out();
    let noun = if count == 1 { "problem" } else { "problems" };
    let list = problems::render(&problems::of_here(found), file, text);
    let more = match found.left_out() {
        0 => String::new(),
        left => format!("\nand {left} more, not shown\n"),
    };
    let hint = "nothing was submitted; `yard schema` prints every field";
    Failure::usage(format!("{count} {noun} in the job\n\n{list}{more}"), hint)
}

fn extension(name: Option<&str>) -> Option<&str> {
    name.and_then(|name| name.rsplit_once('.')).map(|(_, extension)| extension)
}

/// Whether a file is a script: it is named as one, says so in its first two bytes, or has lines of
/// one.
fn is_script(name: Option<&str>, bytes: &[u8]) -> bool {
    let marked = |line: &[u8]| line.starts_with(b"#YARD") || line.starts_with(b"#SBATCH");
    match extension(name) {
        Some("yaml" | "yml" | "json") => false,
        Some("sh" | "bash") => true,
        Some(other) if EXTENSIONS.iter().any(|(known, _)| *known == other) => true,
        _ => bytes.starts_with(b"#!") || bytes.split(|b| *b == b'\n').take(100).any(marked),
    }
}

/// Makes the whole script the command, run by the interpreter that its first line names.
fn add_script(
    draft: &mut Draft,
    name: Option<&str>,
    text: &str,
    warnings: &mut Vec<String>,
) -> Result<(), Failure> {
    let shebang = match text.lines().next().and_then(|first| first.strip_prefix("#!")) {
        Some(shebang) => shebang,
        None => without_shebang(name)?,
    };
    let mut words: Vec<&str> = shebang.split_whitespace().collect();
    let program = words.iter().rev().find(|word| !word.starts_with('-')).copied();
    let program = program.unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let known = |(name, _): &&(&str, &str)| {
        let rest = program.strip_prefix(name);
        // python3 and python3.11 are python; pythonista is not.
        rest.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
    };
    let Some((_, flag)) = INTERPRETERS.iter().find(known) else {
        let hint = format!("run it as a command: yard submit -- {program} SCRIPT");
        return Err(Failure::usage(format!("no script can be handed to {program:?}"), hint));
    };
    words.push(flag);
    draft.set_words("shell", &words, "script");
    draft.set_text("command", text, "script");
    let ignored = text.lines().filter(|line| line.starts_with("#SBATCH")).count();
    if ignored > 0 {
        let lines = if ignored == 1 { "line is" } else { "lines are" };
        warnings.push(format!("{ignored} #SBATCH {lines} ignored; write #YARD key=value lines"));
    }
    Ok(())
}

/// What runs a script that does not say it, as `sh` itself does; not if its name says otherwise.
fn without_shebang(name: Option<&str>) -> Result<&'static str, Failure> {
    let extension = extension(name);
    match EXTENSIONS.iter().find(|(known, _)| Some(*known) == extension) {
        None => Ok("/bin/bash"),
        Some((_, program)) => {
            let shown = name.unwrap_or_default();
            let message = format!("{shown} does not say what runs it: it has no first line #!");
            let hint = format!(
                "begin it with #!/usr/bin/env {program}, or run it where it is: \
                 yard submit -- {program} {shown}"
            );
            Err(Failure::usage(message, hint))
        }
    }
}

/// Sets the fields that have flags of their own.
fn apply_flags(draft: &mut Draft, flags: &FieldFlags) -> Result<(), Failure> {
    let fields: [(&str, &str, &Option<String>); 12] = [
        ("name", "--name", &flags.name),
        ("queue", "--queue", &flags.queue),
        ("pool", "--pool", &flags.pool),
        ("priority", "--priority", &flags.priority),
        ("time_limit", "--time-limit", &flags.time_limit),
        ("nodes", "--nodes", &flags.nodes),
        ("ranks_per_node", "--ranks-per-node", &flags.ranks_per_node),
        ("resources.gpus", "--gpus", &flags.gpus),
        ("resources.cpus", "--cpus", &flags.cpus),
        ("resources.memory", "--memory", &flags.memory),
        ("launch", "--launch", &flags.launch),
        ("workdir", "--workdir", &flags.workdir),
    ];
    for (path, flag, value) in fields {
        if let Some(value) = value {
            draft.set(path, value, flag);
        }
    }
    if flags.hold {
        draft.set("hold", "true", "--hold");
    }
    for assignment in &flags.env {
        let (name, value) = split(assignment, "--env")?;
        draft.set(&format!("env.{name}"), value, "--env");
    }
    Ok(())
}

fn split<'a>(assignment: &'a str, flag: &str) -> Result<(&'a str, &'a str), Failure> {
    let hint = format!("write {flag} NAME=VALUE");
    let bad = || Failure::usage(format!("{flag} {assignment:?} has no ="), hint);
    assignment.split_once('=').ok_or_else(bad)
}

#[cfg(test)]
mod tests;
