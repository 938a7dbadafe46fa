//! Private memory for a batch of frames: copied from a guest's pages, or out of a ring of ours and on to a guest. What is
//! looked at there is what is given on, whatever guest or driver write meanwhile.

use hypervisor::limits::GRANT_COPIES_MAX;
use hypervisor::{Buffer, CopyDirection, DomId, GrantCopy, Grants, Page, Region};
use lane::limits::FRAME_ROOM_BYTES;
use netif::{TxPacket, TxRing};

use crate::error::Error;
use crate::limits::{BATCH, SCRATCH_BYTES};

/// A packet of the guest that was copied into the scratch memory.
pub struct Copied {
    /// The packet.
    pub packet: TxPacket,
    /// Where its bytes begin there.
    pub offset: usize,
    /// Not all of its bytes could be copied.
    pub failed: bool,
}

/// Frames begin at multiples of it: a line of the processor's cache.
const ALIGN_BYTES: usize = 64;

/// Where a batch of frames lies.
pub struct Scratch(Buffer);

impl Scratch {
    /// For one batch.
    ///
    /// # Errors
    /// [`Error::Region`].
    pub fn new() -> Result<Self, Error> {
        Ok(Self(Buffer::create("net-scratch", SCRATCH_BYTES)?))
    }

    /// Takes packets and copies them, as many as there is room for. True if there may be more.
    ///
    /// # Errors
    /// [`Error::Ring`].
    pub fn gather(
        &mut self,
        grants: &dyn Grants,
        domid: DomId,
        tx: &mut TxRing<Page>,
    ) -> Result<(Vec<Copied>, bool), Error> {
        let mut copied = Vec::with_capacity(BATCH);
        let (mut end, mut more) = (0, true);
        while copied.len() < BATCH {
            let Some(packet) = tx.take()? else {
                more = false;
                break;
            };
            if end + packet.length_bytes() > SCRATCH_BYTES {
                tx.untake(&packet);
                break;
            }
            let offset = end;
            end = after(end, packet.length_bytes());
            copied.push(Copied { packet, offset, failed: false });
        }
        self.copy_in(grants, domid, &mut copied);
        Ok((copied, more))
    }

    fn copy_in(&mut self, grants: &dyn Grants, domid: DomId, copied: &mut [Copied]) {
        let region = self.0.region();
        let mut copies = Vec::with_capacity(copied.len());
        let mut owners = vec![];
        for (number, Copied { packet, offset, .. }) in copied.iter().enumerate() {
            let mut at = *offset;
            for part in packet.parts() {
                let copy = GrantCopy::new(part.gref, region, part.length_bytes, CopyDirection::FromGuest);
                copies.push(copy.at_guest(part.offset_bytes).at_region(at));
                owners.push(number);
                at += usize::from(part.length_bytes);
            }
        }
        for chunk in copies.chunks_mut(GRANT_COPIES_MAX) {
            if let Err(error) = grants.copy(domid, chunk) {
                tracing::debug!(%domid, %error, "no packet can be copied");
            }
        }
        for (copy, owner) in copies.iter().zip(owners) {
            copied[owner].failed |= !copy.status.is_ok();
        }
    }

    /// A frame's bytes.
    pub fn frame(&mut self, offset: usize, length_bytes: usize) -> &mut [u8] {
        self.0.bytes_mut(offset, length_bytes)
    }

    /// Room from there on for one more frame out of a ring, if there is enough.
    pub fn room(&mut self, offset: usize) -> Option<&mut [u8]> {
        let fits = offset + FRAME_ROOM_BYTES <= SCRATCH_BYTES;
        fits.then(|| self.0.bytes_mut(offset, FRAME_ROOM_BYTES))
    }

    /// For copies to a guest.
    pub fn region(&mut self) -> &Region {
        self.0.region()
    }
}

/// Where the next frame may begin.
pub fn after(offset: usize, length_bytes: usize) -> usize {
    (offset + length_bytes).next_multiple_of(ALIGN_BYTES)
}
