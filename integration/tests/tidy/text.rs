//! Rules that hold for every text file: length, width, white space, and nothing private.

use crate::repo::{self, File, Finding};

/// Lines of a source file; above 500 the question is whether it is still one idea.
const FILE_LINES_MAX: usize = 800;
/// Columns of a line of code.
const LINE_COLUMNS_MAX: usize = 100;
/// Folders at the root of a file system that say where somebody's checkout lies.
const PRIVATE_FOLDERS: [&str; 4] = ["home", "root", "work", "Users"];
/// People of the examples, whose home folders may be named.
const EXAMPLE_PEOPLE: [&str; 3] = ["ann", "ben", "user"];

/// Whether a file is code that people write: Rust, shell or TOML.
fn is_code(file: &File) -> bool {
    let generated = file.name() == "Cargo.lock";
    let written = ["rs", "sh", "toml", "proto", "py"].iter().any(|e| file.has_extension(e));
    !generated && (written || file.text.starts_with("#!"))
}

/// Files that are too long to be one idea.
fn too_long(file: &File) -> Vec<Finding> {
    let lines = file.text.lines().count();
    if !is_code(file) || lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    let what = format!("{lines} lines, at most {FILE_LINES_MAX} are allowed");
    vec![Finding::new(&file.path, lines, what)]
}

/// Lines that are too wide. An address in a comment cannot be broken and may pass.
fn too_wide(file: &File) -> Vec<Finding> {
    if !file.has_extension("rs") && !file.text.starts_with("#!") {
        return Vec::new();
    }
    each_line(file, |line| {
        let columns = line.chars().count();
        let wide = columns > LINE_COLUMNS_MAX && !line.contains("https://");
        wide.then(|| format!("{columns} columns, at most {LINE_COLUMNS_MAX} are allowed"))
    })
}

/// White space that no reader sees and every diff shows.
fn stray_white_space(file: &File) -> Vec<Finding> {
    let mut findings = each_line(file, |line| {
        let tab = file.has_extension("rs") && line.contains('\t');
        let problem = if line.ends_with([' ', '\t']) {
            "white space at the end of the line"
        } else if line.contains('\r') {
            "a carriage return"
        } else if tab {
            "a tab"
        } else {
            return None;
        };
        Some(problem.to_string())
    });
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        let last = file.text.lines().count();
        findings.push(Finding::new(&file.path, last, "no newline at the end of the file"));
    }
    findings
}

/// Absolute paths into somebody's own folders: nobody else has them.
fn private_paths(file: &File) -> Vec<Finding> {
    each_line(file, |line| {
        for folder in PRIVATE_FOLDERS {
            let path = format!("/{folder}/");
            for (at, _) in line.match_indices(&path) {
                let before = line[..at].chars().next_back();
                let inside_a_path =
                    before.is_some_and(|c| c.is_alphanumeric() || "_.-}/".contains(c));
                let of_example =
                    EXAMPLE_PEOPLE.iter().any(|p| line[at + path.len()..].starts_with(p));
                if !inside_a_path && !of_example {
                    return Some(format!("{path} is a path of one machine"));
                }
            }
        }
        None
    })
}

/// Findings of a check that looks at one line at a time.
fn each_line(file: &File, check: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let numbered = file.text.split('\n').enumerate();
    let found = |(at, line)| check(line).map(|what| Finding::new(&file.path, at + 1, what));
    numbered.filter_map(found).collect()
}

/// The findings of a check over the whole repository.
fn everywhere(check: impl Fn(&File) -> Vec<Finding>) -> Vec<Finding> {
    repo::files().iter().flat_map(check).collect()
}

#[test]
fn files_are_one_idea() {
    let remedy = "Split these files by idea; the soft limit is 500 lines:";
    repo::assert_none(remedy, &everywhere(too_long));
}

#[test]
fn lines_fit_the_screen() {
    repo::assert_none("Break these lines:", &everywhere(too_wide));
}

#[test]
fn no_stray_white_space() {
    repo::assert_none("Clean these lines:", &everywhere(stray_white_space));
}

#[test]
fn no_path_of_one_machine() {
    let remedy = "Use a relative path, or one that every machine has:";
    repo::assert_none(remedy, &everywhere(private_paths));
}

#[cfg(test)]
mod the_rules_can_fail {
    use super::*;

    /// Lines that a check complains about.
    fn lines(check: fn(&File) -> Vec<Finding>, path: &str, text: &str) -> Vec<String> {
        check(&File::new(path, text)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn on_long_files() {
        assert!(lines(too_long, "a.rs", &"x\n".repeat(800)).is_empty());
        assert_eq!(lines(too_long, "a.rs", &"x\n".repeat(801)).len(), 1);
        assert!(lines(too_long, "a.md", &"x\n".repeat(801)).is_empty(), "prose may be long");
        assert_eq!(lines(too_long, "scripts/x", &format!("#!x\n{}", "x\n".repeat(800))).len(), 1);
    }

    #[test]
    fn on_wide_lines() {
        let wide = "é".repeat(101);
        assert!(lines(too_wide, "a.rs", &"é".repeat(100)).is_empty(), "columns, not bytes");
        let found = lines(too_wide, "a.rs", &format!("fine\n{wide}\n"));
        assert_eq!(found, ["a.rs:2: 101 columns, at most 100 are allowed"]);
        assert!(lines(too_wide, "a.rs", &format!("// https://{wide}")).is_empty());
        assert!(lines(too_wide, "a.md", &wide).is_empty());
    }

    #[test]
    fn on_white_space() {
        assert!(lines(stray_white_space, "a.md", "fine\n\nfine\n").is_empty());
        let found = lines(stray_white_space, "a.rs", "end \n\tx\nreturn\r\nlast");
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(lines(stray_white_space, "Makefile", "\tx\n").is_empty());
    }

    #[test]
    fn on_private_paths() {
        let at = |folder: &str| format!("see `/{folder}/me/x`\n");
        for folder in PRIVATE_FOLDERS {
            assert_eq!(lines(private_paths, "a.md", &at(folder)).len(), 1, "{folder}");
        }
        for fine in ["/home/ann/x", "the/work/of", "$HOME/work/x", "/homes/", "${X}/root/"] {
            assert!(lines(private_paths, "a.md", fine).is_empty(), "{fine}");
        }
    }
}
