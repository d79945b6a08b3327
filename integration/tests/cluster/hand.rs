//! A cluster by hand, as documented: without `yard dev`.

use crate::world::yard::Running;
use crate::world::{Home, Port, await_true};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// The account that jobs run as: one's own; for root, who is none, somebody else.
fn account() -> String {
    let ran = Command::new("id").arg("-un").output().expect("id says who one is");
    match String::from_utf8_lossy(&ran.stdout).trim() {
        "root" => "nobody".into(),
        own => own.into(),
    }
}

/// Coordinator and agent of one node.
struct Machine {
    home: Home,
    port: Port,
    account: String,
    _coordinator: Running,
}

/// Makes a cluster, and runs its coordinator.
fn head() -> Machine {
    let (home, port, account) = (Home::new(), Port::reserve(), account());
    // The account of jobs must get to its scratch directory.
    let open = fs::Permissions::from_mode(0o711);
    fs::set_permissions(home.path(""), open.clone()).expect("one's own folder");
    fs::set_permissions(home.path("data"), open).expect("one's own folder");
    let folder = home.path("data/coordinator").display().to_string();
    let address = port.address();
    let init = ["coordinator", "init", &address, "--folder", &folder, "--admin", "ann"];
    let init = [&init[..], &["--unix", &account, "--name", "prod"]].concat();
    home.yard(&init).ok().says(&["you are its administrator ann; the context is prod"]);
    let words = ["coordinator", "run", "--folder", &folder, "--listen", &address];
    let coordinator = home.yard(&words).spawn();
    await_true("the coordinator leads", || home.yard(&["cluster", "status"]).run().code == 0);
    Machine { home, port, account, _coordinator: coordinator }
}

#[test]
fn a_machine_joins_works_and_is_drained() {
    let head = head();
    let home = &head.home;
    let settings = home.path("data/agent.toml");
    // A group of its name would outlive the test.
    let text = format!(
        "directory = {:?}\naddress = \"127.0.0.1\"\n\
         labels = [\"rack=7\"]\ncgroup = \"none\"\n",
        home.path("data/agent")
    );
    fs::write(&settings, text).expect("a file can be written");
    let settings = settings.display().to_string();
    let address = head.port.address();
    let join = ["agent", "join", &address, "-", "--name", "n1", "--config", &settings];

    let token = home.yard(&["node", "invite"]).ok().out;
    assert!(token.starts_with("yard-join-"), "{token}");
    home.yard(&join).input(&token).ok().says(&["this machine is node n1"]);
    // Good once, and for one machine.
    let again = ["agent", "join", &address, "-", "--name", "n2", "--patience", "1s"];
    let elsewhere = home.path("data/elsewhere").display().to_string();
    let again = [&again[..], &["--directory", &elsewhere]].concat();
    let refused = home.yard(&again).input(&token).run();
    assert_ne!(refused.code, 0, "{refused}");

    let _agent = home.yard(&["agent", "run", "--config", &settings]).spawn();
    await_true("n1 is up", || {
        let node = home.yard(&["node", "show", "n1", "-o", "json"]).ok().json();
        node["state"] == "Up" && node["silent_ms"].is_number()
    });
    let nodes = home.yard(&["node", "ls", "-o", "name"]).ok();
    assert_eq!(nodes.out, "n1\n");
    let run = ["run", "--workdir", "/", "--set", "place.labels={rack: 7}", "--", "id", "-un"];
    assert_eq!(home.yard(&run).ok().out, format!("{}\n", head.account));

    home.yard(&["node", "drain", "n1", "--reason", "new disk"]).ok();
    let node = home.yard(&["node", "show", "n1", "-o", "json"]).ok().json();
    assert_eq!(node["drain_reason"], "new disk", "{node}");
    let submit = ["submit", "--workdir", "/", "--", "true"];
    let job = home.yard(&submit).ok().out.trim().to_string();
    let why = home.yard(&["why", &job, "-o", "json"]).ok().json();
    assert_eq!(why["state"], "Queued", "{why}");
    home.yard(&["node", "undrain", "n1"]).ok();
    home.yard(&["wait", &job, "--timeout", "1m"]).ok();

    // Out for good.
    home.yard(&["node", "rm", "n1"]).exits(1);
    home.yard(&["node", "drain", "n1"]).ok();
    home.yard(&["node", "rm", "n1"]).ok();
    assert_eq!(home.yard(&["node", "ls", "-o", "name"]).ok().out, "");
}
