//! Clients of a real cluster, by the library that users have, with everything that they saw
//! written down; and what a history must stand afterwards.

use super::logbook;
use super::trio::{GPUS, MEMBERS, Trio};
use crate::calls::{Requests, changed, moves, refusal, shown, submitted};
use crate::chance::Chance;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;
use yard_client::{Client, ClientError};
use yard_common::ErrorCode;
use yard_integration::history::{Answer, Call, ClientNumber, History, Outcome, Recorder};
use yard_integration::linear::Bounds;
use yard_integration::objects;
use yard_integration::replay::{self, Needs};
use yard_proto::v1;

/// Clients of a load.
const CLIENTS: u32 = 4;
/// The longest pause between two calls of a client, in milliseconds.
const PAUSE_MS: u64 = 40;
/// Between two tries while a disk is full.
const FULL_PAUSE: Duration = Duration::from_millis(100);
/// How long a client asks while disks are full, until nobody knows.
const FULL_PATIENCE: Duration = Duration::from_secs(2);
/// Jobs that clients change and look at: the latest ones.
const LATEST: usize = 3;

/// The body of a job that a test holds in its hand.
pub(crate) const HELD: u64 = 2_000_000;

/// What clients share.
struct Shared {
    recorder: Recorder,
    begun: Instant,
    jobs: Mutex<Vec<u64>>,
    stop: AtomicBool,
    /// Answers that told of a full disk.
    full: AtomicUsize,
    /// Where ranks are seen.
    witness: PathBuf,
}

impl Shared {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn latest_jobs(&self) -> Vec<u64> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs[jobs.len().saturating_sub(LATEST)..].to_vec()
    }
}

/// Clients at work.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts clients that go on until [`Load::end`].
    pub(crate) fn start(trio: &Trio, seed: u64) -> Load {
        let witness = trio.home.path("witness");
        std::fs::create_dir(&witness).expect("a folder can be made");
        let shared = Arc::new(Shared {
            recorder: Recorder::default(),
            begun: Instant::now(),
            jobs: Mutex::default(),
            stop: AtomicBool::new(false),
            full: AtomicUsize::new(0),
            witness,
        });
        let mut clients = JoinSet::new();
        let _within = trio.runtime().enter();
        for number in 0..CLIENTS {
            let client = trio.client_from(number as usize);
            let caller = Caller::new(number, seed, client, Arc::clone(&shared));
            clients.spawn(caller.run());
        }
        Load { shared, clients }
    }

    /// Submits a job that no client of the load changes; its number.
    pub(crate) fn submit(&self, trio: &Trio, command: &str) -> u64 {
        let call = Call::Submit(HELD);
        let request = u128::from(u32::MAX) << 64;
        let now_ms = || self.shared.now_ms();
        let begun = self.shared.recorder.begin(u32::MAX, Some(request), call, now_ms());
        let asked = trio.runtime().block_on(async {
            let client = trio.client_from(0);
            client.submit(submit(request, HELD, format!("command: {command:?}\n"))).await
        });
        let (answer, index) = submitted(asked.expect("the cluster is well"));
        self.shared.recorder.end(begun, Outcome::Answered { answer, index }, now_ms());
        let Answer::Job(job) = answer else { panic!("a submit is answered with a job") };
        job
    }

    /// Milliseconds of the history.
    pub(crate) fn now_ms(&self) -> u64 {
        self.shared.now_ms()
    }

    /// Calls that were answered so far.
    pub(crate) fn answered(&self) -> usize {
        self.shared.recorder.history().answered()
    }

    /// Waits until so many more calls are answered.
    pub(crate) fn await_more(&self, calls: usize) {
        let before = self.answered();
        super::await_true(&format!("{calls} more calls are answered"), || {
            self.answered() >= before + calls
        });
    }

    /// Answers so far that told of a full disk.
    pub(crate) fn full(&self) -> usize {
        self.shared.full.load(Ordering::Relaxed)
    }

    /// Ends it, waits until all members are the same, and checks what clients saw: against the
    /// model, by the log that the members have, and without it.
    ///
    /// # Panics
    /// If it cannot have been so, or too little was answered to tell.
    pub(crate) fn end(mut self, trio: &Trio, needs: Needs) -> History {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = trio.runtime().block_on(self.clients.join_next()) {
            ended.expect("no client panics");
        }
        trio.await_whole();
        let history = self.shared.recorder.history();
        // A refusal names no entry: this one comes after all of them.
        let last = trio
            .runtime()
            .block_on(async { trio.client_from(0).job(v1::GetJobRequest::default()).await });
        let told = last.expect("there is a first job").applied_index;
        let read = |member: u8| {
            let copy = trio.home.path(&format!("log{member}-{}", history.operations.len()));
            trio.runtime().block_on(logbook::read(&trio.folder(member), &copy))
        };
        let books = MEMBERS.map(read);
        for (member, book) in MEMBERS.into_iter().zip(&books) {
            let differs = logbook::differ(&books[0], book, told);
            assert_eq!(differs, None, "member {member} has another entry than member 1");
        }
        let records = logbook::tell(&books[0], told);
        let all = || history.operations.iter().map(|one| format!("\n  {one}")).collect::<String>();
        replay::check(&history, &records, needs)
            .unwrap_or_else(|wrong| panic!("{wrong}\nthe history:{}", all()));
        let checked = objects::check(&history, &[], moves, Bounds::default())
            .unwrap_or_else(|found| panic!("{found}\nthe history:{}", all()));
        let twice = std::fs::read_to_string(self.shared.witness.join("twice")).unwrap_or_default();
        assert_eq!(twice, "", "jobs that found another one at their GPU");
        println!(
            "{} calls answered, {} unknown, {} jobs, {} entries",
            history.answered(),
            history.unknown(),
            checked.jobs,
            told
        );
        history
    }
}

/// The longest time in which no change was answered, from this moment of the history on.
pub(crate) fn longest_gap_ms(history: &History, from_ms: u64, to_ms: u64) -> u64 {
    let changes = history.operations.iter().filter(|one| !one.call.is_read());
    let answered = changes.filter(|one| one.answered().is_some()).filter_map(|one| one.ended);
    let mut ends: Vec<u64> = answered.map(|ended| ended.at_ms).collect();
    ends.extend([from_ms, to_ms]);
    ends.retain(|at_ms| (from_ms..=to_ms).contains(at_ms));
    ends.sort_unstable();
    ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

/// One client.
struct Caller {
    requests: Requests,
    chance: Chance,
    client: Client,
    shared: Arc<Shared>,
}

impl Caller {
    fn new(number: ClientNumber, seed: u64, client: Client, shared: Arc<Shared>) -> Caller {
        let chance = Chance::new(seed, &format!("client {number}"));
        Caller { requests: Requests::new(number, CLIENTS), chance, client, shared }
    }

    async fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(self.chance.within(0, PAUSE_MS))).await;
            self.call().await;
        }
    }

    /// Calls once, and writes down what came of it.
    async fn call(&mut self) {
        let shared = Arc::clone(&self.shared);
        let (request, call) = self.requests.next(&mut self.chance, &shared.latest_jobs());
        let client = self.requests.client();
        let begun = shared.recorder.begin(client, request, call, shared.now_ms());
        let until = Instant::now() + FULL_PATIENCE;
        let (answer, index) = loop {
            let error = match self.ask(call, request).await {
                Ok(told) => break told,
                Err(error) => error,
            };
            match &error {
                ClientError::Refused(told) => {
                    let code = told.code.as_deref().unwrap_or_default();
                    if let Some(refusal) = refusal(code) {
                        break (Answer::Refused(refusal), None);
                    }
                    assert_eq!(code, ErrorCode::DiskFull.to_string(), "{call:?}: {error:?}");
                    shared.full.fetch_add(1, Ordering::Relaxed);
                    if Instant::now() < until {
                        sleep(FULL_PAUSE).await;
                        continue;
                    }
                }
                ClientError::TimedOut(_) | ClientError::Unreachable(_) => {}
                _ => panic!("{call:?}: {error:?}"),
            }
            self.requests.go_on_as_another();
            return;
        };
        if let Answer::Job(job) = answer {
            let mut jobs = shared.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            if !jobs.contains(&job) {
                jobs.push(job);
            }
        }
        shared.recorder.end(begun, Outcome::Answered { answer, index }, shared.now_ms());
    }

    async fn ask(
        &self,
        call: Call,
        request: Option<u128>,
    ) -> Result<(Answer, Option<u64>), ClientError> {
        let id = || bytes::Bytes::from(request.unwrap_or(0).to_be_bytes().to_vec());
        let client = &self.client;
        match call {
            Call::Submit(body) => {
                let rest = work(&self.shared.witness, body);
                client.submit(submit(request.unwrap_or(0), body, rest)).await.map(submitted)
            }
            Call::Cancel(job_id) => {
                let request = v1::CancelRequest { request_id: id(), job_id, ..Default::default() };
                client.cancel(request).await.map(changed)
            }
            Call::Hold(job_id) => {
                let request = v1::HoldRequest { request_id: id(), job_id, reason: "test".into() };
                client.hold(request).await.map(changed)
            }
            Call::Release(job_id) => {
                client.release(v1::ReleaseRequest { request_id: id(), job_id }).await.map(changed)
            }
            Call::Show(job_id) => client.job(v1::GetJobRequest { job_id }).await.map(shown),
        }
    }
}

fn submit(request: u128, body: u64, rest: String) -> v1::SubmitRequest {
    let request_id = bytes::Bytes::from(request.to_be_bytes().to_vec());
    let (spec, submit_dir) = (format!("name: job-{body}\n{rest}"), "/".to_string());
    v1::SubmitRequest { request_id, spec, submit_dir, ..Default::default() }
}

/// What a job does: it holds a lock of its GPU, and tells if somebody else does. Locks go with
/// the process, however it ends.
fn work(witness: &Path, body: u64) -> String {
    let folder = witness.display();
    let command = format!(
        "exec 9>{folder}/$CUDA_VISIBLE_DEVICES; flock -n 9 || echo $YARD_JOB_ID >>{folder}/twice; \
         exec sleep 0.05"
    );
    let gpus = if moves(body) { 1 } else { GPUS + 1 };
    let resources = format!("resources: {{ gpus: {gpus}, cpus: 0.1, memory: 32MiB }}\n");
    format!("command: {command:?}\n{resources}")
}
