//! Output in a directory of the user's: who the process is that writes there.

use crate::cluster::Cluster;
use crate::node::{JOB, Root, detail, joined, set, started, told};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;
use yard_common::spec::JobSpec;
use yard_core::agent::ReportKind;

/// How long something may take to come about.
const PATIENCE: Duration = Duration::from_secs(60);

/// The lines of `/proc/PID/status` of the process of this one that delivers.
fn writer() -> Option<BTreeMap<String, String>> {
    let own = std::process::id().to_string();
    let read = |path: &Path, file: &str| fs::read_to_string(path.join(file)).unwrap_or_default();
    let found =
        fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).find(|path| {
            let parent = read(path, "stat").rsplit_once(") ").and_then(|(_, rest)| {
                let mut words = rest.split(' ');
                words.nth(1).map(str::to_string)
            });
            parent.as_ref() == Some(&own) && read(path, "cmdline").ends_with("\0deliver\0")
        })?;
    let lines = read(&found, "status");
    let pairs = lines.lines().filter_map(|line| line.split_once(':'));
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(pairs.map(|(name, value)| (name.to_string(), words(value))).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_writes_is_the_user_for_good_and_may_do_nothing_else() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    let (root, mut cluster) = (Root::new(), Cluster::start(1).await);
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o711)).unwrap();
    // Outside the places that jobs have for themselves.
    let share = tempfile::tempdir_in("/var/lib").unwrap();
    chown(share.path(), Some(uid), Some(gid)).unwrap();
    joined(&root, &cluster).await;
    let handle = started(&root).await;
    let (member, _) = cluster.hello().await;
    let mut detail = detail(57, "true");
    let yaml = format!(
        "name: j\ncommand: echo told; sleep 600\nworkdir: /\numask: '027'\n\
         logs: {{dir: {}}}\n",
        share.path().display()
    );
    detail.spec = JobSpec::from_yaml(&yaml).unwrap().to_json();
    detail.unix_login = "nobody".into();
    cluster.say(member, told(&set(2, &[57]), vec![detail])).await;
    cluster.reports(true, |report| matches!(report.what, ReportKind::Started(_))).await;
    let written = share.path().join(format!("{JOB}/attempt-1/0.out"));
    let arrives = async {
        while !fs::read(&written).is_ok_and(|text| text == b"told\n") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, arrives).await.expect("it is delivered");
    let made = written.metadata().unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (uid, gid, 0o640));
    let status = writer().expect("a process delivers");
    let four = |id: u32| [id; 4].map(|id| id.to_string()).join(" ");
    let name = CString::new("nobody").unwrap();
    let groups = nix::unistd::getgrouplist(&name, nobody.gid).unwrap();
    let mut groups: Vec<u32> = groups.into_iter().map(nix::unistd::Gid::as_raw).collect();
    groups.sort_unstable();
    let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
    for (name, value) in [
        ("Uid", four(uid)),
        ("Gid", four(gid)),
        ("Groups", groups.join(" ")),
        ("CapInh", "0000000000000000".into()),
        ("CapPrm", "0000000000000000".into()),
        ("CapEff", "0000000000000000".into()),
        ("CapBnd", "0000000000000000".into()),
        ("CapAmb", "0000000000000000".into()),
        ("NoNewPrivs", "1".into()),
    ] {
        assert_eq!(status.get(name), Some(&value), "{name}");
    }
    handle.stop().await.unwrap();
}
