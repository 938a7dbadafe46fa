//! What must outlive the driver of a network card.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::Result;
use crate::packet::PacketHeld;
use crate::spec::{NicKind, NicSpec};

/// The descriptors of a network card. As long as someone holds them, the kernel keeps the queues behind them.
#[derive(Debug)]
pub enum Held {
    /// A packet socket.
    Packet(PacketHeld),
}

impl Held {
    /// Opens a network card.
    ///
    /// # Errors
    /// [`crate::NicError::Spec`], or what the kernel reports.
    pub fn open(spec: &NicSpec) -> Result<Self> {
        match spec.kind {
            NicKind::Packet => PacketHeld::open(spec).map(Self::Packet),
        }
    }

    /// Takes over descriptors that [`Held::fds`] gave, in their order, together with what they were opened with.
    ///
    /// # Errors
    /// [`crate::NicError::Spec`], [`crate::NicError::Descriptors`].
    pub fn from_fds(spec: &NicSpec, fds: Vec<OwnedFd>) -> Result<Self> {
        match spec.kind {
            NicKind::Packet => PacketHeld::from_fds(spec, fds).map(Self::Packet),
        }
    }

    /// The descriptors.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Packet(held) => vec![held.as_fd()],
        }
    }

    /// What it was opened with.
    pub fn spec(&self) -> &NicSpec {
        match self {
            Self::Packet(held) => held.spec(),
        }
    }
}
