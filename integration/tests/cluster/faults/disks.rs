//! Disks that are full, and disks that cannot flush, under load.

use super::{HEALED, NEEDS, SEED, served};
use crate::world::clients::Load;
use crate::world::trio::{Setup, Trio};
use crate::world::{await_some, await_true};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Writes until nothing more fits.
fn fill(disk: &Path) -> PathBuf {
    let path = disk.join("filler");
    let mut file = File::create(&path).expect("a file can be made");
    let zeros = vec![0; 64 << 10];
    while file.write_all(&zeros).is_ok() {}
    while file.write_all(&zeros[..512]).is_ok() {}
    path
}

#[test]
fn disks_fill_up_under_load_one_and_then_a_majority() {
    let settings = "disk_floor_mib = 2\ndisk_reserve_mib = 2\n";
    let trio = Trio::start(Setup { disk_mib: Some(24), settings, ..Setup::default() });
    let load = Load::start(&trio, SEED);
    load.await_more(100);
    let first = trio.leader();
    let mut fillers = vec![fill(&trio.disk(first))];
    let second = await_some("a leader with room", || trio.leader_now().filter(|it| *it != first));
    load.await_more(50);
    // The others have room, so nobody is refused for long.
    fillers.push(fill(&trio.disk(second)));
    let refused = load.full();
    await_true("new work is refused", || load.full() > refused);
    // What ends something goes on.
    load.await_more(10);
    let freed = Instant::now();
    fillers.iter().for_each(|filler| fs::remove_file(filler).expect("it can be removed"));
    await_true("no alarm is left", || trio.status().is_some_and(|it| it.alarms.is_empty()));
    let took = freed.elapsed();
    served(&load);
    println!("{first} and {second} were full, normal {took:?} after there was room again");
    assert!(took < HEALED);
    load.end(&trio, NEEDS);
}

/// From now on no flush of this process succeeds. The kernel answers for the disk: the product
/// makes its system calls itself, so no library can stand between.
fn fail_flushes(pid: i32) -> Child {
    let told = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=fdatasync,fsync"])
        .args(["-e", "inject=fdatasync,fsync:error=EIO", "-p", &pid.to_string()])
        .stderr(Stdio::null())
        .spawn();
    told.expect("strace is installed")
}

#[test]
fn flushes_fail_under_load() {
    let mut trio = Trio::start(Setup::default());
    let load = Load::start(&trio, SEED);
    for leads in [true, false] {
        load.await_more(100);
        let leader = trio.leader();
        let member = if leads { leader } else { leader % 3 + 1 };
        let mut tracer = fail_flushes(trio.member(member).pid);
        let ended = trio.end_of(member);
        tracer.wait().expect("it ends with what it looks at");
        assert_eq!(ended.code, 70, "{ended}");
        ended.says(&["cannot", "os error 5"]);
        let took = served(&load);
        println!("{member} ended when {leader} led, served {took:?} later");
        assert!(took < HEALED);
        trio.start_again(member);
        trio.await_whole();
    }
    load.end(&trio, NEEDS);
}
