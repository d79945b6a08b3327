//! Leaving on purpose: the coordinator is asked not to give the node up for a while.
//!
//! What is granted is handed to the shims if ranks run, which then count on it until it ends, for
//! no deadline ever moves back. So it can be given back early only if no rank ran. Otherwise the
//! agent says that it is back: then work comes again, and the time is kept.

use super::Shared;
use super::certificate::wall_ms;
use std::time::Duration;
use thiserror::Error;
use tokio::time::{sleep, timeout};
use yard_common::id::RequestId;
use yard_common::limits::MEMBERS_MAX;
use yard_proto::convert::request_id_bytes;
use yard_proto::v1::MaintenanceRequest;
use yard_proto::v1::node_service_client::NodeServiceClient;
use yard_runtime::identity::Tree;
use yard_runtime::tls::{ConnectError, Expect, channel};

/// How long one member may take.
const ANSWER: Duration = Duration::from_secs(1);
/// The wait before all of them are asked again.
const AGAIN: Duration = Duration::from_millis(100);

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

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// To be left alone.
    Leave {
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// Work, while the time that was granted is kept.
    Back,
    /// The end of it.
    End,
}

/// Asks until a member commits it or the patience is over.
pub(crate) async fn ask(
    shared: &Shared,
    what: Ask,
    patience: Duration,
) -> Result<(), MaintenanceError> {
    // One request, however often it is asked.
    let request = RequestId::from_u128(rand::random());
    let mut last = MaintenanceError::Nobody;
    let asked = async {
        loop {
            for address in shared.rosters.addresses().iter().take(MEMBERS_MAX) {
                match ask_one(shared, address, request, what).await {
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
    what: Ask,
) -> Result<(), MaintenanceError> {
    let channel = channel(address, &shared.tls, Expect::Any(Tree::Member))?;
    let mut client = NodeServiceClient::new(channel);
    let (request_id, node) = (request_id_bytes(request), shared.name.clone());
    let (for_ms, back) = match what {
        Ask::Leave { for_ms } => (for_ms, false),
        Ask::Back => (0, true),
        Ask::End => (0, false),
    };
    let asked = client.maintenance(MaintenanceRequest { request_id, node, for_ms, back });
    let answered = timeout(ANSWER, asked).await.map_err(|_| MaintenanceError::Late)?;
    answered.map_err(|status| MaintenanceError::Status(Box::new(status)))?;
    tracing::info!(?what, at_wall_ms = wall_ms(), "maintenance is committed");
    Ok(())
}
