//! The encoding of values: as bytes, as a hash without all the bytes in memory, and back.
//!
//! Every command hashes its reply and events, and some records. Their bytes are written to a small
//! buffer on the stack, and each time that it is full it goes into the hash. What comes out depends
//! on the bytes alone, not on the steps in which they were written.

use minicbor::decode::{Decode, Decoder, Error as DecodeError};
use minicbor::encode::{Encode, Encoder, Write};
use std::convert::Infallible;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes that go into the hash at once.
const BLOCK: usize = 1024;

/// The hash of the encoding of a value, on top of an earlier hash.
pub(crate) fn hash_on<T: Encode<()>>(before: u64, value: &T) -> u64 {
    let mut sink = Sink { hash: before, len: 0, block: [0; BLOCK] };
    Encoder::new(&mut sink).encode(value).expect("writing to memory does not fail");
    xxh3_64_with_seed(&sink.block[..sink.len], sink.hash)
}

/// The encoding of a value.
pub(crate) fn bytes_of<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Bytes(Vec::new());
    Encoder::new(&mut bytes).encode(value).expect("writing to memory does not fail");
    bytes.0
}

/// Takes bytes, and keeps them. The one of the library is not inlined, and called for every number.
struct Bytes(Vec<u8>);

impl Write for Bytes {
    type Error = Infallible;

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Reads a list into a vector without spare room. The plain way leaves room for four at least,
/// and most jobs have one group: a million of them would take more memory than before a restart.
pub(crate) fn exact_list<'b, C, T: Decode<'b, C>>(
    d: &mut Decoder<'b>,
    ctx: &mut C,
) -> Result<Vec<T>, DecodeError> {
    let len = d.array()?.ok_or_else(|| DecodeError::message("a list has a length"))?;
    // What is claimed may be wrong, and must not be reserved unseen.
    let mut list = Vec::with_capacity(len.min(16) as usize);
    for _ in 0..len {
        list.push(T::decode(d, ctx)?);
    }
    Ok(list)
}

/// Takes bytes, and keeps their hash.
struct Sink {
    hash: u64,
    /// Bytes of the block that were written.
    len: usize,
    block: [u8; BLOCK],
}

impl Sink {
    /// Fills blocks to the brim.
    #[cold]
    fn write_over(&mut self, mut bytes: &[u8]) {
        while self.len + bytes.len() >= BLOCK {
            let (now, rest) = bytes.split_at(BLOCK - self.len);
            self.block[self.len..].copy_from_slice(now);
            self.hash = xxh3_64_with_seed(&self.block, self.hash);
            (self.len, bytes) = (0, rest);
        }
        self.block[..bytes.len()].copy_from_slice(bytes);
        self.len = bytes.len();
    }
}

impl Write for Sink {
    type Error = Infallible;

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        let end = self.len + bytes.len();
        if end < BLOCK {
            self.block[self.len..end].copy_from_slice(bytes);
            self.len = end;
        } else {
            self.write_over(bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same by hand, over all bytes at once.
    fn by_hand(before: u64, bytes: &[u8]) -> u64 {
        let mut blocks = bytes.chunks_exact(BLOCK);
        let hash = blocks.by_ref().fold(before, |hash, block| xxh3_64_with_seed(block, hash));
        xxh3_64_with_seed(blocks.remainder(), hash)
    }

    #[test]
    fn the_hash_is_that_of_the_bytes_whatever_the_steps() {
        for len in [0, 1, 100, 500, 1_022, 1_023, 1_024, 1_025, 2_047, 2_048, 5_000] {
            let text = "x".repeat(len);
            let whole = (1_u8, &*text, vec![7_u64; len / 3], u64::MAX);
            let bytes = minicbor::to_vec(&whole).unwrap();
            assert_eq!(hash_on(9, &whole), by_hand(9, &bytes), "{len}");
        }
    }

    #[test]
    fn every_byte_and_the_hash_before_count() {
        let values = [vec![0_u8; 3_000], vec![0; 2_999]];
        let mut hashes = vec![hash_on(0, &values[0]), hash_on(1, &values[0])];
        hashes.push(hash_on(0, &values[1]));
        for at in [0, 1_500, 2_999] {
            let mut value = values[0].clone();
            value[at] = 1;
            hashes.push(hash_on(0, &value));
        }
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 6);
    }
}
