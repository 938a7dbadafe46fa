//! The frontend's end of the sent ring, with the checks of Linux's `xen-netfront`.

use hypervisor::local::Access;
use hypervisor::{GrantRef, Page};
use serde::Serialize;

use super::broken::Broken;
use super::pages::Pages;
use super::ring::FrontRing;
use super::split::Fragment;
use super::wire::{self, Gso, TX_SLOT_BYTES, TxRequest, TxResponse};
use crate::Result;
use crate::limits::{RING_SLOTS, TX_SLOTS_SPARE};

/// A frame to send.
#[derive(Debug, Clone, Copy)]
pub struct TxFrame<'a> {
    /// From the destination's address on, at least one byte.
    pub bytes: &'a [u8],
    /// [`wire::CSUM_BLANK`] and [`wire::DATA_VALIDATED`].
    pub flags: u16,
    /// Segments, if the frame is large.
    pub gso: Option<Gso>,
}

impl<'a> TxFrame<'a> {
    /// A frame with nothing left to do.
    pub fn plain(bytes: &'a [u8]) -> Self {
        Self { bytes, flags: 0, gso: None }
    }

    /// A large frame, whose checksum is left to be computed as in all that Linux sends.
    pub fn large(bytes: &'a [u8], gso: Gso) -> Self {
        Self { bytes, flags: wire::CSUM_BLANK | wire::DATA_VALIDATED, gso: Some(gso) }
    }
}

/// Counters of a sent ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TxStats {
    /// Frames put on the ring.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Requests, extra info included.
    pub requests: u64,
    /// Extra info among them: each is answered with a null status.
    pub extras: u64,
    /// Notifications.
    pub notified: u64,
    /// Responses: taken.
    pub okay: u64,
    /// Responses: an error.
    pub errors: u64,
    /// Responses: dropped.
    pub dropped: u64,
    /// Responses: null.
    pub null: u64,
    /// Responses of another status, which Linux would take for success.
    pub odd: u64,
}

impl TxStats {
    /// Adds those of another queue.
    pub fn add(&mut self, other: Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.requests += other.requests;
        self.extras += other.extras;
        self.notified += other.notified;
        self.okay += other.okay;
        self.errors += other.errors;
        self.dropped += other.dropped;
        self.null += other.null;
        self.odd += other.odd;
    }
}

/// A sent ring. A request's number is that of its page.
#[derive(Debug)]
pub struct TxFront {
    ring: FrontRing,
    pages: u32,
    free: Vec<u16>,
    under_way: Vec<Option<GrantRef>>,
    stats: TxStats,
}

impl TxFront {
    /// An empty ring on a page; sends from the [`RING_SLOTS`] pages from number `pages` on.
    pub fn new(ring: Page, pages: u32) -> Self {
        let free = (0..=u8::MAX).rev().map(u16::from).collect();
        let under_way = vec![None; RING_SLOTS as usize];
        Self { ring: FrontRing::new(ring, TX_SLOT_BYTES), pages, free, under_way, stats: TxStats::default() }
    }

    /// The ring.
    pub fn ring(&mut self) -> &mut FrontRing {
        &mut self.ring
    }

    /// What happened so far.
    pub fn stats(&self) -> TxStats {
        self.stats
    }

    /// Slots without a response.
    pub fn in_flight(&self) -> u32 {
        self.ring.in_flight()
    }

    /// How many fragments fit.
    pub fn room(&self) -> usize {
        // A backend that answers a fragment with a null status keeps its number busy for ever, as in Linux.
        self.free.len().min((RING_SLOTS - self.ring.in_flight()) as usize)
    }

    /// Is there room for a frame of any size?
    pub fn has_room(&self) -> bool {
        self.room() > TX_SLOTS_SPARE as usize
    }

    /// Puts a frame on the ring, where there must be room, and shows it. Does the backend want to be notified?
    ///
    /// # Errors
    /// If all grants are in use.
    pub fn send(&mut self, pages: &mut Pages, frame: &TxFrame<'_>, fragments: &[Fragment]) -> Result<bool> {
        let mut rest = frame.bytes;
        for (i, fragment) in fragments.iter().enumerate() {
            let (part, after) = rest.split_at(usize::from(fragment.length));
            rest = after;
            let mut request = self.fragment(pages, *fragment, part)?;
            if i + 1 < fragments.len() {
                request.flags |= wire::MORE_DATA;
            }
            if i == 0 {
                self.put_first(frame, request);
            } else {
                self.put(&request.encode());
            }
        }
        self.stats.frames += 1;
        self.stats.bytes += frame.bytes.len() as u64;
        Ok(self.push())
    }

    /// Shows what was put on the ring.
    pub fn push(&mut self) -> bool {
        let notify = self.ring.push();
        self.stats.notified += u64::from(notify);
        notify
    }

    /// Grants and fills a page, for which there must be room, as a request that is not on the ring yet.
    ///
    /// # Errors
    /// If all grants are in use.
    pub fn fragment(&mut self, pages: &mut Pages, fragment: Fragment, bytes: &[u8]) -> Result<TxRequest> {
        let id = self.free.pop().expect("as many numbers as slots");
        let page = self.pages + u32::from(id);
        let gref = pages.grant(page, Access::Read)?;
        pages.write(page, fragment.offset, bytes);
        self.under_way[usize::from(id)] = Some(gref);
        Ok(TxRequest { gref, offset: fragment.offset, flags: 0, id, size: fragment.length })
    }

    /// Ends the grant of a request that this side no longer minds, whatever the backend does with it.
    pub fn take_back(&mut self, pages: &Pages, id: u16) {
        if let Some(gref) = self.under_way.get_mut(usize::from(id)).and_then(Option::take) {
            pages.end(gref);
            self.free.push(id);
        }
    }

    /// The first request has the size of the whole frame, and what is known of the frame.
    fn put_first(&mut self, frame: &TxFrame<'_>, mut request: TxRequest) {
        request.size = u16::try_from(frame.bytes.len()).expect("at most TX_FRAME_BYTES_MAX");
        request.flags |= frame.flags;
        let Some(gso) = frame.gso else { return self.put(&request.encode()) };
        request.flags |= wire::EXTRA_INFO;
        self.put(&request.encode());
        let mut slot = [0; TX_SLOT_BYTES];
        slot[..wire::RX_SLOT_BYTES].copy_from_slice(&gso.encode());
        self.put(&slot);
        self.stats.extras += 1;
    }

    /// Puts a request on the ring, whatever it is.
    pub fn put(&mut self, slot: &[u8; TX_SLOT_BYTES]) {
        self.ring.put(slot);
        self.stats.requests += 1;
    }

    /// Takes all responses and asks for a notification of the next. Was there any?
    ///
    /// # Errors
    /// What the backend must not do; the responses before that were taken.
    pub fn collect(&mut self, pages: &Pages) -> Result<bool, Broken> {
        let mut any = false;
        loop {
            let end = self.ring.responses_end().map_err(|_| Broken::TxTooManyResponses)?;
            while self.ring.rsp_cons() != end {
                any = true;
                let response = TxResponse::decode(self.ring.response(self.ring.rsp_cons()));
                self.finish(pages, response)?;
                self.ring.took(self.ring.rsp_cons().wrapping_add(1));
            }
            if !self.ring.sleep() {
                return Ok(any);
            }
        }
    }

    fn finish(&mut self, pages: &Pages, response: TxResponse) -> Result<(), Broken> {
        if response.status == wire::STATUS_NULL {
            self.stats.null += 1;
            return Ok(());
        }
        let place = self.under_way.get_mut(usize::from(response.id)).ok_or(Broken::TxIdOutOfRange)?;
        let gref = place.take().ok_or(Broken::TxInactiveId)?;
        if !pages.end(gref) {
            return Err(Broken::TxGrantInUse);
        }
        self.free.push(response.id);
        match response.status {
            wire::STATUS_OKAY => self.stats.okay += 1,
            wire::STATUS_ERROR => self.stats.errors += 1,
            wire::STATUS_DROPPED => self.stats.dropped += 1,
            _ => self.stats.odd += 1,
        }
        Ok(())
    }

    /// Ends all grants, at the end of the connection.
    pub fn release(&mut self, pages: &Pages) {
        for gref in self.under_way.iter_mut().filter_map(Option::take) {
            pages.end(gref);
        }
    }
}
