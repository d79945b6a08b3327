//! Submitting.

use crate::args::{Global, JobSource, SubmitArgs};
use crate::draft::{self, Prepared};
use crate::failure::{Failure, exit};
use crate::output::{Format, Row, put, render_one, say};
use crate::session::Session;
use serde_json::{Value, json};
use std::time::Duration;
use yard_client::ClientError;
use yard_common::spec::{Feature, Features};
use yard_proto::v1;

/// How long a cluster may take to say what it can do, before a list of problems is told without.
const FEATURES_PATIENCE: Duration = Duration::from_secs(1);

/// Reads and checks a job. If something is wrong with it, its cluster is asked what it can do, so
/// that all problems are told at once; without one, they are told as far as they are known here.
pub(crate) async fn prepare(global: &Global, source: &JobSource) -> Result<Prepared, Failure> {
    let read = draft::read(source)?;
    let failure = match read.check(&Features::all()) {
        Ok(prepared) => return Ok(prepared),
        Err(failure) => failure,
    };
    let ask = async { features(&Session::open(global).await.ok()?).await };
    match tokio::time::timeout(FEATURES_PATIENCE, ask).await {
        Ok(Some(features)) => read.check(&features),
        Ok(None) | Err(_) => Err(failure),
    }
}

/// What the jobs of a cluster may ask for; nothing if it does not say.
async fn features(session: &Session) -> Option<Features> {
    let names = session.client.status(v1::StatusRequest { brief: true }).await.ok()?.features;
    // What this program does not know, no job of it asks for.
    let known = names.iter().filter_map(|name| Feature::find(name));
    (!names.is_empty()).then(|| known.fold(Features::NONE, Features::with))
}

/// Prints the job with every default. A coordinator checks it too, if there is one.
pub(crate) async fn dry_run(global: &Global, source: &JobSource) -> Result<u8, Failure> {
    let prepared = prepare(global, source).await?;
    let asked = async { ask(&Session::open(global).await?, &prepared, true).await };
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
        let asked = ask(session, prepared, true).await?;
        warn(prepared, &asked.warnings, true)?;
    }
    let answer = ask(session, prepared, false).await?;
    warn(prepared, &answer.warnings, false)?;
    Ok(answer)
}

async fn ask(
    session: &Session,
    prepared: &Prepared,
    dry_run: bool,
) -> Result<v1::SubmitResponse, Failure> {
    let error = match session.client.submit(request(prepared, dry_run)).await {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    // The server's lines are those of the canonical form. The same problems have their own here.
    if matches!(error, ClientError::Problems { .. })
        && let Some(features) = features(session).await
    {
        prepared.unchecked.check(&features)?;
    }
    Err(error.into())
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
