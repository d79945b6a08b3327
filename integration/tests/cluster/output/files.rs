//! Files of a job: lists, copies, and everything that a job may put in their place.

use crate::world::gate::Gate;
use crate::world::{Cluster, await_true};
use std::fs;

#[test]
fn files_are_listed_printed_and_copied_and_go_on_where_they_broke() {
    let cluster = Cluster::start(1);
    let gate = Gate::new(&cluster, "files");
    let script = format!(
        "cd $YARD_JOB_TEMP; mkdir d; seq 200000 > d/big; echo small > f; ln -s f l; echo said; {}",
        gate.script()
    );
    let job = cluster.submit(&["--", "bash", "-c", &script]).to_string();
    gate.starts(0, 1);
    let big: String = (1..=200_000).map(|line| format!("{line}\n")).collect();
    let listed = |path: &str| {
        let list = cluster.json(&["files", "ls", &job, path]);
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["name"].as_str().expect("a name").to_string()).collect()
    };
    let listed: &dyn Fn(&str) -> Vec<String> = &listed;
    assert_eq!(listed(""), ["logs", "scratch"]);
    assert_eq!(listed("scratch"), ["d", "f", "l", "tmp"]);
    assert_eq!(listed("scratch/d"), ["big"]);
    assert!(listed("logs").contains(&"0.out".to_string()));
    let cat = |words: &[&str]| cluster.yard(&[&["files", "cat", &job], words].concat()).ok().out;
    assert_eq!(cat(&["logs/0.out"]), "said\n");
    assert_eq!(cat(&["scratch/d/big"]), big);
    assert_eq!(cat(&["scratch/f", "--offset", "2", "--len", "3"]), "all");
    // A copy that broke off goes on; what is of something else begins anew.
    let (to, part) = (cluster.home.work().join("big"), cluster.home.work().join("big.part"));
    for (before, goes_on) in [(&big[..100_000], true), ("something else", false)] {
        fs::write(&part, before).expect("a file can be written");
        let ran = cluster.yard(&["files", "get", &job, "scratch/d/big"]).ok();
        assert_eq!(ran.err.contains("goes on behind"), goes_on, "{ran}");
        assert_eq!(fs::read_to_string(&to).expect("it is there"), big);
        assert!(!part.exists());
    }
    // A directory comes whole, but for links.
    // Asked again it goes on, and lies in no other place.
    let all = cluster.home.work().join("all");
    for _ in 0..2 {
        let ran = cluster.yard(&["files", "get", &job, "scratch", "all"]).ok();
        ran.says(&["2 files", "left out: 1"]);
        assert!(!all.join("scratch").exists(), "{ran}");
    }
    cluster.yard(&["files", "get", &job, "scratch/d", "all/"]).ok();
    assert_eq!(fs::read_to_string(all.join("d/big")).expect("it is there"), big);
    assert_eq!(fs::read_to_string(all.join("f")).expect("it is there"), "small\n");
    assert!(all.join("tmp").is_dir() && all.join("l").symlink_metadata().is_err());
    cluster.yard(&["files", "get", &job, "scratch/d"]).ok();
    assert_eq!(fs::read_to_string(cluster.home.work().join("d/big")).expect("it is there"), big);
    cluster.yard(&["files", "get", &job, "scratch/none"]).exits(66);
    cluster.yard(&["files", "cat", &job, "scratch/none"]).exits(66);
    cluster.yard(&["files", "cat", &job, "output/x"]).exits(64).says(&["logs/ or scratch/"]);
    gate.open(0);
}

#[test]
fn what_a_job_puts_in_place_of_a_file_leads_nowhere() {
    let cluster = Cluster::start(1);
    let gate = Gate::new(&cluster, "planted");
    let secret = cluster.home.path("secret");
    fs::write(&secret, "secret").expect("a file can be written");
    let script = format!(
        "cd $YARD_JOB_TEMP; ln -s {secret} link; mkfifo pipe; ln -s / root; mkdir sub; \
         mknod zero c 1 5 || true; ln -s sub/../../../../identity/identity.pem key; \
         python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")' || true; {}",
        gate.script(),
        secret = secret.display()
    );
    let job = cluster.submit(&["--", "bash", "-c", &script]).to_string();
    gate.starts(0, 1);
    let link = secret.display().to_string();
    for path in
        ["link", "pipe", "zero", "sock", "sub", "key", "root/etc/passwd", "../../lock", &link]
    {
        let path = format!("scratch/{path}");
        let ran = cluster.yard(&["files", "cat", &job, &path]).run();
        assert!(ran.code != 0 && ran.out.is_empty(), "{path}: {ran}");
    }
    // Swapped while it is read: what comes is the one or an error, never what the link leads to.
    let scratch = fs::read_dir(cluster.dev("n1").join(format!("jobs/{job}"))).expect("it is held");
    let scratch = scratch.flatten().next().expect("its directory").path();
    let (file, other, link) = (scratch.join("f"), scratch.join("g"), scratch.join("l"));
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                fs::write(&other, "plain").expect("a file can be written");
                fs::rename(&other, &file).expect("a file can be renamed");
                std::os::unix::fs::symlink(&secret, &link).expect("a link can be made");
                fs::rename(&link, &file).expect("a link can be renamed");
            }
        });
        for _ in 0..20 {
            let ran = cluster.yard(&["files", "cat", &job, "scratch/f"]).run();
            assert!(!ran.out.contains("secret"), "{ran}");
            assert!(ran.code != 0 || ran.out == "plain" || ran.out.is_empty(), "{ran}");
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    gate.open(0);
    await_true("it has ended", || cluster.json(&["show", &job])["state"] == "Succeeded");
}
