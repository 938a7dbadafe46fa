//! The frontend's rings against a backend that echoes, and one that breaks each rule.
#![allow(clippy::unwrap_used)]
#![forbid(unsafe_code)]

#[allow(dead_code, reason = "each test file uses a part")]
mod echo;
#[allow(dead_code, reason = "each test file uses a part")]
mod model;

use echo::Echo;
use hypervisor::local::{Access, Broker, GuestMemory, LocalEvents};
use hypervisor::{DomId, EventChannels, GrantRef};
use model::Lab;
use sim_guest::limits::{RING_SLOTS, RX_BUDGET, RX_COPY_BYTES, RX_FRAGMENTS_MAX, TX_SLOTS_SPARE};
use sim_guest::net::ring::RSP_PROD_OFFSET;
use sim_guest::net::wire::{self, Gso, GsoKind, TxRequest};
use sim_guest::net::{BadFrame, Broken, Pages, Queue, Splits, TxFrame};

struct Rig {
    events: LocalEvents,
    queue: Queue,
    echo: Echo,
    memory: GuestMemory,
    received: Vec<Vec<u8>>,
    large: Vec<Option<Gso>>,
    random: fastrand::Rng,
    _lab: Lab,
}

impl Rig {
    fn start() -> Self {
        let lab = Lab::start();
        let broker = || Broker::connect(&lab.socket).unwrap();
        let mut events = LocalEvents::open(broker(), lab.domid).unwrap();
        let pages = Pages::new(broker().guest_memory(lab.domid).unwrap(), DomId::DOM0, 100);
        let mut queue = Queue::open(pages, &mut events, DomId::DOM0, false).unwrap();
        queue.fill(&mut events).unwrap();
        let keys = queue.keys();
        let number = |key| keys.iter().find(|(name, _)| *name == key).unwrap().1.parse().unwrap();
        let echo = Echo::connect(
            &lab.socket,
            lab.domid,
            GrantRef(number("tx-ring-ref")),
            GrantRef(number("rx-ring-ref")),
            hypervisor::Port(number("event-channel")),
        );
        let memory = broker().guest_memory(lab.domid).unwrap();
        let (received, large, random) = (vec![], vec![], fastrand::Rng::with_seed(3));
        let mut rig = Self { events, queue, echo, memory, received, large, random, _lab: lab };
        rig.serve().unwrap();
        rig
    }

    fn send(&mut self, frame: &TxFrame<'_>, splits: Splits) {
        let fragments = splits.fragments(frame.bytes.len(), &mut self.random);
        self.queue.send(&mut self.events, frame, &fragments).unwrap();
    }

    /// Serves events as an interrupt does. Gives what the backend did wrong.
    fn serve(&mut self) -> Result<(), Broken> {
        let mut outcome = Ok(());
        while let Some(port) = self.events.pending().unwrap() {
            outcome = outcome.and(self.queue.sent(port).map(drop));
            let (received, large) = (&mut self.received, &mut self.large);
            let mut hand_on = |frame: sim_guest::net::RxFrame<'_>| {
                received.push(frame.bytes.to_vec());
                large.push(frame.gso);
            };
            let taken = self.queue.receive(port, &mut self.events, &mut hand_on).unwrap();
            outcome = outcome.and(taken.map(drop));
            self.events.unmask(port).unwrap();
        }
        outcome
    }

    /// Lets the backend do something and notify, and gives what it did wrong.
    fn provoke(&mut self, act: impl FnOnce(&mut Echo)) -> Result<(), Broken> {
        act(&mut self.echo);
        self.echo.notify();
        self.serve()
    }

    /// A request under way, as the backend sees it.
    fn request(&mut self) -> TxRequest {
        let number = self.queue.tx.ring().req_prod();
        self.send(&TxFrame::plain(&[7; 60]), Splits::Whole);
        let mut slot = [0; 12];
        self.echo.tx.read(64 + (number % RING_SLOTS) as usize * 12, &mut slot);
        TxRequest::decode(slot)
    }

    fn bad(&self) -> Vec<(BadFrame, u64)> {
        self.queue.rx.stats().bad.iter().map(|(reason, count)| (*reason, *count)).collect()
    }
}

#[test]
fn frames_of_all_sizes_and_splits_come_back_in_order() {
    let mut rig = Rig::start();
    let mut sent: Vec<Vec<u8>> = vec![];
    for round in 0..3000_usize {
        let splits = [Splits::Whole, Splits::Random, Splits::Tiny][round % 3];
        let most = if round.is_multiple_of(4) { 65_535 } else { 1514 };
        let mut bytes = vec![0; rig.random.usize(60..=most)];
        rig.random.fill(&mut bytes);
        let gso =
            Gso { size: 1448, kind: if round.is_multiple_of(8) { GsoKind::TcpV4 } else { GsoKind::TcpV6 } };
        let frame = if most > 1514 { TxFrame::large(&bytes, gso) } else { TxFrame::plain(&bytes) };
        rig.send(&frame, splits);
        sent.push(bytes);
        if rig.random.bool() || !rig.queue.tx.has_room() {
            rig.echo.step();
            rig.serve().unwrap();
        }
    }
    rig.echo.step();
    rig.serve().unwrap();
    assert_eq!(rig.echo.dropped, 0);
    assert!(rig.echo.frames.iter().map(|(bytes, _)| bytes).eq(&sent), "the backend got what was sent");
    assert!(rig.received == sent, "the guest got it back");
    assert!(rig.echo.frames.iter().map(|(_, gso)| gso).eq(&rig.large));
    let (tx, rx) = (rig.queue.tx.stats(), rig.queue.rx.stats());
    assert_eq!((tx.frames, tx.extras, rx.frames, rx.large), (3000, 750, 3000, 750));
    assert_eq!((tx.okay + tx.null, tx.null, tx.errors + tx.dropped + tx.odd), (tx.requests, tx.extras, 0));
    assert_eq!((rig.queue.tx.in_flight(), rig.queue.rx.posted()), (0, RING_SLOTS));
    assert_eq!(rig.bad(), []);
}

#[test]
fn the_checksum_is_left_to_the_backend_in_large_frames() {
    let mut rig = Rig::start();
    let gso = Gso { size: 1448, kind: GsoKind::TcpV4 };
    rig.send(&TxFrame::large(&[1; 3000], gso), Splits::Whole);
    let mut slot = [0; 12];
    rig.echo.tx.read(64, &mut slot);
    let request = TxRequest::decode(slot);
    assert_eq!(request.flags, wire::CSUM_BLANK | wire::DATA_VALIDATED | wire::EXTRA_INFO);
    assert_eq!(request.size, 3000);
    rig.echo.tx.read(64 + 12, &mut slot);
    assert_eq!(slot, [1, 0, 168, 5, 1, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_full_ring_has_no_room_and_notifies_by_the_backends_wish() {
    let mut rig = Rig::start();
    rig.echo.events();
    let mut sent = 0;
    while rig.queue.tx.has_room() {
        rig.send(&TxFrame::plain(&[7; 60]), Splits::Whole);
        sent += 1;
    }
    assert_eq!(sent, RING_SLOTS - TX_SLOTS_SPARE);
    assert_eq!(rig.queue.tx.stats().notified, 1, "the backend asked for the first alone");
    assert_eq!(rig.echo.events(), 1);
    rig.echo.step();
    rig.serve().unwrap();
    assert!(rig.queue.tx.has_room());
}

#[test]
fn the_bound_on_frames_in_one_go_is_reached_and_kept() {
    let mut rig = Rig::start();
    let frames = u64::try_from(RX_BUDGET).unwrap() + 1;
    (0..frames).for_each(|_| rig.echo.send(&[1; 60], None, 0));
    let pages = Pages::new(rig.memory, DomId::DOM0, 100);
    let mut taken = 0;
    assert!(rig.queue.rx.take(&pages, &mut |_| taken += 1).unwrap());
    assert_eq!(taken, RX_BUDGET);
    assert!(!rig.queue.rx.take(&pages, &mut |_| taken += 1).unwrap());
    assert_eq!(taken, RX_BUDGET + 1);
}

#[test]
fn errors_and_drops_of_the_backend_are_no_breach() {
    let mut rig = Rig::start();
    for status in [wire::STATUS_ERROR, wire::STATUS_DROPPED, 17] {
        let id = rig.request().id;
        assert_eq!(rig.provoke(|echo| echo.tx_response(id, status)), Ok(()));
    }
    let tx = rig.queue.tx.stats();
    assert_eq!((tx.okay, tx.errors, tx.dropped, tx.odd), (0, 1, 1, 1));
}

#[test]
fn a_second_response_is_a_breach() {
    let mut rig = Rig::start();
    let (first, _second) = (rig.request().id, rig.request().id);
    assert_eq!(rig.provoke(|echo| echo.tx_response(first, 0)), Ok(()));
    assert_eq!(rig.provoke(|echo| echo.tx_response(first, 0)), Err(Broken::TxInactiveId));
}

#[test]
fn a_response_without_a_request_is_a_breach() {
    let mut rig = Rig::start();
    assert_eq!(rig.provoke(|echo| echo.tx_response(0, 0)), Err(Broken::TxTooManyResponses));
    let mut rig = Rig::start();
    rig.request();
    let backwards = |echo: &mut Echo| echo.tx.store_u32(RSP_PROD_OFFSET, u32::MAX);
    assert_eq!(rig.provoke(backwards), Err(Broken::TxTooManyResponses));
}

#[test]
fn a_number_out_of_range_is_a_breach() {
    let mut rig = Rig::start();
    rig.request();
    assert_eq!(rig.provoke(|echo| echo.tx_response(256, 0)), Err(Broken::TxIdOutOfRange));
}

#[test]
fn a_sent_page_that_is_still_in_use_is_a_breach() {
    let mut rig = Rig::start();
    let request = rig.request();
    rig.memory.mark_in_use(request.gref);
    assert_eq!(rig.provoke(|echo| echo.tx_response(request.id, 0)), Err(Broken::TxGrantInUse));
}

#[test]
fn a_null_response_keeps_the_number_busy() {
    let mut rig = Rig::start();
    let id = rig.request().id;
    assert_eq!(rig.provoke(|echo| echo.tx_response(id, wire::STATUS_NULL)), Ok(()));
    assert_eq!((rig.queue.tx.in_flight(), rig.queue.tx.room()), (0, 255));
}

#[test]
fn more_responses_than_buffers_are_a_breach() {
    let mut rig = Rig::start();
    let overflow = |echo: &mut Echo| echo.rx.store_u32(RSP_PROD_OFFSET, RING_SLOTS + 1);
    assert_eq!(rig.provoke(overflow), Err(Broken::RxTooManyResponses));
}

#[test]
fn responses_that_are_taken_back_are_a_breach() {
    let mut rig = Rig::start();
    for _ in 0..3 {
        rig.echo.send(&[1; 60], None, 0);
    }
    assert_eq!(rig.queue.rx.notice(), Ok(true));
    rig.echo.rx.store_u32(RSP_PROD_OFFSET, 2);
    assert_eq!(rig.queue.rx.notice(), Err(Broken::RxBackwards));
}

#[test]
fn a_response_in_anothers_slot_is_a_breach() {
    let mut rig = Rig::start();
    let wrong = |echo: &mut Echo| echo.rx_response(echo.next_id() + 1, 0, 0, 60);
    assert_eq!(rig.provoke(wrong), Err(Broken::RxWrongSlot));
    assert_eq!(rig.received, [] as [Vec<u8>; 0]);
}

#[test]
fn a_buffer_that_is_still_in_use_is_a_breach() {
    let mut rig = Rig::start();
    let mut slot = [0; 8];
    rig.echo.rx.read(64, &mut slot);
    let gref = u32::from_ne_bytes(slot[4..].try_into().unwrap());
    rig.memory.mark_in_use(GrantRef(gref));
    let breach = rig.provoke(|echo| echo.rx_response(0, 0, 0, 60));
    assert_eq!(breach, Err(Broken::RxGrantInUse));
}

/// Bad frames are dropped and the next one is taken: no buffer is lost.
fn bad_frame(act: impl FnOnce(&mut Echo)) -> Vec<(BadFrame, u64)> {
    let mut rig = Rig::start();
    assert_eq!(rig.provoke(act), Ok(()));
    assert_eq!(rig.received.len(), 0);
    assert_eq!(rig.queue.rx.posted(), RING_SLOTS);
    for _ in 0..600 {
        assert_eq!(rig.provoke(|echo| echo.send(b"after", None, 0)), Ok(()));
    }
    assert_eq!(rig.received, vec![b"after".to_vec(); 600]);
    rig.bad()
}

#[test]
fn bad_frames_are_dropped_as_in_linux() {
    let one = |reason| vec![(reason, 1)];
    let error = |echo: &mut Echo| echo.rx_response(echo.next_id(), 0, 0, -1);
    assert_eq!(bad_frame(error), one(BadFrame::Status));
    let past = |echo: &mut Echo| echo.rx_response(echo.next_id(), 4000, 0, 97);
    assert_eq!(bad_frame(past), one(BadFrame::Range));
    let alone = |echo: &mut Echo| echo.rx_response(echo.next_id(), 0, wire::EXTRA_INFO, 60);
    assert_eq!(bad_frame(alone), one(BadFrame::MissingExtra));
    let cut = |echo: &mut Echo| echo.fill(&[1; 60], 0, wire::MORE_DATA);
    assert_eq!(bad_frame(cut), one(BadFrame::MissingSlots));
    for (extra, reason) in [
        ([0, 0, 0, 0, 0, 0, 0, 0], BadFrame::UnknownExtra),
        ([5, 0, 0, 0, 0, 0, 0, 0], BadFrame::UnknownExtra),
        ([1, 0, 0, 0, 1, 0, 0, 0], BadFrame::Segments),
        ([1, 0, 9, 0, 7, 0, 0, 0], BadFrame::Segments),
        ([4, 1, 0, 0, 0, 0, 0, 0], BadFrame::MissingExtra),
    ] {
        let with_extra = |echo: &mut Echo| {
            echo.fill(&[1; 60], 0, wire::EXTRA_INFO);
            echo.rx_raw(extra);
        };
        assert_eq!(bad_frame(with_extra), one(reason), "{extra:?}");
    }
}

fn fragments(first_bytes: usize, count: usize) -> impl FnOnce(&mut Echo) {
    move |echo| {
        echo.fill(&vec![1; first_bytes], 0, wire::MORE_DATA);
        (2..count).for_each(|_| echo.fill(&[2; 10], 0, wire::MORE_DATA));
        echo.fill(&[3; 10], 0, 0);
    }
}

#[test]
fn the_bound_on_slots_of_a_frame_is_reached_and_kept() {
    let long = RX_COPY_BYTES + 1;
    let mut rig = Rig::start();
    assert_eq!(rig.provoke(fragments(long, RX_FRAGMENTS_MAX)), Ok(()));
    assert_eq!(rig.provoke(fragments(RX_COPY_BYTES, RX_FRAGMENTS_MAX + 1)), Ok(()));
    assert_eq!(rig.received.len(), 2);
    assert_eq!(bad_frame(fragments(long, RX_FRAGMENTS_MAX + 1)), [(BadFrame::TooManySlots, 1)]);
    assert_eq!(bad_frame(fragments(RX_COPY_BYTES, RX_FRAGMENTS_MAX + 2)), [(BadFrame::TooManySlots, 1)]);
}

#[test]
fn a_closed_queue_leaves_no_grants_and_no_ports() {
    let mut rig = Rig::start();
    rig.request();
    let port = rig.queue.ports()[0];
    rig.queue.close(&mut rig.events).unwrap();
    assert!(rig.events.notify(port).is_err());
    // All grants but the reserved ones are free again.
    for _ in 8..hypervisor::limits::GRANTS_MAX {
        rig.memory.grant(DomId::DOM0, 1, Access::Read).unwrap();
    }
}
