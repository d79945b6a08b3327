//! What running jobs use, as `yard top` shows it.

use crate::world::{Cluster, await_some};

#[test]
fn what_jobs_use_is_seen_while_they_run() {
    let cluster = Cluster::start_patient(2);
    assert_eq!(cluster.json(&["top"])["items"], serde_json::json!([]));
    let busy = cluster.submit(&["--name", "busy", "--", "bash", "-c", "while :; do :; done"]);
    let flags = ["--name", "gang", "--nodes", "2", "--", "sleep", "1000"];
    let gang = cluster.submit(&flags);
    let of = |job: u64| {
        let told = cluster.json(&["top"]);
        let items = told["items"].as_array().cloned().unwrap_or_default();
        items.into_iter().find(|item| item["job"] == job)
    };
    let used = await_some("two samples of the busy one", || {
        of(busy).filter(|item| item["cpu_milli"].as_u64().is_some_and(|milli| milli > 100))
    });
    assert_eq!((&used["name"], &used["silent_ms"]), (&"busy".into(), &0.into()), "{used}");
    assert_eq!(used["granted_cpu_milli"], 100, "{used}");
    assert!(used["processes"].as_u64() >= Some(1), "{used}");
    let idle = await_some("the gang is silent on both machines", || {
        of(gang).filter(|item| item["silent_ms"].as_u64().is_some_and(|ms| ms > 1_000))
    });
    assert_eq!(idle["nodes"], serde_json::json!(["n1", "n2"]), "{idle}");
    assert!(idle["cpu_milli"].as_u64().is_some_and(|milli| milli < 10), "{idle}");
    let rows = cluster.yard(&["top", &gang.to_string(), "--nodes", "-o", "csv"]).ok().out;
    assert_eq!(rows.lines().count(), 3, "{rows}");
    cluster.yard(&["top", "999"]).exits(66);
    // One whose machine does not answer is no reason to say nothing.
    cluster.part("n2").freeze();
    let ran = cluster.yard(&["top"]).run();
    cluster.part("n2").thaw();
    assert_eq!(ran.code, 0, "{ran}");
    ran.says(&["note: no answer from n2"]);
    assert!(ran.out.contains("busy"), "{ran}");
    for job in [busy, gang] {
        cluster.yard(&["cancel", &job.to_string()]).ok();
        assert_eq!(cluster.wait(job), 125);
    }
    assert_eq!(of(busy), None);
}
