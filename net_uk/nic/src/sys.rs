//! System calls that have no safe wrapper elsewhere.

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::error::{NicError, Result, last_error};

/// A packet socket that receives nothing until it is bound.
pub(crate) fn packet_socket() -> Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(last_error("socket"));
    }
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Values that the kernel may read or write byte by byte.
///
/// # Safety
/// Every pattern of bytes is a valid value, and there is no padding.
pub(crate) unsafe trait Plain {}
// SAFETY: an integer.
unsafe impl Plain for c_int {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}
// SAFETY: two integers of 32 bits.
unsafe impl Plain for libc::tpacket_stats {}
// SAFETY: four integers of 32 bits.
unsafe impl Plain for libc::tpacket_req {}
// SAFETY: integers and an array of bytes, 16 bytes in all.
unsafe impl Plain for libc::packet_mreq {}
// SAFETY: integers and an array of bytes, 20 bytes in all.
unsafe impl Plain for libc::sockaddr_ll {}

pub(crate) fn set_option<T: Plain>(fd: impl AsFd, level: c_int, name: c_int, value: &T) -> Result<()> {
    let length = length_of::<T>();
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: the pointer is valid for `length` bytes.
    match unsafe { libc::setsockopt(fd.as_fd().as_raw_fd(), level, name, value, length) } {
        0 => Ok(()),
        _ => Err(last_error("setsockopt")),
    }
}

pub(crate) fn get_option<T: Plain>(fd: impl AsFd, level: c_int, name: c_int, mut value: T) -> Result<T> {
    let mut length = length_of::<T>();
    let target = std::ptr::from_mut(&mut value).cast();
    // SAFETY: the pointer is valid for `length` bytes, any of which may take any value.
    match unsafe { libc::getsockopt(fd.as_fd().as_raw_fd(), level, name, target, &raw mut length) } {
        0 => Ok(value),
        _ => Err(last_error("getsockopt")),
    }
}

/// Binds a packet socket to an interface; from then on it receives everything.
pub(crate) fn bind_packet(fd: impl AsFd, ifindex: c_int) -> Result<()> {
    let address = packet_address(ifindex);
    let length = length_of::<libc::sockaddr_ll>();
    let pointer = std::ptr::from_ref(&address).cast();
    // SAFETY: the pointer is valid for `length` bytes.
    match unsafe { libc::bind(fd.as_fd().as_raw_fd(), pointer, length) } {
        0 => Ok(()),
        _ => Err(last_error("bind")),
    }
}

/// The interface that a packet socket is bound to. Not positive: that is gone.
fn bound_interface(fd: impl AsFd) -> Result<c_int> {
    let mut address = packet_address(0);
    let mut length = length_of::<libc::sockaddr_ll>();
    let pointer = std::ptr::from_mut(&mut address).cast();
    // SAFETY: the pointer is valid for `length` bytes, any of which may take any value.
    match unsafe { libc::getsockname(fd.as_fd().as_raw_fd(), pointer, &raw mut length) } {
        0 => Ok(address.sll_ifindex),
        _ => Err(last_error("getsockname")),
    }
}

fn packet_address(ifindex: c_int) -> libc::sockaddr_ll {
    #[expect(clippy::cast_possible_truncation, reason = "both constants fit into 16 bits")]
    let (family, protocol) = (libc::AF_PACKET as u16, (libc::ETH_P_ALL as u16).to_be());
    libc::sockaddr_ll {
        sll_family: family,
        sll_protocol: protocol,
        sll_ifindex: ifindex,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

/// The number of an interface in the namespace of a socket.
pub(crate) fn interface_number(fd: impl AsFd, name: &str) -> Result<c_int> {
    let mut request = request_for(name);
    interface_request(fd, libc::SIOCGIFINDEX, "SIOCGIFINDEX", &mut request)?;
    // SAFETY: the request succeeded, so the kernel filled this variant.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex })
}

/// An interface by the name under which it was last seen.
#[derive(Clone, Copy)]
pub(crate) struct Interface(libc::ifreq);

impl Interface {
    /// The one that a packet socket is bound to. None: that is gone.
    pub(crate) fn bound(fd: impl AsFd) -> Result<Option<Self>> {
        let ifindex = bound_interface(&fd)?;
        if ifindex <= 0 {
            return Ok(None);
        }
        let mut request = request_for("");
        request.ifr_ifru.ifru_ifindex = ifindex;
        let found = interface_request(&fd, libc::SIOCGIFNAME, "SIOCGIFNAME", &mut request);
        Ok(known(found)?.map(|()| Self(request)))
    }

    /// Its flags. None: there is none of this name.
    pub(crate) fn flags(mut self, fd: impl AsFd) -> Result<Option<c_int>> {
        let found = interface_request(&fd, libc::SIOCGIFFLAGS, "SIOCGIFFLAGS", &mut self.0);
        // SAFETY: if the request succeeded, the kernel filled this variant; any bytes are a number.
        Ok(known(found)?.map(|()| c_int::from(unsafe { self.0.ifr_ifru.ifru_flags })))
    }

    /// Its largest packet.
    pub(crate) fn mtu_bytes(mut self, fd: impl AsFd) -> Result<usize> {
        interface_request(&fd, libc::SIOCGIFMTU, "SIOCGIFMTU", &mut self.0)?;
        // SAFETY: the request succeeded, so the kernel filled this variant.
        Ok(usize::try_from(unsafe { self.0.ifr_ifru.ifru_mtu }).unwrap_or(0))
    }
}

impl std::fmt::Debug for Interface {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Interface").finish_non_exhaustive()
    }
}

/// Makes "no such device" a value.
fn known(found: Result<()>) -> Result<Option<()>> {
    match found {
        Ok(()) => Ok(Some(())),
        Err(NicError::System { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

fn request_for(name: &str) -> libc::ifreq {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_ifindex: 0 },
    };
    let room = libc::IFNAMSIZ - 1;
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request
}

fn interface_request(
    fd: impl AsFd,
    request: libc::Ioctl,
    call: &'static str,
    argument: &mut libc::ifreq,
) -> Result<()> {
    // SAFETY: these requests read and write an `ifreq`.
    match unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, std::ptr::from_mut(argument)) } {
        0 => Ok(()),
        _ => Err(last_error(call)),
    }
}

/// Has the kernel send what lies in a packet socket's ring, without waiting. The error is the system's number.
pub(crate) fn send_ring(fd: impl AsFd) -> std::result::Result<(), c_int> {
    // SAFETY: an empty message needs no memory.
    let sent = unsafe { libc::send(fd.as_fd().as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT) };
    if sent >= 0 {
        return Ok(());
    }
    Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// An error number as an error of this crate.
pub(crate) fn numbered(call: &'static str, errno: c_int) -> NicError {
    NicError::System { call, source: std::io::Error::from_raw_os_error(errno) }
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).expect("these types are small")
}
