//! A member as the software of a host: starts from its folder and disk, and serves.

use crate::env::{SimEnv, WallClock};
use crate::made::{DISK, MEMBERS, PORT, address};
use crate::net::Wires;
use crate::world::World;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use yard_common::id::MemberId;
use yard_coordinator::env::MemoryDisk;
use yard_coordinator::proposer::{Leadership, Subscription};
use yard_coordinator::raft::Update;
use yard_coordinator::storage::Peer;
use yard_coordinator::{Handle, Options, ServeError, Service};

/// A member, across its lives.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) folder: PathBuf,
    pub(crate) disk: MemoryDisk,
    pub(crate) wall: WallClock,
}

impl Member {
    /// One life of it, until it is killed.
    pub(crate) async fn live(self, world: World, seed: u64) -> turmoil::Result {
        let Member { id, folder, disk, wall } = self;
        let wires = Wires::new(world.trace.clone());
        // Dropped after all tasks, as it is part of the host's own one.
        let _last = wires.last();
        world.born(id, wires.clone());
        let env = Arc::new(SimEnv::new(disk, seed, wall, wires));
        let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        let options = Options { disk: DISK, ..Options::new(folder, listen) };
        let service = match Service::start(options, env).await {
            Ok(service) => service,
            Err(_) if world.may_end(id) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let handle = service.handle();
        let (_, _, updates) = handle.raft().subscribe();
        world.started(id, handle.clone());
        let join = async {
            if id == 1 && !world.joined() {
                join(&handle).await;
                world.set_joined();
            }
            std::future::pending::<()>().await
        };
        tokio::select! {
            ended = service.wait() => {
                if world.may_end(id) && matches!(ended, Err(ServeError::Fatal(_))) {
                    return Ok(());
                }
                Err(format!("member {id} ended by itself: {ended:?}").into())
            }
            () = watch(&world, id, updates) => Err(format!("member {id} tells no more").into()),
            () = join => unreachable!("it stays"),
        }
    }
}

/// Makes all members voters.
async fn join(first: &Handle) {
    let raft = first.raft();
    let mut leadership = raft.leadership();
    let leads = |now: &Leadership| matches!(now, Leadership::Leader { .. });
    leadership.wait_for(leads).await.unwrap();
    for id in 2..=MEMBERS {
        raft.add_learner(MemberId(id), Peer { address: address(id) }).await.unwrap();
    }
    let all: BTreeSet<MemberId> = (1..=MEMBERS).map(MemberId).collect();
    raft.change_membership(all).await.unwrap();
}

/// Writes down what it applies.
async fn watch(world: &World, id: u64, mut updates: Subscription) {
    while let Ok(update) = updates.next().await {
        match update {
            Update::Entry(entry) => world.applied(id, &entry),
            Update::Replaced(_) => (),
        }
    }
}
