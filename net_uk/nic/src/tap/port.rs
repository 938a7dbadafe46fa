//! A driver's side of a TAP device.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lane::limits::FRAME_BYTES_MAX;
use lane::{Consumer, DriverWords, Frame, FrameFlags, FrameMeta, Producer, Reservation};

use crate::error::Result;
use crate::headers::complete_checksum;
use crate::held::duplicate;
use crate::limits::{BATCH_FRAMES, ETHERNET_BYTES, LINK_HEADER_BYTES};
use crate::nic::{
    Counters, Done, Kick, Link, Nic, RX_REFUSED_WORD, TX_REFUSED_WORD, count, next_frame, next_frame_again,
};
use crate::step::{Step, Steps};
use crate::sys::{self, Interface};
use crate::tap::counts::Counts;
use crate::tap::held::TapHeld;
use crate::tap::notes::Notes;
use crate::vnet::{self, VNET_BYTES};

/// A driver's side of a TAP device.
#[derive(Debug)]
pub struct TapPort<S> {
    tap: OwnedFd,
    socket: OwnedFd,
    packet_bytes_max: usize,
    offload: bool,
    buffer: Vec<u8>,
    words: DriverWords,
    notes: Notes,
    steps: S,
}

impl<S: Steps> TapPort<S> {
    /// Finishes what a predecessor left undone, which must be dead, and tells `steps` of each step.
    ///
    /// # Errors
    /// [`NicError::Lane`], or what the kernel reports.
    ///
    /// [`NicError::Lane`]: crate::NicError::Lane
    pub fn attach_with(
        held: &TapHeld,
        tx_lane: &mut Consumer,
        rx_lane: &mut Producer,
        words: DriverWords,
        steps: S,
    ) -> Result<Self> {
        let [tap, socket] = held.fds();
        let next = [tx_lane.committed().frames, rx_lane.published().frames];
        let mut port = Self {
            tap: duplicate(tap)?,
            socket: duplicate(socket)?,
            packet_bytes_max: held.spec().mtu_bytes as usize + LINK_HEADER_BYTES,
            offload: held.spec().offload,
            buffer: vec![0; VNET_BYTES + FRAME_BYTES_MAX],
            notes: Notes::open(words.clone(), Counts::of(tap)?, sys::cookie_of(socket)?, next),
            words,
            steps,
        };
        port.steps.done(Step::Placed);
        port.recover_tx(tx_lane)?;
        port.recover_rx(rx_lane)?;
        Ok(port)
    }

    fn recover_tx(&mut self, lane: &mut Consumer) -> Result<()> {
        let Some(frame) = next_frame_again(lane, &self.words)? else { return Ok(()) };
        if self.notes.was_written(frame.number()) {
            lane.release(&frame);
            self.steps.done(Step::TxRecovered);
        }
        Ok(())
    }

    /// A frame that was read lies where it was to lie, for nobody wrote there since.
    fn recover_rx(&mut self, lane: &mut Producer) -> Result<()> {
        let Some(bytes) = self.notes.unpublished_bytes(lane.published().frames) else { return Ok(()) };
        let Some(reservation) = lane.reserve(self.most_bytes())? else { return Ok(()) };
        self.publish(lane, reservation, usize::try_from(bytes).unwrap_or(usize::MAX))?;
        self.steps.done(Step::RxRecovered);
        Ok(())
    }

    /// Copies a frame into the buffer, behind its header if there is one; says where. None if it cannot be sent.
    fn fill(&mut self, lane: &Consumer, frame: &Frame) -> Option<Range<usize>> {
        let meta = frame.meta();
        let segmented = meta.flags.is_segmented();
        let too_long = frame.length_bytes() > self.packet_bytes_max && !segmented;
        if frame.is_void() || too_long || frame.length_bytes() < ETHERNET_BYTES {
            return None;
        }
        let end = VNET_BYTES + frame.length_bytes();
        let (header, data) = self.buffer.get_mut(..end)?.split_at_mut(VNET_BYTES);
        lane.copy_to(frame, data);
        if self.offload {
            header.copy_from_slice(&vnet::encode(meta, data, self.packet_bytes_max)?);
            return Some(0..end);
        }
        let complete = !meta.flags.contains(FrameFlags::CSUM_BLANK) || complete_checksum(data);
        (complete && !segmented).then_some(VNET_BYTES..end)
    }

    /// Reads a frame into the lane and commits. False if there is none, or no room for it.
    fn take_in(&mut self, lane: &mut Producer, done: &mut Done) -> Result<bool> {
        let Some(reservation) = lane.reserve(self.most_bytes())? else {
            done.blocked = true;
            return Ok(false);
        };
        self.notes.will_read(lane.published().frames);
        self.steps.done(Step::RxMarked);
        let Some(length_bytes) = self.read(lane, &reservation)? else {
            lane.abandon();
            return Ok(false);
        };
        if length_bytes > self.most_bytes() {
            self.notes.recount(Counts::of(&self.tap)?);
        } else {
            self.notes.read(length_bytes);
        }
        self.steps.done(Step::RxStaged);
        done.add(self.publish(lane, reservation, length_bytes)?);
        self.steps.done(Step::RxPublished);
        Ok(true)
    }

    fn most_bytes(&self) -> usize {
        if self.offload { FRAME_BYTES_MAX } else { self.packet_bytes_max }
    }

    /// Publishes what was read, as a void frame if it cannot be handed on. Gives the length of one that can.
    fn publish(
        &self,
        lane: &mut Producer,
        mut reservation: Reservation,
        length_bytes: usize,
    ) -> Result<Option<usize>> {
        let most_bytes = self.most_bytes();
        let known = match self.offload {
            true => {
                let mut header = [0; VNET_BYTES];
                lane.ring().region().read(header_at(lane, &reservation), &mut header);
                vnet::decode(&header)
            }
            false => Some((FrameFlags::NONE, 0)),
        };
        let known = known.filter(|_| (ETHERNET_BYTES..=most_bytes).contains(&length_bytes));
        let (flags, gso_bytes) = known.unwrap_or((FrameFlags::VOID, 0));
        lane.shorten(&mut reservation, length_bytes.clamp(1, most_bytes))?;
        lane.commit(reservation, &FrameMeta { flags, gso_bytes, ..FrameMeta::default() })?;
        Ok(known.map(|_| length_bytes))
    }

    /// Reads a frame straight into reserved memory, and its header behind the end of that; gives the frame's length. None if
    /// there is none.
    fn read(&self, lane: &Producer, reservation: &Reservation) -> Result<Option<usize>> {
        let region = lane.ring().region();
        let place = |offset, length_bytes| libc::iovec {
            iov_base: region.pointer(offset, length_bytes).as_ptr().cast(),
            iov_len: length_bytes,
        };
        // A frame that reaches it is too long: how much, the kernel does not say.
        let mut beyond = [0u8; 1];
        let beyond = libc::iovec { iov_base: beyond.as_mut_ptr().cast(), iov_len: beyond.len() };
        let header_bytes = if self.offload { VNET_BYTES } else { 0 };
        let header = self.offload.then(|| place(header_at(lane, reservation), VNET_BYTES));
        let frame = lane.pieces(reservation).map(|piece| place(piece.offset, piece.length_bytes));
        let places: Vec<_> = header.into_iter().chain(frame).chain([beyond]).collect();
        // SAFETY: the last place is a local array; the others lie within the region by the check in `pointer`, and nothing
        // in this process refers to its bytes.
        match unsafe { sys::read_into(&self.tap, &places) } {
            Ok(bytes) => Ok(Some(bytes.saturating_sub(header_bytes))),
            // Nothing there, or no interface any more; `link` tells.
            Err(libc::EAGAIN | libc::EINTR | libc::EBADFD) => Ok(None),
            Err(errno) => Err(sys::numbered("readv", errno)),
        }
    }
}

/// Where a frame's header lies: at the very end of the last slot.
fn header_at(lane: &Producer, reservation: &Reservation) -> usize {
    let slack = lane.slack(reservation);
    assert!(slack.length_bytes >= VNET_BYTES, "the longest frame leaves some of its last slot");
    slack.offset + slack.length_bytes - VNET_BYTES
}

impl<S: Steps> Nic for TapPort<S> {
    /// Each frame is delivered at once; there is nothing to kick.
    fn transmit(&mut self, lane: &mut Consumer) -> Result<Done> {
        let mut done = Done::default();
        while done.taken() < BATCH_FRAMES {
            let Some(frame) = next_frame(lane, &self.words)? else { break };
            let mut sent = None;
            if let Some(range) = self.fill(lane, &frame) {
                self.notes.will_write(frame.number());
                self.steps.done(Step::TxNoted);
                match rustix::io::write(&self.tap, &self.buffer[range]) {
                    Ok(_) => {
                        self.notes.written();
                        sent = Some(frame.length_bytes());
                    }
                    Err(rustix::io::Errno::INVAL) => {}
                    // No memory, or the interface is down or gone.
                    Err(_) => {
                        done.blocked = true;
                        break;
                    }
                }
            }
            self.steps.done(Step::TxMarked);
            lane.release(&frame);
            self.steps.done(Step::TxCommitted);
            done.add(sent);
        }
        count(&self.words, TX_REFUSED_WORD, done.refused);
        Ok(done)
    }

    fn receive(&mut self, lane: &mut Producer) -> Result<Done> {
        let mut done = Done::default();
        while done.taken() < BATCH_FRAMES && self.take_in(lane, &mut done)? {}
        count(&self.words, RX_REFUSED_WORD, done.refused);
        Ok(done)
    }

    fn kick(&mut self) -> Result<Kick> {
        Ok(Kick::Clear)
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }

    fn link(&mut self) -> Result<Link> {
        Interface::of_tap(&self.tap)?.map_or(Ok(Link::Gone), |interface| interface.link(&self.socket))
    }

    /// The interface itself counts what found no room.
    fn counters(&mut self) -> Result<Counters> {
        Ok(Counters {
            rx_dropped: 0,
            rx_refused: self.words.nic(RX_REFUSED_WORD),
            tx_refused: self.words.nic(TX_REFUSED_WORD),
        })
    }
}
