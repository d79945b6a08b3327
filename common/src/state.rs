//! States and their legal transitions, one table per thing. `State::apply` asserts each step.

use minicbor::{Decode, Encode};
use std::fmt;

/// Declares an enum of states and the table of its legal transitions.
macro_rules! states {
    (
        $(#[$doc:meta])* $name:ident {
            $($(#[$vdoc:meta])* $number:literal $variant:ident => [$($next:ident),*],)+
        }
    ) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode,
        )]
        #[cbor(index_only)]
        pub enum $name {
            $($(#[$vdoc])* #[n($number)] $variant,)+
        }

        impl $name {
            /// Every state, in the order of a usual life.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// The states that may follow this one.
            #[must_use]
            pub fn successors(self) -> &'static [$name] {
                match self {
                    $($name::$variant => &[$($name::$next),*],)+
                }
            }

            /// Whether the step is legal. Staying where one is, is no step.
            #[must_use]
            pub fn may_become(self, next: $name) -> bool {
                self.successors().contains(&next)
            }

            /// Whether this state is never left.
            #[must_use]
            pub fn is_terminal(self) -> bool {
                self.successors().is_empty()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self, f)
            }
        }
    };
}

states! {
    /// State of a job. An array's state follows from the counts of its tasks. Held, suspended and
    /// backing-off jobs rest in `Queued` with a pending reason.
    JobState {
        /// Waits, with a pending reason.
        0 Queued => [Preparing, Running, Stopping, Succeeded, Failed, Cancelled],
        /// Holds resources; no rank has started yet.
        1 Preparing => [Queued, Running, Stopping, Succeeded, Failed, Cancelled],
        /// At least one rank of it has started.
        2 Running => [Queued, Preparing, Stopping, Succeeded, Failed, Cancelled],
        /// Its end was asked for; ranks are being stopped.
        3 Stopping => [Queued, Preparing, Running, Succeeded, Failed, Cancelled],
        /// Every task succeeded.
        4 Succeeded => [],
        /// A task failed for good.
        5 Failed => [],
        /// Its owner or an operator ended it.
        6 Cancelled => [],
    }
}

states! {
    /// State of one task.
    TaskState {
        /// Waits until it may be placed, and is not in the order of its queue: a dependency,
        /// a time, a hold or a suspension keeps it.
        0 Blocked => [Queued, Backoff, Failed, Cancelled],
        /// In the order of its queue.
        1 Queued => [Blocked, Preparing, Failed, Cancelled],
        /// Waits before its next attempt.
        2 Backoff => [Blocked, Queued, Failed, Cancelled],
        /// An attempt holds resources.
        3 Preparing => [Queued, Blocked, Backoff, Running, Stopping, Succeeded, Failed, Cancelled],
        /// Ranks of the attempt have started.
        4 Running => [Queued, Blocked, Backoff, Stopping, Succeeded, Failed, Cancelled],
        /// The attempt is being stopped.
        5 Stopping => [Queued, Blocked, Backoff, Succeeded, Failed, Cancelled],
        /// Every rank exited 0.
        6 Succeeded => [],
        /// No further attempt.
        7 Failed => [],
        /// Ended by request.
        8 Cancelled => [],
    }
}

states! {
    /// State of an attempt.
    AttemptState {
        /// Agents prepare; or it is the unstarted tail of a chain.
        0 Preparing => [Running, Stopping, Ended],
        /// The start was given.
        1 Running => [Stopping, Ended],
        /// A rank ended or the end was asked for; the rest is being stopped.
        2 Stopping => [Ended],
        /// All ranks are accounted for. Its resources are free, or left behind on a node until
        /// they are seen reaped.
        3 Ended => [],
    }
}

states! {
    /// State of an assignment: the share of an attempt on one node, as the node reported it.
    AssignmentState {
        /// Sent to the agent.
        0 Preparing => [Ready, Running, Exited, Gone, Reaped],
        /// Prepared; waits for the gang.
        1 Ready => [Running, Exited, Gone, Reaped],
        /// Ranks have started.
        2 Running => [Exited, Gone, Reaped],
        /// All ranks on the node have ended.
        3 Exited => [Gone, Reaped],
        /// The node is lost; its share is in doubt.
        4 Gone => [Reaped],
        /// No process is left; the share is free.
        5 Reaped => [],
    }
}

states! {
    /// Whether a node is in touch. Cordons and drains are flags beside it.
    NodeState {
        /// Its lease is good.
        0 Up => [Suspect, Lost, Removed],
        /// Silent for longer than usual; nothing is concluded yet, nothing new is placed there.
        1 Suspect => [Up, Lost, Removed],
        /// A majority of members promised not to renew its lease.
        2 Lost => [Up, Removed],
        /// Taken out for good. A machine that comes back joins as a new node.
        3 Removed => [],
    }
}

impl TaskState {
    /// Whether an attempt of the task holds resources.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, TaskState::Preparing | TaskState::Running | TaskState::Stopping)
    }

    /// Whether the task waits.
    #[must_use]
    pub fn is_pending(self) -> bool {
        matches!(self, TaskState::Blocked | TaskState::Queued | TaskState::Backoff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asserts that no state but terminal ones is a dead end, and that all can be reached.
    macro_rules! check_table {
        ($name:ident) => {
            let mut reached = vec![$name::ALL[0]];
            let mut next = 0;
            while next < reached.len() {
                for state in reached[next].successors() {
                    assert_ne!(*state, reached[next], "staying is no step");
                    if !reached.contains(state) {
                        reached.push(*state);
                    }
                }
                next += 1;
            }
            assert_eq!(reached.len(), $name::ALL.len(), "unreachable {}", stringify!($name));
            for state in $name::ALL {
                assert!(!state.may_become(*state));
                assert_eq!(state.is_terminal(), state.successors().is_empty());
            }
        };
    }

    #[test]
    fn every_state_is_reachable_and_no_step_stays() {
        check_table!(JobState);
        check_table!(TaskState);
        check_table!(AttemptState);
        check_table!(AssignmentState);
        check_table!(NodeState);
    }

    #[test]
    fn ends_are_never_left() {
        for state in [JobState::Succeeded, JobState::Failed, JobState::Cancelled] {
            assert!(state.is_terminal());
        }
        assert!(!JobState::Succeeded.may_become(JobState::Queued));
        assert!(!TaskState::Failed.may_become(TaskState::Backoff));
    }
}
