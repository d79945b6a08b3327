//! A machine: power, boots, freezes, its disk, its shims, and the agent that may run on it.

use crate::agent_host::AgentHost;
use crate::clock::{Clock, MS, Us};
use crate::message::{AgentWork, Event, ShimWork};
use crate::shim::Shim;
use crate::world::World;
use std::collections::BTreeMap;
use yard_common::Amounts;
use yard_common::Bytes;
use yard_common::gpu::GpuDevice;
use yard_common::id::{BootId, Sequence};
use yard_core::agent::{AssignmentId, Change, Fence, Input, Kept, Lease};
use yard_core::command::Inventory;

/// Whether a machine can do anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It runs.
    On,
    /// It stands still, and does not know it.
    Frozen,
    /// It is off.
    Off,
}

/// One machine.
#[derive(Debug)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Whether it can do anything.
    pub power: Power,
    /// Number of its boots.
    pub boot: u64,
    /// Its clocks.
    pub clock: Clock,
    /// CPUs and GPU models.
    pub cpus: u64,
    /// GPUs.
    pub gpus: Vec<&'static str>,
    /// What its agent has on disk.
    pub disk: Kept,
    /// What was written and not flushed: it outlives the agent, and not a loss of power.
    pub noted: Vec<Change>,
    /// Shims, and the records that they leave behind.
    pub shims: BTreeMap<AssignmentId, Shim>,
    /// The deadlines in shared memory.
    pub lease: Option<Lease>,
    /// When the deadlines are looked at next.
    pub deadline_us: Us,
    /// The agent, if it runs.
    pub agent: Option<AgentHost>,
    /// Rises with each start of an agent.
    pub agent_life: u32,
    /// Whether an agent left on purpose, and was not heard to be back.
    pub left: bool,
    /// What would have happened while it was frozen.
    pub deferred: Vec<Event>,
}

impl Machine {
    /// A machine that was never switched on.
    #[must_use]
    pub fn new(at: usize, clock: Clock, cpus: u64, gpus: Vec<&'static str>) -> Machine {
        Machine {
            name: format!("n{at}"),
            power: Power::Off,
            boot: 0,
            clock,
            cpus,
            gpus,
            disk: Kept::new(BootId::from_u128(1), Fence::NONE, Sequence(0)),
            noted: Vec::new(),
            shims: BTreeMap::new(),
            lease: None,
            deadline_us: Us::MAX,
            agent: None,
            agent_life: 0,
            left: false,
            deferred: Vec::new(),
        }
    }

    /// What its agent finds in the present boot.
    #[must_use]
    pub fn inventory(&self, boot: u64) -> Inventory {
        let gib = 1u64 << 30;
        let device = |(position, model): (usize, &&str)| GpuDevice {
            uuid: format!("GPU-{}-{position}", self.name),
            model: (*model).to_string(),
            memory: Bytes(80 * gib),
            mig: None,
            healthy: true,
        };
        Inventory {
            boot: BootId::from_u128(u128::from(boot)),
            amounts: Amounts {
                cpu_milli: self.cpus * 1_000,
                memory_bytes: self.cpus * 4 * gib,
                disk_bytes: 100 * gib,
            },
            devices: self.gpus.iter().enumerate().map(device).collect(),
            labels: vec![("rack".into(), format!("r{}", self.name.len() % 2))],
            address: self.name.clone(),
            version: "0.1.0".into(),
            conditions: Vec::new(),
            checked: 0,
            setup: None,
        }
    }
}

impl World {
    /// A machine is switched on.
    pub fn boot_machine(&mut self, at: usize) {
        let now_us = self.now_us;
        let machine = &mut self.machines[at];
        if machine.power != Power::Off {
            return;
        }
        machine.power = Power::On;
        machine.boot += 1;
        machine.clock.boot(now_us);
        (machine.lease, machine.deadline_us) = (None, Us::MAX);
        machine.deferred.clear();
        self.note(|_| format!("machine {at} boots"));
        self.start_agent(at);
    }

    /// The power of a machine fails: every process is gone, what was written down stays.
    pub fn cut_power(&mut self, at: usize) {
        if self.machines[at].power == Power::Off {
            return;
        }
        self.note(|_| format!("machine {at} loses its power"));
        self.machines[at].power = Power::Off;
        self.machines[at].agent = None;
        self.machines[at].noted.clear();
        let ids: Vec<_> = self.machines[at].shims.keys().copied().collect();
        for id in ids {
            self.end_processes(at, id, None);
            if let Some(shim) = self.machines[at].shims.get_mut(&id) {
                (shim.dead, shim.kill_given) = (true, false);
            }
        }
    }

    /// A machine stands still.
    pub fn freeze(&mut self, at: usize) {
        if self.machines[at].power == Power::On {
            self.machines[at].power = Power::Frozen;
            self.truth.freeze(at, self.now_us);
            self.note(|_| format!("machine {at} freezes"));
        }
    }

    /// A machine goes on. It sees what ran out before it does anything else.
    pub fn thaw(&mut self, at: usize) {
        if self.machines[at].power != Power::Frozen {
            return;
        }
        self.machines[at].power = Power::On;
        self.note(|_| format!("machine {at} thaws"));
        self.look_at_deadlines(at);
        self.agent_step(at, Input::Tick);
        for event in std::mem::take(&mut self.machines[at].deferred) {
            self.after(MS, event);
        }
    }

    /// Whether a machine does something at this time; if it is frozen, the event waits.
    pub fn machine_runs(&mut self, at: usize, event: &mut Option<Event>) -> bool {
        match self.machines[at].power {
            Power::On => true,
            Power::Off => false,
            Power::Frozen => {
                self.machines[at].deferred.extend(event.take());
                false
            }
        }
    }

    /// Kills what has outlived its deadline.
    pub fn look_at_deadlines(&mut self, at: usize) {
        let now_us = self.now_us;
        let machine = &mut self.machines[at];
        machine.deadline_us = Us::MAX;
        let Some(lease) = machine.lease else { return };
        let now_ms = machine.clock.now_ms(now_us);
        let mut due = Vec::new();
        for (id, shim) in &machine.shims {
            if shim.has_guardian() && now_ms >= lease.deadline_ms(shim.isolation) {
                due.push(*id);
            }
        }
        for id in due {
            self.reached("shim killed at its deadline");
            if self.machines[at].shims[&id].isolation == yard_core::agent::Isolation::Strict {
                self.reached("strict attempt killed at its deadline");
            }
            self.kill_shim(at, id);
        }
        self.watch_deadlines(at);
    }

    /// Sees to it that the next deadline is looked at.
    pub fn watch_deadlines(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let Some(lease) = machine.lease else { return };
        let guarded = machine.shims.values().filter(|shim| shim.has_guardian());
        let Some(next_ms) = guarded.map(|shim| lease.deadline_ms(shim.isolation)).min() else {
            return;
        };
        let at_us = machine.clock.moment(next_ms);
        if at_us < machine.deadline_us {
            machine.deadline_us = at_us;
            let boot = machine.boot;
            self.agenda.at(at_us.max(self.now_us), Event::Deadline { machine: at, boot });
        }
    }

    /// New deadlines in shared memory; they never move back.
    pub fn hold_lease(&mut self, at: usize, new: Lease) {
        let machine = &mut self.machines[at];
        let old = machine.lease.unwrap_or(Lease {
            id: new.id,
            strict_ms: 0,
            fenced_ms: 0,
            tolerant_ms: 0,
            maintenance_ms: 0,
        });
        let lease = Lease {
            id: new.id,
            strict_ms: new.strict_ms.max(old.strict_ms),
            fenced_ms: new.fenced_ms.max(old.fenced_ms),
            tolerant_ms: new.tolerant_ms.max(old.tolerant_ms),
            maintenance_ms: new.maintenance_ms.max(old.maintenance_ms),
        };
        if machine.lease == Some(lease) {
            return;
        }
        machine.lease = Some(lease);
        let waiting: Vec<_> =
            machine.shims.iter().filter(|(_, shim)| shim.waits()).map(|(id, _)| *id).collect();
        for id in waiting {
            self.start_next(at, id);
        }
        self.agent_step(at, Input::Lease(lease));
        self.watch_deadlines(at);
    }

    /// A shim comes to the next point of its work.
    pub fn later_shim(&mut self, at: usize, id: AssignmentId, wait_us: Us, what: ShimWork) {
        let machine = &self.machines[at];
        let Some(shim) = machine.shims.get(&id) else { return };
        let (boot, nth) = (machine.boot, shim.nth);
        self.after(wait_us, Event::Shim { machine: at, boot, id, nth, what });
    }

    /// Starts the regular work of an agent.
    pub fn start_agent_work(&mut self, at: usize) {
        let life = self.machines[at].agent_life;
        let stagger_us = self.rng.below(200 * MS);
        self.after(stagger_us, Event::Agent { machine: at, life, what: AgentWork::Renew });
        self.after(stagger_us, Event::Agent { machine: at, life, what: AgentWork::Hello });
    }
}
