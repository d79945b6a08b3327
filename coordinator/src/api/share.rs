//! The output of one machine's ranks, as a part of an attempt's logs.
//!
//! **Invariant.** A machine that does not answer spoils nothing for the others: of its streams it
//! is told that they are not complete, and why. Who follows them gets them again as soon as the
//! machine is back, from where they broke. Of a machine that is gone, the copies are told that
//! members keep.

use super::Api;
use super::copies::{CopyReader, is_away, last_lines_at};
use super::data::{failed, strange};
use super::refusal::Refusal;
use crate::sessions::{Answer, Answers, AskError, ask};
use futures_util::future::{BoxFuture, MaybeDone, maybe_done, poll_fn};
use futures_util::{FutureExt, stream};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::sleep;
use tonic::{Code, Status};
use yard_common::id::{AllocationId, AttemptNumber, JobId, NodeId};
use yard_proto::internal::agent_data::What;
use yard_proto::internal::{LogWant, member_data};
use yard_proto::v1::{self, LogsResponse, logs_response};

/// Streams of a machine of which a copy is looked for until one is found.
const COPIES_TRIED_MAX: usize = 16;
/// Of bytes between those that were copied.
const NOT_COPIED: &str = "the machine is gone, and the copy has the beginning and the end only";
/// Of whatever follows a copy.
const MACHINE_GONE: &str =
    "the machine is gone; this is a copy, which may lack what was written in the last seconds";
/// How often it is looked whether a machine that says nothing is gone.
const LOOK: Duration = Duration::from_secs(1);
/// Pause before a machine whose output is followed is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// The output of one machine's ranks.
pub(super) struct Share {
    api: Api,
    node: NodeId,
    first_rank: u32,
    /// What is still wanted, from where on.
    want: LogWant,
    /// Whether no other machine has a part of the attempt.
    alone: bool,
    asked: MaybeDone<BoxFuture<'static, Result<Answer, AskError>>>,
    answer: Option<Answer>,
    /// Where copies come from, if the machine is gone.
    copies: Option<CopyReader>,
    /// Whether it was told that the machine does not answer.
    told: bool,
    out: VecDeque<logs_response::What>,
    over: bool,
}

impl Share {
    pub(super) fn new(
        api: &Api,
        (node, first_rank): (NodeId, u32),
        want: LogWant,
        alone: bool,
    ) -> Share {
        Share {
            asked: maybe_done(question(api, node, &want)),
            api: api.clone(),
            node,
            first_rank,
            want,
            alone,
            answer: None,
            copies: None,
            told: false,
            out: VecDeque::new(),
            over: false,
        }
    }

    /// Its part of the logs, until the end.
    pub(super) fn stream(self) -> Answers<LogsResponse> {
        Box::pin(stream::unfold(Some(self), |share| async move {
            let mut share = share?;
            match share.next().await {
                Ok(Some(what)) => Some((Ok(LogsResponse { what: Some(what) }), Some(share))),
                Ok(None) => None,
                Err(refusal) => Some((Err(refusal.into()), None)),
            }
        }))
    }

    async fn next(&mut self) -> Result<Option<logs_response::What>, Refusal> {
        loop {
            if let Some(what) = self.out.pop_front() {
                return Ok(Some(what));
            }
            if self.over {
                return Ok(None);
            }
            if self.copies.is_some() {
                self.next_copy().await;
                continue;
            }
            let Some(answer) = &mut self.answer else {
                self.open().await?;
                continue;
            };
            let next = unless_gone(&self.api, self.node, answer.next());
            match next.await.unwrap_or_else(|| Err(gone())) {
                Ok(Some(What::Error(error))) => self.give_up(failed(&error))?,
                Ok(Some(what)) => self.take(what)?,
                Ok(None) => self.over = true,
                Err(status) => {
                    let message = format!("the agent's stream broke: {}", status.message());
                    self.lose(Refusal::unavailable(message)).await?;
                }
            }
        }
    }

    async fn open(&mut self) -> Result<(), Refusal> {
        Pin::new(&mut self.asked).await;
        match Pin::new(&mut self.asked).take_output() {
            Some(Ok(answer)) => {
                (self.answer, self.told) = (Some(answer), false);
                Ok(())
            }
            Some(Err(error)) => self.lose(error.into()).await,
            None => self.lose(strange()).await,
        }
    }

    /// The machine does not answer, or no more.
    async fn lose(&mut self, why: Refusal) -> Result<(), Refusal> {
        self.answer = None;
        self.look_for_copies().await;
        if self.copies.is_some() {
            return Ok(());
        }
        // A client comes back by itself, from where it was.
        if self.alone || !self.want.follow || !self.goes_on() {
            return self.give_up(why);
        }
        if !std::mem::replace(&mut self.told, true) {
            self.tell(why.message());
        }
        let question = question(&self.api, self.node, &self.want);
        self.asked = maybe_done(sleep(AGAIN).then(|()| question).boxed());
        Ok(())
    }

    /// Turns to the copies, if the machine is gone and there are some.
    pub(super) async fn look_for_copies(&mut self) {
        // What was written before the ranks is not copied.
        if self.want.prepare || !is_away(&self.api, self.node) {
            return;
        }
        let of = self.want.assignment.unwrap_or_default();
        let attempt = AttemptNumber(of.attempt);
        let mut reader = CopyReader::new(JobId(of.job_id), of.task_index, attempt);
        // One stream that wrote something is enough.
        for source in self.want.sources.iter().take(COPIES_TRIED_MAX) {
            let rank = self.first_rank.saturating_add(source.local_rank);
            if reader.read(&self.api, rank, source.stream(), source.offset).await.is_some() {
                self.copies = Some(reader);
                return;
            }
        }
    }

    /// Whether it tells of copies.
    pub(super) fn has_copies(&self) -> bool {
        self.copies.is_some()
    }

    /// Tells the next piece of the copies.
    async fn next_copy(&mut self) {
        let Some(reader) = &mut self.copies else { return };
        let Some(source) = self.want.sources.first_mut() else {
            self.over = true;
            return;
        };
        let (stream, offset) = (source.stream, source.offset);
        let rank = self.first_rank.saturating_add(source.local_rank);
        let found = match self.want.tail_lines {
            0 => reader.read(&self.api, rank, source.stream(), offset).await,
            lines => {
                let end = reader.read_end(&self.api, rank, source.stream(), offset).await;
                end.map(|(begin, mut bytes)| {
                    let at = last_lines_at(&bytes, lines);
                    (begin + at as u64, bytes.split_off(at).into())
                })
            }
        };
        let is_tail = self.want.tail_lines > 0;
        let gap = |offset, len, reason: &str| {
            let reason = reason.to_string();
            logs_response::What::Gap(v1::LogGap { rank, stream, offset, len, reason })
        };
        match found {
            Some((at, data)) if !data.is_empty() => {
                if at > offset && !is_tail {
                    self.out.push_back(gap(offset, at - offset, NOT_COPIED));
                }
                source.offset = at + data.len() as u64;
                let chunk = v1::LogChunk { rank, stream, offset: at, data, written_wall_ms: 0 };
                self.out.push_back(logs_response::What::Chunk(chunk));
                if !is_tail {
                    return;
                }
            }
            Some(_) | None => {}
        }
        let offset = source.offset;
        self.out.push_back(gap(offset, 0, MACHINE_GONE));
        let end = v1::LogEnd { rank, stream, offset, complete: false };
        self.out.push_back(logs_response::What::End(end));
        self.want.sources.remove(0);
    }

    /// Whether the attempt can still write something.
    fn goes_on(&self) -> bool {
        let assignment = self.want.assignment.unwrap_or_default();
        let (_, state) = self.api.raft.state();
        state.allocations.get(AllocationId(assignment.allocation_id)).is_some()
    }

    /// Nothing more comes from this machine.
    fn give_up(&mut self, why: Refusal) -> Result<(), Refusal> {
        if self.alone {
            return Err(why);
        }
        self.over = true;
        self.tell(why.message());
        let ends = self.want.sources.iter().map(|source| {
            logs_response::What::End(v1::LogEnd {
                rank: self.first_rank.saturating_add(source.local_rank),
                stream: source.stream,
                offset: source.offset,
                complete: false,
            })
        });
        self.out.extend(ends);
        Ok(())
    }

    /// Says why nothing comes at present; how much it is that is missing is not known.
    fn tell(&mut self, why: &str) {
        let gaps = self.want.sources.iter().map(|source| {
            logs_response::What::Gap(v1::LogGap {
                rank: self.first_rank.saturating_add(source.local_rank),
                stream: source.stream,
                offset: source.offset,
                len: 0,
                reason: why.to_string(),
            })
        });
        self.out.extend(gaps);
    }

    /// Takes a message of the agent, and remembers how far each stream is.
    fn take(&mut self, what: What) -> Result<(), Refusal> {
        let rank = |local: u32| self.first_rank.saturating_add(local);
        let (place, upto, told) = match what {
            What::Log(log) => {
                let upto = log.offset.saturating_add(log.data.len() as u64);
                let told = logs_response::What::Chunk(v1::LogChunk {
                    rank: rank(log.local_rank),
                    stream: log.stream,
                    offset: log.offset,
                    data: log.data,
                    written_wall_ms: log.written_wall_ms,
                });
                ((log.local_rank, log.stream), Some(upto), told)
            }
            What::LogGap(gap) => {
                let upto = gap.offset.saturating_add(gap.len);
                let told = logs_response::What::Gap(v1::LogGap {
                    rank: rank(gap.local_rank),
                    stream: gap.stream,
                    offset: gap.offset,
                    len: gap.len,
                    reason: gap.reason,
                });
                ((gap.local_rank, gap.stream), Some(upto), told)
            }
            What::LogEnd(end) => {
                let told = logs_response::What::End(v1::LogEnd {
                    rank: rank(end.local_rank),
                    stream: end.stream,
                    offset: end.offset,
                    complete: end.complete,
                });
                ((end.local_rank, end.stream), None, told)
            }
            What::Error(_)
            | What::Ticket(_)
            | What::Files(_)
            | What::File(_)
            | What::Exec(_)
            | What::Forward(_)
            | What::SetupLog(_)
            | What::Samples(_)
            | What::Checkpoint(_)
            | What::End(_) => {
                return Err(strange());
            }
        };
        let is =
            |source: &yard_proto::internal::LogSource| (source.local_rank, source.stream) == place;
        match upto {
            Some(upto) => {
                for source in self.want.sources.iter_mut().filter(|source| is(source)) {
                    source.offset = upto;
                }
            }
            None => self.want.sources.retain(|source| !is(source)),
        }
        self.out.push_back(told);
        Ok(())
    }
}

fn question(
    api: &Api,
    node: NodeId,
    want: &LogWant,
) -> BoxFuture<'static, Result<Answer, AskError>> {
    let (api, want) = (api.clone(), want.clone());
    async move {
        let asked = ask(&api, node, member_data::What::Log(want));
        let answer = unless_gone(&api, node, asked).await;
        answer.unwrap_or(Err(AskError::NotInTouch(node)))
    }
    .boxed()
}

/// Waits for something from a machine; none: the machine was given up meanwhile. Its connections
/// may seem to be open for long.
async fn unless_gone<T>(api: &Api, node: NodeId, wait: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(wait);
    loop {
        tokio::select! {
            done = &mut wait => return Some(done),
            () = sleep(LOOK) => if is_away(api, node) { return None },
        }
    }
}

fn gone() -> Status {
    Status::unavailable("the machine is gone")
}

/// Waits until the first of these machines answers. The others may take their time.
///
/// # Errors
/// If none of them does: what the first one said.
pub(super) async fn first_answer(shares: &mut [Share]) -> Result<(), Refusal> {
    let all_failed = poll_fn(|cx| {
        let mut waits = false;
        for share in shares.iter_mut() {
            let done = Pin::new(&mut share.asked).poll(cx).is_ready();
            match Pin::new(&mut share.asked).output_mut() {
                Some(Ok(_)) => return Poll::Ready(false),
                Some(Err(_)) | None => waits |= !done,
            }
        }
        if waits { Poll::Pending } else { Poll::Ready(true) }
    })
    .await;
    if !all_failed {
        return Ok(());
    }
    let asked = shares.iter_mut().find_map(|share| Pin::new(&mut share.asked).take_output());
    match asked {
        Some(Err(error)) => Err(error.into()),
        Some(Ok(_)) | None => Err(Refusal::plain(Code::NotFound, "no rank of it has a log")),
    }
}
