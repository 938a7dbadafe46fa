//! The backend's side of the guest's receive ring.

use std::borrow::Borrow;

use hypervisor::{GrantRef, PAGE_BYTES, Page};
use smallvec::SmallVec;

use crate::back::BackRing;
use crate::ring::{ExtraInfo, RX_SLOT_BYTES, RxRequest, RxResponse, rx_flags, status};
use crate::{Checksum, FrameMeta, Index, Redo, RingFault};

const PAGE: u32 = 4096;
const _: () = assert!(PAGE as usize == PAGE_BYTES);

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RxStatus {
    /// All of it is in the guest's pages.
    Delivered,
    /// A page of the guest could not be written: the guest is to drop the frame.
    Failed,
}

/// Where some bytes of a frame go: to the beginning of a page of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RxPart {
    /// The page.
    pub gref: GrantRef,
    /// Where in the frame they begin.
    pub frame_offset: usize,
    /// How many, at most a page.
    pub length_bytes: usize,
}

/// Slots of the guest that were taken for a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RxPlan {
    index: Index,
    frame: FrameMeta,
    /// Of the slots with data.
    requests: SmallVec<[RxRequest; 2]>,
}

impl RxPlan {
    /// The index of its first slot.
    pub fn index(&self) -> Index {
        self.index
    }

    /// The frame.
    pub fn frame(&self) -> FrameMeta {
        self.frame
    }

    /// Slots that it takes.
    pub fn slots(&self) -> u32 {
        slots(self.frame)
    }

    /// Where the frame's bytes go, in order: at most [`crate::limits::RX_PARTS_MAX`] pieces.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = RxPart> + '_ {
        self.requests.iter().enumerate().map(|(number, request)| RxPart {
            gref: request.gref,
            frame_offset: number * PAGE_BYTES,
            length_bytes: self.part_bytes(number),
        })
    }

    fn part_bytes(&self, number: usize) -> usize {
        (self.frame.length_bytes() as usize - number * PAGE_BYTES).min(PAGE_BYTES)
    }

    fn response(&self, number: usize, status: RxStatus) -> RxResponse {
        let mut flags = if number == 0 { first_flags(self.frame) } else { 0 };
        if number + 1 < self.requests.len() {
            flags |= rx_flags::MORE_DATA;
        }
        let status = match status {
            #[expect(clippy::cast_possible_truncation, reason = "at most a page")]
            RxStatus::Delivered => self.part_bytes(number) as i16,
            RxStatus::Failed => status::ERROR,
        };
        RxResponse { id: self.requests[number].id, offset_bytes: 0, flags, status }
    }
}

const fn data_slots(frame: FrameMeta) -> u32 {
    frame.length_bytes().div_ceil(PAGE)
}

const fn slots(frame: FrameMeta) -> u32 {
    data_slots(frame) + frame.gso().is_some() as u32
}

const fn first_flags(frame: FrameMeta) -> u16 {
    let checksum = match frame.checksum() {
        Checksum::None => 0,
        Checksum::Blank => rx_flags::CSUM_BLANK | rx_flags::DATA_VALIDATED,
        Checksum::Validated => rx_flags::DATA_VALIDATED,
    };
    if frame.gso().is_some() { checksum | rx_flags::EXTRA_INFO } else { checksum }
}

/// The backend's side of a guest's receive ring. Each response lies in the slot of its request: Linux's frontend goes by
/// that and not by the id.
#[derive(Debug)]
pub struct RxRing<P: Borrow<Page> = Page> {
    ring: BackRing<P, RX_SLOT_BYTES, RX_SLOT_BYTES>,
    /// Slots that the frame needs for which there were too few; 0 if none waits.
    wanted: u32,
}

impl<P: Borrow<Page>> RxRing<P> {
    /// Goes on where the page says that responses end: at 0 with a new guest. The guest is to be sent an event
    /// afterwards, once, for a former backend may have died before it could.
    ///
    /// # Errors
    /// [`RingFault::ImpossibleIndex`].
    pub fn attach(page: P) -> Result<Self, RingFault> {
        Ok(Self { ring: BackRing::attach(page)?, wanted: 0 })
    }

    /// The page.
    pub fn page(&self) -> &Page {
        self.ring.page()
    }

    /// Completes the last [`RxRing::publish_logged`] of a former backend, if it was cut short. To be called right after
    /// [`RxRing::attach`], with what was logged. The log must be emptied when a guest is connected anew: indexes say
    /// nothing about another ring.
    ///
    /// # Errors
    /// A fault of the ring.
    ///
    /// # Panics
    /// If a frame was planned before.
    pub fn redo(&mut self, first: Index, responses: &[u8]) -> Result<Redo, RingFault> {
        self.ring.redo(first, responses)
    }

    /// Slots that the guest posted and that no plan took, as of now.
    ///
    /// # Errors
    /// A fault of the ring; from then on always the same.
    pub fn available(&mut self) -> Result<u32, RingFault> {
        self.ring.refresh()
    }

    /// Takes the slots for a frame. `None` if there are too few: then the frame waits, and the ring is
    /// [starved](RxRing::is_starved) until there are enough.
    ///
    /// # Errors
    /// A fault of the ring; from then on always the same.
    pub fn plan(&mut self, frame: FrameMeta) -> Result<Option<RxPlan>, RingFault> {
        self.ring.check()?;
        let (index, slots) = (self.ring.taken(), slots(frame));
        if self.ring.untaken_seen() < slots && self.ring.refresh()? < slots {
            self.wanted = slots;
            return Ok(None);
        }
        self.wanted = 0;
        let mut requests = SmallVec::new();
        // The slot for what is extra comes after the first; what the guest posted there is not needed.
        let mut at = index;
        for number in 0..data_slots(frame) {
            requests.push(RxRequest::decode(&self.ring.request(at)));
            let skip = number == 0 && frame.gso().is_some();
            at = at.plus(1 + u32::from(skip));
        }
        self.ring.take_to(index.plus(slots));
        Ok(Some(RxPlan { index, frame, requests }))
    }

    /// Gives back the slots of the plan that was made last.
    ///
    /// # Panics
    /// If another was made since, or it was answered.
    pub fn unplan(&mut self, plan: &RxPlan) {
        self.ring.give_back(plan.index, plan.slots());
    }

    /// Answers all slots of the oldest plan without an answer. The guest sees it after [`RxRing::publish_logged`].
    ///
    /// # Panics
    /// If it is another plan's turn.
    pub fn answer(&mut self, plan: &RxPlan, status: RxStatus) {
        self.ring.check_turn(plan.index, plan.slots());
        self.ring.stage(plan.response(0, status).encode());
        if let Some(gso) = plan.frame.gso() {
            self.ring.stage(ExtraInfo { extra: gso.into(), more: false }.encode());
        }
        for number in 1..plan.requests.len() {
            self.ring.stage(plan.response(number, status).encode());
        }
    }

    /// Makes the answers visible, with nothing written down before: see [`RxRing::publish_logged`].
    pub fn publish(&mut self) -> bool {
        self.publish_logged(|_, _| {})
    }

    /// Makes the answers visible; returns whether the guest is to be sent an event.
    ///
    /// First `log` is given the index of the first response and all of them, [`RX_SLOT_BYTES`] each and at most 256, to
    /// be kept where a successor finds them for [`RxRing::redo`]. What was kept before may be overwritten, but a half
    /// written entry must be recognisable. It is not called if there is nothing to publish.
    pub fn publish_logged(&mut self, log: impl FnOnce(Index, &[u8])) -> bool {
        self.ring.publish(log)
    }

    /// To be called before sleeping. If a frame waits for slots: asks the guest for an event as soon as there are
    /// enough, and looks again. If there are (or the ring is at fault), there will be no event, and the answer is true.
    pub fn final_check(&mut self) -> bool {
        self.wanted > 0 && self.ring.final_check(self.wanted)
    }

    /// Waits a frame for slots, and are there too few still? A guest that leaves it so is
    /// [stalled](crate::StallClock). One that posts some slots, but less than the frame needs, is no better than one
    /// that posts none (XSA-392). The need stays noted until there are enough, or [`RxRing::frame_dropped`].
    ///
    /// # Errors
    /// A fault of the ring; from then on always the same.
    pub fn is_starved(&mut self) -> Result<bool, RingFault> {
        let starved = self.ring.refresh()? < self.wanted;
        if !starved {
            self.wanted = 0;
        }
        Ok(starved)
    }

    /// Notes that the frame which waited was dropped. A ring with some slots is no longer starved, for the next frame may
    /// fit; one without any still is.
    pub fn frame_dropped(&mut self) {
        self.wanted = self.wanted.min(1);
    }

    /// No frame waits for slots any more, whatever became of the one that did.
    pub fn nothing_waits(&mut self) {
        self.wanted = 0;
    }

    /// Slots of plans that were not answered.
    pub fn unanswered(&self) -> u32 {
        self.ring.unanswered()
    }

    /// Slots of plans that were answered without the guest's seeing it.
    pub fn unpublished(&self) -> u32 {
        self.ring.staged_slots()
    }

    /// Behind the last response that the guest can see: `rsp_prod`.
    pub fn published(&self) -> Index {
        self.ring.published()
    }

    /// Where the next plan begins.
    pub fn next_index(&self) -> Index {
        self.ring.taken()
    }

    /// The fault that stopped the ring.
    pub fn fault(&self) -> Option<RingFault> {
        self.ring.check().err()
    }
}
