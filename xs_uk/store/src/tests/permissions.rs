//! Permissions of guests.

use super::*;
use XsError::*;

#[test]
fn a_guest_owns_what_it_creates() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    assert_eq!(rig.write(guest, "data/x", "v"), ok());
    assert_eq!(rig.read(guest, "/local/domain/3/data/x"), text("v"));
    assert_eq!(rig.req(guest, T::GET_PERMS, "data\0"), strings(&["n3"]));
    assert_eq!(rig.store.usage(DomId(3)).nodes, 3);
    let other = rig.guest_with_home(4);
    assert_eq!(rig.read(other, "/local/domain/3/data/x"), Err(EACCES));
    assert_eq!(rig.write(other, "/local/domain/3/data/x", ""), Err(EACCES));
}

#[test]
fn what_is_created_inherits_permissions() {
    let mut rig = Rig::new();
    let guest = rig.guest(3);
    rig.write(TOOLS, "/shared", "").unwrap();
    rig.perms(TOOLS, "/shared", "r0,b3,r4").unwrap();
    assert_eq!(rig.write(guest, "/shared/mine", ""), ok());
    assert_eq!(rig.req(guest, T::GET_PERMS, "/shared/mine\0"), strings(&["r3", "b3", "r4"]));
    assert_eq!(rig.write(TOOLS, "/shared/tools", ""), ok());
    assert_eq!(rig.req(guest, T::GET_PERMS, "/shared/tools\0"), strings(&["r0", "b3", "r4"]));
}

#[test]
fn absence_is_hidden_where_nothing_may_be_read() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    assert_eq!(rig.read(guest, "/secret/x"), Err(EACCES));
    assert_eq!(rig.read(guest, "none"), Err(ENOENT));
    assert_eq!(rig.write(guest, "/new", ""), Err(EACCES));
    assert_eq!(rig.rm(guest, "/none"), Err(EACCES));
    assert_eq!(rig.rm(guest, "/"), Err(EACCES));
    rig.write(TOOLS, "/w", "").unwrap();
    rig.perms(TOOLS, "/w", "w0").unwrap();
    assert_eq!(rig.read(guest, "/w"), Err(EACCES), "write only");
    assert_eq!(rig.read(guest, "/w/none"), Err(EACCES), "absence is only for readers");
    assert_eq!(rig.rm(guest, "/w/none"), ok(), "and for writers");
}

#[test]
fn only_privileged_clients_change_owners() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    rig.guest(4);
    rig.write(guest, "x", "").unwrap();
    assert_eq!(rig.perms(guest, "x", "r3,r4"), ok());
    assert_eq!(rig.perms(guest, "x", "n4"), Err(EPERM));
    assert_eq!(rig.perms(guest, "/tool", "n3"), Err(EACCES));
    assert_eq!(rig.perms(TOOLS, "/local/domain/3/x", "n4"), ok());
    assert_eq!((rig.store.usage(DomId(3)).nodes, rig.store.usage(DomId(4)).nodes), (1, 1));
}

#[test]
fn malformed_permissions() {
    let mut rig = Rig::new();
    rig.write(TOOLS, "/a", "").unwrap();
    for bad in ["x0", "", "r", "r-1", "r70000", "n0,z1"] {
        assert_eq!(rig.perms(TOOLS, "/a", bad), Err(EINVAL), "{bad:?}");
    }
    assert_eq!(rig.req(TOOLS, T::SET_PERMS, "/a\0"), Err(EINVAL));
    assert_eq!(rig.req(TOOLS, T::SET_PERMS, "/a"), Err(EINVAL));
    assert_eq!(rig.perms(TOOLS, "/none", "n0"), Err(ENOENT));
    assert_eq!(rig.perms(TOOLS, "@none", "n0"), Err(ENOENT));
    assert_eq!(rig.perms(TOOLS, "/a", "n32757"), Err(ENOENT), "no domain at all would own it");
    assert_eq!(rig.perms(TOOLS, "/a", "n32760"), Err(ENOENT));
}

#[test]
fn wildcard_permissions() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    rig.write(TOOLS, "/all", "v").unwrap();
    assert_eq!(rig.perms(TOOLS, "/all", "n0,r32757"), ok(), "from a socket too");
    assert_eq!(rig.read(guest, "/all"), text("v"));
    assert_eq!(rig.write(guest, "/all", ""), Err(EACCES));
}

#[test]
fn wildcard_needs_the_feature() {
    let mut rig = Rig::new();
    rig.req(TOOLS, T::SET_FEATURE, "3\x006\0").unwrap();
    let old = rig.guest_with_home(3);
    let guest = rig.guest(4);
    rig.write(old, "x", "v").unwrap();
    assert_eq!(rig.perms(old, "x", "n3,r32757"), ok());
    assert_eq!(rig.req(old, T::GET_PERMS, "x\0"), strings(&["n3", "r32757"]));
    assert_eq!(rig.read(guest, "/local/domain/3/x"), Err(EACCES));
}

#[test]
fn special_nodes_have_permissions() {
    let mut rig = Rig::new();
    let guest = rig.guest(3);
    assert_eq!(rig.req(guest, T::GET_PERMS, "@introduceDomain\0"), Err(EACCES));
    assert_eq!(rig.perms(TOOLS, "@introduceDomain", "n0,r3"), ok());
    assert_eq!(rig.req(guest, T::GET_PERMS, "@introduceDomain\0"), strings(&["n0", "r3"]));
    assert_eq!(rig.perms(guest, "@introduceDomain", "n0,b3"), Err(EACCES));
}

#[test]
fn a_target_lends_its_rights() {
    let mut rig = Rig::new();
    let stub = rig.guest(5);
    rig.guest_with_home(6);
    rig.write(TOOLS, "/dev", "d").unwrap();
    rig.perms(TOOLS, "/dev", "n0,r6").unwrap();
    assert_eq!(rig.read(stub, "/dev"), Err(EACCES));
    assert_eq!(rig.req(TOOLS, T::SET_TARGET, "5\x006\0"), ok());
    assert_eq!(rig.read(stub, "/dev"), text("d"));
    assert_eq!(rig.write(stub, "/local/domain/6/x", ""), ok());
    rig.apply(Entry::DomainGone { domid: DomId(6) });
    rig.guest_with_home(6);
    assert_eq!(rig.read(stub, "/local/domain/6"), Err(EACCES), "another domain with the same id");
    assert_eq!(rig.req(TOOLS, T::SET_TARGET, "5\x0077\0"), Err(ENOENT));
    assert_eq!(rig.req(TOOLS, T::SET_TARGET, "5\0"), Err(EINVAL));
}

#[test]
fn what_only_privileged_clients_may_do() {
    let mut rig = Rig::new();
    let guest = rig.guest(3);
    let kernel = ConnId(50);
    rig.apply(Entry::Connect { conn: kernel, peer: Peer::Domain(DomId(0)) });
    let denied = [
        T::CONTROL,
        T::INTRODUCE,
        T::RELEASE,
        T::IS_DOMAIN_INTRODUCED,
        T::RESUME,
        T::SET_TARGET,
        T::SET_FEATURE,
        T::GET_QUOTA,
        T::SET_QUOTA,
    ];
    for kind in denied {
        assert_eq!(rig.req(guest, kind, "help\0"), Err(EACCES), "{}", kind.name());
        assert_eq!(rig.log_request(guest, kind, 0, b"help\0"), Err(EACCES), "{}", kind.name());
        assert_ne!(rig.req(kernel, kind, "help\0"), Err(EACCES), "{}", kind.name());
    }
    assert_eq!(rig.req(guest, T::GET_FEATURE, "3\0"), Err(EACCES));
    assert_eq!(rig.req(guest, T::GET_FEATURE, ""), text("15\0"));
    assert_eq!(rig.req(guest, T::GET_DOMAIN_PATH, "7\0"), text("/local/domain/7\0"));
}
