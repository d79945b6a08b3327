//! What the setup of the pool wrote here.

use super::{Answers, Cut, DataError, blocking};
use crate::session::Shared;
use crate::setup::output;
use std::io;
use std::sync::Arc;
use yard_common::limits::LOG_READ_BYTES_MAX;
use yard_proto::internal::agent_data::What as Said;
use yard_proto::internal::{SetupLog, SetupLogWant};

/// Tells what one run wrote.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    want: SetupLogWant,
    answers: &Answers,
) -> Result<(), Cut> {
    let paths = shared.paths.clone();
    let read = blocking(move || output::read(&paths, want.back).map_err(|error| failed(&error)));
    let bytes = bytes::Bytes::from(read.await?);
    for from in (0..bytes.len()).step_by(LOG_READ_BYTES_MAX) {
        let end = bytes.len().min(from + LOG_READ_BYTES_MAX);
        answers.send(Said::SetupLog(SetupLog { data: bytes.slice(from..end) })).await?;
    }
    Ok(())
}

fn failed(error: &io::Error) -> DataError {
    match error.kind() {
        io::ErrorKind::NotFound => DataError::not_found("no setup ran here, or not that often"),
        _ => DataError::io(format!("what the setup wrote cannot be read: {error}")),
    }
}
