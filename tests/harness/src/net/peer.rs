//! The other end of the wire, in this process.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use hypervisor::Region;
use lane::{FrameMeta, Lane};
use nic::{Held, Kick, NicSpec};
use sim_guest::net::Mac;
use sim_guest::net::traffic::{Numbered, Pace, ReceiveReport, Receiver, now_ns};

use super::args::NetArgs;

const SLOTS: u32 = 8192;
/// Flows towards guests have these numbers behind the guest's.
const FLOW_BASE: u64 = 1 << 40;

/// Two interfaces that are each other's wire.
pub struct Veth {
    ours: String,
    theirs: String,
    peer_mac: Mac,
}

impl Veth {
    /// Makes them; they end with the value.
    pub fn create() -> anyhow::Result<Self> {
        let id = std::process::id() % 100_000;
        let (ours, theirs) = (format!("pcn{id}a"), format!("pcn{id}b"));
        let peer_mac = Mac([0x02, 0x50, 0x50, 0, 0, 1]);
        ip(&["link", "add", &ours, "type", "veth", "peer", "name", &theirs])?;
        let veth = Self { ours, theirs, peer_mac };
        for name in [&veth.ours, &veth.theirs] {
            // Nobody else is to speak there.
            let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
            let _ = std::fs::write(path, "1");
            ip(&["link", "set", "dev", name, "up", "txqueuelen", "10000"])?;
        }
        Ok(veth)
    }

    /// The backend's network card.
    pub fn ours(&self) -> &str {
        &self.ours
    }

    /// The address of the other end.
    pub fn peer_mac(&self) -> Mac {
        self.peer_mac
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", &self.ours]);
    }
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).output().context("ip")?;
    ensure!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What the peer tells at its end.
pub struct PeerReport {
    /// Frames sent to guests.
    pub sent: u64,
    /// What came.
    pub received: ReceiveReport,
    /// Frames that this end's own socket dropped.
    pub dropped: u64,
}

/// The other end.
pub struct Peer {
    thread: JoinHandle<anyhow::Result<PeerReport>>,
    shared: Arc<Shared>,
    guests: u64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    sending: AtomicBool,
    received: AtomicU64,
    heard: AtomicU64,
}

impl Peer {
    /// Counts what comes, and sends to these guests once it is told to.
    pub fn start(veth: &Veth, args: &NetArgs, macs: Vec<Mac>) -> anyhow::Result<Self> {
        let spec: NicSpec = format!("packet:{},rx={SLOTS}", veth.theirs).parse()?;
        let held = Held::open(&spec)?;
        let shared: Arc<Shared> = Arc::default();
        let guests = macs.len() as u64;
        let worker = Worker {
            held,
            lane: Lane::create(Arc::new(Region::create("peer", Lane::bytes(SLOTS, SLOTS))?), SLOTS, SLOTS)?,
            shared: Arc::clone(&shared),
            from: veth.peer_mac,
            sizes: (args.size_min, args.size_max.min(1514)),
            rate: args.rate,
            flows: macs.into_iter().map(|mac| (mac, 0)).collect(),
        };
        let thread = std::thread::spawn(move || worker.run());
        Ok(Self { thread, shared, guests })
    }

    /// Frames that came.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// Has something come from each guest?
    pub fn hears_from_all(&self) -> bool {
        self.shared.heard.load(Ordering::Relaxed) >= self.guests
    }

    /// Sends from now on, or no more. Before a guest is connected nobody would know where its frames are to go.
    pub fn set_sending(&self, sending: bool) {
        self.shared.sending.store(sending, Ordering::Relaxed);
    }

    /// Ends it.
    pub fn end(self) -> anyhow::Result<PeerReport> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the peer panicked"))?
    }
}

struct Worker {
    held: Held,
    lane: Lane,
    shared: Arc<Shared>,
    from: Mac,
    sizes: (usize, usize),
    rate: u64,
    flows: Vec<(Mac, u64)>,
}

impl Worker {
    fn run(mut self) -> anyhow::Result<PeerReport> {
        let (mut tx, mut rx) = (self.lane.tx().consumer()?, self.lane.rx().producer()?);
        let (mut outbox, mut inbox) = (self.lane.tx().producer()?, self.lane.rx().consumer()?);
        let mut port = self.held.attach(&mut tx, &mut rx, self.lane.words())?;
        let mut receiver = Receiver::default();
        let mut pace = Pace::new(self.rate * self.flows.len() as u64, now_ns());
        let (mut sent, mut kick, mut frame) = (0, Kick::Clear, Vec::new());
        let mut rng = fastrand::Rng::with_seed(7);
        while !self.shared.stop.load(Ordering::Relaxed) {
            let sending = self.shared.sending.load(Ordering::Relaxed);
            let due = if sending { pace.due(now_ns()).min(64) } else { 0 };
            for _ in 0..due {
                if !self.send(&mut outbox, &mut frame, sent, &mut rng)? {
                    break;
                }
                pace.sent();
                sent += 1;
            }
            let moved = port.transmit(&mut tx)?;
            if moved.taken() > 0 || kick != Kick::Clear {
                kick = port.kick()?;
            }
            port.receive(&mut rx)?;
            let came = self.take(&mut inbox, &mut receiver)?;
            if came == 0 && due == 0 {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        let dropped = port.counters()?.rx_dropped;
        Ok(PeerReport { sent, received: receiver.report(), dropped })
    }

    /// Sends the next frame to the guest whose turn it is. False if there is no room.
    fn send(
        &mut self,
        outbox: &mut lane::Producer,
        frame: &mut Vec<u8>,
        sent: u64,
        rng: &mut fastrand::Rng,
    ) -> anyhow::Result<bool> {
        let at = usize::try_from(sent % self.flows.len() as u64)?;
        let (to, sequence) = self.flows[at];
        let numbered = Numbered { flow: FLOW_BASE + at as u64, sequence, stamp_ns: now_ns() };
        numbered.write(frame, to, self.from, rng.usize(self.sizes.0..=self.sizes.1));
        if !outbox.push(frame, &FrameMeta::default())? {
            return Ok(false);
        }
        self.flows[at].1 += 1;
        Ok(true)
    }

    fn take(&self, inbox: &mut lane::Consumer, receiver: &mut Receiver) -> anyhow::Result<u64> {
        let mut came = 0;
        while let Some(frame) = inbox.peek()? {
            receiver.take(&inbox.bytes_of(&frame), now_ns());
            inbox.release(&frame);
            came += 1;
        }
        if came > 0 {
            let report = receiver.report();
            self.shared.received.store(report.received, Ordering::Relaxed);
            self.shared.heard.store(report.flows.len() as u64, Ordering::Relaxed);
        }
        Ok(came)
    }
}
