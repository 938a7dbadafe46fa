//! A driver's side of the queue towards the device.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lane::{Consumer, Frame, FrameFlags, LaneError};

use crate::error::{NicError, Result};
use crate::headers::complete_checksum;
use crate::held::duplicate;
use crate::limits::{BATCH_FRAMES, ETHERNET_BYTES, XDP_SENDS_MAX};
use crate::mapping::Mapping;
use crate::nic::{Done, Kick};
use crate::step::{Step, Steps};
use crate::sys;
use crate::xdp::book::{Book, Note};
use crate::xdp::held::Layout;
use crate::xdp::ring::{Ring, RingKind};

/// A driver's side of the queue towards the device. Slot `i` of its ring always uses the memory of frame `i`.
#[derive(Debug)]
pub(crate) struct TxQueue {
    socket: OwnedFd,
    ring: Ring,
    completions: Ring,
    frames: Mapping,
    layout: Layout,
    packet_bytes_max: usize,
}

impl TxQueue {
    /// `owner`: the socket that has the memory.
    pub(crate) fn new(
        socket: BorrowedFd<'_>,
        owner: BorrowedFd<'_>,
        memory: impl AsFd,
        layout: Layout,
        packet_bytes_max: usize,
    ) -> Result<Self> {
        Ok(Self {
            socket: duplicate(socket)?,
            ring: Ring::map(socket, RingKind::Send, layout.tx_slots)?,
            completions: Ring::map(owner, RingKind::Completion, layout.tx_slots)?,
            frames: layout.map_area(memory, 0)?,
            layout,
            packet_bytes_max: packet_bytes_max.min(layout.chunk_bytes),
        })
    }

    /// One over rings in plain memory.
    #[cfg(test)]
    pub(crate) fn in_memory(ring: Ring, completions: Ring, memory: &OwnedFd, layout: Layout) -> Result<Self> {
        let (socket, frames) = (duplicate(memory.as_fd())?, layout.map_area(memory, 0)?);
        Ok(Self { socket, ring, completions, frames, layout, packet_bytes_max: 1518 })
    }

    /// Where a first driver begins.
    pub(crate) fn begin(&self, book: &Book, lane: &Consumer) {
        book.set_tx_note(Note { frames: lane.committed().frames, index: self.ring.produced() });
    }

    /// Commits the last batch if it was handed over, else forgets it.
    ///
    /// # Errors
    /// [`NicError::Used`], or a lane that makes no sense.
    pub(crate) fn recover(&self, lane: &mut Consumer, book: &Book, steps: &mut impl Steps) -> Result<()> {
        let (note, produced) = (book.tx_note(), self.ring.produced());
        let committed = lane.committed().frames;
        let (frames, slots) = (note.frames.wrapping_sub(committed), note.index.wrapping_sub(produced));
        if frames > lane.ring().slots() || slots > BATCH_FRAMES {
            return Err(NicError::Used);
        }
        if slots > 0 {
            for step in 0..slots {
                book.set_in_use(self.slot(produced.wrapping_add(step)), false);
            }
            book.set_tx_note(Note { frames: committed, index: produced });
            return Ok(());
        }
        while note.frames.wrapping_sub(lane.passed().frames).cast_signed() > 0 {
            match lane.next_good() {
                Ok(Some(frame)) if note.frames.wrapping_sub(frame.number()).cast_signed() > 0 => {
                    lane.advance(&frame)
                }
                Ok(Some(_)) => break,
                Ok(None) => return Err(NicError::Used),
                // The second time it is passed over.
                Err(LaneError::Descriptor { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if lane.commit() {
            steps.done(Step::TxRecovered);
        }
        Ok(())
    }

    /// Hands frames over to the device, and commits; then says, beside what it did, whether the lane made no sense.
    pub(crate) fn transmit(
        &self,
        lane: &mut Consumer,
        book: &Book,
        steps: &mut impl Steps,
    ) -> Result<(Done, Option<LaneError>)> {
        self.take_completions(book, steps)?;
        let first = self.ring.produced();
        let (mut done, mut fault, mut upto) = (Done::default(), None, first);
        while done.taken() < BATCH_FRAMES {
            let is_free = !self.is_taken(book, first, upto);
            // SAFETY: it is free, so the kernel leaves it alone; there is one driver, and it drops the reference below.
            let room = if is_free { unsafe { self.room(upto) } } else { &mut [] };
            let (frame, there) = match lane.next_good_in(room) {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(error) => {
                    fault = Some(error);
                    break;
                }
            };
            if !is_free {
                done.blocked = true;
                break;
            }
            let length_bytes = self.fill(lane, &frame, there, upto);
            steps.done(Step::TxFilled);
            if let Some(length_bytes) = length_bytes {
                self.ring.set_frame(upto, self.address(upto) as u64, length_bytes);
                upto = upto.wrapping_add(1);
            }
            done.add(length_bytes);
            lane.advance(&frame);
        }
        // Damaged frames are passed over too.
        if lane.passed() == lane.committed() {
            return Ok((done, fault));
        }
        // In this order: what the note says of the batch before holds until there is another one.
        book.set_tx_before(Note { frames: lane.committed().frames, index: first });
        book.set_tx_note(Note { frames: lane.passed().frames, index: upto });
        steps.done(Step::TxNoted);
        for step in 0..upto.wrapping_sub(first) {
            book.set_in_use(self.slot(first.wrapping_add(step)), true);
        }
        steps.done(Step::TxNoted);
        self.ring.produce(upto);
        steps.done(Step::TxMarked);
        lane.commit();
        steps.done(Step::TxCommitted);
        Ok((done, fault))
    }

    /// Has the kernel take what was handed over. Tells also how many frames it dropped, because the carrier went just then.
    pub(crate) fn kick(&self) -> Result<(Kick, u32)> {
        let mut dropped = 0;
        for _ in 0..XDP_SENDS_MAX {
            let waiting = self.ring.waiting()?;
            if waiting == 0 {
                return Ok((Kick::Clear, dropped));
            }
            match sys::send_ring(&self.socket) {
                Ok(()) | Err(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR) => {}
                Err(libc::EBUSY) => dropped += 1,
                Err(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => return Ok((Kick::Down, dropped)),
                Err(errno) => return Err(sys::numbered("sendto", errno)),
            }
            if self.ring.waiting()? == waiting {
                break;
            }
        }
        let kick = if self.ring.waiting()? == 0 { Kick::Clear } else { Kick::Congested };
        Ok((kick, dropped))
    }

    /// The memory of frames that were sent is free again. It is not used before they are off the ring.
    fn take_completions(&self, book: &Book, steps: &mut impl Steps) -> Result<()> {
        let (first, count) = (self.completions.consumed(), self.completions.waiting()?);
        for step in 0..count {
            let address = self.completions.address(first.wrapping_add(step));
            let slot = usize::try_from(address).ok().and_then(|at| self.layout.tx_slot_of(at));
            book.set_in_use(slot.ok_or(NicError::Used)?, false);
        }
        if count > 0 {
            self.completions.consume(first.wrapping_add(count));
            steps.done(Step::TxCompleted);
        }
        Ok(())
    }

    /// Is the memory of a slot not to be had?
    fn is_taken(&self, book: &Book, first: u32, index: u32) -> bool {
        book.is_in_use(self.slot(index)) || index.wrapping_sub(first) == self.layout.tx_slots
    }

    /// The memory of a slot.
    ///
    /// # Safety
    /// As for [`Mapping::bytes_mut`].
    #[expect(clippy::mut_from_ref, reason = "as there")]
    unsafe fn room(&self, index: u32) -> &mut [u8] {
        // SAFETY: the caller's promise.
        unsafe { self.frames.bytes_mut(self.address(index), self.layout.chunk_bytes) }
    }

    /// Puts a frame into the memory of a slot, unless it is `there` already. None if it cannot be sent.
    fn fill(&self, lane: &Consumer, frame: &Frame, there: bool, index: u32) -> Option<usize> {
        let flags = frame.meta().flags;
        let length_bytes = frame.length_bytes();
        let fits = (ETHERNET_BYTES..=self.packet_bytes_max).contains(&length_bytes);
        if frame.is_void() || flags.is_segmented() || !fits {
            return None;
        }
        // SAFETY: the slot's memory is not in use, so the kernel leaves it alone; there is one driver, and it holds no other
        // reference.
        let data = &mut unsafe { self.room(index) }[..length_bytes];
        if !there {
            lane.copy_to(frame, data);
        }
        let complete = !flags.contains(FrameFlags::CSUM_BLANK) || complete_checksum(data);
        complete.then_some(length_bytes)
    }

    fn slot(&self, index: u32) -> u32 {
        index & (self.layout.tx_slots - 1)
    }

    fn address(&self, index: u32) -> usize {
        self.layout.tx_address(self.slot(index))
    }
}
