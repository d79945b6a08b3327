//! What a job may use, and that its neighbours keep what is theirs.

use crate::world::{Node, Root, assignment, cgroups, eventually, id, one, wanted};
use std::net::{TcpListener, TcpStream};
use yard_agent::cgroup::{GpuNodes, Support};
use yard_agent::launch::{Assignment, GrantedGpu};
use yard_agent::logs::{Kind, Writer};
use yard_common::ExitCause;
use yard_core::agent::{DesiredAssignment, DesiredPhase};

fn has(support: &Support, controller: &str) -> bool {
    let v1 = support.v1.iter().any(|(name, _)| name == controller);
    v1 || support.controllers.iter().any(|name| name == controller)
}

/// The group of an assignment for a file of a controller, of whichever version has it.
fn read(support: &Support, controller: &str, v2: &str, v1: &str) -> String {
    let of_v1 = support.v1.iter().find(|(name, _)| name == controller);
    let path = match of_v1 {
        Some((_, at)) => at.join("1-0").join(v1),
        None => support.v2.clone().unwrap().join("1-0").join(v2),
    };
    std::fs::read_to_string(path).unwrap().trim().to_string()
}

fn run(allocation: u64) -> DesiredAssignment {
    wanted(allocation, one(), DesiredPhase::Run)
}

fn job(yaml: &str, job: u64, cpu_milli: u64) -> Assignment {
    let mut detail = assignment(yaml);
    detail.job = yard_common::id::JobId(job);
    detail.amounts.cpu_milli = cpu_milli;
    detail
}

#[tokio::test]
async fn whole_cpus_are_a_jobs_own() {
    let mut node = Node::start().await;
    let support = cgroups(node.root.path());
    let all = std::thread::available_parallelism().unwrap().get();
    if all < 2 || !has(&support, "cpuset") {
        return;
    }
    let yaml = "command: grep Cpus_allowed_list /proc/self/status; exec sleep 1000";
    let details = (1..=2).map(|number| (id(number), job(yaml, number, 1_000))).collect();
    node.desire(vec![run(1), run(2)], details).await;
    node.until(|heard| heard.started(id(1)) + heard.started(id(2)) == 2).await;
    let root = node.root.path().to_path_buf();
    let cpu = |job: u64| -> Option<u32> {
        let out = std::fs::read_to_string(root.join(format!("logs/{job}/0.1/0.out"))).ok()?;
        out.split_whitespace().nth(1)?.parse().ok()
    };
    eventually("both have said so", || cpu(1).is_some() && cpu(2).is_some());
    assert_ne!(cpu(1), cpu(2));
    node.desire(Vec::new(), Vec::new()).await;
    node.until(|heard| heard.is_reaped(id(1)) && heard.is_reaped(id(2))).await;
    // They are free again.
    let shared = job("command: grep Cpus_allowed_list /proc/self/status", 3, all as u64 * 1_000);
    node.desire(vec![run(3)], vec![(id(3), shared)]).await;
    node.until(|heard| heard.is_reaped(id(3))).await;
    let out = std::fs::read_to_string(root.join("logs/3/0.1/0.out")).unwrap();
    assert!(!out.trim().ends_with(&format!("\t{}", cpu(1).unwrap_or(0))), "{out}");
}

#[tokio::test]
async fn parts_of_a_cpu_are_so_much_time() {
    let mut node = Node::start().await;
    let support = cgroups(node.root.path());
    if !has(&support, "cpu") {
        return;
    }
    node.desire(vec![run(1)], vec![(id(1), job("command: sleep 1000", 812, 500))]).await;
    node.until(|heard| heard.started(id(1)) == 1).await;
    let time = read(&support, "cpu", "cpu.max", "cpu.cfs_quota_us");
    assert!(time.starts_with("50000"), "{time}");
    node.desire(Vec::new(), Vec::new()).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
}

#[tokio::test]
async fn memory_does_not_go_to_swap() {
    let mut node = Node::start().await;
    let support = cgroups(node.root.path());
    if !has(&support, "memory") {
        return;
    }
    let mut detail = assignment("command: sleep 1000");
    detail.amounts.memory_bytes = 64 << 20;
    node.desire(vec![run(1)], vec![(id(1), detail)]).await;
    node.until(|heard| heard.started(id(1)) == 1).await;
    let bytes = read(&support, "memory", "memory.max", "memory.limit_in_bytes");
    assert_eq!(bytes, (64 << 20).to_string());
    let v1 = support.v1.iter().find(|(name, _)| name == "memory");
    let counted = v1.is_none_or(|(_, at)| at.join("memory.memsw.limit_in_bytes").exists());
    if counted {
        let swap = read(&support, "memory", "memory.swap.max", "memory.memsw.limit_in_bytes");
        let expected = if v1.is_some() { bytes } else { "0".into() };
        assert_eq!(swap, expected);
    }
    node.desire(Vec::new(), Vec::new()).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
}

#[tokio::test]
async fn a_fork_bomb_ends_with_its_job() {
    let mut node = Node::start().await;
    let support = cgroups(node.root.path());
    if !has(&support, "pids") {
        return;
    }
    let yaml = "command: 'b() { b | b & }; echo on; b 2>/dev/null; while :; do sleep 1; done'\n\
                limits: { pids: 64 }";
    node.desire(vec![run(1)], vec![(id(1), assignment(yaml))]).await;
    node.until(|heard| heard.started(id(1)) == 1).await;
    let many = || read(&support, "pids", "pids.current", "pids.current").parse::<u32>().unwrap();
    eventually("it forks", || many() > 40);
    assert!(many() <= 65);
    // Somebody else starts as ever.
    node.desire(vec![run(1), run(2)], vec![(id(2), job("command: 'true'", 2, 0))]).await;
    node.until(|heard| heard.is_reaped(id(2))).await;
    assert_eq!(node.heard.causes(id(2)), [ExitCause::Exited(0)]);
    let stop = DesiredPhase::Stop { cause: ExitCause::Cancelled, grace_ms: 100 };
    node.desire(vec![wanted(1, one(), stop)], Vec::new()).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    assert_eq!(support.find("1-0").members(), Vec::<i32>::new());
}

/// Two devices that every machine has stand for two GPUs.
#[tokio::test]
async fn a_job_opens_its_own_gpus_and_no_others() {
    let drivers = tempfile::tempdir().unwrap();
    for (uuid, minor) in [("GPU-zero", 5), ("GPU-full", 7)] {
        std::fs::create_dir(drivers.path().join(uuid)).unwrap();
        let text = format!("GPU UUID: \t {uuid}\nDevice Minor: \t {minor}\n");
        std::fs::write(drivers.path().join(uuid).join("information"), text).unwrap();
    }
    let directory = drivers.path().to_string_lossy().into_owned();
    // Of the memory devices: null, random and urandom are for everybody.
    let nodes = GpuNodes { directory, major: 1, common: vec![3, 8, 9] };
    let mut node = Node::with(Root::new(), "n1", |options| options.gpu_nodes = nodes).await;
    let is_kept = !cgroups(node.root.path()).describe().contains("GPUs not kept apart");
    let yaml = "command: 'for d in zero full; do head -c 1 /dev/$d >/dev/null && echo $d; done; \
                head -c 1 /dev/urandom >/dev/null && echo done'";
    for (allocation, granted, seen) in [
        (1, vec!["GPU-zero"], "zero\ndone\n"),
        (2, vec!["GPU-full"], "full\ndone\n"),
        (3, vec!["GPU-full", "GPU-zero"], "zero\nfull\ndone\n"),
        (4, vec![], "done\n"),
    ] {
        let mut detail = job(yaml, allocation, 0);
        let gpus = granted.into_iter().zip(0..);
        detail.gpus = gpus.map(|(uuid, index)| GrantedGpu { uuid: uuid.into(), index }).collect();
        node.desire(vec![run(allocation)], vec![(id(allocation), detail)]).await;
        node.until(|heard| heard.is_reaped(id(allocation))).await;
        let logs = node.root.path().join(format!("logs/{allocation}/0.1"));
        let out = std::fs::read_to_string(logs.join("0.out")).unwrap();
        let err = std::fs::read_to_string(logs.join("0.err")).unwrap();
        let seen = if is_kept { seen } else { "zero\nfull\ndone\n" };
        assert_eq!(out, seen, "{err}");
    }
    node.handle.shutdown().await.unwrap();
}

/// Addresses of this machine stand for the metadata services of clouds.
#[tokio::test]
async fn a_job_does_not_reach_what_it_shall_not() {
    let [there, refused] =
        ["127.0.0.78:0", "127.0.0.77:0"].map(|at| TcpListener::bind(at).unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let command = format!(
        "command: 'reach() {{ exec 3<>/dev/$1/$2/$3 && echo $1 $2 && exec 3>&-; }}; \
         reach tcp 127.0.0.78 {open}; reach tcp 127.0.0.77 {closed}; \
         reach tcp ::ffff:127.0.0.77 {closed}; reach udp 127.0.0.77 {closed}; \
         reach udp 127.0.0.77 53; echo done'",
        open = port(&there),
        closed = port(&refused),
    );
    let root = Root::new();
    let mut support = cgroups(root.path());
    support.refuse(&[refused.local_addr().unwrap().ip()]);
    // As after a restart of the agent with other settings, and back.
    let kept = support.clone();
    support.refuse(&[]);
    support.refuse(&[refused.local_addr().unwrap().ip()]);
    assert_eq!(kept, support);
    let is_kept = support.refuses;
    let mut node = Node::with(root, "n1", |options| options.cgroups = support).await;
    assert_eq!(node.end_of(1, &command).await, ExitCause::Exited(0));
    let out = node.output(0, Writer::Rank(0), Kind::Out);
    let err = node.output(0, Writer::Rank(0), Kind::Err);
    let reached = match is_kept {
        true => "tcp 127.0.0.78\nudp 127.0.0.77\ndone\n",
        false => {
            "tcp 127.0.0.78\ntcp 127.0.0.77\ntcp ::ffff:127.0.0.77\nudp 127.0.0.77\n\
                  udp 127.0.0.77\ndone\n"
        }
    };
    assert_eq!(out, reached, "{err}");
    assert!(!is_kept || err.contains("Operation not permitted"), "{err}");
    // It is for jobs alone.
    drop(TcpStream::connect(refused.local_addr().unwrap()).unwrap());
}

#[tokio::test]
async fn a_limit_that_the_node_does_not_allow_is_told() {
    let mut node = Node::start().await;
    let yaml = "command: ulimit -n\nlimits: { nofile: 4000000000 }";
    assert_eq!(node.end_of(1, yaml).await, ExitCause::Exited(0));
    let text = node.output(0, Writer::Prepare, Kind::Err);
    assert!(text.starts_with("limits.nofile: 4000000000 is asked for, and this node"), "{text}");
    let got: u64 = node.output(0, Writer::Rank(0), Kind::Out).trim().parse().unwrap();
    assert!(text.contains(&format!("allows {got}")), "{text}, and it got {got}");
}
