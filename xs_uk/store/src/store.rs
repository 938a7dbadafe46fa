//! The store: applying log entries, queueing replies and events.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sanity::{Digest, Sum};
use xs_protocol::{DomId, Header, Path, message};

use crate::{
    Config, ConnId, Damage, DomainInfo, Effect, EntryRef, Part, Peer, Quota, Quotas, Usage,
    connection::Connection,
    domain::Domains,
    garbage::Garbage,
    limits,
    node::{Actor, Node},
    ops::Change,
    outbox::Kind,
    transaction::Transaction,
    tree::{Tree, for_each_with_path},
    watch::{Watch, Watches},
};

/// The state machine. See the crate's documentation.
pub struct Store {
    pub(crate) config: Config,
    config_seal: u64,
    pub(crate) tree: Tree,
    pub(crate) domains: Domains,
    pub(crate) conns: BTreeMap<ConnId, Connection>,
    pub(crate) watches: Watches,
    pub(crate) next_watch_id: u64,
    /// Log index of the last entry that changed what a transaction may have seen.
    pub(crate) version: u64,
    /// Log index of the last applied entry.
    pub(crate) index: u64,
    /// Switches of CONTROL log; a matter of the shell, but part of the answer.
    pub(crate) log_switches: u32,
    /// Bytes of nodes that were ever replaced or removed, roughly: the clock by which transactions grow old.
    pub(crate) replaced_bytes: u64,
    /// The sum over every reply and event that was ever queued.
    pub(crate) outputs: Sum,
    /// What an entry found damaged.
    damage: Option<Box<Damage>>,
    pub(crate) garbage: Garbage,
    /// Room for building a message.
    scratch: Vec<u8>,
}

/// An event about to be queued.
struct Event {
    conn: ConnId,
    watch: u64,
    token: Arc<[u8]>,
    prefix_len: usize,
    /// Where it happened, if not at the path of the change.
    path: Option<Box<str>>,
}

/// Events that a commit has sent, to send none twice: watch and path.
pub(crate) type Sent = BTreeSet<(u64, Box<str>)>;

impl Store {
    /// A store with the initial nodes: `/`, `/tool`, `/tool/xenstored`, `@introduceDomain` and `@releaseDomain`.
    pub fn new(config: Config) -> Store {
        let tree = Tree::new(config.privileged_domid);
        let mut store = Store::assemble(config, tree);
        store.know_own_domains(0);
        let mut own = crate::domain::Deltas::default();
        for_each_with_path(&store.tree, |_, node| {
            own.add(node.owner(), 1, i64::try_from(node.bytes()).expect("small"));
            true
        });
        store.domains.settle(&own);
        store
    }

    /// A store of parts, with nothing else in it.
    pub(crate) fn assemble(config: Config, tree: Tree) -> Store {
        Store {
            config_seal: config.seal(),
            config,
            tree,
            domains: Domains::default(),
            conns: BTreeMap::new(),
            watches: Watches::default(),
            next_watch_id: 1,
            version: 0,
            index: 0,
            log_switches: 0,
            replaced_bytes: 0,
            outputs: Sum::ZERO,
            damage: None,
            garbage: Garbage::default(),
            scratch: Vec::new(),
        }
    }

    pub(crate) fn know_own_domains(&mut self, index: u64) {
        for domid in [DomId(0), self.config.privileged_domid, self.config.store_domid] {
            self.domains.know(domid, &self.config, index);
        }
        for (domid, mut domain) in self.domains.iter_mut() {
            domain.privileged = self.config.is_privileged(domid);
        }
    }

    /// Applies the log entry at `index` and appends its effects. The same entries lead every replica to the same state.
    /// All nodes that the result depends on are verified: see [`Store::damage`].
    ///
    /// # Panics
    /// If `index`, which counts from 1, is not higher than that of the entry before.
    pub fn apply(&mut self, index: u64, entry: EntryRef<'_>, effects: &mut Vec<Effect>) {
        assert!(index > self.index, "log entries are applied in order and once each");
        if self.damage.is_some() {
            return;
        }
        self.index = index;
        match entry {
            EntryRef::Noop => {}
            EntryRef::Connect { conn, peer } => self.connect(conn, peer, effects),
            EntryRef::Disconnect { conn } => self.disconnect(conn),
            EntryRef::Reset { conn } => self.reset(conn, effects),
            EntryRef::Request { conn, seq, header, payload, verdict, ring_conn } => {
                if let Some(state) = self.conns.get_mut(&conn)
                    && seq > state.last_seq.get()
                {
                    state.last_seq.set(seq);
                    if !state.ignored.get() {
                        self.handle(conn, &header, payload, verdict, ring_conn, effects);
                    }
                }
            }
            EntryRef::DomainShutdown { domid } => self.domain_shutdown(domid, effects),
            EntryRef::DomainGone { domid } => self.domain_gone(domid, effects),
            EntryRef::DomainKnown { domid, handle } => self.domain_known(domid, handle, effects),
            EntryRef::DiscardEvents { conn, up_to } => {
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.outbox.discard_events(up_to);
                }
            }
            EntryRef::SetConfig(config) => {
                self.change_config(|old| *old = config);
                self.know_own_domains(index);
                self.version = index;
            }
        }
        self.free_garbage(self.garbage.due());
    }

    pub(crate) fn change_config(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        self.config_seal = self.config.seal();
    }

    pub(crate) fn verify_config(&self) -> Result<(), Damage> {
        let sound = self.config.seal() == self.config_seal;
        if sound { Ok(()) } else { Err(Damage::new("/", Part::Config)) }
    }

    /// What an entry met that is damaged. From then on nothing of this store is to be trusted or let out, and no entry
    /// is applied any more.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_deref()
    }

    /// Notes damage met while an entry is applied.
    pub(crate) fn hurt(&mut self, damage: Damage) {
        self.damage.get_or_insert_with(|| Box::new(damage));
    }

    /// A digest of the tree and of every reply and event that entries have queued. Equal on replicas that have applied
    /// the same entries, however they came to that. It costs the same whatever the store holds.
    pub fn root(&self) -> Digest {
        let [tree, introduce, release] = self.tree.sums().map(Sum::to_bytes);
        Digest::of_parts(&[&tree, &introduce, &release, &self.outputs.to_bytes()])
    }

    /// Log index of the last applied entry.
    pub fn applied_index(&self) -> u64 {
        self.index
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The messages that wait for a client, in order, with their ordinals. Empty for an unknown connection.
    pub fn outbox(&self, conn: ConnId) -> impl Iterator<Item = (u64, Kind, &[u8])> {
        self.conns.get(&conn).into_iter().flat_map(|conn| conn.outbox.iter())
    }

    /// As [`Store::outbox`], without the kinds. What is not what was queued is an error, and so is what follows it.
    pub fn verified_outbox(&self, conn: ConnId) -> impl Iterator<Item = Result<(u64, &[u8]), Damage>> {
        let all = self.conns.get(&conn).into_iter().flat_map(|conn| conn.outbox.verified());
        all.map(move |(ordinal, bytes, sound)| {
            if sound { Ok((ordinal, bytes)) } else { Err(Damage::new(&conn.0.to_string(), Part::Outbox)) }
        })
    }

    /// Forgets the messages up to an ordinal, which the client has. This is a matter of each replica: it
    /// influences no result of [`Store::apply`].
    pub fn trim(&mut self, conn: ConnId, delivered_ordinal: u64) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.outbox.trim(delivered_ordinal);
        }
    }

    /// Drops the reply that waits for a client, if one does: the client was answered otherwise. Like
    /// [`Store::trim`] this is a matter of each replica.
    pub fn discard_reply(&mut self, conn: ConnId) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.outbox.discard_replies();
        }
    }

    /// For a successor, after it has trimmed what was delivered: drops the replies to the requests up to number `refused`,
    /// which the client was answered with an error before their outcome was known. A request is taken only when all
    /// earlier answers are queued, so a reply that the client still waits for is the newest, and one to a later request.
    pub fn discard_refused(&mut self, conn: ConnId, refused: u64) {
        if let Some(conn) = self.conns.get_mut(&conn).filter(|_| refused > 0) {
            if conn.last_seq.get() <= refused {
                conn.outbox.discard_replies();
            } else {
                conn.outbox.discard_older_replies();
            }
        }
    }

    /// The ordinal of the last message that ever went into the outbox of a connection; 0 if none did.
    pub fn last_ordinal(&self, conn: ConnId) -> u64 {
        self.conns.get(&conn).map_or(0, |conn| conn.outbox.last_ordinal())
    }

    /// The highest sequence number of a logged request of a connection; 0 if there was none.
    pub fn last_seq(&self, conn: ConnId) -> u64 {
        self.conns.get(&conn).map_or(0, |conn| conn.last_seq.get())
    }

    /// All connections in the order of their ids.
    pub fn connections(&self) -> impl Iterator<Item = (ConnId, Peer)> {
        self.conns.iter().map(|(id, conn)| (*id, conn.peer))
    }

    /// Whether the store knows a connection.
    pub fn is_connected(&self, conn: ConnId) -> bool {
        self.conns.contains_key(&conn)
    }

    /// Whether nothing more is taken from or given to a connection until it starts anew.
    pub fn is_ignored(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|conn| conn.ignored.get())
    }

    /// What is known of a domain; `None` if nothing.
    pub fn domain(&self, domid: DomId) -> Option<DomainInfo> {
        let domain = self.domains.get(domid)?;
        Some(DomainInfo {
            introduced: domain.introduced,
            shutdown: domain.shutdown,
            ignored: domain.conn.is_some_and(|conn| self.is_ignored(conn)),
            gfn: domain.gfn,
            port: domain.port,
            conn: domain.conn,
            features: domain.features,
            generation: domain.generation,
            handle: domain.handle,
        })
    }

    /// All known domains, also ones that were not introduced yet.
    pub fn domains(&self) -> impl Iterator<Item = (DomId, DomainInfo)> {
        self.domains.iter().filter_map(|(domid, _)| Some((domid, self.domain(domid)?)))
    }

    /// What a domain uses; all zero for an unknown one.
    pub fn usage(&self, domid: DomId) -> Usage {
        let Some(domain) = self.domains.get(domid) else { return Usage::default() };
        let conn = domain.conn.and_then(|conn| self.conns.get(&conn));
        Usage {
            nodes: domain.nodes,
            watches: conn.map_or(0, |conn| conn.watches.len() as u64),
            transactions: conn.map_or(0, |conn| conn.transactions.len() as u64),
            memory_bytes: domain.memory_bytes(),
            outbox_bytes: conn.map_or(0, |conn| conn.outbox.total_bytes() as u64),
        }
    }

    /// The quotas of a domain; the ones for new domains if it is unknown.
    pub fn quotas(&self, domid: DomId) -> Quotas {
        self.domains.get(domid).map_or(self.config.quotas, |domain| domain.quotas)
    }

    /// Frees up to `nodes` of the nodes that were removed. [`Store::apply`] does so too; a shell may do more
    /// while it is idle. Returns whether any are left.
    pub fn free_garbage(&mut self, nodes: usize) -> bool {
        self.garbage.free(nodes)
    }

    /// The quotas that limit somebody; none for the privileged.
    pub(crate) fn quotas_of(&self, actor: &Actor) -> Option<&Quotas> {
        if actor.privileged { None } else { self.domains.get(actor.domid).map(|domain| &domain.quotas) }
    }

    pub(crate) fn quota_hit(&self, actor: &Actor, quota: Quota, effects: &mut Vec<Effect>) {
        effects.push(Effect::QuotaHit { domid: actor.domid, quota });
    }

    /// Queues a reply that `write` builds.
    pub(crate) fn reply(&mut self, id: ConnId, effects: &mut Vec<Effect>, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        self.scratch.clear();
        write(&mut self.scratch);
        conn.outbox.push(Kind::Reply, &self.scratch);
        self.outputs += output_mark(id, conn.outbox.last_ordinal(), Kind::Reply, &self.scratch);
        note_output(conn, id, self.index, effects);
    }

    pub(crate) fn ack(&mut self, id: ConnId, header: &Header, effects: &mut Vec<Effect>) {
        self.reply(id, effects, |out| message::push_ack(out, header));
    }

    /// Queues one event, unless that is over the bound for one entry or too long for a message.
    pub(crate) fn queue_event(&mut self, id: ConnId, path: &[u8], token: &[u8], effects: &mut Vec<Effect>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        self.scratch.clear();
        if !message::push_event(&mut self.scratch, path, token) {
            return;
        }
        let (entry_max, backlog) = if conn.actor.privileged {
            (limits::PRIVILEGED_ENTRY_EVENT_BYTES_MAX, limits::PRIVILEGED_BACKLOG_BYTES)
        } else {
            (limits::ENTRY_EVENT_BYTES_MAX, limits::BACKLOG_BYTES)
        };
        if conn.entry_events.0 != self.index {
            conn.entry_events = (self.index, 0);
        }
        let before = conn.entry_events.1;
        conn.entry_events.1 += self.scratch.len();
        if conn.entry_events.1 > entry_max {
            if before <= entry_max {
                effects.push(Effect::EventsDropped(id));
            }
            return;
        }
        let fitted = conn.outbox.event_bytes() <= backlog;
        conn.outbox.push(Kind::Event, &self.scratch);
        self.outputs += output_mark(id, conn.outbox.last_ordinal(), Kind::Event, &self.scratch);
        note_output(conn, id, self.index, effects);
        if fitted && conn.outbox.event_bytes() > backlog {
            effects.push(Effect::Backlog { conn: id, event_bytes: conn.outbox.event_bytes() });
        }
    }

    /// Tells all who watch of a change at `path`. With `sent`, nobody is told of the same path twice.
    pub(crate) fn fire(
        &mut self,
        path: Path<'_>,
        change: &Change,
        sent: Option<&mut Sent>,
        effects: &mut Vec<Effect>,
    ) {
        let (mut events, mut unsound) = (Vec::new(), None);
        if let Some(removed) = &change.removed {
            let all = self.watches.below(path, removed, |below, node, parent, watch| {
                match self.may_see_removed(watch, node, parent) {
                    Ok(true) => match watch.verify_token() {
                        Ok(()) => events.push(Event { path: Some(below.into()), ..event(watch) }),
                        Err(damage) => unsound = unsound.take().or(Some(damage)),
                    },
                    Ok(false) => {}
                    Err(damage) => unsound = unsound.take().or(Some(damage)),
                }
            });
            if let Some(damage) = all.err().or(unsound) {
                return self.hurt(damage);
            }
        }
        let mut hits = Vec::new();
        if let Err(damage) = self.watches.matching(path, &mut hits) {
            return self.hurt(damage);
        }
        for group in hits.chunk_by(|a, b| a.conn == b.conn) {
            match self.recipient(group[0]) {
                Ok(conn) if change.visible_to(&conn.actor) => {
                    if let Err(damage) = group.iter().try_for_each(|watch| watch.verify_token()) {
                        return self.hurt(damage);
                    }
                    events.extend(group.iter().map(|watch| event(watch)));
                }
                Ok(_) => {}
                Err(damage) => return self.hurt(damage),
            }
        }
        self.queue_events(path, &events, sent, effects);
    }

    fn queue_events(
        &mut self,
        path: Path<'_>,
        events: &[Event],
        mut sent: Option<&mut Sent>,
        effects: &mut Vec<Effect>,
    ) {
        for event in events {
            let at = event.path.as_deref().unwrap_or(path.as_str());
            if let Some(sent) = &mut sent
                && !sent.insert((event.watch, at.into()))
            {
                continue;
            }
            self.queue_event(event.conn, &at.as_bytes()[event.prefix_len..], &event.token, effects);
        }
    }

    fn may_see_removed(&self, watch: &Watch, node: &Node, parent: &Node) -> Result<bool, Damage> {
        let actor = &self.recipient(watch)?.actor;
        let reads = |node: &Node| actor.bits(&node.acl, node.acl_generation) & crate::node::READ_BIT != 0;
        Ok(reads(node) || reads(parent))
    }

    /// Who gets the events of a watch, verified. A watch has a connection for as long as it lives.
    pub(crate) fn recipient(&self, watch: &Watch) -> Result<&Connection, Damage> {
        let conn = self.conns.get(&watch.conn);
        let conn = conn.ok_or_else(|| Damage::new(&watch.conn.0.to_string(), Part::Connection))?;
        conn.verify(watch.conn)?;
        Ok(conn)
    }

    /// Frees what only a transaction holds, later.
    pub(crate) fn drop_transaction(&mut self, transaction: Transaction) {
        self.garbage.add(transaction.tree.root);
        for (_, change) in transaction.changes {
            self.discard(change);
        }
    }

    /// Frees a removed node and all below it, later.
    pub(crate) fn discard(&mut self, change: Change) {
        if let Some(node) = change.removed {
            self.garbage.add(node);
        }
    }
}

fn event(watch: &Watch) -> Event {
    Event {
        conn: watch.conn,
        watch: watch.id,
        token: Arc::clone(&watch.token),
        prefix_len: watch.prefix_len,
        path: None,
    }
}

/// What a queued message adds to [`Store::outputs`]. The ordinal makes the order count.
fn output_mark(conn: ConnId, ordinal: u64, kind: Kind, message: &[u8]) -> Sum {
    let kind = [u8::from(kind == Kind::Event)];
    Digest::of_parts(&[&conn.0.to_le_bytes(), &ordinal.to_le_bytes(), &kind, message]).into()
}

fn note_output(conn: &mut Connection, id: ConnId, index: u64, effects: &mut Vec<Effect>) {
    if conn.output_index != index {
        conn.output_index = index;
        effects.push(Effect::Output(id));
    }
}
