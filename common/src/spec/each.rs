//! `array.each`: the parameters of the tasks, one row for each of them.

use super::json::Json;
use super::problem::Issue;
use super::text::{Ident, LocalPath, Text};
use super::tree::{Node, Value};
use super::walk::{Detail, Part, UserKey, Walk, read_entries};
use crate::ErrorCode;
use crate::id::TaskIndex;
use crate::limits::EACH_ROWS_MAX;

/// Where the parameters of the tasks come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Each {
    /// A file of them, which whoever submits the job reads.
    File(LocalPath),
    /// The rows themselves: at least one, and all with the same parameters. The row of a task is
    /// the one at its index.
    Rows(Vec<Row>),
}

/// The parameters of one task, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(Vec<(Ident, Text)>);

impl Each {
    /// How many tasks it makes; none: only the file would tell.
    #[must_use]
    pub fn count(&self) -> Option<u32> {
        match self {
            Each::File(_) => None,
            Each::Rows(rows) => u32::try_from(rows.len()).ok(),
        }
    }

    /// Rows that are elsewhere.
    pub(super) fn left_out() -> Each {
        Each::File(LocalPath::rows())
    }

    /// The row of a task.
    #[must_use]
    pub fn row(&self, index: TaskIndex) -> Option<&Row> {
        match self {
            Each::File(_) => None,
            Each::Rows(rows) => rows.get(index as usize),
        }
    }
}

impl Row {
    /// Names and values.
    #[must_use]
    pub fn params(&self) -> &[(Ident, Text)] {
        &self.0
    }

    /// Whether another row has the same parameters, in any order.
    fn is_like(&self, other: &Row) -> bool {
        let has = |name: &Ident| other.0.iter().any(|(known, _)| known == name);
        self.0.len() == other.0.len() && self.0.iter().all(|(name, _)| has(name))
    }

    fn names(&self) -> String {
        self.0.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl Part for Row {
    const LIST_MAX: usize = EACH_ROWS_MAX;

    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<Row> {
        let params: Vec<(Ident, Text)> = read_entries(node, walk)?;
        check_names(node, params.iter().map(|(name, _)| name), "lr: 1e-4", walk);
        let complete = walk.entries(node).is_some_and(|entries| entries.len() == params.len());
        complete.then_some(Row(params))
    }

    fn write(&self, _: Detail) -> Json {
        let entry = |(name, value): &(Ident, Text)| {
            (UserKey::as_str(name).to_string(), Json::Text(value.as_str().to_string()))
        };
        Json::Map(self.0.iter().map(entry).collect())
    }
}

/// Refuses no parameter at all, and two that would be one variable.
pub(super) fn check_names<'a>(
    node: &Node,
    names: impl Iterator<Item = &'a Ident>,
    example: &str,
    walk: &mut Walk<'_>,
) {
    let mut upper: Vec<String> = names.map(Ident::upper).collect();
    upper.sort_unstable();
    if upper.windows(2).any(|pair| pair[0] == pair[1]) {
        let message = "two parameters differ in case only; both would be one variable";
        walk.refuse(node, Issue::new(ErrorCode::Conflict, message, "rename one"));
    }
    let is_empty = match &node.value {
        Value::Map(entries) => entries.is_empty(),
        Value::Scalar(..) => node.is_null(),
        Value::List(_) => false,
    };
    if is_empty {
        let fix = format!("add a parameter, such as {example}");
        walk.refuse(node, Issue::new(ErrorCode::FieldMissing, "there is no parameter", fix));
    }
}

impl Part for Each {
    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<Each> {
        let Value::List(items) = &node.value else {
            if matches!(node.value, Value::Map(_)) {
                // The message of a list says how its items are written.
                walk.items(node, EACH_ROWS_MAX);
                return None;
            }
            return LocalPath::read(node, walk).map(Each::File);
        };
        if items.is_empty() {
            let fix = "add rows such as {lr: 1e-4}, or leave each out";
            walk.refuse(node, Issue::new(ErrorCode::OutOfRange, "there is no row", fix));
            return None;
        }
        if items.len() > EACH_ROWS_MAX {
            let message = format!("{} rows, at most {EACH_ROWS_MAX} are allowed", items.len());
            walk.refuse(node, Issue::new(ErrorCode::OutOfRange, message, TOO_LARGE));
            return None;
        }
        let rows = Vec::<Row>::read(node, walk)?;
        for (index, (row, item)) in rows.iter().zip(items).enumerate().skip(1) {
            if !row.is_like(&rows[0]) {
                let message =
                    format!("it has {}, and the first row has {}", row.names(), rows[0].names());
                let fix = "give every row the same parameters; \"\" is an empty one";
                let issue = Issue::new(ErrorCode::Conflict, message, fix);
                walk.within_item(index, |walk| walk.refuse(item, issue));
            }
        }
        Some(Each::Rows(rows))
    }

    fn write(&self, detail: Detail) -> Json {
        match self {
            Each::File(path) => path.write(detail),
            Each::Rows(rows) => rows.write(detail),
        }
    }
}

/// What to do about rows that are too many, or too long.
pub(crate) const TOO_LARGE: &str = "put the parameters into a file that every node can read, use \
    array: 0-N, and let each task pick its line by YARD_TASK_INDEX";
