//! Leases of nodes: is a silent machine dead enough to start its work elsewhere?
//!
//! Three pure automata, the same in the real processes and in the simulator. Each is given the
//! time by the boot clock of the machine that it runs on, and none compares clocks of two
//! machines; only their *rates* are trusted, to within [`DRIFT_PPM`](times::DRIFT_PPM).
//!
//! ```text
//!   node: Holder                       every member: Keeper                leader: GiveUp
//!        |                                   |                                  |
//!        |--- Renewal(lease, sent) --------->|  remembers until when it         |
//!        |<-- Ack(sent, membership) ---------|  is counted on                   |
//!        |                                   |                                  |
//!   holds until the majority-th              |<------ may I give it up? --------|  suspect: 1 s
//!   largest `sent` + L, counted              |  silent for L(1+3e)+K, up for    |
//!   within one membership                    |  as long, membership as old:     |
//!        |                                   |  writes the promise, syncs       |
//!        |--- Renewal ---------------------->|------- Promise(membership) ----->|  majority:
//!        |<-- Refusal::Promised -------------|                                  |  commits Lost
//!        |                                   |<------ Lost or Lift applied -----|  else alive:
//!        |<-- the next lease ------------------------------------------------------ commits Lift
//! ```
//!
//! No leader stands between a node and its lease: a change of the leader, and the death of any
//! minority of members, pass unseen. A deposed leader can neither prolong a lease nor end one.
//!
//! # Why a lost node is dead
//!
//! *One membership.* Let a lease be lost by the promises of a majority P, and let A be a majority
//! whose answers the holder counts. Some member m is in both. The holder counts L from when it
//! *sent* what m answered; m counts L(1+3e)+K from when it *received* it, which is later. Even if
//! the holder's clock is slow by e and m's fast by e, the holder is past its deadline, and past
//! the K that a kill takes, before m may promise ([`LeaseTimes`] checks the sum). Afterwards m
//! answers this lease no more. So no majority that the holder could count on lacks a member that
//! has waited it out, and none will ever again.
//!
//! *A restart of m* forgets when it answered last; it waits as long from its start, with the
//! longest lease of any node. It must not forget a promise: the promise is synced before it is
//! sent, and the renewals it excludes are refused from before it is written.
//!
//! *A change of the membership* breaks the overlap, since the majority that answered and the one
//! that promises may belong to different sets. Hence three rules.
//! (1) An answer counts within one membership only; in a joint one, in both halves.
//! (2) A member answers only while the latest membership of its log is applied. Once a membership
//! is committed, a majority of the one before has it in its logs, so the old one gathers no
//! majority of new answers: what the holder gained under it was sent before that commit.
//! (3) A promise also waits from when its membership was applied, which is after its commit. So
//! the promise of any member outlasts all that was gained under older memberships. It counts
//! under this membership only, and [`Lost::next_lease`] refuses a loss that another membership
//! entry has overtaken in the log.
//! Answers under *later* memberships come from members that, by (2), have applied the loss, and
//! then only the next lease is answered.
//!
//! *A promise without a loss*, since the node was heard by the others, is never undone by time: a
//! majority could be lost without the leader ever seeing one. It is undone by a committed new
//! lease ([`Lift`]). A promise is for one lease and those before it, but the wait before it spans
//! the answers to all leases of the node, so what the holder keeps from its old lease is covered.
//!
//! Both sides must agree on L. It travels in each renewal, so a pool can change it at any time.
//!
//! # What callers must do
//!
//! 1. Read the boot clock (it runs on in a suspended machine) right before each call, and tell the
//!    keeper that it lives ([`Keeper::lives`]).
//! 2. Kill at the deadline from outside of the agent: the shim holds it, and looks at it again
//!    after a rank was forked and before it runs.
//! 3. Sync [`Intent::record`] before [`Keeper::confirm`], and give all records to
//!    [`Keeper::restore`] before the first renewal after a restart.
//! 4. Tell the keeper of each membership entry as it is appended, and of memberships and leases
//!    as they are applied, in log order.
//! 5. Commit what [`Ballots::judge`] says; let apply ask [`Lost::next_lease`] and
//!    [`Lift::next_lease`].
//!
//! `tests/lease_model` checks the rules in every state of small clusters,
//! `tests/lease_random` under random schedules, and both that each weaker rule fails.

pub mod ballots;
pub mod brake;
pub mod give_up;
pub mod holder;
pub mod keeper;
pub mod membership;
pub mod message;
pub mod times;

pub use ballots::{Ballots, HELD_MS, Verdict};
pub use brake::{Brake, BrakeRule};
pub use give_up::{GiveUp, Outcome, is_suspect};
pub use holder::{Holder, LeaseState};
pub use keeper::{Intent, Judgement, Keeper};
pub use membership::{Membership, MembershipId};
pub use message::{Ack, Lift, Lost, Promise, PromiseRecord, Refusal, Renewal, Said};
pub use times::{Deadline, LEASE_MS_MAX, LEASE_MS_MIN, LeaseTimes, TimesError};

#[cfg(test)]
mod tests;
