//! The frontend's end of a shared ring of one page (`xen/include/public/io/ring.h`).
//!
//! ```text
//!   0 req_prod   4 req_event   8 rsp_prod   12 rsp_event   64 slots: a request, later a response to some request
//! ```
//!
//! Indices run freely; the frontend counts `req_prod` and keeps `rsp_cons` to itself.

use std::sync::atomic::{Ordering, fence};

use hypervisor::Page;

use crate::limits::RING_SLOTS;

/// Where the number of requests shown is.
pub const REQ_PROD_OFFSET: usize = 0;
/// Where the backend says at which request it wants to be notified.
pub const REQ_EVENT_OFFSET: usize = 4;
/// Where the number of responses shown is.
pub const RSP_PROD_OFFSET: usize = 8;
/// Where the frontend says at which response it wants to be notified.
pub const RSP_EVENT_OFFSET: usize = 12;
/// Where the slots begin.
pub const SLOTS_OFFSET: usize = 64;

/// A ring, made by the frontend.
#[derive(Debug)]
pub struct FrontRing {
    page: Page,
    slot_bytes: usize,
    req_prod: u32,
    rsp_cons: u32,
}

/// The backend shows more responses than there are requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow(pub u32);

impl FrontRing {
    /// Makes an empty ring of a page.
    pub fn new(page: Page, slot_bytes: usize) -> Self {
        page.write(0, &[0; SLOTS_OFFSET]);
        page.store_u32(REQ_EVENT_OFFSET, 1);
        page.store_u32(RSP_EVENT_OFFSET, 1);
        Self { page, slot_bytes, req_prod: 0, rsp_cons: 0 }
    }

    /// The page, for what a well-behaved frontend would not do.
    pub fn page(&self) -> &Page {
        &self.page
    }

    /// Number of the next request.
    pub fn req_prod(&self) -> u32 {
        self.req_prod
    }

    /// Number of the next response to take.
    pub fn rsp_cons(&self) -> u32 {
        self.rsp_cons
    }

    /// Requests whose responses were not taken yet.
    pub fn in_flight(&self) -> u32 {
        self.req_prod.wrapping_sub(self.rsp_cons)
    }

    /// Writes the next request and leaves it unseen. There must be room.
    pub fn put(&mut self, request: &[u8]) {
        self.page.write(self.place(self.req_prod), request);
        self.req_prod = self.req_prod.wrapping_add(1);
    }

    /// Shows all requests. Does the backend want to be notified?
    pub fn push(&mut self) -> bool {
        let (old, new) = (self.page.load_u32(REQ_PROD_OFFSET), self.req_prod);
        self.page.store_u32(REQ_PROD_OFFSET, new);
        // The backend must see the requests before its wish is read: it writes the wish before it looks again.
        fence(Ordering::SeqCst);
        let wish = self.page.load_u32(REQ_EVENT_OFFSET);
        new.wrapping_sub(wish) < new.wrapping_sub(old)
    }

    /// Responses that wait, whatever their number.
    pub fn waiting(&self) -> u32 {
        self.page.load_u32(RSP_PROD_OFFSET).wrapping_sub(self.rsp_cons)
    }

    /// The number after the last response that may be taken.
    ///
    /// # Errors
    /// If there are more responses than requests.
    pub fn responses_end(&self) -> Result<u32, Overflow> {
        let waiting = self.waiting();
        match waiting > self.in_flight() {
            true => Err(Overflow(waiting)),
            false => Ok(self.rsp_cons.wrapping_add(waiting)),
        }
    }

    /// Copies a response once.
    pub fn response<const BYTES: usize>(&self, number: u32) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        self.page.read(self.place(number), &mut bytes);
        bytes
    }

    /// The responses before this number were taken.
    pub fn took(&mut self, rsp_cons: u32) {
        self.rsp_cons = rsp_cons;
    }

    /// Asks to be notified of the next response. Is there one already?
    pub fn sleep(&self) -> bool {
        if self.waiting() != 0 {
            return true;
        }
        self.page.store_u32(RSP_EVENT_OFFSET, self.rsp_cons.wrapping_add(1));
        fence(Ordering::SeqCst);
        self.waiting() != 0
    }

    fn place(&self, number: u32) -> usize {
        SLOTS_OFFSET + (number % RING_SLOTS) as usize * self.slot_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> FrontRing {
        FrontRing::new(Page::anonymous().unwrap(), 12)
    }

    #[test]
    fn the_last_slot_of_both_kinds_lies_within_the_page() {
        for bytes in [8, 12] {
            let ring = FrontRing::new(Page::anonymous().unwrap(), bytes);
            assert!(ring.place(RING_SLOTS - 1) + bytes <= hypervisor::PAGE_BYTES);
            assert_eq!(ring.place(RING_SLOTS), SLOTS_OFFSET);
        }
    }

    #[test]
    fn a_backend_is_notified_only_of_the_request_it_waits_for() {
        let mut ring = ring();
        ring.put(&[1; 12]);
        assert!(ring.push(), "it waits for the first");
        ring.put(&[2; 12]);
        assert!(!ring.push());
        ring.page().store_u32(REQ_EVENT_OFFSET, 4);
        ring.put(&[3; 12]);
        assert!(!ring.push());
        ring.put(&[4; 12]);
        ring.put(&[5; 12]);
        assert!(ring.push(), "the fourth was among them");
    }

    #[test]
    fn indices_run_over_the_end_of_their_numbers() {
        let mut ring = ring();
        (ring.req_prod, ring.rsp_cons) = (u32::MAX, u32::MAX);
        for offset in [REQ_PROD_OFFSET, RSP_PROD_OFFSET] {
            ring.page.store_u32(offset, u32::MAX);
        }
        ring.page.store_u32(REQ_EVENT_OFFSET, 0);
        ring.put(&[1; 12]);
        assert!(ring.push());
        assert!(!ring.sleep());
        assert_eq!(ring.page.load_u32(RSP_EVENT_OFFSET), 0);
        ring.page.store_u32(RSP_PROD_OFFSET, 0);
        assert!(ring.sleep());
        assert_eq!(ring.responses_end(), Ok(0));
        ring.page.store_u32(RSP_PROD_OFFSET, 1);
        assert_eq!(ring.responses_end(), Err(Overflow(2)));
        ring.page.store_u32(RSP_PROD_OFFSET, u32::MAX - 1);
        assert_eq!(ring.responses_end(), Err(Overflow(u32::MAX)));
    }
}
