//! CONTROL, features and quotas.

use super::*;
use XsError::*;

fn shown(answer: Answer) -> String {
    String::from_utf8(answer.unwrap()).unwrap()
}

#[test]
fn commands() {
    let mut rig = Rig::new();
    assert!(shown(rig.req(TOOLS, T::CONTROL, "help\0")).contains("quota-soft"));
    assert_eq!(rig.req(TOOLS, T::CONTROL, "check\0"), text("OK\0"));
    assert!(shown(rig.req(TOOLS, T::CONTROL, "live-update\0-s\0")).contains("not supported"));
    for bad in ["", "none\0", "check\0x\0", "help\0x\0", "log\0x\0", "log\0+none\0", "print\0", "logfile\0"] {
        assert_eq!(rig.req(TOOLS, T::CONTROL, bad), Err(EINVAL), "{bad:?}");
    }
    for (command, words) in [
        ("print\0text\0", vec!["print", "text"]),
        ("logfile\0/tmp/x\0", vec!["logfile", "/tmp/x"]),
        ("memreport\0", vec!["memreport"]),
        ("log\0on\0", vec!["log", "on"]),
    ] {
        rig.effects.clear();
        assert_eq!(rig.req(TOOLS, T::CONTROL, command), ok());
        let words = words.into_iter().map(str::to_owned).collect();
        assert!(rig.effects.contains(&Effect::Control(words)));
    }
    rig.req(TOOLS, T::CONTROL, "log\0+io\0").unwrap();
    assert!(shown(rig.req(TOOLS, T::CONTROL, "log\0")).contains("io      : on"));
    rig.req(TOOLS, T::CONTROL, "log\0-io\0").unwrap();
    assert!(shown(rig.req(TOOLS, T::CONTROL, "log\0")).contains("io      : off"));
}

#[test]
fn quotas_by_control() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    assert!(shown(rig.req(TOOLS, T::CONTROL, "quota\0")).contains("nodes            :     1000 "));
    assert!(shown(rig.req(TOOLS, T::CONTROL, "quota-soft\0")).contains("memory           :  2097152 "));
    assert_eq!(rig.req(TOOLS, T::CONTROL, "quota\0set\0nodes\x007\0"), ok());
    assert_eq!(rig.req(TOOLS, T::GET_QUOTA, "nodes\0"), text("7\0"));
    assert_eq!(rig.req(TOOLS, T::GET_QUOTA, "3\0nodes\0"), text("1000\0"), "domains keep what they have");
    rig.guest(4);
    assert_eq!(rig.req(TOOLS, T::GET_QUOTA, "4\0nodes\0"), text("7\0"));
    for bad in ["set\0nodes\x000\0", "set\0none\x001\0", "set\0nodes\0", "max\0x\0"] {
        assert_eq!(rig.req(TOOLS, T::CONTROL, format!("quota\0{bad}")), Err(EINVAL), "{bad:?}");
    }
    assert_eq!(rig.req(TOOLS, T::CONTROL, "quota-soft\0set\0nodes\x001\0"), Err(EINVAL));
    assert_eq!(rig.req(TOOLS, T::CONTROL, "quota-soft\0set\0memory\x001\0"), ok());
    rig.write(guest, "x", "").unwrap();
    rig.rm(guest, "x").unwrap();
    assert!(
        shown(rig.req(TOOLS, T::CONTROL, "quota\x003\0"))
            .contains("nodes            :        1 (max        2)")
    );
    assert!(shown(rig.req(TOOLS, T::CONTROL, "quota\0max\0")).contains("nodes            :        2"));
    assert!(shown(rig.req(TOOLS, T::CONTROL, "quota\0max\0-r\0")).contains("nodes            :        0"));
    assert_eq!(rig.req(TOOLS, T::CONTROL, "quota\x0099\0"), Err(ENOENT));
}

#[test]
fn quotas_by_request() {
    let mut rig = Rig::new();
    let names = "nodes watches outstanding memory soft-memory transactions transaction-nodes node-permissions path-max node-size\0";
    assert_eq!(rig.req(TOOLS, T::GET_QUOTA, ""), text(names));
    assert_eq!(rig.req(TOOLS, T::GET_QUOTA, "soft-memory\0"), text("2097152\0"));
    for bad in ["none\0", "soft-nodes\0", "a\0b\0c\0", "x\0nodes\0"] {
        assert_eq!(rig.req(TOOLS, T::GET_QUOTA, bad), Err(EINVAL), "{bad:?}");
    }
    assert_eq!(rig.req(TOOLS, T::GET_QUOTA, "3\0nodes\0"), Err(ENOENT));
    assert_eq!(rig.req(TOOLS, T::SET_QUOTA, "3\0nodes\x002\0"), ok(), "before the introduction");
    let guest = rig.guest_with_home(3);
    rig.write(guest, "a", "").unwrap();
    assert_eq!(rig.write(guest, "b", ""), Err(ENOSPC));
    assert_eq!(rig.req(TOOLS, T::SET_QUOTA, "3\0nodes\x000\0"), ok());
    assert_eq!(rig.write(guest, "b", ""), ok(), "0 is no limit");
    for bad in ["nodes\0", "a\0b\0c\0d\0", "nodes\x004294967295\0", "none\x001\0"] {
        assert_eq!(rig.req(TOOLS, T::SET_QUOTA, bad), Err(EINVAL), "{bad:?}");
    }
    assert_eq!(rig.req(TOOLS, T::SET_QUOTA, "soft-memory\x005\0"), ok());
    assert_eq!(rig.store.config().quotas.soft_memory_bytes, 5);
    assert_eq!(rig.store.quotas(DomId(3)).get(crate::Quota::Nodes), 0);
}

#[test]
fn features() {
    let mut rig = Rig::new();
    assert_eq!(rig.req(TOOLS, T::GET_FEATURE, ""), text("15\0"));
    assert_eq!(rig.req(TOOLS, T::GET_FEATURE, "3\0"), Err(ENOENT));
    assert_eq!(rig.req(TOOLS, T::GET_FEATURE, "3\0x\0"), Err(EINVAL));
    assert_eq!(rig.req(TOOLS, T::SET_FEATURE, "3\x0016\0"), Err(EINVAL));
    assert_eq!(rig.req(TOOLS, T::SET_FEATURE, "3\0"), Err(EINVAL));
    assert_eq!(rig.req(TOOLS, T::SET_FEATURE, "3\x002\0"), ok());
    assert_eq!(rig.req(TOOLS, T::GET_FEATURE, "3\0"), text("2\0"));
    let guest = rig.guest(3);
    assert_eq!(rig.req(TOOLS, T::SET_FEATURE, "3\x004\0"), Err(EBUSY));
    assert_eq!(rig.req(guest, T::GET_FEATURE, ""), text("2\0"));
    assert_eq!(rig.store.domain(DomId(3)).unwrap().features, 2);
}

#[test]
fn a_new_configuration() {
    let mut rig = Rig::new();
    let mut config = Config { features: 14, ..Config::default() };
    config.quotas.set(crate::Quota::Watches, 1);
    rig.apply(Entry::SetConfig(config));
    let guest = rig.guest(3);
    assert_eq!(rig.req(guest, T::GET_FEATURE, ""), text("14\0"));
    rig.watch(guest, "x", "1").unwrap();
    assert_eq!(rig.watch(guest, "x", "2"), Err(ENOSPC));
}
