//! Visits of a job that runs: `exec`, `forward`, and `run --pty`.

use crate::args::{ExecArgs, ForwardArgs, Global, JobSource};
use crate::failure::{Failure, exit};
use crate::output::say;
use crate::select::choose_one;
use crate::session::Session;
use crate::terminal::{self, Raw};
use std::io::{self, Write};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use yard_client::{Client, ClientError, Exec, Inputs, WatchItem};
use yard_proto::v1;
use yard_proto::v1::{exec_output, forward_output};

/// Connections that are forwarded at a time; further ones wait.
const CONNECTIONS_MAX: usize = 24;
/// Bytes that go to a port at a time.
const CHUNK_BYTES: usize = 32 * 1024;
/// How long a job may take to end after its terminal was closed.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// The job of `run --pty`: it waits until a program was run beside it, and ends as that did. The
/// program holds the other end of a pipe, so that this one hears of its end however it comes. If
/// nobody comes within 5 minutes, such as when the terminal was closed meanwhile, it ends.
const HOLDS: &str = "f=\"$YARD_JOB_TEMP/.terminal-$YARD_ATTEMPT\"; mkfifo -m 600 \"$f\" || exit 1; \
                     (sleep 300; [ -e \"$f.on\" ] || : > \"$f\") & \
                     read -r code < \"$f\" || code=129; exit \"$code\"";
/// What runs beside it.
const ATTACHES: &str = "f=\"$YARD_JOB_TEMP/.terminal-$YARD_ATTEMPT\"; \
                        until [ -p \"$f\" ]; do sleep 0.02; done; : > \"$f.on\"; \
                        exec 9> \"$f\"; \"$@\" 9>&-; code=$?; echo \"$code\" >&9; \
                        exit \"$code\"";

/// Runs a program beside a rank.
pub(crate) async fn exec(session: &Session, args: &ExecArgs) -> Result<u8, Failure> {
    let place = place(session, &args.job, args.rank, args.attempt).await?;
    let on_terminal = args.pty || (!args.no_pty && terminal::is_there());
    beside(&session.client, place, args.words.clone(), on_terminal).await
}

/// The rank that a command line names.
async fn place(
    session: &Session,
    job: &str,
    rank: u32,
    attempt: Option<u32>,
) -> Result<v1::RankPlace, Failure> {
    let chosen = choose_one(session, job).await?;
    let task_index = chosen.only_task()?.unwrap_or(0);
    Ok(v1::RankPlace { job_id: chosen.job, task_index, attempt: attempt.unwrap_or(0), rank })
}

/// Runs a program beside a rank until it ends; its code.
async fn beside(
    client: &Client,
    place: v1::RankPlace,
    words: Vec<String>,
    on_terminal: bool,
) -> Result<u8, Failure> {
    let start = v1::ExecStart {
        place: Some(place),
        words,
        terminal: on_terminal.then(terminal::size),
        term: std::env::var("TERM").ok().filter(|_| on_terminal).unwrap_or_default(),
    };
    let mut exec = client.exec(start).await?;
    let mut typing = None;
    loop {
        let what = match exec.next().await {
            Ok(Some(what)) => what,
            Ok(None) => {
                let message = "the connection ended before the program did";
                return Err(Failure::new(exit::NO_STATUS, message, ""));
            }
            // It ran, and nobody will know how it ends.
            Err(error) if typing.is_some() => {
                return Err(Failure { exit: exit::NO_STATUS, ..error.into() });
            }
            Err(error) => return Err(error.into()),
        };
        match what {
            exec_output::What::Started(_) => {
                // Not before: what is typed ahead of a refusal is for the shell here.
                typing = Some(Typing::new(&exec, on_terminal)?);
            }
            exec_output::What::Stdout(bytes) => write(io::stdout().lock(), &bytes)?,
            exec_output::What::Stderr(bytes) => write(io::stderr().lock(), &bytes)?,
            exec_output::What::Ended(ended) => {
                drop(typing);
                return Ok(u8::try_from(ended.code).unwrap_or(u8::MAX));
            }
            // The visit keeps them to itself.
            exec_output::What::Grant(_) => {}
        }
    }
}

fn write(mut to: impl Write, bytes: &[u8]) -> Result<(), Failure> {
    let written = to.write_all(bytes).and_then(|()| to.flush());
    written.map_err(|error| Failure::local(&error, ""))
}

/// What is typed here goes there. Dropped, the terminal is as it was.
struct Typing {
    _tasks: JoinSet<()>,
    _raw: Option<Raw>,
}

impl Typing {
    fn new(exec: &Exec, on_terminal: bool) -> Result<Typing, Failure> {
        let mut tasks = JoinSet::new();
        let raw = on_terminal.then(Raw::take);
        tasks.spawn(type_on(exec.inputs()));
        if on_terminal {
            let resized = signal(SignalKind::window_change());
            let mut resized = resized.map_err(|error| Failure::local(&error, ""))?;
            let inputs = exec.inputs();
            tasks.spawn(async move {
                while resized.recv().await.is_some() {
                    if inputs.resize(terminal::size()).await.is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Typing { _tasks: tasks, _raw: raw })
    }
}

async fn type_on(inputs: Inputs<v1::ExecInput>) {
    let mut typed = terminal::typed();
    while let Some(bytes) = typed.recv().await {
        if inputs.write(bytes.into()).await.is_err() {
            return;
        }
    }
    // Whoever has ended needs no more.
    let _ = inputs.end().await;
}

/// A job whose one rank has the terminal of this process.
pub(crate) async fn run_on_terminal(global: &Global, source: &JobSource) -> Result<u8, Failure> {
    if source.words.is_empty() || source.file.is_some() {
        let hint = "yard run --pty -- bash; resources are flags, such as --gpus 1";
        return Err(Failure::usage("--pty takes a command, and no job file", hint));
    }
    if !terminal::is_there() {
        let hint = "leave --pty out: `yard run` shows the output as it comes";
        return Err(Failure::usage("--pty needs a terminal", hint));
    }
    let mut held = source.clone();
    let is_launcher = |set: &String| set.starts_with("launch=");
    if held.fields.launch.is_some() || held.set.iter().any(is_launcher) {
        let hint = "leave --launch out; start the others from the terminal, with YARD_HOSTS";
        return Err(Failure::usage("--pty is of one process, on the first node", hint));
    }
    // Nobody would tell the other ranks of a gang that the terminal is closed.
    held.fields.launch = Some("custom".into());
    held.words = ["/bin/sh", "-c", HOLDS].map(String::from).into();
    if held.fields.name.is_none() && !held.set.iter().any(|set| set.starts_with("name=")) {
        held.fields.name = name_of(&source.words[0]);
    }
    let prepared = super::submit::prepare(global, &held).await?;
    let session = Session::open(global).await?;
    let answer = super::submit::send(&session, &held, &prepared).await?;
    let job = answer.job_id;
    say(&format!("job {job} ({}) is submitted", prepared.spec.name()));
    let mut interrupts = super::run::interrupts()?;
    let runs = tokio::select! {
        runs = until_it_runs(&session, job) => runs,
        _ = interrupts.recv() => Ok(false),
    };
    if !matches!(runs, Ok(true)) {
        let request = v1::CancelRequest { job_id: job, ..v1::CancelRequest::default() };
        // One that has ended needs none.
        let _ = session.client.cancel(request).await;
        runs?;
        return super::wait::until_ended(&session, &[job], false, Some(END_PATIENCE)).await;
    }
    drop(interrupts);
    let attaches = ["/bin/sh", "-c", ATTACHES, "yard"].map(String::from);
    let words = attaches.into_iter().chain(source.words.iter().cloned()).collect();
    let place = v1::RankPlace { job_id: job, ..v1::RankPlace::default() };
    let ended = beside(&session.client, place, words, true).await;
    if ended.is_err() {
        let reason = "its terminal could not be opened, or was lost".to_string();
        let request = v1::CancelRequest { job_id: job, reason, ..v1::CancelRequest::default() };
        let _ = session.client.cancel(request).await;
    }
    session.remember_members();
    let code = ended?;
    let of_job = super::wait::until_ended(&session, &[job], false, Some(END_PATIENCE)).await?;
    Ok(if of_job == exit::TIMED_OUT { code } else { of_job })
}

/// A name of a job after its program.
fn name_of(program: &str) -> Option<String> {
    let name = program.rsplit('/').next().unwrap_or(program).to_lowercase();
    Some(name).filter(|name| yard_common::name::is_name(name))
}

/// Waits until a job runs, and tells its phases; false: it has ended.
async fn until_it_runs(session: &Session, job_id: u64) -> Result<bool, Failure> {
    let mut told = String::new();
    loop {
        let answer = session.client.job(v1::GetJobRequest { job_id }).await?;
        let job = answer.job.unwrap_or_default();
        let phase = crate::view::job::summary(&job);
        if phase != told {
            say(&format!("job {job_id} is {phase}"));
            told = phase;
        }
        if crate::outcome::has_ended(&job) {
            return Ok(false);
        }
        if v1::JobState::try_from(job.state) == Ok(v1::JobState::Running) {
            return Ok(true);
        }
        let mut watch = super::run::watch(session, job_id, answer.applied_index);
        // Until anything happens to it; then it is looked at again.
        while let Some(WatchItem::Progress(_)) = watch.next().await? {}
    }
}

/// Ports of a job, on ports of this machine.
pub(crate) async fn forward(session: &Session, args: &ForwardArgs) -> Result<u8, Failure> {
    let place = place(session, &args.job, args.rank, args.attempt).await?;
    let mut listeners = JoinSet::new();
    for port in &args.ports {
        let start = v1::ForwardStart { place: Some(place), port: port.there.into(), probe: false };
        let node = probe(&session.client, start).await?;
        let listener = TcpListener::bind(("127.0.0.1", port.here)).await.map_err(|error| {
            let message = format!("port {} of this machine cannot be used: {error}", port.here);
            let hint = format!("choose another one: yard forward {} 0:{}", args.job, port.there);
            Failure::usage(message, hint)
        })?;
        let here = listener.local_addr().map_err(|error| Failure::local(&error, ""))?;
        say(&format!("http://{here} is port {} of job {} on {node}", port.there, place.job_id));
        listeners.spawn(listen(session.client.clone(), start, listener));
    }
    let mut interrupts = super::run::interrupts()?;
    tokio::select! {
        ended = listeners.join_next() => match ended {
            Some(Ok(failure)) => Err(failure),
            Some(Err(_)) | None => Ok(0),
        },
        _ = interrupts.recv() => Ok(0),
    }
}

/// The node on which somebody listens.
async fn probe(client: &Client, start: v1::ForwardStart) -> Result<String, Failure> {
    let mut probe = client.forward(v1::ForwardStart { probe: true, ..start }).await?;
    match probe.next().await? {
        Some(forward_output::What::Opened(opened)) => Ok(opened.node),
        Some(_) | None => Err(ClientError::Incomplete("node").into()),
    }
}

/// Takes connections until one is refused for good.
async fn listen(client: Client, start: v1::ForwardStart, listener: TcpListener) -> Failure {
    let mut connections: JoinSet<Result<(), Failure>> = JoinSet::new();
    loop {
        let full = connections.len() >= CONNECTIONS_MAX;
        tokio::select! {
            Some(ended) = connections.join_next() => {
                if let Ok(Err(failure)) = ended {
                    if !passes(failure.exit) {
                        return failure;
                    }
                    say(&format!("note: a connection failed: {}", failure.message));
                }
            }
            accepted = listener.accept(), if !full => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(carry(client.clone(), start, stream));
                }
            }
        }
    }
}

/// Whether a connection that failed like that says nothing about the next one: a server may start
/// again, and coordinators elect a leader.
fn passes(code: u8) -> bool {
    matches!(code, exit::REFUSED | exit::NOT_FOUND | exit::UNREACHABLE)
}

/// One connection, until the job closes it or this end is gone.
async fn carry(client: Client, start: v1::ForwardStart, stream: TcpStream) -> Result<(), Failure> {
    let _ = stream.set_nodelay(true);
    let mut there = client.forward(start).await?;
    let inputs = there.inputs();
    let (mut from, mut to) = stream.into_split();
    let send = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let is_over = match from.read(&mut buffer).await {
                Ok(count) if count > 0 => {
                    inputs.write(buffer[..count].to_vec().into()).await.is_err()
                }
                Ok(_) => {
                    // A visit that is over needs no more.
                    let _ = inputs.end().await;
                    true
                }
                Err(_) => return,
            };
            if is_over {
                // The other half may still say something.
                return std::future::pending().await;
            }
        }
    };
    let receive = async move {
        while let Some(what) = there.next().await? {
            match what {
                forward_output::What::Opened(_) | forward_output::What::Grant(_) => {}
                forward_output::What::Data(data) => {
                    if to.write_all(&data).await.is_err() {
                        return Ok(());
                    }
                }
                forward_output::What::End(_) => return Ok(()),
            }
        }
        Ok::<(), ClientError>(())
    };
    tokio::select! {
        received = receive => Ok(received?),
        () = send => Ok(()),
    }
}
