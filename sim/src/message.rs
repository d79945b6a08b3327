//! What happens, and what parties say to each other.

use crate::log::{Entry, Position, Snapshot};
use std::rc::Rc;
use yard_common::id::{LeaderId, LeaseId, MemberId, NodeId, RequestId, Sequence};
use yard_core::agent::{AssignmentId, Desired, Report, ShimEvent};
use yard_core::command::{Actor, Command, Inventory, Rejection, Reply};
use yard_core::lease::{Ack, Intent, Refusal, Renewal, Said};

/// Whoever has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// A member of the coordinator, by position.
    Member(usize),
    /// A machine with an agent, by position; it is the node of the same number.
    Machine(usize),
    /// A client, by position.
    Client(usize),
}

/// Something that happens.
#[derive(Debug)]
pub enum Event {
    /// A message arrives.
    Arrive { from: Party, to: Party, message: Box<Message> },
    /// A disk has done what was asked of it.
    Synced { member: usize, life: u32, done: Box<Done> },
    /// A member looks whether somebody leads.
    Election { member: usize, life: u32 },
    /// A leader does its regular work.
    Lead { member: usize, life: u32, leader: LeaderId, what: LeaderWork },
    /// An agent does its regular work.
    Agent { machine: usize, life: u32, what: AgentWork },
    /// A machine looks at the deadlines of its shims.
    Deadline { machine: usize, boot: u64 },
    /// A shim comes to the next point of its work.
    Shim { machine: usize, boot: u64, id: AssignmentId, nth: u64, what: ShimWork },
    /// What a shim said reaches the agent.
    ShimSaid { machine: usize, life: u32, id: AssignmentId, event: ShimEvent },
    /// A client thinks of something, or waits no longer.
    Client { client: usize, nth: u64 },
    /// Something breaks or heals.
    Fault(Fault),
    /// The run is looked at as a whole.
    Oversee,
}

/// Regular work of a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaderWork {
    /// Tells followers that it is there.
    Beat,
    /// Turns what was asked into an entry.
    Flush,
    /// Lets the scheduler run.
    Plan,
    /// Judges the silence of nodes.
    Sweep,
    /// Lets due timers fire.
    Tick,
}

/// Regular work of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentWork {
    /// Renews its lease with every member.
    Renew,
    /// Keeps its stream to the leader.
    Hello,
    /// A timer of the automaton.
    Tick,
}

/// A point in the work of a shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShimWork {
    /// Preparing is done, or failed.
    Prepared,
    /// The ranks of the present task come to their own end.
    Finished,
    /// The ranks obey the stop signal.
    Obeyed,
    /// The kill has reached the last process.
    Killed,
    /// No process is left.
    Reaped,
}

/// What waits for a disk.
#[derive(Debug)]
pub enum Done {
    /// A vote is durable.
    Vote { vote: LeaderId, reply: Option<(Party, Message)> },
    /// The log is durable up to here.
    Log { upto: Position },
    /// A promise is durable.
    Promise { count: usize, intent: Intent },
}

/// Something that breaks or heals, at a time that was drawn.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Draw the next one.
    Next,
    /// Links heal again.
    Mend(u64),
    /// A member starts again.
    MemberUp(usize),
    /// A machine boots.
    MachineUp(usize),
    /// A frozen machine goes on.
    Thaw(usize),
    /// An agent starts again.
    AgentUp(usize),
    /// A member wants to lead.
    Campaign(usize),
    /// A disk is fast again.
    DiskFast(usize),
    /// The network is calm again.
    Calm,
}

/// A message.
#[derive(Clone, Debug)]
pub enum Message {
    /// Asks for a vote.
    VoteAsk { candidate: LeaderId, last: Position },
    /// Answers; with the vote that stands.
    VoteSay { candidate: LeaderId, granted: bool, vote: LeaderId },
    /// Entries after `previous`; also the heartbeat.
    Append { leader: LeaderId, previous: Position, entries: Vec<Rc<Entry>>, commit: u64 },
    /// A whole state.
    Install { leader: LeaderId, snapshot: Rc<Snapshot>, commit: u64 },
    /// The log is durable and equal up to `index`; or, if not `ok`, it may be equal there.
    AppendSay { leader: LeaderId, ok: bool, index: u64, vote: LeaderId },
    /// A node renews its lease.
    Renew(Renewal),
    /// A member answers for it.
    Ack(Ack),
    /// A member does not.
    Refuse(Refusal),
    /// The leader asks how silent nodes are, and whether some can be given up.
    Sweep { leader: LeaderId, asks: Vec<(NodeId, LeaseId)> },
    /// A member answers.
    Swept { leader: LeaderId, member: MemberId, silent: Vec<(NodeId, u64)>, said: Vec<Said> },
    /// A client asks for something.
    Ask { request: RequestId, actor: Actor, command: Rc<Command> },
    /// The answer; `None`: ask somebody else, perhaps this one.
    Answer { request: RequestId, answer: Option<Result<Reply, Rejection>>, hint: Option<usize> },
    /// An agent wants to be in touch with the leader, or says that it still is.
    Hello(Box<Hello>),
    /// The leader's answer, with the desired set if it has a newer one.
    Welcome { stream: u64, desired: Option<Rc<Desired>> },
    /// The stream is over.
    Goodbye { stream: u64, hint: Option<usize> },
    /// Reports, in order within a stream.
    Reports { stream: u64, nth: u64, reports: Vec<Report> },
    /// Reports are committed.
    Reported { stream: u64, upto: Sequence },
    /// An agent leaves on purpose, or, with 0, is back.
    Away { stream: u64, for_ms: u64 },
    /// That is committed.
    Granted { stream: u64, for_ms: u64 },
    /// Entries that a deposed leader hands to whoever leads now.
    Forward { commands: Vec<(yard_core::command::Envelope, Command)> },
}

/// An agent's side of its stream.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Batches of reports that were sent on the stream.
    pub sent: u64,
    /// Minted anew by the agent for each connection.
    pub stream: u64,
    /// What the machine has.
    pub inventory: Rc<Inventory>,
    /// The set that it obeys.
    pub fence: yard_core::agent::Fence,
    /// The lease that it renews, if it holds it.
    pub held: Option<LeaseId>,
}
