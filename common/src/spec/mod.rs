//! The job spec: what a user asks for, checked.
//!
//! ```text
//! YAML, JSON ──parse──▶ tree of nodes with places ──┐
//! #YARD lines, flags ──────────────────── set over ─┴─▶ Draft ──validate──▶ JobSpec
//!                                                                             │
//!                                           Problems, all at once   to_json ◀─┘
//! ```
//!
//! - [`tree`] reads text into nodes, [`problem`] says what is wrong with them.
//! - `walk` reads typed values out of nodes; `scalar`, [`time`] and [`text`] know the formats.
//! - The fields are declared in [`job`] and in the themes [`gang`], [`run`], [`storage`],
//!   [`policy`], [`retry`], [`mod@array`] and [`each`]; rules between fields are in `rules`.
//! - A field is declared in one place, with name, type and default (`declare`). Reading, writing,
//!   unknown keys and the printed whole follow from it.
//!
//! Invariants: a [`JobSpec`] only comes out of validation; `from_json(to_json(spec)) == spec`;
//! no input panics, and the work is bounded by the limits of a job file.

mod declare;
mod draft;
mod json;
mod nearest;
mod print;
mod rows;
mod rules;
mod walk;

pub mod array;
pub mod each;
pub mod feature;
pub mod gang;
pub mod job;
pub mod placeholder;
pub mod policy;
pub mod problem;
pub mod retry;
pub mod run;
pub mod scalar;
pub mod storage;
pub mod text;
pub mod time;
pub mod tree;

pub use draft::Draft;
pub use feature::{Feature, Features};
pub use job::JobFields;
pub use nearest::nearest;
pub use problem::{Problem, Problems};

use crate::id::TaskIndex;
use array::Array;
use each::Each;
use walk::Detail;

/// A valid job. Only validation makes one; its fields are read through `Deref`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    fields: JobFields,
}

impl std::ops::Deref for JobSpec {
    type Target = JobFields;

    fn deref(&self) -> &JobFields {
        &self.fields
    }
}

impl JobSpec {
    /// Reads a job file in which any feature is allowed: for tests and tools.
    ///
    /// # Errors
    /// All problems, when the file is no valid job.
    pub fn from_yaml(text: &str) -> Result<JobSpec, Problems> {
        Draft::read(text.as_bytes(), None).validate(&Features::all())
    }

    /// Reads the canonical form, as it was stored: any feature is taken as there.
    ///
    /// # Errors
    /// All problems, when the text is no valid job.
    pub fn from_json(text: &str) -> Result<JobSpec, Problems> {
        Draft::read_json(text).validate(&Features::all())
    }

    /// Makes a job of fields, through the same validation as a file.
    ///
    /// # Errors
    /// All problems; they have no lines.
    pub fn from_fields(fields: &JobFields) -> Result<JobSpec, Problems> {
        JobSpec::from_json(&fields.write_record(Detail::Changed).to_string())
    }

    /// The canonical form: compact JSON of the fields that differ from their defaults, in the
    /// order of their declaration. At most [`crate::limits::SPEC_BYTES_MAX`] bytes.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.fields.write_record(Detail::Changed).to_string()
    }

    /// The job's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.fields.name.as_ref().map_or("", |name| name.as_str())
    }

    /// How many tasks it has; `None`: one for each row of the file `array.each`, which only the
    /// submitter can count.
    #[must_use]
    pub fn task_count(&self) -> Option<u32> {
        match (&self.array, &self.sweep) {
            (Some(array), _) => match &array.indices {
                Some(indices) => Some(indices.count()),
                None => array.rows(),
            },
            (None, Some(sweep)) => Some(sweep.count()),
            (None, None) => Some(1),
        }
    }

    /// The parameters of the task of an index, as people count: of the sweep, or of `array.each`.
    #[must_use]
    pub fn parameters(&self, index: TaskIndex) -> Vec<(&str, String)> {
        if let Some(sweep) = self.sweep.as_ref().filter(|sweep| index < sweep.count()) {
            let task = sweep.task(index).into_iter();
            return task.map(|(name, value)| (name.as_str(), value)).collect();
        }
        let each = self.array.as_ref().and_then(|array| array.each.as_ref());
        let row = each.and_then(|each| each.row(index));
        let params = row.map_or(&[][..], |row| row.params());
        params.iter().map(|(name, value)| (name.as_str(), value.as_str().to_string())).collect()
    }

    /// The canonical form with a name in place of the rows of `array.each`, for whoever gets the
    /// parameters of single tasks beside it.
    #[must_use]
    pub fn to_json_without_rows(&self) -> String {
        let mut fields = self.fields.clone();
        if let Some(Array { each: Some(each), .. }) = &mut fields.array {
            *each = Each::left_out();
        }
        fields.write_record(Detail::Changed).to_string()
    }

    /// Whether tasks have parameters of their own.
    #[must_use]
    pub fn has_parameters(&self) -> bool {
        let each = self.array.as_ref().and_then(|array| array.each.as_ref());
        self.sweep.is_some() || each.is_some()
    }
}
