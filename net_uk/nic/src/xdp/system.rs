//! System calls on sockets of `AF_XDP`.

use std::ffi::c_int;
use std::io::Error;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::error::{NicError, Result};
use crate::spec::ZeroCopy;
use crate::sys::{self, Plain};

// SAFETY: integers of 64 bits.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: integers of 64 bits.
unsafe impl Plain for libc::xdp_statistics {}
// SAFETY: two integers of 64 bits, then four of 32.
unsafe impl Plain for libc::xdp_umem_reg {}
// SAFETY: two integers of 16 bits, then three of 32.
unsafe impl Plain for libc::sockaddr_xdp {}

/// The last error, with what is probably missing.
pub(crate) fn refused(call: &'static str) -> NicError {
    explained(call, Error::last_os_error())
}

fn explained(call: &'static str, source: Error) -> NicError {
    let what = match source.raw_os_error() {
        Some(libc::EAFNOSUPPORT | libc::ENOSYS) => "the kernel has none",
        Some(libc::EPERM | libc::EACCES) => "it needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF",
        Some(libc::EBUSY | libc::EEXIST) => "the device or its queue is used by another program",
        Some(libc::EOPNOTSUPP) => "the device cannot do that",
        Some(libc::ENOBUFS | libc::ENOMEM) => "memory, or the limit of locked memory, does not suffice",
        _ => "the kernel refuses",
    };
    NicError::Xdp { what, call, source }
}

impl NicError {
    /// Whether there is no such thing as was asked for: a queue.
    pub(crate) fn is_invalid(&self) -> bool {
        let Self::Xdp { source, .. } = self else { return false };
        source.raw_os_error() == Some(libc::EINVAL)
    }

    /// Whether someone else uses the device.
    pub(crate) fn is_busy(&self) -> bool {
        let Self::Xdp { source, .. } = self else { return false };
        matches!(source.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
    }
}

/// The same error, with what is probably missing.
pub(crate) fn explain(call: &'static str) -> impl Fn(NicError) -> NicError {
    move |error| match error {
        NicError::System { source, .. } => explained(call, source),
        other => other,
    }
}

pub(crate) fn socket() -> Result<OwnedFd> {
    sys::raw_socket(libc::AF_XDP, 0).map_err(explain("socket"))
}

/// Gives a socket its memory, which must stay in place until the call returns; the kernel keeps the pages.
pub(crate) fn register_memory(socket: impl AsFd, (addr, len): (u64, u64), chunk_bytes: u32) -> Result<()> {
    let memory =
        libc::xdp_umem_reg { addr, len, chunk_size: chunk_bytes, headroom: 0, flags: 0, tx_metadata_len: 0 };
    sys::set_option(socket, libc::SOL_XDP, libc::XDP_UMEM_REG, &memory).map_err(explain("XDP_UMEM_REG"))
}

/// Makes a ring (`XDP_RX_RING`, …).
pub(crate) fn make_ring(socket: impl AsFd, ring: c_int, slots: u32) -> Result<()> {
    sys::set_option(socket, libc::SOL_XDP, ring, &slots.cast_signed()).map_err(explain("a ring of AF_XDP"))
}

/// How the rings are laid out.
pub(crate) fn offsets(socket: impl AsFd) -> Result<libc::xdp_mmap_offsets> {
    let ring = || libc::xdp_ring_offset { producer: 0, consumer: 0, desc: 0, flags: 0 };
    let none = libc::xdp_mmap_offsets { rx: ring(), tx: ring(), fr: ring(), cr: ring() };
    sys::get_option(socket, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, none)
}

/// Frames that found no room, since the socket was made.
pub(crate) fn dropped(socket: impl AsFd) -> Result<u64> {
    let none = libc::xdp_statistics {
        rx_dropped: 0,
        rx_invalid_descs: 0,
        tx_invalid_descs: 0,
        rx_ring_full: 0,
        rx_fill_ring_empty_descs: 0,
        tx_ring_empty_descs: 0,
    };
    let counted = sys::get_option(socket, libc::SOL_XDP, libc::XDP_STATISTICS, none)?;
    Ok(counted.rx_dropped + counted.rx_ring_full)
}

/// Binds a socket with memory of its own to a queue.
pub(crate) fn bind(socket: impl AsFd, ifindex: u32, queue: u32, zero_copy: ZeroCopy) -> Result<()> {
    let copy = match zero_copy {
        ZeroCopy::Auto => 0,
        ZeroCopy::On => libc::XDP_ZEROCOPY,
        ZeroCopy::Off => libc::XDP_COPY,
    };
    bind_to(socket, ifindex, queue, libc::XDP_USE_NEED_WAKEUP | copy, 0)
}

/// Binds a socket to the queue of another one, with whose memory it works.
pub(crate) fn bind_beside(socket: impl AsFd, ifindex: u32, queue: u32, other: impl AsFd) -> Result<()> {
    let other = other.as_fd().as_raw_fd().cast_unsigned();
    bind_to(socket, ifindex, queue, libc::XDP_SHARED_UMEM, other)
}

fn bind_to(socket: impl AsFd, ifindex: u32, queue: u32, flags: u16, other: u32) -> Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "the constant fits into 16 bits")]
    let family = libc::AF_XDP as u16;
    let address = libc::sockaddr_xdp {
        sxdp_family: family,
        sxdp_flags: flags,
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: other,
    };
    sys::bind(socket, &address).map_err(explain("bind"))
}

/// Tells the kernel that there is room again, if it waits for that.
pub(crate) fn wake_receiver(socket: impl AsFd) {
    // SAFETY: an empty message needs no memory.
    let told = unsafe {
        libc::recvfrom(
            socket.as_fd().as_raw_fd(),
            std::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    // A device that is down is not waited for; polling it tells the kernel the same.
    let _ = told;
}
