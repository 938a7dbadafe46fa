//! A store with clients, served as the daemon does: route, read or log, deliver.

use std::collections::BTreeMap;

use xs_protocol::{DomId, HEADER_BYTES, Header, MessageType, PAYLOAD_MAX, XsError};
use xs_store::{Config, ConnId, Effect, Entry, EntryRef, Kind, Peer, Route, Store};

use crate::limits::STEPS_PER_CHECK;

/// dom0's tools.
pub const TOOLS: ConnId = ConnId(1);
/// The guest with the id of [`GUEST_DOMID`].
pub const GUEST: ConnId = ConnId(2);
/// The guest's domain.
pub const GUEST_DOMID: DomId = DomId(3);

/// The store and what a shell keeps for it.
pub struct Shell {
    pub store: Store,
    pub index: u64,
    /// Every entry as its bytes in the log.
    pub log: Vec<Vec<u8>>,
    effects: Vec<Effect>,
    next_conn: u64,
    next_req_id: u32,
    seqs: BTreeMap<ConnId, u64>,
    steps: usize,
}

impl Shell {
    /// A store with a tool, and a guest that has a home.
    pub fn new() -> Self {
        let mut shell = Self {
            store: Store::new(Config::default()),
            index: 0,
            log: Vec::new(),
            effects: Vec::new(),
            next_conn: 3,
            next_req_id: 1,
            seqs: BTreeMap::new(),
            steps: 0,
        };
        shell.apply(&Entry::Connect { conn: TOOLS, peer: Peer::Socket });
        shell.apply(&Entry::Connect { conn: GUEST, peer: Peer::Domain(GUEST_DOMID) });
        shell.request(TOOLS, MessageType::WRITE, 0, b"/local/domain/3\0");
        shell.request(TOOLS, MessageType::SET_PERMS, 0, b"/local/domain/3\0n3\0");
        shell
    }

    /// Applies an entry as it comes back from the log.
    pub fn apply(&mut self, entry: &Entry) {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        let decoded = EntryRef::decode(&bytes).expect("what was encoded can be decoded");
        self.index += 1;
        self.effects.clear();
        self.store.apply(self.index, decoded, &mut self.effects);
        self.log.push(bytes);
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_PER_CHECK) {
            self.check();
        }
    }

    /// A whole request. Gives what the client gets, which is exactly one reply unless the connection went with it.
    pub fn request(&mut self, conn: ConnId, kind: MessageType, tx_id: u32, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).expect("bounded by the caller");
        self.next_req_id = self.next_req_id.wrapping_add(1);
        self.serve(conn, Header { kind, req_id: self.next_req_id, tx_id, len }, payload)
    }

    /// A request with any header that has the payload's length.
    pub fn serve(&mut self, conn: ConnId, header: Header, payload: &[u8]) -> Vec<u8> {
        if !self.store.is_connected(conn) || self.store.is_ignored(conn) {
            return Vec::new();
        }
        let mut reply = Vec::new();
        match self.store.route(conn, &header, payload) {
            Route::Read => self.store.read(conn, &header, payload, &mut reply).expect("undamaged"),
            route => {
                let ring_conn = (route == Route::Introduce).then(|| self.ring_conn(conn, payload));
                let seq = self.seqs.entry(conn).or_default();
                *seq += 1;
                let entry = Entry::Request {
                    conn,
                    seq: *seq,
                    header,
                    payload: payload.to_vec(),
                    verdict: None::<XsError>,
                    ring_conn,
                };
                self.apply(&entry);
                reply = self.take_reply(conn, &header);
            }
        }
        if self.store.is_connected(conn) {
            let answer = well_formed(&reply).expect("every request has one reply, whole");
            assert_eq!((answer.req_id, answer.tx_id), (header.req_id, header.tx_id));
            assert!(answer.kind == header.kind || answer.kind == MessageType::ERROR);
        }
        reply
    }

    /// The connection that an INTRODUCE brings, as the shell names it.
    fn ring_conn(&mut self, conn: ConnId, payload: &[u8]) -> ConnId {
        let known =
            self.store.introduce_args(conn, payload).ok().and_then(|(domid, ..)| self.store.domain(domid));
        known.filter(|domain| domain.introduced).and_then(|domain| domain.conn).unwrap_or_else(|| {
            self.next_conn += 1;
            ConnId(self.next_conn)
        })
    }

    /// The reply to a request; events stay. All must be whole messages.
    fn take_reply(&mut self, conn: ConnId, header: &Header) -> Vec<u8> {
        let mut replies = Vec::new();
        let mut events = 0;
        for (_, kind, bytes) in self.store.outbox(conn) {
            let message = well_formed(bytes).expect("a whole message");
            match kind {
                Kind::Reply => replies.push(bytes.to_vec()),
                Kind::Event => {
                    assert_eq!((message.kind, message.req_id), (MessageType::WATCH_EVENT, 0));
                    events += 1;
                }
            }
        }
        if self.store.is_connected(conn) {
            assert_eq!(
                replies.len(),
                1,
                "{} got {} replies and {events} events",
                header.kind.name(),
                replies.len()
            );
            self.store.trim(conn, self.store.last_ordinal(conn));
        }
        replies.pop().unwrap_or_default()
    }

    /// The accounts hold.
    pub fn check(&self) {
        assert_eq!(self.store.check(), Vec::<String>::new());
    }

    /// A replica that starts from a snapshot is the same.
    pub fn check_snapshot(&self) {
        let (_, restored) = Store::from_snapshot(&self.store.snapshot(self.index).expect("undamaged"))
            .expect("our own snapshot");
        assert_eq!(restored.digest(), self.store.digest());
        assert_eq!(restored.check(), Vec::<String>::new());
    }
}

/// The header of a message that is just this.
pub fn well_formed(bytes: &[u8]) -> Option<Header> {
    let header = Header::parse(bytes)?;
    let len = header.len as usize;
    (len <= PAYLOAD_MAX && bytes.len() == HEADER_BYTES + len).then_some(header)
}
