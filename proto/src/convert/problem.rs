//! Problems of job files.

use crate::v1::{self, ProblemOrigin};
use prost::Message;
use std::fmt;
use yard_common::limits::STATUS_DETAILS_BYTES_MAX;
use yard_common::spec::tree::Origin;
use yard_common::spec::{Problem, Problems};

impl From<&Problems> for v1::ProblemList {
    /// Every problem that fits the details of a status; the rest is counted.
    fn from(problems: &Problems) -> Self {
        let mut list = v1::ProblemList::default();
        let mut left_out = problems.left_out();
        let mut bytes = 0;
        for problem in problems.list() {
            let problem = v1::Problem::from(problem);
            // Room for the tags and lengths around it, and for what else a status tells.
            bytes += problem.encoded_len() + 16;
            if bytes > STATUS_DETAILS_BYTES_MAX * 3 / 4 {
                left_out += 1;
            } else {
                list.problems.push(problem);
            }
        }
        list.left_out = u32::try_from(left_out).unwrap_or(u32::MAX);
        list
    }
}

impl From<&Problem> for v1::Problem {
    fn from(problem: &Problem) -> Self {
        let (origin, flag) = match &problem.at.origin {
            Origin::File => (ProblemOrigin::File, String::new()),
            Origin::Directive => (ProblemOrigin::Directive, String::new()),
            Origin::Flag(flag) => (ProblemOrigin::Flag, flag.to_string()),
            // Whoever submits reads such files, with the flag or in place of the path in the job.
            Origin::Rows(file) => (ProblemOrigin::Flag, format!("{file}:{}", problem.at.line)),
        };
        let mut message = v1::Problem {
            code: problem.code.to_string(),
            line: problem.at.line,
            column: problem.at.column,
            origin: 0,
            flag,
            field: problem.field.clone(),
            value: problem.value.clone(),
            message: problem.message.clone(),
            nearest: problem.nearest.clone().unwrap_or_default(),
            fix: problem.fix.clone(),
        };
        message.set_origin(origin);
        message
    }
}

impl fmt::Display for v1::Problem {
    /// As [`Problem`] displays, so that a file reads the same whoever found its problems. Codes of
    /// newer versions are shown as they came.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.origin(), self.line) {
            (ProblemOrigin::Flag, _) => f.write_str(&self.flag)?,
            (_, 0) => f.write_str("file")?,
            (_, line) => write!(f, "{line}:{}", self.column)?,
        }
        if !self.field.is_empty() {
            write!(f, "  {}", self.field)?;
        }
        if !self.value.is_empty() {
            write!(f, " = {}", self.value)?;
        }
        writeln!(f, "  [{}]", self.code)?;
        writeln!(f, "    {}", self.message)?;
        if !self.nearest.is_empty() {
            writeln!(f, "    did you mean {}?", self.nearest)?;
        }
        write!(f, "    fix: {}", self.fix)
    }
}
