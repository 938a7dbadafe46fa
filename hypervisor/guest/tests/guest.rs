//! The client and the process against a small store at the other end of the ring.
#![allow(clippy::unwrap_used)]
#![forbid(unsafe_code)]

mod model;

use std::io::Read;
use std::process::Child;
use std::time::Duration;

use hypervisor::local::Broker;
use model::{Lab, Store, until};
use rustix::process::{Pid, Signal, kill_process};
use sim_guest::limits::{DEVICES_MAX, EVENTS_MAX, OUTBOX_BYTES_MAX, TRANSACTION_TRIES_MAX};
use sim_guest::{Class, Error, Frontends, Guest, WatchEvent};
use xs_protocol::{MessageType, XsError};

fn pair() -> (Lab, Store, Guest) {
    let lab = Lab::start();
    let store = Store::start(&lab.socket, lab.domid);
    let guest = Guest::attach(&lab.socket, lab.domid).unwrap();
    (lab, store, guest)
}

fn event(path: &str, token: &str) -> WatchEvent {
    WatchEvent { path: path.to_owned(), token: token.to_owned() }
}

#[test]
fn requests_of_all_kinds_are_answered() {
    let (_lab, store, mut guest) = pair();
    guest.write("data/a", b"1\0with a nul").unwrap();
    assert_eq!(store.get("data/a").unwrap(), b"1\0with a nul");
    assert_eq!(guest.read("data/a").unwrap(), b"1\0with a nul");
    guest.mkdir("data/b").unwrap();
    assert_eq!(guest.directory("data").unwrap(), ["a", "b"]);
    assert_eq!(guest.directory("data/b").unwrap(), Vec::<String>::new());
    let perms = guest.get_perms("data/a").unwrap();
    assert_eq!(perms.iter().map(ToString::to_string).collect::<Vec<_>>(), ["n1", "r2"]);
    assert!(guest.set_perms("data/a", &perms).unwrap_err().is(XsError::ENOSYS));
    guest.rm("data").unwrap();
    assert!(guest.read("data/a").unwrap_err().is(XsError::ENOENT));
}

#[test]
fn messages_longer_than_the_ring_go_round() {
    let (_lab, _store, mut guest) = pair();
    for round in 0..20u8 {
        let value = vec![round; 4000 + usize::from(round)];
        guest.write("big", &value).unwrap();
        assert_eq!(guest.read("big").unwrap(), value);
    }
    assert!(matches!(guest.write("big", &[0; 4096]), Err(Error::TooLong)));
}

#[test]
fn events_are_kept_in_order_beside_replies() {
    let (_lab, store, mut guest) = pair();
    guest.watch("data", "t").unwrap();
    guest.write("data/x", b"1").unwrap();
    store.set("data/y", b"2");
    guest.write("other", b"3").unwrap();
    let mut next = || guest.next_event(Duration::from_secs(5)).unwrap().unwrap();
    assert_eq!(next(), event("data", "t"));
    assert_eq!(next(), event("data/x", "t"));
    assert_eq!(next(), event("data/y", "t"));
    guest.unwatch("data", "t").unwrap();
    guest.write("data/x", b"4").unwrap();
    assert_eq!(guest.next_event(Duration::from_millis(20)).unwrap(), None);
}

#[test]
fn the_bound_on_waiting_events_is_reached_and_kept() {
    let (_lab, store, mut guest) = pair();
    guest.watch("data", "t").unwrap();
    for _ in 1..EVENTS_MAX {
        store.set("data", b"x");
    }
    guest.read("data").unwrap();
    store.set("data", b"one more");
    assert!(matches!(guest.read("data"), Err(Error::TooManyEvents)));
}

#[test]
fn the_bound_on_devices_is_reached_and_kept() {
    let (_lab, store, mut guest) = pair();
    for id in 0..=DEVICES_MAX {
        store.set(&format!("device/vif/{id:03}/backend"), b"/backend");
    }
    let mut frontends = Frontends::start(&mut guest, vec![Class::Vif]).unwrap();
    let event = guest.next_event(Duration::from_secs(5)).unwrap().unwrap();
    assert_eq!(frontends.handle(&mut guest, &event).unwrap().len(), DEVICES_MAX);
    assert_eq!(frontends.devices().count(), DEVICES_MAX);
}

#[test]
fn transactions_are_tried_again_up_to_the_bound() {
    let (_lab, store, mut guest) = pair();
    store.set_conflicts(3);
    let mut tries = 0;
    let body = |guest: &mut Guest, tx| {
        tries += 1;
        guest.write_in(tx, "a", b"1")
    };
    guest.transaction(body).unwrap();
    assert_eq!(tries, 4);
    store.set_conflicts(u32::try_from(TRANSACTION_TRIES_MAX).unwrap());
    assert!(matches!(guest.transaction(|_, _| Ok(())), Err(Error::Conflicts)));
    let failed = guest.transaction(|guest, tx| guest.read_in(tx, "missing"));
    assert!(failed.unwrap_err().is(XsError::ENOENT));
}

#[test]
fn a_late_answer_is_passed_over() {
    let lab = Lab::start();
    let mut guest = Guest::attach(&lab.socket, lab.domid).unwrap();
    guest.set_reply_timeout(Duration::from_millis(5));
    assert!(!guest.wait_introduced(Duration::from_millis(5)).unwrap());
    assert!(matches!(guest.write("a", b"late"), Err(Error::Timeout { .. })));
    let store = Store::start(&lab.socket, lab.domid);
    guest.set_reply_timeout(Duration::from_secs(10));
    store.set("b", b"right");
    assert_eq!(guest.read("b").unwrap(), b"right");
    assert_eq!(store.get("a").unwrap(), b"late");
}

#[test]
fn requests_that_nobody_takes_are_bounded() {
    let lab = Lab::start();
    let mut guest = Guest::attach(&lab.socket, lab.domid).unwrap();
    let mut sent = 0;
    let error = loop {
        match guest.send_request(MessageType::WRITE, sim_guest::Tx::NONE, &[&[b'x'; 1008]]) {
            Ok(_) => sent += 1024,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::TooLong));
    // The ring holds one such message, the outbox the others.
    assert_eq!(sent, 1024 + OUTBOX_BYTES_MAX / 1024 * 1024);
}

#[test]
fn a_reconnected_ring_starts_anew() {
    let (_lab, _store, mut guest) = pair();
    guest.write("a", b"1").unwrap();
    // Half a header.
    guest.send_raw(&[1, 0, 0, 0, 9]).unwrap();
    assert!(guest.reconnect(Duration::from_secs(5)).unwrap());
    assert_eq!(guest.read("a").unwrap(), b"1");
}

#[test]
fn a_store_that_breaks_the_ring_is_an_error() {
    let lab = Lab::start();
    let mut guest = Guest::attach(&lab.socket, lab.domid).unwrap();
    guest.page().store_u32(2060, 5000);
    assert!(matches!(guest.read("a"), Err(Error::Ring(_))));
    guest.page().store_u32(2060, 0);
    guest.page().store_u32(2072, 3);
    assert!(matches!(guest.read("a"), Err(Error::GivenUp(3))));
}

fn add_devices(store: &Store) {
    store.set("device/vif/0/backend", b"/backend/vif");
    store.set("device/vif/0/state", b"1");
    store.set("device/vbd/768/backend", b"/backend/vbd");
}

#[test]
fn frontends_follow_their_backends() {
    let (_lab, store, mut guest) = pair();
    let mut frontends = Frontends::start(&mut guest, vec![Class::Vif, Class::Vbd]).unwrap();
    add_devices(&store);
    let mut settle = |guest: &mut Guest| {
        while let Some(event) = guest.next_event(Duration::from_millis(50)).unwrap() {
            frontends.handle(guest, &event).unwrap();
        }
    };
    settle(&mut guest);
    assert_eq!(store.get("device/vbd/768/state").unwrap(), b"1");
    store.set("/backend/vif/state", b"2");
    store.set("/backend/vbd/state", b"2");
    settle(&mut guest);
    assert_eq!(store.get("device/vif/0/state").unwrap(), b"4");
    assert_eq!(store.get("device/vif/0/request-rx-copy").unwrap(), b"1");
    assert_eq!(store.get("device/vbd/768/state").unwrap(), b"3");
    store.set("/backend/vbd/state", b"4");
    settle(&mut guest);
    assert_eq!(store.get("device/vbd/768/state").unwrap(), b"4");
    store.set("/backend/vif/state", b"5");
    settle(&mut guest);
    assert_eq!(store.get("device/vif/0/state").unwrap(), b"6");
}

fn terminate(mut child: Child) -> (Option<i32>, String) {
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    finish(&mut child)
}

fn finish(child: &mut Child) -> (Option<i32>, String) {
    let code = child.wait().unwrap().code();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (code, said)
}

#[test]
fn the_process_boots_talks_and_ends_at_a_signal() {
    let lab = Lab::start();
    let child = lab.sim_guest(&["--interval-ms", "10"]);
    std::thread::sleep(Duration::from_millis(50));
    let store = Store::start(&lab.socket, lab.domid);
    add_devices(&store);
    until("the vbd", || store.get("device/vbd/768/state").is_some());
    store.set("/backend/vif/state", b"2");
    until("the vif", || store.get("device/vif/0/state").unwrap() == b"4");
    until("the uptime", || store.get("data/uptime").is_some());
    let first = store.get("data/uptime");
    until("traffic", || store.get("data/uptime") != first);
    let (code, said) = terminate(child);
    assert_eq!(code, Some(0));
    for stage in
        ["attached", "introduced, features 0xf", "device/vif/0: Initialising", "device/vif/0: Connected"]
    {
        assert!(said.contains(stage), "{stage} in {said}");
    }
}

#[test]
fn the_process_follows_the_wish_to_shut_down() {
    let lab = Lab::start();
    let store = Store::start(&lab.socket, lab.domid);
    let mut child = lab.sim_guest(&["--devices", "vif"]);
    until("the first traffic", || store.get("data/uptime").is_some());
    store.set("control/shutdown", b"reboot");
    assert_eq!(finish(&mut child).0, Some(0));
    assert_eq!(store.get("control/shutdown").unwrap(), b"");
    let state = Broker::connect(&lab.socket).unwrap().get(lab.domid).unwrap().unwrap();
    assert_eq!(state.shutdown_reason, Some(1));
}

#[test]
fn a_waiting_process_ends_at_a_signal_too() {
    let lab = Lab::start();
    let child = lab.sim_guest(&[]);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(terminate(child).0, Some(0));
}
