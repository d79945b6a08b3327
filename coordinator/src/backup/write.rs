//! Writes a backup, piece by piece.

use super::parts::{BackupHead, End, FORMAT, Keys, Kind, MAGIC, PART_HEADER};
use std::io;
use yard_common::limits::SNAPSHOT_CHUNK_BYTES;
use yard_core::state::State;
use yard_runtime::digest::Sha256;
use yard_runtime::identity::Authority;
use zeroize::Zeroizing;

/// Frames parts, and hands them on one by one.
struct Writer<S> {
    sink: S,
    sha: Sha256,
    crc: u32,
    state_bytes: u64,
    piece: Vec<u8>,
}

/// The CRC of a part.
pub(super) fn crc_of(before: u32, kind: u8, len: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&before.to_le_bytes());
    hasher.update(&[kind]);
    hasher.update(&len.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// Writes all of it. Blocks; `sink` takes the bytes in order, about a piece at a time.
///
/// # Errors
/// Those of the sink.
pub(crate) fn write<S>(
    head: &BackupHead,
    authority: &Authority,
    state: &State,
    sink: S,
) -> io::Result<()>
where
    S: FnMut(Vec<u8>) -> io::Result<()>,
{
    let (sha, piece) = (Sha256::default(), Vec::with_capacity(SNAPSHOT_CHUNK_BYTES));
    let mut writer = Writer { sink, sha, crc: 0, state_bytes: 0, piece };
    let mut preamble = MAGIC.to_vec();
    preamble.push(FORMAT);
    writer.put(preamble)?;
    writer.part(Kind::Head, &to_bytes(head))?;
    let trust_pem = authority.trust().to_pem();
    let keys = Keys { trust_pem, keys_pem: authority.keys_pem().into() };
    writer.part(Kind::Keys, &Zeroizing::new(to_bytes(&keys)))?;
    if let Err(error) = minicbor::encode(state, &mut writer) {
        return Err(error.into_write().expect("only the writing of it can fail"));
    }
    writer.flush_piece()?;
    let end = End { state_bytes: writer.state_bytes, sha256: writer.sha.clone().finish() };
    writer.part(Kind::End, &to_bytes(&end))
}

fn to_bytes<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory does not fail")
}

impl<S: FnMut(Vec<u8>) -> io::Result<()>> Writer<S> {
    fn put(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.sha.update(&bytes);
        (self.sink)(bytes)
    }

    fn part(&mut self, kind: Kind, body: &[u8]) -> io::Result<()> {
        let len = u32::try_from(body.len()).expect("parts are bounded far below 4 GiB");
        let mut bytes = Vec::with_capacity(PART_HEADER + body.len());
        self.crc = crc_of(self.crc, kind as u8, len, body);
        bytes.push(kind as u8);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&self.crc.to_le_bytes());
        bytes.extend_from_slice(body);
        self.put(bytes)
    }

    fn flush_piece(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        if !piece.is_empty() {
            self.part(Kind::State, &piece)?;
        }
        self.piece = piece;
        self.piece.clear();
        Ok(())
    }
}

impl<S: FnMut(Vec<u8>) -> io::Result<()>> minicbor::encode::Write for Writer<S> {
    type Error = io::Error;

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.state_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = SNAPSHOT_CHUNK_BYTES - self.piece.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.piece.extend_from_slice(now);
            bytes = later;
            if self.piece.len() == SNAPSHOT_CHUNK_BYTES {
                self.flush_piece()?;
            }
        }
        Ok(())
    }
}
