//! The thread that asks NVML, and what is known without waiting for it.

use super::nvml::{self, Found, Known};
use super::{Options, Ours};
use crate::inventory::gpu::{self, GpuFinding};
use nvml_wrapper::Nvml;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;
use yard_common::gpu::GpuDevice;
use yard_core::health::{Answer, Reading};

/// Rounds until the library is loaded anew: it lists the GPUs that there were when it was loaded.
const ROUNDS_PER_LIBRARY: u32 = 30;
/// How often somebody who waits for a round looks whether it hangs.
const LOOK: Duration = Duration::from_millis(500);

/// What one round found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    /// Rises with each round that ended; 0: none has.
    pub(crate) nth: u64,
    pub(crate) finding: GpuFinding,
    pub(crate) found: Found,
}

/// How far the round is that runs now.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<Option<Busy>>);

#[derive(Clone, Debug)]
struct Busy {
    since: Instant,
    /// The GPU that is asked, if it is one.
    gpu: Option<String>,
}

impl Progress {
    fn set(&self, busy: Option<Busy>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = busy;
    }

    /// The round goes on to a GPU, or beyond them. Each gets the patience of a whole round.
    pub(super) fn at(&self, gpu: Option<&String>) {
        self.set(Some(Busy { since: Instant::now(), gpu: gpu.cloned() }));
    }

    /// Where it hangs, if it does.
    fn hangs(&self, patience: Duration) -> Option<Option<String>> {
        let busy = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        (busy.since.elapsed() >= patience).then_some(busy.gpu)
    }
}

/// The probe of one machine.
#[derive(Debug)]
pub(crate) struct Probe {
    rounds: watch::Receiver<Arc<Round>>,
    /// Asks for a round at once. None: the GPUs are made up.
    ask: Option<SyncSender<()>>,
    progress: Arc<Progress>,
    patience: Duration,
    stop: Arc<AtomicBool>,
}

impl Probe {
    /// Made-up GPUs, which are always well.
    pub(crate) fn fake(devices: Vec<GpuDevice>) -> Probe {
        let readings = devices.iter().map(|one| Reading::clean(&one.uuid, one.memory.0)).collect();
        let found = Found { devices, readings, ..Found::default() };
        let round = Round { nth: 1, finding: GpuFinding::Fake, found };
        let (_, rounds) = watch::channel(Arc::new(round));
        let (progress, stop) = (Arc::default(), Arc::default());
        Probe { rounds, ask: None, progress, patience: Duration::MAX, stop }
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(crate) fn start(options: &Options, ours: Ours) -> std::io::Result<Probe> {
        let none = Round { nth: 0, finding: GpuFinding::TimedOut, found: Found::default() };
        let (sender, rounds) = watch::channel(Arc::new(none));
        let (ask, asked) = mpsc::sync_channel(1);
        let progress = Arc::new(Progress::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped, options_of) = (progress.clone(), stop.clone(), options.clone());
        // It is never waited for: a thread that hangs in a driver cannot be ended.
        std::thread::Builder::new().name("yard-nvml".into()).spawn(move || {
            run(&options_of, &ours, &shared, &asked, &sender, &stopped);
        })?;
        Ok(Probe { rounds, ask: Some(ask), progress, patience: options.patience, stop })
    }

    /// What is known now: the last round, and what hangs in the one that runs.
    pub(crate) fn now(&self) -> Arc<Round> {
        let last = self.rounds.borrow().clone();
        match self.progress.hangs(self.patience) {
            None => last,
            Some(at) => Arc::new(with_hang(&last, at.as_deref())),
        }
    }

    /// Waits for something new: a round, or that the running one hangs. May be dropped.
    pub(crate) async fn changed(&mut self) {
        let was_hanging = self.progress.hangs(self.patience);
        loop {
            match timeout(LOOK, self.rounds.changed()).await {
                Ok(Ok(())) => return,
                // Made up, or a thread that crashed: what was known stays.
                Ok(Err(_)) => return std::future::pending().await,
                Err(_) if self.progress.hangs(self.patience) != was_hanging => return,
                Err(_) => {}
            }
        }
    }

    /// Somebody else who waits for rounds.
    pub(crate) fn watch(&self) -> Watch {
        Watch {
            rounds: self.rounds.clone(),
            ask: self.ask.clone(),
            progress: self.progress.clone(),
            patience: self.patience,
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(ask) = &self.ask {
            let _ = ask.try_send(());
        }
    }
}

/// See [`Probe::watch`].
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    rounds: watch::Receiver<Arc<Round>>,
    ask: Option<SyncSender<()>>,
    progress: Arc<Progress>,
    patience: Duration,
}

impl Watch {
    /// A round that began after this call, or what is known if it hangs.
    pub(crate) async fn fresh(&mut self) -> Arc<Round> {
        let Some(ask) = &self.ask else { return self.rounds.borrow().clone() };
        // The round that runs now began earlier.
        let nth = self.rounds.borrow().nth + 1 + u64::from(self.is_busy());
        loop {
            let _ = ask.try_send(());
            let last = self.rounds.borrow_and_update().clone();
            if last.nth >= nth {
                return last;
            }
            if let Some(at) = self.progress.hangs(self.patience) {
                return Arc::new(with_hang(&last, at.as_deref()));
            }
            if let Ok(Err(_)) = timeout(LOOK, self.rounds.changed()).await {
                return last;
            }
        }
    }

    fn is_busy(&self) -> bool {
        self.progress.hangs(Duration::ZERO).is_some()
    }
}

/// The last round, with what the next one hangs at.
fn with_hang(last: &Round, at: Option<&str>) -> Round {
    let mut round = last.clone();
    match at {
        Some(uuid) => {
            round.found.readings.retain(|reading| reading.uuid != uuid);
            let hung = Reading { answer: Answer::Hung, ..Reading::clean(uuid, 0) };
            round.found.readings.push(hung);
        }
        None => {
            round.found.readings.clear();
            round.finding = GpuFinding::TimedOut;
        }
    }
    round
}

fn run(
    options: &Options,
    ours: &Ours,
    progress: &Progress,
    asked: &mpsc::Receiver<()>,
    rounds: &watch::Sender<Arc<Round>>,
    stop: &AtomicBool,
) {
    let mut library: Option<(Nvml, u32)> = None;
    let mut known = Known::default();
    let mut nth = 0;
    while !stop.load(Ordering::Relaxed) {
        progress.at(None);
        let (finding, found) = round(options, ours, &mut library, &mut known, progress);
        progress.set(None);
        nth += 1;
        rounds.send_replace(Arc::new(Round { nth, finding, found }));
        match asked.recv_timeout(options.every) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// One round, with the library of the last one while it is good.
fn round(
    options: &Options,
    ours: &Ours,
    library: &mut Option<(Nvml, u32)>,
    known: &mut Known,
    progress: &Progress,
) -> (GpuFinding, Found) {
    if library.as_ref().is_some_and(|(_, rounds)| *rounds >= ROUNDS_PER_LIBRARY) {
        *library = None;
    }
    if library.is_none() {
        known.forget_peers();
        match gpu::load(options.library.as_deref()) {
            Ok(Some(nvml)) => *library = Some((nvml, 0)),
            Ok(None) => return (GpuFinding::NoLibrary, Found::default()),
            Err(error) => return (GpuFinding::Failed(error.to_string()), Found::default()),
        }
    }
    let Some((nvml, rounds)) = library else {
        return (GpuFinding::NoLibrary, Found::default());
    };
    *rounds += 1;
    match nvml::look(nvml, ours, known, progress) {
        Ok(found) => (GpuFinding::Nvml, found),
        Err(error) => {
            *library = None;
            (GpuFinding::Failed(error.to_string()), Found::default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_of(uuids: &[&str]) -> Round {
        let readings = uuids.iter().map(|uuid| Reading::clean(uuid, 1)).collect();
        let found = Found { readings, ..Found::default() };
        Round { nth: 3, finding: GpuFinding::Nvml, found }
    }

    #[test]
    fn a_hang_is_told_of_the_gpu_that_was_asked() {
        let progress = Progress::default();
        assert_eq!(progress.hangs(Duration::ZERO), None);
        progress.at(Some(&"b".to_string()));
        assert_eq!(progress.hangs(Duration::ZERO), Some(Some("b".into())));
        assert_eq!(progress.hangs(Duration::from_secs(3_600)), None);
        let round = with_hang(&round_of(&["a", "b"]), Some("b"));
        let answers: Vec<_> =
            round.found.readings.iter().map(|one| (&*one.uuid, one.answer.clone())).collect();
        assert_eq!(answers, [("a", Answer::Yes), ("b", Answer::Hung)]);
        assert_eq!(round.finding, GpuFinding::Nvml);
    }

    #[test]
    fn a_hang_beside_the_gpus_leaves_nothing_known() {
        let round = with_hang(&round_of(&["a", "b"]), None);
        assert_eq!((round.finding, round.found.readings.len()), (GpuFinding::TimedOut, 0));
    }
}
