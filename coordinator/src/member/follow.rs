//! Follows what is applied here: for the keeper of leases, for watches, for what is remembered of
//! attempts, and for the control streams of agents.
//!
//! One task, so that all of them see the same order. When it fell too far behind it starts anew
//! from the state.

use super::Member;
use super::recent::Happened;
use crate::proposer::{Subscription, SubscriptionError};
use crate::raft::{AppliedEntry, Update};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use yard_common::id::NodeId;
use yard_core::command::{Cluster, Command, NodeCommand, Object, Reply, Stamp};
use yard_core::event::{Applied, Event};

/// Runs until it is stopped, or the member has stopped.
pub(crate) async fn run(member: Arc<Member>, mut updates: Subscription, stop: CancellationToken) {
    loop {
        let update = tokio::select! {
            () = stop.cancelled() => return,
            update = updates.next() => update,
        };
        match update {
            Ok(Update::Entry(entry)) => take(&member, &entry),
            Ok(Update::Replaced(_)) => start_anew(&member),
            Err(SubscriptionError::Lagged(missed)) => {
                tracing::warn!(missed, "entries were applied faster than they were followed");
                start_anew(&member);
            }
            Err(SubscriptionError::Stopped) => return,
        }
    }
}

/// Something was missed: everything is read from the state again.
fn start_anew(member: &Member) {
    let (index, state) = member.raft.state();
    member.leases.learn(&state, state.nodes.iter().map(|(id, _)| id));
    member.attempts.start_anew(&state);
    member.recent.restart(index);
    member.sessions.wake_all();
}

fn take(member: &Member, entry: &AppliedEntry) {
    let mut news = News::default();
    let mut happened = Happened { index: entry.index, at: Stamp::default(), events: Vec::new() };
    for (envelope, command, applied) in &entry.outcomes {
        happened.at = envelope.stamp;
        happened.events.extend(applied.events.iter().filter(|event| is_told(event)).cloned());
        member.attempts.learn(envelope, command, applied);
        news.learn(command, applied);
    }
    if news.touches_leases() {
        // As of now, which may be later than the entry: what is applied is committed.
        let (_, state) = member.raft.state();
        match news.all_leases {
            true => member.leases.learn(&state, state.nodes.iter().map(|(id, _)| id)),
            false => member.leases.learn(&state, news.leases.iter().copied()),
        }
    }
    member.recent.push(happened);
    match news.all_sessions {
        true => member.sessions.wake_all(),
        false => news.sessions.iter().for_each(|node| member.sessions.wake(*node)),
    }
}

/// How a node is told of its set is nobody's business but its own; that shares are lost is told by
/// the end of their attempt.
fn is_told(event: &Event) -> bool {
    !matches!(event, Event::Desired { .. } | Event::ShareLost { .. })
}

/// What an entry means for others.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    /// Nodes whose lease may have changed.
    leases: BTreeSet<NodeId>,
    /// Whether all of them may have, or the membership.
    all_leases: bool,
    /// Nodes whose control stream has something to tell.
    sessions: BTreeSet<NodeId>,
    /// Whether all have: members changed, or a certificate was refused.
    all_sessions: bool,
}

impl News {
    fn touches_leases(&self) -> bool {
        self.all_leases || !self.leases.is_empty()
    }

    fn learn(&mut self, command: &Command, applied: &Applied) {
        if let Ok(reply) = &applied.reply {
            match command {
                Command::Cluster(Cluster::Members { .. } | Cluster::Restored { .. }) => {
                    self.all_leases = true;
                }
                Command::Node(command) => self.leases.extend(node_of(command, reply)),
                Command::Cluster(_)
                | Command::Access(_)
                | Command::Holder(_)
                | Command::Job(_)
                | Command::Plan(_)
                | Command::Report(_) => {}
            }
        }
        for event in &applied.events {
            match event {
                Event::Desired { node, .. } | Event::Node { node, .. } => {
                    self.sessions.insert(*node);
                }
                // Machines of a pool may have a setup to do.
                Event::Changed(Object::Cluster | Object::Definition | Object::Pool(_)) => {
                    self.all_sessions = true;
                }
                Event::Changed(_)
                | Event::Job { .. }
                | Event::Tasks { .. }
                | Event::Granted { .. }
                | Event::AttemptEnded { .. }
                | Event::Freed(_)
                | Event::Forgotten(_)
                | Event::Silence { .. }
                | Event::ShareLost { .. } => {}
            }
        }
    }
}

/// The node that a command was about.
fn node_of(command: &NodeCommand, reply: &Reply) -> Option<NodeId> {
    match command {
        NodeCommand::Join { .. } => match reply {
            Reply::Node { node, .. } => Some(*node),
            _ => None,
        },
        NodeCommand::Update { node, .. }
        | NodeCommand::Suspect { node, .. }
        | NodeCommand::Returned { node, .. }
        | NodeCommand::Maintenance { node, .. }
        | NodeCommand::Drain { node, .. }
        | NodeCommand::Back(node)
        | NodeCommand::DrainGpu { node, .. }
        | NodeCommand::UndrainGpu { node, .. }
        | NodeCommand::Check(node)
        | NodeCommand::Undrain(node)
        | NodeCommand::ConfirmDead(node)
        | NodeCommand::Remove(node) => Some(*node),
        NodeCommand::Lost(lost) => Some(lost.node),
        NodeCommand::Lift(lift) => Some(lift.node),
    }
}
