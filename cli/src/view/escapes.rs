//! Takes out of output what would do something to a terminal: move its cursor, rename its window,
//! answer in the reader's name. What is left is text, tabs, line breaks and returns.

/// Where in a sequence a stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// In text.
    #[default]
    Text,
    /// Behind an escape.
    Escape,
    /// In a control sequence, up to its last letter.
    Control,
    /// In a string for the terminal, up to its end.
    Message,
    /// Behind an escape in such a string.
    MessageEnd,
    /// Behind the first byte of what may be a control character of two bytes.
    Half,
}

/// Filters one stream of bytes, whatever pieces it comes in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Escapes(State);

const ESCAPE: u8 = 0x1b;
const BELL: u8 = 0x07;
/// The first byte of U+0080 to U+00BF in UTF-8.
const HALF: u8 = 0xc2;

impl Escapes {
    /// What is left of a piece.
    pub(crate) fn filter(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut left = Vec::with_capacity(bytes.len());
        for byte in bytes {
            self.0 = self.step(*byte, &mut left);
        }
        left
    }

    fn step(&self, byte: u8, left: &mut Vec<u8>) -> State {
        match (self.0, byte) {
            // No sequence goes beyond its line: one without an end must not swallow the rest.
            (_, b'\n') => {
                left.push(byte);
                State::Text
            }
            (State::Text, _) => text(byte, left),
            (State::Half, 0x80..=0x9f) => match byte {
                0x9b => State::Control,
                0x90 | 0x98 | 0x9d..=0x9f => State::Message,
                _ => State::Text,
            },
            (State::Half, _) => {
                left.push(HALF);
                text(byte, left)
            }
            (State::Escape | State::MessageEnd, b'[') => State::Control,
            (State::Escape | State::MessageEnd, b']' | b'P' | b'X' | b'^' | b'_') => State::Message,
            (State::Escape | State::MessageEnd, b' '..=b'/' | ESCAPE) => State::Escape,
            (State::Escape | State::MessageEnd, _) => State::Text,
            (State::Control, b'@'..=b'~') => State::Text,
            (State::Control | State::Message, ESCAPE) => match self.0 {
                State::Message => State::MessageEnd,
                _ => State::Escape,
            },
            (State::Control, _) => State::Control,
            (State::Message, BELL) => State::Text,
            (State::Message, _) => State::Message,
        }
    }
}

fn text(byte: u8, left: &mut Vec<u8>) -> State {
    match byte {
        ESCAPE => State::Escape,
        HALF => State::Half,
        b'\t' | b'\r' => {
            left.push(byte);
            State::Text
        }
        0..=0x1f | 0x7f => State::Text,
        _ => {
            left.push(byte);
            State::Text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(text: &str) -> String {
        let whole = Escapes::default().filter(text.as_bytes());
        // In pieces it is the same.
        let mut escapes = Escapes::default();
        let pieces = text.as_bytes().iter().flat_map(|byte| escapes.filter(&[*byte]));
        assert_eq!(pieces.collect::<Vec<u8>>(), whole, "{text:?}");
        String::from_utf8(whole).unwrap()
    }

    #[test]
    fn text_stays_as_it_is() {
        for text in ["plain\ttext\r\n", "50%\r100%\n", "grüße £5 日本 …\n", "", "[31m]0;x"] {
            assert_eq!(filtered(text), text);
        }
    }

    #[test]
    fn nothing_is_left_that_a_terminal_obeys() {
        for (text, left) in [
            ("\x1b[31mred\x1b[0m\n", "red\n"),
            ("\x1b[2J\x1b[1;1Hgone", "gone"),
            ("\x1b]0;title\x07text", "text"),
            ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\x1bP+q544e\x1b\\x\x1b(By", "xy"),
            ("a\u{9b}2Jb\u{9d}0;t\x07c\u{85}d", "abcd"),
            ("\x07\x08\x00\x7f\x0bx", "x"),
            ("\x1bc\x1b7x", "x"),
            // What has no end ends with its line.
            ("\x1b]0;open\nnext \x1b[12\nlast", "\nnext \nlast"),
        ] {
            assert_eq!(filtered(text), left, "{text:?}");
        }
    }
}
