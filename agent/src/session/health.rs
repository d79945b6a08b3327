//! Watches over the machine: tells what it has and what is wrong with it, ends what runs on GPUs
//! that fail, and checks before jobs.
//!
//! **Invariants:** what is told changes only when something came or went. No look and no check
//! holds up the next error of a driver.

use super::facts::{look, settled};
use super::memory::Memory;
use super::told::{self, Place, wall_ms};
use crate::cgroup::Support;
use crate::driver::{self, Check, DriverError, Refused, Wanted};
use crate::health::before;
use crate::health::command::Command;
use crate::health::probe::{Probe, Round};
use crate::health::xids::{Xid, Xids};
use crate::inventory::{self, GpuFinding};
use crate::setup::Told;
use crate::sys::boot_ms;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use yard_common::cause::PrepareStep;
use yard_common::condition::ConditionKind;
use yard_common::gpu::GpuDevice;
use yard_common::id::BootId;
use yard_common::limits::CHECK_MS;
use yard_core::agent::AssignmentId;
use yard_core::command::{Condition, Inventory};
use yard_core::health::{Judge, Seen};
use yard_proto::v1;
use yard_runtime::shutdown::CancellationToken;

/// How often the rest of the machine is looked at, and a check that failed is tried again.
const LOOK: Duration = Duration::from_secs(60);
/// How long a look for a check may take, all of it.
const ASKED: Duration = Duration::from_millis(2 * CHECK_MS);

/// What parts of the agent find wrong with the machine, each kind once.
pub(crate) type Findings = BTreeMap<ConditionKind, String>;

/// What watches over the machine.
#[derive(Debug)]
pub(crate) struct Observer {
    pub(crate) options: inventory::Options,
    pub(crate) cgroups: Support,
    pub(crate) memory: Memory,
    pub(crate) driver: Arc<driver::Handle>,
    pub(crate) probe: Probe,
    pub(crate) xids: Xids,
    pub(crate) judge: Judge,
    /// What is to be checked, before jobs and after them.
    pub(crate) wanted: mpsc::Receiver<Check>,
    /// Whether GPUs are looked at before jobs.
    pub(crate) before_jobs: bool,
    pub(crate) command: Arc<Command>,
    /// What the owner's check found, and what others found.
    pub(crate) findings: watch::Sender<Findings>,
    /// What does not end.
    pub(crate) stuck: watch::Receiver<Vec<v1::StuckProcesses>>,
    /// What does not arrive.
    pub(crate) late: watch::Receiver<Vec<v1::LateOutput>>,
    /// How far the setup of the pool is.
    pub(crate) setup: watch::Receiver<Told>,
    /// The last check of itself that the coordinator asked for.
    pub(crate) asked: watch::Receiver<u32>,
    /// Everything but the GPUs, as last looked at.
    pub(crate) base: Inventory,
    pub(crate) inventory: watch::Sender<Inventory>,
    /// What is shown of the machine, and nothing depends on.
    pub(crate) place: Place,
    pub(crate) facts: watch::Sender<v1::NodeFacts>,
    pub(crate) checks: JoinSet<Done>,
}

/// What a check came to.
#[derive(Debug)]
pub(crate) enum Done {
    /// Before a job.
    Before(AssignmentId, Result<(), Refused>),
    /// After a failure.
    After(AssignmentId, Result<(), String>),
    /// The owner's check, once more.
    Again(Result<(), String>),
    /// As the coordinator asked.
    Asked(u32, Arc<Round>, Result<(), String>),
}

impl Observer {
    /// Watches until it is stopped.
    ///
    /// # Errors
    /// If the driver has ended.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), super::Fatal> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.tick().await;
        let mut findings = self.findings.subscribe();
        self.ask_again_for_asked();
        loop {
            let done = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                xid = self.xids.next() => self.on_xid(&xid).await,
                Some(check) = self.wanted.recv() => {
                    match check {
                        Check::Before(wanted) => self.check_before(wanted),
                        Check::After(id) => self.check_after(id),
                    }
                    continue;
                }
                Some(done) = self.checks.join_next(), if !self.checks.is_empty() => match done {
                    Ok(done) => self.on_done(done).await,
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => continue,
                    },
                },
                changed = self.asked.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    self.ask_again_for_asked();
                    continue;
                }
                _ = findings.changed() => Ok(()),
                changed = self.stuck.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    Ok(())
                }
                changed = self.late.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    Ok(())
                }
                changed = self.setup.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    Ok(())
                }
                () = self.probe.changed() => Ok(()),
                _ = looks.tick() => {
                    self.look().await;
                    Ok(())
                }
            };
            done.map_err(|_| super::Fatal::Driver)?;
            self.publish();
        }
    }

    /// Looks at the rest of the machine, and again at what failed.
    async fn look(&mut self) {
        match look(&self.options, &self.cgroups, Vec::new()).await {
            Ok(facts) => {
                let checked = self.base.checked;
                self.base = Inventory { checked, ..facts.inventory };
                self.place.hardware = facts.hardware;
            }
            Err(error) => tracing::warn!(%error, "the machine cannot be looked at"),
        }
        if self.findings.borrow().contains_key(&ConditionKind::CheckFailed) {
            let command = self.command.clone();
            self.checks.spawn(async move { Done::Again(command.run().await) });
        }
    }

    /// Does the check that was asked for last, unless it was done.
    fn ask_again_for_asked(&mut self) {
        let asked = *self.asked.borrow_and_update();
        if asked <= self.inventory.borrow().checked {
            return;
        }
        let (mut rounds, command) = (self.probe.watch(), self.command.clone());
        self.checks.spawn(async move {
            let round = rounds.fresh().await;
            let late = || Err("the owner's check waits for another one".to_string());
            let told = tokio::time::timeout(ASKED, command.run()).await;
            Done::Asked(asked, round, told.unwrap_or_else(|_| late()))
        });
    }

    fn check_before(&mut self, wanted: Wanted) {
        let (gpus, mut rounds) = (self.before_jobs, self.probe.watch());
        let (command, fault) = (self.command.clone(), self.fault_of(&wanted));
        self.checks.spawn(async move {
            let outcome = match fault {
                None => before::check(gpus, &command, &mut rounds, &wanted).await,
                Some(why) => Err(Refused { step: PrepareStep::GpuCheck, why }),
            };
            Done::Before(wanted.id, outcome)
        });
    }

    /// A task has failed. What the look shows is told as of any look.
    fn check_after(&mut self, id: AssignmentId) {
        let (gpus, mut rounds) = (self.before_jobs, self.probe.watch());
        let command = self.command.clone();
        self.checks.spawn(async move {
            if gpus {
                rounds.fresh().await;
            }
            Done::After(id, command.run_anew().await)
        });
    }

    /// The fault of a GPU that a job was given before the coordinator heard of it.
    fn fault_of(&self, wanted: &Wanted) -> Option<String> {
        let inventory = self.inventory.borrow();
        let faults = inventory.conditions.iter().filter(|one| one.kind == ConditionKind::GpuFault);
        let mut hit = faults.filter_map(|one| {
            let device = inventory.devices.get(usize::from(one.device?))?;
            wanted.gpus.contains(&device.uuid).then(|| format!("GPU {}: {}", device.uuid, one.why))
        });
        hit.next()
    }

    async fn on_done(&mut self, done: Done) -> Result<(), DriverError> {
        match done {
            Done::Before(id, outcome) => {
                if let Err(refused) = &outcome {
                    tracing::warn!(assignment = %id, why = refused.why, "a job is not started");
                }
                match &outcome {
                    Err(Refused { step: PrepareStep::NodeCheck, why }) => self.found(Err(why)),
                    Ok(()) => self.found(Ok(&())),
                    Err(_) => {}
                }
                self.driver.checked(id, outcome).await?;
            }
            Done::After(id, outcome) => {
                if let Err(why) = &outcome {
                    tracing::warn!(assignment = %id, why, "not well after a task has failed");
                }
                self.found(outcome.as_ref());
            }
            Done::Again(outcome) => self.found(outcome.as_ref()),
            Done::Asked(nth, round, outcome) => {
                self.found(outcome.as_ref());
                let devices = self.inventory.borrow().devices.clone();
                if self.judge.check(&devices, &round.found.readings) {
                    tracing::info!("GPUs that had failed are well again");
                }
                self.base.checked = self.base.checked.max(nth);
            }
        }
        Ok(())
    }

    /// What the owner's check says.
    fn found(&self, outcome: Result<&(), &String>) {
        if !self.command.is_there() {
            return;
        }
        tell(&self.findings, ConditionKind::CheckFailed, outcome.err().cloned());
    }

    /// The driver of a GPU reports an error.
    async fn on_xid(&mut self, xid: &Xid) -> Result<(), DriverError> {
        let round = self.probe.now();
        let parts = round.found.details.iter().filter(|detail| detail.parent == xid.gpu);
        let parts: Vec<&str> = parts.map(|detail| detail.uuid.as_str()).collect();
        let devices = self.inventory.borrow().devices.clone();
        let is_it = |one: &&(u16, &GpuDevice)| {
            one.1.uuid == xid.gpu || parts.contains(&one.1.uuid.as_str())
        };
        let hit: Vec<(u16, &GpuDevice)> = (0..).zip(&devices).filter(|one| is_it(&one)).collect();
        let (mut ends, mut blamed) = (false, Vec::new());
        for (position, device) in hit {
            let verdict = self.judge.xid(position, xid.number, boot_ms());
            ends |= verdict.ends;
            if verdict.blames_gpu {
                blamed.push(device.uuid.clone());
            }
        }
        // First: what is ended makes room, and nothing new may be placed there.
        self.publish();
        if blamed.is_empty() {
            return Ok(());
        }
        self.driver.gpu_fault(blamed, xid.number, ends).await
    }

    /// Tells what changed, if anything did.
    fn publish(&mut self) {
        let round = self.probe.now();
        let (stuck, late) = (self.stuck.borrow().clone(), self.late.borrow().clone());
        let facts = v1::NodeFacts { stuck, late, ..told::facts(&self.place, &round) };
        self.facts.send_if_modified(|old| {
            // The time alone is no news.
            let same = v1::NodeFacts { told_wall_ms: facts.told_wall_ms, ..old.clone() } == facts;
            *old = facts;
            !same
        });
        let before = self.inventory.borrow().clone();
        let mut findings = self.findings.borrow().clone();
        with_setup(&mut self.base, &mut findings, &self.setup.borrow());
        let new = judged(&mut self.judge, &before, self.base.clone(), &round, &findings);
        if new == before {
            return;
        }
        for gone in before.conditions.iter().filter(|one| !new.conditions.contains(one)) {
            tracing::info!(kind = %gone.kind, device = gone.device, why = gone.why, "it is over");
        }
        for come in new.conditions.iter().filter(|one| !before.conditions.contains(one)) {
            tracing::warn!(kind = %come.kind, device = come.device, why = come.why, "not well");
        }
        // Positions of devices count on it, and so do faults that a restart must not forget.
        if let Err(error) = self.memory.save_inventory(&new) {
            tracing::warn!(%error, "the inventory is not written down");
        }
        self.inventory.send_replace(new);
    }
}

/// What is told of the setup, beside all else.
pub(crate) fn with_setup(base: &mut Inventory, findings: &mut Findings, told: &Told) {
    base.setup = told.report;
    findings.extend(told.why.clone().map(|why| (ConditionKind::Setup, why)));
}

/// Tells that something is wrong with the machine, and why, or is not any more.
pub(crate) fn tell(findings: &watch::Sender<Findings>, kind: ConditionKind, why: Option<String>) {
    findings.send_if_modified(|all| match why {
        Some(why) => all.insert(kind, why).is_none(),
        None => all.remove(&kind).is_some(),
    });
}

/// What is told of the machine after a round.
pub(crate) fn judged(
    judge: &mut Judge,
    before: &Inventory,
    base: Inventory,
    round: &Round,
    findings: &Findings,
) -> Inventory {
    let found = Inventory { devices: round.found.devices.clone(), ..base };
    let mut new = settled(Some(before), found, &round.finding);
    let driver = match &round.finding {
        GpuFinding::Nvml | GpuFinding::Fake => None,
        // A machine without a driver that never had GPUs is well.
        GpuFinding::NoLibrary if new.devices.is_empty() => None,
        finding => Some(finding.to_string()),
    };
    let others: Vec<_> = findings.iter().map(|(kind, why)| (*kind, why.clone())).collect();
    let seen = Seen {
        devices: &new.devices,
        readings: if driver.is_some() { &[] } else { round.found.readings.as_slice() },
        driver: driver.as_deref(),
        others: &others,
        before: conditions_of(before, new.boot),
        wall_ms: wall_ms(),
        now_ms: boot_ms(),
    };
    let judged = judge.look(&seen);
    for (position, device) in (0..).zip(&mut new.devices) {
        // MIG instances of an unknown profile are not usable whatever is found.
        let usable = round.found.devices.iter().find(|one| one.uuid == device.uuid);
        let usable = usable.map_or(device.healthy, |one| one.healthy);
        device.healthy = usable && !judged.barred.contains(&position);
    }
    new.conditions = judged.conditions;
    new
}

/// What was told before in this boot.
pub(crate) fn conditions_of(before: &Inventory, boot: BootId) -> &[Condition] {
    if before.boot == boot { &before.conditions } else { &[] }
}
