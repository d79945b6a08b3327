//! Arrays, parts of them, and jobs that wait for others.

use crate::world::gate::Gate;
use crate::world::{Cluster, await_true};
use serde_json::Value;

/// State and exit code of each task.
fn results(cluster: &Cluster, job: u64) -> Vec<(String, Option<i64>)> {
    let list = cluster.json(&["results", &job.to_string()]);
    let rows = list["items"].as_array().expect("a list").iter().enumerate();
    let row = |(at, row): (usize, &Value)| {
        assert_eq!(row["task"], at, "a row for each task, in order: {list}");
        let state = row["state"].as_str().expect("a state").to_string();
        (state, row["cause"]["number"].as_i64().filter(|_| row["cause"]["kind"] == "Exited"))
    };
    rows.map(row).collect()
}

fn succeeded() -> (String, Option<i64>) {
    ("Succeeded".into(), Some(0))
}

#[test]
fn every_task_has_its_row_and_its_code() {
    let cluster = Cluster::start(2);
    let marks = cluster.home.path("marks");
    std::fs::create_dir(&marks).expect("a folder can be made");
    let script = format!(
        "echo $$ >> {}/$YARD_TASK_INDEX; \
         [ $((YARD_TASK_INDEX % 5)) != 2 ] || exit $YARD_TASK_INDEX",
        marks.display()
    );
    let job = cluster.submit(&["--array", "0-19%4", "--", "bash", "-c", &script]);
    assert_eq!(cluster.wait(job), 2, "the first failure gives the code");
    let expected = (0..20).map(|task| match task % 5 {
        2 => ("Failed".to_string(), Some(task)),
        _ => succeeded(),
    });
    assert_eq!(results(&cluster, job), expected.collect::<Vec<_>>());
    for task in 0..20 {
        let text = std::fs::read_to_string(marks.join(task.to_string())).unwrap_or_default();
        assert_eq!(text.lines().count(), 1, "task {task} ran once");
    }
    let found = cluster.job(job);
    assert_eq!(found["state"], "Failed");
    assert_eq!(found["counts"]["succeeded"], 16, "{found}");
    assert_eq!(found["counts"]["failed"], 4, "{found}");

    // As files of job arrays in other forms: the same rows.
    let csv = cluster.yard(&["results", &job.to_string(), "-o", "csv"]).ok();
    let lines: Vec<&str> = csv.out.lines().collect();
    assert_eq!(lines.len(), 21, "{csv}");
    assert!(lines[8].starts_with("7,Failed,Exited(7),1,"), "{csv}");
    assert!(lines[8].ends_with(&format!(",yard logs {job}[7]")), "{csv}");
}

#[test]
fn no_more_tasks_run_at_once_than_may() {
    let cluster = Cluster::start(2);
    let gate = Gate::new(&cluster, "four");
    let job = gate.submit(&cluster, &["--array", "0-9%3"]);
    let running = |cluster: &Cluster| cluster.job(job)["counts"]["running"].clone();
    await_true("3 tasks run", || running(&cluster) == 3);
    // A job that is placed after them shows that the scheduler has looked since.
    cluster.yard(&["run", "--cpus", "0.1", "--", "true"]).ok();
    assert_eq!(running(&cluster), 3);
    assert_eq!(gate.starts(0, 3).len(), 3);
    gate.open(0);
    assert_eq!(cluster.wait(job), 0);
    assert_eq!(results(&cluster, job), vec![succeeded(); 10]);
}

#[test]
fn a_part_of_an_array_can_be_cancelled() {
    let cluster = Cluster::start(1);
    let gate = Gate::new(&cluster, "part");
    let job = gate.submit(&cluster, &["--array", "0-9%5"]);
    // Some of those that are cancelled run, others wait.
    assert_eq!(gate.starts(0, 5).len(), 5);
    let ran = cluster.yard(&["cancel", &format!("{job}[3-7]")]).ok();
    ran.says(&["5 tasks"]);
    gate.open(0);
    assert_eq!(cluster.wait(job), 125, "a part has no exit status");
    let expected = (0..10).map(|task| match task {
        3..=7 => ("Cancelled".to_string(), None),
        _ => succeeded(),
    });
    assert_eq!(results(&cluster, job), expected.collect::<Vec<_>>());
}

#[test]
fn a_sweep_shows_its_parameters() {
    let cluster = Cluster::start(1);
    let script = "[ $YARD_PARAM_LR$YARD_PARAM_SEED != 0.12 ]";
    let sweep = "sweep={lr: [0.1, 0.2], seed: 1..3}";
    let job = cluster.submit(&["--set", sweep, "--", "bash", "-c", script]);
    assert_eq!(cluster.wait(job), 1);
    let csv = cluster.yard(&["results", &job.to_string(), "-o", "csv"]).ok();
    // How long each took, and where its output is, come after that.
    let shown = |line: &str| line.split(',').take(6).collect::<Vec<_>>().join(",");
    let lines: Vec<String> = csv.out.lines().map(shown).collect();
    assert_eq!(
        lines,
        [
            "task,lr,seed,state,exit,try",
            "0,0.1,1,Succeeded,Exited(0),1",
            "1,0.1,2,Failed,Exited(1),1",
            "2,0.1,3,Succeeded,Exited(0),1",
            "3,0.2,1,Succeeded,Exited(0),1",
            "4,0.2,2,Succeeded,Exited(0),1",
            "5,0.2,3,Succeeded,Exited(0),1",
        ],
        "{csv}"
    );
}

#[test]
fn jobs_wait_for_others() {
    let cluster = Cluster::start(1);
    cluster.submit(&["--", "true"]);
    let gate = Gate::new(&cluster, "first");
    let first = gate.submit(&cluster, &[]);
    let after = |kind: &str, job: u64| {
        cluster.submit(&["--set", &format!("after.{kind}=[{job}]"), "--", "true"])
    };
    let ok = after("ok", first);
    let any = after("any", first);
    let failed = after("failed", first);
    let behind = after("ok", ok);
    let why = cluster.json(&["why", &ok.to_string()]);
    assert_eq!(why["reason"], "Dependency", "{why}");
    gate.open(6);
    assert_eq!(cluster.wait(first), 6);
    assert_eq!(cluster.wait(any), 0);
    assert_eq!(cluster.wait(failed), 0);
    for (job, state) in [(ok, "Failed"), (behind, "Failed")] {
        assert_eq!(cluster.wait(job), 125);
        let found = cluster.job(job);
        assert_eq!(found["state"], state, "{found}");
        assert_eq!(found["cause"]["kind"], "DependencyFailed", "{found}");
    }

    let gate = Gate::new(&cluster, "second");
    let second = gate.submit(&cluster, &[]);
    let ok = after("ok", second);
    gate.open(0);
    assert_eq!(cluster.wait(ok), 0);
    // `wait` for several: the first that did not succeed, in the order of the list.
    let several = ["wait", &ok.to_string(), &first.to_string(), &behind.to_string()];
    cluster.yard(&several).exits(6);
}
