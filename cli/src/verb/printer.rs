//! Writes the output of ranks: what went to standard error there goes to standard error here.

use crate::failure::Failure;
use crate::output::say;
use crate::text;
use crate::view::lines::{Lines, Style};
use std::io::{self, IsTerminal, Write};
use yard_client::LogItem;
use yard_proto::v1;

/// The columns of a terminal that does not say.
const COLUMNS: usize = 80;

/// Writes the output of an attempt's ranks.
pub(crate) struct Printer {
    raw: bool,
    times: bool,
    out: Lines,
    err: Lines,
}

impl Printer {
    /// `raw`: bytes as they are; `times`: each line with its time.
    pub(crate) fn new(raw: bool, times: bool) -> Printer {
        let plain = Style { tags: false, times, columns: 0, raw };
        Printer { raw, times, out: Lines::new(plain), err: Lines::new(plain) }
    }

    /// Writes an item; `false`: nobody reads any more.
    pub(crate) fn print(&mut self, item: &LogItem) -> Result<bool, Failure> {
        let written = match item {
            LogItem::Head(head) => {
                let (raw, times) = (self.raw, self.times);
                let style = |terminal: bool| {
                    let columns = if terminal { columns() } else { 0 };
                    Style { tags: head.ranks > 1, times, columns, raw }
                };
                self.out = Lines::new(style(io::stdout().is_terminal()));
                self.err = Lines::new(style(io::stderr().is_terminal()));
                Ok(())
            }
            LogItem::Chunk(chunk) => self.chunk(chunk),
            LogItem::Gap(gap) => {
                let (rank, reason) = (gap.rank, text::harmless(&gap.reason));
                let what = match gap.len {
                    // How much, only the machine knows that does not answer.
                    0 => "output".to_string(),
                    len => format!("{len} bytes"),
                };
                self.beside(|| say(&format!("note: {what} of rank {rank} is missing: {reason}")))
            }
            LogItem::End(end) => {
                let rank = Some(end.rank);
                match is_err(end.stream) {
                    true => self.err.end(rank, &mut io::stderr().lock()),
                    false => self.out.end(rank, &mut io::stdout().lock()),
                }
            }
        };
        went(written)
    }

    fn chunk(&mut self, chunk: &v1::LogChunk) -> io::Result<()> {
        let v1::LogChunk { rank, data, written_wall_ms, .. } = chunk;
        let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
        // Both may be the same terminal.
        if is_err(chunk.stream) {
            self.out.hide(&mut out)?;
            out.flush()?;
            self.err.take(*rank, *written_wall_ms, data, &mut err)?;
            self.out.show(&mut out)?;
        } else {
            self.err.hide(&mut err)?;
            self.out.take(*rank, *written_wall_ms, data, &mut out)?;
            out.flush()?;
            self.err.show(&mut err)?;
        }
        out.flush()
    }

    /// Says something beside the output.
    pub(crate) fn beside(&mut self, tell: impl FnOnce()) -> io::Result<()> {
        self.out.hide(&mut io::stdout().lock())?;
        io::stdout().flush()?;
        self.err.hide(&mut io::stderr().lock())?;
        tell();
        self.err.show(&mut io::stderr().lock())?;
        self.out.show(&mut io::stdout().lock())?;
        io::stdout().flush()
    }

    /// Writes what has not ended with a line break.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        let out = self.out.end(None, &mut io::stdout().lock());
        went(out.and_then(|()| self.err.end(None, &mut io::stderr().lock()))).map(drop)
    }
}

fn is_err(stream: i32) -> bool {
    stream == i32::from(v1::LogStream::Stderr)
}

/// The columns of the terminal.
fn columns() -> usize {
    let told = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    told.filter(|columns| *columns > 0).unwrap_or(COLUMNS)
}

/// `false`: the reader has gone away, which is no failure.
fn went(written: io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::local(&error, "is the disk full?")),
    }
}
