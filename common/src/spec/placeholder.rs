//! Placeholders: `${NAME}` in the words of a command that is a list.
//!
//! They are replaced once, from a closed list, by the agent; what a value holds is never read
//! again, and no shell sees it.

use super::nearest::nearest;
use super::problem::Issue;
use crate::ErrorCode;

/// The variables that a word may name.
pub const PLACEHOLDERS: &[&str] = &[
    "YARD_JOB_ID",
    "YARD_JOB_NAME",
    "YARD_WORKSPACE",
    "YARD_EXPERIMENT",
    "YARD_OWNER",
    "YARD_TASK_INDEX",
    "YARD_TASK_COUNT",
    "YARD_ATTEMPT",
    "YARD_LAST_CAUSE",
    "YARD_ROLE",
    "YARD_RANK",
    "YARD_LOCAL_RANK",
    "YARD_WORLD_SIZE",
    "YARD_LOCAL_WORLD_SIZE",
    "YARD_NODE_RANK",
    "YARD_NODE_NAME",
    "YARD_NUM_NODES",
    "YARD_NUM_GPUS",
    "YARD_HOSTS",
    "YARD_HOSTFILE",
    "YARD_MASTER_ADDR",
    "YARD_CODE_DIR",
    "YARD_LOG_DIR",
    "YARD_JOB_TEMP",
    "YARD_SHARED_TEMP",
    "YARD_MOUNT_ROOT",
    "YARD_JOB_MOUNT_ROOT",
    "YARD_CHECKPOINT_DIR",
    "YARD_RESUME_FROM",
    "YARD_CHECKPOINT_REQUEST",
    "YARD_END_TIME",
    "YARD_SOCKET",
];

/// Prefixes of variables that a job declares itself: parameters, inputs, outputs.
pub const PARAM_PREFIX: &str = "YARD_PARAM_";
/// See [`PARAM_PREFIX`].
pub const INPUT_PREFIX: &str = "YARD_INPUT_";
/// See [`PARAM_PREFIX`].
pub const OUTPUT_PREFIX: &str = "YARD_OUTPUT_";

/// A piece of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Taken as it is.
    Text(&'a str),
    /// The name between `${` and `}`.
    Placeholder(&'a str),
}

/// The pieces of a word, in order. A `${` without its `}` is text.
pub fn pieces(word: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = word;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let name_end = if rest.starts_with("${") { rest.find('}') } else { None };
        if let Some(end) = name_end {
            let name = &rest[2..end];
            rest = &rest[end + 1..];
            return Some(Piece::Placeholder(name));
        }
        let skip = usize::from(rest.starts_with("${"));
        let end = rest[skip..].find("${").map_or(rest.len(), |end| end + skip);
        let (text, tail) = rest.split_at(end);
        rest = tail;
        Some(Piece::Text(text))
    })
}

/// Replaces every placeholder once; a value that is not there becomes nothing.
pub fn expand<'v>(word: &str, value: impl Fn(&str) -> Option<&'v str>) -> String {
    let mut out = String::new();
    for piece in pieces(word) {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Placeholder(name) => out.push_str(value(name).unwrap_or_default()),
        }
    }
    out
}

/// Checks the placeholders of a word against the closed list and what the job declares.
pub(crate) fn check(word: &str, declared: &dyn Fn(&str) -> bool) -> Result<(), Issue> {
    for piece in pieces(word) {
        match piece {
            Piece::Text(text) if text.contains("${") => {
                let fix = "close it with }, or use the string form of command for a shell";
                let message = "a placeholder ${ is not closed";
                return Err(Issue::new(ErrorCode::BadPlaceholder, message, fix));
            }
            Piece::Placeholder(name) if !PLACEHOLDERS.contains(&name) && !declared(name) => {
                return Err(unknown(name));
            }
            Piece::Text(_) | Piece::Placeholder(_) => {}
        }
    }
    Ok(())
}

fn unknown(name: &str) -> Issue {
    let of_job = [PARAM_PREFIX, INPUT_PREFIX, OUTPUT_PREFIX].iter().any(|p| name.starts_with(p));
    let shown = super::problem::shown(name);
    let message = if of_job {
        format!("the job declares nothing that sets {shown}")
    } else {
        format!("{shown} is not in the list of placeholders")
    };
    let found = if of_job { None } else { nearest(name, PLACEHOLDERS.iter().copied()) };
    let fix = match found {
        Some(found) => format!("write ${{{found}}}"),
        None => "use the string form of command, where a shell replaces variables".into(),
    };
    let issue = Issue::new(ErrorCode::BadPlaceholder, message, fix);
    issue.nearest(found.map(|name| format!("${{{name}}}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_replaced_once() {
        let value = |name: &str| (name == "YARD_RANK").then_some("${YARD_RANK}");
        assert_eq!(expand("a${YARD_RANK}b$c${", value), "a${YARD_RANK}b$c${");
        assert_eq!(expand("${X}", value), "");
    }

    #[test]
    fn unknown_placeholders_are_refused() {
        let none = |_: &str| false;
        assert_eq!(check("x${YARD_RANK}", &none), Ok(()));
        assert_eq!(check("$HOME", &none), Ok(()));
        let issue = check("${YARD_RNAK}", &none).unwrap_err();
        assert_eq!(issue.nearest.as_deref(), Some("${YARD_RANK}"));
        for bad in ["${HOME}", "${", "${}", "${YARD_PARAM_LR}", "a${YARD_RANK"] {
            assert_eq!(check(bad, &none).unwrap_err().code, ErrorCode::BadPlaceholder, "{bad}");
        }
        assert_eq!(check("${YARD_PARAM_LR}", &|name| name == "YARD_PARAM_LR"), Ok(()));
    }

    proptest! {
        #[test]
        fn pieces_make_up_the_word(word in "[${}ab]{0,20}") {
            let mut whole = String::new();
            for piece in pieces(&word) {
                match piece {
                    Piece::Text(text) => whole.push_str(text),
                    Piece::Placeholder(name) => whole.push_str(&format!("${{{name}}}")),
                }
            }
            prop_assert_eq!(whole, word);
        }
    }
}
