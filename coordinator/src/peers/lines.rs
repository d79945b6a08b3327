//! Connections that are kept, and given up when nothing comes back.
//!
//! A network that loses what was sent, such as one whose router forgot its connections, leaves both
//! ends waiting: pings find out after ten seconds. Whoever asks knows sooner. As long as a member
//! does not get the log, the others must not fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::Channel;
use yard_common::id::MemberId;
use yard_common::limits::MEMBERS_MAX;
use yard_runtime::tls::ConnectError;

/// Connections that are kept: a few to each member.
const CHANNELS_MAX: usize = 4 * MEMBERS_MAX;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Line {
    Control,
    Log,
    Snapshot,
    Work,
}

/// The other end of a connection, and what it is for.
pub(super) type End = (MemberId, Line);

/// A connection.
struct Known {
    address: String,
    channel: Channel,
    /// Since when something was asked and nothing was answered.
    silent_since: Option<Instant>,
}

/// Connections by their ends. Clones are the same ones.
#[derive(Clone)]
pub(super) struct Lines {
    all: Arc<Mutex<BTreeMap<End, Known>>>,
    /// How long questions may go without any answer until the next one takes a new connection.
    silent: Duration,
}

impl Lines {
    pub(super) fn new(silent: Duration) -> Lines {
        Lines { all: Arc::default(), silent }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<End, Known>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes new connections from now on.
    pub(super) fn clear(&self) {
        self.all().clear();
    }

    /// The connection to ask over.
    pub(super) fn channel(
        &self,
        end: End,
        address: &str,
        open: impl FnOnce() -> Result<Channel, ConnectError>,
    ) -> Result<Channel, ConnectError> {
        let mut all = self.all();
        if let Some(known) = all.get(&end).filter(|known| known.address == address) {
            return Ok(known.channel.clone());
        }
        if all.len() >= CHANNELS_MAX {
            // Of members that are gone; those that are there connect again.
            all.clear();
        }
        let (channel, address) = (open()?, address.to_string());
        all.insert(end, Known { address, channel: channel.clone(), silent_since: None });
        Ok(channel)
    }

    /// Something is asked.
    pub(super) fn ask(&self, end: End) -> Question {
        if let Some(known) = self.all().get_mut(&end) {
            known.silent_since.get_or_insert_with(Instant::now);
        }
        Question { lines: self.clone(), end }
    }
}

/// A question under way. To drop it means that nobody waits for the answer any more.
#[must_use]
pub(super) struct Question {
    lines: Lines,
    end: End,
}

impl Question {
    /// The other end said something, or the connection is known to be broken: then it is opened
    /// again anyway.
    pub(super) fn heard(self) {
        if let Some(known) = self.lines.all().get_mut(&self.end) {
            known.silent_since = None;
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let mut all = self.lines.all();
        let silent = all.get(&self.end).and_then(|known| known.silent_since);
        if silent.is_some_and(|since| since.elapsed() >= self.lines.silent) {
            let (member, line) = self.end;
            tracing::debug!(%member, ?line, "nothing comes back; connects anew");
            // Who waits on it yet keeps it.
            all.remove(&self.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;
    use tonic::transport::Endpoint;

    const SILENT: Duration = Duration::from_secs(1);
    const END: End = (MemberId(2), Line::Log);

    /// Whether the next question takes a new connection.
    fn connects_anew(lines: &Lines) -> bool {
        let mut opened = false;
        let channel = lines.channel(END, "a:1", || {
            opened = true;
            Ok(Endpoint::from_static("http://a:1").connect_lazy())
        });
        channel.unwrap();
        opened
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_given_up_when_nothing_comes_back_for_long() {
        let lines = Lines::new(SILENT);
        assert!(connects_anew(&lines) && !connects_anew(&lines));
        let question = lines.ask(END);
        advance(SILENT / 2).await;
        drop(question);
        assert!(!connects_anew(&lines), "not at the first answer that is late");
        let question = lines.ask(END);
        advance(SILENT / 2).await;
        drop(question);
        assert!(connects_anew(&lines));
        let question = lines.ask(END);
        advance(SILENT / 2).await;
        question.heard();
        advance(SILENT).await;
        let question = lines.ask(END);
        advance(SILENT / 2).await;
        drop(question);
        assert!(!connects_anew(&lines), "time in which nothing is asked does not count");
    }

    #[tokio::test]
    async fn another_address_is_another_connection() {
        let lines = Lines::new(SILENT);
        assert!(connects_anew(&lines));
        let open = || Ok(Endpoint::from_static("http://b:1").connect_lazy());
        lines.channel(END, "b:1", open).unwrap();
        assert!(connects_anew(&lines), "the last one is kept");
        lines.clear();
        assert!(connects_anew(&lines));
    }
}
