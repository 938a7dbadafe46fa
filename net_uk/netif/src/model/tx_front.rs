//! The frontend's side of the transmit ring.

use hypervisor::Page;

use super::{BackendFault, FrontRing};
use crate::ring::{
    ExtraInfo, RING_SLOTS, TX_RESPONSE_BYTES, TX_SLOT_BYTES, TxRequest, TxResponse, read_slot, status,
    tx_flags, write_slot,
};
use crate::{Index, TxPart};

/// A frontend that transmits.
#[derive(Debug)]
pub struct TxFront<'a> {
    ring: FrontRing<'a>,
    /// Is a request with this id on its way?
    waiting: [bool; RING_SLOTS as usize],
}

impl<'a> TxFront<'a> {
    /// Makes the page an empty ring whose indexes begin at `start`.
    pub fn new(page: &'a Page, start: Index) -> Self {
        Self { ring: FrontRing::new(page, start), waiting: [false; RING_SLOTS as usize] }
    }

    /// Slots without a request.
    pub fn free_slots(&self) -> u32 {
        self.ring.free_slots()
    }

    /// Adds a request as it is, but for its id, which is returned.
    ///
    /// # Panics
    /// If the ring is full.
    pub fn request(&mut self, request: TxRequest) -> u16 {
        // A page that was tampered with can cost ids; then one is used twice.
        let free = (0..).zip(&self.waiting).find(|(_, waiting)| !**waiting);
        let id = free.map_or(0, |(id, _)| id);
        self.waiting[usize::from(id)] = true;
        let slot = TxRequest { id, ..request }.encode();
        write_slot(self.ring.page, self.ring.claim(), TX_SLOT_BYTES, &slot);
        id
    }

    /// Adds a slot with extra information.
    ///
    /// # Panics
    /// If the ring is full.
    pub fn extra(&mut self, info: ExtraInfo) {
        write_slot(self.ring.page, self.ring.claim(), TX_SLOT_BYTES, &info.encode());
    }

    /// Adds a packet as netfront makes it, of `parts` (one at least); returns the ids of its requests.
    ///
    /// # Panics
    /// If the ring is full.
    pub fn packet(&mut self, parts: &[TxPart], flags: u16, extras: &[ExtraInfo]) -> Vec<u16> {
        let total = parts.iter().map(|part| u32::from(part.length_bytes)).sum::<u32>();
        let mut ids = Vec::new();
        for (number, part) in parts.iter().enumerate() {
            let more = if number + 1 < parts.len() { tx_flags::MORE_DATA } else { 0 };
            let mut request = TxRequest {
                gref: part.gref,
                offset_bytes: part.offset_bytes,
                flags: more,
                id: 0,
                size_bytes: part.length_bytes,
            };
            if number > 0 {
                ids.push(self.request(request));
                continue;
            }
            request.flags |= flags | if extras.is_empty() { 0 } else { tx_flags::EXTRA_INFO };
            request.size_bytes = u16::try_from(total).unwrap_or(u16::MAX);
            ids.push(self.request(request));
            for (number, info) in extras.iter().enumerate() {
                self.extra(ExtraInfo { more: number + 1 < extras.len(), ..*info });
            }
        }
        ids
    }

    /// Makes all that was added visible; returns whether the backend wants an event.
    pub fn push(&mut self) -> bool {
        self.ring.push()
    }

    /// Takes all responses, and asks for an event at the next.
    ///
    /// # Errors
    /// What netfront would complain of.
    pub fn reap(&mut self) -> Result<Vec<TxResponse>, BackendFault> {
        let mut responses = Vec::new();
        loop {
            let end = self.ring.responses_end()?;
            while self.ring.rsp_cons != end {
                responses.extend(self.reap_one()?);
            }
            if !self.ring.final_check() {
                return Ok(responses);
            }
        }
    }

    fn reap_one(&mut self) -> Result<Option<TxResponse>, BackendFault> {
        let slot: [u8; TX_SLOT_BYTES] = read_slot(self.ring.page, self.ring.rsp_cons);
        self.ring.rsp_cons = self.ring.rsp_cons.plus(1);
        let (response, _) = slot.split_first_chunk::<TX_RESPONSE_BYTES>().expect("a slot is longer");
        let response = TxResponse::decode(response);
        if response.status == status::NULL {
            return Ok(None);
        }
        match self.waiting.get_mut(usize::from(response.id)) {
            Some(waiting) if *waiting => *waiting = false,
            _ => return Err(BackendFault::InactiveId(response.id)),
        }
        Ok(Some(response))
    }
}
