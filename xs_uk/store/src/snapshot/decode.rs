//! From the messages of a snapshot to a store.

use std::sync::Arc;

use sanity::Sum;
use xs_protocol::{Access, DomId, MessageType, Path, Perm};

use super::{homes::Homes, wire::*};
use crate::{
    Config, ConnId, Peer, Quotas, Store,
    children::Children,
    config::QUOTAS,
    connection::Connection,
    domain::{Deltas, Domain},
    handle::watch_bytes,
    node::{Acl, Actor, Grant, Node},
    ops::{Change, View},
    outbox::{Kind, Outbox},
    transaction::{Mark, Record, Transaction},
    tree::Tree,
    watch::Watch,
};

pub(super) type Decoded<T> = Result<T, &'static str>;

fn domid(number: u32) -> Decoded<DomId> {
    u16::try_from(number).map(DomId).map_err(|_| "domain id out of range")
}

/// The tables of a snapshot, decoded.
struct Tables {
    acls: Vec<Acl>,
    nodes: Vec<Arc<Node>>,
}

impl Tables {
    fn new(wire: &mut WireStore) -> Decoded<Tables> {
        let acls = wire.acls.iter().map(decode_acl).collect::<Decoded<Vec<Acl>>>()?;
        let homes = Homes::new(wire)?;
        let nodes = std::mem::take(&mut wire.nodes);
        let mut tables = Tables { acls, nodes: Vec::with_capacity(nodes.len()) };
        for (place, wire) in nodes.into_iter().enumerate() {
            let mut node = tables.decode_node(wire)?;
            node.seal(homes.path(place).as_deref().ok_or("a node is in no tree")?);
            tables.nodes.push(Arc::new(node));
        }
        Ok(tables)
    }

    fn decode_node(&self, wire: WireNode) -> Decoded<Node> {
        let numbered = wire.numbers.is_empty() || wire.numbers.len() == wire.names.len();
        if wire.names.len() != wire.children.len() || !numbered {
            return Err("children and names differ in number");
        }
        let mut node = Node::new(Arc::from(wire.value), self.acl(wire.acl)?, wire.generation);
        node.acl_generation = wire.acl_generation;
        for (at, (name, place)) in wire.names.iter().zip(wire.children).enumerate() {
            let child = self.node(place)?;
            if node.child(name).is_some() {
                return Err("a child is there twice");
            }
            let next = node.children().map_or(0, Children::next_number);
            let number = wire.numbers.get(at).copied().unwrap_or(next);
            if number < next {
                return Err("children are out of order");
            }
            node.children_mut().push_as(name.as_str().into(), number, child);
        }
        Ok(node)
    }

    fn node(&self, place: u64) -> Decoded<Arc<Node>> {
        let at = usize::try_from(place).map_err(|_| "place out of range")?;
        self.nodes.get(at).cloned().ok_or("a node is missing or above its parent")
    }

    fn acl(&self, place: u32) -> Decoded<Acl> {
        self.acls.get(place as usize).cloned().ok_or("permissions are missing")
    }

    fn tree(&self, wire: Option<WireTree>) -> Decoded<Tree> {
        let wire = wire.ok_or("a tree is missing")?;
        Ok(Tree {
            root: self.node(wire.root)?,
            introduce_domain: self.node(wire.introduce_domain)?,
            release_domain: self.node(wire.release_domain)?,
        })
    }

    fn view(&self, wire: Option<WireView>) -> Decoded<Option<View>> {
        wire.map(|wire| Ok(View { acl: self.acl(wire.acl)?, acl_generation: wire.acl_generation }))
            .transpose()
    }

    fn transaction(&self, wire: WireTransaction) -> Decoded<Transaction> {
        let mut transaction = Transaction::new(self.tree(wire.tree)?, wire.base_version);
        transaction.bytes = wire.bytes;
        transaction.failed = wire.failed;
        transaction.base_replaced_bytes = wire.base_replaced_bytes;
        transaction.detached = wire.detached;
        transaction.conflict = wire.conflict.map(String::into_boxed_str);
        transaction.touched = wire.touched.into_iter().map(String::into_boxed_str).collect();
        let mut deltas = Deltas::default();
        for delta in wire.deltas {
            deltas.add(domid(delta.domid)?, delta.nodes, delta.bytes);
        }
        transaction.deltas = deltas;
        for record in wire.records {
            transaction.records.push(decode_record(record)?);
        }
        for record in wire.recent_reads {
            let Record { kind, payload, mark, .. } = decode_record(record)?;
            transaction.recent_reads.insert((kind, payload), mark);
        }
        for change in wire.changes {
            let path = change.path.into_boxed_str();
            let change = Change {
                before: self.view(change.before)?,
                after: self.view(change.after)?,
                parent: self.view(change.parent)?,
                removed: change.removed.map(|place| self.node(place)).transpose()?,
            };
            transaction.add_change(path, change);
        }
        Ok(transaction.sealed())
    }
}

fn decode_acl(wire: &WireAcl) -> Decoded<Acl> {
    if wire.grants.is_empty() {
        return Err("a node has no owner");
    }
    wire.grants
        .iter()
        .map(|bits| {
            let access = Access::from_bits((bits >> 16 & 3) as u8).ok_or("access out of range")?;
            let perm = Perm { domid: domid(bits & 0xffff)?, access };
            Ok(Grant { perm, ignored: bits >> 18 & 1 != 0 })
        })
        .collect()
}

fn decode_record(wire: WireRecord) -> Decoded<Record> {
    let data = wire.data.try_into().map_err(|_| "a digest has another length")?;
    let mark = Mark { error: wire.error, len: wire.len, data };
    Ok(Record::new(wire.generation, MessageType(wire.kind), wire.payload.into(), mark))
}

pub(super) fn decode_store(mut wire: WireStore) -> Decoded<Store> {
    let config = wire.config.as_ref().and_then(Config::from_wire).ok_or("the configuration is missing")?;
    let tables = Tables::new(&mut wire)?;
    let mut store = Store::assemble(config, tables.tree(wire.tree)?);
    store.index = wire.index;
    store.version = wire.changed_index;
    store.log_switches = wire.log_switches;
    store.next_watch_id = wire.next_watch_id;
    store.replaced_bytes = wire.replaced_bytes;
    for domain in wire.domains {
        let domid = domid(domain.domid)?;
        let domain = decode_domain(domid, &store.config, &domain);
        store.domains.insert(domid, domain);
    }
    store.domains.max = decode_max(&wire.max);
    if let Some(outputs) = wire.outputs.first_chunk() {
        store.outputs = Sum::from_bytes(outputs);
    }
    if !wire.root.is_empty() && wire.root != store.root().0 {
        return Err("the root is another");
    }
    for connection in wire.connections {
        decode_connection(&mut store, &tables, connection)?;
    }
    let orphan = store.domains.iter().any(|(_, domain)| {
        domain.conn.is_some_and(|conn| !store.conns.contains_key(&conn))
            || domain.introduced && domain.conn.is_none()
    });
    if orphan { Err("a domain has no connection") } else { Ok(store) }
}

fn decode_max(wire: &[u64]) -> [u64; QUOTAS] {
    let mut max = [0; QUOTAS];
    for (slot, value) in max.iter_mut().zip(wire) {
        *slot = *value;
    }
    max
}

fn decode_domain(domid: DomId, config: &Config, wire: &WireDomain) -> Domain {
    Domain {
        generation: wire.generation,
        handle: wire.handle.as_slice().try_into().unwrap_or_default(),
        privileged: config.is_privileged(domid),
        introduced: wire.introduced,
        shutdown: wire.shutdown,
        gfn: wire.gfn,
        port: wire.port,
        conn: wire.conn.map(ConnId),
        features: wire.features,
        quotas: wire.quotas.as_ref().map_or_else(Quotas::default, Quotas::from_wire),
        nodes: wire.nodes,
        node_bytes: wire.node_bytes,
        held_bytes: 0,
        max: decode_max(&wire.max),
        domid,
        seal: 0,
    }
    .sealed()
}

fn decode_connection(store: &mut Store, tables: &Tables, wire: WireConnection) -> Decoded<()> {
    let id = ConnId(wire.id);
    let peer = match wire.peer {
        None => Peer::Socket,
        Some(number) => Peer::Domain(domid(number)?),
    };
    let target = wire.target.map(domid).transpose()?.map(|domid| (domid, wire.target_generation));
    let actor = Actor {
        domid: domid(wire.domid)?,
        privileged: wire.privileged,
        generation: wire.generation,
        target,
        features: wire.features,
    };
    let mut conn = Connection::new(id, peer, actor);
    conn.last_seq.set(wire.last_seq);
    conn.next_tx_id = wire.next_tx_id;
    conn.ignored.set(wire.ignored);
    let messages = wire.outbox.into_iter().map(|message| {
        let kind = if message.event { Kind::Event } else { Kind::Reply };
        (message.ordinal, kind, message.bytes)
    });
    conn.outbox = Outbox::restore(wire.last_ordinal, messages).ok_or("ordinals are out of order")?;
    for watch in wire.watches {
        decode_watch(store, &mut conn, id, watch)?;
    }
    for transaction in wire.transactions {
        let tx_id = transaction.id;
        let transaction = tables.transaction(transaction)?;
        conn.transaction_bytes.set(conn.transaction_bytes.get() + transaction.bytes);
        conn.transactions.insert(tx_id, Box::new(transaction));
    }
    let held_bytes = conn.held_bytes();
    if let Some(mut domain) = store.domains.get_mut(conn.actor.domid)
        && domain.conn == Some(id)
    {
        domain.held_bytes = held_bytes;
    }
    store.conns.insert(id, conn);
    Ok(())
}

fn decode_watch(store: &mut Store, conn: &mut Connection, id: ConnId, wire: WireWatch) -> Decoded<()> {
    let path = Path::parse(wire.path.as_bytes()).map_err(|_| "a watch has no valid path")?;
    let prefix_len = usize::try_from(wire.prefix_len).unwrap_or(usize::MAX);
    if wire.path.get(prefix_len..).is_none() {
        return Err("a watch's prefix is longer than its path");
    }
    let token: Arc<[u8]> = Arc::from(wire.token);
    conn.watch_bytes.set(conn.watch_bytes.get() + watch_bytes(path, &token));
    let watch = Watch::new(id, wire.id, Arc::clone(&token), wire.depth, prefix_len);
    let place = store.watches.add(path, watch);
    conn.watches.insert((place, token), wire.id);
    Ok(())
}
