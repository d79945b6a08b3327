//! Problems of a job file, each with its line, a caret, and the fix.

use std::fmt::Write;
use yard_common::spec::Problems;
use yard_common::spec::problem;
use yard_common::spec::tree::Origin;
use yard_proto::v1;

/// Characters of a source line that are shown.
const LINE_CHARS_MAX: usize = 120;

/// One problem, wherever it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    code: String,
    /// From 1; 0: no line.
    line: usize,
    column: usize,
    /// The flag that it is about, or the file of parameters and its line.
    flag: Option<String>,
    field: String,
    value: String,
    message: String,
    nearest: Option<String>,
    fix: String,
}

/// Problems that were found here.
pub(crate) fn of_here(problems: &Problems) -> Vec<Shown> {
    let shown = |problem: &problem::Problem| {
        let flag = match &problem.at.origin {
            Origin::Flag(flag) => Some(flag.to_string()),
            Origin::Rows(_) => Some(problem.at.to_string()),
            Origin::File | Origin::Directive => None,
        };
        Shown {
            code: problem.code.to_string(),
            // The line of another file is none of the source.
            line: if flag.is_some() { 0 } else { problem.at.line as usize },
            column: problem.at.column as usize,
            flag,
            field: problem.field.clone(),
            value: problem.value.clone(),
            message: problem.message.clone(),
            nearest: problem.nearest.clone(),
            fix: problem.fix.clone(),
        }
    };
    problems.list().iter().map(shown).collect()
}

/// Problems that the server found. The lines are those of the text that was sent, which is the
/// canonical form: they would mislead, so the field says where.
pub(crate) fn of_server(list: &v1::ProblemList) -> Vec<Shown> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_string());
    let shown = |problem: &v1::Problem| Shown {
        code: problem.code.clone(),
        line: 0,
        column: 0,
        flag: some(&problem.flag),
        field: problem.field.clone(),
        value: problem.value.clone(),
        message: problem.message.clone(),
        nearest: some(&problem.nearest),
        fix: problem.fix.clone(),
    };
    list.problems.iter().map(shown).collect()
}

/// All problems, with lines of the source where it is at hand.
pub(crate) fn render(list: &[Shown], file: Option<&str>, source: Option<&str>) -> String {
    let mut out = String::new();
    for problem in list {
        if !out.is_empty() {
            out.push('\n');
        }
        one(&mut out, problem, file, source);
    }
    out
}

fn one(out: &mut String, problem: &Shown, file: Option<&str>, source: Option<&str>) {
    let mut head = Vec::new();
    match (&problem.flag, file) {
        (Some(flag), _) => head.push(flag.clone()),
        (None, Some(file)) if problem.line > 0 => {
            head.push(format!("{file}:{}:{}", problem.line, problem.column));
        }
        (None, Some(file)) => head.push(file.to_string()),
        (None, None) => {}
    }
    if !problem.field.is_empty() {
        let value = match problem.value.as_str() {
            "" => String::new(),
            value => format!(" = {value}"),
        };
        head.push(format!("{}{value}", problem.field));
    }
    head.push(format!("[{}]", problem.code));
    // Writing to a String never fails.
    let _ = writeln!(out, "{}", head.join("  "));
    if let Some(line) = source.and_then(|text| text.lines().nth(problem.line.wrapping_sub(1))) {
        caret(out, problem, line);
    }
    let _ = writeln!(out, "  {}", problem.message);
    if let Some(nearest) = &problem.nearest {
        let _ = writeln!(out, "  did you mean {nearest}?");
    }
    let _ = writeln!(out, "  fix: {}", problem.fix);
}

/// The line with a mark under the column.
fn caret(out: &mut String, problem: &Shown, line: &str) {
    // What could move the cursor is shown as one replacement, so that columns stay.
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = line.chars().take(LINE_CHARS_MAX).map(plain).collect();
    let margin = problem.line.to_string().len();
    let _ = writeln!(out, "  {} | {}", problem.line, text.trim_end());
    if (1..=LINE_CHARS_MAX).contains(&problem.column) {
        let _ = writeln!(out, "  {:margin$} | {:>column$}", "", "^", column = problem.column);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::spec::{Draft, Features};

    #[test]
    fn every_problem_has_line_caret_and_fix() {
        let source = "name: a\nndoes: 4\nresources:\n  memory: 64\ncommand: x\n";
        let mut draft = Draft::read(source.as_bytes(), Some("job.yaml"));
        draft.set("priority", "urgent", "--priority");
        let problems = draft.validate(&Features::all()).unwrap_err();
        let text = render(&of_here(&problems), Some("job.yaml"), Some(source));
        assert!(text.contains("job.yaml:2:1  ndoes"), "{text}");
        assert!(text.contains("  2 | ndoes: 4\n    | ^\n"), "{text}");
        assert!(text.contains("  did you mean nodes?\n"), "{text}");
        assert!(text.contains("  4 |   memory: 64\n    |           ^\n"), "{text}");
        assert!(text.contains("\n--priority  priority = urgent  [Y10"), "{text}");
        assert_eq!(text.matches("  fix: ").count(), 3, "{text}");
    }

    #[test]
    fn a_line_cannot_move_the_cursor() {
        let problem = Shown { line: 1, column: 2, ..Shown::default() };
        let text = render(&[problem], None, Some("a\x1b[2Jb"));
        assert!(text.contains("  1 | a [2Jb\n    |  ^\n"), "{text:?}");
    }

    #[test]
    fn problems_of_the_server_have_no_lines() {
        let problem = v1::Problem {
            code: "Y1014".into(),
            line: 1,
            field: "image".into(),
            message: "images are not in this version".into(),
            fix: "remove it".into(),
            ..v1::Problem::default()
        };
        let list = v1::ProblemList { problems: vec![problem], left_out: 0 };
        assert_eq!(
            render(&of_server(&list), None, None),
            "image  [Y1014]\n  images are not in this version\n  fix: remove it\n"
        );
    }
}
