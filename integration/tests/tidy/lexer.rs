//! Splits Rust source into code and comments, so that a word in a string or in a comment is not
//! taken for code. Exact enough for searching words; it is no parser.

/// A Rust source, line by line, in two layers of equal length.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    /// Code, with the content of strings and characters blanked.
    pub(crate) code: Vec<String>,
    /// Text of the comments.
    pub(crate) comments: Vec<String>,
}

/// What the current character belongs to.
#[derive(Clone, Copy)]
enum Within {
    Code,
    LineComment,
    /// How many comments are open.
    BlockComment(u32),
    /// Whether the character before was an escaping backslash.
    Text {
        escaped: bool,
    },
    /// Hashes that close it.
    RawText(usize),
}

/// Splits a source into its layers.
pub(crate) fn layers(text: &str) -> Layers {
    let mut layers = Layers::default();
    let mut within = Within::Code;
    for line in text.lines() {
        let (mut code, mut comment) = (String::new(), String::new());
        let symbols: Vec<char> = line.chars().collect();
        let mut at = 0;
        while at < symbols.len() {
            let (next, taken) = step(within, &symbols, at);
            let part = &symbols[at..at + taken];
            match (within, next) {
                // A character literal loses its content.
                (Within::Code, Within::Code) if taken > 1 => code.push_str("' '"),
                (Within::Code, Within::Code) => code.extend(part),
                (Within::Code, Within::Text { .. } | Within::RawText(_))
                | (Within::Text { .. } | Within::RawText(_), Within::Code) => code.push('"'),
                (Within::Text { .. } | Within::RawText(_), _) => code.push(' '),
                _ => comment.extend(part),
            }
            within = next;
            at += taken;
        }
        within = match within {
            Within::LineComment => Within::Code,
            // A backslash at the end escapes the line break, nothing on the next line.
            Within::Text { .. } => Within::Text { escaped: false },
            Within::Code | Within::BlockComment(_) | Within::RawText(_) => within,
        };
        layers.code.push(code);
        layers.comments.push(comment);
    }
    layers
}

/// Where the scan stands after the symbols at `at`, and how many symbols that took.
fn step(within: Within, symbols: &[char], at: usize) -> (Within, usize) {
    let follows =
        |text: &str| text.chars().enumerate().all(|(i, c)| symbols.get(at + i) == Some(&c));
    match within {
        Within::Code if follows("//") => (Within::LineComment, 2),
        Within::Code if follows("/*") => (Within::BlockComment(1), 2),
        Within::Code if follows("\"") => (Within::Text { escaped: false }, 1),
        Within::Code => match raw_text_start(symbols, at) {
            Some(hashes) => (Within::RawText(hashes), hashes + 2),
            None => (Within::Code, character_len(symbols, at).unwrap_or(1)),
        },
        Within::LineComment => (Within::LineComment, 1),
        Within::BlockComment(open) if follows("/*") => (Within::BlockComment(open + 1), 2),
        Within::BlockComment(1) if follows("*/") => (Within::Code, 2),
        Within::BlockComment(open) if follows("*/") => (Within::BlockComment(open - 1), 2),
        Within::BlockComment(open) => (Within::BlockComment(open), 1),
        Within::Text { escaped: true } => (Within::Text { escaped: false }, 1),
        Within::Text { escaped: false } if follows("\"") => (Within::Code, 1),
        Within::Text { escaped: false } => (Within::Text { escaped: follows("\\") }, 1),
        Within::RawText(hashes) if follows("\"") && hashes_after(symbols, at) >= hashes => {
            (Within::Code, hashes + 1)
        }
        Within::RawText(hashes) => (Within::RawText(hashes), 1),
    }
}

/// Hashes right after a position.
fn hashes_after(symbols: &[char], at: usize) -> usize {
    symbols[at + 1..].iter().take_while(|c| **c == '#').count()
}

/// Number of hashes when a raw string starts here: `r"`, `r#"`, also at the `r` of `br"`.
fn raw_text_start(symbols: &[char], at: usize) -> Option<usize> {
    let word_before = |c: &char| c.is_alphanumeric() && *c != 'b' || *c == '_';
    if symbols[at] != 'r' || at > 0 && word_before(&symbols[at - 1]) {
        return None;
    }
    let hashes = hashes_after(symbols, at);
    (symbols.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

/// Length of the character literal that starts here; a lifetime is none.
fn character_len(symbols: &[char], at: usize) -> Option<usize> {
    if symbols[at] != '\'' {
        return None;
    }
    match symbols.get(at + 1)? {
        '\\' => symbols[at + 3..].iter().position(|c| *c == '\'').map(|end| end + 4),
        _ => (symbols.get(at + 2) == Some(&'\'')).then_some(3),
    }
}

#[test]
fn strings_and_comments_are_no_code() {
    let source = [
        r##"let a = "x // y"; // why /* not"##,
        r###"let b = r#"in "raw" text"#; let c: &'a u8 = b'"'; /* one /* two */ still */ end"###,
        "let d = \"two",
        "lines \\\" here\"; done('\\'', '\\u{7f}', 'z');",
        "let e = \"three \\",
        "\"; code()",
    ]
    .join("\n");
    let layers = layers(&source);
    assert_eq!(layers.code[0].trim_end(), "let a = \"      \";");
    assert_eq!(layers.comments[0], "// why /* not");
    assert_eq!(
        layers.code[1], "let b = \"             \"; let c: &'a u8 = b' ';  end",
        "raw text, lifetimes and nested comments"
    );
    assert_eq!(layers.comments[1], "/* one /* two */ still */");
    assert_eq!(layers.code[2], "let d = \"   ");
    assert_eq!(layers.code[3], "             \"; done(' ', ' ', ' ');");
    assert_eq!(
        layers.code[5], "\"; code()",
        "the string ends at the first mark of its second line"
    );
}
