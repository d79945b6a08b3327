//! People: how they get in, what they may do, and how they are shut out.

use crate::world::gate::Gate;
use crate::world::yard::Yard;
use crate::world::{Cluster, SMALL, private_folder};
use std::path::PathBuf;

/// A user with a configuration of their own.
pub(crate) struct User<'a> {
    cluster: &'a Cluster,
    config: PathBuf,
}

impl User<'_> {
    /// Somebody who is not logged in yet.
    pub(crate) fn new<'a>(cluster: &'a Cluster, name: &str) -> User<'a> {
        let config = cluster.home.path(&format!("config-{name}"));
        private_folder(&config);
        User { cluster, config }
    }

    pub(crate) fn yard(&self, words: &[&str]) -> Yard {
        self.cluster.home.yard_with(&self.config, words)
    }

    pub(crate) fn login(&self, token: &str) -> Yard {
        self.yard(&["login", &self.cluster.port.address(), "-"]).input(token)
    }

    fn submit(&self, script: &str) -> String {
        let words = [&["submit"][..], &SMALL, &["--", "bash", "-c", script]].concat();
        self.yard(&words).ok().out.trim().to_string()
    }
}

pub(crate) fn invite(cluster: &Cluster, name: &str) -> String {
    let ran = cluster.yard(&["user", "invite", name]).ok();
    assert!(ran.out.starts_with("yard-login-"), "{ran}");
    ran.out
}

#[test]
fn a_user_gets_in_works_and_is_shut_out() {
    let cluster = Cluster::start(1);
    cluster.yard(&["user", "add", "ann"]).ok();
    let ann = User::new(&cluster, "ann");
    ann.yard(&["ls"]).exits(69);
    let token = invite(&cluster, "ann");
    ann.login(&token).ok().says(&["logged in as ann"]);
    let shown = ann.yard(&["user", "show", "-o", "json"]).ok().json();
    assert_eq!(shown["name"], "ann", "{shown}");

    // A token is good once, and the answer tells a thief nothing.
    let thief = User::new(&cluster, "thief");
    let used = thief.login(&token).exits(77);
    let [id, secret, cas] = token.trim().split('.').collect::<Vec<_>>()[..] else {
        panic!("{token} is no token");
    };
    let guess: String = secret.chars().rev().collect();
    let wrong = thief.login(&format!("{id}.{guess}.{cas}")).exits(77);
    assert_eq!(used.err, wrong.err, "whatever is wrong, the answer is the same");
    // Of another cluster: the secret is not sent.
    let other: String = cas.chars().rev().collect();
    thief
        .login(&format!("{id}.{secret}.{other}"))
        .exits(77)
        .says(&["this is another cluster", "is the address right?"]);
    thief.login("rubbish").exits(64);
    assert!(!used.err.contains("ann"), "{used}");
    thief.yard(&["ls"]).exits(69);

    // Own jobs.
    let gate = Gate::new(&cluster, "ann");
    let own = ann.submit(&gate.script());
    assert_eq!(ann.yard(&["show", &own, "-o", "json"]).ok().json()["owner"], "ann");
    let rank = gate.only_process(0);
    ann.yard(&["cancel", &own]).ok();
    rank.await_end();
    ann.yard(&["wait", &own]).exits(125);
    let words = [&["run"][..], &SMALL, &["--", "echo", "hello"]].concat();
    assert_eq!(ann.yard(&words).ok().out, "hello\n");

    // Jobs of others: seen, and left alone.
    let gate = Gate::new(&cluster, "foreign");
    let foreign = gate.submit(&cluster, &[]).to_string();
    let rank = gate.only_process(0);
    ann.yard(&["show", &foreign]).ok();
    for words in [
        &["cancel", &foreign][..],
        &["hold", &foreign],
        &["set", &foreign, "--priority", "1"],
        &["node", "drain", "n1"],
        &["node", "invite"],
        &["user", "add", "eve"],
        &["user", "invite", "ann"],
        &["user", "set", "ann", "--role", "admin"],
        &["queue", "create", "mine"],
        &["config", "set", "a", "b"],
    ] {
        let ran = ann.yard(words).run();
        assert_eq!(ran.code, 77, "{ran}");
    }
    ann.yard(&["cancel", "999"]).exits(66);
    assert!(rank.lives(), "the job of somebody else was touched");

    // From the next request on.
    let unused = invite(&cluster, "ann");
    cluster.yard(&["user", "disable", "ann"]).ok();
    for words in [&["ls"][..], &["show", &own], &["submit", "--", "true"], &["user", "show"]] {
        let ran = ann.yard(words).run();
        assert_eq!(ran.code, 77, "{ran}");
    }
    User::new(&cluster, "late").login(&unused).exits(77);
    cluster.yard(&["user", "enable", "ann"]).ok();
    ann.yard(&["ls"]).ok();
    gate.open(0);
}

#[test]
fn an_operator_may_more_and_an_admin_all() {
    let cluster = Cluster::start(1);
    cluster.yard(&["user", "add", "olga", "--role", "operator"]).ok();
    let olga = User::new(&cluster, "olga");
    olga.login(&invite(&cluster, "olga")).ok();
    let gate = Gate::new(&cluster, "foreign");
    let foreign = gate.submit(&cluster, &[]).to_string();
    let rank = gate.only_process(0);
    olga.yard(&["cancel", &foreign]).ok();
    rank.await_end();
    olga.yard(&["node", "drain", "n1"]).ok();
    olga.yard(&["node", "undrain", "n1"]).ok();
    olga.yard(&["queue", "create", "night"]).ok();
    olga.yard(&["user", "add", "eve"]).exits(77);
    cluster.yard(&["user", "set", "olga", "--role", "admin"]).ok();
    olga.yard(&["user", "add", "eve"]).ok();
    // Somebody must be left who can let people in.
    cluster.yard(&["user", "disable", "olga"]).ok();
    let own = cluster.json(&["user", "show"])["name"].as_str().expect("a name").to_string();
    cluster.yard(&["user", "disable", &own]).exits(1);
    cluster.yard(&["ls"]).ok();
}
