//! The frontend's end of the received ring, with the checks of Linux's `xen-netfront`.

use std::collections::BTreeMap;

use hypervisor::local::Access;
use hypervisor::{GrantRef, PAGE_BYTES, Page};
use serde::Serialize;

use super::broken::{BadFrame, Broken};
use super::pages::Pages;
use super::ring::FrontRing;
use super::wire::{self, Gso, RX_SLOT_BYTES, RxResponse};
use crate::Result;
use crate::limits::{RING_SLOTS, RX_BUDGET, RX_COPY_BYTES, RX_FRAGMENTS_MAX};

/// A received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RxFrame<'a> {
    /// From the destination's address on.
    pub bytes: &'a [u8],
    /// [`wire::CSUM_BLANK`] and [`wire::DATA_VALIDATED`].
    pub flags: u16,
    /// Segments, if the frame is large.
    pub gso: Option<Gso>,
    /// Slots that it took, extra info included.
    pub slots: u32,
}

/// Counters of a received ring.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RxStats {
    /// Whole frames.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their slots, extra info included.
    pub slots: u64,
    /// Those with segments.
    pub large: u64,
    /// Buffers posted.
    pub posted: u64,
    /// Notifications.
    pub notified: u64,
    /// Frames that were dropped, by reason.
    pub bad: BTreeMap<BadFrame, u64>,
}

impl RxStats {
    /// Adds those of another queue.
    pub fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.slots += other.slots;
        self.large += other.large;
        self.posted += other.posted;
        self.notified += other.notified;
        for (reason, count) in &other.bad {
            *self.bad.entry(*reason).or_default() += count;
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Buffer {
    gref: GrantRef,
    page: u32,
}

/// A received ring. As in Linux, a response belongs to the buffer that was posted in its slot.
#[derive(Debug)]
pub struct RxFront {
    ring: FrontRing,
    slots: Vec<Option<Buffer>>,
    free: Vec<u32>,
    /// Responses that waited when last looked at.
    waited: u32,
    frame: Vec<u8>,
    stats: RxStats,
}

/// What the slots of one frame say.
#[derive(Debug, Default)]
struct Parsed {
    flags: u16,
    gso: Option<Gso>,
    slots: u32,
    bad: Option<BadFrame>,
}

impl Parsed {
    fn is_bad(&mut self, reason: BadFrame) {
        self.bad.get_or_insert(reason);
    }
}

impl RxFront {
    /// An empty ring on a page; receives into the [`RING_SLOTS`] pages from number `pages` on.
    pub fn new(ring: Page, pages: u32) -> Self {
        Self {
            ring: FrontRing::new(ring, RX_SLOT_BYTES),
            slots: vec![None; RING_SLOTS as usize],
            free: (pages..pages + RING_SLOTS).rev().collect(),
            waited: 0,
            frame: vec![],
            stats: RxStats::default(),
        }
    }

    /// The ring.
    pub fn ring(&mut self) -> &mut FrontRing {
        &mut self.ring
    }

    /// What happened so far.
    pub fn stats(&self) -> &RxStats {
        &self.stats
    }

    /// Buffers that the backend may fill.
    pub fn posted(&self) -> u32 {
        self.ring.in_flight()
    }

    /// Posts as many buffers as fit. Does the backend want to be notified?
    ///
    /// # Errors
    /// If all grants are in use.
    pub fn fill(&mut self, pages: &mut Pages) -> Result<bool> {
        while self.ring.in_flight() < RING_SLOTS {
            let Some(page) = self.free.pop() else { break };
            let gref = pages.grant(page, Access::Write)?;
            self.stats.posted += 1;
            self.post(Buffer { gref, page });
        }
        let notify = self.ring.push();
        self.stats.notified += u64::from(notify);
        Ok(notify)
    }

    fn post(&mut self, buffer: Buffer) {
        let slot = self.ring.req_prod() % RING_SLOTS;
        self.slots[slot as usize] = Some(buffer);
        let id = u16::try_from(slot).expect("below 256");
        self.ring.put(&wire::rx_request(id, buffer.gref));
    }

    /// An event came. Are there new responses?
    ///
    /// # Errors
    /// [`Broken::RxBackwards`].
    pub fn notice(&mut self) -> Result<bool, Broken> {
        let waiting = self.ring.waiting();
        if waiting < self.waited {
            return Err(Broken::RxBackwards);
        }
        let new = waiting > self.waited;
        self.waited = waiting;
        Ok(new)
    }

    /// Takes at most [`RX_BUDGET`] frames. Are there more? If not, it asked for a notification of the next.
    ///
    /// # Errors
    /// What the backend must not do.
    pub fn take(
        &mut self,
        pages: &Pages,
        hand_on: &mut dyn FnMut(RxFrame<'_>),
    ) -> std::result::Result<bool, Broken> {
        let end = self.ring.responses_end().map_err(|_| Broken::RxTooManyResponses)?;
        for _ in 0..RX_BUDGET {
            if self.ring.rsp_cons() == end {
                return Ok(false);
            }
            let parsed = self.join(pages, end)?;
            self.waited = self.ring.waiting();
            self.count(&parsed);
            if parsed.bad.is_none() {
                let Parsed { flags, gso, slots, .. } = parsed;
                hand_on(RxFrame { bytes: &self.frame, flags, gso, slots });
            }
        }
        Ok(self.ring.rsp_cons() != end)
    }

    /// Asks for a notification of the next response. Is there one already?
    pub fn sleep(&self) -> bool {
        self.ring.sleep()
    }

    fn count(&mut self, parsed: &Parsed) {
        if let Some(reason) = parsed.bad {
            *self.stats.bad.entry(reason).or_default() += 1;
            return;
        }
        self.stats.frames += 1;
        self.stats.bytes += self.frame.len() as u64;
        self.stats.slots += u64::from(parsed.slots);
        self.stats.large += u64::from(parsed.gso.is_some());
    }

    /// Joins the slots of one frame, and takes them also if the frame is bad.
    fn join(&mut self, pages: &Pages, end: u32) -> Result<Parsed, Broken> {
        self.frame.clear();
        let mut parsed = Parsed::default();
        let (mut response, mut buffer) = self.next_data(&mut parsed)?;
        let most = RX_FRAGMENTS_MAX + usize::from(usize::try_from(response.status).is_ok_and(is_copied));
        if response.flags & wire::EXTRA_INFO != 0 {
            self.take_extras(end, &mut parsed);
        }
        parsed.flags = response.flags & (wire::CSUM_BLANK | wire::DATA_VALIDATED);
        for fragment in 1..=RING_SLOTS as usize {
            self.append(pages, response, buffer, &mut parsed)?;
            if fragment > most {
                parsed.is_bad(BadFrame::TooManySlots);
            }
            if response.flags & wire::MORE_DATA == 0 {
                break;
            }
            if self.ring.rsp_cons() == end {
                parsed.is_bad(BadFrame::MissingSlots);
                break;
            }
            (response, buffer) = self.next_data(&mut parsed)?;
        }
        Ok(parsed)
    }

    /// The next slot, with its buffer.
    fn next_slot(&mut self, parsed: &mut Parsed) -> (u32, [u8; RX_SLOT_BYTES], Buffer) {
        let number = self.ring.rsp_cons();
        let slot = number % RING_SLOTS;
        let bytes = self.ring.response(number);
        self.ring.took(number.wrapping_add(1));
        parsed.slots += 1;
        let buffer = self.slots[slot as usize].take().expect("there is a buffer for every request");
        (slot, bytes, buffer)
    }

    fn next_data(&mut self, parsed: &mut Parsed) -> Result<(RxResponse, Buffer), Broken> {
        let (slot, bytes, buffer) = self.next_slot(parsed);
        let response = RxResponse::decode(bytes);
        match u32::from(response.id) == slot {
            true => Ok((response, buffer)),
            false => Err(Broken::RxWrongSlot),
        }
    }

    /// Takes extra info; the buffers of these slots were not used and are posted again.
    fn take_extras(&mut self, end: u32, parsed: &mut Parsed) {
        loop {
            if self.ring.rsp_cons() == end {
                return parsed.is_bad(BadFrame::MissingExtra);
            }
            let (_, extra, buffer) = self.next_slot(parsed);
            self.post(buffer);
            let [kind, flags, ..] = extra;
            match kind {
                wire::EXTRA_GSO => {
                    parsed.gso = Gso::decode(extra);
                    if parsed.gso.is_none() {
                        parsed.is_bad(BadFrame::Segments);
                    }
                }
                0 | wire::EXTRA_END.. => parsed.is_bad(BadFrame::UnknownExtra),
                _ => {}
            }
            if flags & wire::EXTRA_MORE == 0 {
                return;
            }
        }
    }

    fn append(
        &mut self,
        pages: &Pages,
        response: RxResponse,
        buffer: Buffer,
        parsed: &mut Parsed,
    ) -> Result<(), Broken> {
        let length = match usize::try_from(response.status) {
            Err(_) => Err(BadFrame::Status),
            Ok(length) if usize::from(response.offset) + length > PAGE_BYTES => Err(BadFrame::Range),
            Ok(length) => Ok(length),
        };
        let length = match length {
            Ok(length) => length,
            Err(reason) => {
                parsed.is_bad(reason);
                self.post(buffer);
                return Ok(());
            }
        };
        if !pages.end(buffer.gref) {
            return Err(Broken::RxGrantInUse);
        }
        pages.read(buffer.page, response.offset, length, &mut self.frame);
        self.free.push(buffer.page);
        Ok(())
    }

    /// Ends all grants, at the end of the connection.
    pub fn release(&mut self, pages: &Pages) {
        for buffer in self.slots.iter_mut().filter_map(Option::take) {
            pages.end(buffer.gref);
        }
    }
}

fn is_copied(first_bytes: usize) -> bool {
    first_bytes <= RX_COPY_BYTES
}
