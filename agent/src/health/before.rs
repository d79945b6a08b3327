//! The check before a job: are its GPUs there, clean, and nobody else's? And the owner's own.

use super::command::Command;
use super::probe::Watch;
use crate::driver::{Refused, Wanted};
use crate::inventory::GpuFinding;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use yard_common::cause::PrepareStep;
use yard_common::limits::CHECK_MS;
use yard_core::health::{Answer, Reading};

/// Between two looks at GPUs that may become clean by themselves.
const LOOK: Duration = Duration::from_millis(300);

/// What is wrong with a GPU, and whether that may pass within seconds.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    why: String,
    passes: bool,
}

/// Checks, for no longer than a check may take. `gpus`: whether GPUs are looked at.
///
/// # Errors
/// Why the job must not start.
pub(crate) async fn check(
    gpus: bool,
    command: &Command,
    watch: &mut Watch,
    wanted: &Wanted,
) -> Result<(), Refused> {
    if gpus && !wanted.gpus.is_empty() {
        let refused = |why| Refused { step: PrepareStep::GpuCheck, why };
        check_gpus(watch, wanted, Duration::from_millis(CHECK_MS)).await.map_err(refused)?;
    }
    let refused = |why| Refused { step: PrepareStep::NodeCheck, why };
    command.run().await.map_err(refused)
}

async fn check_gpus(watch: &mut Watch, wanted: &Wanted, time: Duration) -> Result<(), String> {
    let end = Instant::now() + time;
    loop {
        let round = watch.fresh().await;
        let problem = match round.finding {
            GpuFinding::Fake => None,
            GpuFinding::Nvml => problem(&round.found.readings, wanted),
            ref finding => Some(Problem { why: finding.to_string(), passes: false }),
        };
        match problem {
            None => return Ok(()),
            // A process that ended gives its memory back some time later.
            Some(problem) if problem.passes && Instant::now() + LOOK < end => sleep(LOOK).await,
            Some(problem) => return Err(problem.why),
        }
    }
}

/// The first thing that is wrong with the GPUs of a job.
fn problem(readings: &[Reading], wanted: &Wanted) -> Option<Problem> {
    wanted.gpus.iter().find_map(|uuid| {
        let reading = readings.iter().find(|reading| reading.uuid == *uuid);
        let (why, passes) = match reading {
            None => ("it is not there".to_string(), false),
            Some(Reading { answer: Answer::Lost, .. }) => ("it is lost".to_string(), false),
            Some(Reading { answer: Answer::Hung, .. }) => ("it does not answer".to_string(), false),
            Some(Reading { answer: Answer::Failed(why), .. }) => (why.clone(), false),
            Some(reading) => match reading.foreign.first() {
                Some(pid) => (format!("process {pid}, of no job, is on it"), true),
                None if wanted.whole && !reading.processes.is_empty() => {
                    (format!("process {} of another job is on it", reading.processes[0]), true)
                }
                None if wanted.whole && reading.is_dirty() => {
                    (format!("{} MiB are in use by nobody", reading.used_bytes >> 20), true)
                }
                None => return None,
            },
        };
        Some(Problem { why: format!("GPU {uuid}: {why}"), passes })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::AllocationId;
    use yard_core::agent::AssignmentId;

    fn wanted(gpus: &[&str], whole: bool) -> Wanted {
        let id = AssignmentId { allocation: AllocationId(7), group: 0 };
        Wanted { id, gpus: gpus.iter().map(|uuid| uuid.to_string()).collect(), whole }
    }

    #[test]
    fn only_the_gpus_of_the_job_count() {
        let clean = Reading::clean("a", 80 << 30);
        let lost = Reading { answer: Answer::Lost, ..Reading::clean("b", 0) };
        let readings = [clean, lost];
        assert_eq!(problem(&readings, &wanted(&["a"], true)), None);
        let found = problem(&readings, &wanted(&["a", "b"], true)).unwrap();
        assert_eq!((found.why.as_str(), found.passes), ("GPU b: it is lost", false));
        assert!(problem(&readings, &wanted(&["c"], true)).is_some());
    }

    #[test]
    fn what_passes_is_waited_for() {
        let mut reading = Reading::clean("a", 80 << 30);
        reading.used_bytes = 40 << 30;
        assert!(problem(&[reading.clone()], &wanted(&["a"], true)).unwrap().passes);
        assert_eq!(problem(&[reading.clone()], &wanted(&["a"], false)), None, "it is shared");
        (reading.used_bytes, reading.processes) = (1 << 30, vec![7]);
        assert!(problem(&[reading.clone()], &wanted(&["a"], true)).unwrap().passes);
        assert_eq!(problem(&[reading.clone()], &wanted(&["a"], false)), None);
        reading.foreign = vec![7];
        assert!(problem(&[reading], &wanted(&["a"], false)).unwrap().passes);
    }
}
