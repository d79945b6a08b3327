//! How a job ended, as an exit code.

use crate::failure::exit;
use yard_proto::v1;

/// The highest signal of Linux.
const SIGNAL_MAX: i64 = 64;

/// Whether a job has ended.
pub(crate) fn has_ended(job: &v1::Job) -> bool {
    matches!(
        v1::JobState::try_from(job.state),
        Ok(v1::JobState::Succeeded | v1::JobState::Failed | v1::JobState::Cancelled)
    )
}

/// The exit code of `run` and `wait` for a job that has ended.
pub(crate) fn exit_code(job: &v1::Job) -> u8 {
    if v1::JobState::try_from(job.state) == Ok(v1::JobState::Succeeded) {
        return 0;
    }
    let Some(cause) = &job.cause else { return exit::NO_STATUS };
    match v1::ExitKind::try_from(cause.kind) {
        // A code of 0 beside a failed job would look like a success.
        Ok(v1::ExitKind::Exited) => match u8::try_from(cause.number) {
            Ok(0) | Err(_) => exit::NO_STATUS,
            Ok(code) => code,
        },
        Ok(v1::ExitKind::Signaled) if (1..=SIGNAL_MAX).contains(&cause.number) => {
            128 + u8::try_from(cause.number).unwrap_or(0)
        }
        // The kernel's own end is a SIGKILL.
        Ok(v1::ExitKind::OutOfMemory) => 128 + 9,
        Ok(v1::ExitKind::TimedOut) => exit::TIMED_OUT,
        Ok(_) | Err(_) => exit::NO_STATUS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: v1::JobState, kind: v1::ExitKind, number: i64) -> v1::Job {
        let cause = v1::ExitCause { kind: kind.into(), number, ..v1::ExitCause::default() };
        v1::Job { state: state.into(), cause: Some(cause), ..v1::Job::default() }
    }

    #[test]
    fn a_job_gives_its_own_code() {
        use v1::{ExitKind, JobState};
        for (state, kind, number, code) in [
            (JobState::Succeeded, ExitKind::Exited, 0, 0),
            (JobState::Failed, ExitKind::Exited, 3, 3),
            (JobState::Failed, ExitKind::Exited, 0, 125),
            (JobState::Failed, ExitKind::Exited, 256, 125),
            (JobState::Failed, ExitKind::Signaled, 11, 139),
            (JobState::Failed, ExitKind::Signaled, 200, 125),
            (JobState::Failed, ExitKind::OutOfMemory, 0, 137),
            (JobState::Failed, ExitKind::TimedOut, 0, 124),
            (JobState::Failed, ExitKind::NodeLost, 0, 125),
            (JobState::Cancelled, ExitKind::Cancelled, 0, 125),
        ] {
            assert_eq!(exit_code(&job(state, kind, number)), code, "{kind:?} {number}");
        }
        assert_eq!(exit_code(&v1::Job::default()), 125);
    }

    #[test]
    fn only_terminal_states_have_ended() {
        assert!(!has_ended(&job(v1::JobState::Stopping, v1::ExitKind::Exited, 0)));
        assert!(has_ended(&job(v1::JobState::Cancelled, v1::ExitKind::Exited, 0)));
        assert!(!has_ended(&v1::Job { state: 99, ..v1::Job::default() }));
    }
}
