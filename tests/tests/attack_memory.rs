//! Attack class A: whatever guests do, the memory of all processes together stays within what their quotas add up to.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::{Duration, Instant};

use hypervisor::DomId;
use sim_guest::{Guest, Tx};
use tests::{Stand, message};
use xs_protocol::{MessageType as T, XsError, ring};

const REPLICAS: u64 = 3;
/// The default quota of memory, in KiB. What the store needs around what it charges is at most as much again.
const QUOTA_KIB: u64 = 2 * 2560;
/// Undelivered events of a guest (`GUEST_BACKLOG_BYTES_MAX` and one entry's), in a buffer that grows by doubling.
const EVENTS_KIB: u64 = 2 * 5 * 1024;
/// Old nodes that open transactions keep alive, for all guests together (`RETAINED_BYTES_MAX`).
const RETAINED_KIB: u64 = 64 * 1024;
/// The log in use until a snapshot lets it go, twice, and buffers that belong to no guest.
const COMMON_KIB: u64 = 96 * 1024;

fn bound_kib(guests: u64) -> u64 {
    COMMON_KIB + REPLICAS * (guests * (QUOTA_KIB + EVENTS_KIB) + RETAINED_KIB)
}

/// Runs an attack and holds its peak against a bound.
fn within(stand: &Stand, what: &str, bound_kib: u64, attack: impl FnOnce() + Send) {
    let before_kib = stand.pss_kib();
    let peak_kib = std::thread::scope(|scope| {
        let attack = scope.spawn(attack);
        let mut peak_kib = 0;
        while !attack.is_finished() {
            peak_kib = peak_kib.max(stand.pss_kib());
            std::thread::sleep(Duration::from_millis(20));
        }
        attack.join().unwrap();
        peak_kib.max(stand.pss_kib())
    });
    let grown_kib = peak_kib.saturating_sub(before_kib);
    eprintln!("{what}: {before_kib} KiB, at most {grown_kib} KiB more, allowed {bound_kib} KiB");
    assert!(grown_kib <= bound_kib, "{what}: {grown_kib} KiB more than {before_kib} KiB");
    stand.check();
}

/// Puts bytes on the ring as far as they fit, and reads nothing.
fn put(guest: &mut Guest, bytes: &[u8]) -> usize {
    let page = guest.page();
    let (prod, cons) = (page.load_u32(ring::REQ_PROD_OFFSET), page.load_u32(ring::REQ_CONS_OFFSET));
    let room = ring::writable(prod, cons).unwrap().limit(bytes.len());
    let mut done = 0;
    for chunk in room.iter() {
        page.write(ring::REQ_OFFSET + chunk.offset, &bytes[done..done + chunk.len]);
        done += chunk.len;
    }
    page.store_u32(ring::REQ_PROD_OFFSET, prod.wrapping_add(u32::try_from(done).unwrap()));
    guest.kick().unwrap();
    done
}

#[test]
fn replies_that_nobody_reads() {
    let stand = Stand::start(&[]);
    let mut guests: Vec<Guest> = (0..4).map(|_| stand.guest().1).collect();
    for guest in &mut guests {
        guest.write("data/big", &[b'v'; 1900]).unwrap();
    }
    // Nothing of this is charged to anybody: only the slots may fill.
    within(&stand, "unread replies", 32 * 1024, || {
        let until = Instant::now() + Duration::from_secs(2);
        let request = message(T::READ, 1, 0, 9, b"data/big\0");
        let mut clients: Vec<_> = (0..50).map(|_| stand.client()).collect();
        for client in &mut clients {
            client.set_write_timeout(Duration::from_millis(1)).unwrap();
        }
        while Instant::now() < until {
            for guest in &mut guests {
                put(guest, &request);
            }
            for client in &mut clients {
                let _ = client.send(T::READ, 0, b"/local/domain\0");
            }
        }
    });
}

/// A guest that reads nothing watches another guest's nodes with long tokens; that one writes as fast as it can.
/// Found: what waited was dropped after 20 s and not bounded before, so two guests could use all memory.
#[test]
fn events_that_nobody_reads_and_an_accomplice_causes() {
    let stand = Stand::start(&[]);
    let (reader, mut watching) = stand.guest();
    let (domid, mut writing) = stand.guest();
    watch_other(&mut writing, domid, &mut watching, reader);
    within(&stand, "unread events", bound_kib(2), || {
        let until = Instant::now() + Duration::from_secs(4);
        let mut number = 0_u64;
        while Instant::now() < until {
            writing.write(&format!("data/{}", number % 500), b"").unwrap();
            number += 1;
        }
    });
    stand.client().write("/bystander", "served").unwrap();
}

/// N watches on what is deleted with M nodes below.
#[test]
fn many_watches_times_many_deleted_nodes() {
    let stand = Stand::start(&[]);
    let (reader, mut watching) = stand.guest();
    let (domid, mut writing) = stand.guest();
    watch_other(&mut writing, domid, &mut watching, reader);
    within(&stand, "watches times deleted nodes", bound_kib(2), || {
        for _ in 0..10 {
            for number in 0..200 {
                writing.write(&format!("data/d/{number}"), b"").unwrap();
            }
            writing.rm("data/d").unwrap();
            writing.mkdir("data/d").unwrap();
        }
    });
}

/// As many watches as go, with the longest tokens, on `data` of the writing guest.
fn watch_other(writing: &mut Guest, domid: DomId, watching: &mut Guest, reader: DomId) {
    writing.mkdir("data").unwrap();
    let perms = format!("n{domid}\0r{reader}\0");
    writing.request(T::SET_PERMS, Tx::NONE, &[b"data\0", perms.as_bytes()]).unwrap();
    for number in 0..128 {
        let token = format!("{number:01990}");
        match watching.watch(&format!("/local/domain/{domid}/data"), &token) {
            Ok(()) => {}
            Err(error) => {
                assert!(error.is(XsError::ENOSPC), "{error}");
                break;
            }
        }
        while watching.next_event(Duration::ZERO).unwrap().is_some() {}
    }
}

/// The quota of a node's size counts the names of its children, so one directory does not take all.
fn node(number: usize) -> String {
    format!("data/{}/{number}", number / 300)
}

/// Fills the quota of nodes with values; gives their number.
fn fill(guest: &mut Guest) -> usize {
    let value = [b'v'; 1900];
    (0..2000).take_while(|number| guest.write(&node(*number), &value).is_ok()).count()
}

/// Found: each transaction kept the store as it was when it began. Guests that begin theirs at different times, and
/// rewrite all they have in between, kept one copy of everything for each transaction.
#[test]
fn nodes_times_their_size_times_transactions() {
    let stand = Stand::start(&[]);
    let mut guests: Vec<Guest> = (0..3).map(|_| stand.guest().1).collect();
    within(&stand, "nodes times transactions", bound_kib(3) - 3 * REPLICAS * EVENTS_KIB, || {
        let nodes: Vec<usize> = guests.iter_mut().map(fill).collect();
        assert!(nodes.iter().all(|nodes| *nodes > 900), "{nodes:?}");
        for round in 0..30_u8 {
            let starting = usize::from(round) % guests.len();
            guests[starting].transaction_start().unwrap();
            std::thread::scope(|scope| {
                for (guest, nodes) in guests.iter_mut().zip(&nodes) {
                    scope.spawn(move || rewrite(guest, *nodes, round));
                }
            });
        }
    });
    for guest in &mut guests {
        // Old transactions are as good as others, if they saw nothing that is different now.
        guest.request(T::DIRECTORY, Tx(1), &[b"data\0"]).unwrap();
        guest.transaction_end(Tx(1), true).unwrap();
    }
}

fn rewrite(guest: &mut Guest, nodes: usize, round: u8) {
    for number in 0..nodes {
        guest.write(&node(number), &[b'a' + round; 1800]).unwrap();
    }
}

/// Found: a watch on a path of a thousand names cost hundreds of kilobytes and was charged for two.
#[test]
fn deep_watches_and_nodes_made_and_removed_in_transactions() {
    let stand = Stand::start(&[]);
    let (_, mut guest) = stand.guest();
    within(&stand, "deep watches and transactions", bound_kib(1), || {
        let deep = vec!["x"; 500].join("/");
        let tx = guest.transaction_start().unwrap();
        let refused = (0..5000)
            .any(|_| guest.write_in(tx, &deep, b"").is_err() || guest.request(T::RM, tx, &[b"x\0"]).is_err());
        assert!(refused, "a transaction without a bound");
        guest.transaction_end(tx, false).unwrap();
        let refused = (0..128).any(|number| {
            let watched = guest.watch(&format!("{number}/{}", vec!["x"; 900].join("/")), "t").is_err();
            while guest.next_event(Duration::ZERO).unwrap().is_some() {}
            watched
        });
        assert!(refused, "watches without a bound");
    });
}
