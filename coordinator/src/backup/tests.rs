use super::parts::{BackupError, BackupHead, FORMAT, MAGIC};
use super::{Reader, open, show, write};
use crate::storage::Position;
use std::path::PathBuf;
use yard_common::id::{ClusterId, FeatureLevel, Incarnation, LeaderId, LogIndex, MemberId};
use yard_core::state::State;
use yard_runtime::identity::Authority;

fn cluster() -> ClusterId {
    ClusterId::from_u128(11)
}

fn head() -> BackupHead {
    let leader = LeaderId { term: 3, member: MemberId(1) };
    BackupHead {
        cluster: cluster(),
        incarnation: Incarnation(1),
        last: Position { leader, index: LogIndex(77) },
        wall_ms: 1_795_000_000_000,
        version: "0.1.0".into(),
        feature_level: FeatureLevel(0),
        members: vec![(MemberId(1), "a:7100".into())],
        jobs: 0,
        jobs_live: 0,
        nodes: 0,
    }
}

/// A state with so many settings of a thousand bytes.
fn state(settings: usize) -> State {
    let mut state = State { cluster: Some(cluster()), ..State::default() };
    for nth in 0..settings {
        state.settings.insert(format!("key-{nth:06}").into(), "x".repeat(1_000).into());
    }
    state
}

fn bytes_of(head: &BackupHead, state: &State) -> Vec<u8> {
    let authority = Authority::create(cluster(), 1_795_000_000_000).unwrap();
    let mut bytes = Vec::new();
    write(head, &authority, state, |piece| {
        bytes.extend(piece);
        Ok(())
    })
    .unwrap();
    bytes
}

fn read(bytes: &[u8], at_a_time: usize) -> Result<BackupHead, BackupError> {
    let mut reader = Reader::default();
    for piece in bytes.chunks(at_a_time) {
        reader.take(piece)?;
    }
    reader.finish()
}

/// The error of a whole restore, from a file.
fn opened(bytes: &[u8]) -> Result<super::Contents, BackupError> {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("backup");
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(show(&path).is_ok(), read(bytes, 4_096).is_ok());
    open(&path, &crate::Build::CURRENT)
}

#[test]
fn a_backup_reads_back_in_pieces_of_any_size() {
    let state = state(2_500);
    let bytes = bytes_of(&head(), &state);
    assert!(bytes.len() > 2 << 20, "several pieces");
    for at_a_time in [13, 4_096, 1 << 20, usize::MAX] {
        assert_eq!(read(&bytes, at_a_time).unwrap(), head());
    }
    let contents = opened(&bytes).unwrap();
    assert_eq!(contents.state.to_bytes(), state.to_bytes());
    assert_eq!(contents.state_bytes, state.to_bytes());
    assert_eq!(contents.authority.trust().cluster(), cluster());
}

#[test]
fn a_backup_that_is_cut_short_is_never_whole() {
    let bytes = bytes_of(&head(), &state(3));
    for cut in 0..bytes.len() {
        match read(&bytes[..cut], 1_000) {
            Err(BackupError::CutOff { .. }) => {}
            other => panic!("cut at {cut}: {other:?}"),
        }
    }
    let text = read(&bytes[..bytes.len() - 1], 1_000).unwrap_err().to_string();
    assert_eq!(text, "the backup is not whole: it ends within part 2 of the state");
}

#[test]
fn a_byte_that_differs_is_found_whichever_it_is() {
    let bytes = bytes_of(&head(), &state(3));
    let mut parts = std::collections::BTreeSet::new();
    for at in 0..bytes.len() {
        for bad in [bytes[at] ^ 1, bytes[at] ^ 0x80, 0, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] = bad;
            if damaged == bytes {
                continue;
            }
            match read(&damaged, 1_000) {
                Err(BackupError::Damaged { part } | BackupError::CutOff { part }) => {
                    parts.insert(part);
                }
                Err(BackupError::Foreign) => assert!(at < MAGIC.len()),
                Err(BackupError::Format { found }) => assert!(at == MAGIC.len() && found == bad),
                other => panic!("byte {at} as {bad}: {other:?}"),
            }
        }
    }
    assert!(parts.contains("the head") && parts.contains("the keys"), "{parts:?}");
    assert!(parts.contains("part 1 of the state"), "{parts:?}");
}

#[test]
fn parts_of_two_backups_do_not_fit_together() {
    let (one, two) = (bytes_of(&head(), &state(3)), bytes_of(&head(), &state(4)));
    for at in (0..one.len().min(two.len())).step_by(7) {
        let mixed = [&one[..at], &two[at..]].concat();
        assert!(mixed == one || mixed == two || read(&mixed, 1_000).is_err(), "{at}");
    }
    let more = [&one[..], b"x"].concat();
    let error = read(&more, 1_000).unwrap_err().to_string();
    assert_eq!(error, "the backup is damaged: what follows the end");
}

#[test]
fn what_is_not_understood_is_refused() {
    assert!(matches!(opened(b"#!/bin/sh\n"), Err(BackupError::Foreign)));
    assert!(matches!(opened(b""), Err(BackupError::CutOff { .. })));
    let mut later = bytes_of(&head(), &state(0));
    later[MAGIC.len()] = FORMAT + 1;
    assert!(matches!(opened(&later), Err(BackupError::Format { found: 2 })));
    let level = FeatureLevel(1_000);
    let newer = State { feature_level: level, ..state(0) };
    let bytes = bytes_of(&BackupHead { feature_level: level, ..head() }, &newer);
    assert!(matches!(opened(&bytes), Err(BackupError::Level { found, .. }) if found == level));
    let other = State { cluster: Some(ClusterId::from_u128(12)), ..state(0) };
    let error = opened(&bytes_of(&head(), &other));
    assert!(matches!(error, Err(BackupError::Mixed)));
}
