//! Bounds on what a command carries, as rejections that say what would be right.

use crate::command::Rejection;
use yard_common::limits::NAME_BYTES_MAX;
use yard_common::name::is_name;

/// Whether there is room for one more.
pub(super) fn room(what: &str, count: usize, limit: usize) -> Result<(), Rejection> {
    if count < limit {
        return Ok(());
    }
    Err(reached(what, limit as u64))
}

/// A limit that would be passed.
pub(super) fn reached(what: &str, limit: u64) -> Rejection {
    Rejection::LimitReached { what: what.into(), limit }
}

/// Whether a number lies within its bounds.
pub(super) fn between<T: Ord + std::fmt::Display>(
    field: &str,
    value: T,
    min: T,
    max: T,
) -> Result<(), Rejection> {
    if min <= value && value <= max {
        return Ok(());
    }
    Err(Rejection::invalid(field, format!("{value} is outside {min} to {max}")))
}

/// Whether a text is short enough.
pub(super) fn at_most_bytes(field: &str, text: &[u8], max: usize) -> Result<(), Rejection> {
    if text.len() <= max {
        return Ok(());
    }
    Err(Rejection::invalid(field, format!("{} bytes; at most {max}", text.len())))
}

/// Whether a name is legal. An illegal one is not repeated in the answer: it may hold anything.
pub(super) fn legal_name(field: &str, name: &str) -> Result<(), Rejection> {
    if is_name(name) {
        return Ok(());
    }
    let problem = format!(
        "not a legal name: 1 to {NAME_BYTES_MAX} of a-z, 0-9 and -, the first of them no -"
    );
    Err(Rejection::invalid(field, problem))
}
