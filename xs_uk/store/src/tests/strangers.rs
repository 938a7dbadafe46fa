//! Domains that are named before they exist, or before they are introduced (XSA-322, XSA-417).

use super::*;
use XsError::*;

/// Whoever gets a number next is not whom its permissions meant.
#[test]
fn what_names_nobody_is_for_nobody() {
    let mut rig = Rig::new();
    rig.absent.insert(5);
    rig.write(TOOLS, "/secret", "v").unwrap();
    assert_eq!(rig.perms(TOOLS, "/secret", "n5"), Err(ENOENT), "nobody would own it");
    assert_eq!(rig.perms(TOOLS, "/secret", "n0,b5"), ok());
    assert_eq!(rig.perms(TOOLS, "@introduceDomain", "n0,r5"), ok());
    assert_eq!(rig.store.domain(DomId(5)), None);
    assert_eq!(rig.req(TOOLS, T::GET_PERMS, "/secret\0"), strings(&["n0", "b5"]), "it is shown");
    rig.absent.clear();
    let five = rig.guest(5);
    assert_eq!(rig.read(five, "/secret"), Err(EACCES));
    assert_eq!(rig.write(five, "/secret", ""), Err(EACCES));
    assert_eq!(rig.req(five, T::GET_PERMS, "@introduceDomain\0"), Err(EACCES));
    rig.write(TOOLS, "/secret/below", "v").unwrap();
    assert_eq!(rig.read(five, "/secret/below"), Err(EACCES), "nor is what is inherited from it");
    let bytes = rig.store.snapshot(rig.index).unwrap();
    let (_, copy) = Store::from_snapshot(&bytes).unwrap();
    assert!(copy.domain(DomId(5)).is_some());
    assert_eq!(copy.root(), rig.store.root());
    assert_eq!(rig.perms(TOOLS, "/secret", "n0,r5"), ok());
    assert_eq!(rig.read(five, "/secret"), text("v"), "named anew it is meant");
}

/// As the toolstack does it: permissions, then INTRODUCE.
#[test]
fn a_domain_named_before_its_introduction_is_meant() {
    let mut rig = Rig::new();
    let five = rig.guest_with_home(5);
    assert_eq!(rig.write(five, "x", "v"), ok());
    assert_eq!(rig.store.domain(DomId(5)).map(|domain| domain.handle), Some([1; HANDLE_BYTES]));
}

/// It dies unseen before it was introduced, and the next domain of its number is introduced.
#[test]
fn another_handle_is_another_domain() {
    let mut rig = Rig::new();
    rig.req(TOOLS, T::MKDIR, "/local/domain/5\0").unwrap();
    rig.perms(TOOLS, "/local/domain/5", "n5").unwrap();
    rig.write(TOOLS, "/shared", "v").unwrap();
    rig.perms(TOOLS, "/shared", "n0,r5").unwrap();
    let known = rig.store.domain(DomId(5)).unwrap();
    assert!(known.is_same(&[1; HANDLE_BYTES]) && known.is_same(&[0; HANDLE_BYTES]));
    assert!(!known.is_same(&[2; HANDLE_BYTES]));
    rig.apply(Entry::DomainKnown { domid: DomId(5), handle: [2; HANDLE_BYTES] });
    assert_eq!(rig.read(TOOLS, "/local/domain/5"), Err(ENOENT), "it was the former one's");
    let five = rig.guest(5);
    assert_eq!(rig.read(five, "/shared"), Err(EACCES));
    rig.apply(Entry::DomainKnown { domid: DomId(5), handle: [3; HANDLE_BYTES] });
    assert_eq!(rig.store.domain(DomId(5)).unwrap().conn, Some(five), "who is introduced may be renamed");
}

#[test]
fn a_transaction_means_whom_it_named() {
    let mut rig = Rig::new();
    rig.absent.insert(5);
    rig.write(TOOLS, "/x", "v").unwrap();
    let t = rig.start(TOOLS);
    assert_eq!(rig.tx(TOOLS, T::SET_PERMS, t, "/x\0n0\0r5\0"), ok());
    rig.absent.clear();
    let five = rig.guest(5);
    assert_eq!(rig.end(TOOLS, t, true), ok());
    assert_eq!(rig.read(five, "/x"), Err(EACCES), "it was introduced after it was named");
    let t = rig.start(TOOLS);
    assert_eq!(rig.tx(TOOLS, T::SET_PERMS, t, "/x\0n0\0r6\0"), ok());
    let six = rig.guest(6);
    assert_eq!(rig.end(TOOLS, t, true), ok());
    assert_eq!(rig.read(six, "/x"), text("v"), "it existed when it was named");
}

#[test]
fn guests_name_domains_too() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    rig.write(guest, "x", "v").unwrap();
    rig.absent.insert(8);
    assert_eq!(rig.perms(guest, "x", "n3,r7,r8"), ok());
    rig.absent.clear();
    let (seven, eight) = (rig.guest(7), rig.guest(8));
    assert_eq!(rig.read(seven, "/local/domain/3/x"), text("v"));
    assert_eq!(rig.read(eight, "/local/domain/3/x"), Err(EACCES));
}

/// Each stranger costs a question to the hypervisor.
#[test]
fn a_guest_cannot_make_the_host_be_asked_much() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    let list = |count: u16| (100..100 + count).map(|domid| format!("r{domid}\0")).collect::<String>();
    let payload = |count| format!("x\0n3\0{}", list(count));
    let asked = |rig: &Rig, conn, text: &str| {
        let header = Rig::header(T::SET_PERMS, 0, text.as_bytes());
        rig.store.strangers(conn, &header, text.as_bytes()).len()
    };
    assert_eq!(asked(&rig, guest, &payload(4)), 4);
    assert_eq!(asked(&rig, guest, "x\0n3\0r9\0w9\0b9\0"), 1, "each only once");
    assert_eq!(asked(&rig, guest, &payload(5)), 0, "it is over its quota");
    assert_eq!(asked(&rig, guest, "x\0n0\0n3\0r32757\0r65535\0"), 0, "all known or none");
    rig.req(TOOLS, T::SET_QUOTA, "3\0node-permissions\x000\0").unwrap();
    assert_eq!(asked(&rig, guest, &payload(100)), crate::limits::GUEST_STRANGERS_MAX);
    assert_eq!(asked(&rig, TOOLS, &payload(100)), 100);
}

#[test]
fn quotas_and_features_are_for_domains_that_exist() {
    let mut rig = Rig::new();
    rig.absent.insert(5);
    assert_eq!(rig.req(TOOLS, T::SET_QUOTA, "5\0nodes\x007\0"), Err(ENOENT));
    assert_eq!(rig.req(TOOLS, T::SET_FEATURE, "5\x001\0"), Err(ENOENT));
    assert_eq!(rig.req(TOOLS, T::SET_QUOTA, "6\0nodes\x007\0"), ok());
    assert_eq!(rig.req(TOOLS, T::GET_QUOTA, "6\0nodes\0"), text("7\0"));
}

/// In logs of older programs the request itself made domains known.
#[test]
fn older_logs_mean_what_they_meant() {
    let mut rig = Rig::with(Config { only_known: false, ..Config::default() });
    rig.write(TOOLS, "/x", "v").unwrap();
    assert_eq!(rig.perms(TOOLS, "/x", "n0,r5"), ok());
    let five = rig.guest(5);
    assert_eq!(rig.read(five, "/x"), text("v"));
    assert!(rig.log.iter().all(|(_, entry)| !matches!(entry, Entry::DomainKnown { .. })));
}
