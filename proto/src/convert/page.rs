//! Pages of lists: by the position of the log that was read, and the key of the last row.

use super::ConvertError;
use crate::v1;
use std::str::FromStr;
use yard_common::limits::PAGE_ROWS_MAX;
use yard_core::state::State;

/// How many rows are to be given at most.
#[must_use]
pub fn rows_max(page: Option<&v1::Page>) -> usize {
    let wanted = page.map_or(0, |page| usize::try_from(page.size).unwrap_or(usize::MAX));
    if wanted == 0 { PAGE_ROWS_MAX } else { wanted.min(PAGE_ROWS_MAX) }
}

/// The position of the log that must be applied before the page is read; 0: any.
#[must_use]
pub fn index_min(page: Option<&v1::Page>) -> u64 {
    page.map_or(0, |page| page.applied_index)
}

/// The key behind which the page begins, for tables that are in the order of numbers.
///
/// # Errors
/// If it is not what a page before has given.
pub fn after_number<T: FromStr>(page: Option<&v1::Page>) -> Result<Option<T>, ConvertError> {
    match page.map_or("", |page| page.after_key.as_str()) {
        "" => Ok(None),
        key => key.parse().map(Some).map_err(|_| ConvertError::BadKey),
    }
}

/// The key behind which the page begins, for tables that are in the order of names; empty: from
/// the start.
#[must_use]
pub fn after_name(page: Option<&v1::Page>) -> &str {
    page.map_or("", |page| page.after_key.as_str())
}

/// What is told about a page that was read. `next_key`: of its last row, if there are more.
#[must_use]
pub fn info(state: &State, next_key: Option<String>) -> v1::PageInfo {
    v1::PageInfo {
        applied_index: state.applied.0,
        next_key: next_key.unwrap_or_default(),
        now: Some(state.clock.into()),
    }
}
