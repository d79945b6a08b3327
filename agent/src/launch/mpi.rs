//! Open MPI: `mpirun` on the first node, which reaches the others through their shims.
//!
//! `mpirun` starts its daemon on each further node with a command that stands in for `ssh`: a
//! script of ours that asks the shim of this node, which asks the shim of that node. So every
//! process of the gang lives in its own assignment, and no key and no `sshd` is needed. Known to
//! work with Open MPI 4.1: the script is called as `SCRIPT HOST WORD...`; the words are for a
//! shell; the daemon leaves the script at once.

use super::assignment::Assignment;
use super::environment::Variables;
use std::net::IpAddr;
use std::path::Path;
use yard_common::spec::JobSpec;
use yard_common::spec::run::Bind;

/// Runs in front of each rank: its numbers, its own output files, then the command as it is.
const RANK: &str = "f=\"$YARD_LOG_DIR/$OMPI_COMM_WORLD_RANK\"; \
    if [ -w \"$f.out\" ]; then exec >>\"$f.out\" 2>>\"$f.err\"; fi; \
    export YARD_RANK=\"$OMPI_COMM_WORLD_RANK\" YARD_LOCAL_RANK=\"$OMPI_COMM_WORLD_LOCAL_RANK\"; \
    exec \"$0\" \"$@\"";

/// Name of the script in the directory of the shim.
pub(super) const SCRIPT: &str = "rsh";

/// The script that stands in for `ssh`.
pub(super) fn script(program: &str) -> String {
    let quoted = program.replace('\'', "'\\''");
    format!("#!/bin/sh\nexec '{quoted}' shim-dial \"$@\"\n")
}

/// `mpirun` and its words in front of the command.
pub(super) fn launcher(
    spec: &JobSpec,
    assignment: &Assignment,
    hostfile: &Path,
    command: Vec<String>,
) -> Vec<String> {
    let bind = match spec.launch_options.bind {
        // Its own default would bind the ranks of every small job to the same first cores.
        None | Some(Bind::None) => "none",
        Some(Bind::Core) => "core",
        Some(Bind::Socket) => "socket",
        Some(Bind::Numa) => "numa",
    };
    let hostfile = hostfile.display().to_string();
    let count = assignment.world_size().to_string();
    let own = ["mpirun", "--hostfile", &hostfile, "-np", &count, "--map-by", "slot"];
    let rank = ["--bind-to", bind, "--oversubscribe", "/bin/sh", "-c", RANK];
    let words = own.into_iter().chain(rank).map(str::to_string);
    words.chain(command).collect()
}

/// What Open MPI reads of its settings.
pub(super) fn settings(
    spec: &JobSpec,
    assignment: &Assignment,
    script: &Path,
    uid: u32,
    all: &mut Variables,
) {
    let mut set = |name: &str, value: &str| all.insert(name.to_string(), value.to_string());
    if uid == 0 {
        set("OMPI_ALLOW_RUN_AS_ROOT", "1");
        set("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    }
    set("OMPI_MCA_plm_rsh_agent", &script.display().to_string());
    set("OMPI_MCA_plm_rsh_no_tree_spawn", "1");
    let ranks = assignment.node().map_or(1, |node| node.ranks);
    let shared = assignment.nodes.iter().all(|node| is_loopback(&node.address));
    if shared || u64::from(ranks) * 1_000 > assignment.amounts.cpu_milli {
        set("OMPI_MCA_mpi_yield_when_idle", "1");
    }
    if shared && assignment.nodes.len() > 1 {
        // Nodes on one machine: Open MPI names its files of shared memory after the host, so that
        // ranks of two nodes would open each other's, and crash or hang.
        set("OMPI_MCA_btl", "self,tcp");
    }
    let interface = match &spec.launch_options.interface {
        Some(interface) => Some(interface.as_str()),
        None if shared => Some("lo"),
        None => None,
    };
    if let Some(interface) = interface {
        set("OMPI_MCA_btl_tcp_if_include", interface);
        set("OMPI_MCA_oob_tcp_if_include", interface);
    }
}

fn is_loopback(address: &str) -> bool {
    address == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_quote_stays_one_word() {
        assert_eq!(script("/a b/y'd"), "#!/bin/sh\nexec '/a b/y'\\''d' shim-dial \"$@\"\n");
    }
}
