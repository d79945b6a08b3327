//! Submitting.

use crate::args::{Global, JobSource, SubmitArgs};
use crate::draft::{Prepared, prepare};
use crate::failure::{Failure, exit};
use crate::output::{Format, Row, put, render_one, say};
use crate::session::Session;
use serde_json::{Value, json};
use yard_proto::v1;

/// Prints the job with every default. A coordinator checks it too, if there is one.
pub(crate) async fn dry_run(global: &Global, source: &JobSource) -> Result<u8, Failure> {
    let prepared = prepare(source)?;
    let asked = async {
        let session = Session::open(global).await?;
        Ok(session.client.submit(request(&prepared, true)).await?)
    };
    let warnings = match asked.await {
        Ok(answer) => answer.warnings,
        Err(Failure { exit: exit::UNREACHABLE, message, .. }) => {
            say(&format!("note: checked here only, by no coordinator: {message}"));
            Vec::new()
        }
        Err(failure) => return Err(failure),
    };
    warn(&prepared, &warnings, source.strict)?;
    let spec: Value = serde_json::from_str(&prepared.spec.to_json()).unwrap_or_default();
    let value = json!({ "spec": spec });
    let row = Row { value, name: prepared.spec.name().into(), ..Row::default() };
    // As YAML, people read where each value came from; that is known here alone.
    let format = match global.output.unwrap_or_default() {
        Format::Yaml => Format::Table,
        other => other,
    };
    put(&render_one("JobSpec", &row, &prepared.resolved, format))?;
    Ok(0)
}

/// Submits a job, and prints its id.
pub(crate) async fn submit(
    session: &Session,
    args: &SubmitArgs,
    prepared: &Prepared,
) -> Result<u8, Failure> {
    let answer = send(session, &args.submit, prepared).await?;
    let id = answer.job_id;
    let value = json!({ "id": id, "applied_index": answer.applied_index });
    let row = Row { value, name: id.to_string(), ..Row::default() };
    session.one("Submitted", &row, &format!("{id}\n"))?;
    if args.wait {
        return super::wait::until_ended(session, &[id], false, None).await;
    }
    Ok(0)
}

/// Sends a job; warnings are told before.
pub(crate) async fn send(
    session: &Session,
    source: &JobSource,
    prepared: &Prepared,
) -> Result<v1::SubmitResponse, Failure> {
    if source.strict {
        // Warnings of the server are errors too, so they must be known before it is taken.
        let asked = session.client.submit(request(prepared, true)).await?;
        warn(prepared, &asked.warnings, true)?;
    }
    let answer = session.client.submit(request(prepared, false)).await?;
    warn(prepared, &answer.warnings, false)?;
    Ok(answer)
}

fn request(prepared: &Prepared, dry_run: bool) -> v1::SubmitRequest {
    let here = std::env::current_dir().unwrap_or_default();
    v1::SubmitRequest {
        spec: prepared.spec.to_json(),
        format: v1::SpecFormat::Json.into(),
        submit_dir: here.display().to_string(),
        dry_run,
        file_name: prepared.file_name.clone(),
        ..v1::SubmitRequest::default()
    }
}

/// Tells the warnings; with `strict` they are an error.
fn warn(prepared: &Prepared, of_server: &[v1::Warning], strict: bool) -> Result<(), Failure> {
    let mut lines = prepared.warnings.clone();
    for warning in of_server {
        let field = match warning.field.as_str() {
            "" => String::new(),
            field => format!("{field}: "),
        };
        let fix = match warning.fix.as_str() {
            "" => String::new(),
            fix => format!("\n  fix: {fix}"),
        };
        lines.push(format!("{field}{}{fix}", warning.message));
    }
    for line in &lines {
        say(&format!("warning: {line}"));
    }
    if strict && !lines.is_empty() {
        let message = format!("{} warnings, and --strict takes them as errors", lines.len());
        return Err(Failure::new(exit::USAGE, message, "nothing was submitted"));
    }
    Ok(())
}
