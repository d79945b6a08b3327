//! The section `[health]` of the configuration file.

use crate::driver::{Check, Checks};
use crate::health;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use yard_common::limits::{CHECK_WORDS_MAX, GPU_PROBE_MS, NODE_ASSIGNMENTS_MAX, XID_RULES_MAX};
use yard_core::health::{Action, Rules};
use yard_runtime::config::Section;

/// Times between two looks that are allowed, in milliseconds.
const EVERY_MS: std::ops::RangeInclusive<u64> = 100..=600_000;
/// Times that a look may take, in milliseconds.
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 100..=60_000;

/// A rule for an XID: `13=restart`.
struct XidRule(u32, Action);

impl std::str::FromStr for XidRule {
    type Err = String;

    fn from_str(text: &str) -> Result<XidRule, String> {
        let (number, action) = text.split_once('=').ok_or("there is no = in it")?;
        let number = number.trim().parse().map_err(|_| format!("{number:?} is no number"))?;
        Ok(XidRule(number, action.trim().parse()?))
    }
}

/// Reads the section.
pub(super) fn read(section: &mut Section<'_>) -> health::Options {
    let mut options = health::Options::default();
    let path = "the path of libnvidia-ml.so.1";
    section.about("Where NVML is; if not set, where the system finds it");
    options.library = section.optional::<PathBuf>("nvml", path);
    section.about("How often GPUs are looked at, in milliseconds");
    let every_ms = u64::try_from(options.every.as_millis()).unwrap_or(u64::MAX);
    options.every = Duration::from_millis(section.number("every_ms", every_ms, EVERY_MS));
    section.about("How long NVML may take to answer, in milliseconds");
    let timeout_ms = section.number("timeout_ms", GPU_PROBE_MS, TIMEOUT_MS);
    options.patience = Duration::from_millis(timeout_ms);
    section.about("Whether GPUs are checked before each job that gets some");
    options.before_jobs = section.flag("before_jobs", true);
    section.about("A check of your own before each job: a program and its words");
    options.command = section.list("command", CHECK_WORDS_MAX, "a program and its words");
    section.about("What XIDs mean here, where it is not what the table says");
    let rules = section.list::<XidRule>("xids", XID_RULES_MAX, "\"13=restart\"");
    section.about("Where messages of the kernel are read");
    options.kmsg = section.path("kmsg", &options.kmsg);
    let mut seen = std::collections::BTreeMap::new();
    // Of two rules for one number the last one counts.
    seen.extend(rules.into_iter().map(|rule| (rule.0, rule.1)));
    options.rules = Rules::new(seen).unwrap_or_default();
    options
}

/// Which assignments are checked. `fake`: the GPUs are made up.
pub(super) fn checks(
    options: &health::Options,
    fake: bool,
) -> (Option<Checks>, mpsc::Receiver<Check>) {
    let (queue, wanted) = mpsc::channel(NODE_ASSIGNMENTS_MAX);
    let all = !options.command.is_empty();
    let gpus = options.before_jobs && !fake;
    ((all || gpus).then_some(Checks { all, queue }), wanted)
}
