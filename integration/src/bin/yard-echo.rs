//! A server for tests: listens on a free port of 127.0.0.1, writes the port to the file that it is
//! given, and sends back what it gets, to the end.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io;
use std::net::{Shutdown, TcpListener};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let file = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: yard-echo FILE")?);
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let part = file.with_extension("part");
    std::fs::write(&part, listener.local_addr()?.port().to_string())?;
    std::fs::rename(part, file)?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        std::thread::spawn(move || {
            let Ok(mut from) = stream.try_clone() else { return };
            // Whoever has gone needs no answer.
            let _ = io::copy(&mut from, &mut stream);
            let _ = stream.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}
