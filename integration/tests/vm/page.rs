//! The commands of a page, as a script for one machine that is all of the machines of the page.

use std::fmt::Write;
use std::path::Path;

/// How a block of commands begins.
const FENCE: &str = "```sh";
/// The machines of the page, and the one that stands for all of them.
const NODES: &str = "n1 n2 n3 n4 n5";
const NODE: &str = "n1";
const HEAD: &str = "head";

/// Commands that stand together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The heading above.
    pub(crate) section: String,
    /// Where it begins.
    line: usize,
    /// Who runs it.
    user: String,
    commands: String,
}

/// The blocks of a page.
pub(crate) fn read(path: &Path) -> Vec<Block> {
    let text = std::fs::read_to_string(path);
    blocks(&text.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

fn blocks(text: &str) -> Vec<Block> {
    let mut section = String::new();
    let mut open: Option<Block> = None;
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        match (&mut open, line) {
            (None, FENCE) => {
                let (section, line) = (section.clone(), at + 2);
                open = Some(Block { section, line, user: String::new(), commands: String::new() });
            }
            (Some(_), "```") => found.extend(open.take()),
            (Some(block), line) => match line.strip_prefix("# as ") {
                Some(who) if block.user.is_empty() => {
                    let name: String = who.chars().take_while(char::is_ascii_lowercase).collect();
                    block.user = name;
                }
                _ => {
                    block.commands.push_str(line);
                    block.commands.push('\n');
                }
            },
            (None, line) => {
                if let Some(heading) = line.strip_prefix("## ") {
                    section = heading.to_string();
                }
            }
        }
    }
    found
}

/// What runs the blocks, one after the other.
pub(crate) fn script(blocks: &[Block]) -> String {
    let mut text = String::new();
    for block in blocks {
        assert!(!block.user.is_empty(), "line {}: a block begins with `# as USER`", block.line);
        let commands = block.commands.replace(NODES, HEAD);
        let commands = words(&commands, NODE, HEAD);
        let (line, user) = (block.line, &block.user);
        // A string takes everything, so writing cannot fail.
        let _ = writeln!(text, "told {line} {user} <<'COMMANDS'\n{commands}COMMANDS");
    }
    text
}

/// Puts a word in the place of another.
fn words(text: &str, from: &str, to: &str) -> String {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let (before, after) = (&rest[..at], &rest[at + from.len()..]);
        let inside = is_word(before.chars().next_back()) || is_word(after.chars().next());
        out.push_str(before);
        out.push_str(if inside { from } else { to });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[test]
fn blocks_are_found_with_who_runs_them() {
    let text = "# A\n## B\n```sh\n# as root on head\nyard node drain n1\nn1x xn1 @n1:\n```\n\
                ```\nyard not run\n```\n## C\n```sh\n# as ben\nfor n in n1 n2 n3 n4 n5; do\n```\n";
    let found = blocks(text);
    let heads: Vec<(&str, &str, usize)> =
        found.iter().map(|block| (&*block.section, &*block.user, block.line)).collect();
    assert_eq!(heads, [("B", "root", 4), ("C", "ben", 13)]);
    let script = script(&found);
    let expected = "told 4 root <<'COMMANDS'\nyard node drain head\nn1x xn1 @head:\nCOMMANDS\n\
                    told 13 ben <<'COMMANDS'\nfor n in head; do\nCOMMANDS\n";
    assert_eq!(script, expected);
}
