//! How far a stream has been delivered to the directory of its job, noted beside its file.
//!
//! The size of the file there says how much has arrived; the note says which byte of the stream
//! that is. It changes where bytes are missing: a line says so there, and offsets differ behind it.

use minicbor::{Decode, Encode};
use std::io;
use std::path::{Path, PathBuf};
use yard_common::limits::DELIVERY_NOTE_BYTES_MAX;
use yard_runtime::files;

/// Where a part of a stream begins in the file that it is delivered to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Sent {
    /// Its first byte, in the stream.
    #[n(0)]
    pub(crate) stream_at: u64,
    /// The same in the file.
    #[n(1)]
    pub(crate) target_at: u64,
    /// The line that stands before it there.
    #[n(2)]
    pub(crate) marker: String,
}

impl Sent {
    /// What is noted beside a stream's file; none: nothing was delivered yet.
    pub(crate) fn read(stream: &Path) -> Option<Sent> {
        let bytes = files::read(&beside(stream), DELIVERY_NOTE_BYTES_MAX).ok()?;
        minicbor::decode(&bytes).ok()
    }

    /// Notes it.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn note(&self, stream: &Path) -> io::Result<()> {
        let bytes = minicbor::to_vec(self).map_err(io::Error::other)?;
        let new = beside(stream).with_extension("sent-new");
        std::fs::write(&new, bytes)?;
        std::fs::rename(new, beside(stream))
    }

    /// The next byte of the stream that is to be delivered, if so much is there. None: the file is
    /// shorter than it was.
    pub(crate) fn next(&self, target_len: u64) -> Option<u64> {
        Some(self.stream_at.saturating_add(target_len.checked_sub(self.target_at)?))
    }
}

fn beside(stream: &Path) -> PathBuf {
    let mut name = stream.as_os_str().to_os_string();
    name.push(".sent");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_there_says_what_comes_next() {
        let directory = tempfile::tempdir().unwrap();
        let stream = directory.path().join("0.out");
        assert_eq!(Sent::read(&stream), None);
        let sent = Sent { stream_at: 1_000, target_at: 30, marker: "some are missing".into() };
        sent.note(&stream).unwrap();
        assert_eq!(Sent::read(&stream), Some(sent.clone()));
        assert_eq!([29, 30, 37].map(|len| sent.next(len)), [None, Some(1_000), Some(1_007)]);
    }
}
