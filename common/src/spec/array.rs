//! Jobs of many tasks: arrays by index, sweeps by the product of parameters.

use super::declare::record;
use super::each::{Each, check_names};
use super::json::Json;
use super::problem::Issue;
use super::scalar::{Count, parse_integer};
use super::text::{Ident, Text};
use super::tree::{Node, Value};
use super::walk::{Detail, MapView, Part, Scalar, UserKey, Walk, read_entries};
use crate::ErrorCode;
use crate::id::{TaskIndex, TaskRange};
use crate::limits::{ARRAY_TASKS_MAX, SPEC_ENTRIES_MAX};

/// Indices of tasks: rising ranges that neither touch nor overlap. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Indices(Vec<TaskRange>);

impl Indices {
    /// The ranges in rising order.
    #[must_use]
    pub fn ranges(&self) -> &[TaskRange] {
        &self.0
    }

    /// How many tasks.
    #[must_use]
    pub fn count(&self) -> u32 {
        // Every index is below the limit, and none is counted twice.
        self.0.iter().map(|range| range.len).sum()
    }
}

impl Scalar for Indices {
    const WHAT: &'static str = "indices such as 0-199";

    /// `0-199`, `3`, `0-9,20-29`, `0-90:10`.
    fn parse(text: &str) -> Result<Indices, Issue> {
        let mut ranges: Vec<TaskRange> = Vec::new();
        for part in text.split(',') {
            add_part(part.trim(), &mut ranges)?;
        }
        ranges.sort_unstable();
        let mut merged: Vec<TaskRange> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.first <= last.end() => {
                    let end = last.end().max(range.end());
                    *last = TaskRange::between(last.first, end);
                }
                _ => merged.push(range),
            }
        }
        Ok(Indices(merged))
    }

    fn print(&self) -> Json {
        let ranges: Vec<String> = self.0.iter().map(TaskRange::to_string).collect();
        Json::Text(ranges.join(","))
    }
}

/// Adds the ranges of `first[-last][:step]`.
fn add_part(part: &str, ranges: &mut Vec<TaskRange>) -> Result<(), Issue> {
    let index = |text: &str| {
        parse_integer(text, 0, i64::from(ARRAY_TASKS_MAX) - 1).map(|index| index as TaskIndex)
    };
    let (range, step) = match part.split_once(':') {
        Some((range, step)) => (range, parse_integer(step, 1, ARRAY_TASKS_MAX.into())? as usize),
        None => (part, 1),
    };
    let (first, last) = match range.split_once('-') {
        Some((first, last)) => (index(first)?, index(last)?),
        None => index(range).map(|index| (index, index))?,
    };
    if first > last {
        let swapped = format!("{last}-{first}");
        let fix = format!("write {swapped}");
        let issue = Issue::new(ErrorCode::OutOfRange, "the range ends before it starts", fix);
        return Err(issue.nearest(Some(swapped)));
    }
    if step == 1 {
        ranges.push(TaskRange::between(first, last + 1));
    } else {
        let indices = (first..=last).step_by(step).take(SPEC_ENTRIES_MAX + 1);
        ranges.extend(indices.map(TaskRange::one));
    }
    if ranges.len() > SPEC_ENTRIES_MAX {
        let message = format!("more than {SPEC_ENTRIES_MAX} ranges");
        let fix = "use one range, and let the script pick its work by YARD_TASK_INDEX";
        return Err(Issue::new(ErrorCode::OutOfRange, message, fix));
    }
    Ok(())
}

type TaskCount = Count<1, ARRAY_TASKS_MAX>;

record! {
    /// A task for each index. Short form: `0-199%16`, at most 16 of them at a time.
    pub struct Array manual check check_array {
        /// The indices; none: one for each row of `each`.
        indices: Option<Indices> = None,
        /// Tasks that run at the same time; none: as many as fit.
        max_running: Option<TaskCount> = None,
        /// Failed tasks after which no more are started; none: never.
        max_failures: Option<TaskCount> = None,
        /// The parameters of the tasks: rows, or the file that has them.
        each: Option<Each> = None,
    }
}

fn check_array(value: &Array, map: &MapView<'_>, walk: &mut Walk<'_>) {
    if value.indices.is_none() && value.each.is_none() && !map.has("indices") && !map.has("each") {
        let fix = "add indices: 0-199, or each: params.jsonl";
        let issue = Issue::new(ErrorCode::FieldMissing, "the array has no tasks", fix);
        walk.report(map.at, String::new(), issue);
    }
    let last = value.indices.as_ref().and_then(|indices| indices.ranges().last());
    if let (Some(rows), Some(range), Some(node)) = (value.rows(), last, map.get("indices"))
        && range.end() > rows
    {
        let message = format!("each has {rows} rows, which are 0 to {}", rows - 1);
        let issue = Issue::new(ErrorCode::OutOfRange, message, "name rows that are there");
        walk.within("indices", |walk| walk.refuse(node, issue));
    }
}

impl Array {
    /// Rows of parameters, if they are here.
    #[must_use]
    pub fn rows(&self) -> Option<u32> {
        self.each.as_ref().and_then(Each::count)
    }
}

impl Part for Array {
    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<Array> {
        if !matches!(node.value, Value::Scalar(..)) {
            return Array::read_record(node, walk);
        }
        let text = walk.text(node, "an array such as 0-199%16")?;
        let (indices, running) = match text.split_once('%') {
            Some((indices, running)) => (indices, Some(running)),
            None => (text, None),
        };
        let running = running.map(|text| walk.settle(node, TaskCount::parse(text)));
        let indices = walk.settle(node, Indices::parse(indices))?;
        let max_running = running.flatten();
        Some(Array { indices: Some(indices), max_running, max_failures: None, each: None })
    }

    fn write(&self, detail: Detail) -> Json {
        self.write_record(detail)
    }
}

/// The values of one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamValues {
    /// These texts, in order.
    List(Vec<Text>),
    /// Whole numbers, both ends included: `0..9`.
    Range(i64, i64),
}

impl ParamValues {
    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            ParamValues::List(values) => values.len() as u64,
            ParamValues::Range(first, last) => last.abs_diff(*first) + 1,
        }
    }

    /// The value at a position below the count.
    #[must_use]
    pub fn value(&self, position: u64) -> String {
        match self {
            ParamValues::List(values) => {
                values.get(position as usize).map_or("", Text::as_str).to_string()
            }
            ParamValues::Range(first, _) => (first + position as i64).to_string(),
        }
    }
}

impl Part for ParamValues {
    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<ParamValues> {
        if let Value::List(items) = &node.value {
            if items.is_empty() {
                let issue = Issue::new(ErrorCode::OutOfRange, "there is no value", "write some");
                walk.refuse(node, issue);
                return None;
            }
            return Vec::read(node, walk).map(ParamValues::List);
        }
        let text = walk.text(node, "a list, or a range such as 0..9")?;
        let Some((first, last)) = text.split_once("..") else {
            walk.items(node, SPEC_ENTRIES_MAX)?;
            return None;
        };
        // Far from the ends of an i64, so that no position can overflow.
        let bound = i64::MAX / 4;
        let first = walk.settle(node, parse_integer(first, -bound, bound))?;
        let last = walk.settle(node, parse_integer(last, -bound, bound))?;
        if first > last {
            let swapped = format!("{last}..{first}");
            let fix = format!("write {swapped}");
            let issue = Issue::new(ErrorCode::OutOfRange, "the range ends before it starts", fix);
            walk.refuse(node, issue.nearest(Some(swapped)));
            return None;
        }
        Some(ParamValues::Range(first, last))
    }

    fn write(&self, detail: Detail) -> Json {
        match self {
            ParamValues::List(values) => values.write(detail),
            ParamValues::Range(first, last) => Json::Text(format!("{first}..{last}")),
        }
    }
}

/// A task for each combination of parameters; the last parameter changes fastest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep(Vec<(Ident, ParamValues)>);

impl Sweep {
    /// The parameters in the order of the file.
    #[must_use]
    pub fn params(&self) -> &[(Ident, ParamValues)] {
        &self.0
    }

    /// How many tasks.
    #[must_use]
    pub fn count(&self) -> u32 {
        // Checked when it was read: at most ARRAY_TASKS_MAX.
        self.0.iter().map(|(_, values)| values.count() as u32).product()
    }

    /// The parameters of one task, by position from 0 to the count.
    #[must_use]
    pub fn task(&self, index: TaskIndex) -> Vec<(&Ident, String)> {
        let mut rest = u64::from(index);
        let mut task: Vec<(&Ident, String)> = Vec::with_capacity(self.0.len());
        for (name, values) in self.0.iter().rev() {
            task.push((name, values.value(rest % values.count())));
            rest /= values.count();
        }
        task.reverse();
        task
    }
}

impl Part for Sweep {
    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<Sweep> {
        let params: Vec<(Ident, ParamValues)> = read_entries(node, walk)?;
        let mut count = Some(1u64);
        for (_, values) in &params {
            count = count.and_then(|count| count.checked_mul(values.count()));
        }
        if count.is_none_or(|count| count > ARRAY_TASKS_MAX.into()) {
            let message = format!("more than {ARRAY_TASKS_MAX} combinations");
            let issue = Issue::new(ErrorCode::OutOfRange, message, "sweep over fewer values");
            walk.refuse(node, issue);
            return None;
        }
        check_names(node, params.iter().map(|(name, _)| name), "lr: [1e-4, 3e-4]", walk);
        Some(Sweep(params))
    }

    fn write(&self, detail: Detail) -> Json {
        let entry = |(name, values): &(Ident, ParamValues)| {
            (UserKey::as_str(name).to_string(), values.write(detail))
        };
        Json::Map(self.0.iter().map(entry).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn indices_are_merged_and_sorted() {
        for (text, printed, count) in [
            ("0-199", "0-199", 200),
            ("3", "3", 1),
            ("20-29,0-9", "0-9,20-29", 20),
            ("0-9, 5-12,13", "0-13", 14),
            ("0-90:30", "0,30,60,90", 4),
            ("999999", "999999", 1),
        ] {
            let indices = Indices::parse(text).unwrap();
            assert_eq!(indices.print(), Json::Text(printed.into()), "{text}");
            assert_eq!(indices.count(), count);
        }
        for (text, code) in [
            ("9-0", ErrorCode::OutOfRange),
            ("1000000", ErrorCode::OutOfRange),
            ("0-999999:2", ErrorCode::OutOfRange),
            ("0-9:0", ErrorCode::OutOfRange),
            ("", ErrorCode::WrongType),
            ("1,,2", ErrorCode::WrongType),
            ("a-b", ErrorCode::WrongType),
        ] {
            assert_eq!(Indices::parse(text).map_err(|e| e.code), Err(code), "{text}");
        }
    }

    proptest! {
        #[test]
        fn indices_hold_what_was_named(named in proptest::collection::vec(0u32..40, 1..20)) {
            let text = named.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            let indices = Indices::parse(&text).unwrap();
            let held = indices.ranges().iter().flat_map(|range| range.indices());
            let held: Vec<u32> = held.collect();
            let mut expected = named;
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(indices.count() as usize, expected.len());
            prop_assert_eq!(held, expected);
        }
    }
}
