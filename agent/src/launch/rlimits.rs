//! Limits of each process, as far as this node allows them.

use crate::sys::ProcessLimit;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use yard_common::Bytes;
use yard_common::limits::ASSIGNMENT_PIDS_MIN;
use yard_common::spec::run::Limits;
use yard_common::spec::scalar::Limit;

/// What processes get, and for people, what they do not get of that which the job names. A limit
/// that is as high as possible is never too low.
pub(super) fn of(asked: &Limits) -> (Vec<ProcessLimit>, Vec<String>) {
    // What no process may exceed, whoever asks.
    let open_max = number("/proc/sys/fs/nr_open").unwrap_or(1 << 20);
    let files = match asked.nofile {
        Limit::Max => Limit::Max,
        Limit::At(count) => Limit::At(u64::from(count.get())),
    };
    let all = [
        ("nofile", Resource::RLIMIT_NOFILE, libc::RLIMIT_NOFILE, Some(files)),
        ("memlock", Resource::RLIMIT_MEMLOCK, libc::RLIMIT_MEMLOCK, bytes(Some(asked.memlock))),
        ("core", Resource::RLIMIT_CORE, libc::RLIMIT_CORE, bytes(Some(asked.core))),
        ("stack", Resource::RLIMIT_STACK, libc::RLIMIT_STACK, bytes(asked.stack)),
    ];
    let (mut limits, mut notes) = (Vec::new(), Vec::new());
    for (name, kind, resource, wanted) in all {
        let Some(wanted) = wanted else { continue };
        let most = if name == "nofile" { open_max } else { libc::RLIM_INFINITY };
        let value = match wanted {
            Limit::Max => most,
            Limit::At(value) => value.min(most),
        };
        if let Limit::At(asked) = wanted {
            let (got, why) = match allowed(kind, value) {
                Some(got) => (got, "the agent may not raise its own limit (CAP_SYS_RESOURCE)"),
                None => (value, "the kernel has no more (fs.nr_open)"),
            };
            if got < asked {
                let told = format!("limits.{name}: {asked} is asked for, and this node allows");
                notes.push(format!("{told} {got}: {why}"));
            }
        }
        limits.push(ProcessLimit { resource, value });
    }
    (limits, notes)
}

fn bytes(limit: Option<Limit<Bytes>>) -> Option<Limit<u64>> {
    limit.map(|limit| match limit {
        Limit::Max => Limit::Max,
        Limit::At(bytes) => Limit::At(bytes.0),
    })
}

/// What is allowed instead of a value, if it is less: ours is raised first, since only that says
/// whether we may.
fn allowed(kind: Resource, value: u64) -> Option<u64> {
    let (soft, hard) = getrlimit(kind).ok()?;
    let is_short = value > hard && setrlimit(kind, soft, value).is_err();
    is_short.then_some(hard)
}

/// Processes and threads of an assignment whose job does not say: half of what the machine can
/// have, so that one that forks without end leaves room for the others, and for us.
pub(super) fn pids() -> u32 {
    let machine = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    let most = machine.into_iter().filter_map(number).min().unwrap_or(0);
    u32::try_from(most / 2).unwrap_or(u32::MAX).max(ASSIGNMENT_PIDS_MIN)
}

fn number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::spec::JobSpec;

    fn limits(text: &str) -> (Vec<ProcessLimit>, Vec<String>) {
        let yaml = format!("command: 'true'\nlimits: {text}");
        of(&JobSpec::from_yaml(&yaml).unwrap().limits)
    }

    #[test]
    fn what_is_as_high_as_possible_is_no_shortfall() {
        let (limits, notes) = limits("{}");
        assert_eq!(notes, Vec::<String>::new());
        let core = limits.iter().find(|limit| limit.resource == libc::RLIMIT_CORE).unwrap();
        assert_eq!((limits.len(), core.value), (3, 0));
    }

    #[test]
    fn more_files_than_the_kernel_has_is_a_shortfall() {
        let (_, notes) = limits("{nofile: 4000000000}");
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].starts_with("limits.nofile: 4000000000 is asked for"), "{notes:?}");
    }

    #[test]
    fn a_job_leaves_room_for_the_others() {
        let most = number("/proc/sys/kernel/pid_max").unwrap();
        assert!(u64::from(pids()) <= most / 2 || pids() == ASSIGNMENT_PIDS_MIN);
    }
}
