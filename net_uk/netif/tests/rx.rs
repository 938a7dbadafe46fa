//! The receive ring with a frontend as Linux's: goal is that every frame arrives whole, and every response in the slot of
//! its request.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::collections::VecDeque;

use common::{gso, page};
use hypervisor::{GrantRef, Page};
use netif::limits::{FRAME_BYTES_MAX, RX_PARTS_MAX};
use netif::model::{RxFront, RxPacket};
use netif::ring::{RSP_PROD_OFFSET, rx_flags};
use netif::{Checksum, FrameMeta, Gso, Index, Redo, RxPart, RxRing, RxStatus};
use proptest::prelude::*;

fn frame(bytes: usize) -> FrameMeta {
    FrameMeta::new(bytes, Checksum::None, None).unwrap()
}

/// A front that posted so many pages.
fn posted(page: &Page, count: u32) -> (RxFront<'_>, RxRing<&Page>) {
    let mut front = RxFront::new(page, Index(0));
    let ring = RxRing::attach(page).unwrap();
    (0..count).for_each(|_| {
        front.post();
    });
    front.push();
    (front, ring)
}

#[test]
fn a_frame_is_delivered() {
    let page = page();
    let (mut front, mut ring) = posted(&page, 4);
    assert_eq!(ring.available(), Ok(4));
    let meta = FrameMeta::new(5000, Checksum::Blank, Some(gso(1448))).unwrap();
    let plan = ring.plan(meta).unwrap().unwrap();
    assert_eq!((plan.index(), plan.slots(), plan.frame()), (Index(0), 3, meta));
    // The second page is where the extra information goes.
    let parts = [
        RxPart { gref: GrantRef(1), frame_offset: 0, length_bytes: 4096 },
        RxPart { gref: GrantRef(3), frame_offset: 4096, length_bytes: 904 },
    ];
    assert!(plan.parts().eq(parts));
    assert_eq!((ring.available(), ring.unanswered()), (Ok(1), 3));
    ring.answer(&plan, RxStatus::Delivered);
    assert!(front.reap().unwrap().is_empty());
    assert!(ring.publish());
    let flags = rx_flags::CSUM_BLANK | rx_flags::DATA_VALIDATED | rx_flags::MORE_DATA | rx_flags::EXTRA_INFO;
    let pieces = vec![(GrantRef(1), 4096), (GrantRef(3), 904)];
    let packet = RxPacket { pieces, flags, gso: Some(gso(1448)), failed: false };
    assert_eq!(front.reap().unwrap(), [packet]);
}

#[test]
fn flags_tell_of_the_checksum() {
    let page = page();
    let (mut front, mut ring) = posted(&page, 3);
    for checksum in [Checksum::None, Checksum::Validated, Checksum::Blank] {
        let plan = ring.plan(FrameMeta::new(60, checksum, None).unwrap()).unwrap().unwrap();
        ring.answer(&plan, RxStatus::Delivered);
    }
    ring.publish();
    let flags: Vec<_> = front.reap().unwrap().iter().map(|packet| packet.flags).collect();
    let validated = rx_flags::DATA_VALIDATED;
    assert_eq!(flags, [0, validated, validated | rx_flags::CSUM_BLANK]);
}

#[test]
fn a_frame_that_could_not_be_copied_is_an_error_and_the_next_one_is_fine() {
    let page = page();
    let (mut front, mut ring) = posted(&page, 8);
    let meta = FrameMeta::new(5000, Checksum::None, Some(gso(1448))).unwrap();
    for (meta, status) in [(meta, RxStatus::Failed), (frame(60), RxStatus::Delivered)] {
        let plan = ring.plan(meta).unwrap().unwrap();
        ring.answer(&plan, status);
    }
    ring.publish();
    let packets = front.reap().unwrap();
    assert!(packets[0].failed && packets[0].pieces.is_empty());
    assert_eq!((packets[1].failed, packets[1].pieces.len()), (false, 1));
}

#[test]
fn the_longest_frame_fits_netfronts_bound() {
    let page = page();
    let (mut front, mut ring) = posted(&page, 256);
    let longest = FrameMeta::new(FRAME_BYTES_MAX as usize, Checksum::Blank, Some(gso(1448))).unwrap();
    let plan = ring.plan(longest).unwrap().unwrap();
    assert_eq!((plan.parts().len(), plan.slots()), (RX_PARTS_MAX, 18));
    assert_eq!(plan.parts().map(|part| part.length_bytes).sum::<usize>(), FRAME_BYTES_MAX as usize);
    ring.answer(&plan, RxStatus::Delivered);
    ring.publish();
    assert_eq!(front.reap().unwrap()[0].pieces.len(), RX_PARTS_MAX);
    let exact = ring.plan(frame(4096)).unwrap().unwrap();
    assert_eq!(exact.slots(), 1);
    assert_eq!(ring.plan(frame(4097)).unwrap().unwrap().slots(), 2);
}

#[test]
fn a_plan_that_is_given_back_is_made_again() {
    let page = page();
    let (_front, mut ring) = posted(&page, 3);
    let first = ring.plan(frame(60)).unwrap().unwrap();
    let second = ring.plan(frame(60)).unwrap().unwrap();
    ring.unplan(&second);
    ring.unplan(&first);
    assert_eq!((ring.next_index(), ring.available()), (Index(0), Ok(3)));
    assert_eq!(ring.plan(frame(60)).unwrap().unwrap(), first);
}

#[test]
fn a_frame_that_is_dropped_no_longer_waits() {
    for (count, starved) in [(0, true), (1, false)] {
        let page = page();
        let (_front, mut ring) = posted(&page, count);
        assert_eq!(ring.plan(frame(5000)), Ok(None));
        ring.frame_dropped();
        assert_eq!(ring.is_starved(), Ok(starved));
        assert!(!ring.final_check());
    }
}

#[test]
fn an_event_comes_as_soon_as_the_frame_fits() {
    let page = page();
    let (mut front, mut ring) = posted(&page, 1);
    assert!(!ring.final_check(), "nothing waits");
    assert_eq!(ring.plan(frame(3 * 4096)), Ok(None));
    assert!(!ring.final_check());
    front.post();
    assert!(!front.push(), "too few");
    front.post();
    assert!(front.push());
    assert!(ring.final_check(), "no event will come for what is there");
    assert!(ring.plan(frame(3 * 4096)).unwrap().is_some());
    assert!(!ring.final_check());
}

#[test]
fn a_death_while_publishing_is_made_good() {
    let page = page();
    let (mut front, mut ring) = posted(&page, 8);
    let meta = FrameMeta::new(5000, Checksum::None, Some(gso(1448))).unwrap();
    let plan = ring.plan(meta).unwrap().unwrap();
    ring.answer(&plan, RxStatus::Delivered);
    let mut log = (Index(0), Vec::new());
    ring.publish_logged(|index, bytes| log = (index, bytes.to_vec()));
    page.store_u32(RSP_PROD_OFFSET, 0);
    let mut successor = RxRing::attach(&page).unwrap();
    assert_eq!(successor.redo(log.0, &log.1), Ok(Redo::Redone));
    assert_eq!(successor.plan(frame(60)).unwrap().unwrap().parts().next().unwrap().gref, GrantRef(4));
    assert_eq!(front.reap().unwrap().len(), 1);
    let mut third = RxRing::attach(&page).unwrap();
    assert_eq!(third.redo(log.0, &log.1), Ok(Redo::AlreadyDone));
}

fn frames() -> impl Strategy<Value = FrameMeta> {
    let checksum = prop_oneof![Just(Checksum::None), Just(Checksum::Blank), Just(Checksum::Validated)];
    let bytes = prop_oneof![14..1515usize, 14..=FRAME_BYTES_MAX as usize];
    let cut = proptest::option::of(
        (1..=2u8, 8..9000u16).prop_map(|(kind, size)| Gso::from_wire(kind, size).unwrap()),
    );
    (bytes, checksum, cut).prop_map(|(bytes, checksum, gso)| FrameMeta::new(bytes, checksum, gso).unwrap())
}

proptest! {
    #[test]
    fn valid_traffic_comes_through_all_deaths(
        sent in proptest::collection::vec(frames(), 1..60),
        choices in proptest::collection::vec(any::<(u8, u8)>(), 64),
        start: u32,
    ) {
        let page = page();
        let mut front = RxFront::new(&page, Index(start));
        let mut ring = RxRing::attach(&page).unwrap();
        let mut log = (Index(start), Vec::new());
        let slots = |frame: &FrameMeta| frame.length_bytes().div_ceil(4096) + u32::from(frame.gso().is_some());
        let ends: Vec<_> = sent.iter().scan(0, |end, frame| { *end += slots(frame); Some(*end) }).collect();
        // Frames that were planned; pieces that are to arrive, of those that were answered; frames that did arrive.
        let (mut planned, mut next, mut arrived) = (VecDeque::new(), 0, 0);
        let mut pieces: Vec<Vec<(GrantRef, usize)>> = vec![vec![]; sent.len()];
        let mut choices = choices.into_iter().chain([(0, 255), (2, 9), (3, 9), (4, 0)]).cycle();
        while arrived < sent.len() {
            let (kind, amount) = choices.next().unwrap();
            match kind % 6 {
                0 | 1 => {
                    (0..front.free_slots().min(amount.into())).for_each(|_| { front.post(); });
                    front.push();
                }
                2 => for frame in sent.iter().skip(next).take(usize::from(amount % 8)) {
                    let Some(plan) = ring.plan(*frame).unwrap() else {
                        prop_assert!(ring.is_starved().unwrap());
                        break;
                    };
                    pieces[next] = plan.parts().map(|part| (part.gref, part.length_bytes)).collect();
                    planned.push_back(plan);
                    next += 1;
                },
                3 => for plan in planned.drain(..planned.len().min(usize::from(amount % 8))) {
                    ring.answer(&plan, RxStatus::Delivered);
                },
                4 => {
                    ring.publish_logged(|index, bytes| log = (index, bytes.to_vec()));
                    for packet in front.reap().unwrap() {
                        prop_assert_eq!(&packet.pieces, &pieces[arrived]);
                        prop_assert_eq!((packet.gso, packet.failed), (sent[arrived].gso(), false));
                        arrived += 1;
                    }
                }
                _ => {
                    let (before, unpublished) = (ring.published(), ring.unpublished());
                    let publishing = amount % 2 == 0;
                    if publishing {
                        ring.publish_logged(|index, bytes| log = (index, bytes.to_vec()));
                        page.store_u32(RSP_PROD_OFFSET, before.0);
                    }
                    ring = RxRing::attach(&page).unwrap();
                    let redo = ring.redo(log.0, &log.1).unwrap();
                    prop_assert_eq!(redo == Redo::Redone, publishing && unpublished > 0);
                    next = ends.iter().filter(|end| **end <= ring.published().since(Index(start))).count();
                    planned.clear();
                }
            }
        }
        prop_assert_eq!((arrived, ring.unanswered(), ring.unpublished()), (sent.len(), 0, 0));
    }
}
