//! The side that empties a ring.

use std::sync::Arc;

use hypervisor::Region;

use crate::cursor::Cursor;
use crate::descriptor::Descriptor;
use crate::error::{DescriptorFault, LaneError};
use crate::frame::{Frame, Pieces};
use crate::limits::{FRAME_BYTES_MAX, FRAME_ROOM_BYTES, SLOT_BYTES};
use crate::ring::FrameRing;

#[cfg(test)]
mod tests;

/// The side that empties a ring: it looks at frames one after the other ([`Consumer::peek`], [`Consumer::advance`]) and
/// takes all that it passed off with one store ([`Consumer::commit`]).
#[derive(Debug)]
pub struct Consumer {
    ring: FrameRing,
    committed: Cursor,
    passed: Cursor,
    produced: Cursor,
    /// The bytes of the frame that was looked at last: what was checked is what is given on.
    bytes: Box<[u8]>,
    /// Which frame that is.
    seen: Option<Frame>,
    damaged: u32,
    /// The frame there made no sense.
    doubted: Option<Cursor>,
}

impl Consumer {
    /// The consumer of the ring at `base`; it goes on where the one before it committed last.
    ///
    /// # Errors
    /// Those of [`FrameRing::attach`], and [`LaneError::Indices`].
    pub fn attach(region: Arc<Region>, base: usize) -> Result<Self, LaneError> {
        FrameRing::attach(region, base)?.consumer()
    }

    pub(crate) fn new(ring: FrameRing) -> Result<Self, LaneError> {
        let mut consumer = Self::alone(ring);
        consumer.backlog_slots()?;
        Ok(consumer)
    }

    pub(crate) fn alone(ring: FrameRing) -> Self {
        let committed = ring.consumed();
        Self {
            ring,
            committed,
            passed: committed,
            produced: committed,
            bytes: vec![0; FRAME_ROOM_BYTES].into(),
            seen: None,
            damaged: 0,
            doubted: None,
        }
    }

    /// What has been taken off since the ring was made, by this consumer and those before it.
    pub fn committed(&self) -> Cursor {
        self.committed
    }

    /// How far frames were passed; not all of it needs to be committed.
    pub fn passed(&self) -> Cursor {
        self.passed
    }

    /// The ring.
    pub fn ring(&self) -> &FrameRing {
        &self.ring
    }

    /// Published slots that were not passed yet.
    ///
    /// # Errors
    /// [`LaneError::Indices`] if the producer's index makes no sense.
    pub fn backlog_slots(&mut self) -> Result<u32, LaneError> {
        let produced = self.ring.produced();
        Cursor::used(produced, self.committed, self.ring.slots())?;
        self.produced = produced;
        Cursor::used(produced, self.passed, self.ring.slots())
    }

    /// The first frame that was not passed yet.
    ///
    /// # Errors
    /// [`LaneError::Indices`], [`LaneError::Descriptor`]: the producer wrote nonsense.
    pub fn peek(&mut self) -> Result<Option<Frame>, LaneError> {
        self.with_own_bytes(Self::peek_into)
    }

    fn with_own_bytes(
        &mut self,
        look: impl FnOnce(&mut Self, &mut [u8]) -> Result<Option<Frame>, LaneError>,
    ) -> Result<Option<Frame>, LaneError> {
        let mut bytes = std::mem::take(&mut self.bytes);
        let looked = look(self, &mut bytes);
        self.bytes = bytes;
        self.seen = looked.as_ref().ok().copied().flatten();
        looked
    }

    fn peek_into(&mut self, bytes: &mut [u8]) -> Result<Option<Frame>, LaneError> {
        self.seen = None;
        if self.produced == self.passed && self.backlog_slots()? == 0 {
            return Ok(None);
        }
        let left_slots = Cursor::used(self.produced, self.passed, self.ring.slots())?;
        self.frame_at(self.passed, left_slots, bytes).map(Some)
    }

    /// As [`Consumer::peek`], but the second time that the same frame makes no sense it is passed over and counted. The
    /// first time may be because of the producer's index, which that writes again when it is asked to.
    ///
    /// # Errors
    /// [`LaneError::Indices`], [`LaneError::Descriptor`].
    pub fn next_good(&mut self) -> Result<Option<Frame>, LaneError> {
        self.with_own_bytes(Self::next_good_into)
    }

    /// As [`Consumer::next_good`], with the frame's bytes at the beginning of `bytes` instead: they are what was checked,
    /// whatever the producer writes from then on. `bytes` has room for the longest frame in whole slots
    /// ([`FRAME_ROOM_BYTES`]); all of it may be written over.
    ///
    /// # Errors
    /// [`LaneError::Indices`], [`LaneError::Descriptor`].
    ///
    /// # Panics
    /// If there is less room.
    pub fn next_good_into(&mut self, bytes: &mut [u8]) -> Result<Option<Frame>, LaneError> {
        assert!(bytes.len() >= FRAME_ROOM_BYTES, "there is room for the longest frame");
        loop {
            match self.peek_into(bytes) {
                Err(LaneError::Descriptor { .. }) if self.doubted == Some(self.passed) => self.skip_damaged(),
                Err(error @ LaneError::Descriptor { .. }) => {
                    self.doubted = Some(self.passed);
                    // The index is read again.
                    self.produced = self.passed;
                    return Err(error);
                }
                other => {
                    self.doubted = None;
                    return other;
                }
            }
        }
    }

    /// As [`Consumer::next_good`]. A frame of one slot that `room` is long enough for is copied there and checked there, which is
    /// told: the one copy that it takes may be the last one. For all others it is as there.
    ///
    /// # Errors
    /// [`LaneError::Indices`], [`LaneError::Descriptor`].
    pub fn next_good_in(&mut self, room: &mut [u8]) -> Result<Option<(Frame, bool)>, LaneError> {
        if self.doubted.is_none()
            && self.next_fits(room.len())?
            && let Ok(Some(frame)) = self.peek_into(room)
        {
            return Ok(Some((frame, true)));
        }
        // One that makes no sense there is looked at as all are.
        Ok(self.next_good()?.map(|frame| (frame, false)))
    }

    fn next_fits(&mut self, room_bytes: usize) -> Result<bool, LaneError> {
        if self.produced == self.passed && self.backlog_slots()? == 0 {
            return Ok(false);
        }
        let position = self.passed.slots;
        let descriptor = Descriptor::decode(self.ring.read_descriptor(position), position);
        Ok(descriptor.is_ok_and(|descriptor| !descriptor.more && descriptor.length_bytes <= room_bytes))
    }

    /// Frames that were passed over since the last call.
    pub fn take_damaged(&mut self) -> u32 {
        std::mem::take(&mut self.damaged)
    }

    /// Goes to the next frame whose first slot is right, or else to the end of what is published.
    fn skip_damaged(&mut self) {
        let next = self.next_right().unwrap_or(self.produced);
        self.damaged += next.frames.wrapping_sub(self.passed.frames).max(1);
        self.passed = next;
        // What comes next is as good as any.
        self.doubted = None;
    }

    fn next_right(&self) -> Option<Cursor> {
        let left_slots = self.produced.slots.wrapping_sub(self.passed.slots);
        let left_frames = self.produced.frames.wrapping_sub(self.passed.frames);
        (1..left_slots).find_map(|ahead| {
            let position = self.passed.slots.wrapping_add(ahead);
            let mut bytes = [0; SLOT_BYTES];
            let frames = self.ring.checked_descriptor(position, 0, &mut bytes).ok()?.number;
            let skipped = frames.wrapping_sub(self.passed.frames);
            // A number out of its order would make the rest of the ring nonsense.
            let fits = (1..left_frames).contains(&skipped) && skipped <= ahead;
            fits.then_some(Cursor { frames, slots: position })
        })
    }

    /// Writes the own index again if something else changed it. Says whether that was so.
    pub fn reassert(&self) -> bool {
        let changed = self.ring.consumed() != self.committed;
        if changed {
            self.ring.take_off(self.committed);
        }
        changed
    }

    fn frame_at(&self, at: Cursor, left_slots: u32, bytes: &mut [u8]) -> Result<Frame, LaneError> {
        let first = self.descriptor(at.slots, 0, bytes)?;
        if first.number != at.frames {
            return Err(self.fault(at.slots, DescriptorFault::Number));
        }
        let mut frame = Frame {
            number: at.frames,
            first_slot: at.slots,
            slots: 1,
            length_bytes: first.length_bytes,
            meta: first.meta,
        };
        let mut more = first.more;
        while more {
            let position = at.slots.wrapping_add(frame.slots);
            if frame.slots == left_slots {
                return Err(self.fault(position, DescriptorFault::Unfinished));
            }
            let next = self.descriptor(position, frame.slots, bytes)?;
            if next.meta != first.meta || next.number != first.number {
                return Err(self.fault(position, DescriptorFault::Mixed));
            }
            frame.slots += 1;
            frame.length_bytes += next.length_bytes;
            if frame.length_bytes > FRAME_BYTES_MAX {
                return Err(self.fault(position, DescriptorFault::TooLong));
            }
            more = next.more;
        }
        Ok(frame)
    }

    /// The descriptor of slot `index` of a frame, and the slot's bytes beside those of the slots before it, all of which were
    /// full. One that says that it is longer than there is room for makes no sense: it was another one before.
    fn descriptor(&self, position: u32, index: u32, bytes: &mut [u8]) -> Result<Descriptor, LaneError> {
        let at = index as usize * SLOT_BYTES;
        let end = bytes.len().min(at + SLOT_BYTES);
        let bytes = bytes.get_mut(at..end).unwrap_or_default();
        self.ring.checked_descriptor(position, index, bytes).map_err(|fault| self.fault(position, fault))
    }

    fn fault(&self, position: u32, fault: DescriptorFault) -> LaneError {
        LaneError::Descriptor { slot: position & (self.ring.slots() - 1), fault }
    }

    /// Where the frame's bytes lie in the region.
    pub fn pieces(&self, frame: &Frame) -> Pieces {
        self.ring.pieces(frame.first_slot, frame.length_bytes)
    }

    /// Copies the first bytes of a frame into `bytes`; returns how many. Those of the frame that [`Consumer::peek`] gave last
    /// are what was checked; the producer can still write to others: decide on the copy only.
    pub fn copy_to(&self, frame: &Frame, bytes: &mut [u8]) -> usize {
        if self.seen == Some(*frame) {
            let length_bytes = bytes.len().min(frame.length_bytes);
            bytes[..length_bytes].copy_from_slice(&self.bytes[..length_bytes]);
            return length_bytes;
        }
        let mut copied = 0;
        for piece in self.pieces(frame) {
            let end = bytes.len().min(copied + piece.length_bytes);
            self.ring.region().read(piece.offset, &mut bytes[copied..end]);
            copied = end;
        }
        copied
    }

    /// A copy of a frame's bytes.
    pub fn bytes_of(&self, frame: &Frame) -> Vec<u8> {
        let mut bytes = vec![0; frame.length_bytes];
        self.copy_to(frame, &mut bytes);
        bytes
    }

    /// Passes the frame that [`Consumer::peek`] gave last. It stays in the ring until [`Consumer::commit`].
    pub fn advance(&mut self, frame: &Frame) {
        assert_eq!(frame.first_slot, self.passed.slots, "frames are passed in their order");
        self.passed = self.passed.after_frame(frame.slots);
    }

    /// Takes all passed frames off: the commit. Says whether there were any.
    pub fn commit(&mut self) -> bool {
        if self.passed == self.committed {
            return false;
        }
        self.ring.take_off(self.passed);
        self.committed = self.passed;
        true
    }

    /// Passes a frame and commits.
    pub fn release(&mut self, frame: &Frame) {
        self.advance(frame);
        self.commit();
    }

    /// Goes back to the first frame that was not taken off.
    pub fn rewind(&mut self) {
        self.passed = self.committed;
    }

    /// Whether the producer sleeps and is to be woken. To be asked after [`Consumer::commit`].
    pub fn needs_wake(&self) -> bool {
        self.ring.producer_sleeps().take()
    }

    /// Announces that this side is about to sleep until there is a frame. False if there is one; then it must not sleep.
    ///
    /// # Errors
    /// [`LaneError::Indices`].
    pub fn prepare_sleep(&mut self) -> Result<bool, LaneError> {
        self.ring.consumer_sleeps().set();
        let sleep = self.backlog_slots()? == 0;
        if !sleep {
            self.ring.consumer_sleeps().clear();
        }
        Ok(sleep)
    }

    /// Takes the announcement back.
    pub fn awake(&self) {
        self.ring.consumer_sleeps().clear();
    }
}
