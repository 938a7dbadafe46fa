//! `AF_XDP` over a pair of connected interfaces: frames both ways, odd frames, full rings, devices that are down.

#![allow(unsafe_code, reason = "system calls of the test bed")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::time::Instant;

use common::rig::{self, Rig, port_of};
use common::{Ledger, Peer, Stand, enter_namespace_with_xdp, frame_of, ip, wait_for};
use lane::{FrameFlags, FrameMeta};
use nic::limits::XDP_BUSY_WAIT;
use nic::{Held, Kick, Link, NicError, NicSpec};

/// In both modes, with rings that are smaller than a batch, and often around each of them.
#[test]
fn frames_go_both_ways() {
    if !enter_namespace_with_xdp() {
        return;
    }
    rig::both_ways("xdp:near,rx=16,tx=16,mode=native");
    rig::both_ways("xdp:near,rx=64,tx=32,mode=generic");
    rig::both_ways("xdp:near,rx=500,tx=300,zerocopy=off");
}

#[test]
fn malformed_frames_are_counted_and_block_nothing() {
    if enter_namespace_with_xdp() {
        rig::malformed_frames("xdp:near,rx=16,tx=16");
    }
}

#[test]
fn a_full_receive_ring_drops_and_counts() {
    if !enter_namespace_with_xdp() {
        return;
    }
    rig::full_receive_ring("xdp:near,rx=16,tx=16,mode=native");
    rig::full_receive_ring("xdp:near,rx=16,tx=16,mode=generic");
}

#[test]
fn a_full_lane_blocks_and_loses_nothing() {
    if enter_namespace_with_xdp() {
        rig::full_lane("xdp:near");
    }
}

/// Frames wait in the lane while the device has all memory, and go on when it gives it back.
#[test]
fn a_full_ring_to_the_device_blocks_and_loses_nothing() {
    if !enter_namespace_with_xdp() {
        return;
    }
    let mut rig = Rig::new("xdp:near,tx=16", 64);
    for seq in 0..40 {
        assert!(rig.stand.send(seq));
    }
    let done = rig.port.transmit(&mut rig.tx).unwrap();
    assert_eq!((done.frames, done.blocked), (16, true));
    assert_eq!(rig.port.transmit(&mut rig.tx).unwrap().frames, 0);
    rig.settle_perfect(40, 0, "a full ring");
}

/// Frames for a device that is down wait for it, whoever polls.
#[test]
fn a_device_that_is_down_keeps_its_frames() {
    if !enter_namespace_with_xdp() {
        return;
    }
    let mut stand = Stand::new("xdp:near", 64);
    let peer = Peer::new("far");
    let (mut port, mut tx, mut rx) = port_of(&stand);
    let mut ledger = Ledger::default();
    let mut sent = 0;
    for end in ["near", "far"] {
        assert!(ip(&format!("link set {end} down")));
        wait_for("no carrier", || port.link().unwrap() == Link::Down);
        for seq in sent..sent + 10 {
            assert!(stand.send(seq));
        }
        sent += 10;
        assert_eq!(port.transmit(&mut tx).unwrap().frames, 10);
        assert_eq!(port.kick().unwrap(), Kick::Down);
        // As a keeper does. It must not have the kernel send.
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        for fd in [stand.held.fds()[0], port.poll_fd()] {
            let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN)];
            assert_eq!(rustix::event::poll(&mut fds, Some(&now)), Ok(0));
        }
        assert!(ip(&format!("link set {end} up")));
        common::wait_until_up("near");
        wait_for("all frames", || {
            port.kick().unwrap();
            peer.drain(&mut ledger);
            ledger.received == sent
        });
        ledger.assert_perfect(sent, end);
    }
    peer.send(&frame_of(0));
    let mut here = Ledger::default();
    wait_for("a frame from the wire", || {
        port.receive(&mut rx).unwrap();
        stand.receive(&mut here);
        here.received == 1
    });
    assert!(ip("link set near down") && ip("link set near name renamed") && ip("link set renamed up"));
    wait_for("the link", || port.link().unwrap() == Link::Up);
    assert!(ip("link del renamed"));
    assert_eq!(port.link().unwrap(), Link::Gone);
    assert_eq!(port.kick().unwrap(), Kick::Down);
}

/// The old rings would have taken them, and nothing is carried over from these.
#[test]
fn a_damaged_frame_at_the_head_stops_no_driver() {
    if enter_namespace_with_xdp() {
        rig::damaged_head("xdp:near", "near");
    }
}

#[test]
fn frames_that_waited_for_a_device_that_is_gone_go_over_the_next_one() {
    if enter_namespace_with_xdp() {
        rig::next_device("xdp:near,rx=16,tx=48");
    }
}

#[test]
fn frames_for_a_device_that_is_gone_stay_in_the_lane() {
    if enter_namespace_with_xdp() {
        rig::gone_device("xdp:near");
    }
}

#[test]
fn sockets_that_served_another_lane_are_refused() {
    if !enter_namespace_with_xdp() {
        return;
    }
    let stand = Stand::new("xdp:near", 64);
    drop(port_of(&stand));
    drop(port_of(&stand));
    let region = std::sync::Arc::new(hypervisor::Region::create("lane", lane::Lane::bytes(64, 64)).unwrap());
    let other = lane::Lane::create(region, 64, 64).unwrap();
    let (mut tx, mut rx) = (other.tx().consumer().unwrap(), other.rx().producer().unwrap());
    assert!(matches!(stand.held.attach(&mut tx, &mut rx, other.words()), Err(NicError::Used)));
}

/// One device, one program: the second one is told so.
#[test]
fn what_cannot_be_is_told() {
    if !enter_namespace_with_xdp() {
        return;
    }
    let _first = Held::open_waiting(&NicSpec::xdp("near")).unwrap();
    let refused = |spec: &str| Held::open(&spec.parse().unwrap()).unwrap_err().to_string();
    let used = refused("xdp:near");
    assert!(used.contains("is used by another program"), "{used}");
    let copies = refused("xdp:far,zerocopy=on");
    assert!(copies.contains("cannot do that"), "{copies}");
    assert!(refused("xdp:nothing").contains("SIOCGIFINDEX"));
    let queues = refused("xdp:far,queues=2");
    assert!(queues.contains("AF_XDP cannot be used here"), "{queues}");
    let unprivileged = std::thread::spawn(|| {
        // SAFETY: takes no pointers; the call changes this thread alone, which ends soon.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) }, 0);
        Held::open(&NicSpec::xdp("far")).unwrap_err().to_string()
    });
    let refused = unprivileged.join().unwrap();
    assert!(refused.contains("CAP_NET_ADMIN"), "{refused}");
}

/// A keeper that opens a device in its loop must not stand still. Who has time waits until the former sockets are gone.
#[test]
fn a_device_in_use_is_waited_for_only_by_who_asks_for_it() {
    if !enter_namespace_with_xdp() {
        return;
    }
    let first = Held::open_waiting(&NicSpec::xdp("near")).unwrap();
    let begin = Instant::now();
    assert!(matches!(Held::open(&NicSpec::xdp("near")), Err(NicError::Xdp { .. })));
    let took = begin.elapsed();
    assert!(took < XDP_BUSY_WAIT / 2, "{took:?}");
    let closing = std::thread::spawn(|| {
        std::thread::sleep(XDP_BUSY_WAIT / 10);
        drop(first);
    });
    Held::open_waiting(&NicSpec::xdp("near")).unwrap();
    closing.join().unwrap();
}

/// UDP over IPv4 with the sum of the pseudo header for a checksum.
fn blank_udp() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame
        .extend([2, 0, 0, 0, 0, 9, 8, 0, 0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0, 1, 0, 2, 0, 12, 0x14, 0x20, 1, 2, 3, 4]);
    frame
}

/// A neighbour that is no wire leaves checksums to be completed: it is told to whoever gets the frame.
#[test]
fn blank_checksums_are_told_and_completed() {
    if !enter_namespace_with_xdp() {
        return;
    }
    let mut rig = Rig::new("xdp:near", 64);
    let blank = blank_udp();
    let meta = FrameMeta { flags: FrameFlags::CSUM_BLANK, ..FrameMeta::default() };
    assert!(rig.stand.tx.push(&blank, &meta).unwrap());
    rig.port.transmit(&mut rig.tx).unwrap();
    let mut buffer = [0; 2000];
    let mut complete = vec![];
    wait_for("the frame", || {
        rig.port.kick().unwrap();
        rig.peer.receive(&mut buffer).is_some_and(|frame| {
            complete = frame.to_vec();
            true
        })
    });
    assert_ne!(complete, blank);
    for (frame, flags) in [(&blank, FrameFlags::CSUM_BLANK), (&complete, FrameFlags::NONE)] {
        rig.peer.send(frame);
        let found = rig.next_from_wire();
        assert_eq!((found.meta().flags, rig.stand.rx.bytes_of(&found)), (flags, frame.clone()));
        rig.stand.rx.release(&found);
    }
}

/// What the host's own stack sends through the other end: checksums are blank, and tags lie within the frame once the other
/// end is told to put them there.
#[test]
fn frames_of_a_host_at_the_other_end() {
    if !enter_namespace_with_xdp() {
        return;
    }
    assert!(ip("addr add 10.9.0.1/24 dev far"));
    assert!(ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:07 dev far nud permanent"));
    common::without_tags("far");
    let tags = ip("link add link far name tagged type vlan id 5")
        && ip("link set tagged up")
        && ip("addr add 10.8.0.1/24 dev tagged")
        && ip("neigh add 10.8.0.2 lladdr 02:00:00:00:00:07 dev tagged nud permanent");
    for mode in ["native", "generic"] {
        let mut rig = Rig::new(&format!("xdp:near,mode={mode}"), 64);
        for tagged in [false, true] {
            if tagged && !tags {
                eprintln!("SKIPPED: no VLAN devices here");
                continue;
            }
            let net = if tagged { 8 } else { 9 };
            let socket = std::net::UdpSocket::bind(format!("10.{net}.0.1:0")).unwrap();
            socket.send_to(b"hello", format!("10.{net}.0.2:9")).unwrap();
            let found = rig.next_from_wire();
            let mut bytes = rig.stand.rx.bytes_of(&found);
            if tagged {
                // Whoever is at the other end must not leave the tag to the device: nothing here would show it.
                assert_eq!(bytes[12..16], [0x81, 0, 0, 5], "{mode}");
            }
            rig.stand.rx.release(&found);
            assert_eq!(found.meta().flags, FrameFlags::CSUM_BLANK, "{mode}, tagged: {tagged}");
            assert!(nic::headers::complete_checksum(&mut bytes));
            assert!(!nic::headers::is_checksum_blank(&bytes));
        }
    }
}

/// A tag within a frame stays where it is.
#[test]
fn vlan_tags_survive() {
    if !enter_namespace_with_xdp() {
        return;
    }
    rig::vlan_tag("xdp:near,mode=native");
    rig::vlan_tag("xdp:near,mode=generic");
}
