//! Output of ranks as lines: tagged with the rank, never mixed within a line.
//!
//! A progress bar rewrites its line with `\r`. In a pipe only its last state is written. On a
//! terminal it is one line that changes: the newest one of all ranks stands below everything else.

use super::escapes::Escapes;
use crate::text;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Bytes of a line that has not ended; longer ones are written in parts.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Takes a terminal to the beginning of its line, which it clears.
const CLEAR: &[u8] = b"\r\x1b[K";

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    /// Whether each line begins with its rank, as `[r3] `.
    pub(crate) tags: bool,
    /// Whether each line begins with the time at which it was written.
    pub(crate) times: bool,
    /// The columns of the terminal; 0: it is none.
    pub(crate) columns: usize,
    /// Whether bytes go through as they are.
    pub(crate) raw: bool,
}

/// The lines of all ranks of one of the two streams.
#[derive(Debug)]
pub(crate) struct Lines {
    style: Style,
    ranks: BTreeMap<u32, Rank>,
    /// Whose unfinished line is the last on the terminal.
    shown: Option<u32>,
}

/// What has come of one rank.
#[derive(Debug, Default)]
struct Rank {
    escapes: Escapes,
    /// A line that has not ended.
    line: Vec<u8>,
    /// When it began; 0: that is not known.
    wall_ms: u64,
    /// Whether it was rewritten.
    changes: bool,
}

impl Lines {
    pub(crate) fn new(style: Style) -> Lines {
        Lines { style, ranks: BTreeMap::new(), shown: None }
    }

    /// Takes bytes of a rank, which were written at a time, and writes the lines that are complete.
    ///
    /// # Errors
    /// Those of the writer.
    pub(crate) fn take(
        &mut self,
        rank: u32,
        wall_ms: u64,
        bytes: &[u8],
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let style = self.style;
        if style.raw {
            return out.write_all(bytes);
        }
        let mut state = self.ranks.remove(&rank).unwrap_or_default();
        let bytes = state.escapes.filter(bytes);
        // One rank on a terminal needs no help: that knows what a return is.
        if !style.tags && !style.times && style.columns > 0 {
            self.ranks.insert(rank, state);
            return out.write_all(&bytes);
        }
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if state.line.is_empty() {
                state.wall_ms = wall_ms;
            }
            state.line.extend_from_slice(part);
            let ends = state.line.ends_with(b"\n");
            state.changes |= !ends && part.contains(&b'\r');
            forget_states(&mut state.line);
            if ends || state.line.len() >= LINE_BYTES_MAX {
                self.hide(out)?;
                self.write(rank, &state, out)?;
                state.line.clear();
                state.changes = false;
            }
        }
        let changes = state.changes;
        self.ranks.insert(rank, state);
        if changes && style.columns > 0 {
            self.shown = Some(rank);
        }
        self.show(out)
    }

    /// Writes what has not ended with a line break: of one rank, or of all.
    ///
    /// # Errors
    /// Those of the writer.
    pub(crate) fn end(&mut self, rank: Option<u32>, out: &mut dyn Write) -> io::Result<()> {
        let ranks: Vec<u32> = match rank {
            Some(rank) => vec![rank],
            None => self.ranks.keys().copied().collect(),
        };
        for rank in ranks {
            let Some(state) = self.ranks.remove(&rank).filter(|state| !state.line.is_empty())
            else {
                continue;
            };
            self.hide(out)?;
            self.write(rank, &state, out)?;
        }
        self.show(out)
    }

    /// Takes the unfinished line off the terminal, for whoever writes something else there.
    ///
    /// # Errors
    /// Those of the writer.
    pub(crate) fn hide(&mut self, out: &mut dyn Write) -> io::Result<()> {
        match self.shown {
            Some(_) => out.write_all(CLEAR),
            None => Ok(()),
        }
    }

    /// Writes the unfinished line once more, if there is one.
    ///
    /// # Errors
    /// Those of the writer.
    pub(crate) fn show(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let Some(rank) = self.shown else { return Ok(()) };
        let Some(state) = self.ranks.get(&rank).filter(|state| state.changes) else {
            self.shown = None;
            return Ok(());
        };
        let head = self.head(rank, state.wall_ms);
        let line = head + &String::from_utf8_lossy(last_state(&state.line));
        // A longer one would wrap, and be cleared in part.
        let line: String = line.chars().take(self.style.columns.saturating_sub(1)).collect();
        out.write_all(CLEAR)?;
        out.write_all(line.as_bytes())
    }

    fn head(&self, rank: u32, wall_ms: u64) -> String {
        let mut head = String::new();
        if self.style.times {
            let at = if wall_ms > 0 { text::moment(wall_ms) } else { text::NONE.into() };
            head = format!("{at:20} ");
        }
        if self.style.tags {
            head.push_str(&format!("[r{rank}] "));
        }
        head
    }

    fn write(&self, rank: u32, state: &Rank, out: &mut dyn Write) -> io::Result<()> {
        let line = state.line.strip_suffix(b"\n").unwrap_or(&state.line);
        out.write_all(self.head(rank, state.wall_ms).as_bytes())?;
        out.write_all(last_state(line))?;
        out.write_all(b"\n")
    }
}

/// What stands behind the last return is what a terminal would show in the end.
fn last_state(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| *byte != b'\r').map_or(0, |at| at + 1);
    let line = &line[..end];
    line.rsplit(|byte| *byte == b'\r').next().unwrap_or(line)
}

/// Drops what was written over: a bar may go on for days without a line break.
fn forget_states(line: &mut Vec<u8>) {
    let end = line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(0);
    if let Some(at) = line[..end].iter().rposition(|byte| *byte == b'\r') {
        line.drain(..=at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGGED: Style = Style { tags: true, times: false, columns: 0, raw: false };

    fn written(style: Style, parts: &[(u32, &str)]) -> String {
        let mut lines = Lines::new(style);
        let mut out = Vec::new();
        for (rank, text) in parts {
            lines.take(*rank, 0, text.as_bytes(), &mut out).unwrap();
        }
        lines.end(None, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// What stands on a terminal after all of this.
    fn screen(text: &str) -> String {
        let mut lines = vec![String::new()];
        for part in text.replace("\x1b[K", "").split_inclusive(['\n', '\r']) {
            let last = lines.last_mut().unwrap();
            match part.strip_suffix('\n') {
                Some(part) => {
                    last.push_str(part);
                    lines.push(String::new());
                }
                None => match part.strip_suffix('\r') {
                    Some(_) => last.clear(),
                    None => last.push_str(part),
                },
            }
        }
        lines.join("\n")
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
        let terminal = Style { columns: 80, ..style };
        assert_eq!(written(terminal, &parts), "10%\r20%\r100%\r\nnext\n");
        // Bars as they are usual: the return comes first.
        assert_eq!(written(style, &[(0, "\r10%"), (0, "\r20%"), (0, "\rdone\n")]), "done\n");
    }

    #[test]
    fn a_bar_that_goes_on_for_days_takes_no_room() {
        let mut lines = Lines::new(TAGGED);
        let mut out = Vec::new();
        for step in 0..100_000 {
            lines.take(0, 0, format!("\rstep {step}").as_bytes(), &mut out).unwrap();
        }
        assert!(out.is_empty() && lines.ranks[&0].line.len() < 100);
        lines.end(None, &mut out).unwrap();
        assert_eq!(out, b"[r0] step 99999\n");
    }

    #[test]
    fn on_a_terminal_the_newest_bar_stands_below_the_lines() {
        let style = Style { columns: 80, ..TAGGED };
        let mut lines = Lines::new(style);
        let mut out = Vec::new();
        for (rank, text, seen) in [
            (0, "start\n", "[r0] start\n"),
            (0, "\r10%", "[r0] start\n[r0] 10%"),
            (1, "hello\n", "[r0] start\n[r1] hello\n[r0] 10%"),
            (1, "half", "[r0] start\n[r1] hello\n[r0] 10%"),
            (1, "\r50%", "[r0] start\n[r1] hello\n[r1] 50%"),
            (0, "\r100%\n", "[r0] start\n[r1] hello\n[r0] 100%\n[r1] 50%"),
            (1, "\rok\n", "[r0] start\n[r1] hello\n[r0] 100%\n[r1] ok\n"),
        ] {
            lines.take(rank, 0, text.as_bytes(), &mut out).unwrap();
            assert_eq!(screen(std::str::from_utf8(&out).unwrap()), seen, "{text:?}");
        }
        // It never wraps.
        out.clear();
        lines.take(0, 0, format!("\r{}", "x".repeat(500)).as_bytes(), &mut out).unwrap();
        assert_eq!(screen(std::str::from_utf8(&out).unwrap()).len(), 79);
    }

    #[test]
    fn what_would_move_the_cursor_is_left_out_unless_raw() {
        let parts = [(0, "\x1b[2Jcl"), (0, "ean\x1b[0m\n")];
        for columns in [0, 80] {
            let style = Style { tags: false, columns, ..TAGGED };
            assert_eq!(written(style, &parts), "clean\n");
        }
        let raw = Style { raw: true, ..TAGGED };
        assert_eq!(written(raw, &parts), "\x1b[2Jclean\x1b[0m\n");
    }

    #[test]
    fn a_line_tells_when_it_began() {
        let mut lines = Lines::new(Style { times: true, ..TAGGED });
        let mut out = Vec::new();
        lines.take(3, 1_000, b"ab", &mut out).unwrap();
        lines.take(3, 9_000, b"c\nd\n", &mut out).unwrap();
        lines.take(3, 0, b"e\n", &mut out).unwrap();
        let expected = "1970-01-01T00:00:01Z [r3] abc\n1970-01-01T00:00:09Z [r3] d\n\
                        -                    [r3] e\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
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
        lines.take(0, 0, &vec![b'x'; LINE_BYTES_MAX + 5], &mut out).unwrap();
        assert!(out.len() >= LINE_BYTES_MAX, "a part was written");
        assert!(lines.ranks.values().map(|rank| rank.line.len()).sum::<usize>() <= LINE_BYTES_MAX);
    }
}
