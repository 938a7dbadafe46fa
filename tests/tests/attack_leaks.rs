//! Attack class F: what a guest may not read, it learns nothing of.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::Duration;

use hypervisor::DomId;
use hypervisor::local::NewDomain;
use sim_guest::{Guest, Tx};
use tests::{RawClient, Stand};
use xs_protocol::{MessageType as T, XsError};

/// Long enough for an event that should not come.
const SILENCE: Duration = Duration::from_millis(100);

fn errors(guest: &mut Guest, path: &str) -> Vec<XsError> {
    let terminated = format!("{path}\0");
    let requests: [(T, String); 7] = [
        (T::READ, terminated.clone()),
        (T::DIRECTORY, terminated.clone()),
        (T::GET_PERMS, terminated.clone()),
        (T::DIRECTORY_PART, format!("{terminated}0\0")),
        (T::WRITE, format!("{terminated}v")),
        (T::MKDIR, terminated.clone()),
        (T::RM, terminated),
    ];
    requests
        .into_iter()
        .map(|(kind, payload)| match guest.request(kind, Tx::NONE, &[payload.as_bytes()]) {
            Err(sim_guest::Error::Store(error)) => error,
            other => panic!("{kind:?} {path}: {other:?}"),
        })
        .collect()
}

fn secrets(stand: &Stand) -> RawClient {
    let mut client = stand.client();
    for path in ["/secret/known", "/secret/known/below", "/secret/other"] {
        client.write(path, "hidden").unwrap();
    }
    client
}

/// Whether a node exists below what a guest cannot read, no error tells, in or out of transactions.
#[test]
fn missing_and_forbidden_are_the_same() {
    let stand = Stand::start(&[]);
    let (_, mut guest) = stand.guest();
    let _client = secrets(&stand);
    let there = errors(&mut guest, "/secret/known/below");
    assert_eq!(there, errors(&mut guest, "/secret/missing/below"));
    assert_eq!(there, errors(&mut guest, "/nowhere"));
    assert!(there.iter().all(|error| *error == XsError::EACCES), "{there:?}");
    let (first, second) = (stand.guest().0, DomId(30_000));
    let of = |domid: DomId| format!("/local/domain/{domid}/data");
    assert_eq!(errors(&mut guest, &of(first)), errors(&mut guest, &of(second)), "which domains there are");
    let tx = guest.transaction_start().unwrap();
    for path in ["/secret/known", "/secret/missing"] {
        assert!(guest.read_in(tx, path).is_err_and(|error| error.is(XsError::EACCES)), "{path}");
    }
}

/// Watches on and above forbidden nodes are silent: at changes, at removal, at changes of permissions between others.
#[test]
fn events_of_unreadable_nodes_do_not_come() {
    let stand = Stand::start(&[]);
    let (domid, mut guest) = stand.guest();
    let (other, _guest) = stand.guest();
    for path in ["/", "/secret", "/secret/known", "/secret/new"] {
        guest.watch(path, "t").unwrap();
        assert!(guest.next_event(Duration::from_secs(5)).unwrap().is_some(), "the first event always comes");
    }
    let mut client = secrets(&stand);
    client.write("/secret/new", "").unwrap();
    client.request(T::SET_PERMS, 0, format!("/secret/new\0n0\0r{other}\0").as_bytes()).unwrap();
    client.request(T::RM, 0, b"/secret/known\0").unwrap();
    assert_eq!(guest.next_event(SILENCE).unwrap(), None);
    // The taking away of a right is told, for the guest could read the node until then; what follows is not.
    client.request(T::SET_PERMS, 0, format!("/secret/new\0n0\0r{domid}\0").as_bytes()).unwrap();
    client.request(T::SET_PERMS, 0, b"/secret/new\0n0\0").unwrap();
    client.write("/secret/new", "again").unwrap();
    client.request(T::RM, 0, b"/secret\0").unwrap();
    let mut told = Vec::new();
    while let Some(event) = guest.next_event(SILENCE).unwrap() {
        told.push(event.path);
    }
    // Two changes of permissions, for three watches: `/`, `/secret` and the node itself.
    assert_eq!(told, vec!["/secret/new"; 6]);
}

/// The next domain with an id gets neither rights, nor watches, nor events, nor transactions of the one before.
#[test]
fn a_domid_used_again_inherits_nothing() {
    let stand = Stand::start(&[]);
    let (domid, mut guest) = stand.guest();
    let mut client = secrets(&stand);
    client.request(T::SET_PERMS, 0, format!("/secret/other\0n0\0b{domid}\0").as_bytes()).unwrap();
    guest.watch("/secret/other", "old").unwrap();
    guest.write("data/private", b"old").unwrap();
    let tx = guest.transaction_start().unwrap();
    drop(guest);
    client.write("/secret/other", "event that waits").unwrap();
    client.request(T::RELEASE, 0, format!("{domid}\0").as_bytes()).unwrap();
    stand.introduce(domid);
    let mut guest = stand.attach(domid);
    client.write("/secret/other", "of a former life").unwrap();
    assert_eq!(guest.next_event(SILENCE).unwrap(), None);
    assert!(guest.read("/secret/other").is_err_and(|error| error.is(XsError::EACCES)));
    assert!(guest.read("data/private").is_err_and(|error| error.is(XsError::EACCES)));
    assert!(guest.request(T::TRANSACTION_END, tx, &[b"T\0"]).is_err_and(|error| error.is(XsError::ENOENT)));
    stand.check();
}

/// Whoever gets a number next is not whom permissions meant that named it when there was no domain of that number.
#[test]
fn a_domain_that_was_named_before_it_was_made_has_no_rights() {
    let stand = Stand::start(&[]);
    let mut client = secrets(&stand);
    let mut set = |perms: &str| {
        client.request(T::SET_PERMS, 0, format!("/secret/known\0{perms}\0").as_bytes()).map(drop)
    };
    assert!(set("n5").is_err(), "nobody would own it");
    set("n0\0b5").unwrap();
    assert!(stand.ppvmm(&["inject", "kill", "leader"]).status.success());
    create(&stand, DomId(5));
    stand.introduce(DomId(5));
    let mut guest = stand.attach(DomId(5));
    assert!(guest.read("/secret/known").is_err_and(|error| error.is(XsError::EACCES)));
    assert!(guest.write("/secret/known", b"").is_err_and(|error| error.is(XsError::EACCES)));
    set("n0\0r5").unwrap();
    assert_eq!(guest.read("/secret/known").unwrap(), b"hidden", "now it is meant");
    stand.check();
}

/// The toolstack names a domain before it introduces it, and then it dies: the next one of its number, made at once, is
/// not meant. The one that lives is.
#[test]
fn rights_given_before_the_introduction_are_for_one_domain() {
    let stand = Stand::start(&[]);
    let mut client = secrets(&stand);
    for (domid, dies) in [(DomId(6), true), (DomId(7), false)] {
        create(&stand, domid);
        let home = format!("/local/domain/{domid}");
        client.write(&home, "").unwrap();
        client.request(T::SET_PERMS, 0, format!("{home}\0n{domid}\0").as_bytes()).unwrap();
        client.request(T::SET_PERMS, 0, format!("/secret/known\0n0\0r{domid}\0").as_bytes()).unwrap();
        if dies {
            stand.hypervisor().destroy(domid).unwrap();
            create(&stand, domid);
        }
        stand.introduce(domid);
        let mut guest = stand.attach(domid);
        assert_eq!(guest.read("/secret/known").is_ok(), !dies, "domain {domid}");
        assert_eq!(guest.write(&home, b"").is_ok(), !dies, "domain {domid}");
        stand.check();
    }
}

fn create(stand: &Stand, domid: DomId) {
    stand.hypervisor().create_domain(NewDomain { domid: Some(domid), handle: None }).unwrap();
}

/// Guests may know that some domain ended, not that one began; and dom0 decides on the first.
#[test]
fn special_events_go_to_whom_they_may() {
    let stand = Stand::start(&[]);
    let (_, mut guest) = stand.guest();
    for path in ["@introduceDomain", "@releaseDomain"] {
        guest.watch(path, "t").unwrap();
        assert!(guest.next_event(Duration::from_secs(5)).unwrap().is_some());
    }
    let (domid, other) = stand.guest();
    assert_eq!(guest.next_event(SILENCE).unwrap(), None, "an introduction is dom0's affair");
    drop(other);
    stand.hypervisor().destroy(domid).unwrap();
    let event = guest.next_event(Duration::from_secs(5)).unwrap().unwrap();
    assert_eq!(event.path, "@releaseDomain", "and not which domain");
    stand.client().request(T::SET_PERMS, 0, b"@releaseDomain\0n0\0").unwrap();
    // The change itself is told to those who could see the node before.
    while guest.next_event(SILENCE).unwrap().is_some() {}
    let (domid, _other) = stand.guest();
    stand.hypervisor().destroy(domid).unwrap();
    assert_eq!(guest.next_event(SILENCE).unwrap(), None);
}
