//! Domains on their rings: traffic, death, hostile rings, and all of it while the leader is killed.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::{Duration, Instant};

use hypervisor::DomId;
use sim_guest::{Guest, Tx};
use tests::{Killer, Stand, message};
use xs_protocol::{MessageType, ring};

const WAIT: Duration = Duration::from_secs(10);

fn home(domid: DomId, below: &str) -> String {
    format!("/local/domain/{domid}/{below}")
}

#[test]
fn a_guest_is_served_and_its_death_is_told() {
    let stand = Stand::start(&[]);
    let mut watcher = stand.client();
    watcher.request(MessageType::WATCH, 0, b"@releaseDomain\0r\0").unwrap();
    watcher.event().unwrap();
    let (domid, mut guest) = stand.guest();
    guest.write("data/x", b"from the guest").unwrap();
    assert_eq!(stand.client().read(&home(domid, "data/x")).unwrap(), "from the guest");
    assert_eq!(guest.directory("data").unwrap(), ["x"]);
    stand.hypervisor().destroy(domid).unwrap();
    assert_eq!(watcher.event().unwrap().payload, b"@releaseDomain\0r\0");
    let payload = format!("{domid}\0");
    let known = watcher.request(MessageType::IS_DOMAIN_INTRODUCED, 0, payload.as_bytes()).unwrap();
    assert_eq!(known, b"F\0");
    let gone = stand.client().read(&home(domid, "data/x")).unwrap_err();
    assert_eq!(gone.to_string(), "ENOENT", "what a dead domain owned is removed");
}

#[test]
fn a_shutdown_is_told_once_and_again_after_resume() {
    let stand = Stand::start(&[]);
    let mut watcher = stand.client();
    let (domid, _guest) = stand.guest();
    watcher.request(MessageType::WATCH, 0, b"@releaseDomain\0r\0").unwrap();
    watcher.event().unwrap();
    for _ in 0..2 {
        stand.hypervisor().shutdown(domid, 2).unwrap();
        assert_eq!(watcher.event().unwrap().payload, b"@releaseDomain\0r\0");
        stand.hypervisor().resume(domid).unwrap();
        watcher.request(MessageType::RESUME, 0, format!("{domid}\0").as_bytes()).unwrap();
    }
    assert_eq!(watcher.kept_events(), 0);
}

#[test]
fn a_second_introduce_and_a_reconnect_begin_the_ring_anew() {
    let stand = Stand::start(&[]);
    let (domid, mut guest) = stand.guest();
    guest.write("data/x", b"1").unwrap();
    guest.watch("data", "t").unwrap();
    assert!(guest.reconnect(WAIT).unwrap());
    guest.write("data/x", b"2").unwrap();
    assert_eq!(guest.read("data/x").unwrap(), b"2");
    assert_eq!(guest.next_event(Duration::from_millis(200)).unwrap(), None, "its watches ended");
    drop(guest);
    stand.introduce(domid);
    let mut again = stand.attach(domid);
    assert_eq!(again.read("data/x").unwrap(), b"2");
}

/// Counts in a transaction, as a frontend's driver does; every step must be answered once.
fn count(guest: &mut Guest, times: u64) {
    guest.write("data/count", b"0").unwrap();
    for _ in 0..times {
        guest
            .transaction(|guest, tx| {
                let value: u64 = String::from_utf8_lossy(&guest.read_in(tx, "data/count")?).parse().unwrap();
                guest.write_in(tx, "data/count", (value + 1).to_string().as_bytes())
            })
            .unwrap();
    }
    assert_eq!(guest.read("data/count").unwrap(), times.to_string().as_bytes());
}

#[test]
fn rings_are_taken_over_at_any_instant() {
    let stand = Stand::start(&[]);
    let killer = Killer::start(&stand, "leader", [130, 70, 210].map(Duration::from_millis).to_vec());
    let began = Instant::now();
    let mut rounds = 0;
    while began.elapsed() < Duration::from_secs(5) {
        // Domains come, work and go while leaders die, so takeovers meet INTRODUCE and death half way.
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let (domid, mut guest) = stand.guest();
                    count(&mut guest, 100);
                    stand.hypervisor().destroy(domid).unwrap();
                });
            }
        });
        rounds += 3;
    }
    let kills = killer.finish();
    assert!(kills.hits > 5 && stand.epoch() > 5, "{kills:?}");
    let mut client = stand.client();
    let left = |client: &mut tests::RawClient| {
        let listing = client.request(MessageType::DIRECTORY, 0, b"/local/domain\0").unwrap();
        String::from_utf8_lossy(&listing).trim_end_matches('\0').to_owned()
    };
    let began = Instant::now();
    // Homes are the test's own (dom0's) nodes given to the guests; with their owners they go.
    while !left(&mut client).is_empty() && began.elapsed() < WAIT {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(left(&mut client), "", "of {rounds} domains");
    stand.run_stock("xenstore-control", &["check"]);
    eprintln!("{rounds} guests, {kills:?}");
}

fn bystander(stand: &Stand, guest: &mut Guest, what: &str) {
    guest.write("data/bystander", what.as_bytes()).unwrap_or_else(|error| panic!("after {what}: {error}"));
    stand.client().write("/bystander", what).unwrap();
}

#[test]
fn every_type_over_a_ring_is_answered() {
    let stand = Stand::start(&[]);
    let (_, mut other) = stand.guest();
    let (_, mut guest) = stand.guest();
    for kind in (0..=30).chain([0xffff, u32::MAX]).map(MessageType) {
        for payload in [
            &b""[..],
            b"\0",
            b"x",
            b"/\0",
            b"//\0",
            b"@\0",
            b"data\0value",
            b"0\0",
            b"7\x001\x001\0",
            b"T",
            &[0xff; 900],
        ] {
            for tx in [0, 1, u32::MAX] {
                // An answer or the protocol's error: silence would be a time-out.
                if let Err(error) = guest.request(kind, Tx(tx), &[payload]) {
                    assert!(
                        matches!(error, sim_guest::Error::Store(_)),
                        "type {} {payload:?}: {error}",
                        kind.0
                    );
                }
            }
        }
        bystander(&stand, &mut other, &format!("type {}", kind.0));
    }
}

#[test]
fn a_lying_length_or_index_ends_the_ring_and_nothing_else() {
    let stand = Stand::start(&[]);
    let (_, mut other) = stand.guest();
    for len in [4097, 0x7fff_ffff, 0xffff_ffff] {
        let (_, mut guest) = stand.guest();
        guest.send_raw(&message(MessageType::READ, 1, 0, len, b"/\0")).unwrap();
        wait_for_error(&guest, 3);
        bystander(&stand, &mut other, &format!("len {len}"));
    }
    for (offset, value) in [
        (ring::REQ_PROD_OFFSET, 5000),
        (ring::REQ_PROD_OFFSET, u32::MAX),
        (ring::REQ_PROD_OFFSET, 0x8000_0000),
    ] {
        let (_, mut guest) = stand.guest();
        guest.page().store_u32(offset, value);
        guest.kick().unwrap();
        wait_for_error(&guest, 2);
        bystander(&stand, &mut other, &format!("index {value}"));
    }
}

#[test]
fn indices_that_are_ours_are_not_believed() {
    let stand = Stand::start(&[]);
    let (_, mut other) = stand.guest();
    let (_, mut guest) = stand.guest();
    for offset in [ring::REQ_CONS_OFFSET, ring::RSP_PROD_OFFSET] {
        guest.page().store_u32(offset, 777);
        guest.kick().unwrap();
        bystander(&stand, &mut other, &format!("offset {offset}"));
    }
    // Whoever spoilt its own page gets nonsense or nothing; after a new beginning it is served again.
    assert!(guest.reconnect(WAIT).unwrap());
    guest.write("data/x", b"1").unwrap();
}

#[test]
fn a_ring_of_random_bytes_harms_nobody() {
    let stand = Stand::start(&[]);
    let (_, mut other) = stand.guest();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..100 {
        let (domid, mut guest) = stand.guest();
        let bytes: Vec<u8> = (0..500)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                u8::try_from(seed >> 56).unwrap()
            })
            .collect();
        // The store may have given the ring up already.
        let _ = guest.send_raw(&bytes);
        bystander(&stand, &mut other, &format!("round {round}"));
        stand.hypervisor().destroy(domid).unwrap();
    }
}

fn wait_for_error(guest: &Guest, error: u32) {
    let began = Instant::now();
    while guest.page().load_u32(ring::ERROR_OFFSET) != error {
        assert!(began.elapsed() < WAIT, "the ring shows no error {error}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The effects of RELEASE were settled after the turn in which INTRODUCE mapped the new ring, and let that one go.
#[test]
fn release_and_introduce_in_one_turn_leave_the_new_ring() {
    let stand = Stand::start(&[]);
    let (domid, guest) = stand.guest();
    drop(guest);
    let port = stand.hypervisor().store_port(domid).unwrap();
    let (release, introduce) = (format!("{domid}\0"), format!("{domid}\x001\0{port}\0"));
    let length = |text: &str| u32::try_from(text.len()).unwrap();
    let both = [
        message(MessageType::RELEASE, 1, 0, length(&release), release.as_bytes()),
        message(MessageType::INTRODUCE, 2, 0, length(&introduce), introduce.as_bytes()),
    ];
    let mut client = stand.client();
    client.send_bytes(&both.concat()).unwrap();
    for kind in [MessageType::RELEASE, MessageType::INTRODUCE] {
        assert_eq!(client.answer().unwrap().kind, kind);
    }
    // Its nodes went with the RELEASE, so an error of the protocol is its answer; silence would be a time-out.
    let answer = stand.attach(domid).read("data/x");
    assert!(matches!(answer, Err(sim_guest::Error::Store(_))), "{answer:?}");
}

/// A successor took every ring for sound; the store swallowed the requests of one that it ignored, without an answer.
#[test]
fn a_ring_that_broke_the_protocol_stays_ignored_under_a_new_leader() {
    let stand = Stand::start(&[]);
    let (domid, guest) = stand.guest();
    let sound = guest.page().load_u32(ring::REQ_PROD_OFFSET);
    guest.page().store_u32(ring::REQ_PROD_OFFSET, sound.wrapping_add(5000));
    drop(guest);
    let mut guest = stand.attach(domid);
    guest.kick().unwrap();
    wait_for_error(&guest, 2);
    assert!(stand.ppvmm(&["inject", "kill", "leader"]).status.success());
    guest.page().store_u32(ring::REQ_PROD_OFFSET, sound);
    guest.set_reply_timeout(Duration::from_millis(300));
    assert!(guest.read("data").is_err(), "an ignored ring is not answered");
    drop(guest);
    stand.introduce(domid);
    stand.attach(domid).write("data/x", b"1").unwrap();
}

/// A guest that never stopped to notify kept the leader in one loop, away from everybody else.
#[test]
fn a_storm_of_events_starves_nobody() {
    let stand = Stand::start(&[]);
    let (_, mut storm) = stand.guest();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                storm.kick().unwrap();
            }
        });
        let mut client = stand.client();
        let began = Instant::now();
        for i in 0..500 {
            client.write("/storm", &i.to_string()).unwrap();
        }
        let took = began.elapsed();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(took < WAIT, "500 writes took {took:?}");
    });
}

#[test]
fn quotas_refuse_and_soft_quotas_warn() {
    let stand = Stand::start(&["-q", "memory=2000", "-E", "20"]);
    let (_, mut guest) = stand.guest();
    let refused = (0..40).map(|i| guest.write(&format!("data/{i}"), &[b'v'; 100])).find_map(Result::err);
    assert!(refused.is_some_and(|error| error.is(xs_protocol::XsError::ENOSPC)));
    let began = Instant::now();
    while !(stand.logs().contains("soft quota") && stand.logs().contains("quota reached")) {
        assert!(began.elapsed() < WAIT, "no line of the quotas in the log");
        std::thread::sleep(Duration::from_millis(20));
    }
}
