//! A guest that transmits, honestly or not, against a backend that can die at any step.

use std::collections::VecDeque;

use hypervisor::{GrantRef, PAGE_BYTES, Page};
use netif::limits::TX_PARTS_MAX;
use netif::model::TxFront;
use netif::ring::{Extra, ExtraInfo, RSP_PROD_OFFSET, TxRequest};
use netif::{Index, TxPacket, TxPart, TxRing, TxStatus};

use crate::bytes::Bytes;
use crate::limits::STEPS_MAX;

struct Run<'a> {
    page: &'a Page,
    front: TxFront<'a>,
    ring: TxRing<&'a Page>,
    log: (Index, Vec<u8>),
    taken: VecDeque<TxPacket>,
    /// The parts of packets that were sent as they should be, by the index of their first slot; empty once something
    /// else was sent.
    sent: VecDeque<(Index, Vec<TxPart>)>,
    next: Index,
    /// Was every slot made by the frontend's own rules, so far?
    honest: bool,
    /// Did the guest write into its page at will?
    tampered: bool,
}

/// Steps of a guest, and of backends.
pub fn netif_tx(data: &[u8]) {
    let mut bytes = Bytes(data);
    let page = Page::anonymous().expect("a page");
    let start = Index(bytes.word());
    let mut run = Run {
        page: &page,
        front: TxFront::new(&page, start),
        ring: TxRing::attach(&page).expect("an empty ring"),
        log: (start, Vec::new()),
        taken: VecDeque::new(),
        sent: VecDeque::new(),
        next: start,
        honest: true,
        tampered: false,
    };
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() || !run.step(&mut bytes) {
            break;
        }
    }
}

impl Run<'_> {
    /// One step; false if there can be no further.
    fn step(&mut self, bytes: &mut Bytes<'_>) -> bool {
        match bytes.below(16) {
            0..=3 => self.send(bytes),
            4 | 5 => {
                self.front.push();
            }
            6 | 7 => self.take(),
            8 | 9 => self.answer(bytes),
            10 | 11 => self.publish(),
            12 => return self.die(bytes),
            13 => {
                self.ring.final_check();
            }
            14 => self.raw(bytes),
            _ => self.tamper(bytes),
        }
        assert!(self.ring.unanswered() + self.ring.unpublished() <= 256);
        true
    }

    fn send(&mut self, bytes: &mut Bytes<'_>) {
        let parts: Vec<_> = (0..1 + bytes.below(TX_PARTS_MAX)).map(|_| part(bytes)).collect();
        // Behind half a packet, extra information would be taken for a request, with an id that is none.
        let extras = if self.honest && bytes.below(3) == 0 { vec![extra(bytes)] } else { vec![] };
        let slots = parts.len() + extras.len();
        let total: u32 = parts.iter().map(|part| u32::from(part.length_bytes)).sum();
        if slots > self.front.free_slots() as usize || !(14..=0xffff).contains(&total) {
            return;
        }
        self.front.packet(&parts, u16::from(bytes.byte() & 3), &extras);
        self.sent.push_back((self.next, parts));
        self.next = self.next.plus(u32::try_from(slots).expect("at most a ring"));
    }

    fn take(&mut self) {
        let Ok(packet) = self.ring.take() else {
            assert!(!self.honest, "an honest guest's ring is never at fault");
            return;
        };
        let Some(packet) = packet else { return };
        check(&packet);
        if self.honest {
            let sent = self.sent.iter().find(|(index, _)| *index == packet.index());
            assert_eq!(packet.fault(), None);
            assert_eq!(packet.parts(), sent.expect("it was sent").1);
        }
        self.taken.push_back(packet);
    }

    fn answer(&mut self, bytes: &mut Bytes<'_>) {
        let status = bytes.pick(&[TxStatus::Okay, TxStatus::Dropped, TxStatus::Error]);
        if let Some(packet) = self.taken.pop_front() {
            self.ring.answer(&packet, status);
        }
    }

    fn publish(&mut self) {
        self.ring.publish_logged(|index, responses| self.log = (index, responses.to_vec()));
        let reaped = self.front.reap();
        assert!(self.tampered || reaped.is_ok(), "{reaped:?}");
        let published = self.ring.published();
        while self.sent.front().is_some_and(|(index, _)| published.since(*index).wrapping_sub(1) < 256) {
            self.sent.pop_front();
        }
    }

    /// The backend dies, maybe while it publishes. A successor goes on unless the page is beyond belief.
    fn die(&mut self, bytes: &mut Bytes<'_>) -> bool {
        let before = self.ring.published();
        if bytes.below(2) == 0 {
            self.ring.publish_logged(|index, responses| self.log = (index, responses.to_vec()));
            self.page.store_u32(RSP_PROD_OFFSET, before.0);
        }
        self.taken.clear();
        let Ok(ring) = TxRing::attach(self.page) else {
            assert!(self.tampered);
            return false;
        };
        self.ring = ring;
        self.ring.redo(self.log.0, &self.log.1).is_ok()
    }

    /// Any request or extra information, also half a packet.
    fn raw(&mut self, bytes: &mut Bytes<'_>) {
        if self.front.free_slots() == 0 {
            return;
        }
        self.honest = false;
        if bytes.below(3) == 0 {
            // If no request announced it, it is taken for one, with an id that is none.
            self.tampered = true;
            return self.front.extra(ExtraInfo { more: bytes.below(2) == 0, ..extra(bytes) });
        }
        let [low, high] = [bytes.byte(), bytes.byte()];
        self.front.request(TxRequest {
            gref: GrantRef(bytes.word()),
            offset_bytes: u16::from_ne_bytes([low, high]),
            flags: u16::from(bytes.byte()),
            id: 0,
            size_bytes: u16::from_ne_bytes([bytes.byte(), bytes.byte()]),
        });
    }

    fn tamper(&mut self, bytes: &mut Bytes<'_>) {
        (self.honest, self.tampered) = (false, true);
        let offset = if bytes.below(2) == 0 { 4 * bytes.below(4) } else { 4 * bytes.below(256) };
        self.page.store_u32(offset, bytes.word());
    }
}

fn part(bytes: &mut Bytes<'_>) -> TxPart {
    let length_bytes = bytes.pick(&[14, 60, 1, 1448, 4096, 100, 2048, 15]);
    let offset_bytes = (u16::from(bytes.byte()) * 16).min(4096 - length_bytes);
    TxPart { gref: GrantRef(u32::from(bytes.byte())), offset_bytes, length_bytes }
}

/// Mostly what a packet may carry; `raw` sends it where it should not be.
fn extra(bytes: &mut Bytes<'_>) -> ExtraInfo {
    let extra = match bytes.below(4) {
        0 | 1 => Extra::Gso {
            size_bytes: 8 + u16::from(bytes.byte()) * 8,
            kind: 1 + bytes.byte() % 2,
            features: 0,
        },
        2 => Extra::Hash { kind: bytes.byte(), algorithm: 1, value: [bytes.byte(); 4] },
        _ => Extra::Xdp { headroom_bytes: 256 },
    };
    ExtraInfo { extra, more: false }
}

fn check(packet: &TxPacket) {
    for part in packet.parts() {
        let end = usize::from(part.offset_bytes) + usize::from(part.length_bytes);
        assert!(part.length_bytes > 0 && end <= PAGE_BYTES);
    }
    assert!(packet.parts().len() <= TX_PARTS_MAX);
    if packet.fault().is_none() && packet.multicast().is_none() {
        let total: usize = packet.parts().iter().map(|part| usize::from(part.length_bytes)).sum();
        assert_eq!(total, packet.length_bytes());
    } else {
        assert!(packet.parts().is_empty());
    }
}
