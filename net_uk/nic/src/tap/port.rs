//! A driver's side of a TAP device.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lane::limits::FRAME_BYTES_MAX;
use lane::{Consumer, DriverWords, Frame, FrameFlags, FrameMeta, Producer, Reservation};

use crate::error::Result;
use crate::headers::complete_checksum;
use crate::held::duplicate;
use crate::limits::{BATCH_FRAMES, ETHERNET_BYTES, LINK_HEADER_BYTES};
use crate::nic::{Counters, Done, Kick, Link, Nic, RX_REFUSED_WORD, TX_REFUSED_WORD, count, next_frame};
use crate::step::{Step, Steps};
use crate::sys::{self, Interface};
use crate::tap::held::TapHeld;
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
    steps: S,
}

/// What a read gave.
struct Read {
    length_bytes: usize,
    header: [u8; VNET_BYTES],
}

impl<S: Steps> TapPort<S> {
    /// Takes up the work, and tells `steps` of each step from then on.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn attach_with(held: &TapHeld, words: DriverWords, steps: S) -> Result<Self> {
        let [tap, socket] = held.fds();
        Ok(Self {
            tap: duplicate(tap)?,
            socket: duplicate(socket)?,
            packet_bytes_max: held.spec().mtu_bytes as usize + LINK_HEADER_BYTES,
            offload: held.spec().offload,
            buffer: vec![0; VNET_BYTES + FRAME_BYTES_MAX],
            words,
            steps,
        })
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
        let most_bytes = if self.offload { FRAME_BYTES_MAX } else { self.packet_bytes_max };
        let Some(mut reservation) = lane.reserve(most_bytes)? else {
            done.blocked = true;
            return Ok(false);
        };
        let Some(read) = self.read(lane, &reservation)? else {
            lane.abandon();
            return Ok(false);
        };
        self.steps.done(Step::RxStaged);
        let known = if self.offload { vnet::decode(&read.header) } else { Some((FrameFlags::NONE, 0)) };
        let known = known.filter(|_| (ETHERNET_BYTES..=most_bytes).contains(&read.length_bytes));
        let (flags, gso_bytes) = known.unwrap_or((FrameFlags::VOID, 0));
        lane.shorten(&mut reservation, read.length_bytes.clamp(1, most_bytes))?;
        lane.commit(reservation, &FrameMeta { flags, gso_bytes, ..FrameMeta::default() })?;
        self.steps.done(Step::RxPublished);
        done.add(known.map(|_| read.length_bytes));
        Ok(true)
    }

    /// Reads a frame straight into reserved memory. None if there is none.
    fn read(&self, lane: &Producer, reservation: &Reservation) -> Result<Option<Read>> {
        let mut read = Read { length_bytes: 0, header: [0; VNET_BYTES] };
        let header_bytes = if self.offload { VNET_BYTES } else { 0 };
        // A frame that reaches the last byte is too long.
        let mut beyond = [0u8; 1];
        let place =
            |base: *mut u8, length_bytes| libc::iovec { iov_base: base.cast(), iov_len: length_bytes };
        let mut places = vec![place(read.header.as_mut_ptr(), header_bytes)];
        let region = lane.ring().region();
        places.extend(lane.pieces(reservation).map(|piece| {
            place(region.pointer(piece.offset, piece.length_bytes).as_ptr(), piece.length_bytes)
        }));
        places.push(place(beyond.as_mut_ptr(), beyond.len()));
        // SAFETY: both ends are local arrays, and the pieces lie within the region by the check in `pointer`; nothing in
        // this process refers to the region's bytes.
        match unsafe { sys::read_into(&self.tap, &places) } {
            Ok(bytes) => read.length_bytes = bytes.saturating_sub(header_bytes),
            // Nothing there, or no interface any more; `link` tells.
            Err(libc::EAGAIN | libc::EINTR | libc::EBADFD) => return Ok(None),
            Err(errno) => return Err(sys::numbered("readv", errno)),
        }
        Ok(Some(read))
    }
}

impl<S: Steps> Nic for TapPort<S> {
    /// Each frame is delivered at once; there is nothing to kick.
    fn transmit(&mut self, lane: &mut Consumer) -> Result<Done> {
        let mut done = Done::default();
        while done.taken() < BATCH_FRAMES {
            let Some(frame) = next_frame(lane, &self.words)? else { break };
            let mut sent = None;
            if let Some(range) = self.fill(lane, &frame) {
                match rustix::io::write(&self.tap, &self.buffer[range]) {
                    Ok(_) => sent = Some(frame.length_bytes()),
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
