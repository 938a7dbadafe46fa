//! What one guest does costs no other its turn.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::{Duration, Instant};

use net_stand::{Guest, GuestOptions, Keeper, KeeperOptions};
use rustix::process::{Pid, Signal, kill_process};
use sim_guest::net::Mac;
use tests::{Stand, binary};

const WAIT: Duration = Duration::from_secs(20);
const SENDER: Mac = Mac([0x00, 0x16, 0x3e, 0x77, 0, 1]);
const RECEIVER: Mac = Mac([0x00, 0x16, 0x3e, 0x77, 0, 2]);
const HOSTILE: Mac = Mac([0x00, 0x16, 0x3e, 0x77, 0, 3]);

fn backend(stand: &Stand) -> Keeper {
    Keeper::start(KeeperOptions {
        program: &binary("net_uk"),
        hv_socket: &stand.hv_socket(),
        store: &stand.socket(),
        nic: None,
        log: &stand.rundir().join("net_uk.log"),
        injection: false,
        guests: u16::MAX,
    })
    .unwrap()
}

fn guest(stand: &Stand, mac: Mac, peer_mac: Mac, rate: u64, more: &[&str]) -> Guest {
    let guest = Guest::start(GuestOptions {
        program: &binary("sim-net-guest"),
        hv_socket: &stand.hv_socket(),
        store: &stand.socket(),
        mac,
        peer_mac,
        rate,
        flow: flow_of(mac),
        sizes: (60, 200),
        more,
    })
    .unwrap();
    wait_until("the interface is connected", || guest.is_connected());
    guest
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < WAIT, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Has it send no more; gives what it sent.
fn stop(sender: &mut Guest) -> u64 {
    sender.command("stop").unwrap();
    let mut sent = 0;
    wait_until("nothing more is sent", || {
        let before = std::mem::replace(&mut sent, sender.report().unwrap().sent.frames);
        before == sent
    });
    sent
}

/// Waits until all came that this guest sent, though it sends nothing more.
fn await_all(sent: u64, from: Mac, receiver: &mut Guest) {
    let mut received = 0;
    let began = Instant::now();
    while received < sent && began.elapsed() < WAIT {
        received = receiver.report().unwrap().received.of_flow(flow_of(from));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(received, sent, "nothing more comes");
}

fn flow_of(mac: Mac) -> u64 {
    mac.0[5].into()
}

fn signal(guest: &Guest, signal: Signal) {
    let pid = Pid::from_raw(guest.pid().cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// A guest that stood still had more frames in its backlog than are moved in one go. What was left after the first batch was
/// looked at no more, for no frame waited for slots and so no event was asked for, until something else came.
#[test]
fn a_backlog_of_several_batches_needs_one_event() {
    let stand = Stand::start(&[]);
    let _backend = backend(&stand);
    let mut receiver = guest(&stand, RECEIVER, SENDER, 1, &["--wait"]);
    let mut sender = guest(&stand, SENDER, RECEIVER, 4000, &["--wait"]);
    sender.command("start").unwrap();
    wait_until("frames come", || receiver.report().unwrap().received.received > 0);
    for _ in 0..5 {
        sender.command("start").unwrap();
        signal(&receiver, Signal::STOP);
        std::thread::sleep(Duration::from_millis(200));
        let sent = stop(&mut sender);
        signal(&receiver, Signal::CONT);
        await_all(sent, SENDER, &mut receiver);
    }
}

/// A guest that kept its ring full kept the shadow busy, and a busy shadow asked nobody for events nor looked at lanes: all
/// others stood still, and it was taken for one that hangs, and restarted, again and again.
#[test]
fn a_guest_that_floods_stops_nobody() {
    let stand = Stand::start(&[]);
    let mut backend = backend(&stand);
    let mut receiver = guest(&stand, RECEIVER, SENDER, 1, &["--wait"]);
    let mut sender = guest(&stand, SENDER, RECEIVER, 1000, &["--wait"]);
    let _hostile = guest(&stand, HOSTILE, SENDER, 1, &["--hostile", "flood"]);
    sender.command("start").unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let sent = stop(&mut sender);
    assert!(sent > 500, "{sent} frames were sent");
    await_all(sent, SENDER, &mut receiver);
    backend.hear().unwrap();
    let ended: Vec<_> = backend.events().iter().filter(|told| told.kind == "ended").collect();
    assert!(ended.is_empty(), "{ended:?}");
}

/// One that sent as much as it could filled the whole backlog of another guest, again in each turn, and all that anybody else
/// sent there was dropped.
#[test]
fn one_sender_leaves_room_for_the_others() {
    let stand = Stand::start(&[]);
    let _backend = backend(&stand);
    let mut receiver = guest(&stand, RECEIVER, SENDER, 1, &["--wait"]);
    let mut sender = guest(&stand, SENDER, RECEIVER, 300, &["--wait"]);
    let mut greedy = guest(&stand, HOSTILE, RECEIVER, 0, &["--wait"]);
    greedy.command("start").unwrap();
    wait_until("frames of the greedy one come", || {
        receiver.report().unwrap().received.of_flow(flow_of(HOSTILE)) > 5000
    });
    sender.command("start").unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let sent = stop(&mut sender);
    assert!(sent > 100, "{sent} frames were sent");
    await_all(sent, SENDER, &mut receiver);
    stop(&mut greedy);
}
