//! Members in one thread: a network of function calls, disks in memory, tokio's clock.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use yard_common::id::{
    ClusterId, Incarnation, LeaderId, LogIndex, MemberId, PrincipalId, RequestId,
};
use yard_coordinator::Build;
use yard_coordinator::env::{Crash, Env, MemoryDisk, TestEnv};
use yard_coordinator::proposer::{
    DiskOptions, Handle, Leadership, Options, ROUND_TRIP_MS, Service, Subscription,
};
use yard_coordinator::raft::{
    FatalError, Lane, Letter, Question, Transport, TransportError, Update,
};
use yard_coordinator::storage::{Identity, Peer};
use yard_core::command::{Access, Actor, Cluster, Command, Rejection, Reply};
use yard_core::state::State;

/// The administrator that `Initialise` makes.
pub(crate) const ADMIN: Actor = Actor::User(PrincipalId(0));

/// The network between members.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<Mutex<Wires>>);

#[derive(Default)]
struct Wires {
    members: BTreeMap<MemberId, Handle>,
    cut: BTreeSet<MemberId>,
    /// Members whose words are lost, and entries on their way to them; they hear heartbeats.
    mute: BTreeSet<MemberId>,
    /// Bytes that others get instead of these, in entries on their way to a member.
    changed: Vec<(MemberId, &'static str, &'static str)>,
}

/// The network as one member sees it.
struct Port(Net, MemberId);

impl Net {
    /// Cuts a member off, or connects it again.
    pub(crate) fn cut(&self, member: MemberId, cut: bool) {
        let mut wires = self.0.lock().unwrap();
        match cut {
            true => wires.cut.insert(member),
            false => wires.cut.remove(&member),
        };
    }

    /// What a member sends is lost, and entries on their way to it, or all arrives again. It hears
    /// heartbeats all the time, as over the connections that are open.
    pub(crate) fn mute(&self, member: MemberId, mute: bool) {
        let mut wires = self.0.lock().unwrap();
        match mute {
            true => wires.mute.insert(member),
            false => wires.mute.remove(&member),
        };
    }

    /// What was sent to a member as these bytes comes there as those: what a member makes of the
    /// log is another thing there.
    pub(crate) fn change(&self, to: MemberId, old: &'static str, new: &'static str) {
        assert_eq!(old.len(), new.len());
        self.0.lock().unwrap().changed.push((to, old, new));
    }

    fn as_it_comes(&self, to: MemberId, question: Question, body: Bytes) -> Bytes {
        let wires = self.0.lock().unwrap();
        let mut bytes = body.to_vec();
        for (_, old, new) in wires.changed.iter().filter(|(member, ..)| *member == to) {
            let places = bytes.windows(old.len()).enumerate();
            let places = places.filter(|(_, found)| *found == old.as_bytes());
            for at in places.map(|(at, _)| at).collect::<Vec<_>>() {
                bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
            }
        }
        if question == Question::Append { bytes.into() } else { body }
    }

    fn is_mute(&self, member: MemberId) -> bool {
        self.0.lock().unwrap().mute.contains(&member)
    }

    fn find(&self, from: MemberId, to: MemberId) -> Option<Handle> {
        let wires = self.0.lock().unwrap();
        let apart = wires.cut.contains(&from) || wires.cut.contains(&to);
        wires.members.get(&to).filter(|_| !apart).cloned()
    }
}

impl Transport for Port {
    fn ask(&self, letter: Letter) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (net, from) = (self.0.clone(), self.1);
        let ask = async move {
            let Letter { to, question, lane, body, .. } = letter;
            let gone = || TransportError::Unreachable(to, "cut off".into());
            tokio::time::sleep(Duration::from_millis(1)).await;
            let handle = net.find(from, to).filter(|_| !(lane == Lane::Log && net.is_mute(to)));
            let handle = handle.filter(|_| !net.is_mute(from)).ok_or_else(gone)?;
            let body = net.as_it_comes(to, question, body);
            let answer = handle.answer(question, &body).await;
            let answer = answer.map_err(|error| TransportError::Failed(to, error.to_string()))?;
            // The way back may be cut meanwhile.
            net.find(from, to).filter(|_| !net.is_mute(to)).map(|_| answer).ok_or_else(gone)
        };
        ask.boxed()
    }
}

/// One member and its disk.
pub(crate) struct Member {
    pub(crate) id: MemberId,
    pub(crate) disk: MemoryDisk,
    pub(crate) handle: Handle,
    service: Option<Service>,
    net: Net,
}

impl Member {
    /// Starts a member on a disk.
    pub(crate) async fn start(net: &Net, id: u64, disk: &MemoryDisk) -> Member {
        Member::try_start(net, id, disk).await.unwrap()
    }

    /// Starts a member on a disk that may fail.
    pub(crate) async fn try_start(
        net: &Net,
        id: u64,
        disk: &MemoryDisk,
    ) -> Result<Member, yard_coordinator::proposer::StartError> {
        // Clocks that have nothing to do with each other.
        let env = Arc::new(TestEnv::new(disk.clone(), id, 1_000_000 * id));
        Member::start_in(net, id, disk, env).await
    }

    /// Starts a member in an environment of the test's own.
    pub(crate) async fn start_in(
        net: &Net,
        id: u64,
        disk: &MemoryDisk,
        env: Arc<dyn Env>,
    ) -> Result<Member, yard_coordinator::proposer::StartError> {
        Member::start_built(net, id, disk, env, Build::CURRENT).await
    }

    /// Starts a member of another version.
    pub(crate) async fn start_built(
        net: &Net,
        id: u64,
        disk: &MemoryDisk,
        env: Arc<dyn Env>,
        build: Build,
    ) -> Result<Member, yard_coordinator::proposer::StartError> {
        let id = MemberId(id);
        let (cluster, incarnation) = (ClusterId::from_u128(7), Incarnation(1));
        let identity = Identity { cluster, incarnation, member: id };
        let disk_options = DiskOptions { reserve_bytes: 256 << 10, ..DiskOptions::DEFAULT };
        let (folder, round_trip_ms) = ("data".into(), ROUND_TRIP_MS);
        let options = Options { identity, folder, disk: disk_options, round_trip_ms, build };
        let service = Service::start(options, env, Arc::new(Port(net.clone(), id))).await?;
        let handle = service.handle();
        net.0.lock().unwrap().members.insert(id, handle.clone());
        let (disk, net) = (disk.clone(), net.clone());
        Ok(Member { id, disk, handle, service: Some(service), net })
    }

    /// How others reach it.
    pub(crate) fn peer(&self) -> Peer {
        Peer { address: format!("m{}:1", self.id) }
    }

    /// Begins a cluster with it.
    pub(crate) async fn init(&self) -> Result<Reply, Rejection> {
        let cluster = ClusterId::from_u128(7);
        let first = Cluster::Initialise { cluster, admin: "root-admin".into(), unix: None };
        self.handle.init_cluster(self.peer(), &Command::Cluster(first)).await.unwrap()
    }

    /// Stops it in order.
    pub(crate) async fn stop(mut self) -> Result<(), Arc<FatalError>> {
        self.net.0.lock().unwrap().members.remove(&self.id);
        self.handle.shutdown();
        self.service.take().unwrap().wait().await
    }

    /// Waits until it has stopped by itself.
    pub(crate) async fn wait(mut self) -> Result<(), Arc<FatalError>> {
        self.service.take().unwrap().wait().await
    }

    /// Kills it. What it had opened on its disk is closed.
    pub(crate) async fn kill(mut self, crash: Crash) -> MemoryDisk {
        self.net.0.lock().unwrap().members.remove(&self.id);
        self.disk.crash(crash);
        // It finds its disk gone, and ends without having done anything more.
        self.handle.shutdown();
        let _ = self.service.take().unwrap().wait().await;
        self.disk.clone()
    }

    /// Waits until it leads.
    pub(crate) async fn leads(&self) -> LeaderId {
        let mut leadership = self.handle.leadership();
        let now = leadership.wait_for(|now| matches!(now, Leadership::Leader { .. })).await;
        match *now.unwrap() {
            Leadership::Leader { id, .. } => id,
            Leadership::Follower { .. } => unreachable!("it was waited for"),
        }
    }

    /// Waits until it has applied an entry.
    pub(crate) async fn applied(&self, index: LogIndex) -> State {
        self.handle.applied().wait_for(|applied| *applied >= index).await.unwrap();
        self.handle.state().1
    }
}

/// A command that makes a user.
pub(crate) fn add_user(name: &str) -> Command {
    Command::Access(Access::AddUser { name: name.into(), unix: None, grants: vec![] })
}

/// A request id.
pub(crate) fn request(nth: u128) -> Option<RequestId> {
    Some(RequestId::from_u128(nth + 1))
}

/// Whether the state has a user of this name.
pub(crate) fn has_user(state: &State, name: &str) -> bool {
    state.principals.iter().any(|(_, user)| &*user.name == name)
}

/// Applies what a subscription brings until this index, to a state of its own.
pub(crate) async fn replay(state: &mut Replica, updates: &mut Subscription, upto: LogIndex) {
    while state.0.applied < upto {
        match updates.next().await.unwrap() {
            Update::Entry(entry) => {
                for (envelope, command, applied) in &entry.outcomes {
                    let own = state.0.apply(entry.index, envelope, command);
                    assert_eq!(own, *applied);
                }
            }
            Update::Replaced(index) => panic!("the state was replaced at {index}"),
        }
    }
}

/// A state that only a test applies to.
pub(crate) struct Replica(pub(crate) State);
