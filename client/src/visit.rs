//! Visits of a job that runs: a program beside its ranks, a connection to one of its ports.

use crate::{Client, ClientError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use yard_proto::v1::interactive_service_client::InteractiveServiceClient;
use yard_proto::v1::{
    ExecInput, ExecOutput, ExecStart, ForwardInput, ForwardOutput, ForwardStart, exec_input,
    exec_output, forward_input, forward_output,
};

/// Messages that wait to be sent; what makes them waits beyond it.
const QUEUE_LEN_MAX: usize = 8;

/// A visit: what is sent, and what comes. It does not outlive its connection, and is not tried
/// again: the program would be another one.
#[derive(Debug)]
pub struct Visit<In, Out> {
    inputs: mpsc::Sender<In>,
    outputs: Streaming<Out>,
}

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
                Ok(answer.map(|outputs| Visit { inputs, outputs }))
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
                Ok(answer.map(|outputs| Visit { inputs, outputs }))
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
    /// Where to send. When every sender is gone, the visit ends.
    #[must_use]
    pub fn inputs(&self) -> mpsc::Sender<In> {
        self.inputs.clone()
    }
}

impl Exec {
    /// What comes next; `None`: that was all. May be dropped and called again.
    ///
    /// # Errors
    /// If it was refused, or the connection broke.
    pub async fn next(&mut self) -> Result<Option<exec_output::What>, ClientError> {
        loop {
            match self.outputs.message().await? {
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
                Some(ForwardOutput { what: Some(what) }) => return Ok(Some(what)),
                // Something of a newer version.
                Some(ForwardOutput { what: None }) => {}
                None => return Ok(None),
            }
        }
    }
}
