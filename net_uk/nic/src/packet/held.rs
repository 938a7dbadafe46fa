//! The packet socket.

use std::ffi::c_int;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{NicError, Result};
use crate::limits::SEND_BUFFER_BYTES;
use crate::packet::slots::RingShape;
use crate::spec::NicSpec;
use crate::sys;

/// A packet socket with its rings, which it keeps in the kernel.
#[derive(Debug)]
pub struct PacketHeld {
    socket: OwnedFd,
    spec: NicSpec,
}

impl PacketHeld {
    /// Opens a socket with rings on an interface.
    ///
    /// # Errors
    /// [`NicError::Spec`], or what the kernel reports.
    pub fn open(spec: &NicSpec) -> Result<Self> {
        spec.check()?;
        let (rx, tx) = (RingShape::rx(spec)?, RingShape::tx(spec)?);
        let socket = sys::packet_socket()?;
        let ifindex = sys::interface_number(&socket, &spec.interface)?;
        let set = |name, value: c_int| sys::set_option(&socket, libc::SOL_PACKET, name, &value);
        set(libc::PACKET_VERSION, libc::tpacket_versions::TPACKET_V2 as c_int)?;
        set(libc::PACKET_LOSS, 1)?;
        set(libc::PACKET_IGNORE_OUTGOING, 1)?;
        set(libc::PACKET_QDISC_BYPASS, c_int::from(spec.bypass))?;
        set(libc::PACKET_VNET_HDR, c_int::from(spec.offload))?;
        sys::enlarge_send_buffer(&socket, SEND_BUFFER_BYTES)?;
        sys::set_option(&socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &rx.request())?;
        sys::set_option(&socket, libc::SOL_PACKET, libc::PACKET_TX_RING, &tx.request())?;
        sys::receive_all(&socket, ifindex)?;
        sys::bind_packet(&socket, ifindex)?;
        if !spec.offload
            && let Some(interface) = sys::Interface::bound(&socket)?
        {
            interface.join_no_frames(&socket)?;
        }
        Ok(Self { socket, spec: spec.clone() })
    }

    /// Takes over the descriptor.
    ///
    /// # Errors
    /// [`NicError::Spec`], [`NicError::Descriptors`].
    pub fn from_fds(spec: &NicSpec, fds: Vec<OwnedFd>) -> Result<Self> {
        spec.check()?;
        let [socket] =
            <[_; 1]>::try_from(fds).map_err(|fds| NicError::Descriptors { have: fds.len(), need: 1 })?;
        Ok(Self { socket, spec: spec.clone() })
    }

    /// What it was opened with.
    pub fn spec(&self) -> &NicSpec {
        &self.spec
    }
}

impl AsFd for PacketHeld {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
