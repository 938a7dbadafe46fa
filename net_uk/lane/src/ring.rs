//! The memory of a ring.
//!
//! ```text
//!    0  magic u64, version u32, slots u32, slot bytes u32
//!  128  produced u64 (Cursor), producer sleeps u32
//!  256  consumed u64 (Cursor), consumer sleeps u32
//!  512  descriptors, 32 bytes for each slot
//!    …  buffers, 2048 bytes for each slot, from the next page on
//! ```
//! Descriptor i always describes buffer i: neither side ever follows an index that the other one wrote.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use hypervisor::Region;

use crate::consumer::Consumer;
use crate::cursor::Cursor;
use crate::descriptor::{Descriptor, RawDescriptor};
use crate::error::{DescriptorFault, LaneError};
use crate::frame::Pieces;
use crate::limits::{
    DESCRIPTOR_BYTES, PAGE_BYTES, RING_HEADER_BYTES, SLOT_BYTES, SLOTS_MAX, SLOTS_MIN, VERSION,
};
use crate::producer::Producer;

const MAGIC: u64 = u64::from_le_bytes(*b"ppvmring");
const VERSION_AT: usize = 8;
const SLOTS_AT: usize = 12;
const SLOT_BYTES_AT: usize = 16;
const PRODUCED_AT: usize = 128;
const PRODUCER_SLEEPS_AT: usize = 136;
const CONSUMED_AT: usize = 256;
const CONSUMER_SLEEPS_AT: usize = 264;

/// A ring of frames with one producer and one consumer.
#[derive(Debug, Clone)]
pub struct FrameRing {
    region: Arc<Region>,
    base: usize,
    slots: u32,
}

impl FrameRing {
    /// Bytes of a ring with `slots` slots: a multiple of the page size.
    pub const fn bytes(slots: u32) -> usize {
        buffers_offset(slots) + (slots as usize * SLOT_BYTES).next_multiple_of(PAGE_BYTES)
    }

    /// Makes an empty ring at `base` of zeroed memory.
    ///
    /// # Errors
    /// [`LaneError::Slots`], [`LaneError::Bounds`].
    pub fn create(region: Arc<Region>, base: usize, slots: u32) -> Result<Self, LaneError> {
        let ring = Self::checked(region, base, slots, SLOT_BYTES)?;
        ring.refresh();
        Ok(ring)
    }

    /// Writes again what never changes.
    pub(crate) fn refresh(&self) {
        self.word32(VERSION_AT).store(VERSION, Ordering::Relaxed);
        self.word32(SLOTS_AT).store(self.slots, Ordering::Relaxed);
        self.word32(SLOT_BYTES_AT).store(u32_of(SLOT_BYTES), Ordering::Relaxed);
        self.word(0).store(MAGIC, Ordering::Release);
    }

    /// Finds the ring at `base`.
    ///
    /// # Errors
    /// [`LaneError::Magic`], [`LaneError::Version`], [`LaneError::Slots`], [`LaneError::Bounds`].
    pub fn attach(region: Arc<Region>, base: usize) -> Result<Self, LaneError> {
        let header = Self::checked(region, base, SLOTS_MIN, SLOT_BYTES)?;
        let have = header.word(0).load(Ordering::Acquire);
        if have != MAGIC {
            return Err(LaneError::Magic { have });
        }
        let have = header.word32(VERSION_AT).load(Ordering::Relaxed);
        if have != VERSION {
            return Err(LaneError::Version { have, need: VERSION });
        }
        let slots = header.word32(SLOTS_AT).load(Ordering::Relaxed);
        let slot_bytes = header.word32(SLOT_BYTES_AT).load(Ordering::Relaxed);
        Self::checked(header.region, base, slots, slot_bytes as usize)
    }

    fn checked(region: Arc<Region>, base: usize, slots: u32, slot_bytes: usize) -> Result<Self, LaneError> {
        if !slots.is_power_of_two() || !(SLOTS_MIN..=SLOTS_MAX).contains(&slots) || slot_bytes != SLOT_BYTES {
            return Err(LaneError::Slots { slots, slot_bytes: u32_of(slot_bytes) });
        }
        let need_bytes = Self::bytes(slots);
        let have_bytes = region.length_bytes();
        if !base.is_multiple_of(PAGE_BYTES) || base.checked_add(need_bytes).is_none_or(|end| end > have_bytes)
        {
            return Err(LaneError::Bounds { offset: base, need_bytes, have_bytes });
        }
        Ok(Self { region, base, slots })
    }

    /// The producer's side. There must be no other one.
    ///
    /// # Errors
    /// [`LaneError::Indices`].
    pub fn producer(&self) -> Result<Producer, LaneError> {
        Producer::new(self.clone())
    }

    /// The consumer's side. There must be no other one.
    ///
    /// # Errors
    /// [`LaneError::Indices`].
    pub fn consumer(&self) -> Result<Consumer, LaneError> {
        Consumer::new(self.clone())
    }

    /// The producer's side, as if the consumer had taken everything: for one who does not use it before the consumer's
    /// index makes sense again.
    pub fn producer_alone(&self) -> Producer {
        Producer::alone(self.clone())
    }

    /// The consumer's side, as if nothing were there: as [`FrameRing::producer_alone`].
    pub fn consumer_alone(&self) -> Consumer {
        Consumer::alone(self.clone())
    }

    /// Writes nonsense, as a process out of its mind would: for tests of the other side.
    pub fn damage(&self, damage: Damage) {
        match damage {
            Damage::PublishedTooMuch => self.publish(self.produced().ahead_by(self.slots)),
            Damage::TakenTooMuch => self.take_off(self.produced().ahead_by(1)),
            Damage::Garbage => {
                let produced = self.produced();
                self.write_descriptor(produced.slots, RawDescriptor([!0; 4]));
                self.publish(produced.after_frame(1));
            }
        }
    }

    /// Where the frame of this number begins: behind the last slot of the one before it, which has to be there yet.
    pub(crate) fn before(&self, number: u32) -> Option<Cursor> {
        let of_last = |slot: u32| {
            let raw = self.read_descriptor(slot);
            let position = raw.position();
            let descriptor = Descriptor::decode(raw, position).ok()?;
            let last = descriptor.number == number.wrapping_sub(1) && !descriptor.more;
            (last && position & (self.slots - 1) == slot).then(|| position.wrapping_add(1))
        };
        (0..self.slots).find_map(of_last).map(|slots| Cursor { frames: number, slots })
    }

    /// Slots of the ring.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// The memory that it lies in.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    pub(crate) fn pieces(&self, first_slot: u32, length_bytes: usize) -> Pieces {
        Pieces {
            buffers: self.base + buffers_offset(self.slots),
            slots: self.slots,
            next_slot: first_slot,
            left_bytes: length_bytes,
        }
    }

    /// How far the producer has published, as its word says now.
    pub fn produced(&self) -> Cursor {
        Cursor::from_word(self.word(PRODUCED_AT).load(Ordering::Acquire))
    }

    /// How far the consumer has taken off, as its word says now.
    pub fn consumed(&self) -> Cursor {
        Cursor::from_word(self.word(CONSUMED_AT).load(Ordering::Acquire))
    }

    pub(crate) fn publish(&self, produced: Cursor) {
        store(self.word(PRODUCED_AT), produced.word());
    }

    pub(crate) fn take_off(&self, consumed: Cursor) {
        store(self.word(CONSUMED_AT), consumed.word());
    }

    pub(crate) fn read_descriptor(&self, position: u32) -> RawDescriptor {
        let at = self.descriptor_at(position);
        RawDescriptor([0, 8, 16, 24].map(|word| self.region.u64(at + word).load(Ordering::Relaxed)))
    }

    pub(crate) fn write_descriptor(&self, position: u32, raw: RawDescriptor) {
        let at = self.descriptor_at(position);
        for word in [1, 0, 2, 3] {
            store(self.region.u64(at + word * 8), raw.0[word]);
        }
    }

    /// The sum goes into a descriptor that is about to be written, over the bytes that lie in its slot.
    pub(crate) fn summed(
        &self,
        position: u32,
        raw: RawDescriptor,
        index: u32,
        length_bytes: usize,
    ) -> RawDescriptor {
        let mut bytes = [0; SLOT_BYTES];
        raw.summed(index, self.slot_bytes(position, &mut bytes[..length_bytes]))
    }

    /// The descriptor of slot `index` of its frame, if it and the slot's bytes are what was written. These are then in `bytes`,
    /// which has room for a slot.
    pub(crate) fn checked_descriptor(
        &self,
        position: u32,
        index: u32,
        bytes: &mut [u8],
    ) -> Result<Descriptor, DescriptorFault> {
        let raw = self.read_descriptor(position);
        let descriptor = Descriptor::decode(raw, position)?;
        let bytes = bytes.get_mut(..descriptor.length_bytes).ok_or(DescriptorFault::Length)?;
        let bytes = self.slot_bytes(position, bytes);
        if raw.is_right(index, bytes) { Ok(descriptor) } else { Err(DescriptorFault::Sum) }
    }

    fn slot_bytes<'a>(&self, position: u32, bytes: &'a mut [u8]) -> &'a [u8] {
        self.region.read(self.buffer_at(position), bytes);
        bytes
    }

    /// Where the bytes of a slot begin in the region.
    pub(crate) fn buffer_at(&self, position: u32) -> usize {
        let slot = (position & (self.slots - 1)) as usize;
        self.base + buffers_offset(self.slots) + slot * SLOT_BYTES
    }

    pub(crate) fn write_bytes(&self, offset: usize, bytes: &[u8]) {
        #[cfg(test)]
        if !crate::fate::may_store() {
            return;
        }
        self.region.write(offset, bytes);
    }

    pub(crate) fn producer_sleeps(&self) -> SleepWord<'_> {
        SleepWord(self.word32(PRODUCER_SLEEPS_AT))
    }

    pub(crate) fn consumer_sleeps(&self) -> SleepWord<'_> {
        SleepWord(self.word32(CONSUMER_SLEEPS_AT))
    }

    fn descriptor_at(&self, position: u32) -> usize {
        self.base + RING_HEADER_BYTES + (position & (self.slots - 1)) as usize * DESCRIPTOR_BYTES
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        self.region.u64(self.base + offset)
    }

    fn word32(&self, offset: usize) -> &AtomicU32 {
        self.region.u32(self.base + offset)
    }
}

/// Kinds of nonsense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The producer says that it published more than fits.
    PublishedTooMuch,
    /// The consumer says that it took more than there was.
    TakenTooMuch,
    /// The producer published a frame that is none.
    Garbage,
}

/// "I sleep, wake me."
pub(crate) struct SleepWord<'a>(&'a AtomicU32);

impl SleepWord<'_> {
    /// Tells the other side. The full fence keeps what the caller looks at next from being older than this.
    pub(crate) fn set(&self) {
        self.0.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Whether the other side sleeps, after whatever the caller published before.
    pub(crate) fn take(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) != 0 && self.0.swap(0, Ordering::Relaxed) != 0
    }
}

fn store(word: &AtomicU64, value: u64) {
    #[cfg(test)]
    if !crate::fate::may_store() {
        return;
    }
    word.store(value, Ordering::Release);
}

const fn buffers_offset(slots: u32) -> usize {
    (RING_HEADER_BYTES + slots as usize * DESCRIPTOR_BYTES).next_multiple_of(PAGE_BYTES)
}

fn u32_of(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(bytes: usize) -> Arc<Region> {
        Arc::new(Region::create("ring", bytes).unwrap())
    }

    #[test]
    fn slots_are_bounded_on_both_ends() {
        let memory = region(FrameRing::bytes(SLOTS_MAX));
        for slots in [SLOTS_MIN, SLOTS_MAX] {
            assert!(FrameRing::create(memory.clone(), 0, slots).is_ok());
        }
        for slots in [0, SLOTS_MIN / 2, SLOTS_MIN + 1, SLOTS_MAX * 2] {
            assert!(matches!(FrameRing::create(memory.clone(), 0, slots), Err(LaneError::Slots { .. })));
        }
    }

    #[test]
    fn a_ring_ends_within_its_region_and_begins_at_a_page() {
        let need = FrameRing::bytes(64);
        assert!(FrameRing::create(region(need), 0, 64).is_ok());
        assert!(matches!(FrameRing::create(region(need - 1), 0, 64), Err(LaneError::Bounds { .. })));
        assert!(matches!(FrameRing::create(region(need), 4096, 64), Err(LaneError::Bounds { .. })));
        assert!(matches!(FrameRing::create(region(2 * need), 512, 64), Err(LaneError::Bounds { .. })));
        assert!(matches!(
            FrameRing::create(region(need), usize::MAX - 4095, 64),
            Err(LaneError::Bounds { .. })
        ));
    }

    #[test]
    fn headers_of_others_are_refused() {
        let memory = region(FrameRing::bytes(64));
        let attach = || FrameRing::attach(memory.clone(), 0).map(|ring| ring.slots());
        assert_eq!(attach(), Err(LaneError::Magic { have: 0 }));
        FrameRing::create(memory.clone(), 0, 64).unwrap();
        assert_eq!(attach(), Ok(64));
        memory.u32(VERSION_AT).store(1, Ordering::Relaxed);
        assert_eq!(attach(), Err(LaneError::Version { have: 1, need: 2 }));
        memory.u32(VERSION_AT).store(2, Ordering::Relaxed);
        memory.u32(SLOTS_AT).store(65, Ordering::Relaxed);
        assert_eq!(attach(), Err(LaneError::Slots { slots: 65, slot_bytes: 2048 }));
        memory.u32(SLOTS_AT).store(128, Ordering::Relaxed);
        assert!(matches!(attach(), Err(LaneError::Bounds { .. })));
        memory.u32(SLOTS_AT).store(64, Ordering::Relaxed);
        memory.u32(SLOT_BYTES_AT).store(4096, Ordering::Relaxed);
        assert_eq!(attach(), Err(LaneError::Slots { slots: 64, slot_bytes: 4096 }));
    }

    #[test]
    fn no_piece_crosses_a_page() {
        let ring = FrameRing::create(region(FrameRing::bytes(64) + 4096), 4096, 64).unwrap();
        let pieces: Vec<_> = ring.pieces(50, crate::limits::FRAME_BYTES_MAX).collect();
        assert_eq!(pieces.len(), crate::limits::FRAME_SLOTS_MAX);
        assert_eq!(
            pieces.iter().map(|piece| piece.length_bytes).sum::<usize>(),
            crate::limits::FRAME_BYTES_MAX
        );
        assert!(pieces.iter().all(|piece| piece.offset % 4096 + piece.length_bytes <= 4096));
        assert!(pieces.iter().all(|piece| piece.offset + piece.length_bytes <= ring.region().length_bytes()));
    }
}
