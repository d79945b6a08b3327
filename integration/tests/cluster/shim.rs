//! A shim that dies: it takes its ranks along, and the job is tried again at nobody's cost.

use crate::world::Cluster;
use crate::world::gate::Gate;

#[test]
fn a_killed_shim_is_a_failure_of_the_machine() {
    let cluster = Cluster::start_patient(2);
    let gate = Gate::new(&cluster, "gang");
    // A try of the user's own would end the job.
    let flags = ["--nodes", "2", "--set", "retry.user=0"];
    let job = gate.submit(&cluster, &flags);
    let ranks = [0, 1].map(|rank| gate.only_process(rank));
    ranks[1].shim().kill();
    for rank in ranks {
        rank.await_end();
    }
    for rank in [0, 1] {
        assert_eq!(gate.starts(rank, 2).len(), 2, "rank {rank} was started once more");
    }
    gate.open(0);
    assert_eq!(cluster.wait(job), 0);
    assert_eq!(cluster.job(job)["attempt"], 2);
    let attempts = cluster.json(&["show", &job.to_string(), "--attempts"]);
    let first = &attempts["items"][1];
    assert_eq!(first["attempt"], 1, "newest first: {attempts}");
    assert_eq!(first["cause"]["fault"], "Infra", "{attempts}");
}
