//! Snapshots and digests.

use super::*;
use crate::StoreError;

/// A store with something of everything.
fn rich() -> Rig {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    rig.guest_with_home(4);
    rig.req(TOOLS, T::SET_TARGET, "3\x004\0").unwrap();
    rig.req(TOOLS, T::SET_QUOTA, "3\0nodes\x0050\0").unwrap();
    rig.req(TOOLS, T::CONTROL, "log\0+io\0").unwrap();
    rig.watch(guest, "data", "rel").unwrap();
    rig.watch(TOOLS, "/", "all").unwrap();
    rig.req(TOOLS, T::WATCH, "@releaseDomain\0d\x001\0").unwrap();
    for number in 0..40 {
        rig.write(guest, &format!("data/{}", number * 7 % 40), "v").unwrap();
    }
    rig.perms(TOOLS, "/tool", "n0,r3,r32757").unwrap();
    let t = rig.start(guest);
    rig.tx(guest, T::READ, t, "data/7\0").unwrap();
    rig.tx(guest, T::RM, t, "data\0").unwrap();
    rig.tx(guest, T::WRITE, t, "new\0w").unwrap();
    rig
}

#[test]
fn a_restored_store_behaves_the_same() {
    let mut rig = rich();
    let (index, mut copy) = Store::from_snapshot(&rig.store.snapshot(rig.index).unwrap()).unwrap();
    assert_eq!((index, copy.digest()), (rig.index, rig.store.digest()));
    assert_eq!(copy.check(), Vec::<String>::new());
    let header = Rig::header(T::TRANSACTION_END, 1, b"T\0");
    let guest = rig.store.domain(DomId(3)).unwrap().conn.unwrap();
    let commit = Entry::Request {
        conn: guest,
        seq: 10_000,
        header,
        payload: b"T\0".to_vec(),
        verdict: None,
        ring_conn: None,
    };
    let (mut one, mut two) = (Vec::new(), Vec::new());
    rig.store.apply(index + 1, commit.as_ref(), &mut one);
    copy.apply(index + 1, commit.as_ref(), &mut two);
    assert_eq!(one, two);
    for conn in [TOOLS, guest] {
        assert!(rig.store.outbox(conn).eq(copy.outbox(conn)));
        assert!(rig.store.outbox(conn).count() > 0);
    }
    assert_eq!(rig.store.digest(), copy.digest());
}

#[test]
fn undelivered_messages_are_saved() {
    let mut rig = rich();
    let header = Rig::header(T::WRITE, 0, b"/x\0v");
    let payload = b"/x\0v".to_vec();
    let entry = Entry::Request { conn: TOOLS, seq: 9999, header, payload, verdict: None, ring_conn: None };
    rig.store.apply(rig.index + 1, entry.as_ref(), &mut rig.effects);
    let (_, mut copy) = Store::from_snapshot(&rig.store.snapshot(rig.index + 1).unwrap()).unwrap();
    let kinds: Vec<Kind> = copy.outbox(TOOLS).map(|(_, kind, _)| kind).collect();
    assert_eq!(kinds, [Kind::Event, Kind::Reply]);
    assert!(copy.outbox(TOOLS).eq(rig.store.outbox(TOOLS)));
    let before = copy.digest();
    copy.trim(TOOLS, u64::MAX);
    assert_eq!(copy.outbox(TOOLS).count(), 0);
    assert_eq!(copy.digest(), before, "delivery is no part of the state");
    assert_eq!(copy.last_seq(TOOLS), 9999);
}

#[test]
fn digests_differ_when_states_differ() {
    let mut rig = Rig::new();
    let mut seen = vec![rig.store.digest()];
    for step in [("/a", "v"), ("/a", "w"), ("/a", "v")] {
        rig.write(TOOLS, step.0, step.1).unwrap();
        seen.push(rig.store.digest());
    }
    rig.watch(TOOLS, "/", "t").unwrap();
    seen.push(rig.store.digest());
    rig.start(TOOLS);
    seen.push(rig.store.digest());
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), count);
}

#[test]
fn foreign_bytes_are_refused() {
    assert!(matches!(Store::from_snapshot(b""), Err(StoreError::UnknownSnapshot { version: 0 })));
    assert!(matches!(Store::from_snapshot(&[8, 2]), Err(StoreError::UnknownSnapshot { version: 2 })));
    assert!(matches!(Store::from_snapshot(&[8, 1]), Err(StoreError::InconsistentSnapshot { .. })));
    assert!(matches!(Store::from_snapshot(&[0xff]), Err(StoreError::Snapshot(_))));
}

#[test]
fn open_transactions_share_the_tree_in_snapshots() {
    let mut rig = Rig::new();
    rig.audit = false;
    for number in 0..1000 {
        rig.write(TOOLS, &format!("/d/{number}"), &"v".repeat(100)).unwrap();
    }
    let before = rig.store.snapshot(0).unwrap().len();
    for _ in 0..10 {
        rig.start(TOOLS);
    }
    rig.write(TOOLS, "/x", "").unwrap();
    assert!(rig.store.snapshot(0).unwrap().len() < before + 2000);
}
