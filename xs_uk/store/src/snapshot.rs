//! Snapshots: the whole state as one protobuf message, version 1.
//!
//! Nodes are in a table, children before parents, so that the tree of each open transaction shares what it has
//! in common with the store's. An older program refuses a newer version; a newer one reads all older versions.

use std::{collections::HashMap, sync::Arc};

use prost::Message;
use xs_protocol::{Access, DomId, MessageType, Path, Perm};

use crate::{
    Config, ConnId, Peer, Quotas, Store, StoreError,
    config::{QUOTAS, WireConfig, WireQuotas},
    connection::Connection,
    domain::{Deltas, Domain},
    node::{Acl, Actor, Grant, Node},
    ops::{Change, View},
    outbox::{Kind, Outbox},
    transaction::{Mark, Record, Transaction},
    tree::Tree,
    watch::Watch,
};

const VERSION: u32 = 1;

#[derive(Clone, PartialEq, Message)]
struct WireStore {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, tag = "2")]
    index: u64,
    #[prost(message, optional, tag = "3")]
    config: Option<WireConfig>,
    #[prost(message, repeated, tag = "4")]
    acls: Vec<WireAcl>,
    #[prost(message, repeated, tag = "5")]
    nodes: Vec<WireNode>,
    #[prost(message, optional, tag = "6")]
    tree: Option<WireTree>,
    #[prost(message, repeated, tag = "7")]
    domains: Vec<WireDomain>,
    #[prost(message, repeated, tag = "8")]
    connections: Vec<WireConnection>,
    #[prost(uint64, tag = "9")]
    next_watch_id: u64,
    #[prost(uint64, tag = "10")]
    changed_index: u64,
    #[prost(uint32, tag = "11")]
    log_switches: u32,
    #[prost(uint64, repeated, tag = "12")]
    max: Vec<u64>,
}

/// Permission entries: domain id, access in bits 16 and 17, ignored in bit 18.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
struct WireAcl {
    #[prost(uint32, repeated, tag = "1")]
    grants: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct WireNode {
    #[prost(bytes = "vec", tag = "1")]
    value: Vec<u8>,
    #[prost(uint32, tag = "2")]
    acl: u32,
    #[prost(uint64, tag = "3")]
    generation: u64,
    #[prost(uint64, tag = "4")]
    acl_generation: u64,
    #[prost(string, repeated, tag = "5")]
    names: Vec<String>,
    #[prost(uint64, repeated, tag = "6")]
    children: Vec<u64>,
}

/// Places in the table of nodes.
#[derive(Clone, Copy, PartialEq, Message)]
struct WireTree {
    #[prost(uint64, tag = "1")]
    root: u64,
    #[prost(uint64, tag = "2")]
    introduce_domain: u64,
    #[prost(uint64, tag = "3")]
    release_domain: u64,
}

#[derive(Clone, PartialEq, Message)]
struct WireDomain {
    #[prost(uint32, tag = "1")]
    domid: u32,
    #[prost(uint64, tag = "2")]
    generation: u64,
    #[prost(bool, tag = "3")]
    introduced: bool,
    #[prost(bool, tag = "4")]
    shutdown: bool,
    #[prost(uint64, tag = "5")]
    gfn: u64,
    #[prost(uint32, tag = "6")]
    port: u32,
    #[prost(uint64, optional, tag = "7")]
    conn: Option<u64>,
    #[prost(uint32, tag = "8")]
    features: u32,
    #[prost(message, optional, tag = "9")]
    quotas: Option<WireQuotas>,
    #[prost(uint64, tag = "10")]
    nodes: u64,
    #[prost(uint64, tag = "11")]
    node_bytes: u64,
    #[prost(uint64, repeated, tag = "12")]
    max: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct WireConnection {
    #[prost(uint64, tag = "1")]
    id: u64,
    /// The domain; none for a socket.
    #[prost(uint32, optional, tag = "2")]
    peer: Option<u32>,
    #[prost(uint32, tag = "3")]
    domid: u32,
    #[prost(bool, tag = "4")]
    privileged: bool,
    #[prost(uint64, tag = "5")]
    generation: u64,
    #[prost(uint32, optional, tag = "6")]
    target: Option<u32>,
    #[prost(uint64, tag = "7")]
    target_generation: u64,
    #[prost(uint32, tag = "8")]
    features: u32,
    #[prost(uint64, tag = "9")]
    last_seq: u64,
    #[prost(uint32, tag = "10")]
    next_tx_id: u32,
    #[prost(bool, tag = "11")]
    ignored: bool,
    #[prost(message, repeated, tag = "12")]
    watches: Vec<WireWatch>,
    #[prost(message, repeated, tag = "13")]
    transactions: Vec<WireTransaction>,
    #[prost(uint64, tag = "14")]
    last_ordinal: u64,
    #[prost(message, repeated, tag = "15")]
    outbox: Vec<WireMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct WireWatch {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    path: String,
    #[prost(bytes = "vec", tag = "3")]
    token: Vec<u8>,
    #[prost(uint32, optional, tag = "4")]
    depth: Option<u32>,
    #[prost(uint64, tag = "5")]
    prefix_len: u64,
}

#[derive(Clone, PartialEq, Message)]
struct WireMessage {
    #[prost(uint64, tag = "1")]
    ordinal: u64,
    #[prost(bool, tag = "2")]
    event: bool,
    #[prost(bytes = "vec", tag = "3")]
    bytes: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct WireTransaction {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(uint64, tag = "2")]
    base_version: u64,
    #[prost(message, optional, tag = "3")]
    tree: Option<WireTree>,
    #[prost(message, repeated, tag = "4")]
    deltas: Vec<WireDelta>,
    #[prost(message, repeated, tag = "5")]
    records: Vec<WireRecord>,
    #[prost(uint64, tag = "6")]
    bytes: u64,
    #[prost(string, repeated, tag = "7")]
    touched: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    recent_reads: Vec<WireRecord>,
    #[prost(message, repeated, tag = "9")]
    changes: Vec<WireChange>,
    #[prost(bool, tag = "10")]
    failed: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct WireDelta {
    #[prost(uint32, tag = "1")]
    domid: u32,
    #[prost(sint64, tag = "2")]
    nodes: i64,
    #[prost(sint64, tag = "3")]
    bytes: i64,
}

#[derive(Clone, PartialEq, Message)]
struct WireRecord {
    #[prost(uint64, tag = "1")]
    generation: u64,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(bytes = "vec", tag = "3")]
    payload: Vec<u8>,
    #[prost(bool, tag = "4")]
    error: bool,
    #[prost(uint32, tag = "5")]
    len: u32,
    #[prost(bytes = "vec", tag = "6")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct WireChange {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(message, optional, tag = "2")]
    before: Option<WireView>,
    #[prost(message, optional, tag = "3")]
    after: Option<WireView>,
    #[prost(message, optional, tag = "4")]
    parent: Option<WireView>,
    #[prost(uint64, optional, tag = "5")]
    removed: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct WireView {
    #[prost(uint32, tag = "1")]
    acl: u32,
    #[prost(uint64, tag = "2")]
    acl_generation: u64,
}

impl Store {
    /// The whole state, to be restored by [`Store::from_snapshot`]. `index` is that of the last applied entry.
    pub fn snapshot(&self, index: u64) -> Vec<u8> {
        Encoder { whole: true, ..Encoder::default() }.store(self, index).encode_to_vec()
    }

    /// A store from a snapshot, and the log index that the snapshot was taken at.
    ///
    /// # Errors
    /// If the bytes are no snapshot, of a newer version or inconsistent.
    pub fn from_snapshot(bytes: &[u8]) -> Result<(u64, Store), StoreError> {
        let wire = WireStore::decode(bytes)?;
        if wire.version != VERSION {
            return Err(StoreError::UnknownSnapshot { version: wire.version });
        }
        let index = wire.index;
        let store = decode_store(wire).map_err(|what| StoreError::InconsistentSnapshot { what })?;
        Ok((index, store))
    }
}

/// The state without undelivered messages and without the trees of transactions, which follow from the rest.
pub(crate) fn state_bytes(store: &Store) -> Vec<u8> {
    Encoder::default().store(store, store.index).encode_to_vec()
}

#[derive(Default)]
struct Encoder {
    /// Undelivered messages and trees of transactions too.
    whole: bool,
    acls: HashMap<WireAcl, u32>,
    acl_list: Vec<WireAcl>,
    /// Places of nodes by their address; the nodes outlive the encoder.
    places: HashMap<*const Node, u64>,
    nodes: Vec<WireNode>,
}

impl Encoder {
    fn store(mut self, store: &Store, index: u64) -> WireStore {
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
            acls: self.acl_list,
            nodes: self.nodes,
        }
    }

    fn tree(&mut self, tree: &Tree) -> WireTree {
        WireTree {
            root: self.node(&tree.root),
            introduce_domain: self.node(&tree.introduce_domain),
            release_domain: self.node(&tree.release_domain),
        }
    }

    /// The place of a node, which is put into the table with all below it if it is not there.
    fn node(&mut self, top: &Arc<Node>) -> u64 {
        let mut stack = vec![(top, false)];
        while let Some((node, children_done)) = stack.pop() {
            if self.places.contains_key(&Arc::as_ptr(node)) {
                continue;
            }
            let children = node.children().map(|children| children.ordered()).unwrap_or_default();
            if !children_done && !children.is_empty() {
                stack.push((node, true));
                stack.extend(children.iter().rev().map(|(_, child)| (*child, false)));
                continue;
            }
            let wire = WireNode {
                value: node.value.to_vec(),
                acl: self.acl(&node.acl),
                generation: node.generation,
                acl_generation: node.acl_generation,
                names: children.iter().map(|(name, _)| name.to_string()).collect(),
                children: children.iter().map(|(_, child)| self.places[&Arc::as_ptr(child)]).collect(),
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
            last_seq: conn.last_seq,
            next_tx_id: conn.next_tx_id,
            ignored: conn.ignored,
            watches,
            transactions,
            last_ordinal: conn.outbox.last_ordinal(),
            outbox: if self.whole { outbox_to_wire(&conn.outbox) } else { Vec::new() },
        }
    }

    fn transaction(&mut self, id: u32, transaction: &Transaction) -> WireTransaction {
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
        }
    }

    fn change(&mut self, path: &str, change: &Change) -> WireChange {
        WireChange {
            path: path.to_owned(),
            before: change.before.as_ref().map(|view| self.view(view)),
            after: change.after.as_ref().map(|view| self.view(view)),
            parent: change.parent.as_ref().map(|view| self.view(view)),
            removed: change.removed.as_ref().map(|node| self.node(node)),
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

type Decoded<T> = Result<T, &'static str>;

fn domid(number: u32) -> Decoded<DomId> {
    u16::try_from(number).map(DomId).map_err(|_| "domain id out of range")
}

/// The tables of a snapshot, decoded.
struct Tables {
    acls: Vec<Acl>,
    nodes: Vec<Arc<Node>>,
}

impl Tables {
    fn new(acls: &[WireAcl], nodes: Vec<WireNode>) -> Decoded<Tables> {
        let acls = acls.iter().map(decode_acl).collect::<Decoded<Vec<Acl>>>()?;
        let mut tables = Tables { acls, nodes: Vec::with_capacity(nodes.len()) };
        for wire in nodes {
            let node = tables.decode_node(wire)?;
            tables.nodes.push(Arc::new(node));
        }
        Ok(tables)
    }

    fn decode_node(&self, wire: WireNode) -> Decoded<Node> {
        if wire.names.len() != wire.children.len() {
            return Err("children and names differ in number");
        }
        let mut node = Node::new(Arc::from(wire.value), self.acl(wire.acl)?, wire.generation);
        node.acl_generation = wire.acl_generation;
        for (name, place) in wire.names.iter().zip(wire.children) {
            let child = self.node(place)?;
            node.domains_hint |= child.domains_hint;
            if node.child(name).is_some() {
                return Err("a child is there twice");
            }
            node.children_mut().push(name.as_str().into(), child);
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
            transaction.changes.push((path, change));
        }
        Ok(transaction)
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
    Ok(Record {
        generation: wire.generation,
        kind: MessageType(wire.kind),
        payload: wire.payload.into(),
        mark: Mark { error: wire.error, len: wire.len, data },
    })
}

fn decode_store(wire: WireStore) -> Decoded<Store> {
    let config = wire.config.as_ref().and_then(Config::from_wire).ok_or("the configuration is missing")?;
    let tables = Tables::new(&wire.acls, wire.nodes)?;
    let mut store = Store::assemble(config, tables.tree(wire.tree)?);
    store.index = wire.index;
    store.version = wire.changed_index;
    store.log_switches = wire.log_switches;
    store.next_watch_id = wire.next_watch_id;
    for domain in wire.domains {
        let domid = domid(domain.domid)?;
        let domain = decode_domain(domid, &store.config, &domain);
        store.domains.insert(domid, domain);
    }
    store.domains.max = decode_max(&wire.max);
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
    }
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
    let mut conn = Connection::new(peer, actor);
    conn.last_seq = wire.last_seq;
    conn.next_tx_id = wire.next_tx_id;
    conn.ignored = wire.ignored;
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
        conn.transaction_bytes += transaction.bytes;
        conn.transactions.insert(tx_id, Box::new(transaction));
    }
    let held_bytes = conn.held_bytes();
    if let Some(domain) = store.domains.get_mut(conn.actor.domid)
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
    conn.watch_bytes += (wire.path.len() + token.len()) as u64;
    let watch = Watch { conn: id, id: wire.id, token: Arc::clone(&token), depth: wire.depth, prefix_len };
    let place = store.watches.add(path, watch);
    conn.watches.insert((place, token), wire.id);
    Ok(())
}
