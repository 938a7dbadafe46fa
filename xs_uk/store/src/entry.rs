//! Log entries and their codec.
//!
//! Layout, version 1, numbers little-endian: version `u8`, kind `u8`, then by kind. A request is laid out as
//! conn `u64`, seq `u64`, ring_conn `u64` (all ones: none), header 4 × `u32`, verdict `u8` (0: none), payload to the end.

use prost::Message;
use xs_protocol::{DomId, Header, MessageType, XsError};

use crate::{Config, StoreError, config::WireConfig};

const VERSION: u8 = 1;
const NO_CONN: u64 = u64::MAX;

/// Size of the hypervisor's handle of a domain, an UUID.
pub const HANDLE_BYTES: usize = 16;

/// A connection's id, unique for ever; the shell gives it. Events go to connections in the order of their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client of the Unix socket: privileged.
    Socket,
    /// A domain's ring. Domain 0 and the configured privileged domain are privileged.
    Domain(DomId),
}

/// What can be in the log, owned. See [`EntryRef`] for the meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "documented at EntryRef")]
pub enum Entry {
    Connect {
        conn: ConnId,
        peer: Peer,
    },
    Disconnect {
        conn: ConnId,
    },
    Reset {
        conn: ConnId,
    },
    Request {
        conn: ConnId,
        seq: u64,
        header: Header,
        payload: Vec<u8>,
        verdict: Option<XsError>,
        ring_conn: Option<ConnId>,
    },
    DomainShutdown {
        domid: DomId,
    },
    DomainGone {
        domid: DomId,
    },
    DomainKnown {
        domid: DomId,
        handle: [u8; HANDLE_BYTES],
    },
    DiscardEvents {
        conn: ConnId,
        up_to: u64,
    },
    SetConfig(Config),
    Noop,
}

/// What can be in the log; a request's payload is borrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryRef<'a> {
    /// A connection opened. For a domain this is an introduction without a request (at the daemon's start).
    Connect {
        /// Its id.
        conn: ConnId,
        /// Who it is.
        peer: Peer,
    },
    /// A connection ended. A domain's connection is ignored from now on, but stays until the domain is gone (XSA-325).
    Disconnect {
        /// Its id.
        conn: ConnId,
    },
    /// A connection starts anew: watches, transactions and undelivered output are dropped (ring reconnection).
    Reset {
        /// Its id.
        conn: ConnId,
    },
    /// A client's request.
    Request {
        /// The client.
        conn: ConnId,
        /// The request's number on its connection, increasing; a number that was applied already is ignored.
        seq: u64,
        /// The message's header.
        header: Header,
        /// The message's payload.
        payload: &'a [u8],
        /// What the shell found when it had to act on the request first: for INTRODUCE the error of mapping the
        /// page or binding the event channel, for SET_FEATURE and SET_QUOTA `ENOENT` if the domain does not exist.
        verdict: Option<XsError>,
        /// INTRODUCE: the id of the new domain's connection. Unused if the domain is introduced already.
        ring_conn: Option<ConnId>,
    },
    /// A domain has shut down or crashed.
    DomainShutdown {
        /// The domain.
        domid: DomId,
    },
    /// A domain no longer exists.
    DomainGone {
        /// The domain.
        domid: DomId,
    },
    /// A domain that a later request names exists, though it was not introduced yet. Never logged for one that does not
    /// exist: what names it then counts for nobody, whoever gets the number later (XSA-322, XSA-417).
    DomainKnown {
        /// The domain.
        domid: DomId,
        /// The hypervisor's handle of it, all zero if it has none. Another one than before means another domain.
        handle: [u8; HANDLE_BYTES],
    },
    /// Undelivered events of a stuck client, up to an ordinal, are dropped.
    DiscardEvents {
        /// The client.
        conn: ConnId,
        /// The last ordinal to drop.
        up_to: u64,
    },
    /// The configuration changes; domains keep the quotas they have.
    SetConfig(Config),
    /// Nothing happens.
    Noop,
}

mod kind {
    pub const NOOP: u8 = 0;
    pub const CONNECT: u8 = 1;
    pub const DISCONNECT: u8 = 2;
    pub const RESET: u8 = 3;
    pub const REQUEST: u8 = 4;
    pub const DOMAIN_SHUTDOWN: u8 = 5;
    pub const DOMAIN_GONE: u8 = 6;
    pub const DISCARD_EVENTS: u8 = 7;
    pub const SET_CONFIG: u8 = 8;
    pub const DOMAIN_KNOWN: u8 = 9;
}

impl Entry {
    /// The borrowed form. Cheap except for a configuration, which is copied.
    pub fn as_ref(&self) -> EntryRef<'_> {
        match self {
            Entry::Connect { conn, peer } => EntryRef::Connect { conn: *conn, peer: *peer },
            Entry::Disconnect { conn } => EntryRef::Disconnect { conn: *conn },
            Entry::Reset { conn } => EntryRef::Reset { conn: *conn },
            Entry::Request { conn, seq, header, payload, verdict, ring_conn } => EntryRef::Request {
                conn: *conn,
                seq: *seq,
                header: *header,
                payload,
                verdict: *verdict,
                ring_conn: *ring_conn,
            },
            Entry::DomainShutdown { domid } => EntryRef::DomainShutdown { domid: *domid },
            Entry::DomainGone { domid } => EntryRef::DomainGone { domid: *domid },
            Entry::DomainKnown { domid, handle } => EntryRef::DomainKnown { domid: *domid, handle: *handle },
            Entry::DiscardEvents { conn, up_to } => EntryRef::DiscardEvents { conn: *conn, up_to: *up_to },
            Entry::SetConfig(config) => EntryRef::SetConfig(config.clone()),
            Entry::Noop => EntryRef::Noop,
        }
    }

    /// Appends the entry's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.as_ref().encode(out);
    }

    /// Reads an entry that fills `bytes`.
    ///
    /// # Errors
    /// If the bytes are malformed or of a newer program.
    pub fn decode(bytes: &[u8]) -> Result<Entry, StoreError> {
        EntryRef::decode(bytes).map(EntryRef::into_owned)
    }
}

impl<'a> EntryRef<'a> {
    /// The owned form.
    pub fn into_owned(self) -> Entry {
        match self {
            EntryRef::Connect { conn, peer } => Entry::Connect { conn, peer },
            EntryRef::Disconnect { conn } => Entry::Disconnect { conn },
            EntryRef::Reset { conn } => Entry::Reset { conn },
            EntryRef::Request { conn, seq, header, payload, verdict, ring_conn } => {
                Entry::Request { conn, seq, header, payload: payload.to_vec(), verdict, ring_conn }
            }
            EntryRef::DomainShutdown { domid } => Entry::DomainShutdown { domid },
            EntryRef::DomainGone { domid } => Entry::DomainGone { domid },
            EntryRef::DomainKnown { domid, handle } => Entry::DomainKnown { domid, handle },
            EntryRef::DiscardEvents { conn, up_to } => Entry::DiscardEvents { conn, up_to },
            EntryRef::SetConfig(config) => Entry::SetConfig(config),
            EntryRef::Noop => Entry::Noop,
        }
    }

    /// Appends the entry's bytes, at most [`crate::limits::ENTRY_BYTES_MAX`] for a request that fits the protocol.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut put = |kind: u8, parts: &[&[u8]]| {
            out.extend_from_slice(&[VERSION, kind]);
            for part in parts {
                out.extend_from_slice(part);
            }
        };
        match self {
            EntryRef::Noop => put(kind::NOOP, &[]),
            EntryRef::Connect { conn, peer } => {
                put(kind::CONNECT, &[&conn.0.to_le_bytes(), &peer_bytes(*peer)]);
            }
            EntryRef::Disconnect { conn } => put(kind::DISCONNECT, &[&conn.0.to_le_bytes()]),
            EntryRef::Reset { conn } => put(kind::RESET, &[&conn.0.to_le_bytes()]),
            EntryRef::Request { conn, seq, header, payload, verdict, ring_conn } => {
                let fixed = request_bytes(*conn, *seq, header, *verdict, *ring_conn);
                put(kind::REQUEST, &[&fixed, payload]);
            }
            EntryRef::DomainShutdown { domid } => put(kind::DOMAIN_SHUTDOWN, &[&domid.0.to_le_bytes()]),
            EntryRef::DomainGone { domid } => put(kind::DOMAIN_GONE, &[&domid.0.to_le_bytes()]),
            EntryRef::DomainKnown { domid, handle } => {
                put(kind::DOMAIN_KNOWN, &[&domid.0.to_le_bytes(), handle]);
            }
            EntryRef::DiscardEvents { conn, up_to } => {
                put(kind::DISCARD_EVENTS, &[&conn.0.to_le_bytes(), &up_to.to_le_bytes()]);
            }
            EntryRef::SetConfig(config) => put(kind::SET_CONFIG, &[&config.to_wire().encode_to_vec()]),
        }
    }

    /// Reads an entry that fills `bytes`.
    ///
    /// # Errors
    /// If the bytes are malformed or of a newer program.
    pub fn decode(bytes: &'a [u8]) -> Result<EntryRef<'a>, StoreError> {
        let mut reader = Reader { bytes, rest: bytes };
        let [version, kind] = reader.array("version and kind")?;
        if version != VERSION {
            return Err(StoreError::UnknownEntry { version, kind });
        }
        let entry = match kind {
            kind::NOOP => EntryRef::Noop,
            kind::CONNECT => EntryRef::Connect { conn: reader.conn()?, peer: reader.peer()? },
            kind::DISCONNECT => EntryRef::Disconnect { conn: reader.conn()? },
            kind::RESET => EntryRef::Reset { conn: reader.conn()? },
            kind::REQUEST => reader.request()?,
            kind::DOMAIN_SHUTDOWN => EntryRef::DomainShutdown { domid: reader.domid()? },
            kind::DOMAIN_GONE => EntryRef::DomainGone { domid: reader.domid()? },
            kind::DOMAIN_KNOWN => {
                EntryRef::DomainKnown { domid: reader.domid()?, handle: reader.array("handle")? }
            }
            kind::DISCARD_EVENTS => {
                EntryRef::DiscardEvents { conn: reader.conn()?, up_to: reader.u64("up_to")? }
            }
            kind::SET_CONFIG => EntryRef::SetConfig(reader.config()?),
            _ => return Err(StoreError::UnknownEntry { version, kind }),
        };
        if reader.rest.is_empty() { Ok(entry) } else { Err(reader.malformed("length")) }
    }
}

const REQUEST_BYTES: usize = 41;

fn request_bytes(
    conn: ConnId,
    seq: u64,
    header: &Header,
    verdict: Option<XsError>,
    ring_conn: Option<ConnId>,
) -> [u8; REQUEST_BYTES] {
    let mut fixed = [0; REQUEST_BYTES];
    fixed[0..8].copy_from_slice(&conn.0.to_le_bytes());
    fixed[8..16].copy_from_slice(&seq.to_le_bytes());
    fixed[16..24].copy_from_slice(&ring_conn.map_or(NO_CONN, |conn| conn.0).to_le_bytes());
    fixed[24..28].copy_from_slice(&header.kind.0.to_le_bytes());
    fixed[28..32].copy_from_slice(&header.req_id.to_le_bytes());
    fixed[32..36].copy_from_slice(&header.tx_id.to_le_bytes());
    fixed[36..40].copy_from_slice(&header.len.to_le_bytes());
    fixed[40] = verdict.map_or(0, XsError::code);
    fixed
}

fn peer_bytes(peer: Peer) -> [u8; 3] {
    match peer {
        Peer::Socket => [0; 3],
        Peer::Domain(domid) => {
            let [low, high] = domid.0.to_le_bytes();
            [1, low, high]
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn malformed(&self, what: &'static str) -> StoreError {
        StoreError::MalformedEntry { bytes: self.bytes.len(), what }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], StoreError> {
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.malformed(what))?;
        self.rest = rest;
        Ok(*array)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, StoreError> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, StoreError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn conn(&mut self) -> Result<ConnId, StoreError> {
        self.u64("conn").map(ConnId)
    }

    fn domid(&mut self) -> Result<DomId, StoreError> {
        self.array("domid").map(|bytes| DomId(u16::from_le_bytes(bytes)))
    }

    fn peer(&mut self) -> Result<Peer, StoreError> {
        match self.array("peer")? {
            [0, 0, 0] => Ok(Peer::Socket),
            [1, low, high] => Ok(Peer::Domain(DomId(u16::from_le_bytes([low, high])))),
            _ => Err(self.malformed("peer")),
        }
    }

    fn request(&mut self) -> Result<EntryRef<'a>, StoreError> {
        let conn = self.conn()?;
        let seq = self.u64("seq")?;
        let ring_conn = match self.u64("ring_conn")? {
            NO_CONN => None,
            conn => Some(ConnId(conn)),
        };
        let header = Header {
            kind: MessageType(self.u32("type")?),
            req_id: self.u32("req_id")?,
            tx_id: self.u32("tx_id")?,
            len: self.u32("len")?,
        };
        let verdict = match self.array("verdict")? {
            [0] => None,
            [code] => Some(XsError::from_code(code).ok_or_else(|| self.malformed("verdict"))?),
        };
        let payload = std::mem::take(&mut self.rest);
        Ok(EntryRef::Request { conn, seq, header, payload, verdict, ring_conn })
    }

    fn config(&mut self) -> Result<Config, StoreError> {
        let wire =
            WireConfig::decode(std::mem::take(&mut self.rest)).map_err(|_| self.malformed("config"))?;
        Config::from_wire(&wire).ok_or_else(|| self.malformed("config"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::ENTRY_BYTES_MAX;

    fn any_entry() -> impl Strategy<Value = Entry> {
        let conn = any::<u64>().prop_map(ConnId);
        let domid = any::<u16>().prop_map(DomId);
        let header = any::<[u32; 4]>().prop_map(|[kind, req_id, tx_id, len]| Header {
            kind: MessageType(kind),
            req_id,
            tx_id,
            len,
        });
        let verdict = proptest::option::of(proptest::sample::select(XsError::ALL.to_vec()));
        let ring_conn = proptest::option::of((0..u64::MAX).prop_map(ConnId));
        prop_oneof![
            Just(Entry::Noop),
            (conn.clone(), proptest::option::of(domid.clone())).prop_map(|(conn, domid)| Entry::Connect {
                conn,
                peer: domid.map_or(Peer::Socket, Peer::Domain)
            }),
            conn.clone().prop_map(|conn| Entry::Disconnect { conn }),
            conn.clone().prop_map(|conn| Entry::Reset { conn }),
            (
                conn.clone(),
                any::<u64>(),
                header,
                proptest::collection::vec(any::<u8>(), 0..99),
                verdict,
                ring_conn
            )
                .prop_map(|(conn, seq, header, payload, verdict, ring_conn)| Entry::Request {
                    conn,
                    seq,
                    header,
                    payload,
                    verdict,
                    ring_conn
                }),
            domid.clone().prop_map(|domid| Entry::DomainShutdown { domid }),
            domid.clone().prop_map(|domid| Entry::DomainGone { domid }),
            (domid, any::<[u8; HANDLE_BYTES]>())
                .prop_map(|(domid, handle)| Entry::DomainKnown { domid, handle }),
            (conn, any::<u64>()).prop_map(|(conn, up_to)| Entry::DiscardEvents { conn, up_to }),
            any::<bool>()
                .prop_map(|keep_orphans| Entry::SetConfig(Config { keep_orphans, ..Config::default() })),
        ]
    }

    proptest! {
        #[test]
        fn round_trip(entry in any_entry()) {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            prop_assert_eq!(Entry::decode(&bytes), Ok(entry));
        }

        #[test]
        fn any_bytes_are_safe(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), versioned: bool) {
            if let (true, Some(first)) = (versioned, bytes.first_mut()) {
                *first = VERSION;
            }
            if let Ok(entry) = Entry::decode(&bytes) {
                let mut again = Vec::new();
                entry.encode(&mut again);
                prop_assert_eq!(Entry::decode(&again), Ok(entry));
            }
        }
    }

    #[test]
    fn bad_entries_are_told_apart() {
        assert_eq!(Entry::decode(&[2, 0]), Err(StoreError::UnknownEntry { version: 2, kind: 0 }));
        assert_eq!(Entry::decode(&[1, 99]), Err(StoreError::UnknownEntry { version: 1, kind: 99 }));
        assert!(matches!(Entry::decode(&[1]), Err(StoreError::MalformedEntry { .. })));
        assert!(matches!(Entry::decode(&[1, 0, 0]), Err(StoreError::MalformedEntry { what: "length", .. })));
    }

    #[test]
    fn the_longest_request_fits_an_entry() {
        let header = Header { kind: MessageType::WRITE, req_id: 0, tx_id: 0, len: 4096 };
        let payload = vec![0; xs_protocol::PAYLOAD_MAX];
        let entry =
            Entry::Request { conn: ConnId(0), seq: 0, header, payload, verdict: None, ring_conn: None };
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        assert!(bytes.len() <= ENTRY_BYTES_MAX);
    }
}
