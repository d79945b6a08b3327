//! How many plays of the scheduler run beside its own work: to explain jobs, and to try them out.
//!
//! Each may take as long as a whole round, on a thread that blocks. What waits for its turn waits
//! for a short while, so that people who ask at the same moment are served, and a flood is not.

use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use yard_common::limits::EXPLAINS_MAX;

/// How long one waits for its turn.
const TURN: Duration = Duration::from_secs(1);

/// The turns of plays.
pub(crate) struct Plays(Arc<Semaphore>);

/// The turn of one. It is over when this is dropped, which its thread does: whoever asked may be
/// gone long before.
pub(crate) struct Play {
    _turn: OwnedSemaphorePermit,
}

/// There are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{EXPLAINS_MAX} jobs are being explained or tried out at present; try again")]
pub(crate) struct TooManyPlays;

impl Default for Plays {
    fn default() -> Plays {
        Plays(Arc::new(Semaphore::new(EXPLAINS_MAX)))
    }
}

impl Plays {
    /// Waits for a turn, but not for long.
    pub(crate) async fn enter(&self) -> Result<Play, TooManyPlays> {
        match timeout(TURN, Arc::clone(&self.0).acquire_owned()).await {
            Ok(Ok(turn)) => Ok(Play { _turn: turn }),
            Ok(Err(_)) | Err(_) => Err(TooManyPlays),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_few_play_at_a_time() {
        let plays = Plays::default();
        let mut playing = Vec::new();
        for _ in 0..EXPLAINS_MAX {
            playing.push(plays.enter().await.unwrap());
        }
        assert_eq!(plays.enter().await.err(), Some(TooManyPlays));
        playing.pop();
        assert!(plays.enter().await.is_ok());
    }
}
