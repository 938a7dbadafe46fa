//! A client's connection.

use std::{collections::BTreeMap, sync::Arc};

use crate::{Peer, node::Actor, outbox::Outbox, transaction::Transaction, watch::Place};

/// A connection: who it is, its watches and transactions, and what waits to be sent.
pub(crate) struct Connection {
    pub peer: Peer,
    pub actor: Actor,
    pub last_seq: u64,
    pub outbox: Outbox,
    /// Its watches by place and token, with their ids.
    pub watches: BTreeMap<(Place, Arc<[u8]>), u64>,
    pub watch_bytes: u64,
    pub transactions: BTreeMap<u32, Box<Transaction>>,
    pub transaction_bytes: u64,
    pub next_tx_id: u32,
    /// A domain's connection that broke: nothing comes from it or goes to it until it starts anew (XSA-325).
    pub ignored: bool,
    /// Log index of the last entry that queued events here, and the bytes that it queued.
    pub entry_events: (u64, usize),
    /// Log index of the last entry that put anything into the outbox.
    pub output_index: u64,
}

impl Connection {
    pub fn new(peer: Peer, actor: Actor) -> Connection {
        Connection {
            peer,
            actor,
            last_seq: 0,
            outbox: Outbox::default(),
            watches: BTreeMap::new(),
            watch_bytes: 0,
            transactions: BTreeMap::new(),
            transaction_bytes: 0,
            next_tx_id: 1,
            ignored: false,
            entry_events: (0, 0),
            output_index: 0,
        }
    }

    pub fn held_bytes(&self) -> u64 {
        self.watch_bytes + self.transaction_bytes
    }
}
