//! A client that calls members at random, with requests that it asks again until it has an answer.

use crate::agent::GPUS;
use crate::chance::Chance;
use crate::made::{MEMBERS, address};
use crate::net::{self, Wires};
use crate::world::World;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};
use yard_common::ErrorCode;
use yard_integration::history::{Answer, Call, ClientNumber, Outcome, Phase, Refusal, Shown};
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

/// Whether a job of this body can ever start. The others ask for more than any machine has.
pub(crate) fn moves(body: u64) -> bool {
    body.is_multiple_of(2)
}

/// A client.
pub(crate) struct Client {
    number: ClientNumber,
    /// Numbers that it goes on under, one by one.
    step: ClientNumber,
    chance: Chance,
    world: World,
    tls: Arc<ClientTls>,
    wires: Wires,
    channels: Vec<Option<Jobs>>,
    at: usize,
    requests: u64,
    /// The last change that it asked for, which it may ask for again.
    last: Option<(u128, Call)>,
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
            number,
            step: of,
            chance: Chance::new(seed, &format!("client {number}")),
            wires: Wires::new(world.trace.clone()),
            world,
            tls: ClientTls::new(identity).unwrap(),
            channels: (0..MEMBERS).map(|_| None).collect(),
            at: number as usize % MEMBERS as usize,
            requests: 0,
            last: None,
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
        let (request, call) = self.choose();
        let begun = self.world.recorder.begin(self.number, request, call, now_ms());
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
        // Nobody knows; whoever goes on is somebody else.
        self.number += self.step;
        false
    }

    fn choose(&mut self) -> (Option<u128>, Call) {
        let jobs = self.world.latest_jobs(3);
        let job = self.chance.of(&jobs);
        let call = match (self.chance.within(0, 20), job) {
            (0..3, _) | (_, None) => Call::Submit(self.chance.within(0, 1_000_000)),
            (3..5, Some(job)) => Call::Cancel(job),
            (5..9, Some(job)) => Call::Hold(job),
            (9..12, Some(job)) => Call::Release(job),
            (12, Some(_)) if self.last.is_some() => {
                let (request, call) = self.last.expect("it was just seen");
                return (Some(request), call);
            }
            (_, Some(job)) => return (None, Call::Show(job)),
        };
        self.requests += 1;
        let request = u128::from(self.number) << 64 | u128::from(self.requests);
        self.last = Some((request, call));
        (Some(request), call)
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
        let changed = |told: v1::JobChanged| (Answer::Tasks(told.tasks), Some(told.applied_index));
        let asked = match call {
            Call::Submit(body) => {
                let gpus = if moves(body) { 1 } else { GPUS + 1 };
                let resources = format!("resources: {{ gpus: {gpus} }}");
                let spec = format!("name: job-{body}\ncommand: 'true'\n{resources}\n");
                let submit_dir = "/srv".to_string();
                let request =
                    v1::SubmitRequest { request_id: id(), spec, submit_dir, ..Default::default() };
                let told = jobs.submit(request).await.map(tonic::Response::into_inner);
                told.map(|told| (Answer::Job(told.job_id), Some(told.applied_index)))
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
                told.map(tonic::Response::into_inner).map(|told| {
                    let job = told.job.unwrap_or_default();
                    let shown = Shown { phase: phase(job.state()), held: job.held.is_some() };
                    (Answer::Shown(shown), Some(told.applied_index))
                })
            }
        };
        asked.or_else(refused)
    }
}

/// What a refusal of the state means. It names no entry.
fn refused(status: Status) -> Result<(Answer, Option<u64>), Status> {
    let reason = Refused::read(&status).reason;
    let is = |code: ErrorCode| reason == code.to_string();
    let refusal = match () {
        () if is(ErrorCode::NotFound) => Refusal::NotFound,
        () if is(ErrorCode::AlreadyExists) => Refusal::Exists,
        () if is(ErrorCode::WrongState) => Refusal::WrongState,
        () => return Err(status),
    };
    Ok((Answer::Refused(refusal), None))
}

fn phase(state: v1::JobState) -> Phase {
    match state {
        v1::JobState::Queued => Phase::Waiting,
        v1::JobState::Preparing | v1::JobState::Running => Phase::Active,
        v1::JobState::Stopping => Phase::Stopping,
        v1::JobState::Succeeded => Phase::Succeeded,
        v1::JobState::Failed => Phase::Failed,
        v1::JobState::Cancelled => Phase::Cancelled,
        v1::JobState::Unspecified => panic!("a job without a state"),
    }
}

/// Milliseconds of the run.
pub(crate) fn now_ms() -> u64 {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
