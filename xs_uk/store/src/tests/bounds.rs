//! Every bound of privileged clients is reached here; those of guests are tested where they belong.

use super::*;
use crate::limits;
use XsError::*;

#[test]
fn a_store_can_be_sent_to_another_thread() {
    fn sendable<S: Send>(_: &S) {}
    sendable(&Store::new(Config::default()));
}

#[test]
fn open_transactions_of_tools() {
    let mut rig = Rig::new();
    rig.audit = false;
    for _ in 0..limits::PRIVILEGED_TRANSACTIONS_MAX {
        rig.start(TOOLS);
    }
    assert_eq!(rig.req(TOOLS, T::TRANSACTION_START, "\0"), Err(ENOSPC));
}

#[test]
fn watches_of_tools() {
    let mut rig = Rig::new();
    rig.audit = false;
    let mut effects = Vec::new();
    for number in 0..limits::PRIVILEGED_WATCHES_MAX as u64 {
        let payload = format!("/w/{}\0{number}\0", number % 1000);
        let header = Rig::header(T::WATCH, 0, payload.as_bytes());
        let payload = payload.as_bytes();
        let entry = crate::EntryRef::Request {
            conn: TOOLS,
            seq: number + 1,
            header,
            payload,
            verdict: None,
            ring_conn: None,
        };
        rig.index += 1;
        rig.store.apply(rig.index, entry, &mut effects);
        rig.store.trim(TOOLS, u64::MAX);
        effects.clear();
    }
    rig.seq = rig.index;
    assert_eq!(rig.watch(TOOLS, "/w", "more"), Err(ENOSPC));
    rig.write(TOOLS, "/w/7", "").unwrap();
    assert_eq!(rig.events(TOOLS).len(), limits::PRIVILEGED_WATCHES_MAX / 1000 + 1);
}

#[test]
fn nodes_and_bytes_of_all() {
    let mut rig = Rig::new();
    rig.audit = false;
    rig.write(TOOLS, "/a", "").unwrap();
    let (nodes, bytes) = (rig.store.domains.nodes(), rig.store.domains.node_bytes());
    rig.store.domains.count(limits::NODES_MAX - 1, bytes);
    assert_eq!(rig.write(TOOLS, "/b/c", ""), Err(ENOSPC));
    assert_eq!(rig.write(TOOLS, "/b", ""), ok());
    assert_eq!(rig.write(TOOLS, "/c", ""), Err(ENOSPC));
    rig.store.domains.count(nodes + 1, limits::NODE_BYTES_MAX - 1);
    assert_eq!(rig.write(TOOLS, "/a", "vv"), Err(ENOSPC));
    assert_eq!(rig.write(TOOLS, "/a", "v"), ok());
    rig.rm(TOOLS, "/a").unwrap();
    rig.rm(TOOLS, "/b").unwrap();
    assert!(bytes > 0);
}

#[test]
fn transactions_of_tools() {
    let mut rig = Rig::new();
    rig.audit = false;
    let t = rig.start(TOOLS);
    let transaction = |rig: &mut Rig, edit: &dyn Fn(&mut crate::transaction::Transaction)| {
        edit(rig.store.conns.get_mut(&TOOLS).unwrap().transactions.get_mut(&t).unwrap());
    };
    rig.tx(TOOLS, T::WRITE, t, "/a\0").unwrap();
    let record = {
        let conn = &rig.store.conns[&TOOLS];
        conn.transactions[&t].records[0].clone()
    };
    transaction(&mut rig, &|transaction| {
        transaction.records = vec![record.clone(); limits::PRIVILEGED_TRANSACTION_REQUESTS_MAX - 1];
        transaction.seal_again();
    });
    assert_eq!(rig.tx(TOOLS, T::WRITE, t, "/a\0"), ok());
    assert_eq!(rig.tx(TOOLS, T::WRITE, t, "/a\0"), Err(ENOSPC));
    assert_eq!(rig.end(TOOLS, t, true), Err(ENOMEM));
}

#[test]
fn touched_nodes_and_bytes_of_tools() {
    for bytes in [false, true] {
        let mut rig = Rig::new();
        rig.audit = false;
        let t = rig.start(TOOLS);
        rig.tx(TOOLS, T::WRITE, t, "/a\0").unwrap();
        let conn = rig.store.conns.get_mut(&TOOLS).unwrap();
        let transaction = conn.transactions.get_mut(&t).unwrap();
        if bytes {
            transaction.bytes += limits::PRIVILEGED_TRANSACTION_BYTES_MAX as u64;
            let more = limits::PRIVILEGED_TRANSACTION_BYTES_MAX as u64;
            conn.transaction_bytes.set(conn.transaction_bytes.get() + more);
        } else {
            let more = 0..limits::PRIVILEGED_TRANSACTION_NODES_MAX;
            transaction.touched.extend(more.map(|number| number.to_string().into_boxed_str()));
        }
        transaction.seal_again();
        assert_eq!(rig.tx(TOOLS, T::WRITE, t, "/b\0"), Err(ENOSPC));
        assert_eq!(rig.end(TOOLS, t, true), Err(ENOMEM));
    }
}

#[test]
fn garbage_does_not_pile_up() {
    let mut rig = Rig::new();
    rig.audit = false;
    let deep = "/a".repeat(1536);
    for _ in 0..40 {
        rig.write(TOOLS, &deep, "").unwrap();
        rig.rm(TOOLS, "/a").unwrap();
        assert!(rig.store.garbage.due() < 1536, "no more than a few removals wait");
    }
    for _ in 0..40 {
        rig.apply(Entry::Noop);
    }
    assert!(!rig.store.free_garbage(0));
}

#[test]
fn events_of_one_entry_for_tools() {
    let mut rig = Rig::new();
    rig.audit = false;
    for number in 0..100 {
        rig.watch(TOOLS, "/x", &format!("{number:03000}")).unwrap();
    }
    rig.inbox.clear();
    let t = rig.start(TOOLS);
    for number in 0..300 {
        rig.tx(TOOLS, T::MKDIR, t, format!("/x/{number}\0")).unwrap();
    }
    rig.end(TOOLS, t, true).unwrap();
    assert!(rig.effects.contains(&Effect::EventsDropped(TOOLS)));
    let bytes: usize = rig.events(TOOLS).iter().map(|event| event.len() + 17).sum();
    assert!(bytes <= limits::PRIVILEGED_ENTRY_EVENT_BYTES_MAX);
    assert!(bytes > limits::PRIVILEGED_ENTRY_EVENT_BYTES_MAX - 4096);
    let told = rig.effects.iter().filter(|effect| matches!(effect, Effect::Backlog { .. })).count();
    assert_eq!(told, 0, "the bound of one entry is that of the backlog");
}
