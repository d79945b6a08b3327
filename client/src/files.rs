//! A file of a job: bytes that go on where they broke.

use crate::error::{Verdict, judge};
use crate::{Client, ClientError};
use tonic::Streaming;
use yard_proto::v1::job_service_client::JobServiceClient;
use yard_proto::v1::{ReadFileRequest, ReadFileResponse};

/// The bytes of a file, in order.
#[derive(Debug)]
pub struct FileBytes {
    client: Client,
    request: ReadFileRequest,
    stream: Option<Streaming<ReadFileResponse>>,
    /// Whether anything came: the first piece may be empty, and tells the size.
    begun: bool,
    ended: bool,
}

impl FileBytes {
    pub(crate) fn new(client: Client, request: ReadFileRequest) -> FileBytes {
        FileBytes { client, request, stream: None, begun: false, ended: false }
    }

    /// The next bytes; `None`: that was all. May be dropped and called again.
    ///
    /// # Errors
    /// If they are refused, or no member is reachable for longer than the client's patience.
    pub async fn next(&mut self) -> Result<Option<ReadFileResponse>, ClientError> {
        while !self.ended {
            if self.stream.is_none() {
                self.stream = Some(self.open().await?);
            }
            let Some(stream) = &mut self.stream else { continue };
            match stream.message().await {
                Ok(Some(piece)) if piece.offset == self.request.offset => {
                    if self.take(&piece) {
                        return Ok(Some(piece));
                    }
                }
                // Not what was asked for: asked again.
                Ok(Some(_)) => self.stream = None,
                Ok(None) => self.ended = true,
                Err(status) if judge(&status) == Verdict::Final => return Err(status.into()),
                Err(_) => self.stream = None,
            }
        }
        Ok(None)
    }

    /// Remembers how far it came; whether there is something to tell.
    fn take(&mut self, piece: &ReadFileResponse) -> bool {
        let len = piece.data.len() as u64;
        self.request.offset += len;
        if self.request.len > 0 {
            self.request.len = self.request.len.saturating_sub(len);
            // 0 would ask for all of it.
            self.ended |= self.request.len == 0;
        }
        !std::mem::replace(&mut self.begun, true) || len > 0
    }

    async fn open(&self) -> Result<Streaming<ReadFileResponse>, ClientError> {
        let open = |channel| {
            let request = self.request.clone();
            async move { JobServiceClient::new(channel).read_file(request).await }
        };
        self.client.attempt(open).await
    }
}
