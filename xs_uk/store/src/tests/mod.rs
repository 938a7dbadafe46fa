//! Tests of the whole state machine through its public interface.

mod bounds;
mod control;
mod damage;
mod domains;
mod model;
mod permissions;
mod random;
mod requests;
mod snapshots;
mod strangers;
mod transactions;
mod watches;
mod xsa;

use xs_protocol::{DomId, HEADER_BYTES, Header, MessageType, XsError};

use std::collections::BTreeSet;

use crate::entry::HANDLE_BYTES;
use crate::{Config, ConnId, Effect, Entry, Kind, Peer, Route, Store};

pub(crate) use xs_protocol::MessageType as T;

/// A client of dom0's socket.
pub(crate) const TOOLS: ConnId = ConnId(1);

/// A reply's payload or the error.
pub(crate) type Answer = Result<Vec<u8>, XsError>;

/// A store with clients, which routes requests as a shell does and keeps the log.
pub(crate) struct Rig {
    pub store: Store,
    pub index: u64,
    pub seq: u64,
    pub next_conn: u64,
    pub effects: Vec<Effect>,
    pub log: Vec<(u64, Entry)>,
    /// What each client got: replies and events, oldest first.
    pub inbox: Vec<(ConnId, Kind, Vec<u8>)>,
    pub audit: bool,
    /// Domains that do not exist.
    pub absent: BTreeSet<u16>,
    /// The hypervisor's handle of every domain that exists.
    pub handle: u8,
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(Config::default())
    }

    pub fn with(config: Config) -> Rig {
        let mut rig = Rig {
            store: Store::new(config),
            index: 0,
            seq: 0,
            next_conn: 100,
            effects: Vec::new(),
            log: Vec::new(),
            inbox: Vec::new(),
            audit: true,
            absent: BTreeSet::new(),
            handle: 1,
        };
        rig.apply(Entry::Connect { conn: TOOLS, peer: Peer::Socket });
        rig
    }

    pub fn apply(&mut self, entry: Entry) {
        self.index += 1;
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        let decoded = Entry::decode(&bytes).unwrap();
        self.store.apply(self.index, decoded.as_ref(), &mut self.effects);
        self.log.push((self.index, entry));
        self.deliver();
        if self.audit {
            assert_eq!(self.store.check(), Vec::<String>::new());
        }
    }

    fn deliver(&mut self) {
        let conns: Vec<ConnId> = self.store.connections().map(|(conn, _)| conn).collect();
        for conn in conns {
            for (_, kind, message) in self.store.outbox(conn) {
                self.inbox.push((conn, kind, message.to_vec()));
            }
            self.store.trim(conn, self.store.last_ordinal(conn));
        }
    }

    pub fn header(kind: MessageType, tx_id: u32, payload: &[u8]) -> Header {
        Header { kind, req_id: 77, tx_id, len: u32::try_from(payload.len()).unwrap() }
    }

    /// Logs a request, whatever its route.
    pub fn log_request(&mut self, conn: ConnId, kind: MessageType, tx_id: u32, payload: &[u8]) -> Answer {
        self.make_known(conn, &Self::header(kind, tx_id, payload), payload);
        self.seq += 1;
        self.next_conn += 1;
        self.apply(Entry::Request {
            conn,
            seq: self.seq,
            header: Self::header(kind, tx_id, payload),
            payload: payload.to_vec(),
            verdict: None,
            ring_conn: Some(ConnId(self.next_conn)),
        });
        let at = self.inbox.iter().rposition(|(to, kind, _)| *to == conn && *kind == Kind::Reply);
        let (_, _, message) = self.inbox.remove(at.expect("every request has a reply"));
        answer(&message)
    }

    fn make_known(&mut self, conn: ConnId, header: &Header, payload: &[u8]) {
        for domid in self.store.strangers(conn, header, payload) {
            if !self.absent.contains(&domid.0) {
                self.apply(Entry::DomainKnown { domid, handle: [self.handle; HANDLE_BYTES] });
            }
        }
    }

    /// Serves a request by its route.
    pub fn tx(&mut self, conn: ConnId, kind: MessageType, tx_id: u32, payload: impl AsRef<[u8]>) -> Answer {
        let payload = payload.as_ref();
        let header = Self::header(kind, tx_id, payload);
        match self.store.route(conn, &header, payload) {
            Route::Read => {
                let mut out = Vec::new();
                self.store.read(conn, &header, payload, &mut out).unwrap();
                answer(&out)
            }
            Route::Log | Route::Introduce => self.log_request(conn, kind, tx_id, payload),
        }
    }

    pub fn req(&mut self, conn: ConnId, kind: MessageType, payload: impl AsRef<[u8]>) -> Answer {
        self.tx(conn, kind, 0, payload)
    }

    /// Introduces a guest and returns its connection.
    pub fn guest(&mut self, domid: u16) -> ConnId {
        self.req(TOOLS, T::INTRODUCE, format!("{domid}\x005\x007\x00")).unwrap();
        self.store.domain(DomId(domid)).unwrap().conn.unwrap()
    }

    /// A guest with its own directory, as the toolstack makes it.
    pub fn guest_with_home(&mut self, domid: u16) -> ConnId {
        let home = format!("/local/domain/{domid}\0");
        self.req(TOOLS, T::MKDIR, &home).unwrap();
        self.req(TOOLS, T::SET_PERMS, format!("{home}n{domid}\0")).unwrap();
        self.guest(domid)
    }

    pub fn write(&mut self, conn: ConnId, path: &str, value: &str) -> Answer {
        self.req(conn, T::WRITE, format!("{path}\0{value}"))
    }

    pub fn read(&mut self, conn: ConnId, path: &str) -> Answer {
        self.req(conn, T::READ, format!("{path}\0"))
    }

    pub fn rm(&mut self, conn: ConnId, path: &str) -> Answer {
        self.req(conn, T::RM, format!("{path}\0"))
    }

    pub fn perms(&mut self, conn: ConnId, path: &str, perms: &str) -> Answer {
        self.req(conn, T::SET_PERMS, format!("{path}\0{}\0", perms.replace(',', "\0")))
    }

    pub fn watch(&mut self, conn: ConnId, path: &str, token: &str) -> Answer {
        self.req(conn, T::WATCH, format!("{path}\0{token}\0"))
    }

    pub fn start(&mut self, conn: ConnId) -> u32 {
        let id = self.req(conn, T::TRANSACTION_START, b"\0").unwrap();
        std::str::from_utf8(&id).unwrap().trim_end_matches('\0').parse().unwrap()
    }

    pub fn end(&mut self, conn: ConnId, tx_id: u32, commit: bool) -> Answer {
        self.tx(conn, T::TRANSACTION_END, tx_id, if commit { b"T\0" } else { b"F\0" })
    }

    /// Takes the events that a client got: `path token`.
    pub fn events(&mut self, conn: ConnId) -> Vec<String> {
        let (mine, others) = std::mem::take(&mut self.inbox)
            .into_iter()
            .partition(|(to, kind, _)| *to == conn && *kind == Kind::Event);
        self.inbox = others;
        mine.into_iter()
            .map(|(_, _, message): (_, _, Vec<u8>)| {
                let text = String::from_utf8(message[HEADER_BYTES..].to_vec()).unwrap();
                text.trim_end_matches('\0').replace('\0', " ")
            })
            .collect()
    }

    pub fn hits(&self) -> Vec<(u16, &'static str)> {
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::QuotaHit { domid, quota } => Some((domid.0, quota.name())),
                _ => None,
            })
            .collect()
    }
}

pub(crate) fn answer(message: &[u8]) -> Answer {
    let header = Header::parse(message).unwrap();
    let payload = &message[HEADER_BYTES..];
    assert_eq!(header.len as usize, payload.len());
    assert_eq!(header.req_id, 77);
    if header.kind == T::ERROR {
        Err(XsError::from_name(&payload[..payload.len() - 1]).unwrap())
    } else {
        Ok(payload.to_vec())
    }
}

pub(crate) fn ok() -> Answer {
    Ok(b"OK\0".to_vec())
}

pub(crate) fn text(text: &str) -> Answer {
    Ok(text.as_bytes().to_vec())
}

/// A payload of strings, each with its nul.
pub(crate) fn strings(parts: &[&str]) -> Answer {
    Ok(parts.iter().flat_map(|part| part.bytes().chain([0])).collect())
}
