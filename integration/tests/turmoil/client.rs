//! A client that calls members at random, with requests that it asks again until it has an answer.

use crate::agent::GPUS;
use crate::calls::{Requests, changed, moves, refusal, shown, submitted};
use crate::chance::Chance;
use crate::made::{MEMBERS, address};
use crate::net::{self, Wires};
use crate::world::World;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};
use yard_integration::history::{Answer, Call, ClientNumber, Outcome};
use yard_proto::convert::error::Refused;
use yard_proto::v1;
use yard_proto::v1::job_service_client::JobServiceClient;
use yard_runtime::identity::{Identity, Tree};
use yard_runtime::tls::{ClientTls, Expect, channel_over};

/// How long one member may take.
const TRY: Duration = Duration::from_millis(400);
/// How long a call is tried before its outcome is unknown; and now and then.
const PATIENCE: Duration = Duration::from_secs(15);
const IMPATIENCE: Duration = Duration::from_millis(300);
/// Calls that each client must get answered after the last fault.
const AFTER: usize = 5;

type Jobs = JobServiceClient<tonic::transport::Channel>;

/// A client.
pub(crate) struct Client {
    requests: Requests,
    chance: Chance,
    world: World,
    tls: Arc<ClientTls>,
    wires: Wires,
    channels: Vec<Option<Jobs>>,
    at: usize,
}

impl Client {
    /// Client `number` of `of`.
    pub(crate) fn new(
        number: ClientNumber,
        of: ClientNumber,
        seed: u64,
        identity: &Identity,
        world: World,
    ) -> Client {
        Client {
            requests: Requests::new(number, of),
            chance: Chance::new(seed, &format!("client {number}")),
            wires: Wires::new(world.trace.clone()),
            world,
            tls: ClientTls::new(identity).unwrap(),
            channels: (0..MEMBERS).map(|_| None).collect(),
            at: number as usize % MEMBERS as usize,
        }
    }

    /// Calls until enough calls were answered after the last fault.
    pub(crate) async fn run(mut self) -> turmoil::Result {
        while !self.world.joined() {
            sleep(Duration::from_millis(10)).await;
        }
        let mut after = 0;
        while after < AFTER {
            sleep(Duration::from_millis(self.chance.within(1, 100))).await;
            let healed = self.world.healed_ms().is_some();
            let answered = self.call().await;
            after += usize::from(healed && answered);
        }
        Ok(())
    }

    /// Calls once; whether it was answered.
    async fn call(&mut self) -> bool {
        let jobs = self.world.latest_jobs(3);
        let (request, call) = self.requests.next(&mut self.chance, &jobs);
        let begun = self.world.recorder.begin(self.requests.client(), request, call, now_ms());
        let patience = if self.chance.within(0, 4) == 0 { IMPATIENCE } else { PATIENCE };
        let until = Instant::now() + patience;
        while Instant::now() < until {
            let asked = timeout(TRY.min(patience), self.ask(call, request)).await;
            let status = match asked {
                Ok(Ok((answer, index))) => {
                    if let Answer::Job(job) = answer {
                        self.world.know(job);
                    }
                    let outcome = Outcome::Answered { answer, index };
                    self.world.recorder.end(begun, outcome, now_ms());
                    return true;
                }
                Ok(Err(status)) => Some(status),
                Err(_) => None,
            };
            self.move_on(call, status.as_ref());
            sleep(Duration::from_millis(self.chance.within(5, 100))).await;
        }
        self.requests.go_on_as_another();
        false
    }

    /// Another member next time. One that did not answer may sit behind a broken connection.
    fn move_on(&mut self, call: Call, status: Option<&Status>) {
        let lost = status.is_none_or(|status| std::error::Error::source(status).is_some());
        if lost {
            self.channels[self.at] = None;
        }
        if let Some(status) = status {
            let passes = [
                Code::Unavailable,
                Code::DeadlineExceeded,
                Code::Cancelled,
                Code::Unknown,
                Code::Internal,
                Code::ResourceExhausted,
            ];
            assert!(lost || passes.contains(&status.code()), "{call:?}: {status:?}");
        }
        self.at = (self.at + 1) % self.channels.len();
    }

    fn jobs(&mut self) -> Jobs {
        let at = self.at;
        let tls = &self.tls;
        let wires = &self.wires;
        let connect = || {
            let wires = wires.clone();
            let dial = move |host, port| net::dial(host, port, wires.clone());
            let to = address(at as u64 + 1);
            let expect = Expect::Any(Tree::Member);
            JobServiceClient::new(channel_over(&to, tls, expect, dial).unwrap())
        };
        self.channels[at].get_or_insert_with(connect).clone()
    }

    /// Asks one member once.
    async fn ask(
        &mut self,
        call: Call,
        request: Option<u128>,
    ) -> Result<(Answer, Option<u64>), Status> {
        let mut jobs = self.jobs();
        let id = || bytes::Bytes::from(request.unwrap_or(0).to_be_bytes().to_vec());
        let asked = match call {
            Call::Submit(body) => {
                let gpus = if moves(body) { 1 } else { GPUS + 1 };
                let resources = format!("resources: {{ gpus: {gpus} }}");
                let spec = format!("name: job-{body}\ncommand: 'true'\n{resources}\n");
                let submit_dir = "/srv".to_string();
                let request =
                    v1::SubmitRequest { request_id: id(), spec, submit_dir, ..Default::default() };
                jobs.submit(request).await.map(|told| submitted(told.into_inner()))
            }
            Call::Cancel(job_id) => {
                let request = v1::CancelRequest { request_id: id(), job_id, ..Default::default() };
                jobs.cancel(request).await.map(|told| changed(told.into_inner()))
            }
            Call::Hold(job_id) => {
                let request = v1::HoldRequest { request_id: id(), job_id, reason: "test".into() };
                jobs.hold(request).await.map(|told| changed(told.into_inner()))
            }
            Call::Release(job_id) => {
                let request = v1::ReleaseRequest { request_id: id(), job_id };
                jobs.release(request).await.map(|told| changed(told.into_inner()))
            }
            Call::Show(job_id) => {
                let told = jobs.get(v1::GetJobRequest { job_id }).await;
                told.map(|told| shown(told.into_inner()))
            }
        };
        asked.or_else(refused)
    }
}

/// What a refusal of the state means. It names no entry.
fn refused(status: Status) -> Result<(Answer, Option<u64>), Status> {
    match refusal(&Refused::read(&status).reason) {
        Some(refusal) => Ok((Answer::Refused(refusal), None)),
        None => Err(status),
    }
}

/// Milliseconds of the run.
pub(crate) fn now_ms() -> u64 {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
