//! Connections to members. Each purpose has its own: renewals to every member, the control stream,
//! one for each question about logs and files, and a short one for everything else.

use std::sync::Arc;
use tonic::transport::Channel;
use yard_common::limits::INTERNAL_MESSAGE_BYTES_MAX;
use yard_proto::internal::agent_service_client::AgentServiceClient;
use yard_runtime::tls::{ClientTls, ConnectError, Expect, channel};

/// How an agent speaks to a member.
pub(crate) type Client = AgentServiceClient<Channel>;

/// A connection that opens when it is used. Whoever is not `expect` hears nothing.
pub(crate) fn client(
    address: &str,
    tls: &Arc<ClientTls>,
    expect: Expect,
) -> Result<Client, ConnectError> {
    Ok(bounded(channel(address, tls, expect)?))
}

/// The client of a channel, with the bounds of messages.
pub(crate) fn bounded(channel: Channel) -> Client {
    AgentServiceClient::new(channel)
        .max_decoding_message_size(INTERNAL_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(INTERNAL_MESSAGE_BYTES_MAX)
}

/// The status of a call with what is behind it, for people.
pub(crate) fn told(status: &tonic::Status) -> String {
    let mut text = format!("{}: {}", status.code(), status.message());
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}
