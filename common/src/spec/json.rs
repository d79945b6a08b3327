//! JSON: a strict reader into the spanned tree, and the values that the canonical form is
//! written from.
//!
//! YAML readers get most of JSON right, but not its surrogate escapes nor its tabs; the stored
//! form of a job must not depend on that.

use super::problem::{Issue, Problems};
use super::tree::{At, Key, Node, Origin, Style, Value, duplicate_key, place};
use crate::ErrorCode;
use crate::limits::{JOB_FILE_DEPTH_MAX, JOB_FILE_NODES_MAX};
use std::collections::BTreeSet;
use std::fmt;

/// A value to be written. Keys keep their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

impl fmt::Display for Json {
    /// Compact JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => write!(f, "{value}"),
            Json::Int(value) => write!(f, "{value}"),
            Json::Text(text) => write_text(f, text),
            Json::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{item}")?;
                }
                f.write_str("]")
            }
            Json::Map(entries) => {
                f.write_str("{")?;
                for (index, (key, value)) in entries.iter().enumerate() {
                    f.write_str(if index > 0 { "," } else { "" })?;
                    write_text(f, key)?;
                    write!(f, ":{value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

/// A JSON string; also a YAML one in double quotes.
fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            '\r' => f.write_str("\\r")?,
            // Control characters, and what YAML takes for line breaks or a byte-order mark.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                write!(f, "\\u{:04x}", c as u32)?;
            }
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

/// Reads JSON. On failure the one problem is pushed: after it, nothing can be said about the
/// content.
pub(crate) fn parse_json(text: &str, problems: &mut Problems) -> Option<Node> {
    let mut reader = Reader { text, position: 0, line: 1, counted: (0, 0), nodes: 0, problems };
    let result = reader.value(0).and_then(|node| {
        reader.skip_space();
        if reader.position == text.len() { Ok(node) } else { Err("text after the end".into()) }
    });
    match result {
        Ok(node) => Some(node),
        Err(Failure { code, message }) => {
            let at = reader.at();
            let issue = Issue::new(code, message, "correct the text at this place");
            reader.problems.push(place(issue, at, String::new(), String::new()));
            None
        }
    }
}

struct Failure {
    code: ErrorCode,
    message: String,
}

impl From<&str> for Failure {
    fn from(message: &str) -> Failure {
        Failure { code: ErrorCode::Syntax, message: message.into() }
    }
}

struct Reader<'a> {
    text: &'a str,
    position: usize,
    line: u32,
    /// A position on the line, and the characters of the line before it.
    counted: (usize, u32),
    nodes: usize,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    /// The place of the next byte. Counts on from the last place, so that a file of one long
    /// line takes linear time.
    fn at(&mut self) -> At {
        let (position, before) = self.counted;
        let before = before + self.text[position..self.position].chars().count() as u32;
        self.counted = (self.position, before);
        At { line: self.line, column: before + 1, origin: Origin::File }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            if self.peek() == Some(b'\n') {
                self.line += 1;
                self.counted = (self.position + 1, 0);
            }
            self.position += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.position += usize::from(found);
        found
    }

    /// Recursive, at most [`JOB_FILE_DEPTH_MAX`] deep.
    fn value(&mut self, depth: usize) -> Result<Node, Failure> {
        self.skip_space();
        let at = self.at();
        self.nodes += 1;
        if self.nodes > JOB_FILE_NODES_MAX || depth > JOB_FILE_DEPTH_MAX {
            let message =
                format!("more than {JOB_FILE_NODES_MAX} values or {JOB_FILE_DEPTH_MAX} levels");
            return Err(Failure { code: ErrorCode::FileTooLarge, message });
        }
        let value = match self.peek() {
            Some(b'{') => self.map(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Value::Scalar(self.string()?, Style::Quoted),
            Some(b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                Value::Scalar(self.word()?, Style::Plain)
            }
            _ => return Err("a value is expected here".into()),
        };
        Ok(Node { value, at })
    }

    fn list(&mut self, depth: usize) -> Result<Value, Failure> {
        self.position += 1;
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.take(b']') {
                return Ok(Value::List(items));
            }
            if !self.take(b',') {
                return Err("a comma or ] is expected here".into());
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Failure> {
        self.position += 1;
        let (mut entries, mut seen) = (Vec::new(), BTreeSet::new());
        if self.take(b'}') {
            return Ok(Value::Map(entries));
        }
        loop {
            self.skip_space();
            let at = self.at();
            if self.peek() != Some(b'"') {
                return Err("a key in double quotes is expected here".into());
            }
            let key = Key { text: self.string()?, at };
            if !self.take(b':') {
                return Err("a colon is expected here".into());
            }
            let node = self.value(depth + 1)?;
            if seen.insert(key.text.clone()) {
                entries.push((key, node));
            } else {
                let field = super::problem::shown(&key.text);
                self.problems.push(duplicate_key(key.at, field, &node));
            }
            if self.take(b'}') {
                return Ok(Value::Map(entries));
            }
            if !self.take(b',') {
                return Err("a comma or } is expected here".into());
            }
        }
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Result<String, Failure> {
        let rest = &self.text[self.position..];
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '+' | '.'))
            .unwrap_or(rest.len());
        let word = &rest[..end];
        if !matches!(word, "true" | "false" | "null") && !is_number(word) {
            return Err("this is no number, true, false or null; a text needs quotes".into());
        }
        self.position += end;
        Ok(word.to_string())
    }

    fn string(&mut self) -> Result<String, Failure> {
        self.position += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.position..];
            let end = rest.find(['"', '\\', '\n']).ok_or("the text has no closing quote")?;
            out.push_str(&rest[..end]);
            self.position += end;
            match rest.as_bytes()[end] {
                b'"' => {
                    self.position += 1;
                    return Ok(out);
                }
                b'\\' => out.push(self.escape()?),
                _ => return Err("the text has no closing quote on its line".into()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Failure> {
        let code = self.text.as_bytes().get(self.position + 1).copied();
        let plain = match code {
            Some(b'n') => '\n',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b @ (b'"' | b'\\' | b'/')) => b.into(),
            Some(b'u') => return self.unicode_escape(),
            _ => return Err("there is no such escape".into()),
        };
        self.position += 2;
        Ok(plain)
    }

    /// `\uXXXX`, or two of them that make one character.
    fn unicode_escape(&mut self) -> Result<char, Failure> {
        let mut unit = || -> Result<u32, Failure> {
            let digits = self.text.get(self.position + 2..self.position + 6);
            let legal = |s: &&str| s.bytes().all(|b| b.is_ascii_hexdigit());
            let is_escape = self.text[self.position..].starts_with("\\u");
            let digits = digits.filter(|s| is_escape && legal(s)).ok_or("a bad \\u escape")?;
            self.position += 6;
            u32::from_str_radix(digits, 16).map_err(|_| "a bad \\u escape".into())
        };
        let mut code = unit()?;
        if (0xd800..0xdc00).contains(&code) {
            let low = unit()?;
            if !(0xdc00..0xe000).contains(&low) {
                return Err("half of a surrogate pair".into());
            }
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
        char::from_u32(code).ok_or_else(|| "half of a surrogate pair".into())
    }
}

/// Whether this is a number of JSON's grammar.
fn is_number(text: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && digits(fraction)
        && digits(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(text: &str) -> Result<Node, String> {
        let mut problems = Problems::default();
        parse_json(text, &mut problems).ok_or_else(|| problems.to_string())
    }

    #[test]
    fn json_is_read_as_it_is_written() {
        let node = json(r#" {"a": [1, -2.5e3, "x\ud83d\ude00\/"], "b": null} "#).unwrap();
        let Value::List(items) = &node.get("a").unwrap().value else { panic!("{node:?}") };
        assert_eq!(items[1].value, Value::Scalar("-2.5e3".into(), Style::Plain));
        assert_eq!(items[2].value, Value::Scalar("x😀/".into(), Style::Quoted));
        assert!(node.get("b").unwrap().is_null());
    }

    #[test]
    fn what_json_does_not_allow_is_refused() {
        for text in [
            "",
            "{",
            "{a: 1}",
            "{\"a\": 01}",
            "{\"a\": .5}",
            "{\"a\": 1,}",
            "[1 2]",
            "nul",
            "\"\\ud83d\"",
            "\"\\ud83d\\u0041\"",
            "\"\\x\"",
            "\"a\nb\"",
            "{} x",
            "[1.]",
            "\"\\u+123\"",
        ] {
            assert!(json(text).is_err(), "{text}");
        }
        assert!(json(&"[".repeat(100_000)).unwrap_err().contains("Y1013"));
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in any::<String>()) {
            let written = Json::Text(text.clone()).to_string();
            let node = json(&written).unwrap();
            prop_assert_eq!(&node.value, &Value::Scalar(text.clone(), Style::Quoted));
            // What is JSON to us is the same text in YAML.
            let mut problems = Problems::default();
            let yaml = super::super::tree::parse_yaml(&written, &Origin::File, &mut problems);
            prop_assert_eq!(yaml.unwrap().value, Value::Scalar(text, Style::Quoted));
        }

        #[test]
        fn any_text_is_refused_or_read(text in "[\\[\\]{}\",:\\\\u0-9a-f \n.e-]{0,40}") {
            let _ = json(&text);
        }
    }
}
