//! Attack class D: no request, in no state, ends a process.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::Duration;

use hypervisor::DomId;
use sim_guest::{Error, Guest, Tx};
use tests::{RawClient, Stand};
use xs_protocol::{MessageType as T, PAYLOAD_MAX};

/// The processes and the epoch before an attack.
struct Before {
    processes: Vec<u32>,
    epoch: u64,
}

impl Before {
    fn of(stand: &Stand) -> Self {
        Self { processes: stand.processes(), epoch: stand.epoch() }
    }

    fn holds(&self, stand: &Stand) {
        assert_eq!(stand.processes(), self.processes, "a process died");
        assert_eq!(stand.epoch(), self.epoch);
        stand.client().write("/bystander", "served").unwrap();
        stand.check();
    }
}

fn kinds() -> impl Iterator<Item = T> {
    (0..=28).chain([0xffff, u32::MAX]).map(T)
}

fn payloads(home: &str) -> Vec<Vec<u8>> {
    let texts = [
        "",
        "\0",
        "\0\0\0",
        "x",
        "x\0",
        "x\0\0",
        "/\0",
        "/local/domain/\0",
        "/local/domain/\0v",
        "//\0",
        "@\0",
        "@releaseDomain\0t\0",
        "@releaseDomain/\0t\0",
        "x\0tok\0",
        "x\0tok\x004294967296\0",
        "T\0",
        "F\0",
        "F",
        "T\0T\0",
        "x\0n0\0",
        "x\0n\0",
        "x\0n4\0r5\0w6\0b7\0r8\0w9\0",
        "0\0",
        "32752\0",
        "65535\0",
        "65536\0",
        "-1\0",
        "7\x001\x001\0",
    ];
    let mut all: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    all.push(format!("{home}/x\0v").into_bytes());
    all.push([b"a".repeat(2048).as_slice(), b"\0"].concat());
    all.push([b"/a".repeat(1000).as_slice(), b"\0"].concat());
    all.push([b"a/".repeat(1000).as_slice(), b"a\0v"].concat());
    all.push(vec![0xff; PAYLOAD_MAX]);
    all.push(vec![0; PAYLOAD_MAX]);
    all
}

fn start(client: &mut RawClient) -> u32 {
    let tx = client.request(T::TRANSACTION_START, 0, b"\0").unwrap();
    String::from_utf8_lossy(&tx).trim_end_matches('\0').parse().unwrap()
}

/// Every type with every payload in every state of a transaction, from dom0's socket.
#[test]
fn every_type_in_every_state_of_a_transaction_from_a_socket() {
    let stand = Stand::start(&[]);
    let before = Before::of(&stand);
    let mut client = stand.client();
    for kind in kinds() {
        for payload in payloads("/tool") {
            let ended = start(&mut client);
            client.request(T::TRANSACTION_END, ended, b"F\0").unwrap();
            let open = start(&mut client);
            let conflicting = start(&mut client);
            let _ = client.request(T::READ, conflicting, b"/tool/conflict\0");
            client.write("/tool/conflict", &payload.len().to_string()).unwrap();
            for tx in [0, open, open, conflicting, ended, u32::MAX] {
                client.send(kind, tx, &payload).unwrap();
                client.answer().unwrap_or_else(|error| panic!("type {} {payload:?}: {error}", kind.0));
            }
            let _ = client.request(T::RESET_WATCHES, 0, b"\0");
            let _ = client.request(T::RM, 0, b"/tool/conflict\0");
        }
    }
    before.holds(&stand);
}

/// The same from a guest; one transaction has failed at a quota.
#[test]
fn every_type_in_every_state_of_a_transaction_from_a_ring() {
    let stand = Stand::start(&[]);
    let before = Before::of(&stand);
    let (domid, mut guest) = stand.guest();
    let home = format!("/local/domain/{domid}");
    for kind in kinds() {
        let open = guest.transaction_start().unwrap();
        let failed = guest.transaction_start().unwrap();
        let _ = guest.write_in(failed, "big", &[b'v'; 3000]);
        for payload in payloads(&home) {
            for tx in [Tx::NONE, open, failed, Tx(u32::MAX)] {
                if let Err(error) = guest.request(kind, tx, &[&payload]) {
                    assert!(matches!(error, Error::Store(_)), "type {} {payload:?}: {error}", kind.0);
                }
                while guest.next_event(Duration::ZERO).unwrap().is_some() {}
            }
        }
        let _ = guest.request(T::RESET_WATCHES, Tx::NONE, &[b"\0"]);
    }
    before.holds(&stand);
}

fn manage(client: &mut RawClient, kind: T, payload: &str) {
    client.send(kind, 0, payload.as_bytes()).unwrap();
    client.answer().unwrap();
}

/// Domains are introduced, released and resumed in loops, with requests of theirs and transactions under way.
#[test]
fn introduce_release_and_resume_in_loops() {
    let stand = Stand::start(&[]);
    let before = Before::of(&stand);
    let mut domains: Vec<(DomId, Guest)> = (0..3).map(|_| stand.guest()).collect();
    let mut client = stand.client();
    for round in 0..100 {
        for (domid, guest) in &mut domains {
            let _ = guest.send_request(T::TRANSACTION_START, Tx::NONE, &[b"\0"]);
            let _ = guest.send_request(T::WRITE, Tx(1), &[b"data/x\0v"]);
            let port = stand.hypervisor().store_port(*domid).unwrap();
            let introduce = format!("{domid}\x001\0{port}\0");
            let order = [
                (T::RELEASE, format!("{domid}\0")),
                (T::RESUME, format!("{domid}\0")),
                (T::INTRODUCE, introduce.clone()),
                (T::SET_TARGET, format!("{domid}\0{domid}\0")),
                (T::INTRODUCE, introduce),
            ];
            for step in 0..order.len() {
                let (kind, payload) = &order[(step + round) % order.len()];
                manage(&mut client, *kind, payload);
            }
        }
    }
    before.holds(&stand);
}

/// A guest that was released goes on writing into its page; dom0 goes on talking of it.
#[test]
fn requests_after_release() {
    let stand = Stand::start(&[]);
    let before = Before::of(&stand);
    let (domid, mut guest) = stand.guest();
    guest.watch("data", "t").unwrap();
    let tx = guest.transaction_start().unwrap();
    guest.write_in(tx, "data/x", b"v").unwrap();
    let mut client = stand.client();
    manage(&mut client, T::RELEASE, &format!("{domid}\0"));
    guest.set_reply_timeout(Duration::from_millis(50));
    for _ in 0..3 {
        assert!(guest.write("data/x", b"v").is_err(), "nobody serves a released ring");
    }
    for kind in [T::RELEASE, T::RESUME, T::SET_TARGET, T::GET_DOMAIN_PATH, T::IS_DOMAIN_INTRODUCED] {
        manage(&mut client, kind, &format!("{domid}\0"));
    }
    before.holds(&stand);
}

#[test]
fn paths_of_a_thousand_levels() {
    let stand = Stand::start(&[]);
    let before = Before::of(&stand);
    let mut client = stand.client();
    let deep = "/a".repeat(1500);
    let tx = start(&mut client);
    for tx in [0, tx] {
        let payload = format!("{deep}\0v");
        client.request(T::WRITE, tx, payload.as_bytes()).unwrap();
        client.request(T::SET_PERMS, tx, format!("{deep}\0n0\0r1\0").as_bytes()).unwrap();
        client.request(T::WATCH, 0, format!("{deep}\0{tx}\0").as_bytes()).unwrap();
        client.request(T::READ, tx, format!("{deep}\0").as_bytes()).unwrap();
        client.request(T::RM, tx, b"/a\0").unwrap();
    }
    client.request(T::TRANSACTION_END, tx, b"T\0").unwrap();
    let (_, mut guest) = stand.guest();
    let deep = vec!["b"; 900].join("/");
    guest.write(&deep, b"v").unwrap();
    assert_eq!(guest.read(&deep).unwrap(), b"v");
    guest.rm("b").unwrap();
    before.holds(&stand);
}
