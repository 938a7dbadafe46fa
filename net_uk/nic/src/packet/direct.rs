//! A packet socket for whoever has the frames itself.

use std::os::fd::{AsFd, BorrowedFd};

use lane::FrameFlags;

use crate::error::{NicError, Result};
use crate::nic::{Kick, Link};
use crate::packet::held::PacketHeld;
use crate::packet::port::send_ring;
use crate::packet::rings::Rings;
use crate::packet::slots::Slot;
use crate::spec::NicSpec;
use crate::sys::Interface;

/// A packet socket without a lane: nobody takes it over, so nothing is noted for a successor. To compare with: it goes about
/// the kernel's rings as [`crate::packet::PacketPort`] does, and saves what stands between that and whoever has the frames.
#[derive(Debug)]
pub struct DirectPort {
    held: PacketHeld,
    interface: Option<Interface>,
    rings: Rings,
    /// Frames that were put into the transmit ring.
    sent: u32,
    /// Frames that were taken off the receive ring.
    received: u32,
}

impl DirectPort {
    /// Opens it.
    ///
    /// # Errors
    /// [`crate::NicError::Spec`], or what the kernel reports.
    pub fn open(spec: &NicSpec) -> Result<Self> {
        if spec.offload {
            return Err(NicError::Spec { text: spec.to_string(), reason: "not with offload" });
        }
        let held = PacketHeld::open(spec)?;
        let interface = Interface::bound(&held)?;
        let mtu_bytes = interface.map_or(Ok(0), |interface| interface.mtu_bytes(&held))?;
        let rings = Rings::new(&held, spec, mtu_bytes)?;
        Ok(Self { held, interface, rings, sent: 0, received: 0 })
    }

    /// Puts a frame into the transmit ring; [`DirectPort::kick`] sends it. False if there is no room.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        let slot = self.rings.tx_slot(self.sent);
        if slot.status() != libc::TP_STATUS_AVAILABLE {
            return false;
        }
        slot.set_length(fill(slot, bytes));
        slot.set_status(libc::TP_STATUS_SEND_REQUEST);
        self.sent = self.sent.wrapping_add(1);
        true
    }

    /// The next frame that came, without taking it off.
    pub fn peek(&self) -> Option<(&[u8], FrameFlags)> {
        let slot = self.rings.rx_slot(self.received);
        if slot.status() & libc::TP_STATUS_USER == 0 {
            return None;
        }
        Some(self.rings.received(slot).map_or((&[], FrameFlags::VOID), |frame| (frame.bytes, frame.flags)))
    }

    /// Takes the frame off that [`DirectPort::peek`] gave.
    pub fn take_off(&mut self) {
        self.rings.rx_slot(self.received).set_status(libc::TP_STATUS_KERNEL);
        self.received = self.received.wrapping_add(1);
    }

    /// Has the kernel send.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn kick(&mut self) -> Result<Kick> {
        if Interface::link_of(&mut self.interface, &self.held)? != Link::Up {
            return Ok(Kick::Down);
        }
        send_ring(&self.held)
    }

    /// Readable when something came, writable when there is room.
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.held.as_fd()
    }
}

/// Gives the length; 0 for a frame that is too long, which the kernel passes by.
fn fill(slot: Slot<'_>, bytes: &[u8]) -> usize {
    // SAFETY: the slot is available, so the kernel leaves it alone until it is marked, which comes after this function;
    // there is no other user of the socket.
    let room = unsafe { slot.room() };
    match room.get_mut(..bytes.len()) {
        Some(room) => {
            room.copy_from_slice(bytes);
            bytes.len()
        }
        None => 0,
    }
}
