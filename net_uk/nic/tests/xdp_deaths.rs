//! `AF_XDP` over a pair of connected interfaces: every death, with one queue and with several, and a device that comes back.

#![allow(unsafe_code, reason = "system calls of the test bed")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::rig::die_at;
use common::{Ledger, Peer, Stand, enter_namespace_with_xdp, frame_of, ip, make_pair, wait_for};
use nic::{Held, Step};

/// New sockets on a device that was taken away and came back go on in the same lane.
#[test]
fn a_device_that_came_back_goes_on_in_the_same_lane() {
    if !enter_namespace_with_xdp() {
        return;
    }
    let mut stand = Stand::new("xdp:near,rx=64,tx=64", 64);
    let (mut there, mut here, mut total) = (Ledger::default(), Ledger::default(), 0);
    for life in 0..3 {
        let peer = Peer::new("far");
        for step in [Step::TxMarked, Step::RxPublished, Step::TxNoted, Step::RxMarked] {
            let mut driver = stand.driver(Some((step, 2)));
            let end = total + 40;
            let mut sent = total;
            total = end;
            wait_for("all frames", || {
                if driver.has_ended() {
                    driver = stand.driver(None);
                }
                if sent < end && stand.send(sent) {
                    peer.send(&frame_of(sent));
                    sent += 1;
                }
                peer.drain(&mut there);
                stand.receive(&mut here);
                there.received == end && here.received == end
            });
        }
        there.assert_perfect(total, &format!("to the wire, life {life}"));
        here.assert_perfect(total, &format!("from the wire, life {life}"));
        assert!(ip("link del near") && make_pair(""));
        stand.held = Held::open(stand.held.spec()).unwrap();
    }
}

/// Frames of all queues come through one lane. Between queues there is no order.
#[test]
fn all_queues_are_served_through_deaths() {
    if !enter_namespace_with_xdp() {
        return;
    }
    assert!(ip("link del near") && make_pair("numrxqueues 4 numtxqueues 4"));
    let mut stand = Stand::new("xdp:near,rx=256", 256);
    assert_eq!(stand.held.fds().len(), 6 + 4);
    let peer = Peer::by_processor("far");
    let processors = std::thread::available_parallelism().unwrap().get().min(4) as u64;
    let mut here = Ledger::default();
    let mut sent = 0;
    for step in [Step::RxStaged, Step::RxMarked, Step::RxPublished, Step::RxGivenBack, Step::RxReleased] {
        for count in 1..=4 {
            let end = sent + 80;
            let mut driver = stand.driver(Some((step, count)));
            wait_for("all frames", || {
                if driver.has_ended() {
                    driver = stand.driver(None);
                }
                if sent < end {
                    common::run_on(usize::try_from(sent % processors).unwrap());
                    peer.send(&frame_of(sent));
                    sent += 1;
                }
                stand.receive(&mut here);
                here.received == end
            });
        }
    }
    stand.receive(&mut here);
    assert_eq!((here.lost(sent), here.duplicates, here.damaged), (0, 0, 0));
    assert_eq!(stand.sources.len() as u64, processors, "queues that were in use");
}

/// Dies at each place, after one frame there and after several; then once more while a successor recovers. Nothing is
/// lost, doubled, reordered or damaged.
#[test]
fn every_place_to_die_at() {
    if !enter_namespace_with_xdp() {
        return;
    }
    for spec in ["xdp:near,rx=128,tx=64", "xdp:near,rx=128,tx=16,mode=generic"] {
        for step in Step::ALL {
            for count in [1, 2, 5] {
                die_at(spec, step, count, 1);
            }
        }
    }
}
