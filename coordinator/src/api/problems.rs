//! What is wrong with a job that only the cluster knows: names that it does not have.

use super::refusal::Refusal;
use tonic::Code;
use yard_common::ErrorCode;
use yard_common::spec::nearest;
use yard_common::spec::problem::shown;
use yard_proto::convert::error::Refused;
use yard_proto::v1;

/// Names of one kind that are looked at for the nearest one.
const NEAREST_NAMES_MAX: usize = 1_000;

/// Problems that come together: a job file gets all of them at once.
#[derive(Default)]
pub(super) struct Found(Vec<v1::Problem>);

impl Found {
    /// What a name stands for; else the problem is kept.
    pub(super) fn name<'a, T>(
        &mut self,
        field: &str,
        name: &str,
        found: Option<T>,
        known: impl Iterator<Item = &'a str>,
    ) -> Option<T> {
        if found.is_none() {
            let nearest = nearest(name, known.take(NEAREST_NAMES_MAX));
            self.0.push(v1::Problem {
                code: ErrorCode::NotFound.to_string(),
                field: field.into(),
                value: shown(name),
                message: format!("there is no {field} of this name, or none that you may use"),
                nearest: nearest.unwrap_or_default().to_string(),
                fix: format!("name a {field} that exists"),
                ..v1::Problem::default()
            });
        }
        found
    }

    /// Refuses if there is anything.
    pub(super) fn check(self) -> Result<(), Refusal> {
        let Some(first) = self.0.first() else { return Ok(()) };
        let message = format!("{}: {}", first.field, first.message);
        let refused = Refused::new(Code::NotFound, ErrorCode::NotFound, message);
        let problems = Some(v1::ProblemList { problems: self.0, left_out: 0 });
        Err(Refused { problems, ..refused }.into())
    }
}
