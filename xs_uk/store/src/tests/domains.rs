//! Domains: how they come, die and come again.

use super::*;
use XsError::*;

#[test]
fn introduction() {
    let mut rig = Rig::new();
    for bad in ["", "3\0", "3\x001\0", "3\x001\x000\0", "3\x001\0-1\0", "x\x001\x001\0", "32752\x001\x001\0"]
    {
        assert_eq!(rig.req(TOOLS, T::INTRODUCE, bad), Err(EINVAL), "{bad:?}");
        assert_eq!(rig.log_request(TOOLS, T::INTRODUCE, 0, bad.as_bytes()), Err(EINVAL));
    }
    assert_eq!(rig.store.introduce_args(TOOLS, b"3\x0017\x009\0"), Ok((DomId(3), 17, 9)));
    assert_eq!(rig.req(TOOLS, T::IS_DOMAIN_INTRODUCED, "3\0"), text("F\0"));
    let guest = rig.guest(3);
    assert_eq!(rig.req(TOOLS, T::IS_DOMAIN_INTRODUCED, "3\0"), text("T\0"));
    assert_eq!(rig.req(TOOLS, T::IS_DOMAIN_INTRODUCED, "32752\0"), text("T\0"));
    assert!(rig.effects.contains(&Effect::Introduced(DomId(3))));
    let info = rig.store.domain(DomId(3)).unwrap();
    assert_eq!((info.gfn, info.port, info.conn), (5, 7, Some(guest)));
    assert_eq!(rig.store.introduce_args(guest, b"4\x001\x001\0"), Err(EACCES));
}

#[test]
fn a_failed_mapping_is_told() {
    let mut rig = Rig::new();
    let payload = b"3\x005\x007\0".to_vec();
    let header = Rig::header(T::INTRODUCE, 0, &payload);
    rig.apply(Entry::Request {
        conn: TOOLS,
        seq: 1,
        header,
        payload,
        verdict: Some(EINVAL),
        ring_conn: Some(ConnId(9)),
    });
    assert_eq!(answer(&rig.inbox.pop().unwrap().2), Err(EINVAL));
    assert_eq!(rig.store.domain(DomId(3)), None);
}

#[test]
fn a_second_introduction_starts_the_connection_anew() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    rig.write(guest, "x", "v").unwrap();
    rig.watch(guest, "x", "t").unwrap();
    let t = rig.start(guest);
    rig.effects.clear();
    assert_eq!(rig.req(TOOLS, T::INTRODUCE, "3\x006\x008\0"), ok());
    assert!(rig.effects.contains(&Effect::Reset(guest)));
    assert!(rig.effects.contains(&Effect::Introduced(DomId(3))));
    let info = rig.store.domain(DomId(3)).unwrap();
    assert_eq!((info.port, info.conn), (8, Some(guest)));
    assert_eq!(rig.store.usage(DomId(3)).watches, 0);
    assert_eq!(rig.tx(guest, T::READ, t, "x\0"), Err(ENOENT));
    assert_eq!(rig.read(guest, "x"), text("v"));
}

#[test]
fn nodes_of_a_dead_domain_go() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    rig.write(guest, "data/x", "").unwrap();
    rig.write(TOOLS, "/backend", "").unwrap();
    rig.perms(TOOLS, "/backend", "n0,r3,r4").unwrap();
    rig.write(TOOLS, "/local/domain/3/by-tools", "").unwrap();
    rig.watch(TOOLS, "/local/domain/3/data", "low").unwrap();
    rig.watch(TOOLS, "/local", "high").unwrap();
    rig.watch(TOOLS, "@releaseDomain", "r").unwrap();
    rig.events(TOOLS);
    rig.effects.clear();
    rig.apply(Entry::DomainGone { domid: DomId(3) });
    assert_eq!(rig.events(TOOLS), ["/local/domain/3/data low", "/local/domain/3 high", "@releaseDomain r"]);
    assert_eq!(rig.read(TOOLS, "/local/domain/3"), Err(ENOENT));
    assert_eq!(rig.req(TOOLS, T::GET_PERMS, "/backend\0"), strings(&["n0", "r4"]));
    assert_eq!(rig.store.domain(DomId(3)), None);
    assert!(rig.effects.contains(&Effect::Close(guest)) && rig.effects.contains(&Effect::Unmap(DomId(3))));
    rig.apply(Entry::DomainGone { domid: DomId(3) });
    assert!(rig.events(TOOLS).is_empty());
}

#[test]
fn orphans_can_be_kept() {
    let mut rig = Rig::with(Config { keep_orphans: true, ..Config::default() });
    let guest = rig.guest_with_home(3);
    rig.write(guest, "data/x", "v").unwrap();
    rig.apply(Entry::DomainGone { domid: DomId(3) });
    assert_eq!(rig.read(TOOLS, "/local/domain/3/data/x"), text("v"));
    assert_eq!(rig.req(TOOLS, T::GET_PERMS, "/local/domain/3/data/x\0"), strings(&["n0"]));
    let again = rig.guest(3);
    assert_eq!(rig.read(again, "data/x"), Err(EACCES));
}

#[test]
fn release() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    rig.watch(TOOLS, "@releaseDomain", "r").unwrap();
    rig.events(TOOLS);
    for (bad, error) in [("0\0", EINVAL), ("4\0", ENOENT), ("x\0", EINVAL), ("", EINVAL)] {
        assert_eq!(rig.req(TOOLS, T::RELEASE, bad), Err(error));
        assert_eq!(rig.req(TOOLS, T::RESUME, bad), Err(error));
    }
    assert_eq!(rig.req(TOOLS, T::RELEASE, "3\0"), ok());
    assert_eq!(rig.events(TOOLS), ["@releaseDomain r"]);
    assert_eq!(rig.req(TOOLS, T::IS_DOMAIN_INTRODUCED, "3\0"), text("F\0"));
    assert!(rig.effects.contains(&Effect::Close(guest)) && rig.effects.contains(&Effect::Unmap(DomId(3))));
}

#[test]
fn a_broken_ring_is_ignored_until_it_starts_anew() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    rig.watch(guest, "x", "t").unwrap();
    rig.apply(Entry::Disconnect { conn: guest });
    let info = rig.store.domain(DomId(3)).unwrap();
    assert!(info.introduced && info.ignored);
    rig.seq += 1;
    let payload = b"x\0v".to_vec();
    let header = Rig::header(T::WRITE, 0, &payload);
    rig.apply(Entry::Request { conn: guest, seq: rig.seq, header, payload, verdict: None, ring_conn: None });
    assert_eq!(rig.read(TOOLS, "/local/domain/3/x"), Err(ENOENT));
    rig.apply(Entry::Reset { conn: guest });
    assert!(rig.effects.contains(&Effect::Reset(guest)));
    assert_eq!(rig.write(guest, "x", "v"), ok());
}

#[test]
fn rights_given_before_the_introduction_count() {
    let mut rig = Rig::new();
    rig.write(TOOLS, "/local/domain/3/device", "").unwrap();
    rig.perms(TOOLS, "/local/domain/3/device", "n0,b3").unwrap();
    rig.write(TOOLS, "/noise", "").unwrap();
    let guest = rig.guest(3);
    assert_eq!(rig.write(guest, "device/x", ""), ok());
    rig.write(TOOLS, "/local/domain/4", "").unwrap();
    rig.perms(TOOLS, "/local/domain/4", "n4").unwrap();
    rig.apply(Entry::DomainGone { domid: DomId(4) });
    assert_eq!(rig.read(TOOLS, "/local/domain/4"), Err(ENOENT), "it died before it was introduced");
    assert_eq!(rig.store.domain(DomId(4)), None);
}

#[test]
fn connections_at_the_start_need_no_request() {
    let mut rig = Rig::new();
    rig.watch(TOOLS, "@introduceDomain", "i").unwrap();
    rig.events(TOOLS);
    rig.apply(Entry::Connect { conn: ConnId(50), peer: Peer::Domain(DomId(0)) });
    assert!(rig.events(TOOLS).is_empty(), "the privileged domain is there from the start");
    assert_eq!(rig.write(ConnId(50), "k", "v"), ok());
    assert_eq!(rig.read(TOOLS, "/local/domain/0/k"), text("v"));
    rig.apply(Entry::Connect { conn: ConnId(51), peer: Peer::Domain(DomId(7)) });
    assert_eq!(rig.events(TOOLS), ["@introduceDomain i"]);
    rig.apply(Entry::Connect { conn: ConnId(52), peer: Peer::Domain(DomId(7)) });
    assert!(rig.effects.contains(&Effect::Close(ConnId(52))));
    rig.apply(Entry::DomainGone { domid: DomId(0) });
    assert_eq!(rig.read(ConnId(50), "k"), text("v"));
}

#[test]
fn connections_are_bounded() {
    let mut rig = Rig::new();
    let mut effects = Vec::new();
    for number in 0..crate::limits::CONNECTIONS_MAX as u64 {
        let entry = Entry::Connect { conn: ConnId(1000 + number), peer: Peer::Socket };
        rig.store.apply(rig.index + 1 + number, entry.as_ref(), &mut effects);
    }
    let last = ConnId(1000 + crate::limits::CONNECTIONS_MAX as u64 - 1);
    assert_eq!(effects, [Effect::Close(last)]);
    assert_eq!(rig.store.connections().count(), crate::limits::CONNECTIONS_MAX);
}

#[test]
fn node_quotas() {
    let mut rig = Rig::new();
    rig.audit = false;
    let guest = rig.guest_with_home(3);
    let made =
        (0..2000).take_while(|at| rig.write(guest, &format!("d{}/n{at}", at / 90), "").is_ok()).count();
    let usage = rig.store.usage(DomId(3));
    assert_eq!(usage.nodes, 1000);
    assert_eq!(made + 1 + made.div_ceil(90), 1000);
    assert_eq!(rig.hits(), [(3, "nodes")]);
    rig.rm(guest, "d0").unwrap();
    assert_eq!(rig.store.usage(DomId(3)).nodes, 909);
    rig.write(TOOLS, "/local/domain/3/tools", "").unwrap();
    rig.perms(TOOLS, "/local/domain/3/tools", "n3").unwrap();
    assert_eq!(rig.store.usage(DomId(3)).nodes, 910);
    assert_eq!(rig.store.check(), Vec::<String>::new());
}

#[test]
fn size_quotas() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    assert_eq!(rig.write(guest, "x", &"v".repeat(2048 - 24)), ok());
    assert_eq!(rig.write(guest, "x", &"v".repeat(2048 - 23)), Err(ENOSPC));
    assert_eq!(rig.write(guest, "y", &"v".repeat(2048 - 23)), Err(ENOSPC));
    assert_eq!(rig.perms(guest, "x", "n3,r0"), Err(ENOSPC), "no room for the entry");
    assert_eq!(rig.perms(guest, "x", "n3,r0,r0,r0,r0,r0"), Err(ENOSPC));
    let hits = rig.hits();
    assert_eq!(hits[..3], [(3, "node-size"); 3]);
    assert_eq!(hits[3], (3, "node-permissions"));
    assert_eq!(rig.read(guest, &"p".repeat(2048)), Err(ENOENT));
    assert_eq!(rig.read(guest, &"p".repeat(2049)), Err(EINVAL));
    assert_eq!(rig.write(TOOLS, "/local/domain/3/x", &"v".repeat(4000)), ok(), "no bound for tools");
    rig.audit = false;
    let count = (0..2000).take_while(|at| rig.write(guest, &format!("d/{at:03}"), "").is_ok()).count();
    assert_eq!(count, (2048 - 24) / 4, "names of children count");
}
