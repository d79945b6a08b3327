//! What a rank has of the process that started its agent: nothing.

use crate::world::{
    Agent, HOST, Heard, LONG_MS, Node, Root, assignment, group_name, id, one, output, set, wanted,
};
use std::process::Command;
use yard_agent::logs::{Kind, Writer};
use yard_common::ExitCause;
use yard_core::agent::DesiredPhase;

/// An agent that was started with open files, ignored signals, an odd umask, and ahead of others.
const ODD: &str = "exec 7</etc/passwd 8</dev/null; trap '' INT HUP USR1; umask 077; \
                   ulimit -c 4096; cd /usr; SECRET=x; export SECRET; exec nice -n -5 \"$@\"";

/// Everything that a process inherits, as the rank sees it.
const LOOK: &str = "at=/proc/self/fd; for f in $at/*; do n=${f##*/}; [ -e $at/$n ] && echo fd $n; \
                    done; cat /proc/self/status; echo oom $(cat /proc/self/oom_score_adj); \
                    echo nice $(nice); echo umask $(umask); echo core $(ulimit -c); \
                    echo pwd $(pwd -P); echo secret $SECRET; \
                    echo sched $(cut -d' ' -f41 /proc/self/stat)";

#[test]
fn a_rank_inherits_nothing() {
    let is_root = nix::unistd::geteuid().is_root();
    let root = if is_root { Root::open_to_all() } else { Root::new() };
    let group = group_name(root.path());
    let mut command = Command::new("/bin/sh");
    command.args(["-c", ODD, "sh", HOST, "agent"]).arg(root.path()).arg(group);
    let mut agent = Agent::run(&mut command);
    let mut detail = assignment(&format!("command: \"{}\"", LOOK.replace('"', "\\\"")));
    if is_root {
        detail.login = Some("nobody".into());
    }
    agent.lease(LONG_MS);
    agent.desire(&set(1, vec![wanted(1, one(), DesiredPhase::Run)]), &[(id(1), detail)]);
    let mut heard = Heard::default();
    agent.until(&mut heard, |heard| heard.is_reaped(id(1)));
    let out = output(root.path(), 0, Writer::Rank(0), Kind::Out);
    let err = output(root.path(), 0, Writer::Rank(0), Kind::Err);
    assert_eq!(heard.causes(id(1)), [ExitCause::Exited(0)], "{out}{err}");
    let value = |name: &str| {
        let line = out.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {out}")).trim().replace('\t', " ")
    };
    let fds: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("fd ")).collect();
    assert_eq!(fds, ["0", "1", "2"], "{out}");
    let none = "0000000000000000";
    for (name, expected) in [
        ("SigBlk:", none),
        ("SigIgn:", none),
        ("CapInh:", none),
        ("CapPrm:", none),
        ("CapEff:", none),
        ("CapAmb:", none),
        ("NoNewPrivs:", "1"),
        ("oom", "0"),
        ("nice", "0"),
        ("umask", "0022"),
        ("core", "0"),
        ("secret", ""),
        ("sched", "0"),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
    assert!(value("pwd").starts_with(&root.path().display().to_string()), "{}", value("pwd"));
    if is_root {
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        let (uid, gid) = (nobody.uid, nobody.gid);
        assert_eq!(value("Uid:"), format!("{uid} {uid} {uid} {uid}"));
        assert_eq!(value("Gid:"), format!("{gid} {gid} {gid} {gid}"));
        assert_eq!(value("Groups:"), gid.to_string());
        assert_eq!(value("CapBnd:"), none);
    }
    agent.kill();
}

/// What the agent holds in its keyring is not for jobs.
#[tokio::test]
async fn a_rank_has_a_keyring_of_its_own() {
    const JOIN_OR_READ: &str = "import ctypes; print(ctypes.CDLL(None).syscall(250, 0, -3, 0))";
    let ours = Command::new("python3").args(["-c", JOIN_OR_READ]).output().unwrap();
    let ours = String::from_utf8(ours.stdout).unwrap();
    let mut node = Node::start().await;
    let yaml = format!("command: [python3, -c, '{JOIN_OR_READ}']");
    assert_eq!(node.end_of(1, &yaml).await, ExitCause::Exited(0));
    let theirs = node.output(0, Writer::Rank(0), Kind::Out);
    let has_keyrings = ours.trim() != "-1";
    assert!(!has_keyrings || ours != theirs, "both have {ours}");
}

/// What an attempt leaves in places for temporary files goes with it, and no other sees it.
#[tokio::test]
async fn temporary_files_are_the_attempts_own() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let mut node = Node::with(Root::open_to_all(), "n1", |_| {}).await;
    let name = format!("yard-private-{}", std::process::id());
    let yaml = format!(
        "command: 'cd /; ls -A /tmp /dev/shm | grep -c {name}; touch /tmp/{name} /dev/shm/{name} \
         /var/tmp/{name} && ls $TMPDIR; echo $TMPDIR; stat -c %a /tmp /dev/shm'"
    );
    for allocation in [1, 2] {
        let mut detail = assignment(&yaml);
        detail.login = Some("nobody".into());
        node.desire(
            vec![wanted(allocation, one(), DesiredPhase::Run)],
            vec![(id(allocation), detail)],
        )
        .await;
        node.until(|heard| heard.is_reaped(id(allocation))).await;
        let out = node.output(0, Writer::Rank(0), Kind::Out);
        let expected = format!("0\n{name}\n/tmp\n1777\n1777\n");
        assert_eq!(out, expected.repeat(allocation as usize));
        for place in ["/tmp", "/var/tmp", "/dev/shm"] {
            assert!(!std::path::Path::new(place).join(&name).exists(), "{place}");
        }
    }
    node.handle.shutdown().await.unwrap();
}

#[tokio::test]
async fn nobody_is_root_unless_the_node_says_so() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let mut node = Node::with(Root::new(), "n1", |options| options.root_logins.clear()).await;
    let cause = node.end_of(1, "command: id").await;
    let step = yard_common::cause::PrepareStep::Account;
    assert_eq!(cause, ExitCause::PrepareFailed(step));
    let text = node.output(0, Writer::Prepare, Kind::Err);
    assert!(text.starts_with("jobs do not run as root on node n1"), "{text}");
}
