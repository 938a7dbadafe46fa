//! `AF_XDP` over a pair of connected interfaces: every death, with one queue and with several, and a device that comes back.

#![allow(unsafe_code, reason = "system calls of the test bed")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{Ledger, Peer, Stand, enter_namespace_with_xdp, frame_of, ip, wait_for};
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
        assert!(ip("link del near") && ip("link add near type veth peer name far"));
        assert!(ip("link set near up") && ip("link set far up"));
        common::wait_until_up("near");
        common::wait_until_up("far");
        stand.held = Held::open(stand.held.spec()).unwrap();
    }
}

/// Frames of all queues come through one lane. Between queues there is no order.
#[test]
fn all_queues_are_served_through_deaths() {
    if !enter_namespace_with_xdp() {
        return;
    }
    let queues = "numrxqueues 4 numtxqueues 4";
    assert!(ip("link del near"));
    assert!(ip(&format!("link add near {queues} type veth peer name far {queues}")));
    assert!(ip("link set near up") && ip("link set far up"));
    common::wait_until_up("near");
    common::wait_until_up("far");
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
                die_at(spec, step, count);
            }
        }
    }
}

fn die_at(spec: &str, step: Step, count: u32) {
    const FRAMES: u64 = 200;
    let recovering = matches!(step, Step::Placed | Step::TxRecovered | Step::RxRecovered);
    let mut stand = Stand::new(spec, 512);
    let peer = Peer::new("far");
    // Recovery has something to do only after another death.
    let first = match step {
        Step::TxRecovered => (Step::TxMarked, 2),
        Step::RxRecovered => (Step::RxPublished, 1),
        _ => (step, count),
    };
    for seq in 0..FRAMES {
        assert!(stand.send(seq));
        if seq < 60 {
            peer.send(&frame_of(seq));
        }
    }
    let mut driver = stand.driver(Some(first));
    let (mut there, mut here, mut sent) = (Ledger::default(), Ledger::default(), 60);
    let mut lives = 1;
    let what = format!("{spec} {step:?} {count}");
    wait_for(&what, || {
        if driver.has_ended() {
            lives += 1;
            driver = stand.driver((recovering && lives == 2).then_some((step, 1)));
        }
        peer.drain(&mut there);
        stand.receive(&mut here);
        while sent < FRAMES && sent < here.received + 30 {
            peer.send(&frame_of(sent));
            sent += 1;
        }
        there.received == FRAMES && here.received == FRAMES
    });
    drop(driver);
    peer.drain(&mut there);
    stand.receive(&mut here);
    there.assert_perfect(FRAMES, &what);
    here.assert_perfect(FRAMES, &what);
    // Each place is reached at least once; more often only if there is enough to do in one life.
    if count == 1 {
        assert_eq!(lives, if recovering { 3 } else { 2 }, "{what}");
    }
}
