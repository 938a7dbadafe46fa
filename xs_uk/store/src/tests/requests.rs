//! Node requests of privileged clients.

use super::*;
use crate::EntryRef;
use XsError::*;

#[test]
fn initial_nodes() {
    let mut rig = Rig::new();
    assert_eq!(rig.req(TOOLS, T::DIRECTORY, "/\0"), strings(&["tool"]));
    assert_eq!(rig.req(TOOLS, T::DIRECTORY, "/tool\0"), strings(&["xenstored"]));
    assert_eq!(rig.req(TOOLS, T::GET_PERMS, "/\0"), strings(&["n0"]));
    assert_eq!(rig.req(TOOLS, T::GET_PERMS, "@releaseDomain\0"), strings(&["n0", "r32757"]));
    assert_eq!(rig.req(TOOLS, T::GET_PERMS, "@introduceDomain\0"), strings(&["n0"]));
    assert_eq!(rig.store.usage(DomId(0)).nodes, 5);
}

#[test]
fn write_and_read() {
    let mut rig = Rig::new();
    assert_eq!(rig.write(TOOLS, "/a/b", "v"), ok());
    assert_eq!(rig.read(TOOLS, "/a/b"), text("v"));
    assert_eq!(rig.read(TOOLS, "/a"), text(""));
    assert_eq!(rig.write(TOOLS, "/a/b", "x\0y\0"), ok(), "a value may have nuls");
    assert_eq!(rig.read(TOOLS, "/a/b"), text("x\0y\0"));
    assert_eq!(rig.write(TOOLS, "/", "root"), ok());
    assert_eq!(rig.read(TOOLS, "/"), text("root"));
    assert_eq!(rig.read(TOOLS, "/none"), Err(ENOENT));
    assert_eq!(rig.write(TOOLS, "rel", "r"), ok());
    assert_eq!(rig.read(TOOLS, "/local/domain/0/rel"), text("r"));
}

#[test]
fn malformed_paths_and_payloads() {
    let mut rig = Rig::new();
    for kind in [T::READ, T::DIRECTORY, T::MKDIR, T::RM, T::GET_PERMS] {
        for bad in ["", "/a", "/a\0\0", "/a\0b\0", "//\0", "/a/\0", "\0", "/a b\0"] {
            assert_eq!(rig.req(TOOLS, kind, bad), Err(EINVAL), "{} {bad:?}", kind.name());
        }
    }
    for bad in ["", "/a", "//\0v", "@x\0v"] {
        assert_eq!(rig.req(TOOLS, T::WRITE, bad), Err(EINVAL));
    }
    for kind in [T::READ, T::DIRECTORY, T::MKDIR, T::RM] {
        assert_eq!(rig.req(TOOLS, kind, "@releaseDomain\0"), Err(EINVAL));
    }
    let long = format!("/{}\0", "a".repeat(3072));
    assert_eq!(rig.req(TOOLS, T::READ, long), Err(EINVAL));
}

#[test]
fn mkdir_keeps_what_is_there() {
    let mut rig = Rig::new();
    assert_eq!(rig.req(TOOLS, T::MKDIR, "/d/e\0"), ok());
    rig.write(TOOLS, "/d/e", "v").unwrap();
    assert_eq!(rig.req(TOOLS, T::MKDIR, "/d/e\0"), ok());
    assert_eq!(rig.read(TOOLS, "/d/e"), text("v"));
}

#[test]
fn rm() {
    let mut rig = Rig::new();
    rig.write(TOOLS, "/a/b/c", "").unwrap();
    rig.write(TOOLS, "/a/d", "").unwrap();
    assert_eq!(rig.rm(TOOLS, "/a/b"), ok());
    assert_eq!(rig.read(TOOLS, "/a/b/c"), Err(ENOENT));
    assert_eq!(rig.rm(TOOLS, "/a/b"), ok(), "it is gone already, and its parent is there");
    assert_eq!(rig.rm(TOOLS, "/x/y"), Err(ENOENT));
    assert_eq!(rig.rm(TOOLS, "/"), Err(EINVAL));
    assert_eq!(rig.req(TOOLS, T::DIRECTORY, "/a\0"), strings(&["d"]));
    assert_eq!(rig.store.usage(DomId(0)).nodes, 7);
}

#[test]
fn directories_are_in_order_of_creation() {
    let mut rig = Rig::new();
    for name in ["z", "a", "m"] {
        rig.write(TOOLS, &format!("/d/{name}"), "").unwrap();
    }
    rig.rm(TOOLS, "/d/z").unwrap();
    rig.write(TOOLS, "/d/z", "").unwrap();
    assert_eq!(rig.req(TOOLS, T::DIRECTORY, "/d\0"), strings(&["a", "m", "z"]));
}

#[test]
fn a_long_directory_is_read_in_parts() {
    let mut rig = Rig::new();
    rig.audit = false;
    let names: Vec<String> = (0..2000).map(|number| format!("child-{number}")).collect();
    for name in &names {
        rig.write(TOOLS, &format!("/d/{name}"), "").unwrap();
    }
    assert_eq!(rig.req(TOOLS, T::DIRECTORY, "/d\0"), Err(E2BIG));
    let mut listing = Vec::new();
    let mut generations = Vec::new();
    loop {
        let part = rig.req(TOOLS, T::DIRECTORY_PART, format!("/d\0{}\0", listing.len())).unwrap();
        assert!(part.len() <= 4096);
        let end = part.iter().position(|byte| *byte == 0).unwrap();
        generations.push(part[..end].to_vec());
        listing.extend_from_slice(&part[end + 1..]);
        if listing.ends_with(b"\0\0") {
            break;
        }
    }
    listing.pop();
    assert_eq!(Ok(listing), strings(&names.iter().map(String::as_str).collect::<Vec<_>>()));
    generations.dedup();
    assert_eq!(generations.len(), 1);
    rig.write(TOOLS, "/d/new", "").unwrap();
    let part = rig.req(TOOLS, T::DIRECTORY_PART, "/d\x000\0").unwrap();
    assert!(!part.starts_with(&generations[0]), "the generation tells of the change");
    for (offset, kind) in [("99999999", Ok(())), ("-1", Ok(()))] {
        let part = rig.req(TOOLS, T::DIRECTORY_PART, format!("/d\0{offset}\0"));
        assert_eq!(part.map(|part| assert!(part.ends_with(b"\0\0"))), kind);
    }
    assert_eq!(rig.req(TOOLS, T::DIRECTORY_PART, "/d\0"), Err(EINVAL));
    assert_eq!(rig.req(TOOLS, T::DIRECTORY_PART, "/tool/xenstored\x000\0").unwrap(), b"0\0\0");
}

#[test]
fn long_replies_are_refused() {
    let mut rig = Rig::new();
    let value = "v".repeat(4096 - 3);
    assert_eq!(rig.write(TOOLS, "/v", &value), ok());
    assert_eq!(rig.read(TOOLS, "/v"), text(&value));
}

#[test]
fn unknown_types_and_transactions() {
    let mut rig = Rig::new();
    for kind in [15, 16, 20, 27, 0xffff, u32::MAX] {
        assert_eq!(rig.req(TOOLS, MessageType(kind), "/\0"), Err(ENOSYS));
        assert_eq!(rig.log_request(TOOLS, MessageType(kind), 0, b"/\0"), Err(ENOSYS));
    }
    for kind in (0..27).map(MessageType).filter(|kind| !matches!(kind.0, 4 | 5 | 15 | 16 | 20)) {
        assert_eq!(rig.tx(TOOLS, kind, 5, "/\0"), Err(ENOENT), "{}", kind.name());
    }
    assert_eq!(rig.tx(TOOLS, T::WATCH, 5, "/x\0t\0"), ok());
    assert_eq!(rig.tx(TOOLS, T::UNWATCH, 5, "/x\0t\0"), ok());
}

#[test]
fn a_request_is_applied_once() {
    let mut rig = Rig::new();
    let entry = |seq, value: &str| {
        let payload = format!("/a\0{value}").into_bytes();
        let header = Rig::header(T::WRITE, 0, &payload);
        Entry::Request { conn: TOOLS, seq, header, payload, verdict: None, ring_conn: None }
    };
    rig.apply(entry(5, "one"));
    rig.apply(entry(5, "two"));
    rig.apply(entry(4, "three"));
    assert_eq!(rig.read(TOOLS, "/a"), text("one"));
    assert_eq!((rig.store.last_seq(TOOLS), rig.store.last_ordinal(TOOLS)), (5, 1));
    rig.apply(entry(6, "four"));
    assert_eq!(rig.read(TOOLS, "/a"), text("four"));
}

#[test]
fn requests_of_unknown_connections_do_nothing() {
    let mut rig = Rig::new();
    let header = Rig::header(T::WRITE, 0, b"/a\0v");
    let payload = b"/a\0v".to_vec();
    rig.apply(Entry::Request { conn: ConnId(9), seq: 1, header, payload, verdict: None, ring_conn: None });
    assert_eq!(rig.read(TOOLS, "/a"), Err(ENOENT));
    assert_eq!(rig.read(ConnId(9), "/"), Err(EIO));
    rig.apply(Entry::Disconnect { conn: ConnId(9) });
    rig.apply(Entry::Reset { conn: ConnId(9) });
    rig.apply(Entry::DiscardEvents { conn: ConnId(9), up_to: 9 });
}

#[test]
fn deep_paths() {
    let mut rig = Rig::new();
    rig.audit = false;
    let deep = "/a".repeat(1536);
    assert_eq!(rig.write(TOOLS, &deep, "v"), ok());
    assert_eq!(rig.read(TOOLS, &deep), text("v"));
    assert_eq!(rig.watch(TOOLS, &deep, "t"), ok());
    rig.events(TOOLS);
    assert_eq!(rig.rm(TOOLS, "/a"), ok());
    assert_eq!(rig.events(TOOLS), [format!("{deep} t")]);
    assert_eq!(rig.store.usage(DomId(0)).nodes, 5);
}

/// A client was answered EIO while the outcome of its request was not known, a later request of it was logged, and the
/// leader died before it queued that one's reply: the successor finds both replies. Found by the simulation.
#[test]
fn a_successor_drops_replies_to_refused_requests() {
    let replies = |refused: u64, logged: u64| {
        let mut store = Store::new(Config::default());
        store.apply(1, EntryRef::Connect { conn: TOOLS, peer: Peer::Socket }, &mut Vec::new());
        for seq in 1..=logged {
            let (header, conn) = (Rig::header(T::MKDIR, 0, b"/a\0"), TOOLS);
            let entry =
                EntryRef::Request { conn, seq, header, payload: b"/a\0", verdict: None, ring_conn: None };
            store.apply(seq + 1, entry, &mut Vec::new());
        }
        store.discard_refused(TOOLS, refused);
        store.outbox(TOOLS).map(|(ordinal, _, _)| ordinal).collect::<Vec<_>>()
    };
    assert_eq!(replies(0, 1), [1]);
    assert_eq!(replies(1, 1), []);
    assert_eq!(replies(1, 2), [2]);
    assert_eq!(replies(2, 2), []);
    assert_eq!(replies(2, 3), [3]);
}
