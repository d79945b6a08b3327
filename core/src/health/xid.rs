//! XIDs: the numbers by which the driver of NVIDIA GPUs reports errors, and what follows from each.
//!
//! The table follows NVIDIA's catalogue of XIDs and its "immediate action" for each
//! (docs.nvidia.com/deploy/xid-errors). A configuration may replace the action of single numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;
use yard_common::condition::ConditionKind;
use yard_common::limits::XID_RULES_MAX;

/// What is done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It is written down.
    Note,
    /// An attempt that fails by it is tried again. A second one on the same GPU within a day takes
    /// the GPU out of use.
    Restart,
    /// The GPU is out of use until it was reset, and a check finds it well.
    Drain,
    /// What runs on the GPU is ended, and the GPU is out of use until it was reset, and a check
    /// finds it well.
    Reset,
    /// What runs on the GPU is ended, and the GPU is out of use until the machine boots again.
    Reboot,
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blame {
    /// The code that ran.
    User,
    /// The machine.
    Machine,
    /// It does not tell.
    Nobody,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XidRule {
    /// What is done.
    pub action: Action,
    /// Whose fault it is.
    pub blame: Blame,
    /// What it means, for people.
    pub meaning: &'static str,
}

/// What follows from one error on one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// Whether what runs on the GPU is ended.
    pub ends: bool,
    /// Whether a failure of what runs on the GPU is the GPU's.
    pub blames_gpu: bool,
    /// What holds of the GPU from now on.
    pub condition: Option<ConditionKind>,
    /// Whether only a boot ends the condition.
    pub until_boot: bool,
}

type Line = (&'static [(u32, u32)], Action, Blame, &'static str);

/// Ranges of numbers, both ends included. The first line that has a number counts.
const TABLE: &[Line] = {
    use Action::{Drain, Note, Reboot, Reset, Restart};
    use Blame::{Machine, Nobody, User};
    &[
        (
            &[(11, 11), (13, 13), (25, 25), (31, 32), (69, 69), (80, 80)],
            Note,
            User,
            "the code did something that is not allowed, such as a bad address",
        ),
        (&[(43, 43)], Note, User, "the GPU stopped the work of a process"),
        (&[(45, 45)], Note, Nobody, "what a process left was cleaned up"),
        (&[(94, 94)], Restart, Machine, "a memory error that met one process only"),
        (&[(48, 48)], Reset, Machine, "two bits of memory were wrong at once"),
        (&[(95, 95), (140, 140)], Reset, Machine, "a memory error that met more than one process"),
        (&[(63, 63)], Note, Nobody, "memory was repaired; the repair needs a reset"),
        (&[(64, 64), (156, 157)], Drain, Machine, "memory could not be repaired"),
        (&[(92, 92)], Note, Nobody, "many single bits of memory were corrected"),
        (
            &[
                (14, 14),
                (37, 38),
                (44, 44),
                (66, 67),
                (93, 93),
                (106, 107),
                (121, 121),
                (137, 137),
                (141, 141),
                (152, 153),
                (160, 161),
            ],
            Note,
            Nobody,
            "for the records",
        ),
        (&[(46, 46), (62, 62), (109, 110), (136, 136)], Reset, Machine, "the GPU hangs"),
        (&[(143, 143), (155, 155), (158, 158)], Reset, Machine, "the GPU did not initialise"),
        (&[(119, 120)], Reset, Machine, "the GPU's own processor does not answer"),
        (&[(79, 79)], Reboot, Machine, "the GPU has fallen off the bus"),
        (&[(151, 151)], Reboot, Machine, "keys of the GPU must be made anew"),
        (&[(54, 54)], Reboot, Machine, "the power cable of the GPU"),
        (&[(74, 74), (144, 150)], Restart, Machine, "a link between GPUs"),
        (&[(78, 78)], Note, Nobody, "a virtual GPU did not start: update the software"),
        (&[(159, 159)], Drain, Machine, "a link between GPU and CPU"),
        (&[(154, 154)], Note, Nobody, "the driver recommends another recovery; see its log"),
        (
            &[
                (8, 8),
                (39, 41),
                (60, 60),
                (68, 68),
                (70, 72),
                (75, 77),
                (82, 86),
                (88, 89),
                (96, 105),
                (126, 135),
                (139, 139),
            ],
            Restart,
            Machine,
            "a channel or an engine of the GPU",
        ),
    ]
};

/// What nobody knows: the GPU is emptied and looked at, and nothing is ended for it.
const UNKNOWN: XidRule =
    XidRule { action: Action::Drain, blame: Blame::Nobody, meaning: "not in the table" };

/// Actions that a configuration gives to single numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(BTreeMap<u32, Action>);

/// Why rules are refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RulesError {
    /// Too many.
    #[error("{0} rules; at most {XID_RULES_MAX}")]
    TooMany(usize),
    /// One number twice.
    #[error("XID {0} has two rules")]
    Twice(u32),
}

impl Rules {
    /// Rules of a configuration.
    ///
    /// # Errors
    /// If there are too many, or two for one number.
    pub fn new(all: impl IntoIterator<Item = (u32, Action)>) -> Result<Rules, RulesError> {
        let mut rules = BTreeMap::new();
        for (xid, action) in all {
            if rules.insert(xid, action).is_some() {
                return Err(RulesError::Twice(xid));
            }
        }
        if rules.len() > XID_RULES_MAX {
            return Err(RulesError::TooMany(rules.len()));
        }
        Ok(Rules(rules))
    }
}

/// The rule for an XID.
#[must_use]
pub fn rule_of(xid: u32, rules: &Rules) -> XidRule {
    let has = |line: &&Line| line.0.iter().any(|(first, last)| (*first..=*last).contains(&xid));
    let listed = TABLE.iter().find(has);
    let rule = listed.map_or(UNKNOWN, |(_, action, blame, meaning)| XidRule {
        action: *action,
        blame: *blame,
        meaning,
    });
    match rules.0.get(&xid) {
        None => rule,
        // Who takes a GPU out of use, or tries again, takes the blame off the code.
        Some(action) if *action > Action::Note && rule.blame == Blame::User => {
            XidRule { action: *action, blame: Blame::Machine, ..rule }
        }
        Some(action) => XidRule { action: *action, ..rule },
    }
}

/// What follows from an XID on a GPU. `before`: the same XID on the same GPU within the last day.
pub fn decide(xid: u32, before: usize, rules: &Rules) -> Verdict {
    let rule = rule_of(xid, rules);
    let (ends, condition) = match rule.action {
        Action::Note if xid == 63 => (false, Some(ConditionKind::GpuResetDue)),
        Action::Note => (false, None),
        Action::Restart if before > 0 => (false, Some(ConditionKind::GpuFault)),
        Action::Restart if xid == 94 => (false, Some(ConditionKind::GpuResetDue)),
        Action::Restart => (false, None),
        Action::Drain => (false, Some(ConditionKind::GpuFault)),
        Action::Reset | Action::Reboot => (true, Some(ConditionKind::GpuFault)),
    };
    let blames_gpu = ends || rule.blame == Blame::Machine;
    Verdict { ends, blames_gpu, condition, until_boot: rule.action == Action::Reboot }
}

impl FromStr for Action {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Action, &'static str> {
        match text {
            "note" => Ok(Action::Note),
            "restart" => Ok(Action::Restart),
            "drain" => Ok(Action::Drain),
            "reset" => Ok(Action::Reset),
            "reboot" => Ok(Action::Reboot),
            _ => Err("there are note, restart, drain, reset and reboot"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Note => "note",
            Action::Restart => "restart",
            Action::Drain => "drain",
            Action::Reset => "reset",
            Action::Reboot => "reboot",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(xid: u32) -> (Action, Blame) {
        let rule = rule_of(xid, &Rules::default());
        (rule.action, rule.blame)
    }

    #[test]
    fn errors_of_code_are_not_blamed_on_the_gpu() {
        for xid in [11, 13, 25, 31, 32, 43, 69, 80] {
            assert_eq!(of(xid), (Action::Note, Blame::User), "{xid}");
            let verdict = decide(xid, 5, &Rules::default());
            assert!(!verdict.ends && !verdict.blames_gpu && verdict.condition.is_none(), "{xid}");
        }
    }

    #[test]
    fn a_gpu_off_the_bus_ends_what_runs_there_until_the_next_boot() {
        let verdict = decide(79, 0, &Rules::default());
        assert!(verdict.ends && verdict.blames_gpu && verdict.until_boot);
        assert_eq!(verdict.condition, Some(ConditionKind::GpuFault));
        let verdict = decide(119, 0, &Rules::default());
        assert!(verdict.ends && !verdict.until_boot);
    }

    #[test]
    fn a_contained_error_costs_no_gpu_until_it_comes_again() {
        let verdict = decide(94, 0, &Rules::default());
        assert!(!verdict.ends && verdict.blames_gpu);
        assert_eq!(verdict.condition, Some(ConditionKind::GpuResetDue));
        let second = decide(94, 1, &Rules::default());
        assert_eq!(second.condition, Some(ConditionKind::GpuFault));
    }

    #[test]
    fn what_nobody_knows_ends_nothing() {
        for xid in [1, 7, 200, u32::MAX] {
            let verdict = decide(xid, 9, &Rules::default());
            assert!(!verdict.ends && !verdict.blames_gpu, "{xid}");
            assert_eq!(verdict.condition, Some(ConditionKind::GpuFault), "{xid}");
        }
    }

    #[test]
    fn a_configuration_replaces_single_lines() {
        let rules = Rules::new([(13, Action::Restart), (79, Action::Note)]).unwrap();
        assert!(decide(13, 0, &rules).blames_gpu);
        assert_eq!(decide(79, 0, &rules).condition, None);
        assert_eq!(decide(48, 0, &rules), decide(48, 0, &Rules::default()));
        let twice = Rules::new([(1, Action::Note), (1, Action::Drain)]);
        assert_eq!(twice, Err(RulesError::Twice(1)));
        let many = Rules::new((0..=XID_RULES_MAX as u32).map(|xid| (xid, Action::Note)));
        assert_eq!(many, Err(RulesError::TooMany(XID_RULES_MAX + 1)));
    }

    #[test]
    fn each_number_is_on_one_line() {
        for xid in 0..400 {
            let lines = TABLE
                .iter()
                .filter(|line| line.0.iter().any(|(first, last)| (*first..=*last).contains(&xid)));
            assert!(lines.count() <= 1, "{xid}");
        }
        for action in ["note", "restart", "drain", "reset", "reboot"] {
            assert_eq!(action.parse::<Action>().unwrap().to_string(), action);
        }
        assert!("kill".parse::<Action>().is_err());
    }
}
