//! A driver process that is killed again and again while frames go both ways, against a peer that counts them.
//!
//! `PPVMM_NIC_KILLS` sets the number of kills, `PPVMM_NIC_RATE` the frames per second and direction,
//! `PPVMM_NIC_SPEC` the network card (`packet:near,…`, `xdp:near,…` or `tap:tap0,…`), and `PPVMM_NIC_AHEAD` how many frames its ring is sure to hold.

#![allow(unsafe_code, reason = "system calls of the test bed")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Driver, Ledger, Peer, Stand, enter_namespace, enter_namespace_with_xdp, frame_of, ip, wait_until_up,
};
use lane::DriverState;

/// Most frames that the peer is ahead of the shadow by default: fewer than the kernel's ring holds, however long a
/// successor takes to be scheduled on a busy machine.
const AHEAD_MAX: u64 = 24_000;

/// Frames due at a constant rate.
struct Pace {
    begin: Instant,
    per_second: u64,
    done: u64,
}

impl Pace {
    fn new(per_second: u64) -> Self {
        Self { begin: Instant::now(), per_second, done: 0 }
    }

    fn due(&self) -> u64 {
        let micros = u64::try_from(self.begin.elapsed().as_micros()).unwrap();
        (micros * self.per_second / 1_000_000).saturating_sub(self.done)
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Kills a driver at random instants, and measures until its successor runs.
struct Killer {
    driver: Driver,
    epoch: u64,
    next: Option<Instant>,
    killed: Instant,
    outages: Vec<Duration>,
    random: fastrand::Rng,
}

impl Killer {
    fn new(stand: &Stand) -> Self {
        let killed = Instant::now();
        let random = fastrand::Rng::with_seed(setting("PPVMM_NIC_SEED", 1));
        Self { driver: stand.driver(None), epoch: 1, next: None, killed, outages: Vec::new(), random }
    }

    fn turn(&mut self, stand: &Stand) {
        let words = stand.lane.words();
        assert!(!self.driver.has_ended(), "a driver gave up");
        match self.next {
            None if words.epoch() == self.epoch && words.state() == DriverState::Running => {
                self.outages.push(self.killed.elapsed());
                self.next = Some(Instant::now() + Duration::from_micros(self.random.u64(0..20_000)));
            }
            Some(next) if Instant::now() >= next => {
                self.killed = Instant::now();
                self.driver.kill();
                self.driver = stand.driver(None);
                self.epoch += 1;
                self.next = None;
            }
            _ => {}
        }
    }

    fn kills(&self) -> u64 {
        self.epoch - 1
    }
}

#[test]
fn kills_lose_nothing() {
    if enter_namespace() {
        kill_drivers_of(
            &std::env::var("PPVMM_NIC_SPEC").unwrap_or_else(|_| "packet:near,rx=32768".to_owned()),
        );
    }
}

#[test]
fn kills_lose_nothing_over_tap() {
    if enter_namespace() && std::path::Path::new("/dev/net/tun").exists() {
        kill_drivers_of("tap:tap0,rx=32768");
    }
}

#[test]
fn kills_lose_nothing_over_xdp() {
    if enter_namespace_with_xdp() {
        kill_drivers_of("xdp:near,rx=32768");
    }
}

fn kill_drivers_of(spec: &str) {
    let kills = setting("PPVMM_NIC_KILLS", 100);
    let rate = setting("PPVMM_NIC_RATE", 20_000);
    let mut stand = Stand::new(spec, 8192);
    let stop = Arc::new(AtomicBool::new(false));
    let taken = Arc::new(AtomicU64::new(0));
    let tap = spec.starts_with("tap:");
    if tap {
        assert!(ip("link set tap0 up"));
        wait_until_up("tap0");
    }
    let peer = Arc::new(Peer::new(if tap { "tap0" } else { "far" }));
    let (sender, receiver) = peers(&peer, rate, &stop, &taken);
    let mut killer = Killer::new(&stand);
    let mut here = Ledger::default();
    let mut pace = Pace::new(rate);
    while killer.kills() < kills {
        for _ in 0..pace.due().min(64) {
            if !stand.send(pace.done) {
                break;
            }
            pace.done += 1;
        }
        stand.receive(&mut here);
        taken.store(here.received, Ordering::Relaxed);
        killer.turn(&stand);
        thread::yield_now();
    }
    let seconds = pace.begin.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let from_there = sender.join().unwrap();
    let (tx, done) = (pace.done, Arc::clone(&receiver.received));
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline && (here.received < from_there || done.load(Ordering::Relaxed) < tx) {
        assert!(!killer.driver.has_ended(), "a driver gave up");
        stand.receive(&mut here);
        thread::sleep(Duration::from_millis(1));
    }
    receiver.stop.store(true, Ordering::Relaxed);
    let there = receiver.thread.join().unwrap();
    killer.outages.sort();
    let at = |share: usize| killer.outages[killer.outages.len() * share / 100];
    eprintln!(
        "{spec}: {kills} kills in {seconds:.1} s; tx {tx} frames ({:.0}/s), rx {from_there} ({:.0}/s); \
         kill to running p50 {:?} p99 {:?}",
        tx as f64 / seconds,
        from_there as f64 / seconds,
        at(50),
        at(99)
    );
    eprintln!(
        "lost {} and {}, doubled {} and {}, reordered {} and {}",
        there.lost(tx),
        here.lost(from_there),
        there.duplicates,
        here.duplicates,
        there.reordered,
        here.reordered
    );
    if !tap {
        assert_eq!(stand.dropped(), 0, "frames without room in the kernel");
    }
    there.assert_perfect(tx, "towards the wire");
    here.assert_perfect(from_there, "from the wire");
}

struct Receiver {
    thread: thread::JoinHandle<Ledger>,
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

fn peers(
    peer: &Arc<Peer>,
    rate: u64,
    stop: &Arc<AtomicBool>,
    taken: &Arc<AtomicU64>,
) -> (thread::JoinHandle<u64>, Receiver) {
    let (peer, from) = (Arc::clone(peer), Arc::clone(peer));
    let (stopped, taken) = (Arc::clone(stop), Arc::clone(taken));
    let ahead = setting("PPVMM_NIC_AHEAD", AHEAD_MAX);
    let sender = thread::spawn(move || {
        let mut pace = Pace::new(rate);
        while !stopped.load(Ordering::Relaxed) {
            let room = ahead.saturating_sub(pace.done - taken.load(Ordering::Relaxed));
            for _ in 0..pace.due().min(64).min(room) {
                from.send(&frame_of(pace.done));
                pace.done += 1;
            }
            thread::sleep(Duration::from_micros(50));
        }
        pace.done
    });
    let (received, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, stopped) = (Arc::clone(&received), Arc::clone(&stop));
    let thread = thread::spawn(move || {
        let mut ledger = Ledger::default();
        let mut bytes = [0; 70_000];
        while !stopped.load(Ordering::Relaxed) {
            while let Some(frame) = peer.receive(&mut bytes) {
                ledger.take(frame);
            }
            count.store(ledger.received, Ordering::Relaxed);
            thread::sleep(Duration::from_micros(50));
        }
        ledger
    });
    (sender, Receiver { thread, received, stop })
}
