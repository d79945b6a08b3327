//! Leaving on purpose: the coordinator is asked not to give the node up for a while.
//!
//! What is granted is handed to the shims if ranks run, which then count on it until it ends, for
//! no deadline ever moves back. So it can be given back early only if no rank ran.

use super::Shared;
use super::certificate::wall_ms;
use std::time::Duration;
use thiserror::Error;
use tokio::time::{sleep, timeout};
use yard_common::id::RequestId;
use yard_common::limits::MEMBERS_MAX;
use yard_core::lease::times::DRIFT_PPM;
use yard_proto::convert::request_id_bytes;
use yard_proto::v1::MaintenanceRequest;
use yard_proto::v1::node_service_client::NodeServiceClient;
use yard_runtime::identity::Tree;
use yard_runtime::tls::{ConnectError, Expect, channel};

/// How long one member may take.
const ANSWER: Duration = Duration::from_secs(1);
/// The wait before all of them are asked again.
const AGAIN: Duration = Duration::from_millis(100);
/// What a kill may take after a deadline, with room.
const KILL_MS: u64 = 500;

/// Why nothing was granted.
#[derive(Debug, Error)]
pub(crate) enum MaintenanceError {
    /// Nobody to ask.
    #[error("no member is known")]
    Nobody,
    /// The address cannot be any.
    #[error("the address is none: {0}")]
    Address(#[from] ConnectError),
    /// It is late.
    #[error("the member does not answer")]
    Late,
    /// It is refused.
    #[error("{}", super::link::told(.0))]
    Status(Box<tonic::Status>),
}

/// Asks until a member commits it or the patience is over; `for_ms` of 0 gives it back.
pub(crate) async fn ask(
    shared: &Shared,
    for_ms: u64,
    patience: Duration,
) -> Result<(), MaintenanceError> {
    // One request, however often it is asked.
    let request = RequestId::from_u128(rand::random());
    let mut last = MaintenanceError::Nobody;
    let asked = async {
        loop {
            for address in shared.rosters.addresses().iter().take(MEMBERS_MAX) {
                match ask_one(shared, address, request, for_ms).await {
                    Ok(()) => return,
                    Err(error) => last = error,
                }
            }
            sleep(AGAIN).await;
        }
    };
    let granted = timeout(patience, asked).await.is_ok();
    if granted { Ok(()) } else { Err(last) }
}

async fn ask_one(
    shared: &Shared,
    address: &str,
    request: RequestId,
    for_ms: u64,
) -> Result<(), MaintenanceError> {
    let channel = channel(address, &shared.tls, Expect::Any(Tree::Member))?;
    let mut client = NodeServiceClient::new(channel);
    let (request_id, node) = (request_id_bytes(request), shared.name.clone());
    let asked = client.maintenance(MaintenanceRequest { request_id, node, for_ms });
    let answered = timeout(ANSWER, asked).await.map_err(|_| MaintenanceError::Late)?;
    answered.map_err(|status| MaintenanceError::Status(Box::new(status)))?;
    tracing::info!(for_ms, at_wall_ms = wall_ms(), "maintenance is committed");
    Ok(())
}

/// Until when ranks may count on what was granted for `for_ms`, by the boot clock, if it was asked
/// for at `asked_ms`: the members may count faster, and a kill takes its time.
pub(crate) fn until_ms(asked_ms: u64, for_ms: u64) -> u64 {
    let slack_ms = for_ms.saturating_mul(3 * DRIFT_PPM).div_ceil(1_000_000) + KILL_MS;
    asked_ms.saturating_add(for_ms.saturating_sub(slack_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_count_on_less_than_was_granted() {
        assert_eq!(until_ms(1_000, 120_000), 1_000 + 120_000 - 360 - 500);
        assert_eq!(until_ms(1_000, 0), 1_000);
        assert_eq!(until_ms(u64::MAX, 600_000), u64::MAX);
    }
}
