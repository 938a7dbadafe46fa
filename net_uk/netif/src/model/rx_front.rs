//! The frontend's side of the receive ring.

use std::collections::BTreeMap;

use hypervisor::{GrantRef, PAGE_BYTES, Page};

use super::{BackendFault, FrontRing};
use crate::ring::{Extra, ExtraInfo, RX_SLOT_BYTES, RxRequest, RxResponse, read_slot, rx_flags, write_slot};
use crate::{Gso, Index};

/// A packet that was received.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RxPacket {
    /// Its pages and how many bytes are in each, from the beginning of the page.
    pub pieces: Vec<(GrantRef, usize)>,
    /// Flags of its first response.
    pub flags: u16,
    /// How it is to be cut.
    pub gso: Option<Gso>,
    /// Was one of its responses an error? Then netfront drops it.
    pub failed: bool,
}

/// A frontend that receives. Each page that it posts has a grant of its own.
#[derive(Debug)]
pub struct RxFront<'a> {
    ring: FrontRing<'a>,
    /// What lies in the slots that wait, by index, as netfront has it.
    posted: BTreeMap<u32, RxRequest>,
    next_gref: u32,
}

impl<'a> RxFront<'a> {
    /// Makes the page an empty ring whose indexes begin at `start`.
    pub fn new(page: &'a Page, start: Index) -> Self {
        Self { ring: FrontRing::new(page, start), posted: BTreeMap::new(), next_gref: 1 }
    }

    /// Slots without a request.
    pub fn free_slots(&self) -> u32 {
        self.ring.free_slots()
    }

    /// Posts a page.
    ///
    /// # Panics
    /// If the ring is full.
    pub fn post(&mut self) -> GrantRef {
        let index = self.ring.claim();
        let gref = GrantRef(self.next_gref);
        self.next_gref += 1;
        let id = u16::try_from(index.slot()).expect("below 256");
        let request = RxRequest { id, gref };
        self.posted.insert(index.0, request);
        write_slot(self.ring.page, index, RX_SLOT_BYTES, &request.encode());
        gref
    }

    /// Makes all that was posted visible; returns whether the backend wants an event.
    pub fn push(&mut self) -> bool {
        self.ring.push()
    }

    /// Takes all packets, and asks for an event at the next response.
    ///
    /// # Errors
    /// What netfront would complain of.
    pub fn reap(&mut self) -> Result<Vec<RxPacket>, BackendFault> {
        let mut packets = Vec::new();
        loop {
            let end = self.ring.responses_end()?;
            while self.ring.rsp_cons != end {
                packets.push(self.reap_packet(end)?);
            }
            if !self.ring.final_check() {
                return Ok(packets);
            }
        }
    }

    fn reap_packet(&mut self, end: Index) -> Result<RxPacket, BackendFault> {
        let mut packet = RxPacket::default();
        let mut flags = self.reap_data(end, &mut packet)?;
        packet.flags = flags;
        if flags & rx_flags::EXTRA_INFO != 0 {
            packet.gso = Some(self.reap_extra(end)?);
        }
        while flags & rx_flags::MORE_DATA != 0 {
            flags = self.reap_data(end, &mut packet)?;
        }
        Ok(packet)
    }

    /// The next slot, and what was posted there.
    fn slot(&mut self, end: Index) -> Result<([u8; RX_SLOT_BYTES], RxRequest), BackendFault> {
        let index = self.ring.rsp_cons;
        if index == end {
            return Err(BackendFault::Incomplete);
        }
        self.ring.rsp_cons = index.plus(1);
        let posted = self.posted.remove(&index.0).ok_or(BackendFault::Incomplete)?;
        Ok((read_slot(self.ring.page, index), posted))
    }

    fn reap_data(&mut self, end: Index, packet: &mut RxPacket) -> Result<u16, BackendFault> {
        let (slot, posted) = self.slot(end)?;
        let response = RxResponse::decode(&slot);
        // Netfront does not look at it; but then, an honest backend has no reason to change it.
        if response.id != posted.id {
            return Err(BackendFault::WrongSlot(response.id));
        }
        let (status, offset) = (response.status, response.offset_bytes);
        match usize::try_from(status) {
            Err(_) => packet.failed = true,
            Ok(1..=PAGE_BYTES) if offset == 0 => {
                packet.pieces.push((posted.gref, status.unsigned_abs().into()))
            }
            Ok(_) => return Err(BackendFault::BadLength { status, offset }),
        }
        Ok(response.flags)
    }

    fn reap_extra(&mut self, end: Index) -> Result<Gso, BackendFault> {
        let (slot, _) = self.slot(end)?;
        match ExtraInfo::decode(&slot) {
            ExtraInfo { extra: Extra::Gso { size_bytes, kind, features: 0 }, more: false } => {
                Gso::from_wire(kind, size_bytes).ok_or(BackendFault::BadExtra)
            }
            _ => Err(BackendFault::BadExtra),
        }
    }
}
