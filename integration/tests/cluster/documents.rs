//! Job files in the documentation: they must be right.

use crate::world::Home;
use std::fs;
use std::path::{Path, PathBuf};

/// How a block begins that is a job file.
const MARK: &str = "# job";
/// As many as there were when this was written; a search that finds none proves nothing.
const LEAST: usize = 12;

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate lies in the repository")
}

/// Pages for users.
fn pages() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("docs")).expect("there is documentation");
    let mut pages: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    pages.retain(|path| path.extension().is_some_and(|end| end == "md"));
    pages.push(root().join("README.md"));
    pages.sort();
    pages
}

/// Blocks of YAML, each with the number of its first line.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (at, line) in text.lines().enumerate() {
        match (&mut open, line.trim()) {
            (None, "```yaml") => open = Some((at + 2, String::new())),
            (Some(_), "```") => found.extend(open.take()),
            (Some((_, block)), _) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    found
}

#[test]
fn the_jobs_of_the_example_are_right() {
    let home = Home::new();
    for name in ["job.yaml", "job-torch.yaml"] {
        let path = root().join("examples/digits").join(name).display().to_string();
        home.yard(&["submit", "--dry-run", &path]).ok();
    }
}

#[test]
fn every_job_file_in_the_documentation_is_right() {
    let home = Home::new();
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page can be read");
        for (line, block) in blocks(&text).into_iter().filter(|(_, block)| block.starts_with(MARK))
        {
            count += 1;
            fs::write(home.work().join("job.yaml"), &block).expect("a file can be written");
            let ran = home.yard(&["submit", "--dry-run", "job.yaml"]).run();
            if ran.code != 0 {
                wrong.push(format!("{}:{line}: {ran}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= LEAST, "only {count} job files were found");
}

#[test]
fn a_wrong_block_would_be_found() {
    let text = "a\n```yaml\n# job: x\nndoes: 1\n```\n```\n# job\n```\n```yaml\nb: 1\n```\n";
    let found = blocks(text);
    assert_eq!(found, [(3, "# job: x\nndoes: 1\n".to_string()), (10, "b: 1\n".to_string())]);
    let home = Home::new();
    fs::write(home.work().join("job.yaml"), &found[0].1).expect("a file can be written");
    home.yard(&["submit", "--dry-run", "job.yaml"]).exits(64);
}
