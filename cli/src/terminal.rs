//! The terminal of this process, while a program far away uses it.

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{self, IsTerminal, Read};
use tokio::sync::mpsc;
use yard_proto::v1::TerminalSize;

/// Bytes that are read at a time; from a terminal far fewer come.
const CHUNK_BYTES: usize = 32 * 1024;
/// What was read and not sent yet; whoever types faster waits.
const QUEUE_LEN_MAX: usize = 8;

/// Whether people sit at both ends.
pub(crate) fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Its size; a common one if it has none.
pub(crate) fn size() -> TerminalSize {
    let own = tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    own.map_or(TerminalSize { columns: 80, rows: 24 }, |size| TerminalSize {
        columns: size.ws_col.into(),
        rows: size.ws_row.into(),
    })
}

/// Keys go to the program as they are. Dropped, the terminal is as it was.
pub(crate) struct Raw(Option<Termios>);

impl Raw {
    /// Takes the terminal. One that is none is left alone.
    pub(crate) fn take() -> Raw {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            // One that cannot be changed still works, line by line.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &raw);
        }
        Raw(before)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// What is typed, or comes through a pipe, until its end.
///
/// A thread of its own reads it, which ends with the process: nothing else could give a read from
/// a terminal up.
pub(crate) fn typed() -> mpsc::Receiver<Vec<u8>> {
    let (out, typed) = mpsc::channel(QUEUE_LEN_MAX);
    std::thread::spawn(move || {
        let mut buffer = [0; CHUNK_BYTES];
        loop {
            match io::stdin().lock().read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    if out.blocking_send(buffer[..count].to_vec()).is_err() {
                        return;
                    }
                }
            }
        }
    });
    typed
}
