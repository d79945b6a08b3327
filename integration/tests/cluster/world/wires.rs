//! Wires between members: what one member sends to another goes through here, and can be delayed,
//! held back, swallowed, left unread, or cut off with a reset. The kernel of a test's machine need
//! not know how to do that.
//!
//! Each member has an address here, by which everybody reaches it; who connects is known by the
//! address that it comes from. Delays differ from connection to connection, so that what was sent
//! over two of them may arrive in another order. One thread of the wires' machine does it all, and
//! ends with them.

use super::network::{Network, enter};
use crate::chance::Chance;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// The machines' numbers of the addresses by which members are reached.
pub(crate) const LINKED: [u8; 3] = [11, 12, 13];
/// Bytes that are read at a time.
const PIECE: usize = 16 << 10;
/// Pieces of one direction of a connection that are under way.
const PIECES_MAX: usize = 64;
/// Connections at a time.
const CONNECTIONS_MAX: usize = 512;
/// How long a member may take to accept.
const DIAL: Duration = Duration::from_secs(2);

/// From one machine to another.
pub(crate) type Way = (u8, u8);

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Gate {
    /// They pass.
    #[default]
    Open,
    /// They are held back, and all come at once when the gate opens.
    Held,
    /// They are taken, and never arrive: the connection hears nothing any more, even when the
    /// gate opens.
    Swallows,
    /// They are not read: the sender's buffers fill.
    Deaf,
}

/// How a way is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weather {
    pub(crate) delay_ms: u64,
    /// On top of the delay, at most.
    pub(crate) jitter_ms: u64,
    pub(crate) gate: Gate,
    /// Connections are reset when it changes.
    life: u64,
}

impl Weather {
    pub(crate) fn slow(delay_ms: u64, jitter_ms: u64) -> Weather {
        Weather { delay_ms, jitter_ms, ..Weather::default() }
    }

    pub(crate) fn gate(gate: Gate) -> Weather {
        Weather { gate, ..Weather::default() }
    }
}

type Weathers = BTreeMap<Way, Weather>;

/// The wires.
pub(crate) struct Wires {
    weathers: Arc<watch::Sender<Weathers>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Wires {
    /// Lays them. `targets`: machine and port of each member, in the order of [`LINKED`].
    pub(crate) fn start(namespace: &str, seed: u64, targets: [(u8, u16); 3]) -> Wires {
        let weathers = Arc::new(watch::Sender::new(Weathers::new()));
        let (stop, mut stopped) = watch::channel(false);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (namespace, seen) = (namespace.to_string(), weathers.subscribe());
        let work = move || {
            enter(&namespace);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(async {
                let mut loops = JoinSet::new();
                for (linked, target) in LINKED.into_iter().zip(targets) {
                    let at = (Network::address(linked), target.1);
                    let listener = TcpListener::bind(at).await.expect("the address is its own");
                    loops.spawn(accept(listener, target, seed, seen.clone()));
                }
                ready.send(()).expect("the test waits for it");
                // An error means that nobody can stop it any more.
                let _ = stopped.wait_for(|stop| *stop).await;
                loops.shutdown().await;
            });
        };
        let thread = std::thread::Builder::new().name("wires".into()).spawn(work);
        is_ready.recv().expect("the wires listen");
        Wires { weathers, stop, thread: Some(thread.expect("a thread can be made")) }
    }

    /// From now on these ways are like this, in one moment.
    pub(crate) fn set(&self, ways: &[Way], weather: Weather) {
        self.weathers.send_modify(|all| {
            for way in ways {
                let life = all.get(way).map_or(0, |known| known.life);
                all.insert(*way, Weather { life, ..weather });
            }
        });
    }

    /// Resets every connection that uses one of these ways.
    pub(crate) fn reset(&self, ways: &[Way]) {
        self.weathers.send_modify(|all| {
            for way in ways {
                all.entry(*way).or_default().life += 1;
            }
        });
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // It told of its panic itself.
            let _ = thread.join();
        }
    }
}

/// The ways between members, both ways of each pair.
pub(crate) fn ways_between(members: &[u8]) -> Vec<Way> {
    let pairs = members.iter().flat_map(|one| members.iter().map(move |other| (*one, *other)));
    pairs.filter(|(one, other)| one != other).collect()
}

/// All ways to and from a member.
pub(crate) fn ways_of(member: u8) -> Vec<Way> {
    let ways = ways_between(&[1, 2, 3]);
    ways.into_iter().filter(|(from, to)| *from == member || *to == member).collect()
}

async fn accept(
    listener: TcpListener,
    target: (u8, u16),
    seed: u64,
    weathers: watch::Receiver<Weathers>,
) {
    let mut connections = JoinSet::new();
    let mut nth = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        // Who cannot be accepted has gone already.
        let Ok((near, from)) = accepted else { continue };
        if connections.len() >= CONNECTIONS_MAX {
            continue;
        }
        nth += 1;
        let chance = Chance::new(seed, &format!("{} to {} nth {nth}", from.ip(), target.0));
        connections.spawn(carry(near, machine(from), target, chance, weathers.clone()));
    }
}

/// The number of a machine.
fn machine(at: SocketAddr) -> u8 {
    match at.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => 0,
    }
}

/// Carries one connection until it ends, or is reset.
async fn carry(
    near: TcpStream,
    from: u8,
    (to, port): (u8, u16),
    mut chance: Chance,
    weathers: watch::Receiver<Weathers>,
) {
    let dialled = timeout(DIAL, TcpStream::connect((Network::address(to), port))).await;
    // Nobody is there: whoever connected sees its connection end.
    let Ok(Ok(far)) = dialled else { return };
    for stream in [&near, &far] {
        // What is small must not wait for an answer; a stream that is gone has its end seen below.
        let _ = stream.set_nodelay(true);
        // Nothing is left to wait for when both ends are dropped: they see a reset.
        let _ = stream.set_zero_linger();
    }
    let mut reset = BothWays { out: (from, to), back: (to, from), weathers: weathers.clone() };
    let lives = reset.lives();
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let out = pump(near_in, far_out, (from, to), fork(&mut chance), weathers.clone());
    let back = pump(far_in, near_out, (to, from), fork(&mut chance), weathers);
    tokio::select! {
        _ = async { tokio::join!(out, back) } => {}
        () = reset.differ(lives) => {}
    }
}

fn fork(chance: &mut Chance) -> Chance {
    Chance::new(chance.next(), "pump")
}

/// Both ways of a connection.
struct BothWays {
    out: Way,
    back: Way,
    weathers: watch::Receiver<Weathers>,
}

impl BothWays {
    fn lives(&self) -> [u64; 2] {
        let all = self.weathers.borrow();
        [self.out, self.back].map(|way| all.get(&way).map_or(0, |weather| weather.life))
    }

    /// Waits until they have other lives than these.
    async fn differ(&mut self, lives: [u64; 2]) {
        while self.lives() == lives && self.weathers.changed().await.is_ok() {}
    }
}

/// A piece on its way: when it is to arrive, and what it is; nothing: the end.
type Piece = (Instant, Vec<u8>);

/// Carries one direction of a connection to its end.
async fn pump(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    way: Way,
    chance: Chance,
    weathers: watch::Receiver<Weathers>,
) -> io::Result<()> {
    let (sender, pieces) = mpsc::channel::<Piece>(PIECES_MAX);
    let read = read(from, sender, way, chance, weathers.clone());
    tokio::join!(read, write(to, pieces, way, weathers)).1
}

/// Reads until the end, or as long as the wires are there.
async fn read(
    mut from: OwnedReadHalf,
    pieces: mpsc::Sender<Piece>,
    way: Way,
    mut chance: Chance,
    mut weathers: watch::Receiver<Weathers>,
) {
    let mut last = Instant::now();
    let mut is_lost = false;
    let mut buffer = vec![0; PIECE];
    loop {
        let is_deaf = |all: &Weathers| weather(all, way).gate == Gate::Deaf;
        if weathers.wait_for(|all| !is_deaf(all)).await.is_err() {
            return;
        }
        let len = tokio::select! {
            biased;
            // It may go deaf while nothing comes: what comes then is not read either.
            Ok(_) = weathers.wait_for(is_deaf) => continue,
            read = from.read(&mut buffer) => read.unwrap_or(0),
        };
        let now = weather(&weathers.borrow(), way);
        is_lost |= now.gate == Gate::Swallows;
        match (is_lost, len) {
            // Not even the end arrives.
            (true, 0) => return,
            (true, _) => continue,
            (false, _) => {}
        }
        let jitter = if now.jitter_ms > 0 { chance.within(0, now.jitter_ms) } else { 0 };
        let due = Instant::now() + Duration::from_millis(now.delay_ms + jitter);
        // Within a connection the order stays.
        last = last.max(due);
        let piece = (last, buffer[..len].to_vec());
        if pieces.send(piece).await.is_err() || len == 0 {
            return;
        }
    }
}

/// Writes what was read, when it is due.
async fn write(
    mut to: OwnedWriteHalf,
    mut pieces: mpsc::Receiver<Piece>,
    way: Way,
    mut weathers: watch::Receiver<Weathers>,
) -> io::Result<()> {
    while let Some((due, bytes)) = pieces.recv().await {
        sleep_until(due).await;
        // An error means that the wires end.
        let _ = weathers.wait_for(|all| weather(all, way).gate != Gate::Held).await;
        match bytes.is_empty() {
            true => return to.shutdown().await,
            false => to.write_all(&bytes).await?,
        }
    }
    // The end was swallowed: whoever is there hears of it with the end of the other direction.
    to.forget();
    Ok(())
}

fn weather(all: &Weathers, way: Way) -> Weather {
    all.get(&way).copied().unwrap_or_default()
}

mod tests {
    use super::*;

    const WAY: Way = (1, 2);

    /// One direction of a connection: where to write, where to read, and how the way is.
    struct Line {
        near: TcpStream,
        far: TcpStream,
        weathers: watch::Sender<Weathers>,
        pump: JoinSet<io::Result<()>>,
        /// The other direction, which is not carried.
        _back: (OwnedReadHalf, OwnedWriteHalf),
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has room");
        let near = TcpStream::connect(listener.local_addr().expect("it has one")).await;
        let (far, _) = listener.accept().await.expect("it is connected");
        (near.expect("somebody listens"), far)
    }

    impl Line {
        async fn new() -> Line {
            let ((near, inner), (outer, far)) = (pair().await, pair().await);
            let ((from, back_to), (back_from, to)) = (inner.into_split(), outer.into_split());
            let (weathers, seen) = watch::channel(Weathers::new());
            let mut running = JoinSet::new();
            running.spawn(pump(from, to, WAY, Chance::new(1, "line"), seen));
            Line { near, far, weathers, pump: running, _back: (back_from, back_to) }
        }

        fn set(&self, gate: Gate) {
            self.weathers.send_modify(|all| {
                all.insert(WAY, Weather::gate(gate));
            });
        }

        /// Sends a piece, and waits until it arrives.
        async fn passes(&mut self, byte: u8) {
            self.near.write_all(&[byte]).await.expect("the line is up");
            assert_eq!(self.far.read_u8().await.expect("the line is up"), byte);
        }

        /// Lets everything happen that can; nothing may have arrived.
        async fn is_silent(&self) {
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
            let found = self.far.try_read(&mut [0; 8]);
            let nothing = found.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
            assert!(nothing, "{found:?}");
        }
    }

    #[tokio::test]
    async fn a_way_that_goes_deaf_lets_nothing_more_through() {
        let mut line = Line::new().await;
        line.passes(1).await;
        // The pump waits for the next piece by now.
        line.set(Gate::Deaf);
        line.near.write_all(&[2]).await.expect("buffers take it");
        line.is_silent().await;
        line.set(Gate::Open);
        assert_eq!(line.far.read_u8().await.expect("it hears again"), 2);
    }

    #[tokio::test]
    async fn a_way_that_swallows_swallows_the_end_too() {
        let mut line = Line::new().await;
        line.passes(1).await;
        line.set(Gate::Swallows);
        line.near.write_all(&[2]).await.expect("buffers take it");
        line.near.shutdown().await.expect("the line is up");
        // The pump has seen it.
        line.pump.join_next().await.expect("it was started").expect("it ends").expect("in order");
        line.is_silent().await;
    }
}
