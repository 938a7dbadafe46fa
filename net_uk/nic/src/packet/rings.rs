//! Both rings of a packet socket, mapped, and the frames in them.

use std::os::fd::AsFd;

use lane::limits::FRAME_BYTES_MAX;
use lane::{Consumer, DriverWords, Frame, FrameFlags, FrameMeta, Producer};

use crate::error::{NicError, Result};
use crate::headers::complete_checksum;
use crate::limits::{ETHERNET_BYTES, LINK_HEADER_BYTES};
use crate::mapping::Mapping;
use crate::nic::{COOKIE_WORD, RX_PLACE_WORD, TX_PLACE_WORD};
use crate::packet::slots::{RingShape, Slot};
use crate::place::Place;
use crate::spec::NicSpec;
use crate::vnet::{self, VNET_BYTES};

/// Both rings. The receive ring comes first in memory.
#[derive(Debug)]
pub(crate) struct Rings {
    mapping: Mapping,
    pub(crate) rx: RingShape,
    pub(crate) tx: RingShape,
    pub(crate) rx_place: Place,
    pub(crate) tx_place: Place,
    offload: bool,
    packet_bytes_max: usize,
}

impl Rings {
    /// Maps the rings of a socket. `mtu_bytes` is what the device takes.
    pub(crate) fn new(socket: impl AsFd, spec: &NicSpec, mtu_bytes: usize) -> Result<Self> {
        let (rx, tx) = (RingShape::rx(spec)?, RingShape::tx(spec)?);
        Ok(Self {
            mapping: Mapping::new(socket, rx.bytes() + tx.bytes(), 0)?,
            rx,
            tx,
            rx_place: Place::new(0, 0, rx.slots()),
            tx_place: Place::new(0, 0, tx.slots()),
            offload: spec.offload,
            packet_bytes_max: mtu_bytes.min(spec.mtu_bytes as usize) + LINK_HEADER_BYTES,
        })
    }

    /// Goes on where the driver words, which are about this socket, say that the rings stand.
    ///
    /// # Errors
    /// [`NicError::Used`] if they make no sense.
    pub(crate) fn find(&mut self, words: &DriverWords) -> Result<()> {
        let place = |word, slots| Place::from_word(words.nic(word), slots).ok_or(NicError::Used);
        self.rx_place = place(RX_PLACE_WORD, self.rx.slots())?;
        self.tx_place = place(TX_PLACE_WORD, self.tx.slots())?;
        Ok(())
    }

    /// Notes down where the rings of the socket with this cookie stand; the cookie last, for with it the places count.
    pub(crate) fn note(&self, words: &DriverWords, cookie: u64) {
        words.set_nic(RX_PLACE_WORD, self.rx_place.word());
        words.set_nic(TX_PLACE_WORD, self.tx_place.word());
        words.set_nic(COOKIE_WORD, cookie);
    }

    /// The slot that belongs to a frame from the device.
    pub(crate) fn rx_slot(&self, number: u32) -> Slot<'_> {
        self.rx.slot(&self.mapping, 0, self.rx_place.slot_of(number))
    }

    /// The slot that belongs to a frame from the lane.
    pub(crate) fn tx_slot(&self, number: u32) -> Slot<'_> {
        self.tx.slot(&self.mapping, self.rx.bytes(), self.tx_place.slot_of(number))
    }

    /// Where a frame's bytes go in a slot.
    ///
    /// # Safety
    /// As for [`Slot::room`].
    pub(crate) unsafe fn tx_data<'a>(&self, slot: Slot<'a>) -> &'a mut [u8] {
        // SAFETY: the caller's promise.
        let room = unsafe { slot.room() };
        if self.offload { &mut room[VNET_BYTES..] } else { room }
    }

    /// Puts a frame and its number into its slot, which must be available; `there`: its bytes are there already. Says whether
    /// it is one that can be sent; if not, it takes its slot too, to keep in step, and the kernel passes it by.
    pub(crate) fn fill(&self, lane: &Consumer, frame: &Frame, there: bool) -> bool {
        let slot = self.tx_slot(frame.number());
        // SAFETY: the slot is available, so the kernel leaves it alone until it is marked, which comes after this
        // function; there is one driver, and it holds no other reference.
        let room = unsafe { slot.room() };
        let length_bytes = self.put(room, lane, frame, there);
        slot.set_length(length_bytes.unwrap_or(0));
        slot.set_mark(mark_of(frame.number()));
        length_bytes.is_some()
    }

    fn put(&self, room: &mut [u8], lane: &Consumer, frame: &Frame, there: bool) -> Option<usize> {
        let meta = frame.meta();
        let segmented = meta.flags.is_segmented();
        // The kernel checks neither of these with offload, and complains in its log without.
        let too_long = !segmented && frame.length_bytes() > self.packet_bytes_max;
        if frame.is_void() || too_long || frame.length_bytes() < ETHERNET_BYTES {
            return None;
        }
        if self.offload {
            let (header, data) = room.split_at_mut(VNET_BYTES);
            let data = data.get_mut(..frame.length_bytes())?;
            copy_unless(there, lane, frame, data);
            header.copy_from_slice(&vnet::encode(meta, data, self.packet_bytes_max)?);
            return Some(VNET_BYTES + data.len());
        }
        let data = room.get_mut(..frame.length_bytes()).filter(|_| !segmented)?;
        copy_unless(there, lane, frame, data);
        let complete = !meta.flags.contains(FrameFlags::CSUM_BLANK) || complete_checksum(data);
        complete.then_some(data.len())
    }

    /// Stages the frame in a slot that the kernel filled. None if the lane has no room; otherwise its length, if it could
    /// be handed on, and it is void if not.
    pub(crate) fn stage(&self, lane: &mut Producer, number: u32) -> Result<Option<Option<usize>>> {
        let received = self.received(self.rx_slot(number));
        let length_bytes = received.as_ref().map(Received::length_bytes);
        let Some(reservation) = lane.reserve(length_bytes.unwrap_or(1))? else { return Ok(None) };
        let Some(received) = received else {
            let meta = FrameMeta { seq: number, flags: FrameFlags::VOID, ..FrameMeta::default() };
            lane.stage(reservation, &meta)?;
            return Ok(Some(length_bytes));
        };
        let meta = FrameMeta {
            seq: number,
            flags: received.flags,
            gso_bytes: received.gso_bytes,
            stamp: received.stamp_ns,
            ..FrameMeta::default()
        };
        if received.vlan_tag.is_none() {
            lane.stage_bytes(reservation, received.bytes, &meta)?;
            return Ok(Some(length_bytes));
        }
        let mut at = 0;
        for part in received.parts() {
            lane.write(&reservation, at, part);
            at += part.len();
        }
        lane.stage(reservation, &meta)?;
        Ok(Some(length_bytes))
    }

    /// What lies in a slot that the kernel filled. None if it cannot be handed on.
    pub(crate) fn received<'a>(&self, slot: Slot<'a>) -> Option<Received<'a>> {
        let (status, header) = (slot.status(), slot.rx_header());
        if header.kept_bytes < header.length_bytes || header.kept_bytes < ETHERNET_BYTES {
            return None;
        }
        // SAFETY: the slot's status says that it is the driver's, which gives it back only after the frame is published.
        let bytes = unsafe { slot.data(header.data_at, header.kept_bytes) }?;
        let (flags, gso_bytes) = if self.offload {
            let at = header.data_at.checked_sub(VNET_BYTES)?;
            // SAFETY: as above.
            vnet::decode(unsafe { slot.data(at, VNET_BYTES) }?)?
        } else {
            (checksum_flags(status), 0)
        };
        let vlan_tag = (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(header.vlan_tag);
        let received = Received { bytes, vlan_tag, flags, gso_bytes, stamp_ns: header.stamp_ns };
        (received.length_bytes() <= FRAME_BYTES_MAX).then_some(received)
    }
}

fn copy_unless(there: bool, lane: &Consumer, frame: &Frame, data: &mut [u8]) {
    if !there {
        lane.copy_to(frame, data);
    }
}

/// A frame in a slot.
pub(crate) struct Received<'a> {
    pub(crate) bytes: &'a [u8],
    /// The kernel takes the tag out of the frame and keeps it beside.
    vlan_tag: Option<[u8; 4]>,
    pub(crate) flags: FrameFlags,
    gso_bytes: u16,
    stamp_ns: u64,
}

impl Received<'_> {
    fn length_bytes(&self) -> usize {
        self.bytes.len() + self.vlan_tag.map_or(0, |tag| tag.len())
    }

    /// The frame as it was on the wire: the tag follows both addresses.
    fn parts(&self) -> [&[u8]; 3] {
        match &self.vlan_tag {
            None => [self.bytes, &[], &[]],
            Some(tag) => [&self.bytes[..12], tag, &self.bytes[12..]],
        }
    }
}

/// A mark holds a frame's number but for its highest bit, and this one, so that it is never 0.
pub(crate) const MARKED: u32 = 1 << 31;

/// What a driver writes into a slot that has carried the frame of this number.
pub(crate) fn mark_of(number: u32) -> u32 {
    number | MARKED
}

fn checksum_flags(status: u32) -> FrameFlags {
    if status & libc::TP_STATUS_CSUMNOTREADY != 0 {
        FrameFlags::CSUM_BLANK
    } else if status & libc::TP_STATUS_CSUM_VALID != 0 {
        FrameFlags::CSUM_VALID
    } else {
        FrameFlags::NONE
    }
}
