//! Output of ranks as lines: tagged with the rank, never mixed within a line.
//!
//! A progress bar rewrites its line with `\r`. On a terminal that works as it does on the machine
//! of the rank; in a pipe only its last state is written.

use std::collections::BTreeMap;
use std::io::{self, Write};

/// Bytes of a line that has not ended; longer ones are written in parts.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    /// Whether each line begins with its rank, as `[r3] `.
    pub(crate) tags: bool,
    /// Whether the reader is a terminal.
    pub(crate) terminal: bool,
    /// Whether bytes go through as they are.
    pub(crate) raw: bool,
}

/// The lines of all ranks of one of the two streams.
#[derive(Debug)]
pub(crate) struct Lines {
    style: Style,
    /// What has come of a line that has not ended, by rank.
    open: BTreeMap<u32, Vec<u8>>,
}

impl Lines {
    pub(crate) fn new(style: Style) -> Lines {
        Lines { style, open: BTreeMap::new() }
    }

    /// Takes bytes of a rank, and writes the lines that are complete.
    ///
    /// # Errors
    /// Those of the writer.
    pub(crate) fn take(&mut self, rank: u32, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        if self.style.raw || !self.style.tags && self.style.terminal {
            return out.write_all(bytes);
        }
        let mut line = self.open.remove(&rank).unwrap_or_default();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if line.ends_with(b"\n") || line.len() >= LINE_BYTES_MAX {
                self.write(rank, &line, out)?;
                line.clear();
            }
        }
        if !line.is_empty() {
            self.open.insert(rank, line);
        }
        Ok(())
    }

    /// Writes what has not ended with a line break: of one rank, or of all.
    ///
    /// # Errors
    /// Those of the writer.
    pub(crate) fn end(&mut self, rank: Option<u32>, out: &mut dyn Write) -> io::Result<()> {
        let ranks: Vec<u32> = match rank {
            Some(rank) => vec![rank],
            None => self.open.keys().copied().collect(),
        };
        for rank in ranks {
            if let Some(line) = self.open.remove(&rank) {
                self.write(rank, &line, out)?;
            }
        }
        Ok(())
    }

    fn write(&self, rank: u32, line: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        // What stands behind the last return is what a terminal would show in the end.
        let text = text.rsplit(|byte| *byte == b'\r').next().unwrap_or(text);
        if self.style.tags {
            write!(out, "[r{rank}] ")?;
        }
        out.write_all(text)?;
        out.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGGED: Style = Style { tags: true, terminal: false, raw: false };

    fn written(style: Style, parts: &[(u32, &str)]) -> String {
        let mut lines = Lines::new(style);
        let mut out = Vec::new();
        for (rank, text) in parts {
            lines.take(*rank, text.as_bytes(), &mut out).unwrap();
        }
        lines.end(None, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_of_ranks_do_not_mix() {
        let parts = [(0, "a"), (1, "x\ny"), (0, "b\n"), (1, "z\n"), (0, "end")];
        assert_eq!(written(TAGGED, &parts), "[r1] x\n[r0] ab\n[r1] yz\n[r0] end\n");
    }

    #[test]
    fn a_progress_bar_leaves_its_last_state() {
        let parts = [(0, "10%\r20%\r"), (0, "100%\r\nnext\n")];
        let style = Style { tags: false, ..TAGGED };
        assert_eq!(written(style, &parts), "100%\nnext\n");
        let terminal = Style { tags: false, terminal: true, raw: false };
        assert_eq!(written(terminal, &parts), "10%\r20%\r100%\r\nnext\n");
    }

    #[test]
    fn raw_bytes_go_through() {
        let raw = Style { raw: true, ..TAGGED };
        assert_eq!(written(raw, &[(0, "a\r"), (1, "b")]), "a\rb");
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let mut lines = Lines::new(TAGGED);
        let mut out = Vec::new();
        lines.take(0, &vec![b'x'; LINE_BYTES_MAX + 5], &mut out).unwrap();
        assert!(out.len() >= LINE_BYTES_MAX, "a part was written");
        assert!(lines.open.values().map(Vec::len).sum::<usize>() <= LINE_BYTES_MAX);
    }
}
