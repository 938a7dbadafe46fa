//! The transmit ring with a frontend as Linux's: goal is that every packet is taken as it was sent, and every slot answered
//! once and in order.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::collections::VecDeque;

use common::{gso, info, page, part};
use hypervisor::Page;
use netif::limits::{EXTRAS_MAX, TX_PARTS_MAX, TX_REQUESTS_MAX};
use netif::model::TxFront;
use netif::ring::{Extra, ExtraInfo, RSP_PROD_OFFSET, TxRequest, TxResponse, status, tx_flags};
use netif::{
    Checksum, Index, MacAddr, Multicast, PacketFault, Redo, RingFault, TxPacket, TxPart, TxRing, TxStatus,
};
use proptest::prelude::*;

fn answer_all(ring: &mut TxRing<&Page>, status: TxStatus) -> Vec<TxPacket> {
    let mut packets = Vec::new();
    while let Some(packet) = ring.take().unwrap() {
        ring.answer(&packet, status);
        packets.push(packet);
    }
    packets
}

#[test]
fn a_packet_is_taken_and_answered() {
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    let mut ring = TxRing::attach(&page).unwrap();
    assert_eq!(ring.take(), Ok(None));
    assert!(!ring.final_check());

    let parts = [part(7, 100, 66), part(8, 0, 4096)];
    let ids = front.packet(&parts, tx_flags::CSUM_BLANK | tx_flags::DATA_VALIDATED, &[info(gso(1448))]);
    assert!(front.push(), "the backend sleeps");
    let packet = ring.take().unwrap().unwrap();
    assert_eq!((packet.index(), packet.slots(), packet.length_bytes()), (Index(0), 3, 4162));
    assert_eq!(packet.parts(), parts);
    assert_eq!((packet.checksum(), packet.gso()), (Checksum::Blank, Some(gso(1448))));
    assert_eq!((packet.fault(), packet.multicast()), (None, None));
    assert_eq!((ring.take(), ring.unanswered()), (Ok(None), 3));

    ring.answer(&packet, TxStatus::Okay);
    assert_eq!((ring.unanswered(), ring.unpublished(), ring.published()), (0, 3, Index(0)));
    assert!(front.reap().unwrap().is_empty(), "nothing is to be seen yet");
    assert!(ring.publish(), "the guest sleeps");
    assert_eq!((ring.unpublished(), ring.published()), (0, Index(3)));
    let okay = |id| TxResponse { id, status: status::OKAY };
    assert_eq!(front.reap().unwrap(), ids.into_iter().map(okay).collect::<Vec<_>>());
}

#[test]
fn flags_tell_of_the_checksum() {
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    for (flags, checksum) in [
        (0, Checksum::None),
        (tx_flags::DATA_VALIDATED, Checksum::Validated),
        (tx_flags::CSUM_BLANK, Checksum::Blank),
    ] {
        front.packet(&[part(1, 0, 60)], flags, &[]);
        front.push();
        let mut ring = TxRing::attach(&page).unwrap();
        assert_eq!(answer_all(&mut ring, TxStatus::Dropped)[0].checksum(), checksum);
        ring.publish();
        assert_eq!(front.reap().unwrap()[0].status, status::DROPPED);
    }
}

#[test]
fn events_are_sent_only_when_they_are_wanted() {
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    let mut ring = TxRing::attach(&page).unwrap();
    assert!(!ring.publish(), "nothing new");
    // Neither side says that it sleeps after the first event: none follows.
    for first in [true, false] {
        front.packet(&[part(1, 0, 60)], 0, &[]);
        assert_eq!(front.push(), first);
        answer_all(&mut ring, TxStatus::Okay);
        assert_eq!(ring.publish(), first);
    }
    assert!(!ring.final_check());
    front.reap().unwrap();
    front.packet(&[part(1, 0, 60)], 0, &[]);
    assert!(front.push());
    assert!(ring.final_check(), "there is a packet already");
    answer_all(&mut ring, TxStatus::Okay);
    assert!(ring.publish());
}

/// The lost wake-up: the guest pushes between the last look and the setting of the event index.
#[test]
fn nobody_sleeps_over_a_packet() {
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    let mut ring = TxRing::attach(&page).unwrap();
    assert_eq!(ring.take(), Ok(None));
    front.packet(&[part(1, 0, 60)], 0, &[]);
    let event = front.push();
    assert!(event || ring.final_check());
}

#[test]
fn several_packets_are_answered_in_order() {
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    let mut ring = TxRing::attach(&page).unwrap();
    let ids: Vec<_> = (0..3).flat_map(|n| front.packet(&[part(n, 0, 60)], 0, &[])).collect();
    front.push();
    let packets: Vec<_> = std::iter::from_fn(|| ring.take().unwrap()).collect();
    for (packet, status) in packets.iter().zip([TxStatus::Okay, TxStatus::Error, TxStatus::Dropped]) {
        ring.answer(packet, status);
    }
    ring.publish();
    let responses = front.reap().unwrap();
    assert_eq!(responses.iter().map(|response| response.id).collect::<Vec<_>>(), ids);
    let statuses: Vec<_> = responses.iter().map(|response| response.status).collect();
    assert_eq!(statuses, [status::OKAY, status::ERROR, status::DROPPED]);
}

#[test]
#[should_panic(expected = "in the order of the requests")]
fn another_packets_turn_is_a_broken_invariant() {
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    let mut ring = TxRing::attach(&page).unwrap();
    (0..2).for_each(|n| drop(front.packet(&[part(n, 0, 60)], 0, &[])));
    front.push();
    ring.take().unwrap();
    let second = ring.take().unwrap().unwrap();
    ring.answer(&second, TxStatus::Okay);
}

#[test]
fn a_packet_that_is_put_back_is_taken_again() {
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    let mut ring = TxRing::attach(&page).unwrap();
    (0..2).for_each(|n| drop(front.packet(&[part(n, 0, 60)], 0, &[])));
    front.push();
    let first = ring.take().unwrap().unwrap();
    let second = ring.take().unwrap().unwrap();
    ring.untake(&second);
    assert_eq!(ring.next_index(), Index(1));
    ring.answer(&first, TxStatus::Okay);
    assert_eq!(ring.take().unwrap().unwrap(), second);
}

#[test]
fn a_change_of_the_multicast_list_is_no_packet() {
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    let mut ring = TxRing::attach(&page).unwrap();
    let group = MacAddr([1, 0, 0x5e, 0, 0, 1]);
    for (extra, change) in [
        (Extra::MulticastAdd(group), Multicast::Add(group)),
        (Extra::MulticastDel(group), Multicast::Del(group)),
    ] {
        front.packet(&[part(0, 0, 0)], 0, &[info(extra)]);
        front.push();
        let packets = answer_all(&mut ring, TxStatus::Okay);
        assert_eq!((packets[0].multicast(), packets[0].fault()), (Some(change), None));
        assert!(packets[0].parts().is_empty());
    }
    ring.publish();
    assert!(front.reap().unwrap().iter().all(|response| response.status == status::OKAY));

    front.packet(&[part(0, 0, 0), part(1, 0, 60)], 0, &[info(Extra::MulticastAdd(group))]);
    front.push();
    let packets = answer_all(&mut ring, TxStatus::Okay);
    assert_eq!(packets[0].fault(), Some(PacketFault::MulticastWithData));
}

/// Sends one packet, expects that it is bad, and that the next one is fine.
fn bad(parts: &[TxPart], extras: &[ExtraInfo]) -> PacketFault {
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    let mut ring = TxRing::attach(&page).unwrap();
    let ids = front.packet(parts, 0, extras);
    front.packet(&[part(9, 0, 60)], 0, &[]);
    front.push();
    let packets = answer_all(&mut ring, TxStatus::Okay);
    assert!(packets[0].parts().is_empty());
    assert_eq!((packets.len(), packets[1].fault()), (2, None));
    ring.publish();
    let responses = front.reap().unwrap();
    let (bad, good) = responses.split_at(ids.len());
    assert!(bad.iter().all(|response| response.status == status::ERROR));
    assert_eq!(good[0].status, status::OKAY);
    packets[0].fault().unwrap()
}

#[test]
fn bad_packets_are_answered_with_errors() {
    assert_eq!(bad(&[part(1, 0, 13)], &[]), PacketFault::TooShort { total_bytes: 13 });
    let crossing = PacketFault::CrossesPage { offset_bytes: 4000, length_bytes: 97 };
    assert_eq!(bad(&[part(1, 4000, 97)], &[]), crossing);
    assert_eq!(bad(&[part(1, 0, 60), part(2, 4000, 97)], &[]), crossing);
    let beyond = PacketFault::CrossesPage { offset_bytes: u16::MAX, length_bytes: u16::MAX };
    assert_eq!(bad(&[part(1, u16::MAX, u16::MAX)], &[]), beyond);
    // A page that is reached beyond by nothing at all is no better.
    assert_eq!(
        bad(&[part(1, 0, 60), part(2, 4097, 0)], &[]),
        PacketFault::CrossesPage { offset_bytes: 4097, length_bytes: 0 }
    );
    for unknown in [0, 6, 255] {
        let extra = info(Extra::Unknown(unknown));
        assert_eq!(bad(&[part(1, 0, 60)], &[extra]), PacketFault::UnknownExtra(unknown));
    }
    for (kind, size_bytes) in [(1, 0), (1, 7), (2, 0), (0, 1448), (3, 1448)] {
        let extra = info(Extra::Gso { size_bytes, kind, features: 0 });
        assert_eq!(bad(&[part(1, 0, 60)], &[extra]), PacketFault::BadGso { kind, size_bytes });
    }
    let many = [info(Extra::Xdp { headroom_bytes: 256 }); EXTRAS_MAX + 1];
    assert_eq!(bad(&[part(1, 0, 60)], &many), PacketFault::TooManyExtras);
}

#[test]
fn as_many_extras_as_allowed_are_fine() {
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    let mut ring = TxRing::attach(&page).unwrap();
    let hash = Extra::Hash { kind: 1, algorithm: 2, value: [3; 4] };
    front.packet(&[part(1, 0, 60)], 0, &[info(hash); EXTRAS_MAX]);
    front.push();
    let packets = answer_all(&mut ring, TxStatus::Okay);
    assert_eq!((packets[0].fault(), packets[0].slots()), (None, 9));
    ring.publish();
    assert_eq!(front.reap().unwrap().len(), 1);
}

/// 64 KiB and more do not fit the first request's size: buggy frontends send that, and it must not cost them the ring.
#[test]
fn sizes_that_do_not_add_up_are_an_error() {
    let too_much = [part(1, 0, 4096); 17];
    let fault = bad(&too_much, &[]);
    assert_eq!(fault, PacketFault::Size { total_bytes: 0xffff, rest_bytes: 16 * 4096 });

    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    front.request(TxRequest { flags: tx_flags::MORE_DATA, size_bytes: 100, ..Default::default() });
    front.request(TxRequest { size_bytes: 101, ..Default::default() });
    front.push();
    let packet = TxRing::attach(&page).unwrap().take().unwrap().unwrap();
    assert_eq!(packet.fault(), Some(PacketFault::Size { total_bytes: 100, rest_bytes: 101 }));
}

#[test]
fn packets_have_bounds_in_slots() {
    let parts = [part(1, 0, 100); TX_REQUESTS_MAX + 1];
    for count in 1..=TX_PARTS_MAX {
        let page = page();
        let mut front = TxFront::new(&page, Index(0));
        front.packet(&parts[..count], 0, &[]);
        front.push();
        let packet = TxRing::attach(&page).unwrap().take().unwrap().unwrap();
        assert_eq!((packet.fault(), packet.parts()), (None, &parts[..count]));
    }
    for count in TX_PARTS_MAX + 1..=TX_REQUESTS_MAX {
        assert_eq!(bad(&parts[..count], &[]), PacketFault::TooManyParts);
    }
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    front.packet(&[part(1, 0, 60)], 0, &[]);
    front.packet(&parts, 0, &[]);
    front.push();
    let mut ring = TxRing::attach(&page).unwrap();
    let good = ring.take().unwrap().unwrap();
    let fault = RingFault::TooManySlots { index: Index(1) };
    assert_eq!((ring.take(), ring.fault()), (Err(fault), Some(fault)));
    assert_eq!(ring.take(), Err(fault), "a fault is for ever");
    // What was taken before can still be answered.
    ring.answer(&good, TxStatus::Okay);
    ring.publish();
    assert_eq!(front.reap().unwrap().len(), 1);
}

#[test]
fn half_a_packet_is_a_fault() {
    for (flags, extras) in [(tx_flags::MORE_DATA, 0), (tx_flags::EXTRA_INFO, 0), (tx_flags::EXTRA_INFO, 1)] {
        let page = page();
        let mut front = TxFront::new(&page, Index(0));
        front.request(TxRequest { flags, size_bytes: 60, ..Default::default() });
        for _ in 0..extras {
            front.extra(ExtraInfo { extra: gso(1000).into(), more: true });
        }
        front.push();
        let mut ring = TxRing::attach(&page).unwrap();
        assert_eq!(ring.take(), Err(RingFault::Incomplete { index: Index(0) }));
    }
}

/// Chains that fill the ring and have no end.
#[test]
fn a_chain_without_end_ends() {
    let page = page();
    let mut front = TxFront::new(&page, Index(0));
    let request = TxRequest { flags: tx_flags::EXTRA_INFO, size_bytes: 60, ..Default::default() };
    front.request(request);
    (0..255).for_each(|_| front.extra(ExtraInfo { extra: gso(1000).into(), more: true }));
    front.push();
    let mut ring = TxRing::attach(&page).unwrap();
    assert_eq!(ring.take(), Err(RingFault::Incomplete { index: Index(0) }));
}

/// A backend that dies at any moment of its last publishing: the successor finds the page as it was left.
#[test]
fn a_death_while_publishing_is_made_good() {
    for start in [Index(0), Index(u32::MAX - 1)] {
        let page = page();
        let mut front = TxFront::new(&page, start);
        let mut ring = TxRing::attach(&page).unwrap();
        front.packet(&[part(1, 0, 60), part(2, 0, 60)], 0, &[info(gso(1448))]);
        front.packet(&[part(3, 0, 60)], 0, &[]);
        front.push();
        let first = ring.take().unwrap().unwrap();
        ring.answer(&first, TxStatus::Okay);
        let mut log = None;
        ring.publish_logged(|index, bytes| log = Some((index, bytes.to_vec())));
        let (index, bytes) = log.unwrap();
        assert_eq!((index, bytes.len()), (start, 3 * 4));
        // All slots are written, but not `rsp_prod`: the requests are no longer there to be read.
        page.store_u32(RSP_PROD_OFFSET, start.0);

        let mut successor = TxRing::attach(&page).unwrap();
        assert_eq!(successor.redo(index, &bytes), Ok(Redo::Redone));
        let mut third = TxRing::attach(&page).unwrap();
        assert_eq!(third.redo(index, &bytes), Ok(Redo::AlreadyDone));
        for ring in [&mut successor, &mut third] {
            let packet = ring.take().unwrap().unwrap();
            assert_eq!(packet.parts(), [part(3, 0, 60)]);
        }
        assert_eq!(front.reap().unwrap().len(), 2);
    }
}

#[test]
fn a_log_of_another_place_is_stale() {
    let page = page();
    let mut front = TxFront::new(&page, Index(40));
    front.packet(&[part(1, 0, 60)], 0, &[]);
    front.push();
    let mut ring = TxRing::attach(&page).unwrap();
    let two = [0; 8];
    for (first, bytes) in [
        (Index(0), &two[..4]),
        (Index(39), &two[..0]),
        (Index(40), &two[..0]),
        (Index(40), &two[..3]),
        (Index(40), &two[..8]),
        (Index(41), &two[..4]),
    ] {
        assert_eq!(ring.redo(first, bytes), Ok(Redo::Stale), "{first} {}", bytes.len());
    }
    assert_eq!(ring.redo(Index(40), &[0; 257 * 4]), Ok(Redo::Stale));
    assert_eq!(ring.redo(Index(38), &two), Ok(Redo::AlreadyDone));
    assert!(ring.take().unwrap().is_some());
}

/// What is sent: parts, flags, and whether it is to be cut.
type Sent = (Vec<TxPart>, u16, bool);

fn packets() -> impl Strategy<Value = Sent> {
    let part = (any::<u32>(), 0..4096u16, 1..=4096u16)
        .prop_map(|(gref, offset, length)| part(gref, offset, length.min(4096 - offset)));
    (proptest::collection::vec(part, 1..=TX_PARTS_MAX), 0..4u16, any::<bool>()).prop_map(
        |(mut parts, flags, cut)| {
            while parts.iter().map(|part| u32::from(part.length_bytes)).sum::<u32>() > 0xffff {
                parts.pop();
            }
            parts[0].offset_bytes = parts[0].offset_bytes.min(4096 - 14);
            parts[0].length_bytes = parts[0].length_bytes.max(14);
            (parts, flags, cut)
        },
    )
}

/// Writes a log of the last publishing.
type Log = (Index, Vec<u8>);

/// The backend dies, and a successor finds the page and the log. If it died while publishing, `rsp_prod` is what it was.
fn successor<'a>(page: &'a Page, ring: &mut TxRing<&'a Page>, log: &mut Log, publishing: bool) -> Redo {
    let before = ring.published();
    if publishing {
        ring.publish_logged(|index, bytes| *log = (index, bytes.to_vec()));
        page.store_u32(RSP_PROD_OFFSET, before.0);
    }
    *ring = TxRing::attach(page).unwrap();
    ring.redo(log.0, &log.1).unwrap()
}

proptest! {
    #[test]
    fn valid_traffic_comes_through_all_deaths(
        sent in proptest::collection::vec(packets(), 1..60),
        choices in proptest::collection::vec(any::<(u8, u8)>(), 64),
        start: u32,
    ) {
        let page = page();
        let mut front = TxFront::new(&page, Index(start));
        let mut ring = TxRing::attach(&page).unwrap();
        let mut log = (Index(start), Vec::new());
        let (mut queue, mut ids, mut taken) = (sent.iter(), VecDeque::new(), VecDeque::new());
        // Slots from `start` to behind each packet.
        let slots = |(parts, _, cut): &Sent| u32::try_from(parts.len()).unwrap() + u32::from(*cut);
        let ends: Vec<_> = sent.iter().scan(0, |end, packet| { *end += slots(packet); Some(*end) }).collect();
        let mut received = 0;
        let mut choices = choices.into_iter().chain([(0, 9), (2, 0), (3, 9), (4, 0)]).cycle();
        while received < sent.len() || !ids.is_empty() {
            let (kind, amount) = choices.next().unwrap();
            match kind % 6 {
                0 | 1 => {
                    for packet in queue.clone().take(usize::from(amount % 4)) {
                        if front.free_slots() < slots(packet) { break }
                        let extras = if packet.2 { vec![info(gso(1448))] } else { vec![] };
                        ids.extend(front.packet(&packet.0, packet.1, &extras));
                        queue.next();
                    }
                    front.push();
                }
                2 => while let Some(packet) = ring.take().unwrap() {
                    let (parts, flags, cut) = &sent[received];
                    prop_assert_eq!((packet.fault(), packet.parts()), (None, &parts[..]));
                    prop_assert_eq!(packet.gso().is_some(), *cut);
                    prop_assert_eq!(packet.checksum() == Checksum::Blank, flags & 1 != 0);
                    received += 1;
                    taken.push_back(packet);
                },
                3 => for packet in taken.drain(..taken.len().min(usize::from(amount % 4))) {
                    ring.answer(&packet, TxStatus::Okay);
                },
                4 => {
                    ring.publish_logged(|index, bytes| log = (index, bytes.to_vec()));
                    for response in front.reap().unwrap() {
                        prop_assert_eq!((Some(response.id), response.status), (ids.pop_front(), status::OKAY));
                    }
                }
                _ => {
                    let unpublished = ring.unpublished();
                    let redo = successor(&page, &mut ring, &mut log, amount % 2 == 0);
                    prop_assert_eq!(redo == Redo::Redone, amount % 2 == 0 && unpublished > 0);
                    // What was taken is taken again; what was published is not.
                    received = ends.iter().filter(|end| **end <= ring.published().since(Index(start))).count();
                    taken.clear();
                }
            }
        }
        prop_assert_eq!(received, sent.len());
        prop_assert_eq!(ring.take(), Ok(None));
        prop_assert_eq!((ring.unanswered(), ring.unpublished()), (0, 0));
    }
}
