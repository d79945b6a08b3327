//! Files of parameters: what becomes of them, and what is wrong with them.

use yard_common::ErrorCode;
use yard_common::limits::{EACH_ROWS_MAX, SPEC_BYTES_MAX};
use yard_common::spec::{Draft, Features, JobSpec, Problem};

fn draft(array: Option<&str>, file: &str, bytes: &[u8]) -> Draft {
    let mut draft = Draft::empty();
    draft.set("command", "a", "--command");
    if let Some(array) = array {
        draft.set("array", array, "--array");
    }
    draft.set_rows(bytes, file);
    draft
}

fn rows(file: &str, text: &str) -> JobSpec {
    let spec = draft(None, file, text.as_bytes()).validate(&Features::all());
    spec.unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

fn problems(file: &str, bytes: &[u8]) -> Vec<Problem> {
    draft(None, file, bytes).validate(&Features::all()).unwrap_err().list().to_vec()
}

fn told(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(|one| format!("{} {}", one.at, one.field)).collect()
}

#[test]
fn rows_keep_their_values_as_they_are_written() {
    let lines =
        "{\"lr\": 1e-4, \"ok\": true, \"s\": \"a b\"}\r\n\n{\"s\":\"\",\"ok\":false,\"lr\":2}\n";
    let csv = "lr,ok,s\r\n1e-4,true,a b\r\n\r\n2,false,\r\n";
    for (file, text) in [("p.jsonl", lines), ("-", lines), ("p.csv", csv), ("-", csv)] {
        let spec = rows(file, text);
        assert_eq!(spec.task_count(), Some(2), "{file}");
        let first = [("lr", "1e-4"), ("ok", "true"), ("s", "a b")];
        assert_eq!(spec.parameters(0), first.map(|(name, value)| (name, value.to_string())));
        assert!(spec.parameters(1).contains(&("lr", "2".to_string())));
        assert!(spec.parameters(1).contains(&("s", String::new())));
        assert_eq!(spec.parameters(2), []);
        assert_eq!(JobSpec::from_json(&spec.to_json()).unwrap(), spec);
    }
}

#[test]
fn csv_is_read_with_its_quotes() {
    let spec = rows("p.csv", "\"a\",b\n\"x, \"\"y\"\"\",\"two\nlines\"\n\"\",last");
    let expected = [("a", "x, \"y\"".to_string()), ("b", "two\nlines".to_string())];
    assert_eq!(spec.parameters(0), expected);
    assert_eq!(spec.parameters(1), [("a", String::new()), ("b", "last".to_string())]);
    for (text, at) in [
        ("a,b\n1,2\n1,\"x\n", "p.csv:3 "),
        ("a,b\n1,x\"y\n", "p.csv:2 "),
        ("a,b\n\"1\"2,3\n", "p.csv:2 "),
        ("a,b\n1,\"x\ny\"\n1,2,3\n", "p.csv:4 "),
        ("a,a\n1,2\n", "p.csv:1:3 "),
        ("a,b\n", "p.csv "),
        ("", "p.csv "),
    ] {
        assert_eq!(told(&problems("p.csv", text.as_bytes())), [at], "{text:?}");
    }
}

#[test]
fn every_problem_of_a_file_has_its_line() {
    let text =
        "{\"lr\": 1}\n{\"lr\": [1]}\n{\"l r\": 1}\n\n{\"lr\" 1}\n[1]\n{\"lr\": 1, \"lr\": 2}\n";
    let mut draft = draft(None, "p.jsonl", text.as_bytes());
    draft.set("nodes", "x", "--nodes");
    let found = draft.validate(&Features::all()).unwrap_err();
    let expected = [
        "--nodes nodes",
        "p.jsonl:2:8 array.each[1].lr",
        "p.jsonl:3:2 array.each[2].l r",
        "p.jsonl:5:7 ",
        "p.jsonl:6:1 array.each[3]",
        "p.jsonl:7:11 lr",
    ];
    assert_eq!(told(found.list()), expected);
    assert!(found.list().iter().all(|problem| !problem.fix.is_empty()), "{found}");
    let found = problems("p.jsonl", b"{\"a\": 1}\n\xff\n");
    assert_eq!(told(&found), ["p.jsonl:2:1 "]);
}

#[test]
fn an_array_picks_rows_and_a_throttle_stays() {
    let csv = b"lr\n1\n2\n3\n";
    let spec = |array| draft(Some(array), "p.csv", csv).validate(&Features::all());
    let picked = spec("1-2%1").unwrap();
    assert_eq!(picked.task_count(), Some(2));
    assert_eq!(picked.array.as_ref().unwrap().max_running.unwrap().get(), 1);
    let all = spec("%2").unwrap();
    assert_eq!((all.task_count(), all.parameters(2)[0].1.as_str()), (Some(3), "3"));
    let found = spec("2-3").unwrap_err();
    assert_eq!(found.list()[0].field, "array.indices");
    assert_eq!(found.list()[0].code, ErrorCode::OutOfRange);
}

#[test]
fn rows_end_at_what_a_spec_holds_and_the_fix_says_what_to_do() {
    let many: String = std::iter::once("a\n".to_string())
        .chain((0..=EACH_ROWS_MAX).map(|row| format!("{row}\n")))
        .collect();
    let long = format!("a\n{}\n", "x".repeat(SPEC_BYTES_MAX - 40));
    let few: String =
        many.lines().take(EACH_ROWS_MAX + 1).map(|line| format!("{line}\n")).collect();
    for text in [many, long, few] {
        let found = problems("p.csv", text.as_bytes());
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].field, "array.each");
        assert!(found[0].fix.contains("YARD_TASK_INDEX"), "{}", found[0].fix);
    }
    // The shortest rows that there are come to the bound of rows and still read back.
    let short = format!("a{}", "\n\"\"".repeat(EACH_ROWS_MAX));
    let spec = rows("p.csv", &short);
    assert_eq!(JobSpec::from_json(&spec.to_json()).unwrap().task_count(), Some(20_000));
}
