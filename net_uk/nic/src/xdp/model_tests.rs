//! Drivers against a model of the kernel in plain memory: they die at any step, and the rings' indices wrap.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use hypervisor::Region;
use lane::{Consumer, FrameFlags, FrameMeta, Lane, Producer};

use crate::error::Result;
use crate::mapping::Mapping;
use crate::nic::Done;
use crate::spec::NicSpec;
use crate::step::{Step, Steps};
use crate::xdp::book::{Book, Note};
use crate::xdp::held::Layout;
use crate::xdp::ring::{Ring, RingKind};
use crate::xdp::rx::RxQueue;
use crate::xdp::tx::TxQueue;

const QUEUES: usize = 2;
const RINGS: [RingKind; 4] = [RingKind::Fill, RingKind::Receive, RingKind::Send, RingKind::Completion];

/// Ends a driver after so many steps.
struct Fuse(u32);

/// What a driver dies of.
struct Death;

impl Steps for Fuse {
    fn done(&mut self, _step: Step) {
        if self.0 == 0 {
            resume_unwind(Box::new(Death));
        }
        self.0 -= 1;
    }
}

fn frame_of(seq: u64) -> Vec<u8> {
    let mut frame = vec![u8::try_from(seq % 251).unwrap(); 60 + usize::try_from(seq % 1400).unwrap()];
    frame[14..22].copy_from_slice(&seq.to_le_bytes());
    frame
}

fn seq_of(frame: &[u8]) -> u64 {
    let seq = u64::from_le_bytes(frame[14..22].try_into().unwrap());
    assert_eq!(frame, frame_of(seq), "damaged");
    seq
}

/// Kernel, wire, shadow and the memory of all.
struct World {
    rng: fastrand::Rng,
    layout: Layout,
    memory: OwnedFd,
    rings: OwnedFd,
    lane: Lane,
    to_wire: Producer,
    from_wire: Consumer,
    frames: Vec<Mapping>,
    /// What the kernel took from the fill rings.
    filled: [u32; QUEUES],
    /// Memory that the kernel sends from.
    sending: Vec<u64>,
    /// Numbers of frames: pushed by the shadow, sent on the wire, arrived from the wire at each queue, come to the shadow.
    pushed: u64,
    sent: Vec<u64>,
    arrived: [u64; QUEUES],
    came: [u64; QUEUES],
    deaths: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let layout = Layout::new(&"xdp:a,rx=16,tx=16".parse::<NicSpec>().unwrap());
        let bytes = layout.bytes(&NicSpec::xdp("a"), QUEUES).unwrap();
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let (memory, rings) = (
            rustix::fs::memfd_create("frames", flags).unwrap(),
            rustix::fs::memfd_create("rings", flags).unwrap(),
        );
        rustix::fs::ftruncate(&memory, bytes).unwrap();
        rustix::fs::ftruncate(&rings, 4096 * 4 * QUEUES as u64).unwrap();
        let region = Arc::new(Region::create("lane", Lane::bytes(64, 64)).unwrap());
        let lane = Lane::create(region, 64, 64).unwrap();
        let (to_wire, from_wire) = (lane.tx().producer().unwrap(), lane.rx().consumer().unwrap());
        let frames = (0..QUEUES).map(|queue| layout.map_area(&memory, queue).unwrap()).collect();
        let first = u32::MAX - rng.u32(0..60);
        let book = Book::create(&memory, layout.tx_slots, 2).unwrap();
        let world = Self {
            rng,
            layout,
            memory,
            rings,
            lane,
            to_wire,
            from_wire,
            frames,
            filled: [first; QUEUES],
            sending: vec![],
            pushed: 0,
            sent: vec![],
            arrived: [0; QUEUES],
            came: [0; QUEUES],
            deaths: 0,
        };
        for queue in 0..QUEUES {
            for kind in RINGS {
                world.ring(queue, kind).produce(first);
                world.ring(queue, kind).consume(first);
            }
            let fill = world.ring(queue, RingKind::Fill);
            for slot in 0..layout.rx_slots {
                fill.set_address(first.wrapping_add(slot), u64::from(slot) * layout.chunk_bytes as u64);
            }
            fill.produce(first.wrapping_add(layout.rx_slots));
            book.set_rx_note(queue, Note { frames: 0, index: first });
        }
        world.tx_queue().begin(&book, &world.lane.tx().consumer().unwrap());
        world
    }

    fn ring(&self, queue: usize, kind: RingKind) -> Ring {
        let at = RINGS.iter().position(|known| *known == kind).unwrap();
        let slots = if matches!(kind, RingKind::Fill | RingKind::Receive) {
            self.layout.rx_slots
        } else {
            self.layout.tx_slots
        };
        Ring::in_memory(&self.rings, (queue * 4 + at) as u64, kind, slots).unwrap()
    }

    fn rx_queue(&self, queue: usize) -> RxQueue {
        let (fill, ring) = (self.ring(queue, RingKind::Fill), self.ring(queue, RingKind::Receive));
        RxQueue::in_memory(queue, fill, ring, &self.memory, self.layout).unwrap()
    }

    fn tx_queue(&self) -> TxQueue {
        let (ring, completions) = (self.ring(0, RingKind::Send), self.ring(0, RingKind::Completion));
        TxQueue::in_memory(ring, completions, &self.memory, self.layout).unwrap()
    }

    /// A driver from its start on, until it dies or its turns are over. Says whether it lives.
    fn drive(&mut self, turns: u32, fuse: u32) -> bool {
        let mut fuse = Fuse(fuse);
        match catch_unwind(AssertUnwindSafe(|| self.serve(turns, &mut fuse))) {
            Ok(served) => served.map(|()| true).unwrap(),
            Err(cause) if cause.is::<Death>() => {
                self.deaths += 1;
                false
            }
            Err(cause) => resume_unwind(cause),
        }
    }

    fn serve(&mut self, turns: u32, fuse: &mut Fuse) -> Result<()> {
        let (mut tx, mut rx) = (self.lane.tx().consumer()?, self.lane.rx().producer()?);
        let book = Book::open(&self.memory, self.layout.tx_slots, QUEUES)?;
        let (sender, receivers) = (self.tx_queue(), [self.rx_queue(0), self.rx_queue(1)]);
        sender.recover(&mut tx, &book, fuse)?;
        for queue in &receivers {
            queue.recover(&book, rx.published().frames, fuse)?;
        }
        for _ in 0..turns {
            self.world_turns();
            sender.transmit(&mut tx, &book, fuse)?;
            let mut done = Done::default();
            for queue in &receivers {
                queue.receive(&mut rx, &book, &mut done, fuse)?;
            }
        }
        Ok(())
    }

    /// Everybody else does something.
    fn world_turns(&mut self) {
        for _ in 0..self.rng.u32(0..12) {
            match self.rng.u32(0..6) {
                0 | 1 => self.wire_brings(),
                2 => self.shadow_sends(),
                3 => self.kernel_sends(),
                4 => self.kernel_completes(),
                _ => self.shadow_receives(),
            }
        }
    }

    fn wire_brings(&mut self) {
        let queue = self.rng.usize(0..QUEUES);
        let (fill, ring) = (self.ring(queue, RingKind::Fill), self.ring(queue, RingKind::Receive));
        let waiting = fill.produced().wrapping_sub(self.filled[queue]);
        assert!(waiting <= self.layout.rx_slots, "more memory than there is");
        if waiting == 0 {
            return;
        }
        let chunk = fill.address(self.filled[queue]);
        self.filled[queue] = self.filled[queue].wrapping_add(1);
        let (frame, at) = (frame_of(self.arrived[queue]), chunk + 256);
        self.arrived[queue] += 1;
        // SAFETY: a driver gave this memory to the kernel, which is here; there is no other thread.
        unsafe { self.frames[queue].bytes_mut(usize::try_from(at).unwrap(), frame.len()) }
            .copy_from_slice(&frame);
        let index = ring.produced();
        assert!(index.wrapping_sub(ring.consumed()) < self.layout.rx_slots, "the ring overflows");
        ring.set_frame(index, at, frame.len());
        ring.produce(index.wrapping_add(1));
    }

    fn shadow_sends(&mut self) {
        for _ in 0..self.rng.u32(0..8) {
            let void = self.rng.u32(0..4) == 0;
            let flags = if void { FrameFlags::VOID } else { FrameFlags::NONE };
            let meta = FrameMeta { flags, ..FrameMeta::default() };
            if self.to_wire.push(&frame_of(self.pushed), &meta).unwrap() && !void {
                self.pushed += 1;
            }
        }
    }

    fn kernel_sends(&mut self) {
        let ring = self.ring(0, RingKind::Send);
        for _ in 0..self.rng.u32(0..10).min(ring.waiting().unwrap()) {
            let index = ring.consumed();
            let (address, length_bytes) = (ring.address(index), ring.length_bytes(index));
            // SAFETY: a driver gave this memory to the kernel, which is here; there is no other thread.
            let bytes = unsafe { self.frames[0].bytes(usize::try_from(address).unwrap(), length_bytes) };
            self.sent.push(seq_of(bytes));
            assert!(!self.sending.contains(&address), "memory of a frame that is being sent");
            self.sending.push(address);
            ring.consume(index.wrapping_add(1));
        }
    }

    /// In any order.
    fn kernel_completes(&mut self) {
        let ring = self.ring(0, RingKind::Completion);
        for _ in 0..self.rng.usize(0..10).min(self.sending.len()) {
            let at = self.rng.usize(0..self.sending.len());
            let index = ring.produced();
            ring.set_address(index, self.sending.swap_remove(at));
            ring.produce(index.wrapping_add(1));
        }
    }

    fn shadow_receives(&mut self) {
        while let Some(frame) = self.from_wire.peek().unwrap() {
            let queue = usize::from(frame.meta().source);
            assert_eq!(seq_of(&self.from_wire.bytes_of(&frame)), self.came[queue], "from queue {queue}");
            self.came[queue] += 1;
            self.from_wire.release(&frame);
        }
    }

    /// Until nothing is under way.
    fn settle(&mut self) {
        for _ in 0..200 {
            let mut fuse = Fuse(u32::MAX);
            let (mut tx, mut rx) = (self.lane.tx().consumer().unwrap(), self.lane.rx().producer().unwrap());
            let book = Book::open(&self.memory, self.layout.tx_slots, QUEUES).unwrap();
            self.tx_queue().transmit(&mut tx, &book, &mut fuse).unwrap();
            for queue in 0..QUEUES {
                let mut done = Done::default();
                self.rx_queue(queue).receive(&mut rx, &book, &mut done, &mut fuse).unwrap();
            }
            self.kernel_sends();
            self.kernel_completes();
            self.shadow_receives();
        }
    }

    fn check(&self) {
        assert_eq!(self.came, self.arrived, "from the wire");
        assert!(
            self.sent.iter().copied().eq(0..self.pushed),
            "to the wire: {:?} of {}",
            self.sent,
            self.pushed
        );
    }
}

/// Drivers that die after any number of steps, again and again, also while they recover.
#[test]
fn deaths_anywhere_lose_and_double_nothing() {
    let (mut deaths, mut frames) = (0, 0);
    for seed in 0..100 {
        let mut world = World::new(seed);
        for _ in 0..25 {
            let fuse = world.rng.u32(0..60);
            world.drive(10, fuse);
        }
        // Nobody dies any more, and all that is under way arrives.
        assert!(world.drive(1, u32::MAX), "a driver died by itself");
        world.settle();
        world.check();
        deaths += world.deaths;
        frames += world.pushed + world.arrived.iter().sum::<u64>();
    }
    assert!(deaths > 1000 && frames > 5_000, "{deaths} deaths, {frames} frames");
}
