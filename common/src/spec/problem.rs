//! Problems of a job file: what is wrong, where, and how to put it right.
//!
//! A file gets all of its problems at once, in the order of its lines. Their number is bounded;
//! the rest is counted.

use super::tree::{At, Origin};
use crate::ErrorCode;
use crate::limits::JOB_FILE_PROBLEMS_MAX;
use std::fmt;

/// Characters of a bad value that are shown.
const SHOWN_CHARS_MAX: usize = 60;

/// One thing that is wrong with a job file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind of problem; its page has cause and remedy.
    pub code: ErrorCode,
    /// Where the value was given: file, directive or flag.
    pub at: At,
    /// The field, such as `resources.gpus` or `roles[1].command`; empty: the file as a whole.
    pub field: String,
    /// The value, shortened, with control characters escaped; empty when there is none.
    pub value: String,
    /// What is wrong, as half a sentence.
    pub message: String,
    /// The nearest thing that would have been right.
    pub nearest: Option<String>,
    /// What to do.
    pub fix: String,
}

/// The part of a problem that a parser of single values knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issue {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) nearest: Option<String>,
    pub(crate) fix: String,
}

impl Issue {
    pub(crate) fn new(
        code: ErrorCode,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Issue {
        Issue { code, message: message.into(), nearest: None, fix: fix.into() }
    }

    pub(crate) fn nearest(mut self, nearest: Option<String>) -> Issue {
        self.nearest = nearest;
        self
    }
}

/// The problems of one job file, in the order of their lines; those of flags come last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    file: Option<String>,
    list: Vec<Problem>,
    left_out: usize,
}

impl Problems {
    /// The problems that are told, at most [`JOB_FILE_PROBLEMS_MAX`].
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// How many more there are.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn push(&mut self, problem: Problem) {
        if self.is_full() {
            self.count_more();
        } else {
            self.list.push(problem);
        }
    }

    /// Whether a further problem would only be counted.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= JOB_FILE_PROBLEMS_MAX
    }

    /// Counts problems that nobody would see.
    pub(crate) fn count_more(&mut self) {
        self.left_out += 1;
    }

    /// Sorted, and with the name of the file for display.
    pub(crate) fn finish(mut self, file: Option<&str>) -> Problems {
        self.list.sort_by_key(|problem| problem.at.order());
        self.file = file.map(shown);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.at)?;
        if !self.field.is_empty() {
            write!(f, "  {}", self.field)?;
        }
        if !self.value.is_empty() {
            write!(f, " = {}", self.value)?;
        }
        writeln!(f, "  [{}]", self.code)?;
        writeln!(f, "    {}", self.message)?;
        if let Some(nearest) = &self.nearest {
            writeln!(f, "    did you mean {nearest}?")?;
        }
        write!(f, "    fix: {}", self.fix)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.list.len() + self.left_out;
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "{count} {noun}")?;
        if let Some(file) = &self.file {
            write!(f, " in {file}")?;
        }
        writeln!(f)?;
        for problem in &self.list {
            writeln!(f)?;
            match (&self.file, &problem.at.origin) {
                (Some(file), Origin::File | Origin::Directive) if problem.at.line > 0 => {
                    writeln!(f, "{file}:{problem}")?;
                }
                _ => writeln!(f, "{problem}")?,
            }
        }
        if self.left_out > 0 {
            writeln!(f, "\nand {} more, not shown", self.left_out)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A text as it is shown: shortened, and with everything escaped that could move the cursor,
/// hide, or look like something else.
#[must_use]
pub fn shown(text: &str) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == SHOWN_CHARS_MAX {
            out.push_str("...");
            break;
        }
        match c {
            '\'' | '"' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: u32, field: &str) -> Problem {
        Problem {
            code: ErrorCode::UnknownField,
            at: At { line, column: 1, origin: Origin::File },
            field: field.into(),
            value: String::new(),
            message: "there is no such field".into(),
            nearest: Some("nodes".into()),
            fix: "write nodes".into(),
        }
    }

    #[test]
    fn problems_come_in_the_order_of_lines() {
        let mut problems = Problems::default();
        problems.push(problem(7, "b"));
        problems.push(problem(2, "a"));
        let problems = problems.finish(Some("job.yaml"));
        assert_eq!(
            problems.to_string(),
            "2 problems in job.yaml\n\n\
             job.yaml:2:1  a  [Y1002]\n    there is no such field\n    \
             did you mean nodes?\n    fix: write nodes\n\n\
             job.yaml:7:1  b  [Y1002]\n    there is no such field\n    \
             did you mean nodes?\n    fix: write nodes\n"
        );
    }

    #[test]
    fn the_rest_is_counted() {
        let mut problems = Problems::default();
        for line in 0..JOB_FILE_PROBLEMS_MAX as u32 + 5 {
            problems.push(problem(line + 1, "a"));
        }
        assert_eq!((problems.list().len(), problems.left_out()), (JOB_FILE_PROBLEMS_MAX, 5));
        assert!(problems.finish(None).to_string().ends_with("and 5 more, not shown\n"));
    }

    #[test]
    fn nothing_shown_moves_the_cursor() {
        assert_eq!(shown("a\x1b[2J\u{202e}b\n\"q\""), "a\\u{1b}[2J\\u{202e}b\\n\"q\"");
        assert_eq!(shown(&"x".repeat(100)).len(), SHOWN_CHARS_MAX + 3);
    }
}
