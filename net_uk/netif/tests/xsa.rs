//! One test for each known weakness of network backends that could be here; the advisories are at xenbits.xen.org/xsa.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::time::Duration;

use common::{gso, info, page, part, scribble_tx, set_req_prod};
use netif::limits::{RX_STALL_TIMEOUT, TX_PARTS_MAX};
use netif::model::{RxFront, TxFront};
use netif::ring::{Extra, RX_SLOT_BYTES, TX_SLOT_BYTES, TxRequest, read_slot, slot_offset, tx_flags};
use netif::{
    Checksum, FrameMeta, Index, PacketFault, RingFault, RxRing, RxStatus, StallChange, StallClock, TxRing,
    TxStatus,
};

fn frame(bytes: usize) -> FrameMeta {
    FrameMeta::new(bytes, Checksum::None, None).unwrap()
}

/// Garbage in the ring's index kept netback busy, or made it read beyond.
#[test]
fn xsa_39_garbage_in_an_index_stops_this_ring_only() {
    for garbage in [257, 0x8000_0000, u32::MAX] {
        let (page, other) = (page(), page());
        let mut other_front = TxFront::new(&other, Index(0));
        let (mut ring, mut neighbour) = (TxRing::attach(&page).unwrap(), TxRing::attach(&other).unwrap());
        set_req_prod(&page, Index(garbage));
        let fault = RingFault::ImpossibleIndex { own: Index(0), peer: Index(garbage) };
        assert_eq!(ring.take(), Err(fault));
        assert!(TxRing::attach(&page).is_err() && RxRing::attach(&page).is_err());
        other_front.packet(&[part(1, 0, 60)], 0, &[]);
        other_front.push();
        assert!(neighbour.take().unwrap().is_some());
    }
    // An index that goes back behind what was taken.
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    (0..2).for_each(|_| drop(front.packet(&[part(1, 0, 60)], 0, &[])));
    front.push();
    let mut ring = TxRing::attach(&page).unwrap();
    (0..2).for_each(|_| assert!(ring.take().unwrap().is_some()));
    set_req_prod(&page, Index(1));
    assert_eq!(ring.take(), Err(RingFault::ImpossibleIndex { own: Index(2), peer: Index(1) }));
}

/// CVE-2015-8550: a request was read twice, and changed between the check and the use.
#[test]
fn xsa_155_what_was_checked_is_what_is_used() {
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    let mut ring = TxRing::attach(&page).unwrap();
    let parts = [part(1, 0, 60), part(2, 8, 100)];
    let ids = front.packet(&parts, 0, &[info(gso(1448))]);
    front.push();
    let packet = ring.take().unwrap().unwrap();
    for index in 0..3 {
        scribble_tx(&page, Index(index), 0xff);
    }
    assert_eq!((packet.parts(), packet.gso()), (&parts[..], Some(gso(1448))));
    ring.answer(&packet, TxStatus::Okay);
    ring.publish();
    assert_eq!(front.reap().unwrap().iter().map(|response| response.id).collect::<Vec<_>>(), ids);

    let page = common::page();
    let mut front = RxFront::new(&page, Index(0));
    let gref = front.post();
    front.push();
    let mut ring = RxRing::attach(&page).unwrap();
    let plan = ring.plan(frame(60)).unwrap().unwrap();
    page.write(slot_offset(Index(0), RX_SLOT_BYTES), &[0xff; RX_SLOT_BYTES]);
    assert_eq!(plan.parts().next().unwrap().gref, gref);
    ring.answer(&plan, RxStatus::Delivered);
    ring.publish();
    assert!(front.reap().is_ok());
}

/// Bytes of the backend's memory leaked in the parts of responses that nobody sets.
#[test]
fn xsa_216_responses_are_set_in_full() {
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    let mut ring = TxRing::attach(&page).unwrap();
    front.packet(&[part(u32::MAX, 0, 60), part(u32::MAX, 0, 60)], 3, &[info(Extra::Unknown(255))]);
    front.push();
    let packet = ring.take().unwrap().unwrap();
    (0..3).for_each(|index| scribble_tx(&page, Index(index), 0xff));
    ring.answer(&packet, TxStatus::Okay);
    ring.publish();
    for (index, first) in [(0, [0, 0, 0xff, 0xff]), (1, [0, 0, 1, 0]), (2, [1, 0, 0xff, 0xff])] {
        let slot: [u8; TX_SLOT_BYTES] = read_slot(&page, Index(index));
        assert_eq!((&slot[..4], &slot[4..]), (&first[..], &[0; 8][..]), "slot {index}");
    }

    let page = common::page();
    let mut front = RxFront::new(&page, Index(0));
    (0..2).for_each(|_| {
        front.post();
    });
    front.push();
    let mut ring = RxRing::attach(&page).unwrap();
    let plan = ring.plan(FrameMeta::new(60, Checksum::None, Some(gso(0x1234))).unwrap()).unwrap().unwrap();
    page.write(slot_offset(Index(0), RX_SLOT_BYTES), &[0xff; 2 * RX_SLOT_BYTES]);
    ring.answer(&plan, RxStatus::Delivered);
    ring.publish();
    assert_eq!(read_slot(&page, Index(0)), [0, 0, 0, 0, 8, 0, 60, 0]);
    assert_eq!(read_slot(&page, Index(1)), [1, 0, 0x34, 0x12, 1, 0, 0, 0]);
}

/// CVE-2021-28691: a malformed packet ended the thread while others still used what it held.
#[test]
fn xsa_374_a_malformed_packet_leaves_the_ring_usable_for_what_is_under_way() {
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    let mut ring = TxRing::attach(&page).unwrap();
    front.packet(&[part(1, 0, 60)], 0, &[]);
    front.request(TxRequest { flags: tx_flags::MORE_DATA, size_bytes: 60, ..TxRequest::default() });
    front.push();
    let good = ring.take().unwrap().unwrap();
    assert_eq!(ring.take(), Err(RingFault::Incomplete { index: Index(1) }));
    assert_eq!(ring.unanswered(), 1);
    ring.answer(&good, TxStatus::Okay);
    assert!(ring.publish());
    assert_eq!(front.reap().unwrap().len(), 1);
}

/// CVE-2021-28714, CVE-2021-28715: a guest that takes no frames, or posts one slot while the next frame needs more.
#[test]
fn xsa_392_a_guest_that_posts_too_little_stalls() {
    for posted in [0, 1, 2] {
        let page = page();
        let mut front = RxFront::new(&page, Index(0));
        (0..posted).for_each(|_| {
            front.post();
        });
        front.push();
        let mut ring = RxRing::attach(&page).unwrap();
        let mut clock = StallClock::new(RX_STALL_TIMEOUT);
        assert!(!ring.is_starved().unwrap(), "no frame waits");
        assert_eq!(ring.plan(frame(3 * 4096)), Ok(None));
        assert_eq!(clock.update(Duration::ZERO, ring.is_starved().unwrap()), None);
        assert_eq!(clock.update(RX_STALL_TIMEOUT, ring.is_starved().unwrap()), Some(StallChange::Stalled));
        // The frames are dropped, the guest posts, and all is well again.
        (posted..3).for_each(|_| {
            front.post();
        });
        front.push();
        assert_eq!(clock.update(RX_STALL_TIMEOUT, ring.is_starved().unwrap()), Some(StallChange::Ready));
    }
}

/// CVE-2022-3643: headers that were split over several fragments reset network cards behind netback.
#[test]
fn xsa_423_headers_may_be_cut_anywhere() {
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    let mut ring = TxRing::attach(&page).unwrap();
    let parts: Vec<_> = (0..14).map(|n| part(n, 0, 1)).chain([part(14, 0, 46)]).collect();
    front.packet(&parts, 0, &[]);
    front.push();
    let packet = ring.take().unwrap().unwrap();
    assert_eq!((packet.fault(), packet.parts(), packet.length_bytes()), (None, &parts[..], 60));
}

/// CVE-2023-34319: a packet of as many fragments as allowed, all of them tiny, overran a buffer.
#[test]
fn xsa_432_many_tiny_fragments_are_a_packet() {
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    let mut ring = TxRing::attach(&page).unwrap();
    for count in 14..=TX_PARTS_MAX + 2 {
        front.packet(&vec![part(1, 4095, 1); count], 0, &[]);
        front.push();
        let packet = ring.take().unwrap().unwrap();
        let fault = (count > TX_PARTS_MAX).then_some(PacketFault::TooManyParts);
        assert_eq!(packet.fault(), fault, "{count}");
        assert!(packet.parts().len() <= TX_PARTS_MAX);
        ring.answer(&packet, TxStatus::Okay);
        ring.publish();
        front.reap().unwrap();
    }
}

/// CVE-2023-46838: fragments without bytes ended as a null pointer. A guest may send them; nobody sees them.
#[test]
fn xsa_448_empty_fragments_are_answered_and_not_passed_on() {
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    let mut ring = TxRing::attach(&page).unwrap();
    let ids = front.packet(&[part(1, 0, 60), part(2, 0, 0), part(3, 4096, 0), part(4, 0, 9)], 0, &[]);
    front.packet(&[part(5, 0, 0), part(6, 0, 60)], 0, &[]);
    front.packet(&[part(7, 0, 0)], 0, &[]);
    front.packet(&[part(8, 0, 0); TX_PARTS_MAX], 0, &[]);
    front.push();
    let mut packets = Vec::new();
    while let Some(packet) = ring.take().unwrap() {
        assert!(packet.parts().iter().all(|part| part.length_bytes > 0));
        ring.answer(&packet, TxStatus::Okay);
        packets.push(packet);
    }
    assert_eq!(packets[0].parts(), [part(1, 0, 60), part(4, 0, 9)]);
    assert_eq!(packets[1].parts(), [part(6, 0, 60)]);
    for empty in &packets[2..] {
        assert_eq!(empty.fault(), Some(PacketFault::TooShort { total_bytes: 0 }));
    }
    ring.publish();
    assert_eq!(front.reap().unwrap().len(), ids.len() + 2 + 1 + TX_PARTS_MAX);
}

/// A guest that writes anything cannot be the cause that a backend reads or writes outside of what was granted.
#[test]
fn no_part_ever_reaches_beyond_its_page() {
    for (offset, size) in [(4096, 1), (4095, 2), (0, 4097), (u16::MAX, 1), (1, u16::MAX)] {
        let page = page();
        let mut front = TxFront::new(&page, Index(0));
        front.packet(&[part(1, offset, size)], 0, &[]);
        front.push();
        let packet = TxRing::attach(&page).unwrap().take().unwrap().unwrap();
        assert!(packet.parts().is_empty());
        assert!(packet.fault().is_some());
    }
}
