//! A guest that receives, honestly or not, against a backend that can die at any step.

use std::collections::VecDeque;

use hypervisor::{GrantRef, Page};
use netif::limits::{FRAME_BYTES_MAX, RX_PARTS_MAX};
use netif::model::RxFront;
use netif::ring::RSP_PROD_OFFSET;
use netif::{Checksum, FrameMeta, Gso, Index, RxPlan, RxRing, RxStatus};

use crate::bytes::Bytes;
use crate::limits::STEPS_MAX;

/// What is to arrive: how it is to be cut, where it lies; `None` if its copying failed.
type Expected = Option<(Option<Gso>, Vec<(GrantRef, usize)>)>;

struct Run<'a> {
    page: &'a Page,
    front: RxFront<'a>,
    ring: RxRing<&'a Page>,
    log: (Index, Vec<u8>),
    planned: VecDeque<RxPlan>,
    /// Of frames that were answered and not reaped, with the index behind them.
    expected: VecDeque<(Index, Expected)>,
    /// Did the guest write into its page at will?
    tampered: bool,
}

/// Steps of a guest, and of backends.
pub fn netif_rx(data: &[u8]) {
    let mut bytes = Bytes(data);
    let page = Page::anonymous().expect("a page");
    let start = Index(bytes.word());
    let mut run = Run {
        page: &page,
        front: RxFront::new(&page, start),
        ring: RxRing::attach(&page).expect("an empty ring"),
        log: (start, Vec::new()),
        planned: VecDeque::new(),
        expected: VecDeque::new(),
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
            0..=3 => self.post(bytes),
            4..=7 => self.plan(bytes),
            8 | 9 => self.answer(bytes),
            10 | 11 => self.publish(),
            12 => return self.die(bytes),
            13 => {
                let fits = self.ring.final_check();
                assert!(self.tampered || !fits || self.ring.is_starved() == Ok(false));
            }
            14 => self.unplan(),
            _ => self.tamper(bytes),
        }
        assert!(self.ring.unanswered() + self.ring.unpublished() <= 256);
        true
    }

    fn post(&mut self, bytes: &mut Bytes<'_>) {
        let count = u32::from(bytes.byte()).min(self.front.free_slots());
        (0..count).for_each(|_| {
            self.front.post();
        });
        self.front.push();
    }

    fn plan(&mut self, bytes: &mut Bytes<'_>) {
        let length = bytes.pick(&[14, 60, 1514, 4096, 4097, 9014, FRAME_BYTES_MAX as usize]);
        let checksum = bytes.pick(&[Checksum::None, Checksum::Blank, Checksum::Validated]);
        let gso = Gso::from_wire(bytes.byte() % 4, 1448);
        let frame = FrameMeta::new(length, checksum, gso).expect("in bounds");
        match self.ring.plan(frame) {
            Ok(Some(plan)) => {
                let total: usize = plan.parts().map(|part| part.length_bytes).sum();
                assert_eq!(total, length);
                assert!(plan.parts().len() <= RX_PARTS_MAX);
                self.planned.push_back(plan);
            }
            Ok(None) => assert!(self.tampered || self.ring.is_starved() == Ok(true)),
            Err(fault) => assert!(self.tampered, "{fault}"),
        }
    }

    fn answer(&mut self, bytes: &mut Bytes<'_>) {
        let Some(plan) = self.planned.pop_front() else { return };
        let status = bytes.pick(&[RxStatus::Delivered, RxStatus::Delivered, RxStatus::Failed]);
        self.ring.answer(&plan, status);
        let pieces = plan.parts().map(|part| (part.gref, part.length_bytes)).collect();
        let expected = (status == RxStatus::Delivered).then(|| (plan.frame().gso(), pieces));
        self.expected.push_back((plan.index().plus(plan.slots()), expected));
    }

    fn publish(&mut self) {
        self.ring.publish_logged(|index, responses| self.log = (index, responses.to_vec()));
        let reaped = self.front.reap();
        assert!(self.tampered || reaped.is_ok(), "{reaped:?}");
        if self.tampered {
            return self.expected.clear();
        }
        for packet in reaped.expect("just looked at") {
            let (_, expected) = self.expected.pop_front().expect("it was answered");
            match expected {
                Some((gso, pieces)) => {
                    assert_eq!((packet.gso, packet.pieces, packet.failed), (gso, pieces, false))
                }
                None => assert!(packet.failed),
            }
        }
    }

    /// The backend dies, maybe while it publishes. A successor goes on unless the page is beyond belief.
    fn die(&mut self, bytes: &mut Bytes<'_>) -> bool {
        let before = self.ring.published();
        if bytes.below(2) == 0 {
            self.ring.publish_logged(|index, responses| self.log = (index, responses.to_vec()));
            self.page.store_u32(RSP_PROD_OFFSET, before.0);
        }
        self.planned.clear();
        let Ok(ring) = RxRing::attach(self.page) else {
            assert!(self.tampered);
            return false;
        };
        self.ring = ring;
        let redone = self.ring.redo(self.log.0, &self.log.1);
        // What was answered and not published is to be answered again.
        let published = self.ring.published();
        self.expected.retain(|(end, _)| published.since(*end) <= 256);
        redone.is_ok()
    }

    fn unplan(&mut self) {
        if let Some(plan) = self.planned.pop_back() {
            self.ring.unplan(&plan);
        }
    }

    fn tamper(&mut self, bytes: &mut Bytes<'_>) {
        self.tampered = true;
        let offset = if bytes.below(2) == 0 { 4 * bytes.below(4) } else { 4 * bytes.below(256) };
        self.page.store_u32(offset, bytes.word());
    }
}
