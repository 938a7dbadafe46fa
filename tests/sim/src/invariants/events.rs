//! No event is lost, comes twice or comes in another order.
//!
//! `docs/misc/xenstore.txt` in Xen, WATCH; `docs/ARCHITECTURE.md`, "Deaths" (clients see latency). Each name below /e is
//! written once, after all watches were set; so each client must hear of each acknowledged one exactly once, and in
//! the order of the log.

use std::collections::{BTreeMap, BTreeSet};

use xs_protocol::MessageType;
use xs_store::EntryRef;

use crate::facts::Facts;

pub(super) fn check(facts: &Facts) -> Vec<String> {
    if facts.listed.is_empty() {
        // It did not come to the end; `recovery` says so.
        return Vec::new();
    }
    let order = order(facts);
    let mut wrong = Vec::new();
    for (client, heard) in &facts.events {
        let mut seen = BTreeSet::new();
        let mut last = 0;
        for name in heard {
            if !seen.insert(name.clone()) {
                wrong.push(format!("client {client} hears of {name} twice"));
            }
            match order.get(name) {
                Some(index) if *index < last => {
                    wrong.push(format!("client {client} hears of {name} too late"))
                }
                Some(index) => last = *index,
                None => wrong.push(format!("client {client} hears of {name}, which is not in the log")),
            }
        }
        for name in facts.acknowledged.difference(&seen) {
            wrong.push(format!("client {client} does not hear of {name}"));
        }
    }
    wrong
}

/// Where in the log each name was first written.
fn order(facts: &Facts) -> BTreeMap<String, u64> {
    let mut order = BTreeMap::new();
    for (index, bytes) in &facts.entries {
        if let Ok(EntryRef::Request { header, payload, .. }) = EntryRef::decode(bytes)
            && header.kind == MessageType::WRITE
            && let Some(name) =
                payload.split(|byte| *byte == 0).next().and_then(|path| path.strip_prefix(b"/e/"))
        {
            order.entry(String::from_utf8_lossy(name).into_owned()).or_insert(*index);
        }
    }
    order
}
