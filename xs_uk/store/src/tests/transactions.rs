//! Transactions.

use super::*;
use XsError::*;

#[test]
fn changes_are_private_until_the_commit() {
    let mut rig = Rig::new();
    let t = rig.start(TOOLS);
    assert_eq!(rig.tx(TOOLS, T::WRITE, t, "/a\0v"), ok());
    assert_eq!(rig.tx(TOOLS, T::READ, t, "/a\0"), text("v"));
    assert_eq!(rig.read(TOOLS, "/a"), Err(ENOENT));
    assert_eq!(rig.end(TOOLS, t, true), ok());
    assert_eq!(rig.read(TOOLS, "/a"), text("v"));
    assert_eq!(rig.tx(TOOLS, T::READ, t, "/a\0"), Err(ENOENT), "the id is gone");
}

#[test]
fn an_aborted_transaction_leaves_nothing() {
    let mut rig = Rig::new();
    let t = rig.start(TOOLS);
    rig.tx(TOOLS, T::WRITE, t, "/a\0v").unwrap();
    assert_eq!(rig.end(TOOLS, t, false), ok());
    assert_eq!(rig.read(TOOLS, "/a"), Err(ENOENT));
}

#[test]
fn a_read_node_that_changed_is_a_conflict() {
    let mut rig = Rig::new();
    rig.write(TOOLS, "/a", "a").unwrap();
    let t = rig.start(TOOLS);
    assert_eq!(rig.tx(TOOLS, T::READ, t, "/a\0"), text("a"));
    rig.write(TOOLS, "/a", "b").unwrap();
    assert_eq!(rig.tx(TOOLS, T::READ, t, "/a\0"), text("a"));
    assert_eq!(rig.tx(TOOLS, T::WRITE, t, "/a\0c"), ok());
    assert_eq!(rig.tx(TOOLS, T::READ, t, "/a\0"), text("c"));
    assert_eq!(rig.end(TOOLS, t, true), Err(EAGAIN));
    assert_eq!(rig.read(TOOLS, "/a"), text("b"));
}

#[test]
fn siblings_merge_in_order_of_commit() {
    let mut rig = Rig::new();
    rig.req(TOOLS, T::MKDIR, "/d\0").unwrap();
    let (one, two) = (rig.start(TOOLS), rig.start(TOOLS));
    rig.tx(TOOLS, T::MKDIR, one, "/d/one\0").unwrap();
    rig.tx(TOOLS, T::WRITE, two, "/d/two\0v").unwrap();
    assert_eq!(rig.end(TOOLS, two, true), ok());
    assert_eq!(rig.end(TOOLS, one, true), ok());
    assert_eq!(rig.req(TOOLS, T::DIRECTORY, "/d\0"), strings(&["two", "one"]));
}

#[test]
fn a_listed_directory_that_changed_is_a_conflict() {
    let mut rig = Rig::new();
    rig.req(TOOLS, T::MKDIR, "/d\0").unwrap();
    for (kind, payload) in [(T::DIRECTORY, "/d\0"), (T::DIRECTORY_PART, "/d\x000\0")] {
        let t = rig.start(TOOLS);
        rig.tx(TOOLS, kind, t, payload).unwrap();
        rig.write(TOOLS, &format!("/d/{}", kind.0), "").unwrap();
        rig.tx(TOOLS, T::WRITE, t, "/x\0").unwrap();
        assert_eq!(rig.end(TOOLS, t, true), Err(EAGAIN));
    }
}

#[test]
fn generations_are_unique_across_merges() {
    let mut rig = Rig::new();
    rig.req(TOOLS, T::MKDIR, "/d\0").unwrap();
    let mut seen = Vec::new();
    let mut see = |rig: &mut Rig| {
        let part = rig.req(TOOLS, T::DIRECTORY_PART, "/d\x000\0").unwrap();
        let (generation, listing) = part.split_at(part.iter().position(|byte| *byte == 0).unwrap());
        seen.push((generation.to_vec(), listing.to_vec()));
    };
    see(&mut rig);
    let t = rig.start(TOOLS);
    rig.tx(TOOLS, T::MKDIR, t, "/d/in\0").unwrap();
    rig.write(TOOLS, "/d/out", "").unwrap();
    see(&mut rig);
    rig.end(TOOLS, t, true).unwrap();
    see(&mut rig);
    rig.write(TOOLS, "/d/last", "").unwrap();
    see(&mut rig);
    for (at, one) in seen.iter().enumerate() {
        for two in &seen[at + 1..] {
            assert!(one.0 != two.0 || one.1 == two.1, "{seen:?}");
        }
    }
}

#[test]
fn directory_parts_of_own_changes_do_not_conflict() {
    let mut rig = Rig::new();
    let t = rig.start(TOOLS);
    rig.tx(TOOLS, T::MKDIR, t, "/d/e\0").unwrap();
    rig.tx(TOOLS, T::DIRECTORY_PART, t, "/d\x000\0").unwrap();
    rig.write(TOOLS, "/elsewhere", "").unwrap();
    assert_eq!(rig.end(TOOLS, t, true), ok());
}

#[test]
fn errors_are_answers_too() {
    let mut rig = Rig::new();
    let t = rig.start(TOOLS);
    assert_eq!(rig.tx(TOOLS, T::READ, t, "/late\0"), Err(ENOENT));
    rig.tx(TOOLS, T::WRITE, t, "/x\0").unwrap();
    rig.write(TOOLS, "/late", "").unwrap();
    assert_eq!(rig.end(TOOLS, t, true), Err(EAGAIN));
    assert_eq!(rig.read(TOOLS, "/x"), Err(ENOENT));
}

#[test]
fn ids_and_nesting() {
    let mut rig = Rig::new();
    let t = rig.start(TOOLS);
    assert_eq!(t, 1);
    assert_eq!(rig.start(TOOLS), 2);
    assert_eq!(rig.tx(TOOLS, T::TRANSACTION_START, t, "\0"), Err(EBUSY));
    assert_eq!(rig.tx(TOOLS, T::TRANSACTION_START, 99, "\0"), Err(ENOENT));
    assert_eq!(rig.tx(TOOLS, T::TRANSACTION_END, 0, "T\0"), Err(ENOENT));
    for bad in ["", "T", "X\0", "T\0\0"] {
        assert_eq!(rig.tx(TOOLS, T::TRANSACTION_END, t, bad), Err(EINVAL));
    }
    assert_eq!(rig.end(TOOLS, t, true), ok());
    assert_eq!(rig.start(TOOLS), 3);
}

#[test]
fn watches_fire_at_the_commit_once_for_each_node() {
    let mut rig = Rig::new();
    rig.watch(TOOLS, "/a", "t").unwrap();
    rig.events(TOOLS);
    for interfere in [false, true] {
        let t = rig.start(TOOLS);
        for value in ["1", "2", "3"] {
            rig.tx(TOOLS, T::WRITE, t, format!("/a/x\0{value}")).unwrap();
        }
        rig.tx(TOOLS, T::WRITE, t, "/a/y\0").unwrap();
        assert!(rig.events(TOOLS).is_empty());
        if interfere {
            rig.write(TOOLS, "/b", "").unwrap();
        }
        rig.end(TOOLS, t, true).unwrap();
        assert_eq!(rig.events(TOOLS), ["/a/x t", "/a/y t"]);
    }
}

#[test]
fn removal_in_a_transaction_reports_watches_below() {
    let mut rig = Rig::new();
    rig.write(TOOLS, "/a/b/c", "").unwrap();
    rig.watch(TOOLS, "/a/b/c", "low").unwrap();
    rig.watch(TOOLS, "/a", "high").unwrap();
    rig.events(TOOLS);
    for interfere in [false, true] {
        rig.write(TOOLS, "/a/b/c", "").unwrap();
        let t = rig.start(TOOLS);
        rig.tx(TOOLS, T::RM, t, "/a/b\0").unwrap();
        if interfere {
            rig.write(TOOLS, "/z", "").unwrap();
        }
        rig.events(TOOLS);
        rig.end(TOOLS, t, true).unwrap();
        assert_eq!(rig.events(TOOLS), ["/a/b/c low", "/a/b high"]);
    }
}

#[test]
fn a_failed_quota_fails_the_transaction() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    let t = rig.start(guest);
    assert_eq!(rig.tx(guest, T::WRITE, t, format!("big\0{}", "v".repeat(3000))), Err(ENOSPC));
    assert_eq!(rig.hits(), [(3, "node-size")]);
    assert_eq!(rig.tx(guest, T::WRITE, t, "x\0v"), Err(ENOSPC));
    assert_eq!(rig.tx(guest, T::READ, t, "\0"), Err(EINVAL));
    assert_eq!(rig.end(guest, t, true), Err(ENOMEM));
}

#[test]
fn node_quota_holds_across_the_commit() {
    let mut config = Config::default();
    config.quotas.set(crate::Quota::Nodes, 3);
    let mut rig = Rig::with(config);
    let guest = rig.guest_with_home(3);
    let t = rig.start(guest);
    rig.tx(guest, T::WRITE, t, "a\0").unwrap();
    rig.tx(guest, T::WRITE, t, "b\0").unwrap();
    rig.write(guest, "c", "").unwrap();
    assert_eq!(rig.end(guest, t, true), Err(ENOSPC));
    assert_eq!(rig.store.usage(DomId(3)).nodes, 2);
    assert_eq!(rig.hits(), [(3, "nodes")]);
}

#[test]
fn transactions_are_bounded() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    let ids: Vec<u32> = (0..10).map(|_| rig.start(guest)).collect();
    assert_eq!(rig.req(guest, T::TRANSACTION_START, "\0"), Err(ENOSPC));
    assert_eq!(rig.hits(), [(3, "transactions")]);
    rig.audit = false;
    rig.write(guest, "v", &"v".repeat(1000)).unwrap();
    let t = ids[0];
    let mut count = 0;
    while rig.tx(guest, T::WRITE, t, format!("v\0{count}{}", "x".repeat(1500))).is_ok() {
        count += 1;
    }
    assert!((1000..3000).contains(&count), "{count}");
    assert_eq!(rig.hits().last(), Some(&(3, "memory")));
    assert_eq!(rig.end(guest, t, true), Err(ENOMEM));
    let t = ids[1];
    for _ in 0..100_000 {
        assert_eq!(rig.tx(guest, T::READ, t, "v\0"), Err(ENOENT), "as it was at the start");
    }
    let before = rig.store.usage(DomId(3)).memory_bytes;
    assert!(before < 10_000, "repeated reads are recorded once: {before}");
    rig.req(guest, T::RESET_WATCHES, "\0").unwrap();
    assert_eq!(rig.store.usage(DomId(3)).transactions, 0);
    rig.audit = true;
    rig.apply(Entry::Noop);
}

#[test]
fn touched_nodes_are_bounded() {
    let mut rig = Rig::new();
    rig.audit = false;
    let guest = rig.guest_with_home(3);
    let t = rig.start(guest);
    let count =
        (0..2000).take_while(|at| rig.tx(guest, T::READ, t, format!("n{at}\0")) == Err(ENOENT)).count();
    assert_eq!(count, 2000, "what is not there is not touched");
    let t = rig.start(guest);
    let fine = (0..2000).take_while(|at| rig.tx(guest, T::MKDIR, t, format!("n{}/m\0", at % 990)).is_ok());
    let count = fine.count();
    assert!((300..1000).contains(&count), "{count}");
    assert_eq!(rig.hits().last().map(|hit| hit.0), Some(3));
}

#[test]
fn a_guests_recorded_requests_are_bounded() {
    let mut config = Config::default();
    config.quotas.set(crate::Quota::Memory, 0);
    config.quotas.set(crate::Quota::TransactionNodes, 0);
    let mut rig = Rig::with(config);
    rig.audit = false;
    let guest = rig.guest_with_home(3);
    let t = rig.start(guest);
    let count = (0..100_000).take_while(|at| rig.tx(guest, T::WRITE, t, format!("n\0{at}")).is_ok()).count();
    assert_eq!(count, crate::limits::GUEST_TRANSACTION_REQUESTS_MAX);
}

#[test]
fn a_domains_death_during_a_transaction() {
    let mut rig = Rig::new();
    rig.guest_with_home(3);
    rig.write(TOOLS, "/x", "").unwrap();
    let t = rig.start(TOOLS);
    rig.tx(TOOLS, T::SET_PERMS, t, "/x\0n0\0r3\0").unwrap();
    rig.tx(TOOLS, T::WRITE, t, "/local/domain/3/late\0").unwrap();
    rig.apply(Entry::DomainGone { domid: DomId(3) });
    let guest = rig.guest_with_home(3);
    assert_eq!(rig.end(TOOLS, t, true), ok());
    assert_eq!(rig.read(guest, "/x"), Err(EACCES), "the right was for the domain that died");
    let t = rig.start(TOOLS);
    rig.tx(TOOLS, T::SET_PERMS, t, "/x\0n3\0").unwrap();
    rig.apply(Entry::DomainGone { domid: DomId(3) });
    assert_eq!(rig.end(TOOLS, t, true), Err(EAGAIN));
}

/// The shell must know whom to slow: the conflict, where it was, and who may write there.
#[test]
fn a_conflict_of_a_tool_is_told_with_its_place() {
    let mut rig = Rig::new();
    let (guest, other) = (rig.guest_with_home(3), rig.guest_with_home(4));
    rig.write(guest, "x", "1").unwrap();
    let t = rig.start(TOOLS);
    let since = rig.store.applied_index() - 1;
    rig.tx(TOOLS, T::READ, t, "/local/domain/3/x\0").unwrap();
    rig.tx(TOOLS, T::WRITE, t, "/tool/y\0v").unwrap();
    rig.write(guest, "x", "2").unwrap();
    rig.effects.clear();
    assert_eq!(rig.end(TOOLS, t, true), Err(XsError::EAGAIN));
    let path = "/local/domain/3/x";
    assert!(rig.effects.contains(&Effect::Conflict { conn: TOOLS, since, path: path.into() }));
    assert!(rig.store.may_write(guest, path) && !rig.store.may_write(other, path));
    assert!(rig.store.may_write(guest, "/local/domain/3/missing") && !rig.store.may_write(guest, "/missing"));
    let t = rig.start(guest);
    rig.tx(guest, T::READ, t, "x\0").unwrap();
    rig.write(TOOLS, path, "3").unwrap();
    rig.effects.clear();
    assert_eq!(rig.end(guest, t, true), Err(XsError::EAGAIN));
    let told = rig.effects.iter().any(|effect| matches!(effect, Effect::Conflict { .. }));
    assert!(!told, "a guest's own conflicts slow nobody");
}

/// Replaces so much that every open transaction lets its tree go.
fn churn(rig: &mut Rig) {
    rig.audit = false;
    let changes = crate::limits::RETAINED_BYTES_MAX / crate::limits::CHANGE_REPLACES_BYTES;
    for number in 0..changes + 1 {
        rig.write(TOOLS, "/churn", &number.to_string()).unwrap();
    }
    rig.audit = true;
}

#[test]
fn an_old_transaction_goes_on_with_another_tree() {
    let mut rig = Rig::new();
    let guest = rig.guest_with_home(3);
    rig.write(guest, "kept", "1").unwrap();
    let t = rig.start(guest);
    assert_eq!(rig.tx(guest, T::READ, t, "kept\0"), text("1"));
    rig.tx(guest, T::WRITE, t, "own\0v").unwrap();
    churn(&mut rig);
    assert!(rig.store.conns[&guest].transactions[&t].detached);
    let (_, restored) = Store::from_snapshot(&rig.store.snapshot(rig.index).unwrap()).unwrap();
    assert_eq!(restored.digest(), rig.store.digest());
    assert_eq!(rig.tx(guest, T::READ, t, "own\0"), text("v"), "its own change is there");
    assert_eq!(rig.read(guest, "own"), Err(ENOENT), "and nobody else sees it");
    assert!(!rig.store.conns[&guest].transactions[&t].detached);
    assert_eq!(rig.end(guest, t, true), ok(), "nothing that it saw has changed");
    assert_eq!(rig.read(guest, "own"), text("v"));
}

#[test]
fn an_old_transaction_can_be_committed_without_another_request() {
    let mut rig = Rig::new();
    let t = rig.start(TOOLS);
    rig.tx(TOOLS, T::WRITE, t, "/x\0v").unwrap();
    churn(&mut rig);
    assert_eq!(rig.end(TOOLS, t, true), ok());
    assert_eq!(rig.read(TOOLS, "/x"), text("v"));
}

#[test]
fn an_old_transaction_that_saw_what_is_different_now_is_refused() {
    let mut rig = Rig::new();
    rig.write(TOOLS, "/x", "1").unwrap();
    let t = rig.start(TOOLS);
    rig.tx(TOOLS, T::READ, t, "/x\0").unwrap();
    rig.tx(TOOLS, T::WRITE, t, "/y\0v").unwrap();
    rig.write(TOOLS, "/x", "2").unwrap();
    churn(&mut rig);
    assert_eq!(rig.tx(TOOLS, T::READ, t, "/y\0"), text("v"), "its client does not notice yet");
    let (_, restored) = Store::from_snapshot(&rig.store.snapshot(rig.index).unwrap()).unwrap();
    assert_eq!(restored.digest(), rig.store.digest());
    rig.effects.clear();
    assert_eq!(rig.end(TOOLS, t, true), Err(EAGAIN));
    assert!(
        rig.effects.iter().any(|effect| matches!(effect, Effect::Conflict { path, .. } if &**path == "/x"))
    );
    assert_eq!(rig.read(TOOLS, "/y"), Err(ENOENT));
}

/// Creating and removing deep nodes in a transaction again and again kept them all for the events, uncharged.
#[test]
fn what_a_transaction_creates_and_removes_is_charged_each_time() {
    let mut rig = Rig::new();
    rig.audit = false;
    let guest = rig.guest_with_home(3);
    let t = rig.start(guest);
    let deep = vec!["a"; 500].join("/");
    let rounds = (0..10_000).find(|_| {
        rig.tx(guest, T::WRITE, t, format!("{deep}\0")).is_err() || rig.tx(guest, T::RM, t, "a\0").is_err()
    });
    let kept = rounds.unwrap() as usize * 500 * crate::limits::CREATED_OVERHEAD_BYTES;
    assert!(kept <= 2560 * 1024, "{kept} bytes");
}
