//! Visits of a job that runs: a program beside its ranks, a connection to one of its ports.

use crate::{Client, ClientError};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use yard_common::limits::{VISIT_CHUNK_BYTES_MAX, VISIT_WINDOW_BYTES};
use yard_proto::v1::interactive_service_client::InteractiveServiceClient;
use yard_proto::v1::{
    ExecInput, ExecInputEnd, ExecOutput, ExecStart, ForwardEnd, ForwardInput, ForwardOutput,
    ForwardStart, TerminalSize, VisitGrant, exec_input, exec_output, forward_input, forward_output,
};

/// Messages that wait to be sent; what makes them waits beyond it.
const QUEUE_LEN_MAX: usize = 8;

/// A visit: what is sent, and what comes. It does not outlive its connection, and is not tried
/// again: the program would be another one.
#[derive(Debug)]
pub struct Visit<In, Out> {
    inputs: Inputs<In>,
    outputs: Streaming<Out>,
}

/// Where to send. When all are gone, and the visit is dropped, it ends.
///
/// Bytes wait for the machine to grant them, of which it is heard where the visit is: so whoever
/// sends must go on to ask [`Visit::next`].
#[derive(Debug)]
pub struct Inputs<In> {
    queue: mpsc::Sender<In>,
    /// Bytes that may be sent. Closed with the visit.
    granted: Arc<Semaphore>,
}

/// The visit is over: nothing can be sent any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisitOver;

/// A program beside a rank.
pub type Exec = Visit<ExecInput, ExecOutput>;
/// A connection to a port.
pub type Forward = Visit<ForwardInput, ForwardOutput>;

impl Client {
    /// Runs a program beside a rank. What comes of it is heard from [`Visit::next`]; refusals of
    /// the rank's machine too.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn exec(&self, start: ExecStart) -> Result<Exec, ClientError> {
        let first = ExecInput { what: Some(exec_input::What::Start(start)) };
        self.attempt(|channel| {
            let (inputs, queue) = opened(first.clone());
            async move {
                let mut client = InteractiveServiceClient::new(channel);
                let answer = client.exec(ReceiverStream::new(queue)).await?;
                Ok(answer.map(|outputs| Visit::new(inputs, outputs)))
            }
        })
        .await
    }

    /// Connects to a port of a rank's machine. See [`Client::exec`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn forward(&self, start: ForwardStart) -> Result<Forward, ClientError> {
        let first = ForwardInput { what: Some(forward_input::What::Start(start)) };
        self.attempt(|channel| {
            let (inputs, queue) = opened(first.clone());
            async move {
                let mut client = InteractiveServiceClient::new(channel);
                let answer = client.forward(ReceiverStream::new(queue)).await?;
                Ok(answer.map(|outputs| Visit::new(inputs, outputs)))
            }
        })
        .await
    }
}

/// A queue that begins with this.
fn opened<T>(first: T) -> (mpsc::Sender<T>, mpsc::Receiver<T>) {
    let (inputs, queue) = mpsc::channel(QUEUE_LEN_MAX);
    // It is empty, and its other end is here.
    let _ = inputs.try_send(first);
    (inputs, queue)
}

impl<In, Out> Visit<In, Out> {
    fn new(queue: mpsc::Sender<In>, outputs: Streaming<Out>) -> Visit<In, Out> {
        let granted = Arc::new(Semaphore::new(0));
        Visit { inputs: Inputs { queue, granted }, outputs }
    }

    /// Where to send.
    #[must_use]
    pub fn inputs(&self) -> Inputs<In> {
        self.inputs.clone()
    }
}

impl<In, Out> Drop for Visit<In, Out> {
    fn drop(&mut self) {
        self.inputs.granted.close();
    }
}

impl<In> Clone for Inputs<In> {
    fn clone(&self) -> Inputs<In> {
        Inputs { queue: self.queue.clone(), granted: Arc::clone(&self.granted) }
    }
}

impl<In> Inputs<In> {
    /// So many more bytes may be sent; never more than a window, whatever a machine says.
    fn grant(&self, grant: VisitGrant) {
        let room = VISIT_WINDOW_BYTES.saturating_sub(self.granted.available_permits());
        self.granted.add_permits(usize::try_from(grant.bytes).unwrap_or(room).min(room));
    }

    async fn send(&self, what: In) -> Result<(), VisitOver> {
        self.queue.send(what).await.map_err(|_| VisitOver)
    }

    async fn send_bytes(&self, bytes: Bytes, wrap: fn(Bytes) -> In) -> Result<(), VisitOver> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(VISIT_CHUNK_BYTES_MAX));
            self.granted.acquire_many(part.len() as u32).await.map_err(|_| VisitOver)?.forget();
            self.send(wrap(part)).await?;
        }
        Ok(())
    }
}

impl Inputs<ExecInput> {
    /// Types this, once it was granted.
    ///
    /// # Errors
    /// If the visit is over.
    pub async fn write(&self, bytes: Bytes) -> Result<(), VisitOver> {
        let wrap = |bytes| ExecInput { what: Some(exec_input::What::Stdin(bytes)) };
        self.send_bytes(bytes, wrap).await
    }

    /// Nothing more is typed.
    ///
    /// # Errors
    /// See [`Inputs::write`].
    pub async fn end(&self) -> Result<(), VisitOver> {
        self.send(ExecInput { what: Some(exec_input::What::End(ExecInputEnd {})) }).await
    }

    /// The terminal has another size.
    ///
    /// # Errors
    /// See [`Inputs::write`].
    pub async fn resize(&self, size: TerminalSize) -> Result<(), VisitOver> {
        self.send(ExecInput { what: Some(exec_input::What::Size(size)) }).await
    }
}

impl Inputs<ForwardInput> {
    /// Sends this, once it was granted.
    ///
    /// # Errors
    /// If the visit is over.
    pub async fn write(&self, bytes: Bytes) -> Result<(), VisitOver> {
        let wrap = |bytes| ForwardInput { what: Some(forward_input::What::Data(bytes)) };
        self.send_bytes(bytes, wrap).await
    }

    /// Nothing more is sent.
    ///
    /// # Errors
    /// See [`Inputs::write`].
    pub async fn end(&self) -> Result<(), VisitOver> {
        self.send(ForwardInput { what: Some(forward_input::What::End(ForwardEnd {})) }).await
    }
}

impl Exec {
    /// What comes next, but for grants; `None`: that was all. May be dropped and called again.
    ///
    /// # Errors
    /// If it was refused, or the connection broke.
    pub async fn next(&mut self) -> Result<Option<exec_output::What>, ClientError> {
        loop {
            match self.outputs.message().await? {
                Some(ExecOutput { what: Some(exec_output::What::Grant(grant)) }) => {
                    self.inputs.grant(grant);
                }
                Some(ExecOutput { what: Some(what) }) => return Ok(Some(what)),
                // Something of a newer version.
                Some(ExecOutput { what: None }) => {}
                None => return Ok(None),
            }
        }
    }
}

impl Forward {
    /// See [`Exec::next`].
    ///
    /// # Errors
    /// If it was refused, or the connection broke.
    pub async fn next(&mut self) -> Result<Option<forward_output::What>, ClientError> {
        loop {
            match self.outputs.message().await? {
                Some(ForwardOutput { what: Some(forward_output::What::Grant(grant)) }) => {
                    self.inputs.grant(grant);
                }
                Some(ForwardOutput { what: Some(what) }) => return Ok(Some(what)),
                // Something of a newer version.
                Some(ForwardOutput { what: None }) => {}
                None => return Ok(None),
            }
        }
    }
}
