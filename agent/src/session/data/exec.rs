//! A program that somebody runs beside a rank: what it reads and writes goes through here.

use super::inflow::{self, Came, To};
use super::place::Place;
use super::{Answers, Cut, DataError, Gone, blocking};
use crate::session::Shared;
use crate::shim::message::{VisitProgram, VisitReply, VisitRequest};
use crate::sys;
use crate::visit::{self, Visit, VisitError};
use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::unistd::{Uid, fchown, pipe2};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use tokio::io::unix::AsyncFd;
use tonic::Streaming;
use yard_common::limits::{TERMINAL_SIZE_MAX, VISIT_CHUNK_BYTES_MAX};
use yard_proto::internal::agent_data::What as Said;
use yard_proto::internal::member_data::What as Want;
use yard_proto::internal::{ExecWant, MemberData};
use yard_proto::v1::exec_input::What as Input;
use yard_proto::v1::exec_output::What as Output;
use yard_proto::v1::{ExecEnded, ExecInput, ExecOutput, ExecStarted, TerminalSize, VisitGrant};
use yard_runtime::shutdown::CancellationToken;

/// What is read at most once the program has ended: more than a pipe or a terminal holds. What it
/// left running may go on writing for ever.
const LAST_BYTES: usize = 1 << 20;

/// Our ends of a program's files.
#[derive(Debug)]
struct Ends {
    input: AsyncFd<File>,
    output: AsyncFd<File>,
    /// None on a terminal, where it is one with the output.
    errors: Option<AsyncFd<File>>,
    /// The terminal, to change its size.
    terminal: Option<File>,
}

/// The same as files, before there is anybody to wait for them.
#[derive(Debug)]
struct Files {
    input: OwnedFd,
    output: OwnedFd,
    errors: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

/// Runs a program, until it has ended or nobody wants it any more.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    want: ExecWant,
    answers: &Answers,
    inputs: &mut Streaming<MemberData>,
) -> Result<(), Cut> {
    let place = Place::new(shared, want.assignment)?;
    let start = want.start.unwrap_or_default();
    let program = VisitProgram {
        task: place.task,
        attempt: place.attempt,
        local_rank: want.local_rank,
        words: start.words,
        on_terminal: start.terminal.is_some(),
        term: Some(start.term).filter(|term| !term.is_empty()),
    };
    let (home, owner) = (shared.paths.shim(place.id), place.owner());
    let opened = blocking(move || {
        let (files, theirs) = match start.terminal {
            Some(size) => terminal(size, owner),
            None => pipes(),
        }
        .map_err(|error| DataError::io(format!("files for the program: {error}")))?;
        let stream = visit::ask(&home, &VisitRequest::Run(program), &theirs)?;
        Ok((files, stream))
    });
    let (files, stream) = opened.await?;
    let mut visit = Visit::new(stream).map_err(DataError::from)?;
    match visit.hear().await.map_err(DataError::from)? {
        VisitReply::Started => {}
        VisitReply::Refused(problem) => return Err(DataError::not_found(problem).into()),
        VisitReply::Ended(_) | VisitReply::Members(_) | VisitReply::Asked(_) => {
            return Err(DataError::from(VisitError::Strange).into());
        }
    }
    let ends = Ends::new(files).map_err(|error| DataError::io(error.to_string()))?;
    let started = ExecStarted { attempt: place.attempt.0, node: String::new() };
    say(answers, Output::Started(started)).await?;
    let code = relay(ends, &mut visit, answers, inputs).await?;
    say(answers, Output::Ended(ExecEnded { code })).await?;
    Ok(())
}

async fn say(answers: &Answers, what: Output) -> Result<(), Gone> {
    answers.send(Said::Exec(ExecOutput { what: Some(what) })).await
}

/// Carries bytes to and fro. The code of the program, once all that it wrote is on its way.
async fn relay(
    ends: Ends,
    visit: &mut Visit,
    answers: &Answers,
    inputs: &mut Streaming<MemberData>,
) -> Result<i32, Cut> {
    let over = CancellationToken::new();
    let Ends { input, output, errors, terminal } = ends;
    let outputs = async {
        let output = carry_out(&output, &over, Output::Stdout, answers);
        let errors = async {
            match &errors {
                Some(errors) => carry_out(errors, &over, Output::Stderr, answers).await,
                None => Ok(()),
            }
        };
        tokio::try_join!(output, errors).map(drop)
    };
    let ended = async {
        loop {
            if let VisitReply::Ended(code) = visit.hear().await? {
                over.cancel();
                return Ok::<i32, VisitError>(code);
            }
        }
    };
    let all = async {
        let (written, code) = tokio::join!(outputs, ended);
        written?;
        Ok(code.map_err(DataError::from)?)
    };
    let sort = |data| typed(data, terminal.as_ref());
    tokio::select! {
        code = all => code,
        cut = inflow::carry(To::Program(input), inputs, answers, grants, sort) => Err(cut),
    }
}

/// What the program writes, until it has ended and all of it was read. What it left running in the
/// background may hold its files for ever, and is not waited for.
async fn carry_out(
    from: &AsyncFd<File>,
    over: &CancellationToken,
    wrap: fn(Bytes) -> Output,
    answers: &Answers,
) -> Result<(), Gone> {
    let mut buffer = vec![0; VISIT_CHUNK_BYTES_MAX];
    let mut rest = LAST_BYTES;
    loop {
        let read = match over.is_cancelled() {
            true => from.get_ref().read(&mut buffer),
            false => {
                let mut ready = tokio::select! {
                    ready = from.readable() => match ready {
                        Ok(ready) => ready,
                        Err(_) => return Ok(()),
                    },
                    () = over.cancelled() => continue,
                };
                match ready.try_io(|from| from.get_ref().read(&mut buffer)) {
                    Ok(read) => read,
                    Err(_) => continue,
                }
            }
        };
        match read {
            Ok(0) => return Ok(()),
            Ok(count) => {
                say(answers, wrap(Bytes::copy_from_slice(&buffer[..count]))).await?;
                if over.is_cancelled() {
                    rest = rest.saturating_sub(count);
                    if rest == 0 {
                        return Ok(());
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Nothing is left after the end, or, on a terminal, everybody has left it.
            Err(_) => return Ok(()),
        }
    }
}

/// What is typed.
fn typed(data: MemberData, terminal: Option<&File>) -> Came {
    // Something of a newer version has no input.
    let Some(Want::ExecInput(ExecInput { what: Some(input) })) = data.what else {
        return Came::Nothing;
    };
    match input {
        Input::Stdin(bytes) => Came::Bytes(bytes),
        // A terminal goes on.
        Input::End(_) if terminal.is_none() => Came::End,
        Input::Size(size) => {
            if let Some(terminal) = terminal {
                // A size that cannot be set does no harm.
                let _ = sys::set_terminal_size(terminal.as_fd(), &window(size));
            }
            Came::Nothing
        }
        Input::End(_) | Input::Start(_) => Came::Nothing,
    }
}

fn grants(bytes: u64) -> Said {
    Said::Exec(ExecOutput { what: Some(Output::Grant(VisitGrant { bytes })) })
}

fn window(size: TerminalSize) -> Winsize {
    let bounded = |value: u32| u16::try_from(value.min(TERMINAL_SIZE_MAX)).unwrap_or(u16::MAX);
    let (ws_col, ws_row) = (bounded(size.columns), bounded(size.rows));
    Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }
}

/// A terminal of this size that belongs to the job's user.
fn terminal(size: TerminalSize, owner: Option<u32>) -> io::Result<(Files, [OwnedFd; 3])> {
    let pty = openpty(Some(&window(size)), None)?;
    close_on_exec(&pty.master)?;
    close_on_exec(&pty.slave)?;
    if let Some(uid) = owner
        && nix::unistd::geteuid().is_root()
    {
        // Its group stays that of all terminals: it may write.
        fchown(&pty.slave, Some(Uid::from_raw(uid)), None)?;
    }
    let theirs = [pty.slave.try_clone()?, pty.slave.try_clone()?, pty.slave];
    let files = Files {
        input: pty.master.try_clone()?,
        terminal: Some(pty.master.try_clone()?),
        output: pty.master,
        errors: None,
    };
    Ok((files, theirs))
}

fn pipes() -> io::Result<(Files, [OwnedFd; 3])> {
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from);
    let ((stdin, input), (output, stdout), (errors, stderr)) = (pipe()?, pipe()?, pipe()?);
    let files = Files { input, output, errors: Some(errors), terminal: None };
    Ok((files, [stdin, stdout, stderr]))
}

fn close_on_exec(fd: &OwnedFd) -> Result<(), Errno> {
    fcntl(fd, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).map(drop)
}

impl Ends {
    fn new(files: Files) -> io::Result<Ends> {
        Ok(Ends {
            input: sys::watched(files.input)?,
            output: sys::watched(files.output)?,
            errors: files.errors.map(sys::watched).transpose()?,
            terminal: files.terminal.map(File::from),
        })
    }
}
