//! Watches.

use super::*;
use XsError::*;

#[test]
fn a_watch_fires_at_once_after_its_reply() {
    let mut rig = Rig::new();
    assert_eq!(rig.watch(TOOLS, "/none", "t"), ok());
    assert_eq!(rig.events(TOOLS), ["/none t"]);
    let entry = |seq, kind, payload: &str| {
        let payload = payload.as_bytes().to_vec();
        let header = Rig::header(kind, 0, &payload);
        Entry::Request { conn: TOOLS, seq, header, payload, verdict: None, ring_conn: None }
    };
    rig.inbox.clear();
    rig.apply(entry(100, T::WATCH, "/w\0u\0"));
    rig.apply(entry(101, T::WRITE, "/w\0v"));
    let kinds: Vec<Kind> = rig.inbox.iter().map(|(_, kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::Reply, Kind::Event, Kind::Event, Kind::Reply]);
}

#[test]
fn what_matches() {
    let mut rig = Rig::new();
    rig.watch(TOOLS, "/a", "t").unwrap();
    rig.events(TOOLS);
    rig.write(TOOLS, "/a/b/c", "").unwrap();
    rig.req(TOOLS, T::MKDIR, "/a/b/c\0").unwrap();
    rig.write(TOOLS, "/ab", "").unwrap();
    rig.perms(TOOLS, "/a/b", "r0").unwrap();
    rig.rm(TOOLS, "/a/b").unwrap();
    rig.rm(TOOLS, "/a/b").unwrap();
    assert_eq!(rig.events(TOOLS), ["/a/b/c t", "/a/b t", "/a/b t"]);
    assert_eq!(rig.req(TOOLS, T::UNWATCH, "/a\0t\0"), ok());
    rig.write(TOOLS, "/a", "").unwrap();
    assert!(rig.events(TOOLS).is_empty());
}

#[test]
fn malformed_and_double_watches() {
    let mut rig = Rig::new();
    for bad in ["", "/a\0", "/a\0t", "//\0t\0", "\0t\0", "/a\0t\0-1\0", "/a\0t\x001\x002\0"] {
        assert_eq!(rig.req(TOOLS, T::WATCH, bad), Err(EINVAL), "{bad:?}");
    }
    assert_eq!(rig.watch(TOOLS, "/a", "t"), ok());
    assert_eq!(rig.watch(TOOLS, "/a", "t"), Err(EEXIST));
    assert_eq!(rig.watch(TOOLS, "/a", "u"), ok());
    assert_eq!(rig.watch(TOOLS, "/a", ""), ok());
    assert_eq!(rig.req(TOOLS, T::UNWATCH, "/a\0none\0"), Err(ENOENT));
    assert_eq!(rig.req(TOOLS, T::UNWATCH, "/b\0t\0"), Err(ENOENT));
    assert_eq!(rig.req(TOOLS, T::UNWATCH, "/a\0"), Err(EINVAL));
    assert_eq!(rig.req(TOOLS, T::UNWATCH, "/a\0t\0x\0"), Err(EINVAL));
}

#[test]
fn depth_and_its_feature() {
    let mut rig = Rig::new();
    assert_eq!(rig.req(TOOLS, T::WATCH, "/a\0t\x001\0"), ok());
    rig.events(TOOLS);
    for path in ["/a", "/a/b", "/a/b/c"] {
        rig.write(TOOLS, path, "").unwrap();
    }
    assert_eq!(rig.events(TOOLS), ["/a t", "/a/b t"]);
    rig.req(TOOLS, T::SET_FEATURE, "3\x000\0").unwrap();
    let guest = rig.guest_with_home(3);
    assert_eq!(rig.req(guest, T::WATCH, "x\0t\x001\0"), Err(EINVAL));
}

#[test]
fn relative_watches_get_relative_events() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    rig.watch(guest, "data", "rel").unwrap();
    rig.watch(guest, "/local/domain/3/data", "abs").unwrap();
    assert_eq!(rig.events(guest), ["data rel", "/local/domain/3/data abs"]);
    rig.write(TOOLS, "/local/domain/3/data/x", "").unwrap();
    assert_eq!(rig.events(guest), ["data/x rel", "/local/domain/3/data/x abs"]);
    rig.rm(TOOLS, "/local/domain/3").unwrap();
    assert_eq!(rig.events(guest), ["data rel", "/local/domain/3/data abs"]);
    assert_eq!(rig.req(guest, T::UNWATCH, "/local/domain/3/data\0rel\0"), ok(), "both forms name it");
}

#[test]
fn removal_above_reports_the_watched_paths() {
    let mut rig = Rig::new();
    for path in ["/a/x/1", "/a/x/2", "/a/b"] {
        rig.write(TOOLS, path, "").unwrap();
    }
    for (path, token) in [("/a/b", "b"), ("/a/x/2", "2"), ("/a", "a"), ("/a/x", "x"), ("/a/no", "no")] {
        rig.watch(TOOLS, path, token).unwrap();
    }
    rig.events(TOOLS);
    rig.rm(TOOLS, "/a").unwrap();
    assert_eq!(rig.events(TOOLS), ["/a/x/2 2", "/a/x x", "/a/b b", "/a a"]);
}

#[test]
fn events_are_for_those_who_may_read() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    rig.watch(guest, "/secret", "t").unwrap();
    assert_eq!(rig.events(guest), ["/secret t"], "the first event tells nothing");
    rig.write(TOOLS, "/secret/x", "").unwrap();
    rig.rm(TOOLS, "/secret").unwrap();
    assert!(rig.events(guest).is_empty());
    rig.write(TOOLS, "/secret", "").unwrap();
    rig.perms(TOOLS, "/secret", "n0,r3").unwrap();
    rig.perms(TOOLS, "/secret", "n0").unwrap();
    assert_eq!(rig.events(guest), ["/secret t", "/secret t"], "gaining and losing access");
    rig.perms(TOOLS, "/secret", "n0,r3").unwrap();
    rig.write(TOOLS, "/secret/x", "").unwrap();
    rig.perms(TOOLS, "/secret/x", "n0").unwrap();
    rig.events(guest);
    rig.write(TOOLS, "/secret/x", "v").unwrap();
    assert_eq!(rig.events(guest), ["/secret/x t"], "the parent is readable");
}

#[test]
fn long_events_are_dropped() {
    let mut rig = Rig::new();
    let token = "t".repeat(4000);
    rig.watch(TOOLS, "/a", &token).unwrap();
    rig.events(TOOLS);
    rig.write(TOOLS, &format!("/a/{}", "x".repeat(200)), "").unwrap();
    assert!(rig.events(TOOLS).is_empty());
    rig.write(TOOLS, "/a/x", "").unwrap();
    assert_eq!(rig.events(TOOLS).len(), 1);
}

#[test]
fn watches_are_bounded() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    for number in 0..128 {
        assert_eq!(rig.watch(guest, "x", &number.to_string()), ok());
    }
    assert_eq!(rig.watch(guest, "x", "more"), Err(ENOSPC));
    assert_eq!(rig.hits(), [(3, "watches")]);
    assert_eq!(rig.store.usage(DomId(3)).watches, 128);
    rig.req(guest, T::UNWATCH, "x\x000\0").unwrap();
    assert_eq!(rig.watch(guest, "x", "more"), ok());
    assert_eq!(rig.req(guest, T::RESET_WATCHES, "\0"), ok());
    assert_eq!((rig.store.usage(DomId(3)).watches, rig.store.usage(DomId(3)).memory_bytes), (0, 24));
}

#[test]
fn watched_bytes_count() {
    let mut config = Config::default();
    config.quotas.set(crate::Quota::Memory, 1000);
    let mut rig = Rig::with(config);
    let guest = rig.guest_with_home(3);
    assert_eq!(rig.watch(guest, "x", &"t".repeat(1000)), Err(ENOSPC));
    assert_eq!(rig.write(guest, "x", &"t".repeat(1000)), Err(ENOSPC));
    assert_eq!(rig.hits(), [(3, "memory"), (3, "memory")]);
    assert_eq!(rig.watch(guest, "x", &"t".repeat(900)), ok());
    assert_eq!(rig.write(guest, "x", &"t".repeat(100)), Err(ENOSPC));
}

#[test]
fn one_entry_queues_a_bounded_number_of_events() {
    let mut rig = Rig::new();
    rig.audit = false;
    let guest = rig.guest_with_home(3);
    for number in 0..100 {
        rig.watch(guest, "x", &format!("{number:01000}")).unwrap();
    }
    rig.events(guest);
    let t = rig.start(guest);
    for number in 0..100 {
        rig.tx(guest, T::MKDIR, t, format!("x/{number}\0")).unwrap();
    }
    rig.end(guest, t, true).unwrap();
    let bytes: usize = rig.events(guest).iter().map(|event| event.len() + 17).sum();
    assert!(bytes <= crate::limits::ENTRY_EVENT_BYTES_MAX && bytes > 1_000_000);
    let dropped = rig.effects.iter().filter(|effect| **effect == Effect::EventsDropped(guest)).count();
    assert_eq!(dropped, 1);
}

#[test]
fn a_client_that_takes_nothing_is_told_of() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    rig.watch(guest, "x", &"t".repeat(2000)).unwrap();
    rig.events(guest);
    rig.effects.clear();
    for seq in 0..1000 {
        let payload = format!("/local/domain/3/x/{seq}\0v").into_bytes();
        let header = Rig::header(T::WRITE, 0, &payload);
        let entry =
            Entry::Request { conn: TOOLS, seq: 1000 + seq, header, payload, verdict: None, ring_conn: None };
        rig.store.apply(1000 + seq, entry.as_ref(), &mut rig.effects);
    }
    let backlog: Vec<_> =
        rig.effects.iter().filter(|effect| matches!(effect, Effect::Backlog { .. })).collect();
    assert_eq!(backlog.len(), 1, "told once");
    let last = rig.store.last_ordinal(guest);
    rig.index = 3000;
    rig.apply(Entry::DiscardEvents { conn: guest, up_to: last - 1 });
    let left: Vec<String> = rig.events(guest);
    assert_eq!(left.len(), 1);
}

/// A client that is away gets one event for all writes to a node, however many there were.
#[test]
fn identical_events_that_wait_become_one() {
    let mut rig = Rig::new();
    rig.audit = false;
    let guest = rig.guest_with_home(3);
    rig.watch(guest, "x", &"t".repeat(2000)).unwrap();
    rig.events(guest);
    let header = Rig::header(T::WRITE, 0, b"/local/domain/3/x\0v");
    for seq in 0..100_000 {
        let payload = b"/local/domain/3/x\0v".to_vec();
        let entry =
            Entry::Request { conn: TOOLS, seq: 1000 + seq, header, payload, verdict: None, ring_conn: None };
        rig.store.apply(1000 + seq, entry.as_ref(), &mut rig.effects);
    }
    assert!(rig.store.event_bytes(guest) <= crate::limits::COALESCE_BYTES + 4096);
    assert!(!rig.effects.iter().any(|effect| matches!(effect, Effect::Backlog { .. })));
    rig.index = 200_000;
    rig.apply(Entry::Noop);
    assert!(!rig.events(guest).is_empty());
}

#[test]
fn special_watches() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    rig.watch(TOOLS, "@introduceDomain", "i").unwrap();
    rig.watch(TOOLS, "@releaseDomain", "r").unwrap();
    rig.req(TOOLS, T::WATCH, "@releaseDomain\0d\x001\0").unwrap();
    rig.req(TOOLS, T::WATCH, "@releaseDomain\0z\x000\0").unwrap();
    rig.watch(TOOLS, "@releaseDomain/4", "4").unwrap();
    rig.watch(TOOLS, "@releaseDomain/5", "5").unwrap();
    rig.watch(TOOLS, "/", "root").unwrap();
    rig.watch(guest, "@introduceDomain", "i").unwrap();
    rig.watch(guest, "@releaseDomain", "r").unwrap();
    rig.events(TOOLS);
    rig.events(guest);
    rig.guest(4);
    assert_eq!(rig.events(TOOLS), ["@introduceDomain i"]);
    rig.apply(Entry::DomainShutdown { domid: DomId(4) });
    rig.apply(Entry::DomainShutdown { domid: DomId(4) });
    assert_eq!(rig.events(TOOLS), ["@releaseDomain/4 d", "@releaseDomain/4 4", "@releaseDomain r"]);
    assert_eq!(rig.req(TOOLS, T::RESUME, "4\0"), ok());
    rig.apply(Entry::DomainShutdown { domid: DomId(4) });
    assert_eq!(rig.events(TOOLS).len(), 3);
    rig.apply(Entry::DomainGone { domid: DomId(4) });
    assert_eq!(rig.events(TOOLS), ["@releaseDomain r", "@releaseDomain/4 d", "@releaseDomain/4 4"]);
    assert_eq!(rig.events(guest), ["@releaseDomain r"; 3], "all domains may watch for the end of others");
}

/// A watch on a path of a thousand names has a thousand places in the trie, of some hundred bytes each.
#[test]
fn deep_watches_count_their_places() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    let set = (0..128).take_while(|number| {
        let path = format!("{number}/{}", vec!["x"; 900].join("/"));
        rig.watch(guest, &path, "t").is_ok()
    });
    let places = set.count() * 900;
    assert!(places > 0 && places * crate::limits::WATCH_PLACE_BYTES <= 2560 * 1024, "{places} places");
    rig.req(guest, T::RESET_WATCHES, "\0").unwrap();
    assert_eq!(rig.store.usage(DomId(3)).watches, 0);
}
