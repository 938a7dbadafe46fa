//! TAP devices: frames both ways, and what a death at each place costs.

#![allow(unsafe_code, reason = "system calls of the test bed")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{Ledger, Peer, Stand, enter_namespace, frame_of, ip, wait_for};
use lane::{FrameFlags, FrameMeta};
use nic::{Link, Step};

const FRAMES: u64 = 200;

fn stand(spec: &str) -> Option<Stand> {
    if !enter_namespace() {
        return None;
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        eprintln!("SKIPPED: no TAP devices here");
        return None;
    }
    let stand = Stand::new(spec, 512);
    assert!(ip("link set tap0 up"));
    common::wait_until_up("tap0");
    Some(stand)
}

#[test]
fn frames_go_both_ways() {
    for spec in ["tap:tap0", "tap:tap0,offload"] {
        let Some(mut stand) = stand(spec) else { return };
        let peer = Peer::new("tap0");
        let (mut tx, mut rx) = (stand.lane.tx().consumer().unwrap(), stand.lane.rx().producer().unwrap());
        let mut port = stand.held.attach(&mut tx, &mut rx, stand.lane.words()).unwrap();
        assert_eq!(port.link().unwrap(), Link::Up);
        let (mut there, mut here) = (Ledger::default(), Ledger::default());
        for seq in 0..FRAMES {
            assert!(stand.send(seq));
            // Frames that come to nothing block nothing.
            for (flags, length_bytes) in
                [(FrameFlags::VOID, 100), (FrameFlags::NONE, 13), (FrameFlags::NONE, 1519)]
            {
                let meta = FrameMeta { flags, ..FrameMeta::default() };
                assert!(stand.tx.push(&vec![0; length_bytes], &meta).unwrap());
            }
            peer.send(&frame_of(seq));
            port.transmit(&mut tx).unwrap();
            port.receive(&mut rx).unwrap();
            stand.receive(&mut here);
            peer.drain(&mut there);
        }
        wait_for("all frames", || {
            port.receive(&mut rx).unwrap();
            stand.receive(&mut here);
            peer.drain(&mut there);
            there.received == FRAMES && here.received == FRAMES
        });
        there.assert_perfect(FRAMES, spec);
        here.assert_perfect(FRAMES, spec);
        assert_eq!(port.counters().unwrap().tx_refused, 3 * FRAMES);
        assert!(ip("link set tap0 down"));
        assert!(stand.send(FRAMES));
        assert!(port.transmit(&mut tx).unwrap().blocked);
        assert_eq!(port.link().unwrap(), Link::Down);
        assert!(ip("link del tap0"));
        assert_eq!(port.link().unwrap(), Link::Gone);
    }
}

/// A frame that is longer than the lane's side expects is refused, not cut off.
#[test]
fn long_frames_from_the_device_are_refused() {
    let Some(mut stand) = stand("tap:tap0,mtu=1000") else { return };
    let peer = Peer::new("tap0");
    let (mut tx, mut rx) = (stand.lane.tx().consumer().unwrap(), stand.lane.rx().producer().unwrap());
    let mut port = stand.held.attach(&mut tx, &mut rx, stand.lane.words()).unwrap();
    peer.send(&[7; 1019]);
    peer.send(&[8; 1018]);
    wait_for("both frames", || {
        port.receive(&mut rx).unwrap();
        rx.published().frames == 2
    });
    let frame = stand.rx.peek().unwrap().unwrap();
    assert!(frame.is_void());
    stand.rx.release(&frame);
    let frame = stand.rx.peek().unwrap().unwrap();
    assert_eq!(stand.rx.bytes_of(&frame), [8; 1018]);
    assert_eq!(port.counters().unwrap().rx_refused, 1);
}

/// A death between a read and its commit lost a frame, and one between a write and its commit doubled one, before successors
/// looked at what the kernel counted.
#[test]
fn every_place_to_die_at() {
    let steps =
        [Step::TxNoted, Step::TxMarked, Step::TxCommitted, Step::RxMarked, Step::RxStaged, Step::RxPublished];
    for (spec, step) in
        ["tap:tap0", "tap:tap0,offload"].into_iter().flat_map(|spec| steps.map(|step| (spec, step)))
    {
        let Some(mut stand) = stand(spec) else { return };
        let peer = Peer::new("tap0");
        for seq in 0..FRAMES {
            assert!(stand.send(seq));
            peer.send(&frame_of(seq));
        }
        let (mut there, mut here, mut lives) = (Ledger::default(), Ledger::default(), 1);
        let mut driver = stand.driver(Some((step, 50)));
        wait_for("all frames", || {
            if driver.has_ended() {
                lives += 1;
                driver = stand.driver(None);
            }
            peer.drain(&mut there);
            stand.receive(&mut here);
            there.received == FRAMES && here.received == FRAMES && lives == 2
        });
        drop(driver);
        peer.drain(&mut there);
        there.assert_perfect(FRAMES, spec);
        here.assert_perfect(FRAMES, spec);
    }
}

#[test]
fn a_damaged_frame_at_the_head_stops_no_driver() {
    if enter_namespace() && std::path::Path::new("/dev/net/tun").exists() {
        common::rig::damaged_head("tap:tap0", "tap0");
    }
}

/// Frames wait in the device for whoever comes; a successor that dies while it mends leaves as much to its own.
#[test]
fn drivers_that_die_again_and_again() {
    let Some(mut stand) = stand("tap:tap0") else { return };
    let peer = Peer::new("tap0");
    for seq in 0..FRAMES {
        assert!(stand.send(seq));
        peer.send(&frame_of(seq));
    }
    let (mut there, mut here) = (Ledger::default(), Ledger::default());
    let steps =
        [Step::TxMarked, Step::RxStaged, Step::TxRecovered, Step::RxRecovered, Step::Placed, Step::RxMarked];
    for life in 0..3 * steps.len() {
        let step = steps[life % steps.len()];
        let mut driver = stand.driver(Some((step, 1)));
        let began = std::time::Instant::now();
        while !driver.has_ended() && began.elapsed().as_millis() < 300 {
            peer.drain(&mut there);
            stand.receive(&mut here);
        }
    }
    let driver = stand.driver(None);
    wait_for("all frames", || {
        peer.drain(&mut there);
        stand.receive(&mut here);
        there.received == FRAMES && here.received == FRAMES
    });
    drop(driver);
    there.assert_perfect(FRAMES, "storm");
    here.assert_perfect(FRAMES, "storm");
}
