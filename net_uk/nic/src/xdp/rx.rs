//! A driver's side of a queue from the device.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lane::{FrameFlags, FrameMeta, Producer};

use crate::error::{NicError, Result};
use crate::headers::is_checksum_blank;
use crate::held::duplicate;
use crate::limits::{BATCH_FRAMES, ETHERNET_BYTES};
use crate::mapping::Mapping;
use crate::nic::Done;
use crate::step::{Step, Steps};
use crate::xdp::book::{Book, Note};
use crate::xdp::held::Layout;
use crate::xdp::ring::{Ring, RingKind};
use crate::xdp::system;

/// A driver's side of a queue from the device.
#[derive(Debug)]
pub(crate) struct RxQueue {
    number: usize,
    socket: OwnedFd,
    fill: Ring,
    ring: Ring,
    frames: Mapping,
    layout: Layout,
}

impl RxQueue {
    pub(crate) fn new(
        number: usize,
        socket: BorrowedFd<'_>,
        memory: impl AsFd,
        layout: Layout,
    ) -> Result<Self> {
        Ok(Self {
            number,
            socket: duplicate(socket)?,
            fill: Ring::map(socket, RingKind::Fill, layout.rx_slots)?,
            ring: Ring::map(socket, RingKind::Receive, layout.rx_slots)?,
            frames: layout.map_area(memory, number)?,
            layout,
        })
    }

    /// One over rings in plain memory.
    #[cfg(test)]
    pub(crate) fn in_memory(
        number: usize,
        fill: Ring,
        ring: Ring,
        memory: &OwnedFd,
        layout: Layout,
    ) -> Result<Self> {
        let (socket, frames) = (duplicate(memory.as_fd())?, layout.map_area(memory, number)?);
        Ok(Self { number, socket, fill, ring, frames, layout })
    }

    /// Gives back what was published and not given back, given how many frames were published in all.
    ///
    /// # Errors
    /// [`NicError::Used`].
    pub(crate) fn recover(&self, book: &Book, published: u32, steps: &mut impl Steps) -> Result<()> {
        let note = book.rx_note(self.number);
        let consumed = self.ring.consumed();
        // A note that is so old that the numbers wrapped was carried out long ago; then both are the same.
        let was_published = published.wrapping_sub(note.frames).cast_signed() >= 0;
        let upto = if was_published { note.index } else { consumed };
        if upto.wrapping_sub(consumed) > self.ring.waiting()? {
            return Err(NicError::Used);
        }
        self.give_back(upto, &mut crate::step::Straight)?;
        steps.done(Step::RxRecovered);
        // What was not published must not look so once others have published more.
        book.set_rx_note(self.number, Note { frames: published, index: upto });
        Ok(())
    }

    /// Moves frames to the lane while `done` leaves something of the batch. False: the lane has no room.
    pub(crate) fn receive(
        &self,
        lane: &mut Producer,
        book: &Book,
        done: &mut Done,
        steps: &mut impl Steps,
    ) -> Result<bool> {
        let first = self.ring.consumed();
        let most = self.ring.waiting()?.min(BATCH_FRAMES.saturating_sub(done.taken()));
        let (mut upto, mut staged) = (first, 0);
        while upto.wrapping_sub(first) < most {
            let length_bytes = match self.frame(upto)? {
                None => None,
                Some(bytes) => {
                    let Some(reservation) = lane.reserve(bytes.len())? else { break };
                    let blank = is_checksum_blank(bytes);
                    let flags = if blank { FrameFlags::CSUM_BLANK } else { FrameFlags::NONE };
                    let source = u16::try_from(self.number).unwrap_or(u16::MAX);
                    let meta = FrameMeta { flags, source, seq: upto, ..FrameMeta::default() };
                    lane.stage_bytes(reservation, bytes, &meta)?;
                    staged += 1;
                    Some(bytes.len())
                }
            };
            steps.done(Step::RxStaged);
            done.add(length_bytes);
            upto = upto.wrapping_add(1);
        }
        if upto != first {
            let frames = lane.published().frames.wrapping_add(staged);
            book.set_rx_note(self.number, Note { frames, index: upto });
            steps.done(Step::RxMarked);
            if lane.publish() {
                steps.done(Step::RxPublished);
            }
            self.give_back(upto, steps)?;
        }
        Ok(upto.wrapping_sub(first) == most)
    }

    /// A received frame. None: it is too short to be one.
    fn frame(&self, index: u32) -> Result<Option<&[u8]>> {
        let (address, length_bytes) = (self.ring.address(index), self.ring.length_bytes(index));
        let at = usize::try_from(address).map_err(|_| NicError::Used)?;
        let chunk_bytes = self.layout.chunk_bytes;
        if at + length_bytes > self.layout.rx_slots as usize * chunk_bytes || length_bytes > chunk_bytes {
            return Err(NicError::Used);
        }
        // SAFETY: the slot was produced and not consumed, so its memory is the driver's until it is given back, which
        // comes after the last use of this reference.
        let bytes = unsafe { self.frames.bytes(at, length_bytes) };
        Ok((length_bytes >= ETHERNET_BYTES).then_some(bytes))
    }

    /// Gives the memory of all frames before `upto` back, then takes these off the ring. What was done of it already is
    /// not done again: the fill ring's index tells.
    fn give_back(&self, upto: u32, steps: &mut impl Steps) -> Result<()> {
        let slots = self.layout.rx_slots;
        let first = self.fill.produced().wrapping_sub(slots);
        let left = upto.wrapping_sub(first);
        if left > slots || first.wrapping_sub(self.ring.consumed()) > slots {
            return Err(NicError::Used);
        }
        if left > 0 {
            for index in (0..left).map(|step| first.wrapping_add(step)) {
                let chunk = self.ring.address(index) & !(self.layout.chunk_bytes as u64 - 1);
                self.fill.set_address(index.wrapping_add(slots), chunk);
            }
            self.fill.produce(upto.wrapping_add(slots));
            steps.done(Step::RxGivenBack);
        }
        self.ring.consume(upto);
        steps.done(Step::RxReleased);
        if self.fill.needs_wake() {
            system::wake_receiver(&self.socket);
        }
        Ok(())
    }

    /// Frames that found no room.
    pub(crate) fn dropped(&self) -> Result<u64> {
        system::dropped(&self.socket)
    }
}
