//! The connection table: which slots are in use, and by whom.
//!
//! ```text
//!            allocate            close              free
//!   FREE ------------> OPEN ------------> CLOSED ---------> FREE (generation + 1)
//!         gateway: sockets     leader              gateway: sockets
//!         leader: rings                            leader: rings
//! ```
//!
//! A connection id is `generation << 16 | slot`, so an id is never used twice and names its slot.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::limits::{SLOT_BYTES, SLOT_HEADER_BYTES, SLOTS_MAX, SOCKETS_MAX, TABLE_BYTES, TABLE_HEADER_BYTES};
use crate::region::Region;
use crate::slot::{Kind, Slot, layout};

/// Number of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u32);

/// A slot's life. See the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Nobody's.
    Free,
    /// A connection.
    Open,
    /// A connection that the leader ended, whose descriptor the gateway still holds.
    Closed,
}

const FREE: u32 = 0;
const OPEN: u32 = 1;
const CLOSED: u32 = 2;
const SLOT_BITS: u32 = 16;
const VIRQ_PORT: usize = 8;
const BINDING: usize = 12;

const _: () = assert!(SLOTS_MAX <= 1 << SLOT_BITS);

/// All slots.
#[derive(Clone, Debug)]
pub struct Table {
    region: Arc<Region>,
}

impl Table {
    /// Uses a region of at least [`TABLE_BYTES`]; zeroed memory is an empty table.
    pub fn open(region: Region) -> Self {
        assert!(region.length_bytes() >= TABLE_BYTES, "the region is too small for the table");
        Self { region: Arc::new(region) }
    }

    /// Takes a free slot for a client socket. `None` if all are taken. Only the gateway calls this.
    pub fn allocate_socket(&self) -> Option<SlotId> {
        let id = self.first_free(0..SOCKETS_MAX)?;
        self.begin(id, Kind::Socket);
        self.set_state(id, OPEN);
        Some(id)
    }

    /// Takes a free slot for a domain's ring. `None` if all are taken. Only the leader calls this.
    pub fn allocate_ring(&self, domid: u16, local_port: u32, remote_port: u32, gfn: u64) -> Option<SlotId> {
        let id = self.first_free(SOCKETS_MAX..SLOTS_MAX)?;
        self.begin(id, Kind::Ring);
        self.u32(id, layout::DOMID).store(u32::from(domid), Ordering::Relaxed);
        self.u64(id, layout::GFN).store(gfn, Ordering::Relaxed);
        self.set_ports(id, local_port, remote_port);
        self.set_state(id, OPEN);
        Some(id)
    }

    /// Notes a ring's event-channel ports.
    pub fn set_ports(&self, id: SlotId, local_port: u32, remote_port: u32) {
        self.u32(id, layout::REMOTE_PORT).store(remote_port, Ordering::Relaxed);
        self.u32(id, layout::LOCAL_PORT).store(local_port, Ordering::Release);
    }

    /// A ring's event-channel ports: ours, the domain's.
    pub fn ports(&self, id: SlotId) -> (u32, u32) {
        let local = self.u32(id, layout::LOCAL_PORT).load(Ordering::Acquire);
        (local, self.u32(id, layout::REMOTE_PORT).load(Ordering::Relaxed))
    }

    /// A ring's domain.
    pub fn domid(&self, id: SlotId) -> u16 {
        u16::try_from(self.u32(id, layout::DOMID).load(Ordering::Relaxed)).expect("stored from a u16")
    }

    /// The frame number that INTRODUCE named for a ring.
    pub fn gfn(&self, id: SlotId) -> u64 {
        self.u64(id, layout::GFN).load(Ordering::Relaxed)
    }

    /// The serving side of a slot in use.
    pub fn slot(&self, id: SlotId) -> Slot {
        assert!(id.0 < SLOTS_MAX, "slot {} does not exist", id.0);
        Slot::open(self.region.clone(), base(id))
    }

    /// A slot's state.
    pub fn state(&self, id: SlotId) -> SlotState {
        match self.u32(id, layout::STATE).load(Ordering::Acquire) {
            OPEN => SlotState::Open,
            CLOSED => SlotState::Closed,
            _ => SlotState::Free,
        }
    }

    /// The connection in a slot in use.
    pub fn conn_id(&self, id: SlotId) -> u64 {
        self.u64(id, layout::CONN_ID).load(Ordering::Acquire)
    }

    /// The slot that a connection id names.
    pub fn slot_of(conn_id: u64) -> SlotId {
        SlotId((conn_id & ((1 << SLOT_BITS) - 1)) as u32)
    }

    /// Ordinal of the last outbox item that was queued for a connection; `None` if the slot is another's by now.
    /// Any process may ask at any time.
    pub fn delivered(&self, conn_id: u64) -> Option<u64> {
        let id = Self::slot_of(conn_id);
        if id.0 >= SLOTS_MAX || self.conn_id(id) != conn_id || self.state(id) != SlotState::Open {
            return None;
        }
        let version = self.u64(id, layout::VERSION).load(Ordering::Acquire);
        let record = base(id) + layout::RECORDS[(version & 1) as usize];
        let delivered = self.region.u64(record + 40).load(Ordering::Acquire);
        // The leader may have written this record again meanwhile; then the newer version's answer is as good.
        let again = self.u64(id, layout::VERSION).load(Ordering::Acquire);
        (again == version && self.conn_id(id) == conn_id).then_some(delivered)
    }

    /// The leader ended the connection.
    pub fn close(&self, id: SlotId) {
        self.set_state(id, CLOSED);
    }

    /// The slot may be used again.
    pub fn free(&self, id: SlotId) {
        self.set_state(id, FREE);
    }

    /// Slots in use (open or closed), in order.
    pub fn used(&self) -> impl Iterator<Item = (SlotId, SlotState, Kind)> + '_ {
        let high = [self.high_water(0), self.high_water(1)];
        (0..high[0]).chain(SOCKETS_MAX..SOCKETS_MAX + high[1]).map(SlotId).filter_map(|id| {
            let state = self.state(id);
            let kind = if id.0 < SOCKETS_MAX { Kind::Socket } else { Kind::Ring };
            (state != SlotState::Free).then_some((id, state, kind))
        })
    }

    /// The local port to which VIRQ_DOM_EXC is bound; 0 if none is.
    pub fn virq_port(&self) -> u32 {
        self.region.u32(VIRQ_PORT).load(Ordering::Acquire)
    }

    /// Notes the local port to which VIRQ_DOM_EXC is bound.
    pub fn set_virq_port(&self, port: u32) {
        self.region.u32(VIRQ_PORT).store(port, Ordering::Release);
    }

    /// Whether a leader is between binding an event-channel port and noting it in a slot.
    pub fn is_binding(&self) -> bool {
        self.region.u32(BINDING).load(Ordering::Acquire) != 0
    }

    /// Notes that a port is about to be bound, or that it is noted now.
    pub fn set_binding(&self, binding: bool) {
        self.region.u32(BINDING).store(u32::from(binding), Ordering::Release);
    }

    fn begin(&self, id: SlotId, kind: Kind) {
        let generation = self.u64(id, layout::GENERATION).load(Ordering::Relaxed) + 1;
        self.u64(id, layout::GENERATION).store(generation, Ordering::Release);
        let start = base(id) + layout::CONN_ID;
        for word in (start..base(id) + layout::END).step_by(8) {
            if word != base(id) + layout::GENERATION {
                self.region.u64(word).store(0, Ordering::Relaxed);
            }
        }
        self.u32(id, layout::KIND).store(u32::from(kind == Kind::Ring), Ordering::Relaxed);
        self.u64(id, layout::CONN_ID).store(generation << SLOT_BITS | u64::from(id.0), Ordering::Release);
        self.raise_high_water(id);
    }

    fn first_free(&self, range: std::ops::Range<u32>) -> Option<SlotId> {
        range.map(SlotId).find(|id| self.state(*id) == SlotState::Free)
    }

    fn raise_high_water(&self, id: SlotId) {
        let (half, first) = if id.0 < SOCKETS_MAX { (0, 0) } else { (1, SOCKETS_MAX) };
        let count = id.0 - first + 1;
        if count > self.high_water(half) {
            self.region.u32(16 + 4 * half).store(count, Ordering::Release);
        }
    }

    fn high_water(&self, half: usize) -> u32 {
        self.region.u32(16 + 4 * half).load(Ordering::Acquire)
    }

    fn set_state(&self, id: SlotId, state: u32) {
        self.u32(id, layout::STATE).store(state, Ordering::Release);
    }

    fn u32(&self, id: SlotId, offset: usize) -> &std::sync::atomic::AtomicU32 {
        self.region.u32(base(id) + offset)
    }

    fn u64(&self, id: SlotId, offset: usize) -> &std::sync::atomic::AtomicU64 {
        self.region.u64(base(id) + offset)
    }
}

fn base(id: SlotId) -> usize {
    TABLE_HEADER_BYTES + id.0 as usize * SLOT_BYTES
}

const _: () = assert!(layout::END <= SLOT_HEADER_BYTES && 24 <= TABLE_HEADER_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::open(Region::create("conns", TABLE_BYTES).unwrap())
    }

    #[test]
    fn ids_are_never_used_twice_and_name_their_slot() {
        let table = table();
        let id = table.allocate_socket().unwrap();
        let first = table.conn_id(id);
        assert_eq!(Table::slot_of(first), id);
        assert_eq!(table.delivered(first), Some(0));
        table.slot(id).commit(0, 0, Some(9));
        assert_eq!(table.delivered(first), Some(9));
        table.close(id);
        table.free(id);
        assert_eq!(table.allocate_socket(), Some(id));
        assert_ne!(table.conn_id(id), first);
        assert_eq!(table.delivered(first), None);
        assert_eq!(table.slot(id).record(), crate::Record::default());
    }

    #[test]
    fn the_bounds_are_reached_and_kept() {
        let table = table();
        for _ in 0..SOCKETS_MAX {
            table.allocate_socket().unwrap();
        }
        assert_eq!(table.allocate_socket(), None);
        let ring = table.allocate_ring(7, 1, 2, 3).unwrap();
        assert_eq!((table.domid(ring), table.ports(ring), table.gfn(ring)), (7, (1, 2), 3));
        for _ in 1..crate::limits::RINGS_MAX {
            table.allocate_ring(1, 1, 1, 1).unwrap();
        }
        assert_eq!(table.allocate_ring(1, 1, 1, 1), None);
        assert_eq!(table.used().count(), SLOTS_MAX as usize);
    }
}
