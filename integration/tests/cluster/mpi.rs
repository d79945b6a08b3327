//! MPI over the nodes of one machine, with a real `mpirun`.

use crate::world::Cluster;
use std::fs;
use std::process::Command;

#[test]
fn one_mpirun_starts_all_ranks_on_all_nodes() {
    let version = Command::new("mpirun").arg("--version").output();
    assert!(
        version.is_ok_and(|version| version.status.success()),
        "mpirun is missing, and this test runs it: apt-get install openmpi-bin"
    );
    let cluster = Cluster::start(2);
    let text = "nodes: 2\nranks_per_node: 2\nresources: {cpus: 0.5, memory: 256MiB}\nlaunch: mpi\n\
                command: echo mpi $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE is $YARD_RANK on \
                $YARD_NODE_NAME\n";
    fs::write(cluster.home.work().join("mpi.yaml"), text).expect("a file can be written");
    let ran = cluster.yard(&["run", "mpi.yaml"]).ok();
    let mut lines: Vec<&str> = ran.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "[r0] mpi 0 of 4 is 0 on n1",
            "[r1] mpi 1 of 4 is 1 on n1",
            "[r2] mpi 2 of 4 is 2 on n2",
            "[r3] mpi 3 of 4 is 3 on n2",
        ],
        "{ran}"
    );

    // A rank on the other node that fails.
    let failing =
        text.replace("echo", "test $OMPI_COMM_WORLD_RANK = 3 && exit 11; sleep 100; echo");
    fs::write(cluster.home.work().join("bad.yaml"), failing).expect("a file can be written");
    let ran = cluster.yard(&["run", "bad.yaml"]).exits(11);
    ran.says(&["Failed (Exited(11))"]);
}
