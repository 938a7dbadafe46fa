//! Snapshots: the whole state as one protobuf message, version 1.
//!
//! Nodes are in a table, children before parents, so that the tree of each open transaction shares what it has
//! in common with the store's. An older program refuses a newer version; a newer one reads all older versions.

mod decode;
mod encode;
mod homes;
mod wire;

use prost::Message;

use self::{decode::decode_store, encode::Encoder, wire::WireStore};
use crate::{Damage, Store, StoreError};

const VERSION: u32 = 1;

impl Store {
    /// The whole state, to be restored by [`Store::from_snapshot`]. `index` is that of the last applied entry.
    ///
    /// # Errors
    /// If a node is damaged: all are verified on the way.
    pub fn snapshot(&self, index: u64) -> Result<Vec<u8>, Damage> {
        let mut encoder = Encoder::new(true);
        let wire = encoder.store(self, index);
        match encoder.damage {
            Some(damage) => Err(damage),
            None => Ok(wire.encode_to_vec()),
        }
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
    Encoder::new(false).store(store, store.index).encode_to_vec()
}
