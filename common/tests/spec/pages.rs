//! The pages of the error catalogue: their examples are what they say.

use std::path::Path;
use yard_common::ErrorCode;
use yard_common::spec::{Draft, Feature, Features};

/// What stands in the YAML blocks of a page.
fn examples(page: &str) -> Vec<String> {
    let blocks = page.split("```yaml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_string()).collect()
}

/// The codes of the problems of an example, which may leave the command out.
fn codes(example: &str, features: &Features) -> Vec<ErrorCode> {
    let runs = example.contains("command") || example.contains("roles:");
    let text = if runs { example.to_string() } else { format!("command: a\n{example}") };
    match Draft::read(text.as_bytes(), None).validate(features) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.list().iter().map(|problem| problem.code).collect(),
    }
}

#[test]
fn each_page_shows_its_mistake_and_its_remedy() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors");
    for code in ErrorCode::ALL.iter().copied().filter(|code| code.number() < 2000) {
        let page = std::fs::read_to_string(pages.join(format!("{code}.md"))).unwrap();
        assert!(page.starts_with(&format!("# {code}: {}\n", code.title())), "{code}");
        let [bad, good] = examples(&page).try_into().unwrap();
        let features = match code {
            ErrorCode::NotInThisVersion => Features::all().without(Feature::Spares),
            _ => Features::all(),
        };
        if code != ErrorCode::FileTooLarge {
            assert!(codes(&bad, &features).contains(&code), "{code}: {bad}");
        }
        assert_eq!(codes(&good, &features), [], "{code}: {good}");
    }
}
