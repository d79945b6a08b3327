//! A member's part in the leases of all nodes: it answers renewals, and promises leases away.
//!
//! **Invariants.** A promise is on the disk before anybody hears of it. The keeper learns of leases
//! before it learns of the membership that was applied after them, and each is as of the applied
//! state, so it never falls. The keeper is told that this member lives before it answers anything.

use crate::env::Env;
use crate::member::Member;
use crate::proposer::Handle;
use crate::raft::FatalError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use yard_common::id::{MemberId, NodeId};
use yard_common::limits::PROMISE_BATCHES_MAX;
use yard_core::lease::keeper::STILL_MS;
use yard_core::lease::{
    Ack, Intent, Judgement, Keeper, LeaseTimes, Promise, PromiseRecord, Refusal, Renewal, Said,
};
use yard_core::state::State;
use yard_proto::wire::{Sweep, Swept};

/// How often it says that it lives, if nobody asks anything.
const LIVES: Duration = Duration::from_millis(STILL_MS / 4);
/// Pause before a promise that found no room on the disk is tried again.
const FULL_AGAIN: Duration = Duration::from_secs(1);

/// What one member knows about leases.
pub(crate) struct Leases {
    member: MemberId,
    longest: LeaseTimes,
    env: Arc<dyn Env>,
    keeper: Arc<Mutex<Keeper>>,
    writes: mpsc::Sender<Write>,
}

/// Promises that wait for the disk, and who waits for them.
struct Write {
    intents: Vec<Intent>,
    done: oneshot::Sender<Vec<Promise>>,
}

/// Makes promises durable. A task of its own: a sweep whose leader is gone must not leave a
/// promise that is neither made nor taken back.
pub(crate) struct Promiser {
    keeper: Arc<Mutex<Keeper>>,
    raft: Handle,
    queue: mpsc::Receiver<Write>,
}

impl Leases {
    /// A member that starts now, with the promises that it made before.
    pub(crate) fn new(
        member: MemberId,
        longest: LeaseTimes,
        env: Arc<dyn Env>,
        raft: &Handle,
        state: &State,
    ) -> (Leases, Promiser) {
        let mut keeper = Keeper::new(member, state.membership.clone(), longest, env.boot_ms());
        keeper.restore(raft.promises().all());
        let keeper = Arc::new(Mutex::new(keeper));
        let (writes, queue) = mpsc::channel(PROMISE_BATCHES_MAX);
        let promiser = Promiser { keeper: Arc::clone(&keeper), raft: raft.clone(), queue };
        let leases = Leases { member, longest, env, keeper, writes };
        leases.learn(state, state.nodes.iter().map(|(id, _)| id));
        (leases, promiser)
    }

    /// The times of the longest lease that a node may have.
    pub(crate) fn longest(&self) -> LeaseTimes {
        self.longest
    }

    fn lock(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keeper, and the time, of which it knows that it was not slept through.
    fn awake(&self) -> (MutexGuard<'_, Keeper>, u64) {
        let mut keeper = self.lock();
        // Read under the lock: a promise that was judged in between must not be older than this.
        let now_ms = self.env.boot_ms();
        keeper.lives(now_ms);
        (keeper, now_ms)
    }

    /// The leases of these nodes, and the membership, as applied.
    pub(crate) fn learn(&self, state: &State, nodes: impl Iterator<Item = NodeId>) {
        let mut keeper = self.lock();
        // A state may be further than the entry that brought it here. With a membership that is
        // new to the keeper come all leases that were applied before it.
        let all = keeper.membership().id != state.membership.id;
        let rest = state.nodes.iter().map(|(id, _)| id).filter(|_| all);
        for id in nodes.chain(rest) {
            match state.nodes.get(id) {
                Some(node) => keeper.lease_applied(id, node.lease),
                None => keeper.forget(id),
            }
        }
        keeper.membership_applied(state.membership.clone(), self.env.boot_ms());
    }

    /// Answers a node that renews its lease.
    pub(crate) fn renew(&self, renewal: &Renewal) -> Result<Ack, Refusal> {
        let (mut keeper, now_ms) = self.awake();
        keeper.on_renewal(renewal, now_ms)
    }

    /// How long a node has been silent towards this member, in milliseconds.
    pub(crate) fn silent_ms(&self, node: NodeId) -> u64 {
        let (keeper, now_ms) = self.awake();
        keeper.silent_ms(node, now_ms)
    }

    /// Answers a leader that asks about all nodes. Leases that it wants promised away are, as far
    /// as they may be, and as soon as the disk has them.
    pub(crate) async fn sweep(&self, state: &State, sweep: &Sweep) -> Swept {
        let mut swept = Swept {
            leader: sweep.leader,
            member: self.member,
            silent_ms: Vec::new(),
            said: Vec::new(),
        };
        // Somebody else leads by now.
        if state.leader.is_some_and(|leader| leader > sweep.leader) {
            return swept;
        }
        // The place in the queue comes first: once the keeper has given an intent away, nothing
        // may keep it from the disk, not even a leader that asks no more.
        let place = match sweep.asks.is_empty() {
            true => None,
            false => self.writes.reserve().await.ok(),
        };
        let mut intents = Vec::new();
        {
            let (mut keeper, now_ms) = self.awake();
            let silent = |id| (id, keeper.silent_ms(id, now_ms));
            swept.silent_ms = state.nodes.iter().map(|(id, _)| silent(id)).collect();
            // Without a place, the member is ending.
            let asks = sweep.asks.iter().filter(|_| place.is_some());
            for (node, lease) in asks {
                match keeper.ask(*node, *lease, now_ms) {
                    Judgement::Persist(intent) => intents.push(intent),
                    Judgement::Promised(promise) => swept.said.push(Said::Promised(promise)),
                    Judgement::Heard { silent_ms, .. } => {
                        swept.said.push(Said::Heard { node: *node, silent_ms });
                    }
                    Judgement::Pending | Judgement::OtherLease { .. } => {}
                }
            }
        }
        if let Some(place) = place.filter(|_| !intents.is_empty()) {
            let (done, promised) = oneshot::channel();
            place.send(Write { intents, done });
            // The promiser ends with the member only; then nobody waits for this answer any more.
            if let Ok(promises) = promised.await {
                swept.said.extend(promises.into_iter().map(Said::Promised));
            }
        }
        swept
    }
}

/// Says that this member lives, until it is stopped.
pub(crate) async fn live(member: Arc<Member>, stop: CancellationToken) {
    let mut ticks = interval(LIVES);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => drop(member.leases.awake()),
        }
    }
}

impl Promiser {
    /// Runs until it is stopped.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let write = tokio::select! {
                () = stop.cancelled() => return,
                write = self.queue.recv() => write,
            };
            let Some(Write { intents, done }) = write else { return };
            let records: Vec<PromiseRecord> = intents.iter().map(Intent::record).collect();
            // On a full disk a promise has to wait. Until it is durable it is not made.
            while let Err(error) = self.raft.promises().persist(records.clone()).await {
                if !error.is_full() {
                    return self.raft.fail(FatalError::Storage(error));
                }
                tracing::warn!(%error, "a promise has to wait");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(FULL_AGAIN) => {}
                }
            }
            let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
            let promises = intents.into_iter().map(|intent| keeper.confirm(intent)).collect();
            drop(keeper);
            // Whoever asked may be gone; the next sweep hears of it.
            let _ = done.send(promises);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{MemoryDisk, TestEnv};
    use futures_util::poll;
    use yard_common::id::{LeaderId, LeaseId};

    const NODE: NodeId = NodeId(4);
    const LEASE: LeaseId = LeaseId(1);
    const MEMBER: MemberId = MemberId(1);

    #[tokio::test(start_paused = true)]
    async fn a_sweep_that_nobody_waits_for_loses_no_promise() {
        let env = Arc::new(TestEnv::new(MemoryDisk::default(), 1, 1_000));
        let state = State::default();
        let membership = state.membership.clone();
        let mut keeper = Keeper::new(MEMBER, membership, LeaseTimes::DEFAULT, env.boot_ms());
        keeper.lease_applied(NODE, LEASE);
        let (writes, mut queue) = mpsc::channel(1);
        let keeper = Arc::new(Mutex::new(keeper));
        let leases = Leases { member: MEMBER, longest: LeaseTimes::DEFAULT, env, keeper, writes };
        tokio::time::advance(Duration::from_secs(3_600)).await;
        let leader = LeaderId { term: 1, member: MEMBER };
        let sweep = Sweep { leader, asks: vec![(NODE, LEASE)] };
        // The disk is busy, and the leader gives up meanwhile.
        let (done, _) = oneshot::channel();
        leases.writes.try_send(Write { intents: Vec::new(), done }).ok().unwrap();
        let mut first = Box::pin(leases.sweep(&state, &sweep));
        assert!(poll!(&mut first).is_pending());
        drop(first);
        queue.recv().await.unwrap();
        let mut second = Box::pin(leases.sweep(&state, &sweep));
        assert!(poll!(&mut second).is_pending());
        let write = queue.try_recv().expect("the promise is on its way to the disk");
        assert_eq!(write.intents.len(), 1);
    }
}
