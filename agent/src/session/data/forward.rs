//! A connection to a port on which a process of an assignment listens on its own machine.
//!
//! **Invariant:** only what the assignment itself listens on is reached. Anything else that listens
//! on the machine is somebody else's.

use super::inflow::{self, Came, To};
use super::place::Place;
use super::{Answers, Cut, DataError, Gone, blocking};
use crate::listening;
use crate::session::Shared;
use crate::shim::message::{VisitReply, VisitRequest};
use crate::visit::{self, Visit, VisitError};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::timeout;
use tonic::Streaming;
use yard_common::limits::VISIT_CHUNK_BYTES_MAX;
use yard_proto::internal::agent_data::What as Said;
use yard_proto::internal::member_data::What as Want;
use yard_proto::internal::{ForwardWant, MemberData};
use yard_proto::v1::forward_input::What as Input;
use yard_proto::v1::forward_output::What as Output;
use yard_proto::v1::{ForwardEnd, ForwardInput, ForwardOpened, ForwardOutput, VisitGrant};

/// How long a process may take to accept.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects, and carries bytes to and fro until the process closes, or nobody wants it any more.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    want: ForwardWant,
    answers: &Answers,
    inputs: &mut Streaming<MemberData>,
) -> Result<(), Cut> {
    let place = Place::new(shared, want.assignment)?;
    let port = u16::try_from(want.port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| DataError::not_found(format!("no port {}", want.port)))?;
    let home = shared.paths.shim(place.id);
    let asked = blocking(move || Ok(visit::ask(&home, &VisitRequest::Members, &[])?));
    let mut visit = Visit::new(asked.await?).map_err(DataError::from)?;
    let VisitReply::Members(members) = visit.hear().await.map_err(DataError::from)? else {
        return Err(DataError::from(VisitError::Strange).into());
    };
    let address = blocking(move || {
        let theirs = listening::of(&members);
        let found = theirs.iter().find(|address| address.port() == port);
        found.copied().ok_or_else(|| DataError::not_found(nobody(port, &theirs)))
    });
    let address = address.await?;
    let refused = |error| DataError::io(format!("port {port} does not accept: {error}"));
    let late = |_| DataError::io(format!("port {port} does not accept"));
    let stream = timeout(PATIENCE, TcpStream::connect(listening::reached_at(address))).await;
    let stream = stream.map_err(late)?.map_err(refused)?;
    // Small answers of an interactive program must not wait for the next ones.
    let _ = stream.set_nodelay(true);
    let opened = ForwardOpened { attempt: place.attempt.0, node: String::new() };
    say(answers, Output::Opened(opened)).await?;
    if want.probe {
        return Ok(());
    }
    let (from, to) = stream.into_split();
    tokio::select! {
        carried = carry_out(from, answers) => Ok(carried?),
        cut = inflow::carry(To::Port(to), inputs, answers, grants, sent) => Err(cut),
    }
}

/// Why a port is not reached, with those that would be.
fn nobody(port: u16, theirs: &[std::net::SocketAddr]) -> String {
    let mut ports: Vec<u16> = theirs.iter().map(std::net::SocketAddr::port).collect();
    ports.sort_unstable();
    ports.dedup();
    let ports: Vec<String> = ports.iter().take(16).map(u16::to_string).collect();
    match ports.is_empty() {
        true => format!("no process of it listens on port {port} here, nor on any other"),
        false => {
            format!(
                "no process of it listens on port {port} here; it listens on {}",
                ports.join(", ")
            )
        }
    }
}

async fn say(answers: &Answers, what: Output) -> Result<(), Gone> {
    answers.send(Said::Forward(ForwardOutput { what: Some(what) })).await
}

async fn carry_out(mut from: OwnedReadHalf, answers: &Answers) -> Result<(), Gone> {
    let mut buffer = vec![0; VISIT_CHUNK_BYTES_MAX];
    loop {
        match from.read(&mut buffer).await {
            Ok(count) if count > 0 => {
                say(answers, Output::Data(Bytes::copy_from_slice(&buffer[..count]))).await?;
            }
            Ok(_) | Err(_) => return say(answers, Output::End(ForwardEnd {})).await,
        }
    }
}

/// What is sent.
fn sent(data: MemberData) -> Came {
    // Something of a newer version has no input.
    let Some(Want::ForwardInput(ForwardInput { what: Some(input) })) = data.what else {
        return Came::Nothing;
    };
    match input {
        Input::Data(bytes) => Came::Bytes(bytes),
        Input::End(_) => Came::End,
        Input::Start(_) => Came::Nothing,
    }
}

fn grants(bytes: u64) -> Said {
    Said::Forward(ForwardOutput { what: Some(Output::Grant(VisitGrant { bytes })) })
}
