//! Frontends that push and reap as Linux's netfront does, event indexes included. They are for tests: of this crate, of
//! those who use it, and of the fuzz targets.

mod rx_front;
mod tx_front;

use std::sync::atomic::{Ordering, fence};

use hypervisor::Page;

use crate::Index;
use crate::ring::{
    REQ_EVENT_OFFSET, REQ_PROD_OFFSET, RING_SLOTS, RSP_EVENT_OFFSET, RSP_PROD_OFFSET, SLOTS_OFFSET,
};

pub use rx_front::{RxFront, RxPacket};
pub use tx_front::TxFront;

/// What a netfront complains of. Linux's disables the interface for good upon most of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackendFault {
    /// More responses than requests.
    #[error("{0} responses are more than there are requests")]
    TooMany(u32),
    /// A response with an id that was not sent, or that was answered before.
    #[error("a response for id {0}, which is not waiting")]
    InactiveId(u16),
    /// A response whose id is not that of the request in its slot.
    #[error("a response with id {0} in another one's slot")]
    WrongSlot(u16),
    /// A packet whose last slot was not pushed together with its first.
    #[error("a packet goes on behind the last response")]
    Incomplete,
    /// Bytes outside of the page, or none.
    #[error("a response with status {status} and offset {offset}")]
    BadLength {
        /// The response's status.
        status: i16,
        /// The response's offset.
        offset: u16,
    },
    /// Extra information of a kind that was not to be expected.
    #[error("extra information that makes no sense")]
    BadExtra,
}

/// The frontend's side of a ring.
#[derive(Debug)]
struct FrontRing<'a> {
    page: &'a Page,
    /// Behind the last request, pushed or not.
    req_prod: Index,
    /// Behind the last response that was reaped.
    rsp_cons: Index,
}

impl<'a> FrontRing<'a> {
    /// Makes the page an empty ring (`SHARED_RING_INIT`) whose indexes begin at `start`; netfront begins at 0.
    fn new(page: &'a Page, start: Index) -> Self {
        page.write(0, &[0; SLOTS_OFFSET]);
        for (offset, index) in [
            (REQ_PROD_OFFSET, start),
            (RSP_PROD_OFFSET, start),
            (REQ_EVENT_OFFSET, start.plus(1)),
            (RSP_EVENT_OFFSET, start.plus(1)),
        ] {
            page.store_u32(offset, index.0);
        }
        Self { page, req_prod: start, rsp_cons: start }
    }

    fn free_slots(&self) -> u32 {
        RING_SLOTS - self.req_prod.since(self.rsp_cons)
    }

    /// The place of the next request.
    fn claim(&mut self) -> Index {
        assert!(self.free_slots() > 0, "the ring is full");
        let index = self.req_prod;
        self.req_prod = index.plus(1);
        index
    }

    /// Makes the requests visible; returns whether the backend wants an event.
    fn push(&self) -> bool {
        let (old, new) = (Index(self.page.load_u32(REQ_PROD_OFFSET)), self.req_prod);
        self.page.store_u32(REQ_PROD_OFFSET, new.0);
        fence(Ordering::SeqCst);
        let event = Index(self.page.load_u32(REQ_EVENT_OFFSET));
        new.since(event) < new.since(old)
    }

    /// Behind the last response to reap.
    fn responses_end(&self) -> Result<Index, BackendFault> {
        let end = Index(self.page.load_u32(RSP_PROD_OFFSET));
        let count = end.since(self.rsp_cons);
        if count > self.req_prod.since(self.rsp_cons) { Err(BackendFault::TooMany(count)) } else { Ok(end) }
    }

    /// Asks for an event at the next response, and looks again: is there one?
    fn final_check(&self) -> bool {
        let more = || Index(self.page.load_u32(RSP_PROD_OFFSET)) != self.rsp_cons;
        if more() {
            return true;
        }
        self.page.store_u32(RSP_EVENT_OFFSET, self.rsp_cons.plus(1).0);
        fence(Ordering::SeqCst);
        more()
    }
}
