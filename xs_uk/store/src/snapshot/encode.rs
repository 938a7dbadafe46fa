//! From a store to the messages of a snapshot.

use std::{collections::HashMap, sync::Arc};

use xs_protocol::{DomId, MessageType};

use super::{VERSION, wire::*};
use crate::{
    ConnId, Damage, Peer, Store,
    connection::Connection,
    domain::Domain,
    node::{Acl, Node},
    ops::{Change, View},
    outbox::{Kind, Outbox},
    scrub::scrub_node,
    transaction::{Mark, Transaction},
    tree::{INTRODUCE_DOMAIN, RELEASE_DOMAIN, Tree, join},
};

#[derive(Default)]
pub(super) struct Encoder {
    /// Undelivered messages and trees of transactions too.
    whole: bool,
    acls: HashMap<WireAcl, u32>,
    acl_list: Vec<WireAcl>,
    /// Places of nodes by their address; the nodes outlive the encoder.
    places: HashMap<*const Node, u64>,
    nodes: Vec<WireNode>,
    /// The first damage that was met.
    pub damage: Option<Damage>,
}

impl Encoder {
    /// For a snapshot, or without what a digest leaves out.
    pub fn new(whole: bool) -> Encoder {
        Encoder { whole, ..Encoder::default() }
    }

    pub fn store(&mut self, store: &Store, index: u64) -> WireStore {
        // A snapshot's records are sealed anew where it is loaded.
        self.note(store.verify_records());
        self.note(store.verify_watches());
        for id in store.conns.keys() {
            self.note(store.verified_outbox(*id).try_for_each(|waiting| waiting.map(drop)));
        }
        let tree = self.tree(&store.tree);
        let connections = store.conns.iter().map(|(id, conn)| self.connection(store, *id, conn)).collect();
        WireStore {
            version: VERSION,
            index,
            config: Some(store.config.to_wire()),
            tree: Some(tree),
            domains: store.domains.iter().map(|(domid, domain)| domain_to_wire(domid, domain)).collect(),
            connections,
            next_watch_id: store.next_watch_id,
            changed_index: store.version,
            log_switches: store.log_switches,
            max: store.domains.max.to_vec(),
            replaced_bytes: store.replaced_bytes,
            acls: std::mem::take(&mut self.acl_list),
            nodes: std::mem::take(&mut self.nodes),
            outputs: store.outputs.to_bytes().to_vec(),
            root: store.root().0.to_vec(),
        }
    }

    fn tree(&mut self, tree: &Tree) -> WireTree {
        WireTree {
            root: self.node("/", &tree.root),
            introduce_domain: self.node(INTRODUCE_DOMAIN, &tree.introduce_domain),
            release_domain: self.node(RELEASE_DOMAIN, &tree.release_domain),
        }
    }

    /// The place of a node, which is put into the table with all below it if it is not there.
    fn node(&mut self, path: &str, top: &Arc<Node>) -> u64 {
        let mut stack = vec![(path.to_owned(), top, false)];
        while let Some((path, node, children_done)) = stack.pop() {
            if self.places.contains_key(&Arc::as_ptr(node)) {
                continue;
            }
            let children = node.children().map(|children| children.ordered()).unwrap_or_default();
            if !children_done {
                self.note(scrub_node(&path, node));
            }
            if !children_done && !children.is_empty() {
                let below = children.iter().rev().map(|child| (join(&path, &child.name), &child.node, false));
                let below: Vec<_> = below.collect();
                stack.push((path, node, true));
                stack.extend(below);
                continue;
            }
            let wire = WireNode {
                value: node.value.to_vec(),
                acl: self.acl(&node.acl),
                generation: node.generation,
                acl_generation: node.acl_generation,
                names: children.iter().map(|child| child.name.to_string()).collect(),
                children: children.iter().map(|child| self.places[&Arc::as_ptr(&child.node)]).collect(),
                numbers: children.iter().map(|child| child.number).collect(),
            };
            self.places.insert(Arc::as_ptr(node), self.nodes.len() as u64);
            self.nodes.push(wire);
        }
        self.places[&Arc::as_ptr(top)]
    }

    fn acl(&mut self, acl: &Acl) -> u32 {
        let grants = acl
            .iter()
            .map(|grant| {
                u32::from(grant.perm.domid.0)
                    | u32::from(grant.perm.access as u8) << 16
                    | u32::from(grant.ignored) << 18
            })
            .collect();
        let wire = WireAcl { grants };
        if let Some(place) = self.acls.get(&wire) {
            return *place;
        }
        let place = u32::try_from(self.acl_list.len()).expect("fewer than nodes, which are bounded");
        self.acl_list.push(wire.clone());
        self.acls.insert(wire, place);
        place
    }

    fn connection(&mut self, store: &Store, id: ConnId, conn: &Connection) -> WireConnection {
        let mut watches: Vec<WireWatch> = conn
            .watches
            .iter()
            .filter_map(|((place, _), watch)| {
                let watch = store.watches.get(*place, id, *watch)?;
                Some(WireWatch {
                    id: watch.id,
                    path: store.watches.path(*place),
                    token: watch.token.to_vec(),
                    depth: watch.depth,
                    prefix_len: watch.prefix_len as u64,
                })
            })
            .collect();
        watches.sort_unstable_by_key(|watch| watch.id);
        let transactions = conn.transactions.iter().map(|(id, ta)| self.transaction(*id, ta)).collect();
        WireConnection {
            id: id.0,
            peer: match conn.peer {
                Peer::Socket => None,
                Peer::Domain(domid) => Some(domid.0.into()),
            },
            domid: conn.actor.domid.0.into(),
            privileged: conn.actor.privileged,
            generation: conn.actor.generation,
            target: conn.actor.target.map(|(domid, _)| domid.0.into()),
            target_generation: conn.actor.target.map_or(0, |(_, generation)| generation),
            features: conn.actor.features,
            last_seq: conn.last_seq.get(),
            next_tx_id: conn.next_tx_id,
            ignored: conn.ignored.get(),
            watches,
            transactions,
            last_ordinal: conn.outbox.last_ordinal(),
            outbox: if self.whole { outbox_to_wire(&conn.outbox) } else { Vec::new() },
        }
    }

    fn note(&mut self, verified: Result<(), Damage>) {
        if let Err(damage) = verified {
            self.damage.get_or_insert(damage);
        }
    }

    fn transaction(&mut self, id: u32, transaction: &Transaction) -> WireTransaction {
        self.note(transaction.verify_changes());
        transaction.records.iter().for_each(|record| self.note(record.verify()));
        let tree = self.whole.then(|| self.tree(&transaction.tree));
        let changes = if self.whole {
            transaction.changes.iter().map(|(path, change)| self.change(path, change)).collect()
        } else {
            Vec::new()
        };
        WireTransaction {
            id,
            base_version: transaction.base_version,
            tree,
            deltas: transaction
                .deltas
                .iter()
                .map(|(domid, delta)| WireDelta {
                    domid: domid.0.into(),
                    nodes: delta.nodes,
                    bytes: delta.bytes,
                })
                .collect(),
            records: transaction
                .records
                .iter()
                .map(|record| record_to_wire(record.generation, record.kind, &record.payload, &record.mark))
                .collect(),
            bytes: transaction.bytes,
            touched: transaction.touched.iter().map(|path| path.to_string()).collect(),
            recent_reads: transaction
                .recent_reads
                .iter()
                .map(|((kind, payload), mark)| record_to_wire(0, *kind, payload, mark))
                .collect(),
            changes,
            failed: transaction.failed,
            base_replaced_bytes: transaction.base_replaced_bytes,
            detached: transaction.detached,
            conflict: transaction.conflict.as_deref().map(str::to_owned),
        }
    }

    fn change(&mut self, path: &str, change: &Change) -> WireChange {
        WireChange {
            path: path.to_owned(),
            before: change.before.as_ref().map(|view| self.view(view)),
            after: change.after.as_ref().map(|view| self.view(view)),
            parent: change.parent.as_ref().map(|view| self.view(view)),
            removed: change.removed.as_ref().map(|node| self.node(path, node)),
        }
    }

    fn view(&mut self, view: &View) -> WireView {
        WireView { acl: self.acl(&view.acl), acl_generation: view.acl_generation }
    }
}

fn domain_to_wire(domid: DomId, domain: &Domain) -> WireDomain {
    WireDomain {
        domid: domid.0.into(),
        generation: domain.generation,
        introduced: domain.introduced,
        shutdown: domain.shutdown,
        gfn: domain.gfn,
        port: domain.port,
        conn: domain.conn.map(|conn| conn.0),
        features: domain.features,
        quotas: Some(domain.quotas.to_wire()),
        nodes: domain.nodes,
        node_bytes: domain.node_bytes,
        max: domain.max.to_vec(),
        handle: domain.handle.to_vec(),
    }
}

fn outbox_to_wire(outbox: &Outbox) -> Vec<WireMessage> {
    outbox
        .iter()
        .map(|(ordinal, kind, bytes)| WireMessage {
            ordinal,
            event: kind == Kind::Event,
            bytes: bytes.to_vec(),
        })
        .collect()
}

fn record_to_wire(generation: u64, kind: MessageType, payload: &[u8], mark: &Mark) -> WireRecord {
    WireRecord {
        generation,
        kind: kind.0,
        payload: payload.to_vec(),
        error: mark.error,
        len: mark.len,
        data: mark.data.to_vec(),
    }
}
