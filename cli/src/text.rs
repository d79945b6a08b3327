//! Amounts, times and words as people read them.

use yard_common::cause::start_words;
use yard_common::spec::time::format_rfc3339;
use yard_proto::v1;

/// Thousandths of a CPU.
const MILLI: u64 = 1_000;
/// Parts of one GPU.
const PARTS: u64 = yard_common::gpu::GPU_PARTS as u64;

/// What is shown where there is nothing.
pub(crate) const NONE: &str = "-";

/// A text without what could move the cursor, hide, or change colours: it may come from anybody.
/// Line breaks stay.
pub(crate) fn harmless(text: &str) -> String {
    let plain = |c: char| if c.is_control() && !matches!(c, '\t' | '\n') { '\u{fffd}' } else { c };
    text.chars().map(plain).collect()
}

/// A duration in its two largest units: `3d4h`, `12m5s`, `0s`.
pub(crate) fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, size)| seconds >= *size);
    let Some(first) = first else { return "0s".into() };
    let mut rest = seconds;
    let mut text = String::new();
    for (unit, size) in units.iter().skip(first).take(2) {
        if rest / size > 0 {
            text.push_str(&format!("{}{unit}", rest / size));
        }
        rest %= size;
    }
    text
}

/// A duration to the hundredth or tenth of a second while it is short: `0.04s`, `12.3s`, `2m5s`.
pub(crate) fn span(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{:02}s", ms / 1_000, ms % 1_000 / 10),
        10_000..60_000 => format!("{}.{}s", ms / 1_000, ms % 1_000 / 100),
        _ => duration(ms),
    }
}

/// A moment in UTC, to the second.
pub(crate) fn moment(wall_ms: u64) -> String {
    format_rfc3339(wall_ms / 1_000 * 1_000)
}

/// Bytes in the largest unit that leaves a readable number: `64GiB`, `1.5TiB`.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    while unit + 1 < units.len() && count >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    let size = 1u64 << (10 * unit);
    // One decimal place, rounded down: nothing looks larger than it is.
    let tenths = u128::from(count % size) * 10 / u128::from(size);
    match tenths {
        0 => format!("{}{}", count / size, units[unit]),
        _ => format!("{}.{tenths}{}", count / size, units[unit]),
    }
}

/// CPUs: `8`, `0.5`.
pub(crate) fn cpus(milli: u64) -> String {
    fraction(milli, MILLI, 3)
}

/// GPUs: `8`, `0.5`.
pub(crate) fn gpus(parts: u64) -> String {
    fraction(parts, PARTS, 4)
}

fn fraction(value: u64, one: u64, places: usize) -> String {
    let rest = value % one;
    if rest == 0 {
        return (value / one).to_string();
    }
    let digits = format!("{rest:0places$}");
    format!("{}.{}", value / one, digits.trim_end_matches('0'))
}

/// `NODE_STATE_UP` as `Up`; what this version does not know keeps its number.
pub(crate) fn word(name: Option<&str>, number: i32, prefix: &str) -> String {
    let Some(name) = name.and_then(|name| name.strip_prefix(prefix)) else {
        return format!("Unknown({number})");
    };
    let mut out = String::new();
    for part in name.split('_') {
        let mut letters = part.chars();
        out.extend(letters.next());
        out.push_str(&letters.as_str().to_lowercase());
    }
    out
}

/// Words of the enums of the API.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident($type:ident, $prefix:literal);)+) => {$(
        $(#[$doc])*
        pub(crate) fn $name(number: i32) -> String {
            let known = v1::$type::try_from(number).ok();
            word(known.as_ref().map(v1::$type::as_str_name), number, $prefix)
        }
    )+};
}

words! {
    /// State of a job.
    job_state(JobState, "JOB_STATE_");
    /// State of a task.
    task_state(TaskState, "TASK_STATE_");
    /// State of an attempt.
    attempt_state(AttemptState, "ATTEMPT_STATE_");
    /// State of a share.
    assignment_state(AssignmentState, "ASSIGNMENT_STATE_");
    /// State of a node.
    node_state(NodeState, "NODE_STATE_");
    /// Why a node takes no work.
    node_condition(NodeCondition, "NODE_CONDITION_");
    /// What is wrong with a machine.
    condition_kind(ConditionKind, "CONDITION_KIND_");
    /// How far the setup of its pool is on a machine.
    setup_stage(SetupStage, "SETUP_STAGE_");
    /// What that keeps from running.
    bars(Bars, "BARS_");
    /// Why a task waits.
    reason(PendingReason, "PENDING_REASON_");
    /// Who pays.
    fault(Fault, "FAULT_");
    /// What a user may do.
    role(Role, "ROLE_");
    /// The part of a member.
    member_role(MemberRole, "MEMBER_ROLE_");
    /// How attempts are kept apart.
    isolation(IsolationClass, "ISOLATION_CLASS_");
    /// What changed.
    object_kind(ObjectKind, "OBJECT_KIND_");
    exit_kind(ExitKind, "EXIT_KIND_");
    prepare_step(PrepareStep, "PREPARE_STEP_");
    lost_reason(LostReason, "LOST_REASON_");
}

/// A cause with its number or step: `Exited(1)`, `PrepareFailed(Workdir)`.
pub(crate) fn cause(cause: &v1::ExitCause) -> String {
    let kind = exit_kind(cause.kind);
    match v1::ExitKind::try_from(cause.kind) {
        Ok(v1::ExitKind::Exited | v1::ExitKind::Signaled | v1::ExitKind::GpuFault) => {
            format!("{kind}({})", cause.number)
        }
        Ok(v1::ExitKind::StartFailed) => {
            match i32::try_from(cause.number).ok().and_then(start_words) {
                Some(words) => format!("{kind}({words})"),
                None => format!("{kind}(errno {})", cause.number),
            }
        }
        Ok(v1::ExitKind::PrepareFailed) => format!("{kind}({})", prepare_step(cause.step)),
        Ok(v1::ExitKind::Lost) => format!("{kind}({})", lost_reason(cause.lost)),
        Ok(_) | Err(_) => kind,
    }
}

/// Whose fault an end was, for people.
pub(crate) fn whose_fault(cause: &v1::ExitCause) -> &'static str {
    if cause.kind == v1::ExitKind::DependencyFailed as i32 {
        return "that of what it waited for";
    }
    match v1::Fault::try_from(cause.fault) {
        Ok(v1::Fault::None) => "nobody's: it did what was asked",
        Ok(v1::Fault::User) => "yours: the code, or a limit that it ran into",
        Ok(v1::Fault::Infra) => "the machines'",
        Ok(v1::Fault::Reclaim) => "nobody's: the cluster took the resources back",
        Ok(v1::Fault::Request) => "nobody's: somebody asked for the end",
        Ok(v1::Fault::Unspecified) | Err(_) => "not known",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        for (ms, text) in [
            (0, "0s"),
            (999, "0s"),
            (61_000, "1m1s"),
            (3_600_000, "1h"),
            (3_605_000, "1h"),
            (7_530_000, "2h5m"),
            (90_061_000, "1d1h"),
        ] {
            assert_eq!(duration(ms), text, "{ms}");
        }
    }

    #[test]
    fn short_spans_have_fractions() {
        for (ms, text) in [
            (0, "0.00s"),
            (47, "0.04s"),
            (9_999, "9.99s"),
            (10_000, "10.0s"),
            (59_999, "59.9s"),
            (60_000, "1m"),
        ] {
            assert_eq!(span(ms), text, "{ms}");
        }
    }

    #[test]
    fn amounts_are_short_and_never_too_large() {
        assert_eq!(bytes(0), "0B");
        assert_eq!(bytes(1_023), "1023B");
        assert_eq!(bytes(64 << 30), "64GiB");
        assert_eq!(bytes((3 << 40) / 2), "1.5TiB");
        assert_eq!(bytes(u64::MAX), "16383.9PiB");
        assert_eq!(cpus(8_000), "8");
        assert_eq!(cpus(500), "0.5");
        assert_eq!(cpus(8_001), "8.001");
        assert_eq!(gpus(PARTS / 2), "0.5");
    }

    #[test]
    fn enums_keep_what_they_do_not_know() {
        assert_eq!(job_state(v1::JobState::Running.into()), "Running");
        assert_eq!(reason(v1::PendingReason::NodesInDoubt.into()), "NodesInDoubt");
        assert_eq!(job_state(99), "Unknown(99)");
    }

    #[test]
    fn causes_carry_their_number() {
        let exited =
            v1::ExitCause { kind: v1::ExitKind::Exited.into(), number: 3, ..Default::default() };
        assert_eq!(cause(&exited), "Exited(3)");
        let prepare = v1::ExitCause {
            kind: v1::ExitKind::PrepareFailed.into(),
            step: v1::PrepareStep::Workdir.into(),
            ..Default::default()
        };
        assert_eq!(cause(&prepare), "PrepareFailed(Workdir)");
        let start = |number| {
            let kind = v1::ExitKind::StartFailed.into();
            cause(&v1::ExitCause { kind, number, ..Default::default() })
        };
        assert_eq!(start(2), "StartFailed(not found)");
        assert_eq!(start(13), "StartFailed(not executable)");
        assert_eq!(start(5), "StartFailed(errno 5)");
        let lost = v1::ExitCause { kind: v1::ExitKind::NodeLost.into(), ..Default::default() };
        assert_eq!(cause(&lost), "NodeLost");
    }
}
