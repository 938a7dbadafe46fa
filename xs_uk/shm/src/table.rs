//! The connection table: which slots are in use, and by whom.
//!
//! ```text
//!            allocate          free
//!   FREE ------------> OPEN ----------> FREE (generation + 1)
//! ```
//!
//! The leader alone does both. Between two leaders it is the gateway, which then gives a slot to a client that was
//! accepted for the former one and got none.
//!
//! //! A connection id is `generation << 16 | slot`, so an id is never used twice and names its slot.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, compiler_fence};

use crate::limits::{SLOT_BYTES, SLOT_HEADER_BYTES, SLOTS_MAX, SOCKETS_MAX, TABLE_BYTES, TABLE_HEADER_BYTES};
use crate::slot::{Kind, Slot, layout};
use hypervisor::Region;

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
}

const FREE: u32 = 0;
const OPEN: u32 = 1;
const SLOT_BITS: u32 = 16;
const VIRQ_PORT: usize = 8;
const BINDING: usize = 12;
const LEADER: usize = 24;
const LEADER_LINK: usize = 32;
const ACCEPTING: usize = 36;

const _: () = assert!(SLOTS_MAX <= 1 << SLOT_BITS);

/// All slots.
#[derive(Clone, Debug)]
pub struct Table {
    region: Arc<Region>,
    /// No slot for a socket below this one is free, as far as this process knows.
    vacant: Arc<AtomicU32>,
}

impl Table {
    /// Uses a region of at least [`TABLE_BYTES`]; zeroed memory is an empty table.
    pub fn open(region: Region) -> Self {
        assert!(region.length_bytes() >= TABLE_BYTES, "the region is too small for the table");
        Self { region: Arc::new(region), vacant: Arc::default() }
    }

    /// Takes a free slot for a client socket whose descriptor nobody notes. `None` if all are taken.
    pub fn allocate_socket(&self) -> Option<SlotId> {
        let id = self.vacant_socket()?;
        self.begin(id, Kind::Socket);
        self.set_state(id, OPEN);
        Some(id)
    }

    /// A slot that [`Self::take_socket`] can take.
    pub fn vacant_socket(&self) -> Option<SlotId> {
        let hint = self.vacant.load(Ordering::Relaxed);
        let id = self.first_free(hint..SOCKETS_MAX).or_else(|| self.first_free(0..hint))?;
        self.vacant.store(id.0, Ordering::Relaxed);
        Some(id)
    }

    /// Takes a free slot for a client socket that is open under this number in the caller, and that nobody else has.
    pub fn take_socket(&self, id: SlotId, descriptor: RawFd) {
        self.begin(id, Kind::Socket);
        self.note_descriptor(id, descriptor, false);
        self.set_state(id, OPEN);
    }

    /// Notes under which number a client socket is open in the leader, and whether the gateway has it too.
    pub fn note_descriptor(&self, id: SlotId, descriptor: RawFd, handed: bool) {
        self.u32(id, layout::HANDED).store(u32::from(handed), Ordering::Release);
        self.u32(id, layout::DESCRIPTOR).store(number_word(descriptor), Ordering::Release);
    }

    /// What [`Self::note_descriptor`] noted; `None` before it did.
    pub fn descriptor(&self, id: SlotId) -> Option<(RawFd, bool)> {
        let number = word_number(self.u32(id, layout::DESCRIPTOR).load(Ordering::Acquire))?;
        Some((number, self.u32(id, layout::HANDED).load(Ordering::Acquire) != 0))
    }

    /// Notes that the log has told of the connection.
    pub fn set_known(&self, id: SlotId) {
        self.u32(id, layout::KNOWN).store(1, Ordering::Release);
    }

    /// Whether the log has told of the connection. One that is not known to the store all the same has ended.
    pub fn is_known(&self, id: SlotId) -> bool {
        self.u32(id, layout::KNOWN).load(Ordering::Acquire) != 0
    }

    /// Who leads, by a number that no other process of the store ever has; 0 before one has taken over.
    pub fn leader(&self) -> u64 {
        self.region.u64(LEADER).load(Ordering::Acquire)
    }

    /// The caller leads. What is noted of descriptors from here on is its own.
    pub fn set_leader(&self, leader: u64) {
        self.region.u64(LEADER).store(leader, Ordering::Release);
    }

    /// The number under which the link to the gateway is open in the leader.
    pub fn leader_link(&self) -> Option<RawFd> {
        word_number(self.region.u32(LEADER_LINK).load(Ordering::Acquire))
    }

    /// Notes under which number the link to the gateway is open.
    pub fn set_leader_link(&self, descriptor: Option<RawFd>) {
        self.region.u32(LEADER_LINK).store(descriptor.map_or(0, number_word), Ordering::Release);
    }

    /// Whether the leader is between accepting a client and giving it its slot.
    pub fn is_accepting(&self) -> bool {
        self.region.u32(ACCEPTING).load(Ordering::Acquire) != 0
    }

    /// Notes that a client is about to be accepted, or that it has its slot now.
    pub fn set_accepting(&self, accepting: bool) {
        // Neither this store nor that of a slot may pass the system call between them.
        compiler_fence(Ordering::SeqCst);
        self.region.u32(ACCEPTING).store(u32::from(accepting), Ordering::Release);
        compiler_fence(Ordering::SeqCst);
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

    /// The connection is over: the slot may be used again.
    pub fn free(&self, id: SlotId) {
        self.set_state(id, FREE);
        if id.0 < SOCKETS_MAX {
            self.vacant.fetch_min(id.0, Ordering::Relaxed);
        }
    }

    /// Slots in use, in order.
    pub fn used(&self) -> impl Iterator<Item = (SlotId, Kind)> + '_ {
        let high = [self.high_water(0), self.high_water(1)];
        (0..high[0]).chain(SOCKETS_MAX..SOCKETS_MAX + high[1]).map(SlotId).filter_map(|id| {
            let kind = if id.0 < SOCKETS_MAX { Kind::Socket } else { Kind::Ring };
            (self.state(id) != SlotState::Free).then_some((id, kind))
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

    fn u32(&self, id: SlotId, offset: usize) -> &AtomicU32 {
        self.region.u32(base(id) + offset)
    }

    fn u64(&self, id: SlotId, offset: usize) -> &std::sync::atomic::AtomicU64 {
        self.region.u64(base(id) + offset)
    }
}

/// A descriptor's number as a word in which 0 is none.
fn number_word(descriptor: RawFd) -> u32 {
    u32::try_from(descriptor).map_or(0, |number| number + 1)
}

fn word_number(word: u32) -> Option<RawFd> {
    word.checked_sub(1).and_then(|number| RawFd::try_from(number).ok())
}

fn base(id: SlotId) -> usize {
    TABLE_HEADER_BYTES + id.0 as usize * SLOT_BYTES
}

const _: () = assert!(layout::END <= SLOT_HEADER_BYTES && ACCEPTING + 4 <= TABLE_HEADER_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::open(Region::create("conns", TABLE_BYTES).unwrap())
    }

    impl Table {
        fn clone_of_another_process(&self) -> Self {
            Self { region: self.region.clone(), vacant: Arc::default() }
        }
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
        // Another process may free one and take it: what this one believes of free slots is only where it looks first.
        let other = table.clone_of_another_process();
        other.free(SlotId(7));
        assert_eq!(table.vacant_socket(), Some(SlotId(7)));
        table.take_socket(SlotId(7), 3);
        assert_eq!((table.vacant_socket(), other.vacant_socket()), (None, None));
    }

    #[test]
    fn what_the_leader_notes_of_descriptors_is_there_for_another_process() {
        let table = table();
        assert_eq!((table.leader(), table.leader_link(), table.is_accepting()), (0, None, false));
        table.set_leader(9);
        table.set_leader_link(Some(0));
        table.set_accepting(true);
        let id = table.vacant_socket().unwrap();
        assert_eq!(table.state(id), SlotState::Free);
        table.take_socket(id, 0);
        let other = table.clone_of_another_process();
        assert_eq!((other.leader(), other.leader_link(), other.is_accepting()), (9, Some(0), true));
        assert_eq!((other.state(id), other.descriptor(id)), (SlotState::Open, Some((0, false))));
        table.note_descriptor(id, 12, true);
        table.set_known(id);
        assert_eq!((other.descriptor(id), other.is_known(id)), (Some((12, true)), true));
        table.free(id);
        table.allocate_socket().unwrap();
        assert_eq!((other.descriptor(id), other.is_known(id)), (None, false));
    }
}
