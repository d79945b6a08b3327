//! Jobs from files, scripts, commands and flags, without any file.

use super::*;

fn source(file: Option<&str>, words: &[&str]) -> JobSource {
    JobSource {
        file: file.map(PathBuf::from),
        words: words.iter().map(|word| (*word).to_string()).collect(),
        ..JobSource::default()
    }
}

fn no_rows(path: &Path) -> Result<Vec<u8>, Failure> {
    panic!("{} is asked for", path.display())
}

fn checked(source: &JobSource, content: Option<&[u8]>) -> Result<Prepared, Failure> {
    checked_with(source, content, no_rows)
}

fn checked_with(
    source: &JobSource,
    content: Option<&[u8]>,
    rows: impl Fn(&Path) -> Result<Vec<u8>, Failure>,
) -> Result<Prepared, Failure> {
    assemble(source, content, rows)?.check(&Features::all())
}

fn job(source: &JobSource, content: &str) -> Prepared {
    checked(source, Some(content.as_bytes())).unwrap()
}

fn json(prepared: &Prepared) -> String {
    prepared.spec.to_json()
}

#[test]
fn a_command_is_a_job() {
    let mut source = source(None, &["python3", "train.py", "--lr", "1e-4", "[x]"]);
    source.fields.nodes = Some("2".into());
    source.fields.gpus = Some("h100:8".into());
    source.fields.env = vec!["A=b=c".into()];
    source.set = vec!["resources.memory=64GiB".into(), "labels.team=x".into()];
    let prepared = checked(&source, None).unwrap();
    let text = json(&prepared);
    for part in [
        r#""name":"train""#,
        r#""labels":{"team":"x"}"#,
        r#""nodes":2"#,
        r#""command":["python3","train.py","--lr","1e-4","[x]"]"#,
        r#""env":{"A":"b=c"}"#,
        r#""memory":"64GiB""#,
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(prepared.resolved.contains("nodes: 2") && prepared.resolved.contains("# --nodes"));
}

#[test]
fn flags_go_over_the_file_and_words_behind_its_command() {
    let mut source = source(Some("job.yaml"), &["--lr", "3"]);
    source.array = Some("0-9%2".into());
    source.fields.priority = Some("high".into());
    let prepared = job(&source, "command: python3 a.py\npriority: low\nargs: [x]\n");
    let text = json(&prepared);
    assert!(text.contains(r#""priority":500"#) || text.contains(r#""priority":"high""#), "{text}");
    assert!(text.contains(r#""args":["--lr","3"]"#), "{text}");
    assert_eq!(prepared.spec.task_count(), Some(10));
    assert_eq!(prepared.file_name, "job.yaml");
}

#[test]
fn every_problem_comes_with_its_line_and_nothing_is_sent() {
    let mut source = source(Some("job.yaml"), &[]);
    source.fields.memory = Some("64".into());
    let text = "command: x\nndoes: 2\npriority: 2000\n";
    let failure = checked(&source, Some(text.as_bytes())).unwrap_err();
    assert_eq!(failure.exit, 64);
    assert!(failure.message.starts_with("3 problems in the job\n"), "{}", failure.message);
    for part in ["job.yaml:2:1  ndoes", "  2 | ndoes: 2", "  3 | priority: 2000", "--memory  "] {
        assert!(failure.message.contains(part), "{part}: {}", failure.message);
    }
}

#[test]
fn what_a_cluster_cannot_do_stands_among_the_other_problems() {
    let text = "ndoes: 4\nimage: debian:13\ncommand: x\n";
    let read = assemble(&source(Some("job.yaml"), &[]), Some(text.as_bytes()), no_rows).unwrap();
    let here = read.check(&Features::all()).unwrap_err();
    assert!(here.message.starts_with("1 problem in the job\n"), "{}", here.message);
    let there = read.check(&Features::NONE).unwrap_err();
    for part in ["2 problems", "job.yaml:1:1  ndoes", "job.yaml:2:8  image", "[Y1014]"] {
        assert!(there.message.contains(part), "{part}: {}", there.message);
    }
}

#[test]
fn a_script_is_stored_whole_and_run_by_its_first_line() {
    let script = "#!/usr/bin/env python3\n#YARD time_limit=2h\n#SBATCH --mem=3\nprint('\"hi\"')\n";
    let prepared = job(&source(Some("train.py"), &[]), script);
    let text = json(&prepared);
    assert!(text.contains(r#""shell":["/usr/bin/env","python3","-c"]"#), "{text}");
    assert!(text.contains(r##""command":"#!/usr/bin/env python3\n#YARD"##), "{text}");
    assert!(text.contains(r#""time_limit":"2h""#) && text.contains(r#""name":"train""#), "{text}");
    assert!(!text.contains("launch"), "one machine needs no launcher: {text}");
    assert_eq!(prepared.warnings.len(), 1);
    assert!(prepared.warnings[0].contains("1 #SBATCH line is ignored"));
    let gang = job(&source(Some("a.sh"), &[]), "#!/bin/bash\n#YARD nodes=4\nsrun x\n");
    assert!(json(&gang).contains(r#""launch":"custom""#));
    let mpi = job(&source(Some("a.sh"), &[]), "#!/bin/bash\n#YARD nodes=4\n#YARD launch=mpi\nx\n");
    assert!(json(&mpi).contains(r#""launch":"mpi""#));
    // Whoever asks for the default gets it.
    let script = "#!/bin/bash\n#YARD nodes=4\n#YARD launch=plain\nx\n";
    let plain = job(&source(Some("a.sh"), &[]), script);
    assert!(!json(&plain).contains(r#""launch":"#), "{}", json(&plain));
    let mut flagged = source(Some("a.sh"), &[]);
    flagged.fields.launch = Some("plain".into());
    let plain = job(&flagged, "#!/bin/bash\n#YARD nodes=4\nx\n");
    assert!(!json(&plain).contains(r#""launch":"#), "{}", json(&plain));
}

#[test]
fn a_script_without_a_first_line_runs_under_bash_unless_its_name_says_otherwise() {
    for name in ["a.sh", "a.slurm", "a", "-"] {
        let prepared = job(&source(Some(name), &[]), "#YARD nodes=1\necho\n");
        assert!(json(&prepared).contains("#YARD nodes=1"), "{name}: {}", json(&prepared));
    }
    for (name, first) in [
        ("train.py", "#!/usr/bin/env python3"),
        ("dir.d/a.R", "#!/usr/bin/env Rscript"),
        ("a.pl", "#!/usr/bin/env perl"),
    ] {
        let failure = checked(&source(Some(name), &[]), Some(b"#YARD nodes=1\n")).unwrap_err();
        assert_eq!(failure.exit, 64, "{name}");
        assert!(failure.hint.starts_with(&format!("begin it with {first}, or")), "{name}");
        assert!(failure.message.contains(name), "{}", failure.message);
    }
}

#[test]
fn a_script_for_an_unknown_program_is_refused() {
    let source = source(Some("a.awk"), &[]);
    let failure = checked(&source, Some(b"#!/usr/bin/awk -f\n{}\n")).unwrap_err();
    assert!(failure.message.contains("awk") && failure.hint.contains("yard submit -- awk"));
}

#[test]
fn yaml_that_begins_with_a_comment_is_no_script() {
    let prepared = job(&source(Some("job.yaml"), &[]), "#!yaml\ncommand: x\n");
    assert!(json(&prepared).contains(r#""command":"x""#));
    let prepared = job(&source(Some("-"), &[]), "# a job\ncommand: train\n");
    assert_eq!(prepared.spec.name(), "train");
}

#[test]
fn an_assignment_needs_its_sign() {
    let mut source = source(None, &["x"]);
    source.set = vec!["nodes".into()];
    let failure = checked(&source, None).unwrap_err();
    assert_eq!((failure.exit, failure.hint.as_str()), (64, "write --set NAME=VALUE"));
}

#[test]
fn each_file_makes_a_task_for_each_row() {
    let mut flagged = source(None, &["train", "--lr", "${YARD_PARAM_LR}"]);
    flagged.each = Some("p.csv".into());
    flagged.array = Some("%2".into());
    let read = |path: &Path| {
        assert_eq!(path, Path::new("p.csv"));
        Ok(b"lr,name\n1e-4,\"a, b\"\n3e-4,\n".to_vec())
    };
    let prepared = checked_with(&flagged, None, read).unwrap();
    assert_eq!(prepared.spec.task_count(), Some(2));
    assert_eq!(prepared.spec.parameters(0), [("lr", "1e-4".into()), ("name", "a, b".into())]);
    let rows = r#""array":{"max_running":2,"each":[{"lr":"1e-4","name":"a, b"},{"lr":"3e-4""#;
    assert!(json(&prepared).contains(rows), "{}", json(&prepared));
    // What the job names is relative to it.
    let named = source(Some("dir/job.yaml"), &[]);
    let read = |path: &Path| {
        assert_eq!(path, Path::new("dir/p.jsonl"));
        Ok(b"{\"lr\": 1}\n\n{\"lr\": 2}\n".to_vec())
    };
    let content = b"command: x\narray: { each: p.jsonl, indices: 1 }\n";
    let prepared = checked_with(&named, Some(content), read).unwrap();
    assert_eq!(prepared.spec.task_count(), Some(1));
    assert_eq!(prepared.spec.parameters(1), [("lr", "2".into())]);
}

#[test]
fn the_flag_of_an_array_leaves_the_rest_of_the_array_and_set_goes_over_it() {
    let mut flagged = source(Some("job.yaml"), &[]);
    flagged.array = Some("0-11%1".into());
    flagged.set = vec!["array.max_failures=2".into()];
    let prepared = job(&flagged, "command: x\n");
    let array = r#""array":{"indices":"0-11","max_running":1,"max_failures":2}"#;
    assert!(json(&prepared).contains(array), "{}", json(&prepared));
    flagged.set.clear();
    let prepared = job(&flagged, "command: x\narray: { indices: 5, max_failures: 2 }\n");
    assert!(json(&prepared).contains(array), "{}", json(&prepared));
}

#[test]
fn problems_of_rows_come_with_file_and_line_beside_those_of_the_job() {
    let mut source = source(Some("job.yaml"), &[]);
    source.each = Some("p.jsonl".into());
    let rows = b"{\"lr\": 1}\n{\"lr\": [1]}\n{\"l r\": 1}\n{\"lr\" 1}\n{\"seed\": 1}\n";
    let failure =
        checked_with(&source, Some(b"command: x\nndoes: 2\n"), |_| Ok(rows.to_vec())).unwrap_err();
    assert_eq!(failure.exit, 64);
    for part in ["job.yaml:2:1  ndoes", "p.jsonl:2:8  array.each[1].lr", "p.jsonl:3", "p.jsonl:4"] {
        assert!(failure.message.contains(part), "{part}: {}", failure.message);
    }
    source.file = Some("-".into());
    source.each = Some("-".into());
    let failure = checked(&source, Some(b"command: x\n")).unwrap_err();
    assert!(failure.message.contains("standard input"), "{}", failure.message);
}

#[test]
fn one_word_with_spaces_is_a_line_for_the_shell() {
    for (words, command) in [
        (&["hostname; echo $YARD_RANK"][..], r#""command":"hostname; echo $YARD_RANK""#),
        (&["a\tb"], r#""command":"a\tb""#),
        (&["hostname"], r#""command":["hostname"]"#),
        (&["echo", "a b"], r#""command":["echo","a b"]"#),
        (&["/opt/my program", "x"], r#""command":["/opt/my program","x"]"#),
    ] {
        let prepared = checked(&source(None, words), None).unwrap();
        assert!(json(&prepared).contains(command), "{command}: {}", json(&prepared));
    }
    // Behind a file words are arguments of its command.
    let prepared = job(&source(Some("job.yaml"), &["a b"]), "command: x\n");
    assert!(json(&prepared).contains(r#""args":["a b"]"#), "{}", json(&prepared));
}
