//! What the descriptors of the .proto files tell.

use prost::Message;
use prost_types::FileDescriptorSet;

/// Descriptors of the public API alone, for reflection.
pub const PUBLIC_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/public.bin"));

/// Descriptors of everything.
const ALL_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/all.bin"));

/// One call of one service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rpc {
    /// As in the address of a request: `/yard.v1.JobService/Submit`.
    pub path: String,
    /// Full name of the request's message: `yard.v1.SubmitRequest`.
    pub request: String,
    /// Full name of the response's message.
    pub response: String,
    /// Whether the client sends a stream.
    pub client_streams: bool,
    /// Whether the server sends a stream.
    pub server_streams: bool,
}

impl Rpc {
    /// Whether it belongs to the public API.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.path.starts_with("/yard.v1.")
    }
}

/// Every call of every service, public and internal, sorted by path.
#[must_use]
pub fn rpcs() -> Vec<Rpc> {
    let mut found = Vec::new();
    for file in descriptors().file {
        let package = file.package().to_string();
        for service in &file.service {
            found.extend(service.method.iter().map(|method| Rpc {
                path: format!("/{package}.{}/{}", service.name(), method.name()),
                request: method.input_type().trim_start_matches('.').to_string(),
                response: method.output_type().trim_start_matches('.').to_string(),
                client_streams: method.client_streaming(),
                server_streams: method.server_streaming(),
            }));
        }
    }
    found.sort();
    found
}

/// The descriptors that this crate was built from.
pub(crate) fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(ALL_DESCRIPTORS).expect("the build wrote these bytes itself")
}
