//! Backup and restore: a cluster that lost its only coordinator comes back from a file.

use crate::world::gate::Gate;
use crate::world::process::Process;
use crate::world::yard::program;
use crate::world::{COORDINATOR, Cluster, Home, Port, await_some, await_true};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A file of the cluster's home, as words of a command line have it.
fn file(cluster: &Cluster, name: &str) -> String {
    cluster.home.path(name).display().to_string()
}

/// What the agent has logged.
fn agent_log(cluster: &Cluster) -> String {
    fs::read_to_string(cluster.dev("n1.log")).unwrap_or_default()
}

/// A whole story, in the order in which it would happen.
#[test]
fn a_cluster_comes_back_from_its_backup() {
    let cluster = Cluster::start(1);
    let done = cluster.submit(&["--", "bash", "-c", "exit 7"]);
    assert_eq!(cluster.wait(done), 7);
    cluster.yard(&["user", "add", "bob"]).ok();
    let gate = Gate::new(&cluster, "known");
    let running = gate.submit(&cluster, &[]);
    let first = gate.only_process(0);
    let backup = file(&cluster, "backup");
    save(&cluster, &backup);
    let before = cluster.json(&["cluster", "status"])["applied_index"].clone();

    // What comes now is lost: a job that ends, and one that still runs when the cluster is gone.
    let late = cluster.submit(&["--", "true"]);
    assert_eq!(cluster.wait(late), 0);
    let unknown = Gate::new(&cluster, "unknown");
    unknown.submit(&cluster, &[]);
    let stray = unknown.only_process(0);
    cluster.kill(COORDINATOR);
    fs::rename(cluster.dev(COORDINATOR), cluster.dev("former")).expect("a folder can be renamed");
    restore(&cluster, &backup);
    cluster.start_again();

    let status = cluster.json(&["cluster", "status"]);
    let life = status["incarnation"].as_u64().expect("a life has a number");
    assert!(life > 1_700_000_000, "{status}");
    assert_eq!(status["members"][0]["id"], life, "{status}");
    assert!(status["applied_index"].as_u64() > before.as_u64().map(|index| index + 1_000_000));
    // Whoever goes on from a position of before is told to start over.
    let from = before.as_u64().map_or(1, |index| index + 1).to_string();
    cluster.yard(&["events", "--from", &from]).exits(1).says(&["are not kept any more"]);
    assert_eq!(cluster.job(done)["state"], "Failed");
    assert_eq!(cluster.wait(done), 7);
    cluster.yard(&["show", &late.to_string()]).exits(66);
    let users = cluster.yard(&["user", "ls", "-o", "name"]).ok().out;
    assert!(users.contains("bob"), "{users}");

    // The agent comes by itself. What the state does not know is ended, what it knows begins anew.
    gate.starts(0, 2);
    assert!(!first.lives(), "the former attempt runs beside the new one");
    await_true("what nobody knows is ended", || !stray.lives());
    let new = cluster.submit(&["--", "true"]);
    assert_eq!(cluster.wait(new), 0);
    assert!(new >= 1_000_000 && new > late, "{new} may have been given out before");

    a_former_member_is_not_heard(&cluster, &gate);
    a_second_one_joins(&cluster, life);
    gate.open(3);
    assert_eq!(cluster.wait(running), 3);
    assert_eq!(gate.starts(0, 2).len(), 2, "it ended once more in effect");
    assert_eq!(unknown.starts(0, 1).len(), 1);
}

fn save(cluster: &Cluster, backup: &str) {
    an_interrupted_save_leaves_nothing(cluster);
    let saved = cluster.yard(&["cluster", "snapshot", "save", backup]).ok();
    saved.says(&["2 jobs of which 1 are live", "the keys of the cluster's CAs"]);
    let mode = fs::metadata(backup).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    cluster.yard(&["cluster", "snapshot", "save", backup]).exits(1).says(&["is there already"]);
    // Only an administrator may have the keys.
    let token = cluster.yard(&["user", "invite", "bob"]).ok().out;
    let bob = cluster.home.path("bob");
    crate::world::private_folder(&bob);
    let login = ["login", &cluster.port.address(), "-", "--name", "dev"];
    cluster.home.yard_with(&bob, &login).input(&token).ok();
    let other = file(cluster, "other");
    cluster.home.yard_with(&bob, &["cluster", "snapshot", "save", &other]).exits(77);
    assert!(!cluster.home.path("other").exists());
    let shown = cluster.yard(&["cluster", "snapshot", "show", backup, "-o", "json"]).ok().json();
    assert_eq!((&shown["jobs"], &shown["jobs_live"]), (&2.into(), &1.into()), "{shown}");
}

/// A save that is interrupted leaves nothing, least of all keys.
fn an_interrupted_save_leaves_nothing(cluster: &Cluster) {
    let folder = cluster.home.path("half");
    crate::world::private_folder(&folder);
    let file = folder.join("backup").display().to_string();
    let coordinator = cluster.part(COORDINATOR);
    // It waits for the first piece.
    coordinator.freeze();
    let save = cluster.yard(&["cluster", "snapshot", "save", &file]).spawn();
    let process = Process::find(save.id() as i32).expect("it runs");
    await_true("the file is open", || process.holds_below(&folder));
    process.terminate();
    process.await_end();
    coordinator.thaw();
    let left: Vec<_> = fs::read_dir(&folder).expect("it is there").collect();
    assert!(left.is_empty(), "{left:?}");
}

fn restore(cluster: &Cluster, backup: &str) {
    let (address, folder) = (cluster.port.address(), cluster.dev(COORDINATOR));
    let folder = folder.display().to_string();
    let words = ["coordinator", "restore", backup, "--folder", &folder, "--address", &address];
    let asked = cluster.yard(&words).exits(64);
    asked.says(&["1 live of 2 known", "1 jobs had running tasks", "is lost", "add --yes"]);
    assert!(!cluster.dev(COORDINATOR).exists());
    // Damaged, or cut short: nothing is made of it.
    let bytes = fs::read(backup).expect("it can be read");
    let bad = file(cluster, "bad");
    for damaged in [&bytes[..bytes.len() - 1], &bytes[1..], &[&bytes[..], b"x"].concat()] {
        fs::write(&bad, damaged).expect("a file can be written");
        let words = ["coordinator", "restore", &bad, "--folder", &folder, "--yes"];
        cluster.yard(&words).exits(1).says(&["Y3006"]);
        cluster.yard(&["cluster", "snapshot", "show", &bad]).exits(1).says(&["Y3006"]);
    }
    assert!(!cluster.dev(COORDINATOR).exists());
    let restored = cluster.yard(&[&words[..], &["--yes"]].concat()).ok();
    restored.says(&["restored in", "next: yard coordinator run"]);
    let again = cluster.yard(&[&words[..], &["--yes"]].concat()).exits(1);
    again.says(&["is not empty"]);
}

/// The former coordinator comes back at the very address, while the restored one is down.
fn a_former_member_is_not_heard(cluster: &Cluster, gate: &Gate) {
    let pids = gate.starts(0, 2);
    let rank = Process::find(pids[1]).expect("the new attempt runs");
    cluster.kill(COORDINATOR);
    let (folder, address) = (cluster.dev("former").display().to_string(), cluster.port.address());
    let former = cluster.yard(&["coordinator", "run", "--folder", &folder, "--listen", &address]);
    let former = former.spawn();
    await_true("the agent says so", || {
        agent_log(cluster).contains("the member is of life 1 of the cluster")
    });
    for words in [&["ls"][..], &["--address", &address, "ls"]] {
        cluster.yard(words).exits(69).says(&["is of life 1 of the cluster"]);
    }
    assert!(rank.lives(), "a former life ended a rank");
    drop(former);
    cluster.start_again();
    await_true("the agent is back", || {
        let node = cluster.json(&["node", "show", "n1"]);
        node["silent_ms"].as_u64().is_some_and(|silent_ms| silent_ms < 1_000)
    });
    assert!(rank.lives());
    assert_eq!(gate.starts(0, 2).len(), 2);
}

/// The restored coordinator lets others join: they get the log as of the new life.
fn a_second_one_joins(cluster: &Cluster, life: u64) {
    let (first, port, folder) = (cluster.port.address(), Port::reserve(), file(cluster, "second"));
    let address = port.address();
    let token = cluster.yard(&["cluster", "token"]).ok().out;
    let join = ["coordinator", "join", &first, "-", "--address", &address, "--folder", &folder];
    let member = format!("this machine is member {}", life + 1);
    cluster.yard(&join).input(&token).ok().says(&[&member]);
    let words = ["coordinator", "run", "--folder", &folder, "--listen", &address];
    let second = cluster.yard(&words).spawn();
    await_some("it has the whole log", || {
        let status = cluster.json(&["cluster", "status"]);
        let member = status["members"].as_array()?.iter().find(|it| it["id"] == life + 1)?.clone();
        (member["reachable"] == true && member["lag_entries"] == 0).then_some(())
    });
    drop(second);
    // It finds out again of which life it is.
    let second = cluster.yard(&words).spawn();
    await_true("it answers", || {
        cluster.yard(&["--address", &address, "show", "1000000"]).run().code != 69
    });
    drop(second);
    cluster.yard(&["cluster", "remove", &(life + 1).to_string(), "--yes"]).ok();
}

/// The block of commands below a heading of a page.
fn commands(page: &str, heading: &str) -> String {
    let (_, section) = page.split_once(heading).expect("the page has the section");
    let (_, block) = section.split_once("```\n").expect("it has a block");
    block.split_once("```").expect("which ends").0.to_string()
}

/// As somebody would type it: the page and the program must not part.
#[test]
fn the_drill_of_the_documentation_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate has a repository");
    let page = fs::read_to_string(root.join("docs/operating/backup.md")).expect("there is a page");
    let home = Home::new();
    let drill = home.path("drill").display().to_string();
    let script = commands(&page, "## A drill in five minutes").replace("/tmp/drill", &drill);
    let typed = script.replace("yard coordinator restore", "yard coordinator restore --yes");
    assert_ne!(typed, script, "the drill restores");
    let folder = home.path("");
    let programs = program().parent().expect("a program lies in a folder").display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let bash = |script: &str| {
        let mut command = Command::new("bash");
        command.args(["-euc", script]).current_dir(home.work()).env("HOME", &folder);
        command.env("PATH", &path).env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME");
        command.env_remove("YARD_CONTEXT").env_remove("YARD_ADDRESS");
        command.output().expect("bash can be started")
    };
    let ran = bash(&typed);
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    bash("yard dev reset --yes");
    assert!(ran.status.success(), "{said}\n{told}");
    assert!(said.contains("first\n") && said.contains("second\n"), "{said}\n{told}");
}
