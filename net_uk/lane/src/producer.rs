//! The side that fills a ring.

use std::collections::BTreeMap;
use std::sync::Arc;

use hypervisor::Region;

use crate::cursor::Cursor;
use crate::descriptor::Descriptor;
use crate::error::LaneError;
use crate::frame::{FrameFlags, FrameMeta, Piece, Pieces};
use crate::limits::{FRAME_BYTES_MAX, SLOT_BYTES};
use crate::ring::FrameRing;

/// Room for one frame: to be filled, then given to [`Producer::stage`]. Reservations are staged in the order in which
/// they were made.
#[derive(Debug)]
#[must_use]
pub struct Reservation {
    first_slot: u32,
    slots: u32,
    length_bytes: usize,
}

impl Reservation {
    /// Length of the frame.
    pub fn length_bytes(&self) -> usize {
        self.length_bytes
    }
}

/// The side that fills a ring. Frames go through three stages: room is reserved, descriptors are staged, and
/// [`Producer::publish`] shows all staged frames to the consumer with one store.
#[derive(Debug)]
pub struct Producer {
    ring: FrameRing,
    published: Cursor,
    staged: Cursor,
    reserved_slot: u32,
    consumed: Cursor,
}

impl Producer {
    /// The producer of the ring at `base`; it goes on where the one before it published last.
    ///
    /// # Errors
    /// Those of [`FrameRing::attach`], and [`LaneError::Indices`].
    pub fn attach(region: Arc<Region>, base: usize) -> Result<Self, LaneError> {
        FrameRing::attach(region, base)?.producer()
    }

    pub(crate) fn new(ring: FrameRing) -> Result<Self, LaneError> {
        let mut producer = Self::alone(ring);
        producer.room_slots()?;
        Ok(producer)
    }

    pub(crate) fn alone(ring: FrameRing) -> Self {
        let published = ring.produced();
        Self { ring, published, staged: published, reserved_slot: published.slots, consumed: published }
    }

    /// What has been published since the ring was made, by this producer and those before it.
    pub fn published(&self) -> Cursor {
        self.published
    }

    /// The ring.
    pub fn ring(&self) -> &FrameRing {
        &self.ring
    }

    /// Slots that can be reserved.
    ///
    /// # Errors
    /// [`LaneError::Indices`] if the consumer's index makes no sense.
    pub fn room_slots(&mut self) -> Result<u32, LaneError> {
        let consumed = self.ring.consumed();
        Cursor::used(self.published, consumed, self.ring.slots())?;
        let slots = self.ring.slots();
        // A consumer that goes back may be in its right as to what is published, and not as to what is reserved.
        if self.reserved_slot.wrapping_sub(consumed.slots) > slots {
            return Err(LaneError::Indices { produced: self.published, consumed, slots });
        }
        self.consumed = consumed;
        Ok(self.free_slots())
    }

    /// How far the consumer had come when its index was looked at last and made sense.
    pub fn seen_consumed(&self) -> Cursor {
        self.consumed
    }

    /// Writes the own index again if something else changed it. Says whether that was so.
    pub fn reassert(&self) -> bool {
        let changed = self.ring.produced() != self.published;
        if changed {
            self.ring.publish(self.published);
        }
        changed
    }

    /// Slots that were free when the consumer's index was looked at last, but for those that were reserved since.
    pub fn free_slots(&self) -> u32 {
        self.ring.slots() - self.reserved_slot.wrapping_sub(self.consumed.slots)
    }

    /// Reserves room for a frame; none if there is not enough of it.
    ///
    /// # Errors
    /// [`LaneError::Length`], [`LaneError::Indices`].
    pub fn reserve(&mut self, length_bytes: usize) -> Result<Option<Reservation>, LaneError> {
        let slots = slots_for(length_bytes)?;
        if self.free_slots() < slots && self.room_slots()? < slots {
            return Ok(None);
        }
        let first_slot = self.reserved_slot;
        self.reserved_slot = first_slot.wrapping_add(slots);
        Ok(Some(Reservation { first_slot, slots, length_bytes }))
    }

    /// Where the frame's bytes go in the region.
    pub fn pieces(&self, reservation: &Reservation) -> Pieces {
        self.ring.pieces(reservation.first_slot, reservation.length_bytes)
    }

    /// What the frame leaves of its last slot: a producer may keep something there that its successor is to find.
    pub fn slack(&self, reservation: &Reservation) -> Piece {
        let before = reservation.slots - 1;
        let used_bytes = reservation.length_bytes - before as usize * SLOT_BYTES;
        let last_at = self.ring.buffer_at(reservation.first_slot.wrapping_add(before));
        Piece { offset: last_at + used_bytes, length_bytes: SLOT_BYTES - used_bytes }
    }

    /// Copies bytes into a reservation, beginning `at` bytes after its start. More than fit is a broken invariant.
    pub fn write(&self, reservation: &Reservation, at: usize, bytes: &[u8]) {
        let end = at.checked_add(bytes.len());
        assert!(end.is_some_and(|end| end <= reservation.length_bytes), "the bytes fit into the reservation");
        let mut skip = at;
        let mut rest = bytes;
        for piece in self.pieces(reservation) {
            let skipped = skip.min(piece.length_bytes);
            skip -= skipped;
            let (now, later) = rest.split_at(rest.len().min(piece.length_bytes - skipped));
            if !now.is_empty() {
                self.ring.write_bytes(piece.offset + skipped, now);
            }
            rest = later;
        }
    }

    /// Makes the latest reservation shorter, once the true length is known.
    ///
    /// # Errors
    /// [`LaneError::Length`] if it is 0 or more than was reserved.
    pub fn shorten(&mut self, reservation: &mut Reservation, length_bytes: usize) -> Result<(), LaneError> {
        assert_eq!(
            reservation.first_slot.wrapping_add(reservation.slots),
            self.reserved_slot,
            "only the latest reservation can change its length"
        );
        let slots = slots_for(length_bytes)?;
        if length_bytes > reservation.length_bytes {
            return Err(LaneError::Length { length_bytes });
        }
        self.reserved_slot = reservation.first_slot.wrapping_add(slots);
        reservation.slots = slots;
        reservation.length_bytes = length_bytes;
        Ok(())
    }

    /// Writes a frame's descriptors. The consumer does not see it before [`Producer::publish`].
    ///
    /// # Errors
    /// [`LaneError::Meta`]; the frame is then staged as void.
    #[expect(clippy::needless_pass_by_value, reason = "a reservation is staged once")]
    pub fn stage(&mut self, reservation: Reservation, meta: &FrameMeta) -> Result<(), LaneError> {
        self.describe(&reservation, meta, None)
    }

    /// Writes a frame's bytes and descriptors. The sum is over `bytes`, not over what lies in the ring by then. More bytes or
    /// fewer than were reserved are a broken invariant.
    ///
    /// # Errors
    /// [`LaneError::Meta`]; the frame is then staged as void.
    #[expect(clippy::needless_pass_by_value, reason = "a reservation is staged once")]
    pub fn stage_bytes(
        &mut self,
        reservation: Reservation,
        bytes: &[u8],
        meta: &FrameMeta,
    ) -> Result<(), LaneError> {
        assert_eq!(bytes.len(), reservation.length_bytes, "a frame is staged as a whole");
        self.write(&reservation, 0, bytes);
        self.describe(&reservation, meta, Some(bytes))
    }

    fn describe(
        &mut self,
        reservation: &Reservation,
        meta: &FrameMeta,
        bytes: Option<&[u8]>,
    ) -> Result<(), LaneError> {
        assert_eq!(reservation.first_slot, self.staged.slots, "reservations are staged in their order");
        let checked = meta.check();
        let meta = if checked.is_ok() { *meta } else { void_of(meta) };
        for index in 0..reservation.slots {
            let position = reservation.first_slot.wrapping_add(index);
            let at = index as usize * SLOT_BYTES;
            let end = reservation.length_bytes.min(at + SLOT_BYTES);
            let more = index + 1 < reservation.slots;
            let descriptor = Descriptor { length_bytes: end - at, more, number: self.staged.frames, meta };
            let raw = descriptor.encode(position);
            let raw = match bytes {
                Some(bytes) => raw.summed(index, &bytes[at..end]),
                None => self.ring.summed(position, raw, index, end - at),
            };
            self.ring.write_descriptor(position, raw);
        }
        self.staged = self.staged.after_frame(reservation.slots);
        checked
    }

    /// Shows all staged frames to the consumer: the commit. Says whether there were any.
    pub fn publish(&mut self) -> bool {
        if self.staged == self.published {
            return false;
        }
        self.ring.publish(self.staged);
        self.published = self.staged;
        true
    }

    /// Stages and publishes.
    ///
    /// # Errors
    /// Those of [`Producer::stage`].
    pub fn commit(&mut self, reservation: Reservation, meta: &FrameMeta) -> Result<(), LaneError> {
        let staged = self.stage(reservation, meta);
        self.publish();
        staged
    }

    /// Drops everything that was reserved or staged and not published.
    pub fn abandon(&mut self) {
        self.staged = self.published;
        self.reserved_slot = self.published.slots;
    }

    /// Publishes a frame with these bytes. Says false if there is no room.
    ///
    /// # Errors
    /// Those of [`Producer::reserve`], and [`LaneError::Meta`], with which nothing is published.
    pub fn push(&mut self, bytes: &[u8], meta: &FrameMeta) -> Result<bool, LaneError> {
        meta.check()?;
        let Some(reservation) = self.reserve(bytes.len())? else { return Ok(false) };
        self.stage_bytes(reservation, bytes, meta)?;
        self.publish();
        Ok(true)
    }

    /// The same of all sources at once.
    pub fn last_seqs(&self) -> BTreeMap<u16, u32> {
        let mut last = BTreeMap::new();
        for back in 1..=self.ring.slots() {
            let position = self.published.slots.wrapping_sub(back);
            let Ok(descriptor) = Descriptor::decode(self.ring.read_descriptor(position), position) else {
                break;
            };
            last.entry(descriptor.meta.source).or_insert(descriptor.meta.seq);
        }
        last
    }

    /// Whether the consumer sleeps and is to be woken. To be asked after [`Producer::publish`].
    pub fn needs_wake(&self) -> bool {
        self.ring.consumer_sleeps().take()
    }

    /// Announces that this side is about to sleep until `slots` slots are free. False if they are already; then it must
    /// not sleep.
    ///
    /// # Errors
    /// [`LaneError::Indices`].
    pub fn prepare_sleep(&mut self, slots: u32) -> Result<bool, LaneError> {
        self.ring.producer_sleeps().set();
        let sleep = self.room_slots()? < slots;
        if !sleep {
            self.ring.producer_sleeps().clear();
        }
        Ok(sleep)
    }

    /// Takes the announcement back.
    pub fn awake(&self) {
        self.ring.producer_sleeps().clear();
    }
}

fn void_of(meta: &FrameMeta) -> FrameMeta {
    FrameMeta { flags: FrameFlags::VOID, gso_bytes: 0, ..*meta }
}

fn slots_for(length_bytes: usize) -> Result<u32, LaneError> {
    if length_bytes == 0 || length_bytes > FRAME_BYTES_MAX {
        return Err(LaneError::Length { length_bytes });
    }
    u32::try_from(length_bytes.div_ceil(SLOT_BYTES)).map_err(|_| LaneError::Length { length_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{frame_of, label, ring};

    #[test]
    fn lengths_are_bounded_on_both_ends() {
        let mut producer = ring(64).producer().unwrap();
        assert!(producer.push(&frame_of(1, FRAME_BYTES_MAX), &label(1, 1)).unwrap());
        assert_eq!(
            producer.reserve(FRAME_BYTES_MAX + 1).unwrap_err(),
            LaneError::Length { length_bytes: FRAME_BYTES_MAX + 1 }
        );
        assert_eq!(producer.reserve(0).unwrap_err(), LaneError::Length { length_bytes: 0 });
    }

    #[test]
    fn a_full_ring_takes_no_more() {
        let ring = ring(64);
        let mut producer = ring.producer().unwrap();
        for seq in 0..64 {
            assert!(producer.push(&[1], &label(1, seq)).unwrap());
        }
        assert!(!producer.push(&[1], &label(1, 64)).unwrap());
        assert!(producer.prepare_sleep(1).unwrap());
        let mut consumer = ring.consumer().unwrap();
        let frame = consumer.peek().unwrap().unwrap();
        consumer.release(&frame);
        assert!(consumer.needs_wake());
        assert!(!consumer.needs_wake(), "a wish is granted once");
        assert!(!producer.prepare_sleep(1).unwrap());
        assert!(producer.push(&[1], &label(1, 64)).unwrap());
    }

    /// It was subtracted from the size of the ring, and the shadow ended for it.
    #[test]
    fn a_consumer_that_goes_back_behind_what_is_reserved_makes_no_sense() {
        let ring = ring(64);
        let mut producer = ring.producer().unwrap();
        for seq in 0..60 {
            producer.push(&[1], &label(1, seq)).unwrap();
        }
        ring.take_off(Cursor { frames: 50, slots: 50 });
        for _ in 0..30 {
            let _ = producer.reserve(1).unwrap().unwrap();
        }
        ring.take_off(Cursor { frames: 0, slots: 0 });
        assert!(matches!(producer.room_slots(), Err(LaneError::Indices { .. })));
        assert!(matches!(producer.reserve(60_000), Err(LaneError::Indices { .. })));
        ring.take_off(Cursor { frames: 50, slots: 50 });
        assert_eq!(producer.room_slots(), Ok(24));
    }

    #[test]
    fn slack_is_what_is_left_of_the_last_slot() {
        let mut producer = ring(64).producer().unwrap();
        for (length_bytes, left_bytes) in [(1, SLOT_BYTES - 1), (SLOT_BYTES, 0), (FRAME_BYTES_MAX, 2022)] {
            let reservation = producer.reserve(length_bytes).unwrap().unwrap();
            let last = producer.pieces(&reservation).last().unwrap();
            let slack = producer.slack(&reservation);
            assert_eq!((slack.offset, slack.length_bytes), (last.offset + last.length_bytes, left_bytes));
        }
    }

    #[test]
    fn a_batch_is_published_by_one_store() {
        let ring = ring(64);
        let mut producer = ring.producer().unwrap();
        let mut consumer = ring.consumer().unwrap();
        let first = producer.reserve(5).unwrap().unwrap();
        let mut second = producer.reserve(60_000).unwrap().unwrap();
        producer.write(&first, 0, b"fir");
        producer.write(&first, 3, b"st");
        producer.write(&second, 2047, b"across");
        producer.shorten(&mut second, 2053).unwrap();
        producer.stage(first, &label(1, 7)).unwrap();
        producer.stage(second, &label(2, 8)).unwrap();
        assert_eq!(consumer.peek(), Ok(None));
        assert!(producer.publish());
        assert!(!producer.publish());
        let frame = consumer.peek().unwrap().unwrap();
        assert_eq!(consumer.bytes_of(&frame), b"first");
        consumer.advance(&frame);
        let frame = consumer.peek().unwrap().unwrap();
        assert_eq!(consumer.bytes_of(&frame)[2047..], *b"across");
        assert_eq!((frame.number(), frame.meta().seq), (1, 8));
        consumer.release(&frame);
        assert_eq!(producer.room_slots(), Ok(64));
        assert_eq!(producer.last_seqs(), [(1, 7), (2, 8)].into());
    }

    /// A frame of another source over the oldest entry, its producer dead after each of its stores.
    #[test]
    fn a_label_ahead_of_time_does_not_count() {
        for stores in 0..6 {
            let ring = ring(64);
            let mut producer = ring.producer().unwrap();
            let mut consumer = ring.consumer().unwrap();
            for seq in 0..64 {
                producer.push(&[1], &label(1, seq)).unwrap();
                let frame = consumer.peek().unwrap().unwrap();
                consumer.release(&frame);
            }
            crate::fate::die_after(stores);
            let reservation = producer.reserve(1).unwrap().unwrap();
            producer.stage(reservation, &label(2, 99)).unwrap();
            crate::fate::revive();
            let successor = ring.producer().unwrap();
            assert_eq!(successor.last_seqs().get(&2), None, "{stores} stores");
            assert_eq!(successor.last_seqs().get(&1), Some(&63));
        }
    }

    #[test]
    fn abandoned_room_is_free_again() {
        let mut producer = ring(64).producer().unwrap();
        let reservation = producer.reserve(60_000).unwrap().unwrap();
        producer.stage(reservation, &label(1, 1)).unwrap();
        producer.abandon();
        assert!(!producer.publish());
        assert_eq!(producer.room_slots(), Ok(64));
    }

    #[test]
    fn a_contradiction_becomes_a_void_frame() {
        let ring = ring(64);
        let mut producer = ring.producer().unwrap();
        let bad = FrameMeta { gso_bytes: 9, ..label(4, 5) };
        assert!(matches!(producer.push(&[1], &bad), Err(LaneError::Meta { .. })));
        let reservation = producer.reserve(1).unwrap().unwrap();
        assert!(matches!(producer.commit(reservation, &bad), Err(LaneError::Meta { .. })));
        let frame = ring.consumer().unwrap().peek().unwrap().unwrap();
        assert!(frame.is_void());
        assert_eq!(producer.last_seqs().get(&4), Some(&5));
    }

    #[test]
    #[should_panic(expected = "in their order")]
    fn reservations_keep_their_order() {
        let mut producer = ring(64).producer().unwrap();
        let _first = producer.reserve(1).unwrap();
        let second = producer.reserve(1).unwrap().unwrap();
        let _ = producer.stage(second, &label(1, 1));
    }

    #[test]
    #[should_panic(expected = "fit into the reservation")]
    fn bytes_stay_within_the_reservation() {
        let mut producer = ring(64).producer().unwrap();
        let reservation = producer.reserve(4).unwrap().unwrap();
        producer.write(&reservation, 2, &[0; 3]);
    }
}
