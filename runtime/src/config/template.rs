//! A file of settings for people: every setting is there, as a comment with its default.

use std::fmt::Write;

/// The widest line of a file.
const COLUMNS: usize = 90;

/// One setting of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key, with those of the tables around it.
    pub key: String,
    /// What it is for.
    pub about: &'static str,
    /// What a good value is.
    pub what: String,
    /// What it is when nobody says otherwise, as TOML; none: it is not set then, or must be.
    pub default: Option<String>,
}

/// A text as TOML.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A file in which each setting is a comment with its default, but for those that are `given`
/// another value.
#[must_use]
pub fn template(head: &str, settings: &[Setting], given: &[(&str, &str)]) -> String {
    let mut text = comment(head);
    for setting in settings {
        text.push('\n');
        let about = match setting.about {
            "" => format!("It is {}.", setting.what),
            about => format!("{about}: {}.", setting.what),
        };
        text.push_str(&comment(&about));
        let value = given.iter().find(|(key, _)| *key == setting.key).map(|(_, value)| value);
        // A string takes everything, so writing cannot fail.
        let _ = match (value, &setting.default) {
            (Some(value), _) => writeln!(text, "{} = {}", setting.key, quoted(value)),
            (None, Some(default)) => writeln!(text, "#{} = {default}", setting.key),
            (None, None) => writeln!(text, "#{} =", setting.key),
        };
    }
    text
}

/// Words as lines of a comment.
fn comment(words: &str) -> String {
    let mut text = String::new();
    for paragraph in words.lines() {
        let mut line = String::from("#");
        for word in paragraph.split_whitespace() {
            if line.len() + 1 + word.len() > COLUMNS && line.len() > 1 {
                text.push_str(&line);
                text.push('\n');
                line = String::from("#");
            }
            line.push(' ');
            line.push_str(word);
        }
        text.push_str(&line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Section, parse, settings};
    use std::path::{Path, PathBuf};

    type All = (String, PathBuf, u64, bool, Option<String>, u64);

    fn build(root: &mut Section<'_>) -> Option<All> {
        let name = root.about("Its name").value("name", "a \"b\"".to_string(), "a word");
        let path = root.about("Where it lies").path("path", Path::new("/var/x"));
        let number = root.about("How many").number("number", 7, 1..=9);
        let flag = root.about("Whether it does").flag("flag", true);
        let none = root.about("Who it is; nobody if not set").optional("none", "a name");
        let below = root.section("part", |part| part.about("Of a part").number("size", 3, 0..=5));
        Some((name, path, number, flag, none, below))
    }

    #[test]
    fn every_setting_is_there_with_its_default() {
        let text = template("Settings.\nMore of it.", &settings(build), &[]);
        let expected = "\
# Settings.
# More of it.

# Its name: a word.
#name = 'a \"b\"'

# Where it lies: a path.
#path = \"/var/x\"

# How many: a whole number from 1 to 9.
#number = 7

# Whether it does: true or false.
#flag = true

# Who it is; nobody if not set: a name.
#none =

# Of a part: a whole number from 0 to 5.
#part.size = 3
";
        assert_eq!(text, expected);
        // Without its marks it says the same as an empty file.
        let bare: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .filter(|line| !line.starts_with(' ') && !line.ends_with('='))
            .collect();
        assert_eq!(parse(&bare.join("\n"), "x", build).unwrap(), parse("", "x", build).unwrap());
    }

    #[test]
    fn what_is_given_counts() {
        let text = template("x", &settings(build), &[("none", "ann")]);
        assert!(text.contains("\nnone = \"ann\"\n"), "{text}");
        assert_eq!(parse(&text, "x", build).unwrap().4.as_deref(), Some("ann"));
    }

    #[test]
    fn long_words_are_broken_into_lines() {
        let text = comment(&"word ".repeat(40));
        assert!(text.lines().all(|line| line.len() <= COLUMNS && line.starts_with("# word")));
        assert_eq!(text.matches("word").count(), 40);
    }
}
