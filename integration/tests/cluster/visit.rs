//! Visits of jobs that run: programs beside their ranks, and their ports.

use crate::user::{User, invite};
use crate::world::gate::Gate;
use crate::world::process::{Process, await_pids, started_with};
use crate::world::{Cluster, SMALL, await_some, await_true};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;

/// What says of itself what a rank is made of.
const WHO: &str = "id -u; id -G; pwd; umask; echo $YARD_RANK $YARD_JOB_ID $YARD_JOB_TEMP; \
                   cat /proc/self/cgroup; ulimit -n";

/// A job of one rank that is at its gate.
fn job(cluster: &Cluster, name: &str) -> (Gate, String, Process) {
    let gate = Gate::new(cluster, name);
    let job = gate.submit(cluster, &[]).to_string();
    let rank = gate.only_process(0);
    (gate, job, rank)
}

/// A program that does not end by itself, and its process.
fn sleeper(cluster: &Cluster, job: &str, name: &str) -> (crate::world::yard::Running, Process) {
    let file = cluster.home.path(name);
    let script = format!("echo $$ > {}; exec sleep 1000", file.display());
    let client = cluster.yard(&["exec", job, "--", "sh", "-c", &script]).spawn();
    let pid = await_pids(&file, 1)[0];
    (client, Process::find(pid).expect("it runs"))
}

#[test]
fn a_program_beside_a_rank_is_as_the_rank_is() {
    let cluster = Cluster::start(1);
    let out = cluster.home.path("who");
    let gate = Gate::new(&cluster, "who");
    let script = format!("{{ {WHO}; }} > {}; {}", out.display(), gate.script());
    let id = cluster.submit(&["--", "bash", "-c", &script]).to_string();
    let rank = gate.only_process(0);
    let exec = |words: &[&str]| cluster.yard(&[&["exec", &id, "--"], words].concat());
    let told = exec(&["bash", "-c", WHO]).ok();
    assert_eq!(told.out, fs::read_to_string(&out).expect("the rank has told"), "{told}");
    assert_eq!(exec(&["sh", "-c", "echo out; echo err >&2"]).ok().out, "out\n");
    exec(&["sh", "-c", "exit 7"]).exits(7);
    exec(&["sh", "-c", "kill -9 $$"]).exits(137);
    // What it leaves behind may write for ever, and is not waited for.
    exec(&["sh", "-c", "yes & exit 4"]).exits(4);
    exec(&["no-such-program"]).exits(66).says(&["no-such-program did not start"]);
    // What is typed arrives whole, and so does what comes back.
    let long = "0123456789abcdef\n".repeat(100_000);
    assert_eq!(exec(&["cat"]).input(&long).ok().out, long);
    // A shell, by default.
    let ran = cluster.yard(&["exec", &id]).input("echo $YARD_JOB_ID\nexit 3\n").exits(3);
    assert_eq!(ran.out, format!("{id}\n"));
    cluster.yard(&["exec", &id, "--rank", "1", "--", "true"]).exits(66).says(&["rank"]);
    cluster.yard(&["exec", &id, "--attempt", "2", "--", "true"]).exits(66);
    assert!(rank.lives());
    gate.open(0);
    assert_eq!(cluster.wait(id.parse().expect("an id")), 0);
    let ran = exec(&["true"]).run();
    assert!(ran.code != 0 && ran.err.contains("Succeeded"), "{ran}");
}

#[test]
fn a_terminal_is_one() {
    let cluster = Cluster::start(1);
    let (gate, job, _) = job(&cluster, "tty");
    let words = ["exec", &job, "-t", "--", "sh", "-c", "tty; stty size; exec 2>&1 ls /dev/tty"];
    let ran = cluster.yard(&words).ok();
    let lines: Vec<&str> = ran.out.lines().map(str::trim_end).collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{ran}");
    assert_eq!(&lines[1..], ["24 80", "/dev/tty"], "{ran}");
    gate.open(0);
}

#[test]
fn a_visitor_leaves_with_its_client_and_with_the_job() {
    let cluster = Cluster::start_patient(1);
    let (_gate, job, rank) = job(&cluster, "leaves");
    // The client dies.
    let (client, program) = sleeper(&cluster, &job, "first");
    Process::find(client.id() as i32).expect("it runs").kill();
    program.await_end();
    // So does that of a client that still had something to say, and nobody read it.
    let file = cluster.home.path("deaf");
    let script = format!("echo $$ > {}; exec sleep 1000", file.display());
    let input = "x".repeat(300_000);
    let words = ["exec", &job, "--", "sh", "-c", &script];
    let deaf = cluster.yard(&words).input(&input).spawn_writing();
    let pid = await_pids(&file, 1)[0];
    let program = Process::find(pid).expect("it runs");
    Process::find(deaf.id() as i32).expect("it runs").kill();
    program.await_end();
    // The agent dies: nobody carries the output any more.
    let (client, program) = sleeper(&cluster, &job, "second");
    cluster.part("n1").kill();
    let ran = client.end();
    // 1: it was lost before the client heard that it runs.
    assert!(matches!(ran.code, 1 | 125), "{ran}");
    program.await_end();
    cluster.start_again();
    assert!(rank.lives(), "the rank is left alone");
    // The job ends.
    let (client, program) = await_some("the agent is back", || {
        let tried = cluster.yard(&["exec", &job, "--", "true"]).run();
        (tried.code == 0).then(|| sleeper(&cluster, &job, "third"))
    });
    cluster.yard(&["cancel", &job]).ok();
    rank.await_end();
    program.await_end();
    client.end();
    let id = job.parse().expect("an id");
    assert_eq!(cluster.wait(id), 125);
}

/// Bytes of memory of a process that are its own.
fn memory(process: Process) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", process.pid)).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("it says");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// More than all that anybody on the way would hold.
const MUCH: usize = 10_000_000;
/// How much more memory a part may have with it: a few windows, and far less than all of it.
const GROWTH_MAX: u64 = 6 << 20;

#[test]
fn who_types_more_than_is_read_leaves_as_quickly() {
    let cluster = Cluster::start_patient(1);
    let (gate, job, rank) = job(&cluster, "deaf");
    // What runs for the first time is there for good.
    cluster.yard(&["exec", &job, "--", "cat"]).input("x").ok();
    let parts = ["coordinator", "n1"].map(|part| cluster.part(part));
    let before = parts.map(memory);
    let file = cluster.home.path("deaf");
    let script = format!("echo $$ > {}; exec sleep 1000", file.display());
    let words = ["exec", &job, "--", "sh", "-c", &script];
    let deaf = cluster.yard(&words).input(&"x".repeat(MUCH)).spawn_writing();
    let program = Process::find(await_pids(&file, 1)[0]).expect("it runs");
    let client = Process::find(deaf.id() as i32).expect("it runs");
    // It has sent all that it may when it reads no more.
    let mut taken = 0;
    await_true("the client waits", || {
        let before = std::mem::replace(&mut taken, client.bytes_read());
        std::thread::sleep(std::time::Duration::from_millis(300));
        taken >= 1 << 20 && taken == before
    });
    assert!(taken < 4 << 20, "the client took {taken} bytes that nobody reads");
    for (part, before) in parts.into_iter().zip(before) {
        let more = memory(part).saturating_sub(before);
        assert!(more < GROWTH_MAX, "{} has {more} bytes more", part.words());
    }
    // Others are not held up.
    assert_eq!(cluster.yard(&["exec", &job, "--", "cat"]).input("hello").ok().out, "hello");
    assert!(program.lives());
    client.kill();
    let left = std::time::Instant::now();
    program.await_end();
    let took = left.elapsed();
    assert!(took < std::time::Duration::from_secs(8), "hung up after {took:?}");
    assert!(rank.lives());
    gate.open(0);
}

#[test]
fn only_the_owner_and_admins_visit() {
    let cluster = Cluster::start(1);
    let (gate, job, _) = job(&cluster, "own");
    for (name, role) in [("ann", "user"), ("olga", "operator")] {
        cluster.yard(&["user", "add", name, "--role", role]).ok();
        let user = User::new(&cluster, name);
        user.login(&invite(&cluster, name)).ok();
        for words in [&["exec", &job, "--", "id"][..], &["forward", &job, "0:22"]] {
            user.yard(words).exits(77).says(&["the owner of the job, or an admin"]);
        }
        user.yard(&["exec", "999", "--", "id"]).exits(66);
        if role == "operator" {
            cluster.yard(&["user", "set", name, "--role", "admin"]).ok();
            user.yard(&["exec", &job, "--", "true"]).ok();
        }
    }
    gate.open(0);
}

/// Speaks to a port: what it answers to this, to its end.
fn speak(port: u16, text: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("somebody listens");
    let mut writer = stream.try_clone().expect("a stream can be cloned");
    let sent = text.to_vec();
    let writes = std::thread::spawn(move || {
        writer.write_all(&sent).expect("it is taken");
        writer.shutdown(Shutdown::Write).expect("an end can be told");
    });
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).expect("it answers to its end");
    writes.join().expect("it does not panic");
    heard
}

#[test]
fn ports_of_a_job_are_reached_and_no_others() {
    let cluster = Cluster::start(1);
    let file = cluster.home.path("port");
    let echo = PathBuf::from(env!("CARGO_BIN_EXE_yard-echo")).display().to_string();
    let id = cluster.submit(&["--", &echo, &file.display().to_string()]);
    let job = id.to_string();
    let port: u16 = await_some("it listens", || fs::read_to_string(&file).ok()?.parse().ok());
    let here = crate::world::Port::reserve();
    let mut client = cluster.yard(&["forward", &job, &format!("{}:{port}", here.number)]).spawn();
    await_true("it listens here", || TcpStream::connect(("127.0.0.1", here.number)).is_ok());
    let text: Vec<u8> = (0..3_000_000u32).map(|at| at as u8).collect();
    let many: Vec<_> = (0..8usize)
        .map(|at| {
            let text = text[at * 1_000..].to_vec();
            let number = here.number;
            std::thread::spawn(move || assert!(speak(number, &text) == text, "connection {at}"))
        })
        .collect();
    many.into_iter().for_each(|one| one.join().expect("what was sent came back"));
    assert_eq!(client.has_ended(), None);
    // One that is not read stands in nobody's way.
    let server = started_with(&file)[0];
    server.freeze();
    let mut deaf = TcpStream::connect(("127.0.0.1", here.number)).expect("somebody listens");
    let patience = Some(std::time::Duration::from_secs(2));
    deaf.set_write_timeout(patience).expect("a time can be set");
    let mut sent = 0;
    // Until all on the way are full.
    while let Ok(count) = deaf.write(&text) {
        sent += count;
        assert!(sent < 100_000_000, "{sent} bytes that nobody reads");
    }
    let ran = cluster.yard(&["exec", &job, "--", "cat"]).input("hello").ok();
    assert_eq!(ran.out, "hello");
    server.thaw();
    drop(deaf);
    assert!(speak(here.number, b"again") == b"again");
    // The coordinator listens on the same machine, and is nobody's business.
    let foreign = cluster.port.number.to_string();
    let ran = cluster.yard(&["forward", &job, &format!("0:{foreign}")]).exits(66);
    ran.says(&["no process of it listens on port", &format!("it listens on {port}")]);
    cluster.yard(&["forward", &job, "0:0"]).exits(64);
    cluster.yard(&["cancel", &job]).ok();
    assert_eq!(cluster.wait(id), 125);
    drop(client);
    assert!(started_with(&file).is_empty(), "the server has ended");
}

#[test]
fn a_job_with_a_terminal_ends_as_its_command_does() {
    let cluster = Cluster::start(2);
    let with = |more: &str, words: &str| {
        let (flags, program) = (SMALL.join(" "), crate::world::yard::program());
        let line = format!("{} run --pty {flags} {more} -- {words}", program.display());
        cluster.yard::<&str>(&[]).replaced(&["script", "-qec", &line, "/dev/null"])
    };
    let yard = |words: &str| with("", words);
    let ran = yard("sh -c 'tty; exit 5'").exits(5);
    assert!(ran.out.contains("/dev/pts/"), "{ran}");
    let last = cluster.json(&["show", "last"]);
    assert_eq!((&last["name"], &last["state"]), (&"sh".into(), &"Failed".into()), "{last}");
    yard("true").ok();
    cluster.yard(&["wait", "last"]).ok();
    cluster.yard(&["run", "--pty", "--", "true"]).exits(64).says(&["needs a terminal"]);
    // Of a gang it is one process on the first node: nobody would end the other ranks.
    let ran = with("--nodes 2", "sh -c 'wc -l < $YARD_HOSTFILE'").ok();
    assert!(ran.out.contains('2'), "{ran}");
    assert_eq!(cluster.json(&["show", "last"])["state"], "Succeeded");
    let ran = with("--launch torch", "true").exits(64);
    assert!(ran.out.contains("leave --launch out"), "{ran}");
}
