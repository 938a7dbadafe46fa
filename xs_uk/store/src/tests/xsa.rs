//! Security advisories of xenstored, one test for each that a pure state machine can have.

use super::*;
use XsError::*;

#[test]
fn xsa_72_long_replies_are_never_built() {
    let mut rig = Rig::new();
    rig.audit = false;
    for number in 0..2000 {
        rig.write(TOOLS, &format!("/d/{number:04}"), "").unwrap();
    }
    assert_eq!(rig.req(TOOLS, T::DIRECTORY, "/d\0"), Err(E2BIG));
}

#[test]
fn xsa_115_guests_learn_nothing_of_others() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    rig.watch(guest, "@introduceDomain", "i").unwrap();
    rig.watch(guest, "/", "all").unwrap();
    rig.events(guest);
    rig.guest_with_home(4);
    rig.write(TOOLS, "/local/domain/4/secret", "").unwrap();
    assert!(rig.events(guest).is_empty());
    assert_eq!(rig.req(guest, T::IS_DOMAIN_INTRODUCED, "4\0"), Err(EACCES));
}

#[test]
fn xsa_322_and_417_a_new_domain_inherits_no_rights() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    rig.write(guest, "x", "secret").unwrap();
    rig.write(TOOLS, "/b", "secret").unwrap();
    rig.perms(TOOLS, "/b", "n0,b3").unwrap();
    let t = rig.start(TOOLS);
    rig.tx(TOOLS, T::WRITE, t, "/b/child\0").unwrap();
    rig.apply(Entry::DomainGone { domid: DomId(3) });
    assert_eq!(rig.end(TOOLS, t, true), ok());
    let again = rig.guest(3);
    for path in ["/b", "/b/child", "/local/domain/3/x"] {
        assert_eq!(rig.read(again, path), Err(EACCES), "{path}");
    }
}

#[test]
fn xsa_324_long_events_do_not_harm() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    assert_eq!(rig.watch(guest, &"p".repeat(2000), &"t".repeat(2094)), ok());
    assert_eq!(rig.events(guest).len(), 1);
}

#[test]
fn xsa_326_and_419_memory_is_charged() {
    let mut rig = Rig::new();
    rig.audit = false;
    let guest = rig.guest_with_home(3);
    let mut stuck = 0;
    for number in 0.. {
        let payload = format!("n{number}\0{}", "v".repeat(2000));
        if rig.req(guest, T::WRITE, payload).is_err() {
            stuck = number;
            break;
        }
    }
    assert!(stuck <= 1000, "{stuck}");
    assert!(rig.store.usage(DomId(3)).memory_bytes <= 2560 * 1024);
}

#[test]
fn xsa_352_guests_cannot_give_nodes_away() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    rig.guest(4);
    rig.write(guest, "x", "").unwrap();
    assert_eq!(rig.perms(guest, "x", "n4"), Err(EPERM));
    let t = rig.start(guest);
    assert_eq!(rig.tx(guest, T::SET_PERMS, t, "x\0n0\0"), Err(EPERM));
}

#[test]
fn xsa_353_the_roots_permissions_count() {
    let mut rig = Rig::new();
    let guest = rig.guest(3);
    assert_eq!(rig.req(guest, T::GET_PERMS, "/\0"), Err(EACCES));
    assert_eq!(rig.perms(guest, "/", "b3"), Err(EACCES));
    assert_eq!(rig.req(guest, T::DIRECTORY, "/\0"), Err(EACCES));
}

#[test]
fn xsa_414_a_failed_creation_leaves_nothing() {
    let mut config = Config::default();
    config.quotas.set(crate::Quota::Nodes, 3);
    let mut rig = Rig::with(config);
    let guest = rig.guest_with_home(3);
    let before = rig.store.usage(DomId(3));
    assert_eq!(rig.write(guest, "a/b/c/d", "v"), Err(ENOSPC));
    assert_eq!(rig.store.usage(DomId(3)), before);
    assert_eq!(rig.read(guest, "a"), Err(ENOENT));
}

#[test]
fn xsa_415_no_node_without_a_parent() {
    let mut rig = Rig::new();
    rig.write(TOOLS, "/a/b", "").unwrap();
    let (one, two) = (rig.start(TOOLS), rig.start(TOOLS));
    rig.tx(TOOLS, T::WRITE, one, "/a/b/c\0").unwrap();
    rig.tx(TOOLS, T::RM, two, "/a\0").unwrap();
    assert_eq!(rig.end(TOOLS, two, true), ok());
    assert_eq!(rig.end(TOOLS, one, true), ok(), "the write makes its parents again");
    assert_eq!(rig.req(TOOLS, T::DIRECTORY, "/a\0"), strings(&["b"]));
}

#[test]
fn xsa_418_deep_trees_use_no_stack() {
    let handle = std::thread::Builder::new().stack_size(256 << 10).spawn(|| {
        let mut rig = Rig::new();
        rig.audit = false;
        rig.write(TOOLS, &"/a".repeat(1500), "").unwrap();
        let bytes = rig.store.snapshot(rig.index).unwrap();
        let (_, copy) = Store::from_snapshot(&bytes).unwrap();
        assert_eq!(copy.check(), Vec::<String>::new());
        rig.rm(TOOLS, "/a").unwrap();
    });
    handle.unwrap().join().unwrap();
}

#[test]
fn xsa_421_transactions_do_not_pass_the_node_quota() {
    let mut rig = Rig::new();
    rig.audit = false;
    let guest = rig.guest_with_home(3);
    let mut made = 0;
    for batch in 0..20 {
        let t = rig.start(guest);
        for number in 0..100 {
            rig.tx(guest, T::MKDIR, t, format!("b{batch}/{number}\0")).ok();
        }
        made += usize::from(rig.end(guest, t, true).is_ok());
    }
    assert!(made < 11 && rig.store.usage(DomId(3)).nodes <= 1000, "{made}");
}

#[test]
fn xsa_425_release_of_a_busy_domain() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    rig.watch(guest, "@releaseDomain", "r").unwrap();
    rig.watch(guest, "/local/domain/3", "t").unwrap();
    let t = rig.start(guest);
    rig.tx(guest, T::WRITE, t, "x\0").unwrap();
    assert_eq!(rig.req(TOOLS, T::RELEASE, "3\0"), ok());
    rig.guest_with_home(3);
}

#[test]
fn xsa_440_conflicting_transactions() {
    let mut rig = Rig::new();
    rig.write(TOOLS, "/a/b", "").unwrap();
    let t = rig.start(TOOLS);
    rig.tx(TOOLS, T::WRITE, t, "/a/b/c\0").unwrap();
    rig.tx(TOOLS, T::RM, t, "/a/b\0").unwrap();
    rig.rm(TOOLS, "/a/b").unwrap();
    rig.write(TOOLS, "/a/b/d", "").unwrap();
    assert_eq!(rig.end(TOOLS, t, true), ok());
    assert_eq!(rig.read(TOOLS, "/a/b"), Err(ENOENT));
}

#[test]
fn xsa_481_the_path_of_no_domain() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    for conn in [TOOLS, guest] {
        for kind in [T::READ, T::WRITE, T::MKDIR, T::RM, T::DIRECTORY, T::GET_PERMS] {
            assert_eq!(rig.req(conn, kind, "/local/domain/\0"), Err(EINVAL));
        }
        assert_eq!(rig.watch(conn, "/local/domain/", "t"), Err(EINVAL));
    }
}

#[test]
fn xsa_483_accounting_survives_the_use_of_a_domid_again() {
    let mut rig = Rig::new();
    for _ in 0..5 {
        let guest = rig.guest_with_home(3);
        for number in 0..50 {
            rig.write(guest, &format!("n{number}"), "").unwrap();
        }
        let t = rig.start(guest);
        rig.tx(guest, T::WRITE, t, "late\0").unwrap();
        rig.apply(Entry::DomainGone { domid: DomId(3) });
        rig.guest(3);
        assert_eq!(rig.store.usage(DomId(3)).nodes, 0);
        rig.apply(Entry::DomainGone { domid: DomId(3) });
    }
}

#[test]
fn xsa_484_reset_watches_within_a_transaction() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    let t = rig.start(guest);
    assert_eq!(rig.tx(guest, T::RESET_WATCHES, t, "\0"), ok());
    assert_eq!(rig.tx(guest, T::RESET_WATCHES, t, "\0"), Err(ENOENT));
    assert_eq!(rig.start(guest), 2);
}

#[test]
fn the_references_own_crash_on_wildcards_from_a_socket() {
    let mut rig = Rig::new();
    rig.write(TOOLS, "/p", "").unwrap();
    assert_eq!(rig.perms(TOOLS, "/p", "n0,r32757"), ok());
}
