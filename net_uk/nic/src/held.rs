//! What must outlive the driver of a network card.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lane::{Consumer, DriverWords, Lane, Producer};

use crate::error::{NicError, Result};
use crate::nic::Nic;
use crate::packet::{PacketHeld, PacketPort};
use crate::spec::{NicKind, NicSpec};
use crate::step::{Steps, Straight};
use crate::tap::{TapHeld, TapPort};
use crate::xdp::{XdpHeld, XdpPort};

/// The descriptors of a network card. As long as someone holds them, the kernel keeps the queues behind them.
#[derive(Debug)]
pub enum Held {
    /// A packet socket.
    Packet(PacketHeld),
    /// A TAP device.
    Tap(TapHeld),
    /// Sockets of `AF_XDP`.
    Xdp(XdpHeld),
}

impl Held {
    /// Opens a network card, and waits for nothing.
    ///
    /// # Errors
    /// [`crate::NicError::Spec`], or what the kernel reports.
    pub fn open(spec: &NicSpec) -> Result<Self> {
        match spec.kind {
            NicKind::Packet => PacketHeld::open(spec).map(Self::Packet),
            NicKind::Tap => TapHeld::open(spec).map(Self::Tap),
            NicKind::Xdp => XdpHeld::open(spec).map(Self::Xdp),
        }
    }

    /// As [`Held::open`], but over `AF_XDP` waits a while for a device whose former sockets the kernel is still taking down.
    ///
    /// # Errors
    /// As [`Held::open`].
    pub fn open_waiting(spec: &NicSpec) -> Result<Self> {
        match spec.kind {
            NicKind::Xdp => XdpHeld::open_waiting(spec).map(Self::Xdp),
            NicKind::Packet | NicKind::Tap => Self::open(spec),
        }
    }

    /// Takes over descriptors that [`Held::fds`] gave, in their order, together with what they were opened with.
    ///
    /// # Errors
    /// [`crate::NicError::Spec`], [`crate::NicError::Descriptors`].
    pub fn from_fds(spec: &NicSpec, fds: Vec<OwnedFd>) -> Result<Self> {
        match spec.kind {
            NicKind::Packet => PacketHeld::from_fds(spec, fds).map(Self::Packet),
            NicKind::Tap => TapHeld::from_fds(spec, fds).map(Self::Tap),
            NicKind::Xdp => XdpHeld::from_fds(spec, fds).map(Self::Xdp),
        }
    }

    /// The descriptors. The first one is readable when a driver has something to receive.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Packet(held) => vec![held.as_fd()],
            Self::Tap(held) => held.fds().to_vec(),
            Self::Xdp(held) => held.fds(),
        }
    }

    /// What it was opened with.
    pub fn spec(&self) -> &NicSpec {
        match self {
            Self::Packet(held) => held.spec(),
            Self::Tap(held) => held.spec(),
            Self::Xdp(held) => held.spec(),
        }
    }

    /// Takes over what `old`, whose device is gone, was handed and never sent: how many frames. To be called on new
    /// descriptors, once, while no driver runs. (What a TAP device was handed is sent or lost.)
    ///
    /// # Errors
    /// [`NicError::Used`], or what the kernel reports.
    pub fn carry_over(&self, old: &Self, lane: &Lane) -> Result<u32> {
        match (self, old) {
            (Self::Packet(new), Self::Packet(old)) => new.carry_over(old, lane),
            (Self::Xdp(new), Self::Xdp(old)) => new.carry_over(old, lane),
            _ => Ok(0),
        }
    }

    /// How far drivers have come, towards the wire and from it, as the kernel's rings tell.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn handed(&self, lane: &Lane) -> Result<[Option<u32>; 2]> {
        match self {
            Self::Packet(held) => held.handed(lane),
            Self::Xdp(held) => held.handed(lane),
            Self::Tap(held) => held.handed(lane),
        }
    }

    /// What a driver does first: it finishes what its predecessor, which must be dead, left undone.
    ///
    /// # Errors
    /// [`NicError::Used`], [`NicError::Lane`], or what the kernel reports.
    pub fn attach(
        &self,
        tx_lane: &mut Consumer,
        rx_lane: &mut Producer,
        words: DriverWords,
    ) -> Result<Box<dyn Nic + Send>> {
        self.attach_with(tx_lane, rx_lane, words, Straight)
    }

    /// As [`Held::attach`], and tells `steps` of each step from then on.
    ///
    /// # Errors
    /// As [`Held::attach`].
    pub fn attach_with<S: Steps + Send + 'static>(
        &self,
        tx_lane: &mut Consumer,
        rx_lane: &mut Producer,
        words: DriverWords,
        steps: S,
    ) -> Result<Box<dyn Nic + Send>> {
        Ok(match self {
            Self::Packet(held) => Box::new(PacketPort::attach_with(held, tx_lane, rx_lane, words, steps)?),
            Self::Tap(held) => Box::new(TapPort::attach_with(held, tx_lane, rx_lane, words, steps)?),
            Self::Xdp(held) => Box::new(XdpPort::attach_with(held, tx_lane, rx_lane, words, steps)?),
        })
    }
}

/// A duplicate of a descriptor.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned().map_err(|source| NicError::System { call: "dup", source })
}
