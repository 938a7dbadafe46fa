//! What a shadow's successor needs to know, in shared memory that the keeper holds. Version 4 (2: the record
//! twice, checked backlogs; 3: backlogs of 1,024 slots; 4: of 2,048).
//!
//! ```text
//! page 0: magic u64, version u32, places u32, the heartbeat at 64
//! then for each interface a place: its record (one page), then for each queue two logs, counts and a backlog
//! ```
//! A place is used while its stage is [`Stage::Connected`]; all else in it is written before. A guest never sees any of it.

mod counts;
mod heartbeat;
mod log;
mod record;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hypervisor::Region;
use lane::FrameRing;

pub use counts::{Count, Counts};
pub use heartbeat::Heartbeat;
pub use log::{Entry, Label, PublishLog};
pub use record::{QueueRecord, VifRecord};

use crate::error::Error;
use crate::limits::{BACKLOG_SLOTS, QUEUES_MAX, VIFS_MAX};

const MAGIC: u64 = u64::from_le_bytes(*b"ppvmmnet");
const VERSION: u32 = 4;
const HEADER_BYTES: usize = 4096;
const RECORD_BYTES: usize = 4096;
/// Bytes of one log of answers.
const LOG_BYTES: usize = 4096;
const COUNTS_BYTES: usize = 4096;
const QUEUE_BYTES: usize = 2 * LOG_BYTES + COUNTS_BYTES + FrameRing::bytes(BACKLOG_SLOTS);
const PLACE_BYTES: usize = RECORD_BYTES + QUEUES_MAX * QUEUE_BYTES;
const STATE_BYTES: usize = HEADER_BYTES + VIFS_MAX * PLACE_BYTES;

/// Where an interface's state lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub usize);

/// Memory of one queue.
pub struct QueueMemory {
    /// Answers on the transmit ring.
    pub tx_log: PublishLog,
    /// Answers on the receive ring.
    pub rx_log: PublishLog,
    /// Frames that wait for the guest.
    pub backlog: FrameRing,
    /// What was counted.
    pub counts: Counts,
}

/// The whole state.
#[derive(Debug, Clone)]
pub struct State {
    region: Arc<Region>,
}

impl State {
    /// New, empty state.
    ///
    /// # Errors
    /// [`Error::Region`].
    pub fn create() -> Result<Self, Error> {
        let state = Self { region: Arc::new(Region::create("net-state", STATE_BYTES)?) };
        state.refresh();
        Ok(state)
    }

    /// Writes again what never changes.
    pub fn refresh(&self) {
        self.region.u32(8).store(VERSION, Ordering::Relaxed);
        self.region.u32(12).store(u32::try_from(VIFS_MAX).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.region.u64(0).store(MAGIC, Ordering::Release);
    }

    /// State that an earlier keeper of this version made. What never changes is written again: it may have been damaged.
    ///
    /// # Errors
    /// [`Error::Region`].
    pub fn adopt(fd: std::os::fd::OwnedFd) -> Result<Self, Error> {
        let state = Self { region: Arc::new(Region::open(fd, STATE_BYTES)?) };
        state.refresh();
        Ok(state)
    }

    /// State that another process made.
    ///
    /// # Errors
    /// [`Error::Region`], [`Error::StateVersion`].
    pub fn open(fd: std::os::fd::OwnedFd) -> Result<Self, Error> {
        let region = Region::open(fd, STATE_BYTES)?;
        let have = (region.u64(0).load(Ordering::Acquire), region.u32(8).load(Ordering::Relaxed));
        if have != (MAGIC, VERSION) {
            return Err(Error::StateVersion { magic: have.0, version: have.1 });
        }
        Ok(Self { region: Arc::new(region) })
    }

    /// The memory.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Where the shadow shows itself alive.
    pub fn heartbeat(&self) -> Heartbeat {
        Heartbeat::new(Arc::clone(&self.region))
    }

    /// Interfaces that are connected.
    pub fn connected(&self) -> impl Iterator<Item = (Place, VifRecord)> + '_ {
        (0..VIFS_MAX).map(Place).filter_map(|place| Some((place, self.record(place)?)))
    }

    /// A place that nobody uses.
    pub fn free_place(&self) -> Option<Place> {
        (0..VIFS_MAX).map(Place).find(|place| record::is_free(&self.region, base(*place)))
    }

    /// The record of a connected interface.
    pub fn record(&self, place: Place) -> Option<VifRecord> {
        VifRecord::load(&self.region, base(place))
    }

    /// Empties a free place for an interface about to be connected.
    ///
    /// # Errors
    /// [`Error::Lane`].
    pub fn prepare(&self, place: Place, queues: usize) -> Result<Vec<QueueMemory>, Error> {
        self.region.release(base(place), PLACE_BYTES)?;
        (0..queues)
            .map(|queue| {
                FrameRing::create(Arc::clone(&self.region), backlog_base(place, queue), BACKLOG_SLOTS)?;
                self.queue(place, queue)
            })
            .collect()
    }

    /// Makes the record count: from here on a successor takes the interface over.
    pub fn commit(&self, place: Place, record: &VifRecord) {
        record.store(&self.region, base(place));
    }

    /// The interface is gone; its memory goes back.
    ///
    /// # Errors
    /// [`Error::Region`].
    pub fn free(&self, place: Place) -> Result<(), Error> {
        record::set_free(&self.region, base(place));
        Ok(self.region.release(base(place), PLACE_BYTES)?)
    }

    /// Memory of a queue.
    ///
    /// # Errors
    /// [`Error::Lane`].
    pub fn queue(&self, place: Place, queue: usize) -> Result<QueueMemory, Error> {
        let start = queue_base(place, queue);
        Ok(QueueMemory {
            tx_log: PublishLog::new(Arc::clone(&self.region), start),
            rx_log: PublishLog::new(Arc::clone(&self.region), start + LOG_BYTES),
            counts: Counts::new(&self.region, start + 2 * LOG_BYTES),
            backlog: FrameRing::attach(Arc::clone(&self.region), backlog_base(place, queue))?,
        })
    }
}

fn base(place: Place) -> usize {
    assert!(place.0 < VIFS_MAX, "a place of the state");
    HEADER_BYTES + place.0 * PLACE_BYTES
}

fn queue_base(place: Place, queue: usize) -> usize {
    assert!(queue < QUEUES_MAX, "a queue of the place");
    base(place) + RECORD_BYTES + queue * QUEUE_BYTES
}

fn backlog_base(place: Place, queue: usize) -> usize {
    queue_base(place, queue) + 2 * LOG_BYTES + COUNTS_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn record(domid: u16) -> VifRecord {
        let queue = QueueRecord { tx_gref: 8, rx_gref: 9, tx_port: 3, rx_port: 3, source: domid };
        VifRecord { domid, handle: 1, flags: 5, mac: [2; 6], queues: vec![queue; 2] }
    }

    #[test]
    fn what_was_committed_is_found_by_a_successor() {
        let state = State::create().unwrap();
        let place = state.free_place().unwrap();
        assert_eq!(state.prepare(place, 2).unwrap().len(), 2);
        assert_eq!(state.record(place), None);
        state.commit(place, &record(7));
        let next = State::open(state.region().as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(next.connected().collect::<Vec<_>>(), [(place, record(7))]);
        assert_ne!(next.free_place(), Some(place));
        next.queue(place, 1).unwrap();
        next.free(place).unwrap();
        assert_eq!(state.connected().count(), 0);
        assert_eq!(state.free_place(), Some(place));
    }

    #[test]
    fn a_flipped_bit_costs_no_interface() {
        let state = State::create().unwrap();
        let place = state.free_place().unwrap();
        for bit in 0..2 * 1024 * 8 {
            state.commit(place, &record(7));
            let at = base(place) + bit / 64 * 8;
            state.region().u64(at).fetch_xor(1 << (bit % 64), Ordering::Relaxed);
            assert_eq!(state.record(place), Some(record(7)), "bit {bit}");
            assert_ne!(state.free_place(), Some(place));
        }
        state.free(place).unwrap();
        assert_eq!((state.record(place), state.free_place()), (None, Some(place)));
    }

    #[test]
    fn places_are_finite() {
        let state = State::create().unwrap();
        for n in 0..VIFS_MAX {
            let place = state.free_place().unwrap();
            assert_eq!(place, Place(n));
            state.commit(place, &record(1));
        }
        assert_eq!(state.free_place(), None);
    }

    #[test]
    fn memory_of_something_else_is_refused() {
        let region = Region::create("other", STATE_BYTES).unwrap();
        let fd = region.as_fd().try_clone_to_owned().unwrap();
        assert!(matches!(State::open(fd), Err(Error::StateVersion { magic: 0, version: 0 })));
    }
}
