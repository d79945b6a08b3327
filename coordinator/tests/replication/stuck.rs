//! Disks that do not answer. In real time and with real threads: a flush that hangs holds a thread.

use crate::cluster::{ids, leader_of};
use crate::support::{ADMIN, Member, Net, add_user, has_user};
use futures_util::future::BoxFuture;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use yard_coordinator::env::{
    Env, File, Folder, Guard, Job, Listener, MemoryDisk, Socket, SystemEnv, TestEnv,
};
use yard_coordinator::proposer::ProposeError;
use yard_coordinator::raft::FatalError;

/// Holds flushes back while it is shut.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn shut(&self, shut: bool) {
        *self.0.0.lock().unwrap() = shut;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        drop(self.0.1.wait_while(self.0.0.lock().unwrap(), |shut| *shut).unwrap());
    }
}

/// A machine whose log is written by a thread of its own, through a gate.
struct SlowEnv(TestEnv, Gate);

struct SlowFolder(Arc<dyn Folder>, Gate);

struct SlowFile(Arc<dyn File>, Gate);

impl Env for SlowEnv {
    fn boot_ms(&self) -> u64 {
        self.0.boot_ms()
    }

    fn wall_ms(&self) -> u64 {
        self.0.wall_ms()
    }

    fn random(&self) -> u64 {
        self.0.random()
    }

    fn folder(&self, path: &Path) -> io::Result<Arc<dyn Folder>> {
        Ok(Arc::new(SlowFolder(self.0.folder(path)?, self.1.clone())))
    }

    fn blocking(&self, job: Job) -> BoxFuture<'static, ()> {
        self.0.blocking(job)
    }

    fn worker(
        &self,
        name: &'static str,
        work: BoxFuture<'static, ()>,
    ) -> io::Result<BoxFuture<'static, ()>> {
        SystemEnv.worker(name, work)
    }

    fn listen(&self, at: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.0.listen(at)
    }

    fn dial(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Socket>> {
        self.0.dial(host, port)
    }
}

impl SlowFolder {
    fn slow(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(SlowFile(file, self.1.clone()))
    }
}

impl Folder for SlowFolder {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.slow(self.0.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.slow(self.0.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn Guard>> {
        self.0.lock(name)
    }
}

impl File for SlowFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync()
    }
}

/// Opens gates at the end, also of a test that fails: threads wait behind them.
struct Opens(Vec<Gate>);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.iter().for_each(|gate| gate.shut(false));
    }
}

/// Three members, led by the first, and the gates of their disks.
async fn three(net: &Net) -> (Vec<Member>, Opens) {
    let (mut members, mut gates) = (Vec::new(), Vec::new());
    for id in 1..=3 {
        let (disk, gate) = (MemoryDisk::default(), Gate::default());
        let env = SlowEnv(TestEnv::new(disk.clone(), id, 1_000), gate.clone());
        members.push(Member::start_in(net, id, &disk, Arc::new(env)).await.unwrap());
        gates.push(gate);
    }
    members[0].init().await.unwrap();
    for member in &members[1..] {
        members[0].handle.add_learner(member.id, member.peer()).await.unwrap();
    }
    members[0].handle.change_membership(ids(&[1, 2, 3])).await.unwrap();
    members[0].leads().await;
    (members, Opens(gates))
}

/// Asks a member for something, and does not wait for the answer.
fn ask(member: &Member, name: &'static str) -> tokio::task::JoinHandle<Option<ProposeError>> {
    let handle = member.handle.clone();
    tokio::spawn(async move { handle.propose(ADMIN, None, &add_user(name)).await.err() })
}

#[tokio::test]
async fn a_leader_whose_disk_is_stuck_hands_over() {
    let net = Net::default();
    let (members, gates) = three(&net).await;
    gates.0[0].shut(true);
    let began = Instant::now();
    let asked = ask(&members[0], "behind-a-stuck-disk");
    let rest = [&members[1], &members[2]];
    let leader = timeout(Duration::from_secs(5), leader_of(&rest)).await.expect("a new leader");
    eprintln!("another member leads after {:?}", began.elapsed());
    rest[leader].handle.propose(ADMIN, None, &add_user("after")).await.unwrap().unwrap();
    gates.0[0].shut(false);
    let index = rest[leader].handle.read_barrier().await.unwrap();
    let state = members[0].applied(index).await;
    assert!(has_user(&state, "after"), "it follows, and has lost nothing");
    let told = asked.await.unwrap();
    let there = has_user(&state, "behind-a-stuck-disk");
    assert!(told.is_some() || there, "what was acked is there");
    assert!(members.iter().all(|member| member.handle.fatal().is_none()));
}

#[tokio::test]
async fn a_leader_whose_disk_is_stuck_ends_when_nobody_takes_over() {
    let net = Net::default();
    let (mut members, gates) = three(&net).await;
    gates.0[0].shut(true);
    net.cut(members[0].id, true);
    let asked = ask(&members[0], "never");
    let began = Instant::now();
    let ended = timeout(Duration::from_secs(10), members.remove(0).wait()).await;
    // Its flush has not ended, and yet it does not wait for it.
    let error = ended.expect("it ends").unwrap_err();
    assert!(matches!(*error, FatalError::StuckDisk(_)), "{error}");
    eprintln!("ended after {:?}", began.elapsed());
    assert!(!has_user(&members[0].handle.state().1, "never"));
    asked.abort();
}

#[tokio::test]
async fn followers_whose_disks_are_slow_still_hear_their_leader() {
    let net = Net::default();
    let (members, gates) = three(&net).await;
    let before = members[0].leads().await;
    gates.0[1].shut(true);
    gates.0[2].shut(true);
    // As many as a queue of the log takes, and more than one flush.
    let asked: Vec<_> = (0..50).map(|_| ask(&members[0], "many")).collect();
    // Longer than any election takes that begins without a heartbeat.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    gates.0[1].shut(false);
    gates.0[2].shut(false);
    for asked in asked {
        assert_eq!(asked.await.unwrap(), None, "the leader leads on");
    }
    assert_eq!(members[0].leads().await, before, "nobody stood for election");
}
