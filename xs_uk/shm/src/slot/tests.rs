//! Each test plays the successor: it opens the slot a second time and compares.

use std::os::fd::{AsFd, OwnedFd};

use proptest::prelude::*;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::*;
use crate::limits::TABLE_BYTES;
use crate::table::{SlotId, Table};

struct Pair {
    table: Table,
    id: SlotId,
    ours: OwnedFd,
    client: OwnedFd,
}

fn socket_slot() -> Pair {
    let table = Table::open(Region::create("conns", TABLE_BYTES).unwrap());
    let id = table.allocate_socket().unwrap();
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, client) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    Pair { table, id, ours, client }
}

fn ring_slot() -> (Table, SlotId) {
    let table = Table::open(Region::create("conns", TABLE_BYTES).unwrap());
    let id = table.allocate_ring(5, 17, 3, 0).unwrap();
    (table, id)
}

/// The successor sees all positions as the owner does.
fn assert_same(table: &Table, id: SlotId, slot: &Slot) {
    let other = table.slot(id);
    assert!(other.is_sound());
    assert_eq!(other.at(), slot.at());
}

#[test]
fn a_killed_owner_between_the_kernels_count_and_its_own_loses_no_byte() {
    let pair = socket_slot();
    let mut slot = pair.table.slot(pair.id);
    rustix::io::write(&pair.client, b"hello").unwrap();
    assert_eq!(slot.receive(pair.ours.as_fd()).unwrap(), Received::Bytes(5));
    // As if killed right after the system call: the owner's own store of the tail is undone.
    slot.word(layout::RX_TAIL).store(0, Ordering::Release);
    let successor = pair.table.slot(pair.id);
    assert_eq!(successor.readable_bytes(), 5);
    let mut bytes = [0; 5];
    successor.peek(0, &mut bytes);
    assert_eq!(&bytes, b"hello");
    assert_same(&pair.table, pair.id, &slot);
}

#[test]
fn a_killed_owner_after_the_send_repeats_no_byte() {
    let pair = socket_slot();
    let mut slot = pair.table.slot(pair.id);
    slot.stage(b"answer");
    slot.commit(0, 0, Some(3));
    assert_eq!(slot.send(pair.ours.as_fd()).unwrap(), Sent::All);
    slot.word(layout::TX_HEAD).store(0, Ordering::Release);
    let mut successor = pair.table.slot(pair.id);
    assert_eq!(successor.record().delivered, 3);
    assert_eq!(successor.send(pair.ours.as_fd()).unwrap(), Sent::All);
    let mut bytes = [0; 64];
    assert_eq!(rustix::io::read(&pair.client, &mut bytes).unwrap(), 6);
    assert!(rustix::io::read(&pair.client, &mut bytes).is_err(), "nothing was sent twice");
}

#[test]
fn what_was_staged_but_not_committed_does_not_count() {
    let pair = socket_slot();
    let mut slot = pair.table.slot(pair.id);
    slot.stage(b"lost on purpose");
    assert_eq!(pair.table.slot(pair.id).sendable_bytes(), 0);
    slot.commit(0, 0, None);
    assert_eq!(pair.table.slot(pair.id).sendable_bytes(), 15);
}

#[test]
fn full_rings_are_said_and_not_overrun() {
    let pair = socket_slot();
    let mut slot = pair.table.slot(pair.id);
    let mut sent = 0;
    while sent < RX_BYTES + 100 {
        sent += rustix::io::write(&pair.client, &[7; 100]).unwrap();
        slot.receive(pair.ours.as_fd()).unwrap();
    }
    assert_eq!(slot.receivable_bytes(), 0);
    assert_eq!(slot.receive(pair.ours.as_fd()).unwrap(), Received::Full);
    slot.stage(&[1; TX_BYTES]);
    assert_eq!(slot.stageable_bytes(), 0);
}

#[test]
fn a_closed_client_is_an_end_and_a_silent_one_would_block() {
    let pair = socket_slot();
    let mut slot = pair.table.slot(pair.id);
    assert_eq!(slot.receive(pair.ours.as_fd()).unwrap(), Received::WouldBlock);
    drop(pair.client);
    assert_eq!(slot.receive(pair.ours.as_fd()).unwrap(), Received::End);
    slot.stage(b"x");
    slot.commit(0, 0, None);
    assert!(matches!(slot.send(pair.ours.as_fd()), Err(SlotError::System { call: "sendmmsg", .. })));
}

#[test]
fn a_rings_bytes_and_index_move_together() {
    let (table, id) = ring_slot();
    let mut slot = table.slot(id);
    slot.commit_ring_receive(b"abc", 3);
    slot.stage(b"reply");
    slot.commit(3, 1, None);
    slot.commit_ring_send(2, 2);
    assert_same(&table, id, &slot);
    let successor = table.slot(id);
    assert_eq!((successor.record().req_cons, successor.record().rsp_prod, successor.record().seq), (3, 2, 1));
    let mut bytes = [0; 16];
    assert_eq!(successor.peek_sendable(&mut bytes), 3);
    assert_eq!(&bytes[..3], b"ply");
    slot.reset_ring(0, 0);
    assert_eq!((slot.readable_bytes(), slot.sendable_bytes()), (0, 0));
    assert_same(&table, id, &slot);
}

proptest! {
    /// Any mix of steps, with a change of owner after each, carries every byte once and in order, over many turns
    /// of both rings.
    #[test]
    fn every_byte_passes_once_and_in_order(steps in prop::collection::vec((0_u8..5, 1_usize..5000), 1..200)) {
        let pair = socket_slot();
        let (mut written, mut consumed, mut staged, mut read) = (0_usize, 0_usize, 0_usize, 0_usize);
        let byte = |position: usize| u8::try_from(position % 251).unwrap();
        for (what, amount) in steps {
            let mut slot = pair.table.slot(pair.id);
            match what {
                0 => {
                    let bytes: Vec<u8> = (0..amount).map(|i| byte(written + i)).collect();
                    written += rustix::io::write(&pair.client, &bytes).unwrap_or(0);
                }
                1 => { slot.receive(pair.ours.as_fd()).unwrap(); }
                2 => {
                    let count = amount.min(slot.readable_bytes());
                    let mut bytes = vec![0; count];
                    slot.peek(0, &mut bytes);
                    for (i, b) in bytes.iter().enumerate() {
                        prop_assert_eq!(*b, byte(consumed + i));
                    }
                    slot.commit(count, 1, None);
                    consumed += count;
                }
                3 => {
                    let count = amount.min(slot.stageable_bytes());
                    let bytes: Vec<u8> = (0..count).map(|i| byte(staged + i)).collect();
                    slot.stage(&bytes);
                    slot.commit(0, 0, None);
                    staged += count;
                }
                _ => {
                    slot.send(pair.ours.as_fd()).unwrap();
                    let mut bytes = vec![0; amount];
                    let count = rustix::io::read(&pair.client, &mut bytes).unwrap_or(0);
                    for (i, b) in bytes[..count].iter().enumerate() {
                        prop_assert_eq!(*b, byte(read + i));
                    }
                    read += count;
                }
            }
            assert_same(&pair.table, pair.id, &slot);
        }
        prop_assert!(consumed <= written && read <= staged);
    }
}

/// A flipped position once ended each successor in turn at its takeover, and sent a client stale bytes.
#[test]
fn a_flipped_bit_in_the_owners_positions_lets_nothing_out() {
    let flips: [fn(&mut Positions); 5] = [
        |at| at.record.seq ^= 2,
        |at| at.record.tx_tail ^= 8,
        |at| at.record.rx_head ^= 1,
        |at| at.tx_head ^= 1,
        |at| at.version ^= 1,
    ];
    for flip in flips {
        let pair = socket_slot();
        let mut slot = pair.table.slot(pair.id);
        slot.stage(b"reply");
        slot.commit(0, 1, None);
        let before = pair.table.slot(pair.id).record();
        flip(&mut slot.at);
        let send = std::panic::AssertUnwindSafe(|| slot.send(pair.ours.as_fd()).is_ok());
        assert!(std::panic::catch_unwind(send).is_err());
        let commit = std::panic::AssertUnwindSafe(|| slot.commit(0, 1, None));
        assert!(std::panic::catch_unwind(commit).is_err());
        let successor = pair.table.slot(pair.id);
        assert!(successor.is_sound());
        assert_eq!((successor.record(), successor.sendable_bytes()), (before, 5));
    }
}

#[test]
fn a_flipped_bit_in_shared_memory_makes_an_unsound_slot_that_harms_nobody() {
    let places =
        [layout::RECORDS[1], layout::RECORDS[1] + 32, layout::CHECKS[1], layout::RX_TAIL, layout::TX_HEAD];
    for (place, bit) in places.into_iter().flat_map(|place| [(place, 4), (place, 40)]) {
        let pair = socket_slot();
        let mut slot = pair.table.slot(pair.id);
        slot.stage(b"reply");
        slot.commit(0, 1, None);
        let word = slot.word(place);
        word.store(word.load(Ordering::Relaxed) ^ 1 << bit, Ordering::Relaxed);
        let mut successor = pair.table.slot(pair.id);
        // A small change of how much was received is one that can be true: it is seen when the bytes make no message.
        if (place, bit) != (layout::RX_TAIL, 4) {
            assert!(!successor.is_sound(), "{place} {bit}");
            assert_eq!((successor.readable_bytes(), successor.sendable_bytes()), (0, 0));
        }
        successor.commit(0, 0, None);
        assert!(pair.table.slot(pair.id).record() == successor.record());
    }
}
