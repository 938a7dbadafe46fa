//! Packet sockets over a pair of connected interfaces: frames both ways, odd frames, full rings, and every death.

#![allow(unsafe_code, reason = "system calls of the test bed")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::rig::{self, port_of, wakes};
use common::{Ledger, Peer, Stand, enter_namespace, ip, run, wait_for};
use lane::{FrameFlags, FrameMeta};
use nic::{Kick, Link, NicError, Step};

const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_SGRO: u32 = 0x2c;

/// With rings that are smaller than a batch, and others of any number of slots.
#[test]
fn frames_go_both_ways() {
    if !enter_namespace() {
        return;
    }
    rig::both_ways("packet:near,rx=16,tx=16");
    rig::both_ways("packet:near,rx=500,tx=300,bypass");
    rig::both_ways("packet:near,rx=30,tx=30,offload");
}

#[test]
fn malformed_frames_are_counted_and_block_nothing() {
    if !enter_namespace() {
        return;
    }
    rig::malformed_frames("packet:near,rx=16,tx=16");
    rig::malformed_frames("packet:near,rx=30,tx=30,offload");
}

#[test]
fn a_full_receive_ring_drops_and_counts() {
    if enter_namespace() {
        rig::full_receive_ring("packet:near,rx=16,tx=16");
    }
}

#[test]
fn a_full_lane_blocks_and_loses_nothing() {
    if enter_namespace() {
        rig::full_lane("packet:near");
    }
}

/// Frames for a device that is down wait for it.
#[test]
fn a_device_that_is_down_keeps_its_frames() {
    if !enter_namespace() {
        return;
    }
    let mut stand = Stand::new("packet:near", 64);
    let peer = Peer::new("far");
    let (mut port, mut tx, _rx) = port_of(&stand);
    assert!(ip("link set near down"));
    assert_eq!(port.link().unwrap(), Link::Down);
    for seq in 0..10 {
        assert!(stand.send(seq));
    }
    assert_eq!(port.transmit(&mut tx).unwrap().frames, 10);
    assert_eq!(port.kick().unwrap(), Kick::Down);
    assert!(ip("link set near up"));
    let mut ledger = Ledger::default();
    wait_for("all frames", || {
        port.kick().unwrap();
        peer.drain(&mut ledger);
        ledger.received == 10
    });
    ledger.assert_perfect(10, "after the device came back");
    assert!(ip("link set near name renamed"));
    assert_eq!(port.link().unwrap(), Link::Up);
    // No carrier.
    assert!(ip("link set far down"));
    wait_for("no carrier", || port.link().unwrap() == Link::Down);
    assert!(stand.send(10));
    port.transmit(&mut tx).unwrap();
    assert_eq!(port.kick().unwrap(), Kick::Down);
    assert!(ip("link set far up"));
    wait_for("the last frame", || {
        port.kick().unwrap();
        peer.drain(&mut ledger);
        ledger.received == 11
    });
    ledger.assert_perfect(11, "after the carrier came back");
    assert!(ip("link del renamed"));
    assert_eq!(port.link().unwrap(), Link::Gone);
    assert_eq!(port.kick().unwrap(), Kick::Down);
}

#[test]
fn a_damaged_frame_at_the_head_stops_no_driver() {
    if enter_namespace() {
        rig::damaged_head("packet:near", "near");
    }
}

#[test]
fn frames_that_waited_for_a_device_that_is_gone_go_over_the_next_one() {
    if enter_namespace() {
        for spec in ["packet:near,rx=16,tx=48", "packet:near,rx=30,tx=45,offload"] {
            rig::next_device(spec);
        }
    }
}

/// It found frames of every length too long for a device without any, and dropped them.
#[test]
fn a_driver_that_begins_without_its_device_leaves_all_in_the_lane() {
    if !enter_namespace() {
        return;
    }
    let mut stand = Stand::new("packet:near", 64);
    let (port, _tx, _rx) = port_of(&stand);
    drop(port);
    assert!(ip("link del near") && stand.send(0));
    let (mut port, mut tx, _rx) = port_of(&stand);
    assert_eq!(port.transmit(&mut tx).unwrap().taken(), 0);
    assert_eq!(port.kick().unwrap(), Kick::Down);
    assert!(tx.peek().unwrap().is_some());
}

#[test]
fn frames_for_a_device_that_is_gone_stay_in_the_lane() {
    if enter_namespace() {
        rig::gone_device("packet:near");
    }
}

/// Or else whoever waits for its frames would be woken up for ever.
#[test]
fn a_device_that_is_gone_wakes_nobody_once_it_was_looked_at() {
    if !enter_namespace() {
        return;
    }
    let stand = Stand::new("packet:near", 64);
    let (mut port, _tx, _rx) = port_of(&stand);
    assert!(!wakes(&port));
    assert!(ip("link del near"));
    assert!(wakes(&port), "its end is told");
    assert_eq!(port.kick().unwrap(), Kick::Down);
    assert!(!wakes(&port));
}

/// Frames that the queueing discipline refuses stay in the ring.
#[test]
fn a_congested_device_loses_nothing() {
    if !enter_namespace() {
        return;
    }
    if !run("tc", "qdisc add dev near root tbf rate 40mbit burst 3000 limit 4000") {
        eprintln!("SKIPPED: no token bucket filter here");
        return;
    }
    let mut stand = Stand::new("packet:near", 512);
    let peer = Peer::new("far");
    let (mut port, mut tx, _rx) = port_of(&stand);
    let mut ledger = Ledger::default();
    for seq in 0..500 {
        assert!(stand.send(seq));
    }
    let mut congested = 0;
    wait_for("all frames", || {
        port.transmit(&mut tx).unwrap();
        congested += u32::from(port.kick().unwrap() == Kick::Congested);
        peer.drain(&mut ledger);
        ledger.received == 500
    });
    ledger.assert_perfect(500, "a congested device");
    assert!(congested > 0);
}

#[test]
fn a_socket_that_served_another_lane_is_refused() {
    if !enter_namespace() {
        return;
    }
    let mut stand = Stand::new("packet:near,tx=16", 64);
    let (mut port, mut tx, _rx) = port_of(&stand);
    assert!(stand.send(1));
    port.transmit(&mut tx).unwrap();
    drop(port);
    let other = Stand::new("packet:near,tx=16", 64);
    let (mut tx, mut rx) = (other.lane.tx().consumer().unwrap(), other.lane.rx().producer().unwrap());
    assert!(matches!(stand.held.attach(&mut tx, &mut rx, other.lane.words()), Err(NicError::Used)));
}

/// Joined frames fit into no slot without offload, and would be lost: TCP hardly gets on then.
#[test]
fn the_kernel_joins_frames_only_for_offload() {
    if !enter_namespace() {
        return;
    }
    let joins = || common::ethtool("near", ETHTOOL_GGRO, 0) != 0;
    common::ethtool("near", ETHTOOL_SGRO, 1);
    assert!(joins());
    let _offload = Stand::new("packet:near,rx=30,tx=30,offload", 64);
    assert!(joins());
    let _plain = Stand::new("packet:near", 64);
    assert!(!joins());
}

/// A tag that the kernel took out is put back.
#[test]
fn vlan_tags_survive() {
    if enter_namespace() {
        rig::vlan_tag("packet:near");
    }
}

/// TCP over IPv4 in segments of 1000 bytes, with the sum of the pseudo header for a checksum.
fn tcp(payload_bytes: u16) -> (FrameMeta, Vec<u8>) {
    let mut frame = vec![0xff; 12];
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((40 + payload_bytes).to_be_bytes());
    frame.extend([0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 5 << 4, 0x10, 1, 0, 0, 0, 0, 0]);
    frame.extend((0..payload_bytes).map(|at| at.to_le_bytes()[0]));
    let pseudo = 2 * (10 << 8) + 1 + 2 + 6 + u32::from(20 + payload_bytes);
    let folded = u16::try_from((pseudo & 0xffff) + (pseudo >> 16)).unwrap();
    frame[50..52].copy_from_slice(&folded.to_be_bytes());
    let flags = FrameFlags::CSUM_BLANK | FrameFlags::GSO_V4;
    (FrameMeta { flags, gso_bytes: 1000, ..FrameMeta::default() }, frame)
}

/// Segments stay whole between two ends that know them, and are cut and checksummed for one that does not.
#[test]
fn segments_and_checksums_are_offloaded() {
    if !enter_namespace() {
        return;
    }
    let mut stand = Stand::new("packet:near,rx=30,tx=30,offload", 128);
    let mut other = Stand::new("packet:far,rx=30,tx=30,offload", 128);
    let (mut port, mut tx, _) = port_of(&stand);
    let (mut far, _, mut far_rx) = port_of(&other);
    let whole = |received: &lane::Consumer, frame: &lane::Frame| {
        let meta = frame.meta();
        (meta.flags, meta.gso_bytes, received.bytes_of(frame))
    };
    for payload_bytes in [3000, 64_000] {
        let (meta, bytes) = tcp(payload_bytes);
        assert!(stand.tx.push(&bytes, &meta).unwrap());
        assert_eq!(port.transmit(&mut tx).unwrap().refused, 0);
        let mut frame = None;
        wait_for("the frame", || {
            port.kick().unwrap();
            far.receive(&mut far_rx).unwrap();
            frame = other.rx.peek().unwrap();
            frame.is_some()
        });
        let frame = frame.unwrap();
        assert_eq!(whole(&other.rx, &frame), (meta.flags, 1000, bytes));
        other.rx.release(&frame);
    }
    common::without_checksums("near");
    let peer = Peer::new("far");
    let (meta, bytes) = tcp(3000);
    assert!(stand.tx.push(&bytes, &meta).unwrap());
    port.transmit(&mut tx).unwrap();
    let mut segments = Vec::new();
    let mut buffer = [0; 70_000];
    wait_for("three segments", || {
        port.kick().unwrap();
        segments.extend(peer.receive(&mut buffer).map(<[u8]>::to_vec));
        segments.len() == 3
    });
    for (segment, payload) in segments.iter().zip(bytes[54..].chunks(1000)) {
        assert_eq!(segment[54..], *payload);
        assert!(sums_up(segment));
    }
}

/// Whether a checksum of TCP over IPv4 is right.
fn sums_up(frame: &[u8]) -> bool {
    let words = |bytes: &[u8]| {
        bytes
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
            .sum::<u32>()
    };
    let length = u32::try_from(frame.len() - 34).unwrap();
    let mut sum = words(&frame[26..34]) + 6 + length + words(&frame[34..]);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}

/// Without offload the driver completes checksums.
#[test]
fn blank_checksums_are_completed() {
    if !enter_namespace() {
        return;
    }
    let mut stand = Stand::new("packet:near", 64);
    let peer = Peer::new("far");
    let (mut port, mut tx, _rx) = port_of(&stand);
    let (_, bytes) = tcp(1001);
    let meta = FrameMeta { flags: FrameFlags::CSUM_BLANK, ..FrameMeta::default() };
    assert!(stand.tx.push(&bytes, &meta).unwrap());
    port.transmit(&mut tx).unwrap();
    let mut buffer = [0; 2000];
    wait_for("the frame", || {
        port.kick().unwrap();
        peer.receive(&mut buffer).is_some()
    });
    assert!(sums_up(&buffer[..bytes.len()]));
}

/// Dies at each place, after one frame there and after several; then once more while a successor recovers. Nothing is
/// lost, doubled, reordered or damaged.
#[test]
fn every_place_to_die_at() {
    if !enter_namespace() {
        return;
    }
    // Of the 128 slots, a batch of 64 may be published and not given back, and 30 to 60 frames are on their way.
    for spec in ["packet:near,rx=128,tx=64", "packet:near,rx=135,tx=60,offload"] {
        for step in Step::PACKET {
            for count in [1, 2, 5, 77] {
                rig::die_at(spec, step, count, count.min(3));
            }
        }
    }
}
