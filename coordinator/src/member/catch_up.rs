//! Whether the state here can be judged by.
//!
//! **Invariant.** A member that starts has the state of its last snapshot, or none at all, and
//! applies its log while it listens already. Until it has applied everything that was answered
//! before it started, it tells nobody that he does not exist. Once it has, it never goes back: a
//! member that falls behind later knows everybody whom it knew.

use super::Member;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use yard_runtime::backoff::Backoff;

/// Whether this member has been, since it started, where the cluster was.
pub(crate) struct CatchUp(watch::Sender<bool>);

impl Default for CatchUp {
    fn default() -> CatchUp {
        CatchUp(watch::Sender::new(false))
    }
}

impl CatchUp {
    /// Whether it has.
    pub(crate) fn is_done(&self) -> bool {
        *self.0.borrow()
    }

    /// Tells when it has.
    pub(crate) fn changes(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}

/// Runs until the member has caught up, or is stopped.
pub(crate) async fn run(member: Arc<Member>, stop: CancellationToken) {
    let caught_up = async {
        let mut pause = Backoff::new(10, 500);
        loop {
            match member.barrier.index().await {
                Ok(index) => {
                    // What follows the state, such as the keeper of leases, must be there, too.
                    let mut seen = member.recent.seen();
                    let there = seen.wait_for(|seen| *seen >= index).await;
                    return there.is_ok();
                }
                Err(error) => tracing::debug!(%error, "not known yet how far the cluster is"),
            }
            tokio::time::sleep(pause.next(member.env.random())).await;
        }
    };
    let there = tokio::select! {
        () = stop.cancelled() => false,
        there = caught_up => there,
    };
    if there {
        tracing::info!(member = %member.id, "is up to date");
        member.caught_up.0.send_replace(true);
    }
    // A part that ends by itself ends the member.
    stop.cancelled().await;
}
