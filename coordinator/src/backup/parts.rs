//! What a backup is made of.

use crate::storage::Position;
use minicbor::{Decode, Encode};
use std::io;
use std::path::PathBuf;
use thiserror::Error;
use yard_common::ErrorCode;
use yard_common::id::{ClusterId, FeatureLevel, Incarnation, MemberId};
use yard_common::limits::{BACKUP_PART_BYTES_MAX, SNAPSHOT_CHUNK_BYTES};
use yard_runtime::identity::IdentityError;
use zeroize::Zeroizing;

/// Begins every backup.
pub(super) const MAGIC: [u8; 7] = *b"YARDBAK";
/// The version of the file. A program that knows only others must not use it.
pub(super) const FORMAT: u8 = 1;
/// Length of magic and format.
pub(super) const PREAMBLE: usize = MAGIC.len() + 1;
/// Kind, length of the body, and CRC of both with the body and the CRC before it.
pub(super) const PART_HEADER: usize = 9;

/// The kinds of parts, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Head = 1,
    Keys = 2,
    State = 3,
    End = 4,
}

impl Kind {
    pub(super) fn of(byte: u8) -> Option<Kind> {
        [Kind::Head, Kind::Keys, Kind::State, Kind::End]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }

    pub(super) fn bytes_max(self) -> usize {
        match self {
            Kind::Head | Kind::Keys | Kind::End => BACKUP_PART_BYTES_MAX,
            Kind::State => SNAPSHOT_CHUNK_BYTES,
        }
    }
}

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BackupHead {
    /// The cluster.
    #[n(0)]
    pub cluster: ClusterId,
    /// Its life then.
    #[n(1)]
    pub incarnation: Incarnation,
    /// The last entry in it.
    #[n(2)]
    pub last: Position,
    /// When it was made, by the clock of the member that made it.
    #[n(3)]
    pub wall_ms: u64,
    /// The version of that member.
    #[n(4)]
    pub version: String,
    /// What whoever restores it must understand.
    #[n(5)]
    pub feature_level: FeatureLevel,
    /// The members, and where they were.
    #[n(6)]
    pub members: Vec<(MemberId, String)>,
    /// Jobs in it.
    #[n(7)]
    pub jobs: u64,
    /// Of these, how many had not ended.
    #[n(8)]
    pub jobs_live: u64,
    /// Nodes in it.
    #[n(9)]
    pub nodes: u64,
}

/// The CAs with their keys.
#[derive(Encode, Decode)]
pub(super) struct Keys {
    /// Their certificates, in PEM.
    #[n(0)]
    pub(super) trust_pem: String,
    /// Their keys, in PEM, in the order of the trees.
    #[n(1)]
    #[cbor(encode_with = "hidden::encode", decode_with = "hidden::decode")]
    pub(super) keys_pem: Vec<Zeroizing<String>>,
}

mod hidden {
    use minicbor::decode::{Decoder, Error as DecodeError};
    use minicbor::encode::{Encoder, Error as EncodeError, Write};
    use zeroize::Zeroizing;

    pub(super) fn encode<C, W: Write>(
        keys: &[Zeroizing<String>],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.array(keys.len() as u64)?;
        for key in keys {
            e.str(key)?;
        }
        Ok(())
    }

    pub(super) fn decode<C>(
        d: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<Vec<Zeroizing<String>>, DecodeError> {
        d.array_iter::<String>()?.map(|key| Ok(Zeroizing::new(key?))).collect()
    }
}

/// The last part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct End {
    /// Bytes of the state.
    #[n(0)]
    pub(super) state_bytes: u64,
    /// SHA-256 of all bytes before this part.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) sha256: [u8; 32],
}

/// Why a backup cannot be used.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The file system.
    #[error("cannot {1} {path}", path = .0.display())]
    Io(PathBuf, &'static str, #[source] io::Error),
    /// Something else.
    #[error("this is no backup of a cluster")]
    Foreign,
    /// Of a version that this program does not know.
    #[error("the backup has format {found}, and this program knows {FORMAT} alone")]
    Format {
        /// Its format.
        found: u8,
    },
    /// A part of it is not what was written.
    #[error("the backup is damaged: {part}")]
    Damaged {
        /// Which.
        part: String,
    },
    /// It ends too early.
    #[error("the backup is not whole: it ends within {part}")]
    CutOff {
        /// Where.
        part: String,
    },
    /// The cluster that it is of understood more.
    #[error(
        "the backup is of feature level {found}, and this program understands {known}; take a \
             newer one"
    )]
    Level {
        /// Its level.
        found: FeatureLevel,
        /// The highest that is understood here.
        known: FeatureLevel,
    },
    /// The keys in it.
    #[error("the keys in the backup cannot be used")]
    Keys(#[source] IdentityError),
    /// The state in it.
    #[error("the state in the backup cannot be read")]
    State(#[source] minicbor::decode::Error),
    /// Its parts speak of different clusters.
    #[error("the parts of the backup are not of one cluster")]
    Mixed,
}

impl BackupError {
    /// The page that says more.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            BackupError::Io(..) => None,
            BackupError::Foreign
            | BackupError::Format { .. }
            | BackupError::Damaged { .. }
            | BackupError::CutOff { .. }
            | BackupError::Level { .. }
            | BackupError::Keys(_)
            | BackupError::State(_)
            | BackupError::Mixed => Some(ErrorCode::BadBackup),
        }
    }
}
