//! Watching events: a stream that goes on where it broke.

use crate::error::{Verdict, judge};
use crate::{Client, ClientError};
use tonic::Streaming;
use yard_proto::v1::cluster_service_client::ClusterServiceClient;
use yard_proto::v1::job_service_client::JobServiceClient;
use yard_proto::v1::watch_response::What;
use yard_proto::v1::{Event, EventsRequest, WatchJobsRequest, WatchResponse};

/// What a watch yields.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchItem {
    /// Something happened.
    Event(Event),
    /// Nothing more happened up to this index.
    Progress(u64),
    /// Events between are lost: list again, and watch from the list's index. The watch has ended.
    Compacted {
        /// The first index that can still be watched from.
        first_index: u64,
    },
}

#[derive(Debug)]
enum Subject {
    Jobs(WatchJobsRequest),
    All(EventsRequest),
}

/// A watch.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    subject: Subject,
    place: Place,
    stream: Option<Streaming<WatchResponse>>,
    ended: bool,
}

impl Watch {
    pub(crate) fn of_jobs(client: Client, request: WatchJobsRequest) -> Watch {
        let place = Place::new(request.from_index);
        Watch { client, subject: Subject::Jobs(request), place, stream: None, ended: false }
    }

    pub(crate) fn of_all(client: Client, request: EventsRequest) -> Watch {
        let place = Place::new(request.from_index);
        Watch { client, subject: Subject::All(request), place, stream: None, ended: false }
    }

    /// The next item; `None` only after [`WatchItem::Compacted`]. May be dropped and called again.
    ///
    /// # Errors
    /// If the watch is refused, or no member is reachable for longer than the client's patience.
    pub async fn next(&mut self) -> Result<Option<WatchItem>, ClientError> {
        while !self.ended {
            if self.stream.is_none() {
                self.stream = Some(self.open().await?);
            }
            let Some(stream) = &mut self.stream else { continue };
            match stream.message().await {
                Ok(Some(WatchResponse { what: Some(what) })) => {
                    if let Some(item) = self.place.take(what) {
                        self.ended = matches!(item, WatchItem::Compacted { .. });
                        return Ok(Some(item));
                    }
                }
                // Something of a later version, which says nothing to us.
                Ok(Some(WatchResponse { what: None })) => {}
                // The member stops; another one goes on.
                Ok(None) => self.stream = None,
                Err(status) if judge(&status) == Verdict::Final => return Err(status.into()),
                Err(_) => self.stream = None,
            }
        }
        Ok(None)
    }

    async fn open(&self) -> Result<Streaming<WatchResponse>, ClientError> {
        let from_index = self.place.from_index;
        match &self.subject {
            Subject::Jobs(request) => {
                let request = WatchJobsRequest { from_index, ..request.clone() };
                let open = |channel| {
                    let request = request.clone();
                    async move { JobServiceClient::new(channel).watch(request).await }
                };
                self.client.attempt(open).await
            }
            Subject::All(request) => {
                let request = EventsRequest { from_index, ..request.clone() };
                let open = |channel| {
                    let request = request.clone();
                    async move { ClusterServiceClient::new(channel).events(request).await }
                };
                self.client.attempt(open).await
            }
        }
    }
}

/// How far a watch is.
#[derive(Debug)]
struct Place {
    /// Where to go on.
    from_index: u64,
    /// The last event that was yielded: its index may have more, so the watch goes on from it.
    last: Option<(u64, u32)>,
}

impl Place {
    fn new(from_index: u64) -> Place {
        Place { from_index, last: None }
    }

    /// Takes a message; `None`: it was seen before.
    fn take(&mut self, what: What) -> Option<WatchItem> {
        match what {
            What::Event(event) => {
                let at = (event.index, event.position);
                if self.last.is_some_and(|last| at <= last) || event.index < self.from_index {
                    return None;
                }
                self.last = Some(at);
                self.from_index = event.index;
                Some(WatchItem::Event(event))
            }
            What::Progress(progress) => {
                let next = progress.applied_index.saturating_add(1);
                self.from_index = self.from_index.max(next);
                Some(WatchItem::Progress(progress.applied_index))
            }
            What::Compacted(compacted) => {
                Some(WatchItem::Compacted { first_index: compacted.first_index })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_proto::v1::{Compacted, Progress};

    fn event(index: u64, position: u32) -> What {
        What::Event(Event { index, position, ..Event::default() })
    }

    #[test]
    fn a_watch_that_goes_on_repeats_and_skips_nothing() {
        let mut place = Place::new(10);
        assert!(place.take(event(10, 0)).is_some());
        assert!(place.take(event(12, 0)).is_some());
        assert!(place.take(event(12, 1)).is_some());
        // The stream breaks here: the rest of index 12 is still to come.
        assert_eq!(place.from_index, 12);
        for seen in [event(12, 0), event(12, 1)] {
            assert_eq!(place.take(seen), None);
        }
        assert!(place.take(event(12, 2)).is_some());
        assert!(place.take(event(13, 0)).is_some());
    }

    #[test]
    fn progress_moves_a_quiet_watch() {
        let mut place = Place::new(0);
        let progress = What::Progress(Progress { applied_index: 40 });
        assert_eq!(place.take(progress), Some(WatchItem::Progress(40)));
        assert_eq!(place.from_index, 41);
        assert_eq!(place.take(event(40, 3)), None);
        let compacted = What::Compacted(Compacted { first_index: 90 });
        assert_eq!(place.take(compacted), Some(WatchItem::Compacted { first_index: 90 }));
    }
}
