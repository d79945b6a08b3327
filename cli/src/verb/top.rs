//! `top`: what running jobs use.

use crate::args::TopArgs;
use crate::failure::Failure;
use crate::output::{Format, put, say};
use crate::select::choose;
use crate::session::Session;
use crate::terminal;
use crate::view;
use std::time::Duration;
use yard_proto::v1;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// Clears a terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows it once; on a terminal again and again, until Ctrl-C.
pub(crate) async fn top(session: &Session, args: &TopArgs) -> Result<u8, Failure> {
    let chosen = match args.jobs.is_empty() {
        true => Vec::new(),
        false => choose(session, &args.jobs).await?,
    };
    let jobs: Result<Vec<u64>, Failure> = chosen.iter().map(|one| one.whole("top")).collect();
    let request = v1::LatestSamplesRequest { job_ids: jobs?, all_users: args.all_users };
    let is_table = matches!(session.format, Format::Table | Format::Wide);
    if args.once || !is_table || !terminal::is_there() {
        let answer = session.client.samples(request).await?;
        session.list(&view::top::listing(&answer.samples, args.nodes))?;
        remarks(&answer).iter().for_each(|remark| say(remark));
        return Ok(0);
    }
    let mut interrupts = super::run::interrupts()?;
    loop {
        let answer = session.client.samples(request.clone()).await?;
        let table = view::top::listing(&answer.samples, args.nodes).render(session.format);
        let remarks: String =
            remarks(&answer).into_iter().map(|remark| format!("{remark}\n")).collect();
        put(&format!("{CLEAR}{table}{remarks}"))?;
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = interrupts.recv() => return Ok(0),
        }
    }
}

/// What the rows do not say.
fn remarks(answer: &v1::LatestSamplesResponse) -> Vec<String> {
    let mut remarks = Vec::new();
    if !answer.missing_nodes.is_empty() {
        let nodes = answer.missing_nodes.join(", ");
        remarks.push(format!("note: no answer from {nodes}"));
    }
    if answer.more {
        remarks.push("note: there is more than one answer holds; name jobs".to_string());
    }
    remarks
}
