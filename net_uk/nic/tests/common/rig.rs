//! A card with its driver in this process and a peer at the far end, and what every kind of card must pass: each of these
//! functions is a test, given the specification.

use lane::{Consumer, Frame, FrameFlags, FrameMeta, Producer};
use nic::{Counters, Held, Kick, Link, Nic, Step};

use super::{Ledger, Peer, Stand, frame_of, ip, make_pair, wait_for};

pub type Port = Box<dyn Nic + Send>;

pub fn port_of(stand: &Stand) -> (Port, Consumer, Producer) {
    let (mut tx, mut rx) = (stand.lane.tx().consumer().unwrap(), stand.lane.rx().producer().unwrap());
    let port = stand.held.attach(&mut tx, &mut rx, stand.lane.words()).unwrap();
    (port, tx, rx)
}

/// The stable side, a driver, a peer at `far`, and what arrived at both ends.
pub struct Rig {
    pub stand: Stand,
    pub peer: Peer,
    pub port: Port,
    pub tx: Consumer,
    pub rx: Producer,
    pub there: Ledger,
    pub here: Ledger,
}

impl Rig {
    pub fn new(spec: &str, slots: u32) -> Self {
        let stand = Stand::new(spec, slots);
        let peer = Peer::new("far");
        let (port, tx, rx) = port_of(&stand);
        Self { stand, peer, port, tx, rx, there: Ledger::default(), here: Ledger::default() }
    }

    /// Moves frames until so many have arrived at the far end and at this one.
    pub fn settle(&mut self, there: u64, here: u64) {
        wait_for("all frames", || {
            self.port.transmit(&mut self.tx).unwrap();
            self.port.kick().unwrap();
            self.port.receive(&mut self.rx).unwrap();
            self.stand.receive(&mut self.here);
            self.peer.drain(&mut self.there);
            self.there.received == there && self.here.received == here
        });
    }

    /// As [`Rig::settle`]; and each arrived once, in order and undamaged.
    pub fn settle_perfect(&mut self, there: u64, here: u64, what: &str) {
        self.settle(there, here);
        self.there.assert_perfect(there, what);
        self.here.assert_perfect(here, what);
    }

    /// The next frame from the wire; it stays in the lane.
    pub fn next_from_wire(&mut self) -> Frame {
        let mut frame = None;
        wait_for("the frame", || {
            self.port.receive(&mut self.rx).unwrap();
            frame = self.stand.rx.peek().unwrap();
            frame.is_some()
        });
        frame.unwrap()
    }
}

/// Many frames both ways at once.
pub fn both_ways(spec: &str) {
    let mut rig = Rig::new(spec, 256);
    assert_eq!(rig.port.link().unwrap(), Link::Up);
    for seq in 0..3000 {
        assert!(rig.stand.send(seq));
        if seq % 10 == 9 {
            rig.port.transmit(&mut rig.tx).unwrap();
            rig.port.kick().unwrap();
        }
        rig.peer.send(&frame_of(seq));
        if seq % 7 == 0 {
            rig.port.receive(&mut rig.rx).unwrap();
            rig.stand.receive(&mut rig.here);
        }
        rig.peer.drain(&mut rig.there);
    }
    rig.settle_perfect(3000, 3000, spec);
    assert_eq!(rig.port.counters().unwrap(), Counters::default());
}

/// Frames that cannot be sent are counted, and those between them are sent.
pub fn malformed_frames(spec: &str) {
    let mut rig = Rig::new(spec, 512);
    let blank = FrameFlags::CSUM_BLANK;
    let bad = [
        (FrameFlags::VOID, 0, 100),
        (FrameFlags::NONE, 0, 13),
        (FrameFlags::NONE, 0, 1519),
        (FrameFlags::NONE, 0, 65_562),
        (blank, 0, 100),
        (blank | FrameFlags::GSO_V4, 1448, 9000),
    ];
    for (seq, (flags, gso_bytes, length)) in (0..60).zip(bad.into_iter().cycle()) {
        let meta = FrameMeta { flags, gso_bytes, ..FrameMeta::default() };
        assert!(rig.stand.tx.push(&vec![8; length], &meta).unwrap());
        assert!(rig.stand.send(seq));
        wait_for("room", || {
            rig.port.transmit(&mut rig.tx).unwrap();
            rig.port.kick().unwrap();
            rig.tx.backlog_slots().unwrap() == 0
        });
    }
    rig.settle_perfect(60, 0, spec);
    assert_eq!(rig.port.counters().unwrap().tx_refused, 60, "{spec}");
}

/// Frames beyond the kernel's ring, which has 16 slots, are lost and counted; what was in it is not.
pub fn full_receive_ring(spec: &str) {
    let mut rig = Rig::new(spec, 256);
    for seq in 0..20 {
        rig.peer.send(&frame_of(seq));
    }
    rig.settle(0, 16);
    assert_eq!(rig.port.counters().unwrap().rx_dropped, 4, "{spec}");
}

/// A lane without room leaves the frames with the kernel.
pub fn full_lane(spec: &str) {
    let mut rig = Rig::new(spec, 64);
    for seq in 0..500 {
        rig.peer.send(&frame_of(seq));
    }
    wait_for("a full lane", || rig.port.receive(&mut rig.rx).unwrap().blocked);
    rig.settle_perfect(0, 500, "a full lane");
}

/// A tag reaches the lane where it was on the wire.
pub fn vlan_tag(spec: &str) {
    let mut rig = Rig::new(spec, 64);
    let mut tagged = vec![0xff; 12];
    tagged.extend([0x81, 0, 0x20, 5, 0x88, 0xb5]);
    tagged.extend([7; 80]);
    rig.peer.send(&tagged);
    let frame = rig.next_from_wire();
    assert_eq!(rig.stand.rx.bytes_of(&frame), tagged, "{spec}");
}

/// A driver that knows that its device is gone leaves all in the lane. The device stays away.
pub fn gone_device(spec: &str) {
    let mut rig = Rig::new(spec, 64);
    assert!(ip("link del near"));
    assert_eq!(rig.port.kick().unwrap(), Kick::Down);
    assert!(rig.stand.send(0));
    assert_eq!(rig.port.transmit(&mut rig.tx).unwrap().taken(), 0, "{spec}");
    assert_eq!(rig.port.kick().unwrap(), Kick::Down);
    assert!(rig.tx.peek().unwrap().is_some());
    assert_eq!(rig.port.counters().unwrap().tx_refused, 0);
}

/// A driver dies after a step has been done `count` times. If it is one of recovery, its successor dies too, after it has
/// been done `again` times. Nothing is lost, doubled, reordered or damaged.
/// Would whoever waits for frames be woken up?
pub fn wakes(port: &Port) -> bool {
    let mut polled = [rustix::event::PollFd::from_borrowed_fd(port.poll_fd(), rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&now)).unwrap() == 1
}

/// A bit flips in the first frame of the lane while no driver runs: one is lost and counted, and a driver begins. (None did: each
/// ended at the first look, which only a living one takes again.)
pub fn damaged_head(spec: &str, device: &str) {
    let mut stand = Stand::new(spec, 64);
    assert!(ip(&format!("link set {device} up")));
    for seq in 0..3 {
        assert!(stand.send(seq));
    }
    let region = stand.lane.region().clone();
    let mut bytes = vec![0; region.length_bytes()];
    region.read(0, &mut bytes);
    let frame = frame_of(0);
    let at = bytes.windows(frame.len()).position(|window| window == frame).unwrap();
    region.u64(at.next_multiple_of(8)).fetch_xor(1 << 17, std::sync::atomic::Ordering::Relaxed);
    let (mut port, mut tx, _rx) = port_of(&stand);
    wait_for("the other frames", || {
        // The first look may doubt it; a driver looks again.
        let _ = port.transmit(&mut tx);
        tx.committed().frames == 3
    });
    assert_eq!(stand.lane.words().counts().tx_damaged, 1, "{spec}");
    if device == "near" {
        let (peer, mut there) = (Peer::new("far"), Ledger::default());
        wait_for("them at the other end", || {
            port.kick().unwrap();
            peer.drain(&mut there);
            there.received == 2
        });
    }
}

/// A device that is taken away and comes back is another one: what waited for the old one goes over the new one, once and
/// in order, before what comes later.
pub fn next_device(spec: &str) {
    let mut rig = Rig::new(spec, 512);
    for seq in 0..20 {
        assert!(rig.stand.send(seq));
    }
    rig.settle(20, 0);
    for seq in 0..10 {
        rig.peer.send(&frame_of(seq));
    }
    wait_for("frames in the kernel's ring", || wakes(&rig.port));
    assert!(ip("link del near"));
    // What had arrived can still be taken. No kick: the driver does not know yet.
    wait_for("what had arrived", || {
        rig.port.receive(&mut rig.rx).unwrap();
        rig.stand.receive(&mut rig.here);
        rig.here.received == 10
    });
    for seq in 20..80 {
        assert!(rig.stand.send(seq));
    }
    // Fills the ring across its end, and leaves some in the lane if that is shorter.
    let handed = rig.port.transmit(&mut rig.tx).unwrap().frames;
    assert!((40..=60).contains(&handed), "{handed}");
    assert_eq!(rig.port.kick().unwrap(), Kick::Down);
    drop(rig.port);
    assert!(make_pair(""));
    rig.peer = Peer::new("far");
    let new = Held::open_waiting(rig.stand.held.spec()).unwrap();
    assert_eq!(new.carry_over(&rig.stand.held, &rig.stand.lane).unwrap(), handed);
    rig.stand.held = new;
    (rig.port, rig.tx, rig.rx) = port_of(&rig.stand);
    rig.peer.send(&frame_of(10));
    rig.settle_perfect(80, 11, spec);
}

pub fn die_at(spec: &str, step: Step, count: u32, again: u32) {
    const FRAMES: u64 = 200;
    let recovering = matches!(step, Step::Placed | Step::TxRecovered | Step::RxRecovered);
    let mut stand = Stand::new(spec, 512);
    let peer = Peer::new("far");
    // Recovery has something to do only after another death.
    let first = match step {
        Step::TxRecovered => (Step::TxMarked, 3),
        Step::RxRecovered => (Step::RxPublished, 1),
        _ => (step, count),
    };
    for seq in 0..FRAMES {
        assert!(stand.send(seq));
        if seq < 60 {
            peer.send(&frame_of(seq));
        }
    }
    let mut driver = stand.driver(Some(first));
    let (mut there, mut here, mut sent) = (Ledger::default(), Ledger::default(), 60);
    let mut lives = 1;
    let what = format!("{spec} {step:?} {count}");
    wait_for(&what, || {
        if driver.has_ended() {
            lives += 1;
            driver = stand.driver((recovering && lives == 2).then_some((step, again)));
        }
        peer.drain(&mut there);
        stand.receive(&mut here);
        while sent < FRAMES && sent < here.received + 30 {
            peer.send(&frame_of(sent));
            sent += 1;
        }
        there.received == FRAMES && here.received == FRAMES
    });
    drop(driver);
    peer.drain(&mut there);
    stand.receive(&mut here);
    there.assert_perfect(FRAMES, &what);
    here.assert_perfect(FRAMES, &what);
    // Each place is reached at least once; more often only if there is enough to do in one life.
    if count == 1 {
        assert_eq!(lives, if recovering { 3 } else { 2 }, "{what}");
    }
}
