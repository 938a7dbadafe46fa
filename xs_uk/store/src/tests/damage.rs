//! Damage of every kind: what depends on it is refused, what does not is answered, and what can be mended is.

use std::sync::Arc;

use sanity::vote::Claim;
use xs_protocol::{Access, Path};

use super::*;
use crate::{
    Damage, NodeCopy, Part, ScrubPlace, StoreError,
    mend::node_mut,
    node::{Node, tests::grant},
    transaction::Transaction,
};

/// A store with small and large directories.
fn rig() -> Rig {
    let mut rig = Rig::new();
    for name in ["a", "b", "c/d", "c/e", "lost/x"] {
        rig.write(TOOLS, &format!("/{name}"), &format!("value of {name}")).unwrap();
    }
    for number in 0..300 {
        rig.write(TOOLS, &format!("/large/n{number}"), "v").unwrap();
    }
    rig.perms(TOOLS, "/a", "n0,r3").unwrap();
    rig.audit = false;
    rig
}

fn path(text: &str) -> Path<'_> {
    Path::parse(text.as_bytes()).unwrap()
}

/// Changes a node in place, as a flipped bit does: no sum notices.
fn hurt(rig: &mut Rig, at: &str, change: impl FnOnce(&mut Node)) {
    change(node_mut(&mut rig.store.tree, path(at)).unwrap());
}

fn try_read(store: &Store, kind: T, payload: &str) -> Result<Answer, Damage> {
    let mut out = Vec::new();
    let header = Rig::header(kind, 0, payload.as_bytes());
    let done = store.read(TOOLS, &header, payload.as_bytes(), &mut out);
    assert_eq!(done.is_err(), out.is_empty(), "nothing of a damaged answer is there");
    done.map(|()| answer(&out))
}

fn damaged(at: &str, part: Part) -> Damage {
    Damage { path: at.to_owned(), part }
}

fn refuses(rig: &Rig, kind: T, payload: &str, at: &str, part: Part) {
    assert_eq!(try_read(&rig.store, kind, payload), Err(damaged(at, part)), "{kind:?} {payload}");
}

fn answers(rig: &Rig, kind: T, payload: &str) {
    assert!(try_read(&rig.store, kind, payload).is_ok(), "{kind:?} {payload}");
}

type Change = fn(&mut Node);

/// Damage of a node's content.
const CONTENT: [Change; 7] = [
    |node| node.value = Arc::from(&b"value of A"[..]),
    |node| node.acl = Arc::new([grant(0, Access::None), grant(3, Access::Both)]),
    |node| node.acl = Arc::new([grant(1, Access::None), grant(3, Access::Read)]),
    |node| node.acl = Arc::new([grant(0, Access::None)]),
    |node| node.generation ^= 1 << 40,
    |node| node.acl_generation ^= 1,
    |node| node.own.0[31] ^= 128,
];

#[test]
fn content_is_verified_with_each_answer() {
    for change in CONTENT {
        let mut rig = rig();
        hurt(&mut rig, "/a", change);
        for kind in [T::READ, T::GET_PERMS, T::DIRECTORY] {
            refuses(&rig, kind, "/a\0", "/a", Part::Node);
        }
        refuses(&rig, T::DIRECTORY_PART, "/a\x000\0", "/a", Part::Node);
        refuses(&rig, T::READ, "/a/none/below\0", "/a", Part::Node);
        for fine in ["/b\0", "/c/d\0", "/none\0", "/large/n7\0"] {
            answers(&rig, T::READ, fine);
        }
        answers(&rig, T::DIRECTORY, "/\0");
    }
}

#[test]
fn content_is_verified_before_and_while_an_entry_is_applied() {
    for (kind, payload) in [
        (T::WRITE, "/a\0new"),
        (T::MKDIR, "/a\0"),
        (T::WRITE, "/a/below/it\0new"),
        (T::RM, "/a\0"),
        (T::SET_PERMS, "/a\0n0\0"),
    ] {
        for change in CONTENT {
            let mut rig = rig();
            hurt(&mut rig, "/a", change);
            let header = Rig::header(kind, 0, payload.as_bytes());
            let found = rig.store.examine(TOOLS, &header, payload.as_bytes());
            assert_eq!(found, Err(damaged("/a", Part::Node)), "{kind:?}");
            let before = rig.inbox.len();
            rig.apply(request(&rig, kind, 0, payload));
            assert_eq!(rig.store.damage(), Some(&damaged("/a", Part::Node)), "{kind:?}");
            assert_eq!(rig.inbox.len(), before, "no answer to {kind:?}");
            let index = rig.store.applied_index();
            rig.apply(request(&rig, T::WRITE, 0, "/b\0"));
            assert_eq!(rig.store.applied_index(), index, "nothing more is applied");
        }
    }
}

fn request(rig: &Rig, kind: T, tx_id: u32, payload: &str) -> Entry {
    Entry::Request {
        conn: TOOLS,
        seq: rig.seq + 1000,
        header: Rig::header(kind, tx_id, payload.as_bytes()),
        payload: payload.into(),
        verdict: None,
        ring_conn: None,
    }
}

#[test]
fn a_wrong_pointer_leads_to_a_node_of_another_path() {
    for directory in ["/c", "/large"] {
        let (one, two) = if directory == "/c" { ("d", "e") } else { ("n7", "n8") };
        let mut rig = rig();
        hurt(&mut rig, directory, |node| {
            let children = node.children_mut();
            let first = Arc::clone(children.get(one).unwrap());
            let second = std::mem::replace(children.get_mut(two).unwrap(), first);
            *children.get_mut(one).unwrap() = second;
        });
        for name in [one, two] {
            refuses(
                &rig,
                T::READ,
                &format!("{directory}/{name}\0"),
                &format!("{directory}/{name}"),
                Part::Node,
            );
        }
        answers(&rig, T::DIRECTORY, &format!("{directory}\0"));
        let copy =
            NodeCopy::decode(&self::rig().store.copy_of(&format!("{directory}/{one}")).encode()).unwrap();
        let mended = rig.store.mend(&format!("{directory}/{one}"), &copy);
        assert!(matches!(mended, Err(StoreError::Unmendable { .. })), "{mended:?}");
    }
}

#[test]
fn a_changed_name_is_neither_listed_nor_missing() {
    for (directory, name, other) in [("/c", "d", "e"), ("/large", "n7", "n8")] {
        let mut rig = rig();
        hurt(&mut rig, directory, |node| {
            node.children_mut().child_to_damage(name).name = "x".into();
        });
        refuses(&rig, T::READ, &format!("{directory}/{name}\0"), directory, Part::Listing);
        answers(&rig, T::READ, &format!("{directory}/{other}\0"));
        answers(&rig, T::READ, "/none\0");
        let header = Rig::header(T::WRITE, 0, b"");
        let payload = format!("{directory}/{name}\0v");
        let found = rig.store.examine(TOOLS, &header, payload.as_bytes());
        assert_eq!(found, Err(damaged(directory, Part::Listing)));
        rig.apply(request(&rig, T::RM, 0, &format!("{directory}/{name}\0")));
        assert_eq!(rig.store.damage(), Some(&damaged(directory, Part::Listing)));
    }
}

#[test]
fn a_lost_child_is_not_missing() {
    for (directory, name) in [("/c", "d"), ("/large", "n7")] {
        let mut rig = rig();
        hurt(&mut rig, directory, |node| node.children_mut().lose(name, false));
        let at = format!("{directory}/{name}");
        refuses(&rig, T::READ, &format!("{at}\0"), directory, Part::Listing);
        assert_eq!(rig.store.claims(&at), Claim::Damaged.into());
        assert_eq!(rig.store.copy_of(&at).claim(), Claim::Damaged);
    }
    let mut rig = rig();
    hurt(&mut rig, "/large", |node| node.children_mut().lose("n7", true));
    refuses(&rig, T::DIRECTORY_PART, "/large\x000\0", "/large", Part::Listing);
    refuses(&rig, T::DIRECTORY, "/large\0", "/large", Part::Listing);
}

#[test]
fn counts_of_a_listing_are_verified() {
    let changes: [Change; 3] = [
        |node| node.children_mut().weight_to_damage().bytes ^= 4,
        |node| node.children_mut().weight_to_damage().count ^= 1,
        |node| node.children_mut().weight_to_damage().sum ^= 1 << 100,
    ];
    for change in changes {
        for directory in ["/c", "/large"] {
            let mut rig = rig();
            hurt(&mut rig, directory, change);
            for kind in [T::READ, T::DIRECTORY] {
                refuses(&rig, kind, &format!("{directory}\0"), directory, Part::Node);
            }
            refuses(&rig, T::READ, &format!("{directory}/none\0"), directory, Part::Node);
        }
    }
}

#[test]
fn sums_are_verified_before_they_change() {
    let changes: [Change; 3] = [
        |node| node.frame.sum.0[2] ^= 1 << 50,
        |node| node.frame.domains_hint ^= 1 << 9,
        |node| node.seal ^= 1,
    ];
    for change in changes {
        let mut rig = rig();
        hurt(&mut rig, "/c", change);
        answers(&rig, T::READ, "/c/d\0");
        let header = Rig::header(T::WRITE, 0, b"");
        assert_eq!(rig.store.examine(TOOLS, &header, b"/c/d\0new"), Err(damaged("/c", Part::Sum)));
        assert_eq!(rig.store.examine(TOOLS, &header, b"/b\0new"), Ok(()));
        let mut found = scrub_round(&rig.store);
        found.dedup();
        assert_eq!(found, [damaged("/c", Part::Sum)]);
        rig.apply(request(&rig, T::WRITE, 0, "/c/d\0new"));
        assert_eq!(rig.store.damage(), Some(&damaged("/c", Part::Sum)));
    }
}

#[test]
fn a_removal_uses_no_damaged_sum() {
    let mut rig = rig();
    hurt(&mut rig, "/lost", |node| node.frame.sum.0[0] ^= 1);
    rig.apply(request(&rig, T::RM, 0, "/lost\0"));
    assert_eq!(rig.store.damage(), Some(&damaged("/lost", Part::Sum)));
}

#[test]
fn special_nodes_are_verified() {
    let mut rig = rig();
    hurt(&mut rig, "@releaseDomain", |node| node.generation ^= 1);
    refuses(&rig, T::GET_PERMS, "@releaseDomain\0", "@releaseDomain", Part::Node);
    answers(&rig, T::GET_PERMS, "@introduceDomain\0");
    rig.guest(5);
    rig.apply(Entry::DomainGone { domid: DomId(5) });
    assert_eq!(rig.store.damage(), Some(&damaged("@releaseDomain", Part::Node)));
}

#[test]
fn transactions_verify_their_own_tree() {
    let mut rig = rig();
    let t = rig.start(TOOLS);
    rig.tx(TOOLS, T::WRITE, t, "/b\0x").unwrap();
    let conn = rig.store.conns.get_mut(&TOOLS).unwrap();
    let tree = &mut conn.transactions.get_mut(&t).unwrap().tree;
    node_mut(tree, path("/a")).unwrap().value = Arc::default();
    answers(&rig, T::READ, "/a\0");
    let header = Rig::header(T::READ, t, b"");
    assert_eq!(rig.store.examine(TOOLS, &header, b"/a\0"), Err(damaged("/a", Part::Node)));
    rig.apply(request(&rig, T::READ, t, "/a\0"));
    assert_eq!(rig.store.damage(), Some(&damaged("/a", Part::Node)));
}

#[test]
fn a_commit_that_is_executed_again_is_examined() {
    let mut rig = rig();
    let t = rig.start(TOOLS);
    rig.tx(TOOLS, T::WRITE, t, "/a\0x").unwrap();
    rig.write(TOOLS, "/b", "since").unwrap();
    hurt(&mut rig, "/a", |node| node.generation ^= 1);
    let header = Rig::header(T::TRANSACTION_END, t, b"");
    assert_eq!(rig.store.examine(TOOLS, &header, b"T\0"), Err(damaged("/a", Part::Node)));
    rig.apply(request(&rig, T::TRANSACTION_END, t, "T\0"));
    assert_eq!(rig.store.damage(), Some(&damaged("/a", Part::Node)));
}

/// All damage that a round of the scrubber finds, some nodes at a time.
fn scrub_round(store: &Store) -> Vec<Damage> {
    let (mut place, mut found, mut checked) = (ScrubPlace::default(), Vec::new(), 0);
    loop {
        let report = store.scrub(&mut place, 7);
        found.extend(report.damage);
        checked += report.checked;
        if report.finished_round {
            let nodes = store.tree.root.frame.tally.nodes();
            assert_eq!(checked as u64, nodes, "every node but the special ones, once");
            return found;
        }
    }
}

#[test]
fn scrubbing_finds_all_damage() {
    let mut rig = rig();
    assert_eq!(scrub_round(&rig.store), []);
    hurt(&mut rig, "/c/e", |node| node.value = Arc::default());
    hurt(&mut rig, "/large/n250", |node| node.own.0[0] ^= 1);
    hurt(&mut rig, "@introduceDomain", |node| node.acl_generation ^= 2);
    hurt(&mut rig, "/large", |node| node.children_mut().child_to_damage("n3").number ^= 1 << 20);
    let found = scrub_round(&rig.store);
    let expected = [
        damaged("/c/e", Part::Node),
        damaged("/large", Part::Listing),
        damaged("/large/n250", Part::Node),
        damaged("@introduceDomain", Part::Node),
    ];
    assert_eq!(found, expected);
}

#[test]
fn scrubbing_goes_on_while_the_tree_changes() {
    let mut rig = rig();
    let mut place = ScrubPlace::default();
    for number in 0..400 {
        let report = rig.store.scrub(&mut place, 3);
        assert_eq!(report.damage, None);
        rig.rm(TOOLS, &format!("/large/n{}", number * 7 % 300)).unwrap();
        rig.write(TOOLS, &format!("/more/{number}/x"), "").unwrap();
        if number % 50 == 0 {
            rig.rm(TOOLS, "/more").unwrap();
        }
    }
    rig.audit = true;
    rig.write(TOOLS, "/b", "").unwrap();
}

#[test]
fn content_is_mended_from_a_copy() {
    for change in CONTENT {
        let mut clean = rig();
        clean.start(TOOLS);
        let mut rig = rig();
        let t = rig.start(TOOLS);
        hurt(&mut rig, "/a", change);
        // The transaction sees the same node, and is mended too.
        let conn = rig.store.conns.get_mut(&TOOLS).unwrap();
        conn.transactions.get_mut(&t).unwrap().tree = rig.store.tree.clone();
        let claims = rig.store.claims("/a");
        assert_ne!(claims.stored, claims.recomputed);
        assert_eq!(rig.store.copy_of("/a").claim(), Claim::Damaged);
        let copy = NodeCopy::decode(&clean.store.copy_of("/a").encode()).unwrap();
        rig.store.mend("/a", &copy).unwrap();
        assert_eq!(rig.store.claims("/a"), copy.claim().into());
        assert_eq!(rig.store.root(), clean.store.root());
        rig.tx(TOOLS, T::WRITE, t, "/a\0in").unwrap();
        rig.audit = true;
        rig.write(TOOLS, "/a", "new").unwrap();
        assert_eq!(scrub_round(&rig.store), []);
    }
}

#[test]
fn what_a_copy_cannot_put_right_is_not_mended() {
    let clean = rig();
    let copy = clean.store.copy_of("/c");
    let unmendable = |rig: &mut Rig, at: &str, copy: &NodeCopy| {
        let root = rig.store.root();
        let result = rig.store.mend(at, copy);
        assert!(matches!(result, Err(StoreError::Unmendable { .. })), "{result:?}");
        assert_eq!(rig.store.root(), root);
    };
    let changes: [Change; 4] = [
        |node| node.children_mut().lose("d", false),
        |node| node.children_mut().weight_to_damage().count += 1,
        |node| node.frame.sum.0[0] ^= 8,
        |node| node.seal ^= 8,
    ];
    for change in changes {
        let mut rig = rig();
        hurt(&mut rig, "/c", change);
        unmendable(&mut rig, "/c", &copy);
    }
    let mut rig = rig();
    unmendable(&mut rig, "/a", &copy);
    unmendable(&mut rig, "/none", &copy);
    unmendable(&mut rig, "no path", &copy);
    let missing = rig.store.copy_of("/none");
    assert_eq!(missing.claim(), Claim::Missing);
    unmendable(&mut rig, "/c", &missing);
}

#[test]
fn no_snapshot_of_a_damaged_store() {
    let mut rig = rig();
    hurt(&mut rig, "/large/n9", |node| node.value = Arc::default());
    assert_eq!(rig.store.snapshot(rig.index), Err(damaged("/large/n9", Part::Node)));
}

#[test]
fn roots_cover_replies_and_events() {
    let mut one = rig();
    let mut two = rig();
    assert_eq!(one.store.root(), two.store.root());
    one.watch(TOOLS, "/none", "t").unwrap();
    assert_ne!(one.store.root(), two.store.root());
    two.watch(TOOLS, "/none", "t").unwrap();
    assert_eq!(one.store.root(), two.store.root());
    // Watches that were lost with all that knows of them are seen when their events are missing.
    two.store.watches = crate::watch::Watches::default();
    assert_eq!(one.store.root(), two.store.root());
    one.write(TOOLS, "/none", "").unwrap();
    two.write(TOOLS, "/none", "").unwrap();
    assert_ne!(one.store.root(), two.store.root());
}

#[test]
fn who_asks_is_verified() {
    let changes: [fn(&mut crate::node::Actor); 4] = [
        |actor| actor.privileged = true,
        |actor| actor.domid = DomId(4),
        |actor| actor.generation = 0,
        |actor| actor.target = Some((DomId(0), 0)),
    ];
    for change in changes {
        let mut rig = rig();
        let guest = rig.guest_with_home(3);
        change(&mut rig.store.conns.get_mut(&guest).unwrap().actor);
        client_is_refused(&mut rig, guest, &damaged(&guest.0.to_string(), Part::Connection));
    }
}

#[test]
fn what_a_domain_may_is_verified() {
    let changes: [fn(&mut crate::domain::Domain); 6] = [
        |domain| domain.nodes ^= 64,
        |domain| domain.held_bytes ^= 1 << 40,
        |domain| domain.generation ^= 1,
        |domain| domain.privileged = true,
        |domain| domain.quotas.set(crate::Quota::Nodes, 1001),
        |domain| domain.features ^= 8,
    ];
    for change in changes {
        let mut rig = rig();
        let guest = rig.guest_with_home(3);
        change(rig.store.domains.raw(DomId(3)));
        client_is_refused(&mut rig, guest, &damaged("3", Part::Domain));
    }
}

/// Such answers come from no node and are not in the log, so no comparison of roots would ever see them.
#[test]
fn answers_about_domains_are_verified() {
    let damage: [fn(&mut Rig); 2] = [
        |rig| rig.store.domains.raw(DomId(3)).introduced ^= true,
        |rig| rig.store.domains.rekey(DomId(3), DomId(7)),
    ];
    for damage in damage {
        let mut rig = rig();
        let guest = rig.guest_with_home(3);
        damage(&mut rig);
        for (kind, payload) in [
            (T::IS_DOMAIN_INTRODUCED, "3\0"),
            (T::GET_QUOTA, "3\0nodes\0"),
            (T::GET_FEATURE, "3\0"),
            (T::CONTROL, "quota\x003\0"),
        ] {
            assert_eq!(try_read(&rig.store, kind, payload).unwrap_err().part, Part::Domain, "{kind:?}");
        }
        let header = Rig::header(T::RELEASE, 0, b"3\0");
        assert_eq!(rig.store.examine(TOOLS, &header, b"3\0").unwrap_err().part, Part::Domain);
        // Its quotas are not taken for none.
        let header = Rig::header(T::READ, 0, b"/a\0");
        assert_eq!(rig.store.read(guest, &header, b"/a\0", &mut Vec::new()).unwrap_err().part, Part::Domain);
        assert!(!scrub_round(&rig.store).is_empty());
    }
}

#[test]
fn who_gets_an_event_is_verified() {
    for kind in [T::WRITE, T::RM] {
        let mut rig = rig();
        let guest = rig.guest_with_home(3);
        rig.watch(guest, "/c/d", "t").unwrap();
        rig.store.conns.get_mut(&guest).unwrap().actor.privileged = true;
        let payload = if kind == T::RM { "/c\0" } else { "/c/d\0new" };
        let entry = request(&rig, kind, 0, payload);
        rig.apply(entry);
        assert_eq!(rig.store.damage().map(|damage| damage.part), Some(Part::Connection), "{kind:?}");
    }
}

/// A snapshot takes watches without their checksums, so a lost one would be lost for all who start from it.
#[test]
fn no_snapshot_is_taken_of_lost_or_changed_watches() {
    let changes: [fn(&mut Rig); 3] = [
        |rig| rig.store.watches.at_mut(path("/c/d")).clear(),
        |rig| rig.store.watches.at_mut(path("/c/d")).first_entry().unwrap().get_mut().token = Arc::default(),
        |rig| rig.store.conns.get_mut(&TOOLS).unwrap().watches.clear(),
    ];
    for change in changes {
        let mut rig = rig();
        rig.watch(TOOLS, "/c/d", "t").unwrap();
        assert!(rig.store.snapshot(rig.store.applied_index()).is_ok());
        change(&mut rig);
        let refused = rig.store.snapshot(rig.store.applied_index()).unwrap_err();
        assert_eq!(refused.part, Part::Watch);
    }
}

#[test]
fn the_configuration_is_verified() {
    let mut rig = rig();
    rig.store.config.privileged_domid = DomId(2);
    refuses(&rig, T::READ, "/a\0", "/", Part::Config);
    assert_eq!(scrub_round(&rig.store), [damaged("/", Part::Config)]);
}

#[test]
fn what_a_transaction_keeps_is_verified() {
    let changes: [fn(&mut Transaction); 6] = [
        |transaction| transaction.records[0].payload[1] ^= 1,
        |transaction| transaction.records[0].mark.error ^= true,
        |transaction| transaction.changes[0].0 = "/b".into(),
        |transaction| transaction.failed = true,
        |transaction| transaction.bytes ^= 1 << 20,
        |transaction| transaction.deltas.add(DomId(0), 1, 1),
    ];
    for change in changes {
        let mut rig = rig();
        let t = rig.start(TOOLS);
        rig.tx(TOOLS, T::WRITE, t, "/a\0new").unwrap();
        // Somebody else's change: the commit executes the list again.
        rig.write(TOOLS, "/b", "other").unwrap();
        change(rig.store.conns.get_mut(&TOOLS).unwrap().transactions.get_mut(&t).unwrap());
        let header = Rig::header(T::TRANSACTION_END, t, b"T\0");
        let seen = rig.store.examine(TOOLS, &header, b"T\0").unwrap_err();
        assert_eq!(seen.part, Part::Transaction);
        assert!(rig.store.snapshot(rig.store.applied_index()).is_err(), "nor is it saved");
        let end = request(&rig, T::TRANSACTION_END, t, "T\0");
        rig.apply(end);
        assert_eq!(rig.store.damage().map(|damage| damage.part), Some(Part::Transaction));
        answers(&rig, T::READ, "/a\0");
    }
}

#[test]
fn a_damaged_message_is_not_let_out() {
    let mut rig = rig();
    rig.store.conns.get_mut(&TOOLS).unwrap().outbox.push(crate::outbox::Kind::Event, b"an event");
    assert!(rig.store.verified_outbox(TOOLS).all(|waiting| waiting.is_ok()));
    rig.store.conns.get_mut(&TOOLS).unwrap().outbox.flip(3);
    let damage = damaged(&TOOLS.0.to_string(), Part::Outbox);
    assert_eq!(rig.store.verified_outbox(TOOLS).last(), Some(Err(damage)));
}

fn client_is_refused(rig: &mut Rig, guest: ConnId, damage: &Damage) {
    let header = Rig::header(T::READ, 0, b"");
    let mut out = Vec::new();
    assert_eq!(rig.store.read(guest, &header, b"/a\0", &mut out).as_ref(), Err(damage));
    let header = Rig::header(T::WRITE, 0, b"");
    assert_eq!(rig.store.examine(guest, &header, b"x\0v").as_ref(), Err(damage));
    assert_eq!(scrub_round(&rig.store), std::slice::from_ref(damage));
    answers(rig, T::READ, "/a\0");
    let mut entry = request(rig, T::WRITE, 0, "x\0v");
    if let Entry::Request { conn, .. } = &mut entry {
        *conn = guest;
    }
    rig.apply(entry);
    assert_eq!(rig.store.damage(), Some(damage));
}

#[test]
fn lost_and_changed_watches_are_seen_when_they_are_to_fire() {
    let changes: [fn(&mut crate::watch::Watches); 3] = [
        |watches| watches.at_mut(path("/c/d")).clear(),
        |watches| watches.lose(path("/c/d")),
        |watches| watches.at_mut(path("/c/d")).first_entry().unwrap().get_mut().conn.0 ^= 1,
    ];
    for (change, kind) in changes.into_iter().flat_map(|change| [(change, T::WRITE), (change, T::RM)]) {
        let mut rig = rig();
        rig.watch(TOOLS, "/c/d", "t").unwrap();
        rig.watch(TOOLS, "/a", "t").unwrap();
        change(&mut rig.store.watches);
        rig.apply(request(&rig, T::WRITE, 0, "/a\0new"));
        assert_eq!(rig.store.damage(), None);
        assert_eq!(scrub_round(&rig.store).len(), 1);
        let payload = if kind == T::RM { "/c\0" } else { "/c/d\0new" };
        rig.seq += 1;
        rig.apply(request(&rig, kind, 0, payload));
        assert_eq!(rig.store.damage().map(|damage| damage.part), Some(Part::Watch), "{kind:?}");
    }
}
