//! A client's connection.

use std::{collections::BTreeMap, sync::Arc};

use xs_protocol::DomId;

use crate::{
    ConnId, Damage, Part, Peer, node::Actor, outbox::Outbox, seal::seal_of, transaction::Transaction,
    twin::Twin, watch::Place,
};

/// A connection: who it is, its watches and transactions, and what waits to be sent.
pub(crate) struct Connection {
    id: ConnId,
    pub peer: Peer,
    pub actor: Actor,
    /// A checksum of `id`, `peer` and `actor`.
    seal: u64,
    pub last_seq: Twin<u64>,
    pub outbox: Outbox,
    /// Its watches by place and token, with their ids.
    pub watches: BTreeMap<(Place, Arc<[u8]>), u64>,
    pub watch_bytes: Twin<u64>,
    pub transactions: BTreeMap<u32, Box<Transaction>>,
    pub transaction_bytes: Twin<u64>,
    pub next_tx_id: u32,
    /// A domain's connection that broke: nothing comes from it or goes to it until it starts anew (XSA-325).
    pub ignored: Twin<bool>,
    /// Log index of the last entry that queued events here, and the bytes that it queued.
    pub entry_events: (u64, usize),
    /// Log index of the last entry that put anything into the outbox.
    pub output_index: u64,
}

impl Connection {
    pub fn new(id: ConnId, peer: Peer, actor: Actor) -> Connection {
        Connection {
            id,
            peer,
            actor,
            seal: seal(id, peer, &actor),
            last_seq: Twin::default(),
            outbox: Outbox::default(),
            watches: BTreeMap::new(),
            watch_bytes: Twin::default(),
            transactions: BTreeMap::new(),
            transaction_bytes: Twin::default(),
            next_tx_id: 1,
            ignored: Twin::default(),
            entry_events: (0, 0),
            output_index: 0,
        }
    }

    /// Gives it the rights of another domain too, or takes them.
    pub fn set_target(&mut self, target: Option<(DomId, u64)>) {
        self.actor.target = target;
        self.seal = seal(self.id, self.peer, &self.actor);
    }

    /// Whether it is who it was.
    pub fn verify(&self, id: ConnId) -> Result<(), Damage> {
        if seal(id, self.peer, &self.actor) == self.seal {
            Ok(())
        } else {
            Err(Damage::new(&id.0.to_string(), Part::Connection))
        }
    }

    pub fn held_bytes(&self) -> u64 {
        self.watch_bytes.get() + self.transaction_bytes.get()
    }
}

fn seal(id: ConnId, peer: Peer, actor: &Actor) -> u64 {
    let peer = match peer {
        Peer::Socket => u64::MAX,
        Peer::Domain(domid) => domid.0.into(),
    };
    let target = actor.target.map_or(u64::MAX, |(domid, _)| domid.0.into());
    let since = actor.target.map_or(0, |(_, generation)| generation);
    let bits = u64::from(actor.domid.0) | u64::from(actor.privileged) << 16 | u64::from(actor.features) << 32;
    seal_of(&[id.0, peer, bits, actor.generation, target, since])
}
