//! Pages and packets for the tests.
#![allow(dead_code, reason = "not every test needs all of it")]

use hypervisor::{GrantRef, Page};
use netif::ring::{Extra, ExtraInfo, REQ_PROD_OFFSET, TX_SLOT_BYTES, slot_offset};
use netif::{Gso, Index, TxPart};

pub fn page() -> Page {
    Page::anonymous().unwrap()
}

pub fn part(gref: u32, offset_bytes: u16, length_bytes: u16) -> TxPart {
    TxPart { gref: GrantRef(gref), offset_bytes, length_bytes }
}

pub fn info(extra: impl Into<Extra>) -> ExtraInfo {
    ExtraInfo { extra: extra.into(), more: false }
}

pub fn gso(size_bytes: u16) -> Gso {
    Gso::from_wire(1, size_bytes).unwrap()
}

/// A guest that lies about how far it got.
pub fn set_req_prod(page: &Page, index: Index) {
    page.store_u32(REQ_PROD_OFFSET, index.0);
}

/// A guest that overwrites a slot of its transmit ring.
pub fn scribble_tx(page: &Page, index: Index, byte: u8) {
    page.write(slot_offset(index, TX_SLOT_BYTES), &[byte; TX_SLOT_BYTES]);
}
