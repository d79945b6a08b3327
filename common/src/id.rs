//! Typed ids. A dense id is a small integer minted by `State::apply` and never used again.

use minicbor::{Decode, Encode};
use std::fmt;

/// A small integer id, minted in rising order, that can index a table.
pub trait Dense: Copy + Ord + fmt::Display {
    /// The id as a position in a table.
    #[must_use]
    fn index(self) -> usize;

    /// The id of a position in a table.
    ///
    /// # Panics
    /// If the position does not fit the id's type; limits keep tables far below that.
    #[must_use]
    fn from_index(index: usize) -> Self;
}

/// Declares a dense integer id that displays as its number.
macro_rules! dense_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode,
        )]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub $inner);

        impl Dense for $name {
            fn index(self) -> usize {
                self.0 as usize
            }

            fn from_index(index: usize) -> Self {
                $name(<$inner>::try_from(index).expect("ids are bounded far below their type"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

/// A text that is no 128-bit id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not 32 hexadecimal digits in lower case")]
pub struct NotAnId;

/// Declares a 128-bit id that displays as 32 hexadecimal digits.
macro_rules! wide_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $name(#[n(0)] u64, #[n(1)] u64);

        impl $name {
            /// The id with this value.
            #[must_use]
            pub fn from_u128(value: u128) -> Self {
                $name((value >> 64) as u64, value as u64)
            }

            /// The value of the id.
            #[must_use]
            pub fn to_u128(self) -> u128 {
                u128::from(self.0) << 64 | u128::from(self.1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.to_u128())
            }
        }

        impl std::str::FromStr for $name {
            type Err = NotAnId;

            /// Reads the 32 digits as they are displayed, and nothing else: one id, one text.
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                if text.len() != 32 || !text.bytes().all(digit) {
                    return Err(NotAnId);
                }
                u128::from_str_radix(text, 16).map($name::from_u128).map_err(|_| NotAnId)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

dense_id!(/// A job, as users see it: `812`.
    JobId(u64));
dense_id!(/// A machine with an agent. A machine that joins anew gets a new id.
    NodeId(u32));
dense_id!(/// A named set of nodes of one shape and provider.
    PoolId(u32));
dense_id!(/// An ordered holder of pending tasks.
    QueueId(u32));
dense_id!(/// A tenancy boundary.
    WorkspaceId(u32));
dense_id!(/// A named group of jobs in a workspace.
    ExperimentId(u32));
dense_id!(/// An authenticated user.
    PrincipalId(u32));
dense_id!(/// Resources held by one attempt, or by the attempts of one chain in turn.
    AllocationId(u64));
dense_id!(/// A member of the coordinator. Never used again after it left.
    MemberId(u64));
dense_id!(/// A distinct shape of task, interned by content.
    ShapeId(u32));
dense_id!(/// A volume definition of a workspace.
    MountId(u32));
dense_id!(/// Number of a cluster's life; a restore from backup mints a new one.
    Incarnation(u32));
dense_id!(/// Version of a node's desired set, minted in apply; rises only.
    Generation(u64));
dense_id!(/// Order of a node's reports; rises only within the life of a node id.
    Sequence(u64));
dense_id!(/// Which lease of a node: raised by a committed command after a promise was lifted.
    LeaseId(u64));
dense_id!(/// One execution of a task: 1, 2, 3 and so on. 0: not tried yet.
    AttemptNumber(u32));
dense_id!(/// Replicated feature level: what every member of the cluster understands.
    FeatureLevel(u32));
dense_id!(/// Position in the replicated log.
    LogIndex(u64));

impl Incarnation {
    /// Log positions, leases and allocations of a life that began by a restore are numbered from
    /// here on. A restore makes the life the second in which it happens; so a number of an earlier
    /// life is below, as long as fewer than a million are given out in a second.
    #[must_use]
    pub fn first_number(self) -> u64 {
        // The first life begins where it always has.
        if self.0 <= 1 { 0 } else { u64::from(self.0) << 20 }
    }
}

wide_id!(/// A cluster, minted once when it is initialised.
    ClusterId);
wide_id!(/// Made by a client, so that a retry of the same request is recognised.
    RequestId);
wide_id!(/// A join or login token. The secret that goes with it is stored hashed.
    TokenId);
wide_id!(/// One boot of a machine's kernel.
    BootId);

/// Index of a task within its job; a job that is no array has the single task 0.
pub type TaskIndex = u32;

/// A task: the unit of scheduling and retry. Displays as `812` or `812[3]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct TaskId {
    /// The job.
    #[n(0)]
    pub job: JobId,
    /// Position within the job's array.
    #[n(1)]
    pub index: TaskIndex,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.job, self.index)
    }
}

/// A half-open range of task indices, `first .. first + len`. Displays as `3` or `3-7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct TaskRange {
    /// The first index.
    #[n(0)]
    pub first: TaskIndex,
    /// Number of tasks, at least 1.
    #[n(1)]
    pub len: u32,
}

impl TaskRange {
    /// The range that holds one task.
    #[must_use]
    pub fn one(index: TaskIndex) -> TaskRange {
        TaskRange { first: index, len: 1 }
    }

    /// The range `first .. end`; empty ranges do not exist.
    ///
    /// # Panics
    /// If `end <= first`.
    #[must_use]
    pub fn between(first: TaskIndex, end: TaskIndex) -> TaskRange {
        assert!(first < end, "empty task range {first}..{end}");
        TaskRange { first, len: end - first }
    }

    /// One past the last index. Saturates, so that hostile input cannot wrap around.
    #[must_use]
    pub fn end(self) -> TaskIndex {
        self.first.saturating_add(self.len)
    }

    /// Whether the index lies in the range.
    #[must_use]
    pub fn contains(self, index: TaskIndex) -> bool {
        self.first <= index && index < self.end()
    }

    /// The indices in order.
    pub fn indices(self) -> impl DoubleEndedIterator<Item = TaskIndex> {
        self.first..self.end()
    }
}

impl fmt::Display for TaskRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len {
            1 => write!(f, "{}", self.first),
            _ => write!(f, "{}-{}", self.first, self.end().saturating_sub(1)),
        }
    }
}

/// Who leads, as committed. Raft may elect two leaders in one term (leader ids are ordered by
/// term, then member), so the term alone fences nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct LeaderId {
    /// The Raft term.
    #[n(0)]
    pub term: u64,
    /// The member that leads.
    #[n(1)]
    pub member: MemberId,
}

impl fmt::Display for LeaderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-m{}", self.term, self.member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_display_like_the_command_line() {
        assert_eq!(TaskRange::one(3).to_string(), "3");
        assert_eq!(TaskRange::between(3, 8).to_string(), "3-7");
        assert_eq!(TaskId { job: JobId(812), index: 3 }.to_string(), "812[3]");
    }

    #[test]
    fn a_hostile_range_does_not_wrap() {
        let range = TaskRange { first: u32::MAX - 1, len: 10 };
        assert_eq!(range.end(), u32::MAX);
        assert!(!range.contains(0));
    }

    #[test]
    fn leaders_of_one_term_are_ordered_by_member() {
        let a = LeaderId { term: 4, member: MemberId(1) };
        let b = LeaderId { term: 4, member: MemberId(2) };
        assert!(a < b && a != b);
    }

    #[test]
    fn wide_ids_keep_all_bits() {
        let id = RequestId::from_u128(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        assert_eq!(id.to_string(), "0123456789abcdef0011223344556677");
        let bytes = minicbor::to_vec(id).unwrap();
        assert_eq!(minicbor::decode::<RequestId>(&bytes).unwrap(), id);
        assert_eq!(id.to_string().parse(), Ok(id));
        let text = id.to_string();
        for bad in ["", "0", "+123456789abcdef0011223344556677", &text.to_uppercase(), &text[1..]] {
            assert_eq!(bad.parse::<RequestId>(), Err(NotAnId), "{bad}");
        }
    }
}
