//! What ranks wrote: streams of bytes with offsets that go on where they broke.

use crate::error::{Verdict, judge};
use crate::{Client, ClientError};
use std::collections::BTreeMap;
use tonic::Streaming;
use yard_proto::v1::job_service_client::JobServiceClient;
use yard_proto::v1::logs_response::What;
use yard_proto::v1::{LogChunk, LogEnd, LogGap, LogHead, LogPosition, LogsRequest, LogsResponse};

/// What the logs of an attempt yield.
#[derive(Clone, Debug, PartialEq)]
pub enum LogItem {
    /// Which attempt this is; first of all, and once.
    Head(LogHead),
    /// Bytes, in order within a rank's stream, none twice.
    Chunk(LogChunk),
    /// Bytes that are not there any more.
    Gap(LogGap),
    /// The end of one rank's stream, for now or for good.
    End(LogEnd),
}

/// The logs of an attempt.
#[derive(Debug)]
pub struct Logs {
    client: Client,
    request: LogsRequest,
    place: Place,
    stream: Option<Streaming<LogsResponse>>,
    ended: bool,
}

impl Logs {
    pub(crate) fn new(client: Client, request: LogsRequest) -> Logs {
        Logs { client, request, place: Place::default(), stream: None, ended: false }
    }

    /// The next item; `None`: that was all. May be dropped and called again.
    ///
    /// # Errors
    /// If they are refused, or no member is reachable for longer than the client's patience.
    pub async fn next(&mut self) -> Result<Option<LogItem>, ClientError> {
        while !self.ended {
            if self.stream.is_none() {
                self.stream = Some(self.open().await?);
            }
            let Some(stream) = &mut self.stream else { continue };
            match stream.message().await {
                Ok(Some(LogsResponse { what: Some(what) })) => {
                    if let Some(item) = self.place.take(what) {
                        return Ok(Some(item));
                    }
                }
                Ok(Some(LogsResponse { what: None })) => {}
                Ok(None) => self.ended = true,
                Err(status) if judge(&status) == Verdict::Final => return Err(status.into()),
                Err(_) => self.stream = None,
            }
        }
        Ok(None)
    }

    async fn open(&self) -> Result<Streaming<LogsResponse>, ClientError> {
        let request = self.place.resume(&self.request);
        let open = |channel| {
            let request = request.clone();
            async move { JobServiceClient::new(channel).logs(request).await }
        };
        self.client.attempt(open).await
    }
}

/// How far each stream is.
#[derive(Debug, Default)]
struct Place {
    /// The attempt that was begun with: a later one has other streams.
    head: Option<LogHead>,
    /// The next byte of each rank's stream.
    next: BTreeMap<(u32, i32), u64>,
}

impl Place {
    /// The request with which the streams go on.
    fn resume(&self, request: &LogsRequest) -> LogsRequest {
        let mut request = request.clone();
        if let Some(head) = &self.head {
            request.attempt = head.attempt;
        }
        let given = std::mem::take(&mut request.positions);
        let newer =
            |position: &LogPosition| !self.next.contains_key(&(position.rank, position.stream));
        request.positions.extend(given.into_iter().filter(newer));
        let known = self.next.iter();
        request.positions.extend(known.map(|(&(rank, stream), &offset)| LogPosition {
            rank,
            stream,
            offset,
        }));
        request
    }

    /// Takes a message, without what was seen before; `None`: all of it was.
    fn take(&mut self, what: What) -> Option<LogItem> {
        match what {
            What::Head(head) => {
                let first = self.head.is_none();
                self.head = Some(head);
                first.then_some(LogItem::Head(head))
            }
            What::Chunk(mut chunk) => {
                let next = self.next.entry((chunk.rank, chunk.stream)).or_insert(chunk.offset);
                let seen = next.saturating_sub(chunk.offset);
                let seen = usize::try_from(seen).unwrap_or(usize::MAX).min(chunk.data.len());
                chunk.data = chunk.data.slice(seen..);
                chunk.offset += seen as u64;
                if chunk.data.is_empty() {
                    return None;
                }
                *next = chunk.offset + chunk.data.len() as u64;
                Some(LogItem::Chunk(chunk))
            }
            What::Gap(gap) => {
                // Of how much nothing is known: it tells why no more comes at present.
                if gap.len == 0 {
                    return Some(LogItem::Gap(gap));
                }
                let end = gap.offset.saturating_add(gap.len);
                let next = self.next.entry((gap.rank, gap.stream)).or_insert(gap.offset);
                if end <= *next {
                    return None;
                }
                *next = end;
                Some(LogItem::Gap(gap))
            }
            What::End(end) => Some(LogItem::End(end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(rank: u32, offset: u64, text: &str) -> What {
        let data = text.to_string().into();
        What::Chunk(LogChunk { rank, stream: 1, offset, data, written_wall_ms: 0 })
    }

    fn text(item: Option<LogItem>) -> Option<(u64, String)> {
        match item? {
            LogItem::Chunk(chunk) => {
                Some((chunk.offset, String::from_utf8(chunk.data.to_vec()).unwrap()))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_comes_twice() {
        let mut place = Place::default();
        assert_eq!(text(place.take(chunk(0, 5, "abc"))), Some((5, "abc".into())));
        assert_eq!(text(place.take(chunk(0, 5, "abc"))), None);
        assert_eq!(text(place.take(chunk(0, 6, "bcde"))), Some((8, "de".into())));
        assert_eq!(text(place.take(chunk(1, 0, "xy"))), Some((0, "xy".into())));
        let head = LogHead { attempt: 3, ranks: 2 };
        assert_eq!(place.take(What::Head(head)), Some(LogItem::Head(head)));
        assert_eq!(place.take(What::Head(head)), None);
    }

    #[test]
    fn a_broken_stream_goes_on_at_each_rank() {
        let mut place = Place::default();
        place.take(What::Head(LogHead { attempt: 3, ranks: 4 }));
        place.take(chunk(0, 0, "abc"));
        let gap = LogGap { rank: 1, stream: 1, offset: 0, len: 90, reason: "rotated".into() };
        assert!(place.take(What::Gap(gap.clone())).is_some());
        assert!(place.take(What::Gap(gap.clone())).is_none());
        let away = LogGap { len: 0, reason: "the node is away".into(), ..gap };
        assert!(place.take(What::Gap(away)).is_some(), "it says why nothing comes");
        let position = |rank, offset| LogPosition { rank, stream: 1, offset };
        let asked = LogsRequest {
            job_id: 8,
            positions: vec![position(0, 1), position(2, 7)],
            ..LogsRequest::default()
        };
        let resumed = place.resume(&asked);
        assert_eq!((resumed.job_id, resumed.attempt), (8, 3));
        assert_eq!(resumed.positions, [position(2, 7), position(0, 3), position(1, 90)]);
    }
}
