//! A ring that is shared with the kernel: free-running indices of both sides, and slots.

use std::os::fd::AsFd;
use std::sync::atomic::{Ordering, fence};

use crate::error::{NicError, Result};
use crate::mapping::Mapping;
use crate::xdp::system;

/// One of the four kinds of rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RingKind {
    /// Received frames: addresses and lengths.
    Receive,
    /// Frames to be sent: addresses and lengths.
    Send,
    /// Memory for frames to be received: addresses.
    Fill,
    /// Memory of frames that were sent: addresses.
    Completion,
}

/// A mapped ring. The slots that belong to this side may be written, those of the other side not.
#[derive(Debug)]
pub(crate) struct Ring {
    mapping: Mapping,
    produced_at: usize,
    consumed_at: usize,
    flags_at: usize,
    slots_at: usize,
    slot_bytes: usize,
    slots: u32,
}

impl Ring {
    /// Maps a ring with this many slots, a power of two.
    pub(crate) fn map(socket: impl AsFd, kind: RingKind, slots: u32) -> Result<Self> {
        let all = system::offsets(&socket)?;
        let (at, page, slot_bytes) = match kind {
            RingKind::Receive => (all.rx, libc::XDP_PGOFF_RX_RING.cast_unsigned(), 16),
            RingKind::Send => (all.tx, libc::XDP_PGOFF_TX_RING.cast_unsigned(), 16),
            RingKind::Fill => (all.fr, libc::XDP_UMEM_PGOFF_FILL_RING, 8),
            RingKind::Completion => (all.cr, libc::XDP_UMEM_PGOFF_COMPLETION_RING, 8),
        };
        let offset = |offset| usize::try_from(offset).map_err(|_| NicError::Used);
        let slots_at = offset(at.desc)?;
        Ok(Self {
            mapping: Mapping::new(socket, slots_at + slots as usize * slot_bytes, page)?,
            produced_at: offset(at.producer)?,
            consumed_at: offset(at.consumer)?,
            flags_at: offset(at.flags)?,
            slots_at,
            slot_bytes,
            slots,
        })
    }

    /// A ring in plain memory, at a page of it, as a test's kernel would make it.
    #[cfg(test)]
    pub(crate) fn in_memory(memory: impl AsFd, page: u64, kind: RingKind, slots: u32) -> Result<Self> {
        let slot_bytes = if matches!(kind, RingKind::Receive | RingKind::Send) { 16 } else { 8 };
        Ok(Self {
            mapping: Mapping::new(memory, 4096, page * 4096)?,
            produced_at: 0,
            consumed_at: 64,
            flags_at: 128,
            slots_at: 192,
            slot_bytes,
            slots,
        })
    }

    pub(crate) fn produced(&self) -> u32 {
        self.mapping.u32(self.produced_at).load(Ordering::Acquire)
    }

    pub(crate) fn consumed(&self) -> u32 {
        self.mapping.u32(self.consumed_at).load(Ordering::Acquire)
    }

    /// Hands over all slots before `index`.
    pub(crate) fn produce(&self, index: u32) {
        self.mapping.u32(self.produced_at).store(index, Ordering::Release);
    }

    /// Takes off all slots before `index`.
    pub(crate) fn consume(&self, index: u32) {
        self.mapping.u32(self.consumed_at).store(index, Ordering::Release);
    }

    /// Slots that were produced and not consumed.
    ///
    /// # Errors
    /// [`NicError::Used`]: more than there are; someone else was here.
    pub(crate) fn waiting(&self) -> Result<u32> {
        let waiting = self.produced().wrapping_sub(self.consumed());
        if waiting <= self.slots { Ok(waiting) } else { Err(NicError::Used) }
    }

    /// Whether the kernel waits to be told of what was produced, before this was asked.
    pub(crate) fn needs_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.mapping.u32(self.flags_at).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    pub(crate) fn address(&self, index: u32) -> u64 {
        self.mapping.u64(self.slot_at(index)).load(Ordering::Relaxed)
    }

    pub(crate) fn set_address(&self, index: u32, address: u64) {
        self.mapping.u64(self.slot_at(index)).store(address, Ordering::Relaxed);
    }

    /// Length of the frame in a slot that has one.
    pub(crate) fn length_bytes(&self, index: u32) -> usize {
        self.mapping.u32(self.slot_at(index) + 8).load(Ordering::Relaxed) as usize
    }

    pub(crate) fn set_frame(&self, index: u32, address: u64, length_bytes: usize) {
        let length = u32::try_from(length_bytes).expect("no frame is that long");
        self.set_address(index, address);
        self.mapping.u32(self.slot_at(index) + 8).store(length, Ordering::Relaxed);
        self.mapping.u32(self.slot_at(index) + 12).store(0, Ordering::Relaxed);
    }

    fn slot_at(&self, index: u32) -> usize {
        self.slots_at + (index & (self.slots - 1)) as usize * self.slot_bytes
    }
}
