//! Packets of a guest, copied from its pages a batch at a time.

use hypervisor::limits::GRANT_COPIES_MAX;
use hypervisor::{CopyDirection, DomId, GrantCopy, Grants, Region};
use netif::TxPacket;

use super::queue::Queue;
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

/// Where they are copied to.
pub struct Scratch(Region);

impl Scratch {
    /// For one batch.
    ///
    /// # Errors
    /// [`Error::Region`].
    pub fn new() -> Result<Self, Error> {
        Ok(Self(Region::create("net-scratch", SCRATCH_BYTES)?))
    }

    /// Takes packets and copies them, as many as there is room for. True if there may be more.
    ///
    /// # Errors
    /// [`Error::Ring`].
    pub fn gather(&self, grants: &dyn Grants, queue: &mut Queue) -> Result<(Vec<Copied>, bool), Error> {
        let mut copied = Vec::with_capacity(BATCH);
        let (mut end, mut more) = (0, true);
        while copied.len() < BATCH {
            let Some(packet) = queue.tx.take()? else {
                more = false;
                break;
            };
            if end + packet.length_bytes() > SCRATCH_BYTES {
                queue.tx.untake(&packet);
                break;
            }
            let offset = end;
            end += packet.length_bytes();
            copied.push(Copied { packet, offset, failed: false });
        }
        self.copy_in(grants, queue.domid, &mut copied);
        Ok((copied, more))
    }

    fn copy_in(&self, grants: &dyn Grants, domid: DomId, copied: &mut [Copied]) {
        let mut copies = vec![];
        let mut owners = vec![];
        for (number, Copied { packet, offset, .. }) in copied.iter().enumerate() {
            let mut at = *offset;
            for part in packet.parts() {
                let copy = GrantCopy::new(part.gref, &self.0, part.length_bytes, CopyDirection::FromGuest);
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

    /// Reads a packet's bytes.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        self.0.read(offset, bytes);
    }
}
