//! The program that stands in for `ssh`: `yard shim-dial HOST WORD...`.
//!
//! It asks the shim of its own node, found through `YARD_SOCKET`, and ends as the program on the
//! other node does.

use super::message::{DialReply, DialRequest};
use crate::wire::short_path;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use yard_common::limits::SHIM_MESSAGE_BYTES_MAX;

/// Runs it with the arguments after its name.
#[must_use]
pub fn main(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let Some(host) = arguments.next() else {
        eprintln!("usage: shim-dial HOST WORD...");
        return ExitCode::from(255);
    };
    let request = DialRequest { host: Some(host), words: arguments.collect() };
    match ask(&request) {
        Ok(DialReply { code, problem }) => {
            if let Some(problem) = problem {
                eprintln!("{}: {problem}", request.host.unwrap_or_default());
            }
            ExitCode::from(u8::try_from(code).unwrap_or(255))
        }
        Err(error) => {
            eprintln!("the shim of this node does not answer: {error}");
            ExitCode::from(255)
        }
    }
}

fn ask(request: &DialRequest) -> io::Result<DialReply> {
    let path = std::env::var_os("YARD_SOCKET")
        .ok_or_else(|| io::Error::other("YARD_SOCKET is not set"))?;
    let path = Path::new(&path);
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other("YARD_SOCKET is no path of a socket"));
    };
    // An address holds 108 bytes; a directory may be deeper.
    let directory = File::open(directory)?;
    let mut stream = UnixStream::connect(short_path(&directory, &name.to_string_lossy()))?;
    let body = minicbor::to_vec(request).map_err(io::Error::other)?;
    stream.write_all(&(body.len() as u32).to_le_bytes())?;
    stream.write_all(&body)?;
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let len = u32::from_le_bytes(head) as usize;
    if len > SHIM_MESSAGE_BYTES_MAX {
        return Err(io::Error::other("the answer is too long"));
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    minicbor::decode(&body).map_err(io::Error::other)
}
