//! Attack class B: ways around the quotas.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::{Duration, Instant};

use hypervisor::DomId;
use sim_guest::{Error, Guest};
use tests::Stand;
use xs_protocol::{MessageType as T, XsError};

const NODES: u64 = 50;

fn stand() -> Stand {
    Stand::start(&["--entry-nb", "50"])
}

fn refused<R: std::fmt::Debug>(result: &Result<R, Error>) {
    assert!(result.as_ref().is_err_and(|error| error.is(XsError::ENOSPC)), "{result:?}");
}

/// Creates nodes until it is refused; gives how many.
fn create(guest: &mut Guest, below: &str) -> u64 {
    (0..1000).take_while(|number| guest.write(&format!("{below}/{number}"), b"").is_ok()).count() as u64
}

fn wait_until(what: &str, so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < Duration::from_secs(10), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn transactions_together_stay_below_the_quota() {
    let stand = stand();
    let (domid, mut guest) = stand.guest();
    guest.mkdir("data").unwrap();
    // Each fits alone.
    let transactions: Vec<_> = (0..3).map(|_| guest.transaction_start().unwrap()).collect();
    for (number, tx) in transactions.iter().enumerate() {
        for node in 0..20 {
            guest.write_in(*tx, &format!("data/{number}-{node}"), b"").unwrap();
        }
    }
    let ended: Vec<bool> = transactions.iter().map(|tx| guest.transaction_end(*tx, true).is_ok()).collect();
    assert_eq!(ended, [true, true, false], "the third one would be over");
    assert!(stand.usage(domid, "nodes") <= NODES);
    let tx = guest.transaction_start().unwrap();
    let failed = (0..100).find_map(|node| guest.write_in(tx, &format!("data/x{node}"), b"").err());
    assert!(failed.unwrap().is(XsError::ENOSPC));
    assert!(guest.transaction_end(tx, true).is_err(), "a transaction that hit the quota is not committed");
    stand.check();
}

#[test]
fn a_second_guest_pays_for_itself_and_nobody_gives_nodes_away() {
    let stand = stand();
    let (first, mut guest) = stand.guest();
    let (second, mut other) = stand.guest();
    guest.mkdir("shared").unwrap();
    let perms = format!("n{first}\0b{second}\0");
    guest.request(T::SET_PERMS, sim_guest::Tx::NONE, &[b"shared\0", perms.as_bytes()]).unwrap();
    let theirs = create(&mut other, &format!("/local/domain/{first}/shared"));
    assert!(theirs < NODES && stand.usage(second, "nodes") <= NODES);
    // The second guest's nodes do not count for the first, and it may not hand its own over to it.
    assert!(create(&mut guest, "data") > NODES - 10);
    let give = format!("n{second}\0");
    let given = guest.request(T::SET_PERMS, sim_guest::Tx::NONE, &[b"data/0\0", give.as_bytes()]);
    assert!(given.is_err_and(|error| error.is(XsError::EPERM)));
    refused(&guest.write("one-more", b""));
    stand.check();
}

/// XSA-419: what a guest made in another one's directory goes with it, and frees nothing of the other's.
#[test]
fn shutdown_and_death_free_what_was_charged_and_no_more() {
    let stand = stand();
    let (first, mut guest) = stand.guest();
    for _ in 0..3 {
        let (second, mut other) = stand.guest();
        guest.mkdir("shared").unwrap();
        let perms = format!("n{first}\0b{second}\0");
        guest.request(T::SET_PERMS, sim_guest::Tx::NONE, &[b"shared\0", perms.as_bytes()]).unwrap();
        create(&mut other, &format!("/local/domain/{first}/shared"));
        stand.hypervisor().shutdown(second, 0).unwrap();
        assert!(
            !guest.directory("shared").unwrap().is_empty(),
            "a domain that shut down still owns its nodes"
        );
        stand.hypervisor().destroy(second).unwrap();
        wait_until("the dead domain's nodes to go", || {
            let path = format!("/local/domain/{first}/shared\0");
            stand.client().request(T::DIRECTORY, 0, path.as_bytes()).unwrap().is_empty()
        });
        stand.check();
    }
    let before = stand.usage(first, "nodes");
    let more = create(&mut guest, "data");
    // `data` itself is one of them.
    assert_eq!(stand.usage(first, "nodes"), NODES);
    assert_eq!(before + more + 1, NODES);
}

/// XSA-483 and its opposite: a domain id that is used again begins with nothing, owed or owned.
#[test]
fn a_domid_used_again_begins_anew() {
    let stand = stand();
    let (domid, mut guest) = stand.guest();
    for _ in 0..4 {
        let made = create(&mut guest, "data");
        assert!(made > NODES - 10, "{made}: the one before still counts");
        drop(guest);
        let payload = format!("{domid}\0");
        stand.client().request(T::RELEASE, 0, payload.as_bytes()).unwrap();
        stand.check();
        home(&stand, domid);
        stand.introduce(domid);
        guest = stand.attach(domid);
        assert!(guest.read("data/0").is_err_and(|error| error.is(XsError::ENOENT)));
        assert!(stand.usage(domid, "nodes") <= 2);
    }
}

fn home(stand: &Stand, domid: DomId) {
    let mut client = stand.client();
    client.write(&format!("/local/domain/{domid}"), "").unwrap();
    let perms = format!("/local/domain/{domid}\0n{domid}\0");
    client.request(T::SET_PERMS, 0, perms.as_bytes()).unwrap();
}

#[test]
fn children_of_dom0s_nodes_count_for_whom_made_them() {
    let stand = stand();
    let (domid, mut guest) = stand.guest();
    let mut client = stand.client();
    client.write("/open", "").unwrap();
    client.request(T::SET_PERMS, 0, format!("/open\0n0\0b{domid}\0").as_bytes()).unwrap();
    let before = stand.usage(domid, "nodes");
    let made = create(&mut guest, "/open");
    assert_eq!(before + made, NODES);
    refused(&guest.write("data/x", b""));
    // What dom0 makes in a guest's directory is the guest's, and no way out of its quota.
    client.write(&format!("/local/domain/{domid}/by-dom0"), "").unwrap();
    assert_eq!(stand.usage(domid, "nodes"), NODES + 1);
    client.request(T::RM, 0, b"/open\0").unwrap();
    assert_eq!(stand.usage(domid, "nodes"), before + 1);
    stand.check();
}
