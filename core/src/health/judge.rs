//! Which conditions hold, from one look at the GPUs after another.
//!
//! What a look shows holds for as long as looks show it, with some patience for what flickers.
//! What an XID said holds until a check finds the GPU well, or until the next boot.

use super::reading::{Answer, Reading, Recovery};
use super::xid::{Rules, Verdict, decide, rule_of};
use crate::command::Condition;
use std::collections::{BTreeMap, BTreeSet};
use yard_common::condition::{Bars, ConditionKind};
use yard_common::gpu::GpuDevice;
use yard_common::limits::{
    CONDITION_BYTES_MAX, CONDITIONS_MAX, GPU_FAULT_WINDOW_MS, GPU_FAULTS_MAX,
};

/// What a condition is of: the kind, and the device if it is about one.
type Key = (ConditionKind, Option<u16>);

/// What was seen at one look.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// Devices of the machine, in the order that holds for this boot.
    pub devices: &'a [GpuDevice],
    /// One reading for each device that was found; none at all if the driver did not answer.
    pub readings: &'a [Reading],
    /// Why the list of devices is not whole: the driver does not work or does not answer.
    pub driver: Option<&'a str>,
    /// What others found wrong with the machine.
    pub others: &'a [(ConditionKind, String)],
    /// What was told before in this boot.
    pub before: &'a [Condition],
    /// The machine's clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// The boot clock.
    pub now_ms: u64,
}

/// What holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Judged {
    /// Sorted, each once.
    pub conditions: Vec<Condition>,
    /// Devices that nothing new is to be granted of, by position.
    pub barred: BTreeSet<u16>,
}

/// What holds until somebody says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sticky {
    why: String,
    until_boot: bool,
}

/// The memory of one machine.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    rules: Rules,
    sticky: BTreeMap<Key, Sticky>,
    /// Since when looks show what does not hold (true), or do not show what holds.
    differs: BTreeMap<Key, (bool, u64)>,
    /// XIDs of the last day: device, number, time.
    faults: Vec<(u16, u32, u64)>,
}

impl Judge {
    /// A judge that goes on from what was told before in this boot.
    #[must_use]
    pub fn new(rules: Rules, before: &[Condition]) -> Judge {
        let kept = before.iter().filter(|condition| is_sticky(condition.kind));
        let kept = kept.map(|condition| {
            let Condition { kind, device, why, until_boot, .. } = condition;
            ((*kind, *device), Sticky { why: why.clone(), until_boot: *until_boot })
        });
        Judge { rules, sticky: kept.collect(), ..Judge::default() }
    }

    /// The driver reports an XID of a device, at this time of the boot clock.
    pub fn xid(&mut self, device: u16, xid: u32, now_ms: u64) -> Verdict {
        self.faults.retain(|(_, _, at_ms)| at_ms.saturating_add(GPU_FAULT_WINDOW_MS) > now_ms);
        let same = |fault: &&(u16, u32, u64)| (fault.0, fault.1) == (device, xid);
        let verdict = decide(xid, self.faults.iter().filter(same).count(), &self.rules);
        if self.faults.len() >= GPU_FAULTS_MAX {
            self.faults.remove(0);
        }
        self.faults.push((device, xid, now_ms));
        if let Some(kind) = verdict.condition {
            let why = format!("XID {xid}: {}", rule_of(xid, &self.rules).meaning);
            let new = Sticky { why, until_boot: verdict.until_boot };
            let old = self.sticky.entry((kind, Some(device))).or_insert_with(|| new.clone());
            // What lasts longer stays.
            if new.until_boot && !old.until_boot {
                *old = new;
            }
        }
        verdict
    }

    /// A check was asked for: what an XID said of devices that now answer, and have nothing on
    /// them, is forgotten, unless only a boot ends it. Returns whether something was.
    pub fn check(&mut self, devices: &[GpuDevice], readings: &[Reading]) -> bool {
        let is_well = |device: u16| {
            let uuid = devices.get(usize::from(device)).map(|device| &device.uuid);
            readings.iter().any(|reading| {
                Some(&reading.uuid) == uuid
                    && reading.answer == Answer::Yes
                    && reading.processes.is_empty()
                    && repairs(reading).is_empty()
            })
        };
        let before = self.sticky.len();
        self.sticky.retain(|(_, device), held| held.until_boot || !device.is_none_or(is_well));
        self.sticky.len() < before
    }

    /// Takes a look in.
    pub fn look(&mut self, seen: &Seen<'_>) -> Judged {
        let mut found = BTreeMap::new();
        for (position, device) in (0..).zip(seen.devices) {
            let reading = seen.readings.iter().find(|one| one.uuid == device.uuid);
            for (kind, why) in of_device(reading, seen.driver) {
                found.insert((kind, Some(position)), why);
            }
        }
        if let Some(why) = seen.driver {
            found.insert((ConditionKind::Driver, None), why.to_string());
        }
        found.extend(seen.others.iter().map(|(kind, why)| ((*kind, None), why.clone())));
        let before: BTreeMap<Key, &Condition> =
            seen.before.iter().map(|one| ((one.kind, one.device), one)).collect();
        let mut holds = self.settle(&found, &before, seen.now_ms);
        let in_range = |device: Option<u16>| {
            device.is_none_or(|device| usize::from(device) < seen.devices.len())
        };
        for (key, held) in self.sticky.iter().filter(|((_, device), _)| in_range(*device)) {
            holds.insert(*key, (held.why.clone(), held.until_boot));
        }
        let conditions = holds.into_iter().take(CONDITIONS_MAX).map(|(key, (why, until_boot))| {
            // A text that changes from look to look would be news each time.
            // That of a setup says how far it is.
            let is_news = |old: &Condition| key.0 == ConditionKind::Setup && old.why != short(&why);
            let old = before.get(&key).filter(|old| old.until_boot == until_boot && !is_news(old));
            let since_wall_ms = old.map_or(seen.wall_ms, |old| old.since_wall_ms);
            let why = old.map_or_else(|| short(&why), |old| old.why.clone());
            Condition { kind: key.0, device: key.1, since_wall_ms, why, until_boot }
        });
        let conditions: Vec<Condition> = conditions.collect();
        let bars = |one: &&Condition| one.kind.bars() == Bars::Gpu;
        let barred = conditions.iter().filter(bars).filter_map(|one| one.device).collect();
        Judged { conditions, barred }
    }

    /// What holds of what is seen, with patience: what flickers is neither told as come nor as
    /// gone.
    fn settle(
        &mut self,
        found: &BTreeMap<Key, String>,
        before: &BTreeMap<Key, &Condition>,
        now_ms: u64,
    ) -> BTreeMap<Key, (String, bool)> {
        let held = before.keys().filter(|(kind, _)| !is_sticky(*kind));
        let keys: BTreeSet<Key> = found.keys().chain(held).copied().collect();
        self.differs.retain(|key, _| keys.contains(key));
        let mut holds = BTreeMap::new();
        for key in keys {
            let (now, was) = (found.get(&key), before.get(&key));
            let (come_ms, go_ms) = patience_ms(key.0);
            if now.is_some() == was.is_some() {
                self.differs.remove(&key);
            } else {
                let differs = self.differs.entry(key).or_insert((now.is_some(), now_ms));
                // What has just come to hold, and is gone at the next look, is gone since then.
                if differs.0 != now.is_some() {
                    *differs = (now.is_some(), now_ms);
                }
            }
            let lasted = |ms: u64| {
                let since_ms = self.differs.get(&key).map_or(now_ms, |(_, since_ms)| *since_ms);
                now_ms.saturating_sub(since_ms) >= ms
            };
            let stays = match (now.is_some(), was.is_some()) {
                (true, true) => true,
                (true, false) => lasted(come_ms),
                (false, true) => !lasted(go_ms),
                (false, false) => false,
            };
            if stays {
                let old = || was.map(|old| old.why.clone()).unwrap_or_default();
                holds.insert(key, (now.cloned().unwrap_or_else(old), false));
            }
        }
        holds
    }
}

/// Whether a condition holds until somebody says otherwise.
fn is_sticky(kind: ConditionKind) -> bool {
    matches!(kind, ConditionKind::GpuFault)
}

/// How long looks must agree until something counts as come, and as gone, in milliseconds.
fn patience_ms(kind: ConditionKind) -> (u64, u64) {
    match kind {
        // A process that starts or ends may be seen at a bad moment.
        ConditionKind::GpuForeign => (2_000, 0),
        // Memory of a process is given back some time after its end.
        ConditionKind::GpuDirty => (8_000, 0),
        ConditionKind::GpuSlow => (60_000, 60_000),
        // A driver that restarts answers once, and not the next time.
        ConditionKind::GpuUnresponsive | ConditionKind::GpuGone | ConditionKind::Driver => {
            (0, 1_000)
        }
        ConditionKind::GpuFault
        | ConditionKind::GpuMemory
        | ConditionKind::GpuResetDue
        | ConditionKind::DiskPressure
        | ConditionKind::CheckFailed
        | ConditionKind::ClockOff
        | ConditionKind::Setup => (0, 0),
    }
}

/// What one look shows of a device.
fn of_device(reading: Option<&Reading>, driver: Option<&str>) -> Vec<(ConditionKind, String)> {
    let Some(reading) = reading else {
        return vec![match driver {
            Some(why) => (ConditionKind::GpuUnresponsive, why.to_string()),
            None => (ConditionKind::GpuGone, "the driver does not list it any more".to_string()),
        }];
    };
    let silent = match &reading.answer {
        Answer::Yes => None,
        Answer::Lost => Some("the driver says that it is lost".to_string()),
        Answer::Failed(why) => Some(format!("the driver says: {why}")),
        Answer::Hung => Some("the driver has not answered in time".to_string()),
    };
    if let Some(why) = silent {
        return vec![(ConditionKind::GpuUnresponsive, why)];
    }
    let mut found = Vec::new();
    if reading.uncorrected > 0 {
        let why = format!("{} errors of memory were not corrected", reading.uncorrected);
        found.push((ConditionKind::GpuMemory, why));
    }
    found.extend(repairs(reading));
    if let Some(pid) = reading.foreign.first() {
        let more = match reading.foreign.len() {
            1 => String::new(),
            count => format!(" and {} others", count - 1),
        };
        let why = format!("process {pid}{more}, of no job");
        found.push((ConditionKind::GpuForeign, why));
    }
    if reading.is_dirty() {
        let why = format!("{} MiB in use by nobody", reading.used_bytes >> 20);
        found.push((ConditionKind::GpuDirty, why));
    }
    let narrow = reading.link.filter(|link| link.width < link.width_max);
    if let Some(link) = narrow {
        let why = format!("its PCI link has {} lanes of {}", link.width, link.width_max);
        found.push((ConditionKind::GpuSlow, why));
    } else if !reading.slowed_by.is_empty() {
        found.push((ConditionKind::GpuSlow, reading.slowed_by.clone()));
    }
    found
}

/// What the driver says of repairs.
fn repairs(reading: &Reading) -> Vec<(ConditionKind, String)> {
    let due = match (reading.reset_due, reading.recovery) {
        (true, _) => Some("a repair of its memory waits for a reset"),
        (false, Recovery::DrainAndReset) => Some("the driver asks for a reset when it is idle"),
        (false, _) => None,
    };
    let asks = |what: &str| Some(format!("the driver asks for {what}"));
    let bad = match (reading.repair_failed, reading.recovery) {
        (true, _) => Some("a repair of its memory failed: it is to be replaced".to_string()),
        (false, Recovery::Reset) => asks("a reset"),
        (false, Recovery::Reboot) => asks("a boot of the machine"),
        (false, Recovery::DrainP2p) => asks("an end of what goes between it and other GPUs"),
        (false, Recovery::Other(number)) => asks(&format!("its recovery action {number}")),
        (false, Recovery::None | Recovery::DrainAndReset) => None,
    };
    let due = due.map(|why| (ConditionKind::GpuResetDue, why.to_string()));
    due.into_iter().chain(bad.map(|why| (ConditionKind::GpuFault, why))).collect()
}

/// A text within its bound.
fn short(text: &str) -> String {
    let mut end = text.len().min(CONDITION_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::Bytes;

    const GIB: u64 = 1 << 30;

    fn devices() -> Vec<GpuDevice> {
        let device = |uuid: &str| GpuDevice {
            uuid: uuid.into(),
            model: "h100".into(),
            memory: Bytes(80 * GIB),
            mig: None,
            healthy: true,
        };
        vec![device("a"), device("b")]
    }

    fn clean() -> Vec<Reading> {
        ["a", "b"].map(|uuid| Reading::clean(uuid, 80 * GIB)).into()
    }

    /// Looks once, and remembers what was told.
    fn look(
        judge: &mut Judge,
        told: &mut Vec<Condition>,
        readings: &[Reading],
        driver: Option<&str>,
    ) -> String {
        look_at(judge, told, readings, driver, 0)
    }

    /// The same at a time of the boot clock.
    fn look_at(
        judge: &mut Judge,
        told: &mut Vec<Condition>,
        readings: &[Reading],
        driver: Option<&str>,
        now_ms: u64,
    ) -> String {
        let devices = devices();
        let before = told.clone();
        let seen = Seen {
            devices: &devices,
            readings,
            driver,
            others: &[],
            before: &before,
            wall_ms: 1_000 + now_ms,
            now_ms,
        };
        let judged = judge.look(&seen);
        *told = judged.conditions;
        let one = |one: &Condition| match one.device {
            Some(device) => format!("{}@{device}", one.kind),
            None => one.kind.to_string(),
        };
        let barred: Vec<String> = judged.barred.iter().map(u16::to_string).collect();
        let told: Vec<String> = told.iter().map(one).collect();
        format!("{}|{}", told.join(" "), barred.join(" "))
    }

    #[test]
    fn a_gpu_that_vanishes_is_barred_and_the_other_one_is_not() {
        let (mut judge, mut told) = (Judge::default(), Vec::new());
        assert_eq!(look(&mut judge, &mut told, &clean(), None), "|");
        assert_eq!(look(&mut judge, &mut told, &clean()[..1], None), "GpuGone@1|1");
        // Back for one look may be a driver that restarts.
        assert_eq!(look(&mut judge, &mut told, &clean(), None), "GpuGone@1|1");
        assert_eq!(look_at(&mut judge, &mut told, &clean(), None, 1_000), "|");
    }

    #[test]
    fn a_driver_that_hangs_says_nothing_about_what_is_there() {
        let (mut judge, mut told) = (Judge::default(), Vec::new());
        let all = "GpuUnresponsive@0 GpuUnresponsive@1 Driver|0 1";
        assert_eq!(look(&mut judge, &mut told, &[], Some("no answer")), all);
        assert_eq!(look(&mut judge, &mut told, &clean(), None), all);
        assert_eq!(look_at(&mut judge, &mut told, &clean(), None, 1_000), "|");
        let mut one = clean();
        one[1].answer = Answer::Hung;
        assert_eq!(look(&mut judge, &mut told, &one, None), "GpuUnresponsive@1|1");
    }

    #[test]
    fn what_the_driver_says_of_repairs_holds_for_as_long_as_it_says_so() {
        for (change, told_of) in [
            (Reading { reset_due: true, ..Reading::clean("a", GIB) }, "GpuResetDue@0|"),
            (Reading { repair_failed: true, ..Reading::clean("a", GIB) }, "GpuFault@0|0"),
            (recovery(1), "GpuFault@0|0"),
            (recovery(2), "GpuFault@0|0"),
            (recovery(3), "GpuFault@0|0"),
            (recovery(4), "GpuResetDue@0|"),
            (recovery(9), "GpuFault@0|0"),
        ] {
            let (mut judge, mut told) = (Judge::default(), Vec::new());
            let bad = [change, Reading::clean("b", GIB)];
            assert_eq!(look(&mut judge, &mut told, &bad, None), told_of, "{bad:?}");
            assert!(!judge.check(&devices(), &bad));
            assert_eq!(look(&mut judge, &mut told, &clean(), None), "|", "{bad:?}");
        }
    }

    fn recovery(number: u64) -> Reading {
        Reading { recovery: Recovery::of_nvml(number), ..Reading::clean("a", GIB) }
    }

    #[test]
    fn what_flickers_is_not_told() {
        let (mut judge, mut told) = (Judge::default(), Vec::new());
        let mut used = clean();
        used[0].processes = vec![7];
        used[0].foreign = vec![7];
        let mut at =
            |readings: &[Reading], now_ms| look_at(&mut judge, &mut told, readings, None, now_ms);
        assert_eq!(at(&used, 0), "|");
        assert_eq!(at(&clean(), 1_000), "|");
        assert_eq!(at(&used, 2_000), "|", "it is another one");
        assert_eq!(at(&used, 4_000), "GpuForeign@0|0");
        assert_eq!(at(&clean(), 4_001), "|");
        let mut dirty = clean();
        dirty[1].used_bytes = 40 * GIB;
        assert_eq!(at(&dirty, 5_000), "|");
        assert_eq!(at(&dirty, 13_000), "GpuDirty@1|1");
        let mut slow = clean();
        slow[0].slowed_by = "heat".into();
        assert_eq!(at(&slow, 20_000), "|");
        assert_eq!(at(&slow, 79_999), "|");
        assert_eq!(at(&slow, 80_000), "GpuSlow@0|", "it may be used");
        assert_eq!(at(&clean(), 81_000), "GpuSlow@0|");
        assert_eq!(at(&clean(), 141_000), "|");
    }

    #[test]
    fn a_condition_keeps_its_time_and_its_text() {
        let (mut judge, mut told) = (Judge::default(), Vec::new());
        let mut worn = clean();
        worn[0].uncorrected = 1;
        look(&mut judge, &mut told, &worn, None);
        let first = told.clone();
        worn[0].uncorrected = 2;
        look(&mut judge, &mut told, &worn, None);
        assert_eq!(told, first, "each new count would be news");
    }

    #[test]
    fn a_fault_holds_until_a_check_or_a_boot() {
        let (mut judge, mut told) = (Judge::default(), Vec::new());
        assert!(judge.xid(0, 119, 5).ends && judge.xid(1, 79, 5).ends);
        let both = "GpuFault@0 GpuFault@1|0 1";
        assert_eq!(look(&mut judge, &mut told, &clean(), None), both);
        assert!(told[1].until_boot && told[1].why.starts_with("XID 79"), "{told:?}");
        // Another agent of the same boot.
        let mut judge = Judge::new(Rules::default(), &told);
        assert_eq!(look(&mut judge, &mut told, &clean(), None), both);
        let mut used = clean();
        used[0].processes = vec![7];
        assert!(!judge.check(&devices(), &used), "it is in use");
        assert!(judge.check(&devices(), &clean()));
        assert_eq!(look(&mut judge, &mut told, &clean(), None), "GpuFault@1|1");
    }

    #[test]
    fn the_second_contained_error_of_a_day_takes_the_gpu_out() {
        let (mut judge, mut told) = (Judge::default(), Vec::new());
        assert_eq!(judge.xid(0, 74, 5).condition, None);
        assert_eq!(judge.xid(1, 74, 6).condition, None, "another GPU");
        assert_eq!(judge.xid(0, 74, 5 + GPU_FAULT_WINDOW_MS).condition, None, "another day");
        assert!(judge.xid(0, 74, 7 + GPU_FAULT_WINDOW_MS).condition.is_some());
        assert_eq!(look(&mut judge, &mut told, &clean(), None), "GpuFault@0|0");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut judge = Judge::default();
        for at_ms in 0..2 * GPU_FAULTS_MAX as u64 {
            let _ = judge.xid(0, 13, at_ms);
        }
        assert_eq!(judge.faults.len(), GPU_FAULTS_MAX);
        assert_eq!(short(&"ä".repeat(200)).len(), CONDITION_BYTES_MAX - 1);
    }
}
