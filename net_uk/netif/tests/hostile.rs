//! Guests that write anything: goal is that nothing panics, and nothing out of bounds is handed out.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::page;
use hypervisor::{PAGE_BYTES, Page};
use netif::limits::{EXTRAS_MAX, FRAME_BYTES_MIN, RX_PARTS_MAX, TX_PARTS_MAX};
use netif::{Checksum, FrameMeta, RxRing, RxStatus, TxPacket, TxRing, TxStatus};
use proptest::prelude::*;

fn check(packet: &TxPacket) {
    let parts = packet.parts();
    assert!(parts.len() <= TX_PARTS_MAX && packet.slots() <= 256);
    for part in parts {
        assert!(part.length_bytes > 0);
        assert!(usize::from(part.offset_bytes) + usize::from(part.length_bytes) <= PAGE_BYTES);
    }
    if packet.fault().is_none() && packet.multicast().is_none() {
        let total: usize = parts.iter().map(|part| usize::from(part.length_bytes)).sum();
        assert_eq!(total, packet.length_bytes());
        assert!(total >= FRAME_BYTES_MIN as usize);
        assert!(packet.slots() as usize <= TX_PARTS_MAX + EXTRAS_MAX);
    } else {
        assert!(parts.is_empty());
    }
}

/// A write of the guest: where, and what.
fn writes() -> impl Strategy<Value = Vec<(u16, u32)>> {
    // Mostly the indexes and the first slots, with small numbers: others end at once.
    let place = prop_oneof![3 => 0..4u16, 3 => 16..120u16, 1 => 0..1024u16];
    let value =
        prop_oneof![3 => 0..300u32, 2 => any::<u32>(), 1 => (0..16u32).prop_map(|flags| flags << 16 | 60)];
    proptest::collection::vec((place, value), 0..80)
}

fn write(page: &Page, writes: &[(u16, u32)]) {
    for (place, value) in writes {
        page.store_u32(4 * usize::from(*place), *value);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_transmit_page_is_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), PAGE_BYTES), req_prod in 0..300u32) {
        let page = page();
        page.write(0, &bytes);
        page.store_u32(8, 0);
        page.store_u32(0, req_prod);
        let Ok(mut ring) = TxRing::attach(&page) else {
            prop_assert!(req_prod > 256);
            return Ok(());
        };
        while let Ok(Some(packet)) = ring.take() {
            check(&packet);
            ring.answer(&packet, TxStatus::Okay);
        }
        ring.publish();
        ring.final_check();
    }

    /// The guest goes on writing between any two steps.
    #[test]
    fn a_transmit_page_that_changes_does_no_harm(rounds in proptest::collection::vec((writes(), 0..6u8), 0..40)) {
        let page = page();
        let mut ring = TxRing::attach(&page).unwrap();
        let mut taken = std::collections::VecDeque::new();
        for (changes, step) in rounds {
            write(&page, &changes);
            match step {
                0 | 1 => if let Ok(Some(packet)) = ring.take() {
                    check(&packet);
                    taken.push_back(packet);
                },
                2 => if let Some(packet) = taken.pop_front() {
                    ring.answer(&packet, TxStatus::Okay);
                },
                3 => { ring.publish(); },
                4 => if let Some(packet) = taken.pop_back() {
                    ring.untake(&packet);
                },
                _ => { ring.final_check(); },
            }
            prop_assert!(ring.unanswered() + ring.unpublished() <= 256);
        }
    }

    #[test]
    fn a_receive_page_that_changes_does_no_harm(
        rounds in proptest::collection::vec((writes(), 0..6u8, 14..65_562usize), 0..40),
    ) {
        let page = page();
        let mut ring = RxRing::attach(&page).unwrap();
        let mut planned = std::collections::VecDeque::new();
        for (changes, step, bytes) in rounds {
            write(&page, &changes);
            let frame = FrameMeta::new(bytes, Checksum::None, None).unwrap();
            match step {
                0 | 1 => if let Ok(Some(plan)) = ring.plan(frame) {
                    prop_assert!(plan.parts().len() <= RX_PARTS_MAX);
                    prop_assert_eq!(plan.parts().map(|part| part.length_bytes).sum::<usize>(), bytes);
                    planned.push_back(plan);
                },
                2 => if let Some(plan) = planned.pop_front() {
                    ring.answer(&plan, RxStatus::Delivered);
                },
                3 => { ring.publish(); },
                4 => if let Some(plan) = planned.pop_back() {
                    ring.unplan(&plan);
                },
                _ => { let _ = (ring.final_check(), ring.is_starved()); },
            }
            prop_assert!(ring.unanswered() + ring.unpublished() <= 256);
        }
    }

    /// A successor believes neither the page nor a log that does not fit it.
    #[test]
    fn any_page_and_log_are_attached_without_harm(
        changes in writes(), first in 0..300u32, log in proptest::collection::vec(any::<u8>(), 0..1200),
    ) {
        let page = page();
        write(&page, &changes);
        if let Ok(mut ring) = TxRing::attach(&page) {
            let _ = ring.redo(netif::Index(first), &log);
            while let Ok(Some(packet)) = ring.take() {
                check(&packet);
            }
        }
        if let Ok(mut ring) = RxRing::attach(&page) {
            let _ = ring.redo(netif::Index(first), &log);
            let _ = ring.available();
        }
    }
}
