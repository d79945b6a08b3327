//! One control stream: what is wanted goes out, what was seen comes in.
//!
//! **Invariants.** A desired set is never sent before the boot that the agent speaks for is
//! applied: a set from before names attempts that ended with the machine. Reports are proposed in
//! the order of the stream; a gap ends it. Everything that is kept here is bounded, and the agent
//! reads at its own pace: nothing more is taken in while the last answer is not sent.

use super::batches::Batches;
use super::{Answers, Place};
use crate::member::Member;
use crate::proposer::ProposeError;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, stream};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tonic::{Status, Streaming};
use yard_common::id::{BootId, LeaseId, NodeId};
use yard_common::limits::{FACTS_BYTES_MAX, SESSION_SILENT_MS};
use yard_core::agent::{AssignmentId, Fence, Report};
use yard_core::command::{Actor, Command, Inventory, NodeCommand, Rejection, Reply, SetupId};
use yard_core::lease::MembershipId;
use yard_core::state::{Node, State};
use yard_proto::convert::detail::{detail, messages};
use yard_proto::convert::{facts_len, setup_for};
use yard_proto::internal::agent_message::What as Said;
use yard_proto::internal::coordinator_message::What;
use yard_proto::internal::{
    AgentMessage, CoordinatorMessage, Goodbye, Hello, MemberAddress, Pong, Reported, Welcome,
};
use yard_proto::wire::Payload;
use yard_runtime::identity::Peer;

/// Serves the control stream of a node, whose agent has proved who it is.
pub(crate) fn control(
    member: Arc<Member>,
    node: NodeId,
    peer: Arc<Peer>,
    inbound: Streaming<AgentMessage>,
) -> Answers<CoordinatorMessage> {
    let place = member.sessions.enter(node);
    let Some(place) = place else {
        let (leader, reason) = (leader_of(&member), "this member does not lead".to_string());
        let goodbye = message(What::Goodbye(Goodbye { leader, reason }));
        return Box::pin(stream::iter([Ok(goodbye)]));
    };
    let session = Session {
        batches: Batches::new(node, member.raft.clone()),
        heard: Instant::now(),
        member,
        node,
        peer,
        place,
        inbound,
        out: VecDeque::new(),
        agent: None,
        wanted: None,
        updating: None,
        sent: Fence::NONE,
        told: BTreeSet::new(),
        members_told: None,
        setup: SetupId::default(),
        batches_heard: 0,
        over: false,
    };
    // Driven by whoever reads the answers: the stream ends with its connection, and no task is
    // left behind.
    Box::pin(stream::unfold(session, |mut session| async move {
        let next = session.next().await?;
        Some((next, session))
    }))
}

fn message(what: What) -> CoordinatorMessage {
    CoordinatorMessage { what: Some(what) }
}

fn leader_of(member: &Member) -> Option<MemberAddress> {
    let leader = member.leader().filter(|leader| *leader != member.id)?;
    member.address_of(leader)
}

/// Why a stream ends, for the agent's log.
type End = String;

/// What comes of telling the state about the machine.
type Updated = Result<Result<Reply, Rejection>, ProposeError>;

struct Session {
    member: Arc<Member>,
    node: NodeId,
    peer: Arc<Peer>,
    place: Place,
    inbound: Streaming<AgentMessage>,
    out: VecDeque<CoordinatorMessage>,
    /// The boot that the agent speaks for; none before its hello.
    agent: Option<BootId>,
    /// What the agent says its machine has, if it waits to be proposed.
    wanted: Option<Inventory>,
    updating: Option<BoxFuture<'static, Updated>>,
    /// The highest set that was sent, or that the agent said it obeys.
    sent: Fence,
    /// Assignments of that set whose details were told on this stream.
    told: BTreeSet<AssignmentId>,
    members_told: Option<MembershipId>,
    /// The setup of its pool that the agent has, as far as this stream knows.
    setup: SetupId,
    batches: Batches,
    batches_heard: u64,
    heard: Instant,
    over: bool,
}

impl Session {
    /// The next message to the agent; none: the stream is over.
    async fn next(&mut self) -> Option<Result<CoordinatorMessage, Status>> {
        loop {
            if let Some(message) = self.out.pop_front() {
                return Some(Ok(message));
            }
            if self.over {
                return None;
            }
            if let Err(reason) = self.step().await {
                tracing::debug!(node = %self.node, reason, "a control stream ends");
                let leader = leader_of(&self.member);
                self.out.push_back(message(What::Goodbye(Goodbye { leader, reason })));
                self.over = true;
            }
        }
    }

    /// Waits until something happens, and does what follows from it.
    async fn step(&mut self) -> Result<(), End> {
        let silent = self.heard + Duration::from_millis(SESSION_SILENT_MS);
        let is_busy = self.batches.is_busy();
        let updated = async {
            match &mut self.updating {
                Some(updating) => updating.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // First: a member that stops leads no more, and that is not the reason.
            () = self.member.stop.cancelled() => Err("this member is stopping".into()),
            () = self.place.over.cancelled() => {
                Err("this member leads no more, or the agent has a newer stream".into())
            }
            answer = self.batches.next(), if is_busy => {
                if let Some(upto) = answer.map_err(|error| error.to_string())? {
                    self.say(What::Reported(Reported { sequence: upto.0 }));
                }
                Ok(())
            }
            outcome = updated => {
                self.updating = None;
                self.on_updated(outcome)
            }
            () = self.place.wake.notified() => self.on_wake(),
            Some(call) = self.place.calls.recv() => {
                self.say(What::DataCall(call));
                Ok(())
            }
            heard = self.inbound.message() => {
                self.heard = Instant::now();
                match heard {
                    Ok(Some(message)) => self.on_message(message).await,
                    Ok(None) => Err("the agent has ended the stream".into()),
                    Err(status) => Err(format!("the stream broke: {}", status.message())),
                }
            }
            () = sleep_until(silent) => {
                Err(format!("nothing was heard for {SESSION_SILENT_MS} ms"))
            }
        }
    }

    fn say(&mut self, what: What) {
        self.out.push_back(message(what));
    }

    async fn on_message(&mut self, message: AgentMessage) -> Result<(), End> {
        match message.what {
            Some(Said::Hello(hello)) => self.on_hello(&hello),
            Some(Said::Reports(reports)) => {
                if self.agent.is_none() {
                    return Err("reports before a hello".into());
                }
                // A stream loses nothing: one on which a batch is missing has broken.
                if reports.nth != self.batches_heard + 1 {
                    let expected = self.batches_heard + 1;
                    return Err(format!("batch {} came where {expected} was due", reports.nth));
                }
                self.batches_heard = reports.nth;
                let reports = Vec::<Report>::from_payload(&reports.payload);
                let reports = reports.map_err(|error| error.to_string())?;
                self.batches.take(reports).await.map_err(|error| error.to_string())
            }
            Some(Said::Ping(ping)) => {
                let fence = Fence::from_payload(&ping.fence).map_err(|error| error.to_string())?;
                self.on_alive(ping.held_lease_id, ping.sent, fence)?;
                self.say(What::Pong(Pong {}));
                Ok(())
            }
            Some(Said::Facts(told)) => {
                let facts = told.facts.unwrap_or_default();
                // Nobody depends on them: too long ones are no reason to end the stream.
                if facts_len(&facts) <= FACTS_BYTES_MAX {
                    self.member.sessions.learn(self.node, facts);
                }
                Ok(())
            }
            // Something of a newer version; what it can do without, we can.
            None => Ok(()),
        }
    }

    fn on_hello(&mut self, hello: &Hello) -> Result<(), End> {
        let fence = Fence::from_payload(&hello.fence).map_err(|error| error.to_string())?;
        let inventory = Inventory::from_payload(&hello.inventory);
        let inventory = inventory.map_err(|error| error.to_string())?;
        self.on_alive(hello.held_lease_id, hello.sent, fence)?;
        let (_, state) = self.member.raft.state();
        let node = state.nodes.get(self.node).ok_or("this node was removed")?;
        if self.agent.is_none() {
            let members = self.member.members(&state);
            self.members_told = Some(state.membership.id);
            self.say(What::Welcome(Welcome {
                term: self.place.leader.term,
                member_id: self.place.leader.member.0,
                members: Some(members),
                lease_ms: state.lease_ms(node.pool),
                reported_sequence: node.reported.0,
                incarnation: state.incarnation.0,
                wall_ms: self.member.env.wall_ms(),
            }));
            self.setup = hello.setup.map(SetupId::from).unwrap_or_default();
            self.say_setup(&state, node, true);
        }
        self.agent = Some(inventory.boot);
        if *node.facts != inventory {
            self.wanted = Some(inventory);
            self.update();
        }
        self.push()
    }

    /// What hellos and pings have in common.
    fn on_alive(&mut self, held: Option<u64>, sent: u64, fence: Fence) -> Result<(), End> {
        if sent != self.batches_heard {
            return Err(format!("{sent} batches were sent, {} came", self.batches_heard));
        }
        let now_ms = self.member.env.boot_ms();
        self.member.sessions.hold(self.node, held.map(LeaseId), now_ms);
        if !self.peer.is_current(self.member.env.wall_ms()) {
            return Err("the certificate of this stream has run out".into());
        }
        self.sent = self.sent.max(fence);
        Ok(())
    }

    /// Proposes what the machine has, one at a time.
    fn update(&mut self) {
        if self.updating.is_some() {
            return;
        }
        let Some(inventory) = self.wanted.take() else { return };
        let (node, raft) = (self.node, self.member.raft.clone());
        let propose = async move {
            let command = Command::Node(NodeCommand::Update { node, inventory });
            raft.propose(Actor::Node(node), None, &command).await
        };
        self.updating = Some(propose.boxed());
    }

    fn on_updated(&mut self, outcome: Updated) -> Result<(), End> {
        match outcome {
            Ok(Ok(_)) => {
                self.update();
                self.push()
            }
            Ok(Err(rejection)) => Err(format!("the inventory was refused: {rejection}")),
            Err(error) => Err(format!("the inventory was not committed: {error}")),
        }
    }

    fn on_wake(&mut self) -> Result<(), End> {
        if self.agent.is_none() {
            return Ok(());
        }
        let (_, state) = self.member.raft.state();
        if state.revocations.contains(&self.peer.serial) {
            return Err("the certificate of this stream was revoked".into());
        }
        if self.members_told != Some(state.membership.id) {
            self.members_told = Some(state.membership.id);
            let members = self.member.members(&state);
            self.say(What::Members(members));
        }
        if let Some(node) = state.nodes.get(self.node) {
            self.say_setup(&state, node, false);
        }
        self.push()
    }

    /// Says what the pool wants before it gives work. The agent does nothing before it was told
    /// once that what it has still holds; its text goes to those alone who have another one.
    fn say_setup(&mut self, state: &State, node: &Node, is_first: bool) {
        let pool = &state.pools[node.pool];
        let (told, wanted) = (self.setup, pool.setup_id);
        self.setup = wanted;
        if told != wanted || is_first && wanted.is_some() {
            self.say(What::Setup(setup_for(pool, told)));
        }
    }

    /// Sends the desired set, if it is newer than what the agent has.
    fn push(&mut self) -> Result<(), End> {
        let (_, state) = self.member.raft.state();
        let node = state.nodes.get(self.node).ok_or("this node was removed")?;
        let fence = Fence { incarnation: state.incarnation, generation: node.generation };
        if self.agent != Some(node.facts.boot) || fence <= self.sent {
            return Ok(());
        }
        let Some(desired) = state.desired(self.node) else { return Ok(()) };
        let ids: BTreeSet<AssignmentId> = desired.assignments.iter().map(|one| one.id).collect();
        let untold = ids.difference(&self.told);
        let details = untold.filter_map(|id| detail(&state, self.node, *id)).collect();
        let sets = messages(&desired, details).map_err(|error| error.to_string())?;
        self.out.extend(sets.into_iter().map(|set| message(What::Desired(set))));
        (self.told, self.sent) = (ids, fence);
        Ok(())
    }
}
