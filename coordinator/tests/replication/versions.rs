//! A program, and a later version of it that knows one more command: what the earlier one makes of
//! what the later one left.

use crate::support::{ADMIN, Member, Net, add_user, has_user};
use minicbor::decode::Error;
use minicbor::{Decoder, Encoder};
use std::sync::Arc;
use yard_common::ErrorCode;
use yard_common::id::{FeatureLevel, MemberId};
use yard_coordinator::env::{MemoryDisk, TestEnv};
use yard_coordinator::proposer::StartError;
use yard_coordinator::raft::FatalError;
use yard_coordinator::{Build, Commands, Vocabulary};
use yard_core::command::{Actor, Cluster, Command, Raise, Rejection, requires};

/// What only the later version knows: in the log it has a number that nobody else has given away.
const LATER: &str = "later";

fn is_later(command: &Command) -> bool {
    *command == add_user(LATER)
}

fn write(command: &Command) -> Vec<u8> {
    if !is_later(command) {
        return minicbor::to_vec(command).unwrap();
    }
    let mut bytes = Vec::new();
    Encoder::new(&mut bytes).array(2).unwrap().u32(1_000).unwrap().array(0).unwrap();
    bytes
}

fn read(bytes: &[u8]) -> Result<Commands, Error> {
    let later = write(&add_user(LATER));
    let mut decoder = Decoder::new(bytes);
    let count = decoder.array()?.unwrap();
    let pairs = (0..count).map(|_| {
        decoder.array()?;
        let envelope = decoder.decode()?;
        if bytes[decoder.position()..].starts_with(&later) {
            decoder.skip()?;
            return Ok((envelope, add_user(LATER)));
        }
        Ok((envelope, decoder.decode()?))
    });
    pairs.collect()
}

/// The later version.
fn next() -> Build {
    let requires =
        |command: &Command| if is_later(command) { FeatureLevel(1) } else { requires(command) };
    let commands = Vocabulary { requires, write, read };
    Build { version: "9.0.0", feature_level_max: FeatureLevel(1), commands }
}

async fn start(net: &Net, disk: &MemoryDisk, build: Build) -> Result<Member, StartError> {
    let env = Arc::new(TestEnv::new(disk.clone(), 1, 1_000_000));
    Member::start_built(net, 1, disk, env, build).await
}

async fn raise(member: &Member) {
    let (level, version) = (FeatureLevel(1), "9.0.0".to_string());
    let raise = Raise { level, version, understood_by: [MemberId(1)].into() };
    let raise = Command::Cluster(Cluster::RaiseFeatureLevel(raise));
    member.handle.propose(Actor::Leader, None, &raise).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_needs_a_level_gets_into_no_log_below_it() {
    let (net, disk) = (Net::default(), MemoryDisk::default());
    let member = start(&net, &disk, next()).await.unwrap();
    member.init().await.unwrap();
    let (needed, have) = (FeatureLevel(1), FeatureLevel(0));
    let early = member.handle.propose(ADMIN, None, &add_user(LATER)).await;
    assert_eq!(early, Ok(Err(Rejection::FeatureLevelTooLow { needed, have })));
    let before = member.handle.state().0;
    member.stop().await.unwrap();
    // So there is a way back.
    let member = start(&net, &disk, Build::CURRENT).await.unwrap();
    member.leads().await;
    assert!(member.handle.state().0 > before);
    member.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_the_raise_an_earlier_version_stops_and_loses_nothing() {
    let (net, disk) = (Net::default(), MemoryDisk::default());
    let member = start(&net, &disk, next()).await.unwrap();
    member.init().await.unwrap();
    raise(&member).await;
    member.handle.propose(ADMIN, None, &add_user(LATER)).await.unwrap().unwrap();
    member.stop().await.unwrap();
    for _ in 0..2 {
        let old = start(&net, &disk, Build::CURRENT).await.unwrap();
        let error = old.wait().await.unwrap_err();
        assert!(error.is_of_version() && !error.is_of_content(), "{error:?}");
        assert_eq!(error.code(), Some(ErrorCode::VersionTooOld));
        let own = Build::CURRENT.version;
        let told = format!(
            "the cluster is at feature level 1, and this program understands 0; it is of version \
             {own}: install version 9.0.0 or a later one"
        );
        assert_eq!(error.to_string(), told);
    }
    let member = start(&net, &disk, next()).await.unwrap();
    member.leads().await;
    assert!(has_user(&member.handle.state().1, LATER));
    // From a snapshot it can be told before anything else is.
    let (index, _) = member.handle.state();
    member.handle.take_snapshot().await.unwrap();
    while member.handle.snapshot().is_none_or(|(at, _)| at < index) {
        tokio::task::yield_now().await;
    }
    member.stop().await.unwrap();
    let Err(StartError::Consensus(error)) = start(&net, &disk, Build::CURRENT).await else {
        panic!("an earlier version took the snapshot of a later one")
    };
    assert!(matches!(*error, FatalError::TooOld { .. }), "{error:?}");
    start(&net, &disk, next()).await.unwrap().stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn entries_of_a_newer_version_stop_the_member() {
    let (net, disk) = (Net::default(), MemoryDisk::default());
    // The mistake that the level is there to prevent.
    let careless = Build { commands: Vocabulary { requires, ..next().commands }, ..next() };
    let member = start(&net, &disk, careless).await.unwrap();
    member.init().await.unwrap();
    member.handle.propose(ADMIN, None, &add_user(LATER)).await.unwrap().unwrap();
    let at = member.handle.state().0;
    member.stop().await.unwrap();
    let old = start(&net, &disk, Build::CURRENT).await.unwrap();
    let error = old.wait().await.unwrap_err();
    assert!(matches!(*error, FatalError::UnknownEntry { index, .. } if index == at), "{error:?}");
    assert!(error.to_string().contains("install the version that the others have"), "{error}");
    assert!(error.is_of_version());
}
