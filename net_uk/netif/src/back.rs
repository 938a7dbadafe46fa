//! What both rings of a backend have in common: indexes, events, and responses that survive a crash.

use std::borrow::Borrow;
use std::sync::atomic::{Ordering, fence};

use hypervisor::Page;

use crate::ring::{
    REQ_EVENT_OFFSET, REQ_PROD_OFFSET, RING_SLOTS, RSP_EVENT_OFFSET, RSP_PROD_OFFSET, read_slot, write_slot,
};
use crate::{Index, RingFault};

/// What became of responses that a former backend wrote down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redo {
    /// They were not all in the page, and are now.
    Redone,
    /// The guest has had them already.
    AlreadyDone,
    /// They are not of this place in the ring: the guest was reconnected since.
    Stale,
}

/// The backend's side of a ring with slots of `SLOT` bytes, of which a response fills the first `RESPONSE`.
///
/// ```text
/// rsp_prod in the page          req_prod in the page
///      |                             |
///  published <= answered <= taken <= seen
/// ```
/// All of them lie within one ring. Only `seen` comes from the guest.
#[derive(Debug)]
pub(crate) struct BackRing<P, const SLOT: usize, const RESPONSE: usize> {
    page: P,
    published: Index,
    taken: Index,
    seen: Index,
    fault: Option<RingFault>,
    /// Responses from `published` to `answered`.
    staged: Vec<u8>,
}

impl<P: Borrow<Page>, const SLOT: usize, const RESPONSE: usize> BackRing<P, SLOT, RESPONSE> {
    pub(crate) fn attach(page: P) -> Result<Self, RingFault> {
        let start = Index(page.borrow().load_u32(RSP_PROD_OFFSET));
        let staged = Vec::with_capacity(RING_SLOTS as usize * RESPONSE);
        let mut ring = Self { page, published: start, taken: start, seen: start, fault: None, staged };
        ring.refresh()?;
        Ok(ring)
    }

    pub(crate) fn page(&self) -> &Page {
        self.page.borrow()
    }

    /// Behind the last response that the guest can see.
    pub(crate) fn published(&self) -> Index {
        self.published
    }

    /// Behind the last response, seen or not.
    pub(crate) fn answered(&self) -> Index {
        self.published.plus(self.staged_slots())
    }

    /// Behind the last request that was taken.
    pub(crate) fn taken(&self) -> Index {
        self.taken
    }

    /// Requests that were taken and have no response yet.
    pub(crate) fn unanswered(&self) -> u32 {
        self.taken.since(self.answered())
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most a ring")]
    pub(crate) fn staged_slots(&self) -> u32 {
        (self.staged.len() / RESPONSE) as u32
    }

    /// The fault that was found, for ever.
    pub(crate) fn check(&self) -> Result<(), RingFault> {
        self.fault.map_or(Ok(()), Err)
    }

    pub(crate) fn fail(&mut self, fault: RingFault) -> RingFault {
        *self.fault.get_or_insert(fault)
    }

    /// Requests that were seen and not taken.
    pub(crate) fn untaken_seen(&self) -> u32 {
        self.seen.since(self.taken)
    }

    /// Looks at the guest's index; returns how many requests there are to take.
    pub(crate) fn refresh(&mut self) -> Result<u32, RingFault> {
        self.check()?;
        let peer = self.requests_end();
        // The second catches an index that went back behind what was taken.
        for own in [self.published, self.taken] {
            if peer.since(own) > RING_SLOTS {
                return Err(self.fail(RingFault::ImpossibleIndex { own, peer }));
            }
        }
        self.seen = peer;
        Ok(self.untaken_seen())
    }

    fn requests_end(&self) -> Index {
        Index(self.page().load_u32(REQ_PROD_OFFSET))
    }

    /// The request at an index that was seen, copied once.
    pub(crate) fn request(&self, index: Index) -> [u8; SLOT] {
        read_slot(self.page(), index)
    }

    /// The requests before `end` are taken.
    pub(crate) fn take_to(&mut self, end: Index) {
        assert!(end.since(self.taken) <= self.untaken_seen(), "only what was seen can be taken");
        self.taken = end;
    }

    /// The requests from `start` are not taken after all.
    ///
    /// # Panics
    /// Unless they are the last ones taken, and unanswered.
    pub(crate) fn give_back(&mut self, start: Index, slots: u32) {
        assert_eq!(start.plus(slots), self.taken, "only what was taken last can be given back");
        assert!(slots <= self.unanswered(), "what was answered cannot be given back");
        self.taken = start;
    }

    /// Requires that the next response is that of the request at `index`.
    pub(crate) fn check_turn(&self, index: Index, slots: u32) {
        assert_eq!(index, self.answered(), "responses are in the order of the requests");
        assert!(slots <= self.unanswered(), "only what was taken can be answered");
    }

    /// Adds a response.
    pub(crate) fn stage(&mut self, response: [u8; RESPONSE]) {
        self.staged.extend_from_slice(&response);
    }

    /// Hands the responses to `log`, writes them into the page and makes them visible. Returns whether the guest wants
    /// an event.
    pub(crate) fn publish(&mut self, log: impl FnOnce(Index, &[u8])) -> bool {
        if self.staged.is_empty() {
            return false;
        }
        log(self.published, &self.staged);
        let (old, new) = (self.published, self.answered());
        for (response, slot) in self.staged.as_chunks::<RESPONSE>().0.iter().zip(0..) {
            write_slot(self.page(), old.plus(slot), SLOT, response);
        }
        self.page().store_u32(RSP_PROD_OFFSET, new.0);
        self.published = new;
        self.staged.clear();
        // The guest must see the index before we look whether it sleeps: it looks the other way round.
        fence(Ordering::SeqCst);
        let event = Index(self.page().load_u32(RSP_EVENT_OFFSET));
        new.since(event) < new.since(old)
    }

    /// Completes what a former backend handed to its log at its last `publish`.
    ///
    /// # Panics
    /// If something was taken already.
    pub(crate) fn redo(&mut self, first: Index, responses: &[u8]) -> Result<Redo, RingFault> {
        assert!(self.taken == self.published && self.staged.is_empty(), "redo comes first");
        let (whole, rest) = responses.as_chunks::<RESPONSE>();
        let slots = u32::try_from(whole.len()).unwrap_or(u32::MAX);
        if !rest.is_empty() || slots == 0 || slots > RING_SLOTS {
            return Ok(Redo::Stale);
        }
        if first.plus(slots) == self.published {
            return Ok(Redo::AlreadyDone);
        }
        if first != self.published || slots > self.refresh()? {
            return Ok(Redo::Stale);
        }
        self.staged.extend_from_slice(responses);
        self.taken = first.plus(slots);
        self.publish(|_, _| {});
        Ok(Redo::Redone)
    }

    /// Asks for an event once `slots` requests more than now can be taken, and looks again: are there?
    pub(crate) fn final_check(&mut self, slots: u32) -> bool {
        let enough = |ring: &Self| ring.requests_end().since(ring.taken) >= slots;
        if enough(self) {
            return true;
        }
        self.page().store_u32(REQ_EVENT_OFFSET, self.taken.plus(slots).0);
        fence(Ordering::SeqCst);
        enough(self)
    }
}
