//! What an assignment takes of the node: checked and set apart before it has a shim.

use super::disk::Bound;
use super::shims::Shim;
use super::turn::Turn;
use crate::disk;
use crate::launch::Orders;
use crate::shim::DETAIL;
use std::io;
use std::path::Path;
use yard_common::cause::PrepareStep;
use yard_common::limits::DISK_RESERVE_PERCENT;
use yard_core::agent::AssignmentId;

/// Why an assignment gets no shim.
pub(super) struct Refusal {
    pub(super) step: PrepareStep,
    /// For people.
    pub(super) text: String,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal { step: PrepareStep::Limits, text: error.to_string() }
    }
}

impl Turn {
    /// Makes the shim of an assignment.
    pub(super) fn make_shim(&mut self, id: AssignmentId, at: &Path) -> Result<Shim, Refusal> {
        let orders = match orders(at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(io::Error::other("the coordinator sent no details").into());
            }
            // What cannot be understood the shim tells of.
            orders => orders.ok(),
        };
        if let Some(orders) = &orders {
            self.check_room(orders)?;
            let milli = orders.assignment.amounts.cpu_milli;
            if self.site.cpus_bound && milli > 0 && self.options.cgroups.has_cpusets() {
                self.cpus.choose(id, milli, at)?;
            }
        }
        let shim = Shim::make(at.to_path_buf(), id, &mut self.ready)?;
        if let Some(orders) = &orders {
            self.measure(id, orders);
        }
        Ok(shim)
    }

    /// Whether the disk has room for something new.
    fn check_room(&self, orders: &Orders) -> Result<(), Refusal> {
        let path = self.paths.root();
        if !disk::is_scarce(path) {
            return Ok(());
        }
        let text = format!(
            "less than {DISK_RESERVE_PERCENT} % of the disk of node {} are free, or of its inodes; \
             nothing new starts there until there is more: {}",
            self.site.node,
            path.display()
        );
        self.explain(orders, &text);
        Err(Refusal { step: PrepareStep::Disk, text })
    }

    /// Goes on with what an earlier agent set apart.
    pub(super) fn resume(&mut self) {
        let found: Vec<_> =
            self.shims.iter().map(|(id, shim)| (*id, shim.directory().to_path_buf())).collect();
        for (id, at) in found {
            self.cpus.found(id, &at);
            if let Ok(orders) = orders(&at) {
                self.measure(id, &orders);
            }
        }
        self.remove_strays();
    }

    /// Has the disk that it uses measured, if there is a bound.
    fn measure(&self, id: AssignmentId, orders: &Orders) {
        let assignment = &orders.assignment;
        let bytes_max = assignment.amounts.disk_bytes;
        if bytes_max == 0 {
            return;
        }
        let logs = orders.chain.tasks();
        let logs =
            logs.map(|(task, attempt)| self.paths.attempt_logs(assignment.job, task, attempt));
        let scratch = self.paths.scratch(assignment.job, id);
        let directories = std::iter::once(scratch).chain(logs).collect();
        self.meter.watch(id, Bound { directories, bytes_max });
    }

    /// Ends those that use more of the disk than they may.
    pub(super) fn hear_meter(&mut self) {
        for id in self.meter.over() {
            if let Some(shim) = self.shims.get_mut(&id).filter(|shim| !shim.is_dead) {
                tracing::warn!(assignment = %id, "it uses more of the disk than its job may");
                shim.tell_full();
            }
        }
    }

    /// Puts the reason where the output of the job's first task would be.
    fn explain(&self, orders: &Orders, text: &str) {
        let Some((task, attempt)) = orders.chain.tasks().next() else { return };
        let logs = self.paths.attempt_logs(orders.assignment.job, task, attempt);
        // On a full disk there may be no room for it.
        let _ = std::fs::create_dir_all(&logs);
        let _ = std::fs::write(logs.join("prepare.err"), format!("{text}\n"));
    }

    /// Removes scratch directories of assignments that nobody knows any more: an agent that died
    /// at the wrong moment left them.
    fn remove_strays(&mut self) {
        let list = |at: &Path| std::fs::read_dir(at).into_iter().flatten().flatten();
        for job in list(&self.paths.jobs()).map(|entry| entry.path()) {
            for scratch in list(&job) {
                let id = scratch.file_name().to_str().and_then(crate::paths::from_tag);
                if id.is_some_and(|id| !self.shims.contains_key(&id)) {
                    self.cleaner.remove(&scratch.path());
                }
            }
            // One that holds something stays.
            let _ = std::fs::remove_dir(&job);
        }
    }
}

fn orders(at: &Path) -> io::Result<Orders> {
    let bytes = std::fs::read(at.join(DETAIL))?;
    Orders::from_bytes(&bytes).map_err(io::Error::other)
}
