//! What agent and writing process say to each other: a length, then CBOR. Each message but the
//! first has one answer.

use minicbor::{Decode, Encode};
use std::io::{self, Read, Write};
use yard_common::limits::DELIVERY_MESSAGE_BYTES_MAX;

/// What the writing process is to do.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum ToWriter {
    /// Make a file if there is none, and tell its size.
    #[n(0)]
    Open {
        /// Which.
        #[n(0)]
        path: String,
        /// What is beyond was never said to be there: the file is cut off here, if it is longer.
        #[n(1)]
        len_max: Option<u64>,
    },
    /// Write bytes at an offset, which is the size of the file, and make them safe.
    #[n(1)]
    Write {
        /// Of the file.
        #[n(0)]
        path: String,
        /// Of the first byte.
        #[n(1)]
        offset: u64,
        /// The bytes.
        #[n(2)]
        #[cbor(with = "minicbor::bytes")]
        data: Vec<u8>,
    },
    /// Nothing more comes for a file: it is to be safe from a loss of power.
    #[n(2)]
    Close(#[n(0)] String),
}

impl ToWriter {
    /// Of the file.
    pub(crate) fn path(&self) -> &str {
        match self {
            ToWriter::Open { path, .. } | ToWriter::Write { path, .. } | ToWriter::Close(path) => {
                path
            }
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Answer {
    /// The size of the file before.
    #[n(0)]
    Size(#[n(0)] u64),
    /// It is done.
    #[n(1)]
    Done,
    /// The system's error number.
    #[n(2)]
    Failed(#[n(0)] i32),
}

/// A message as it is sent.
pub(crate) fn write_frame<T: Encode<()>>(to: &mut impl Write, message: &T) -> io::Result<()> {
    let body = minicbor::to_vec(message).map_err(io::Error::other)?;
    let len = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut frame = len.to_le_bytes().to_vec();
    frame.extend_from_slice(&body);
    to.write_all(&frame)?;
    to.flush()
}

/// The next message; none: there will be no more.
pub(crate) fn read_frame<T: for<'b> Decode<'b, ()>>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut head = [0; 4];
    match from.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let len = u32::from_le_bytes(head) as usize;
    if len > DELIVERY_MESSAGE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; len];
    from.read_exact(&mut body)?;
    minicbor::decode(&body).map(Some).map_err(io::Error::other)
}
