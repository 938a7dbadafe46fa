//! Rings of a former leader that a new one could not map at once: tried again at each beat, for a while.
//!
//! Until then their slots stay as they are, with their ports bound: the requests that came wait in them, and what is for
//! them waits in the store. A ring whose domain has ended meanwhile is let go.

use std::time::Instant;

use xs_protocol::DomId;
use xs_shm::SlotId;
use xs_store::ConnId;

use super::leader::Leader;
use crate::error::Error;
use crate::limits::MAP_AGAIN_WAIT;

/// A ring that is not mapped.
#[derive(Clone, Copy, Debug)]
struct Ring {
    slot_id: SlotId,
    conn: ConnId,
    /// Its event channel has to be bound, too.
    unbound: bool,
    since: Instant,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Unmapped {
    rings: Vec<Ring>,
    /// Since when the ring that is tried just now has been waiting.
    retried: Option<Instant>,
}

impl Unmapped {
    /// A ring could not be mapped: for the first time, or again.
    pub fn add(&mut self, slot_id: SlotId, conn: ConnId, unbound: bool) {
        let since = self.retried.unwrap_or_else(Instant::now);
        self.rings.push(Ring { slot_id, conn, unbound, since });
    }
}

impl Leader {
    /// Tries once more, and gives up what was tried for long enough.
    pub(super) fn map_again(&mut self) -> Result<(), Error> {
        for ring in std::mem::take(&mut self.unmapped.rings) {
            if !self.machine.store.is_connected(ring.conn) {
                self.drop_unknown_ring(ring.slot_id);
            } else if ring.since.elapsed() >= MAP_AGAIN_WAIT {
                tracing::error!(conn = ring.conn.0, "a ring cannot be mapped: it is given up");
                self.drop_unknown_ring(ring.slot_id);
            } else {
                self.unmapped.retried = Some(ring.since);
                self.take_ring(ring.slot_id, ring.conn, ring.unbound)?;
                self.unmapped.retried = None;
            }
        }
        Ok(())
    }

    /// The domain lets its ring go.
    pub(super) fn forget_unmapped(&mut self, domid: DomId) {
        let table = &self.table;
        let gone = self.unmapped.rings.extract_if(.., |ring| table.domid(ring.slot_id) == domid.0);
        for ring in gone.collect::<Vec<_>>() {
            self.drop_unknown_ring(ring.slot_id);
        }
    }
}
