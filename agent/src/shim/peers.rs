//! Programs that a job's launcher starts on the nodes of its gang.
//!
//! A process of the job asks its own shim through `job.sock`; the shim runs the program here, or
//! asks the shim of the other node. Whoever asked hears the exit code.

use super::ShimError;
use super::message::{DialReply, DialRequest};
use super::run::Shim;
use super::task::start_one;
use crate::gang::LocalGang;
use crate::launch::Part;
use crate::lease_file::LeaseFile;
use crate::sys::WaitStatus;
use crate::wire::{Wire, is_trusted};
use nix::poll::{PollFd, PollFlags};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use yard_common::limits::{HELPER_WORDS_MAX, HELPERS_MAX};

/// The exit code of a program that did not run, as `ssh` has it.
const NOT_RUN: i32 = 255;

/// Connections of the job's own processes and of other shims.
#[derive(Default)]
pub(super) struct Peers {
    jobs: Option<UnixListener>,
    gang: Option<(LocalGang, UnixListener)>,
    connections: Vec<Peer>,
    last: u64,
}

struct Peer {
    number: u64,
    wire: Wire,
    state: PeerState,
}

/// What is known of a connection.
enum PeerState {
    /// It has not said what it wants.
    Asks,
    /// It wants a program that cannot start yet: the task does not run here.
    Waits(DialRequest),
    /// It waits for a program of this node.
    Runs(i32),
    /// It waits for another node.
    Elsewhere,
    /// It is another node, asked for the sake of this connection.
    Answers(u64),
    /// It has got its answer.
    Done,
}

impl Peers {
    /// Those that come through these listeners.
    pub(super) fn new(
        jobs: Option<UnixListener>,
        gang: Option<(LocalGang, UnixListener)>,
    ) -> Peers {
        Peers { jobs, gang, ..Peers::default() }
    }

    /// Adds what to poll.
    pub(super) fn add_to<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let listeners = [self.jobs.as_ref(), self.gang.as_ref().map(|(_, listener)| listener)];
        for listener in listeners.into_iter().flatten() {
            fds.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
        }
        for peer in &self.connections {
            let out = match peer.wire.is_waiting() {
                true => PollFlags::POLLOUT,
                false => PollFlags::empty(),
            };
            fds.push(PollFd::new(peer.wire.fd(), PollFlags::POLLIN | out));
        }
    }

    /// Nothing arrives any more.
    pub(super) fn close(&mut self, node_rank: Option<u32>) {
        if let (Some((gang, _)), Some(node_rank)) = (&self.gang, node_rank) {
            gang.close(node_rank);
        }
        self.connections.clear();
    }

    /// A process has ended; if somebody waits for it, they hear how. Returns whether it was one
    /// of theirs.
    pub(super) fn on_ended(&mut self, pid: i32, status: WaitStatus) -> bool {
        let code = match status {
            WaitStatus::Exited(code) => code,
            WaitStatus::Signaled(signal) => 128 + signal,
        };
        let waiting = |peer: &&mut Peer| matches!(peer.state, PeerState::Runs(of) if of == pid);
        let Some(peer) = self.connections.iter_mut().find(waiting) else { return false };
        peer.answer(DialReply { code, problem: None });
        true
    }

    fn add(&mut self, stream: UnixStream, state: PeerState) -> Option<u64> {
        if self.connections.len() >= HELPERS_MAX {
            return None;
        }
        let wire = Wire::new(stream).ok()?;
        self.last += 1;
        self.connections.push(Peer { number: self.last, wire, state });
        Some(self.last)
    }

    fn accept(&mut self, owner: u32) {
        let mut streams = Vec::new();
        if let Some(jobs) = &self.jobs {
            streams.extend(std::iter::from_fn(|| Some(jobs.accept().ok()?.0)).take(HELPERS_MAX));
        }
        streams.retain(|stream| is_trusted(stream, Some(owner)));
        if let Some((_, gang)) = &self.gang {
            let others = std::iter::from_fn(|| Some(gang.accept().ok()?.0)).take(HELPERS_MAX);
            streams.extend(others.filter(|stream| is_trusted(stream, None)));
        }
        for stream in streams {
            self.add(stream, PeerState::Asks);
        }
    }
}

impl Peer {
    fn answer(&mut self, reply: DialReply) {
        self.state = PeerState::Done;
        // Whoever has gone does not need it.
        let _ = self.wire.send(&reply);
    }

    fn refuse(&mut self, problem: String) {
        self.answer(DialReply { code: NOT_RUN, problem: Some(problem) });
    }
}

impl Shim {
    /// Hears everybody but the agent.
    pub(super) fn listen_to_peers(&mut self) -> Result<(), ShimError> {
        let Some(work) = &self.work else { return Ok(()) };
        self.peers.accept(work.plan.owner().0);
        let mut answers: Vec<(u64, DialReply)> = Vec::new();
        let mut gone = Vec::new();
        for peer in &mut self.peers.connections {
            if peer.wire.flush().is_err() {
                gone.push(peer.number);
                continue;
            }
            if let PeerState::Answers(asker) = peer.state {
                match peer.wire.receive::<DialReply>() {
                    Ok(replies) => answers.extend(replies.into_iter().map(|r| (asker, r))),
                    Err(_) => {
                        let problem = Some("the node of the gang is gone".to_string());
                        answers.push((asker, DialReply { code: NOT_RUN, problem }));
                        gone.push(peer.number);
                    }
                }
                continue;
            }
            match peer.wire.receive::<DialRequest>() {
                Ok(requests) => {
                    let asks = matches!(peer.state, PeerState::Asks);
                    if let Some(request) = requests.into_iter().next().filter(|_| asks) {
                        peer.state = PeerState::Waits(request);
                    }
                }
                Err(_) => gone.push(peer.number),
            }
        }
        for (asker, reply) in answers {
            let peers = &mut self.peers.connections;
            if let Some(peer) = peers.iter_mut().find(|peer| peer.number == asker) {
                peer.answer(reply);
            }
        }
        self.peers.connections.retain(|peer| !gone.contains(&peer.number));
        self.serve_waiting()
    }

    /// Does what peers wait for, as far as it can be done now.
    fn serve_waiting(&mut self) -> Result<(), ShimError> {
        for at in 0..self.peers.connections.len() {
            let peer = &mut self.peers.connections[at];
            let PeerState::Waits(request) = &peer.state else { continue };
            let request = request.clone();
            if request.words.is_empty() || request.words.len() > HELPER_WORDS_MAX {
                peer.refuse(format!("{} words; at most {HELPER_WORDS_MAX}", request.words.len()));
                continue;
            }
            let own = self.work.as_ref().map(|work| work.orders.assignment.node_rank);
            let target = match (&request.host, &self.work) {
                (Some(host), Some(work)) => work.plan.node_of(host),
                _ => own,
            };
            match target {
                None => peer.refuse("the host is no node of the gang".to_string()),
                Some(node) if Some(node) == own => self.run_helper(at, &request)?,
                Some(node) => self.ask_node(at, node, request),
            }
        }
        Ok(())
    }

    /// Asks another node of the gang.
    fn ask_node(&mut self, at: usize, node: u32, request: DialRequest) {
        let asker = self.peers.connections[at].number;
        let stream = match &self.peers.gang {
            Some((gang, _)) => gang.dial(node).map_err(|error| error.to_string()),
            None => Err("the gang has no other nodes".to_string()),
        };
        let request = DialRequest { host: None, ..request };
        let asked = stream.and_then(|stream| {
            let too_many = || format!("more than {HELPERS_MAX} programs");
            self.peers.add(stream, PeerState::Answers(asker)).ok_or_else(too_many)?;
            let peer = self.peers.connections.last_mut().ok_or_else(too_many)?;
            peer.wire.send(&request).map_err(|error| error.to_string())
        });
        let peer = &mut self.peers.connections[at];
        match asked {
            Ok(()) => peer.state = PeerState::Elsewhere,
            Err(problem) => peer.refuse(format!("node {node}: {problem}")),
        }
    }

    /// Runs a program here, once the task runs here.
    fn run_helper(&mut self, at: usize, request: &DialRequest) -> Result<(), ShimError> {
        let peer = &mut self.peers.connections[at];
        let stopping = self.history.signalled || self.history.killing.is_some();
        let over = self.history.endings.len() as u32 >= self.history.len;
        if stopping || self.history.start_given && over {
            peer.refuse("the attempt is being stopped on this node".to_string());
            return Ok(());
        }
        let (Some(running), Some(work)) = (&mut self.running, &self.work) else {
            return Ok(());
        };
        let strict_ms = self.lease.as_ref().and_then(LeaseFile::read).map_or(0, |l| l.strict_ms);
        let process = match running.plan.helper(&work.plan, &request.words) {
            Ok(process) => process,
            Err(error) => {
                peer.refuse(error.to_string());
                return Ok(());
            }
        };
        match start_one(&work.plan, &process, strict_ms) {
            Ok(pid) => {
                running.has_helped |= running.plan.part == Part::Helpers;
                peer.state = PeerState::Runs(pid);
            }
            Err(error) => peer.refuse(format!("the program did not start: {error:?}")),
        }
        Ok(())
    }
}
