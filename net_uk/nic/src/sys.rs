//! System calls that have no safe wrapper elsewhere.

use std::ffi::{c_char, c_int};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::error::{NicError, Result, last_error};
use crate::nic::Link;

/// Commands of `linux/ethtool.h`, each with a number.
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_SGRO: u32 = 0x2c;
/// Of `linux/if_tun.h`: `_IO('T', 227)`.
const TUNGETDEVNETNS: libc::Ioctl = 0x54e3;
/// The device takes VLAN tags out of frames.
pub(crate) const ETH_FLAG_RXVLAN: u32 = 1 << 8;
/// The device itself joins frames.
pub(crate) const ETH_FLAG_LRO: u32 = 1 << 15;

/// A packet socket that receives nothing until it is bound.
pub(crate) fn packet_socket() -> Result<OwnedFd> {
    raw_socket(libc::AF_PACKET, libc::SOCK_NONBLOCK)
}

/// A socket for whole frames. Its protocol comes with its address.
pub(crate) fn raw_socket(family: c_int, flags: c_int) -> Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | flags;
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(family, kind, 0) };
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

/// A number that no other socket has.
pub(crate) fn cookie_of(socket: impl AsFd) -> Result<u64> {
    get_option(socket, libc::SOL_SOCKET, libc::SO_COOKIE, 0u64)
}

/// Binds a packet socket to an interface; from then on it receives everything.
pub(crate) fn bind_packet(fd: impl AsFd, ifindex: c_int) -> Result<()> {
    bind(fd, &packet_address(ifindex))
}

/// Gives a socket its address.
pub(crate) fn bind<T: Plain>(fd: impl AsFd, address: &T) -> Result<()> {
    let length = length_of::<T>();
    let pointer = std::ptr::from_ref(address).cast();
    // SAFETY: the pointer is valid for `length` bytes.
    match unsafe { libc::bind(fd.as_fd().as_raw_fd(), pointer, length) } {
        0 => Ok(()),
        _ => Err(last_error("bind")),
    }
}

/// Frames wait in a ring, not for the socket's buffer.
pub(crate) fn enlarge_send_buffer(socket: impl AsFd, bytes: u32) -> Result<()> {
    let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &bytes)
        .or_else(|_| set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, &bytes))
}

/// Has a packet socket know an interface, and receive nothing.
pub(crate) fn watch_interface(fd: impl AsFd, ifindex: c_int) -> Result<()> {
    bind(fd, &libc::sockaddr_ll { sll_protocol: 0, ..packet_address(ifindex) })
}

/// Has an interface take in all frames, as long as this packet socket is open.
pub(crate) fn receive_all(fd: impl AsFd, ifindex: c_int) -> Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "the constant is 1")]
    let kind = libc::PACKET_MR_PROMISC as u16;
    let request = libc::packet_mreq { mr_ifindex: ifindex, mr_type: kind, mr_alen: 0, mr_address: [0; 8] };
    set_option(fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
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
    let mut request = request_for(named(name));
    interface_request(fd, libc::SIOCGIFINDEX, "SIOCGIFINDEX", &mut request)?;
    // SAFETY: the request succeeded, so the kernel filled this variant.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex })
}

/// Makes the descriptor of `/dev/net/tun` a TAP device of this name.
pub(crate) fn make_tap(fd: impl AsFd, name: &str, with_header: bool) -> Result<()> {
    let mut request = request_for(named(name));
    let header = if with_header { libc::IFF_VNET_HDR } else { 0 };
    #[expect(clippy::cast_possible_truncation, reason = "the flags fit into 16 bits")]
    let flags = (libc::IFF_TAP | libc::IFF_NO_PI | header) as i16;
    request.ifr_ifru.ifru_flags = flags;
    interface_request(fd, libc::TUNSETIFF, "TUNSETIFF", &mut request)
}

/// The network namespace of a TAP device's interface.
pub(crate) fn tap_namespace(fd: impl AsFd) -> Result<OwnedFd> {
    // SAFETY: this request takes nothing.
    let namespace = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), TUNGETDEVNETNS) };
    if namespace < 0 {
        return Err(last_error("TUNGETDEVNETNS"));
    }
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(namespace) })
}

/// Lets the kernel leave checksums and segments of TCP to who reads from a TAP device.
pub(crate) fn set_tap_offload(fd: impl AsFd) -> Result<()> {
    let offload = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    // SAFETY: this request takes a number.
    match unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offload)) } {
        0 => Ok(()),
        _ => Err(last_error("TUNSETOFFLOAD")),
    }
}

/// Reads one message into several places. The error is the system's number.
///
/// # Safety
/// Each place is valid for writes of its length, and nothing in this process refers to it.
pub(crate) unsafe fn read_into(fd: impl AsFd, places: &[libc::iovec]) -> std::result::Result<usize, c_int> {
    let count = c_int::try_from(places.len()).unwrap_or(c_int::MAX);
    // SAFETY: the caller's promise.
    let read = unsafe { libc::readv(fd.as_fd().as_raw_fd(), places.as_ptr(), count) };
    usize::try_from(read).map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

type Name = [c_char; libc::IFNAMSIZ];

/// An interface by the name under which it was last seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interface(Name);

impl Interface {
    /// The one that a packet socket is bound to. None: that is gone.
    pub(crate) fn bound(fd: impl AsFd) -> Result<Option<Self>> {
        let ifindex = bound_interface(&fd)?;
        if ifindex <= 0 {
            return Ok(None);
        }
        let mut request = request_for(named(""));
        request.ifr_ifru.ifru_ifindex = ifindex;
        let found = interface_request(&fd, libc::SIOCGIFNAME, "SIOCGIFNAME", &mut request);
        Ok(known(found, libc::ENODEV)?.then_some(Self(request.ifr_name)))
    }

    /// The one of this name.
    pub(crate) fn named(name: &str) -> Self {
        Self(named(name))
    }

    /// The one of a TAP device. None: that is gone.
    pub(crate) fn of_tap(tap: impl AsFd) -> Result<Option<Self>> {
        let mut request = request_for(named(""));
        let found = interface_request(&tap, libc::TUNGETIFF, "TUNGETIFF", &mut request);
        Ok(known(found, libc::EBADFD)?.then_some(Self(request.ifr_name)))
    }

    /// Its name.
    pub(crate) fn name(self) -> String {
        let bytes = self.0.iter().take_while(|byte| **byte != 0).flat_map(|byte| byte.to_ne_bytes());
        String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
    }

    /// Its state. [`Link::Gone`]: there is none of this name.
    pub(crate) fn link(self, fd: impl AsFd) -> Result<Link> {
        let mut request = request_for(self.0);
        let found = interface_request(&fd, libc::SIOCGIFFLAGS, "SIOCGIFFLAGS", &mut request);
        if !known(found, libc::ENODEV)? {
            return Ok(Link::Gone);
        }
        // SAFETY: the request succeeded, so the kernel filled this variant.
        let flags = c_int::from(unsafe { request.ifr_ifru.ifru_flags });
        let up = libc::IFF_UP | libc::IFF_RUNNING;
        Ok(if flags & up == up { Link::Up } else { Link::Down })
    }

    /// The state of the one that a packet socket is bound to, given by which name it was last known. It may have another one
    /// by now, or be gone.
    pub(crate) fn link_of(known: &mut Option<Self>, socket: impl AsFd) -> Result<Link> {
        let link = |known: Option<Self>| known.map_or(Ok(Link::Gone), |known| known.link(&socket));
        let found = link(*known)?;
        if found != Link::Gone {
            return Ok(found);
        }
        *known = Self::bound(&socket)?;
        link(*known)
    }

    /// Its largest packet.
    pub(crate) fn mtu_bytes(self, fd: impl AsFd) -> Result<usize> {
        let mut request = request_for(self.0);
        interface_request(&fd, libc::SIOCGIFMTU, "SIOCGIFMTU", &mut request)?;
        // SAFETY: the request succeeded, so the kernel filled this variant.
        Ok(usize::try_from(unsafe { request.ifr_ifru.ifru_mtu }).unwrap_or(0))
    }

    /// Has the kernel hand on frames as they came, and not join those of a flow to what fits into no slot. (A packet socket
    /// gets them after that.) A device that cannot join any is fine.
    pub(crate) fn join_no_frames(self, fd: impl AsFd) -> Result<()> {
        self.ethtool(&fd, &mut [ETHTOOL_SGRO, 0])?;
        let flags = self.flags(&fd)?;
        self.set_flags(&fd, flags & !ETH_FLAG_LRO)
    }

    /// What the device does of itself. None of it, if it cannot tell.
    pub(crate) fn flags(self, fd: impl AsFd) -> Result<u32> {
        let mut flags = [ETHTOOL_GFLAGS, 0];
        self.ethtool(fd, &mut flags)?;
        Ok(flags[1])
    }

    /// Says what the device is to do of itself. That it cannot be told is no error.
    pub(crate) fn set_flags(self, fd: impl AsFd, flags: u32) -> Result<()> {
        self.ethtool(fd, &mut [ETHTOOL_SFLAGS, flags])
    }

    /// A command with a number (`struct ethtool_value`).
    fn ethtool(self, fd: impl AsFd, value: &mut [u32; 2]) -> Result<()> {
        let mut request = request_for(self.0);
        request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
        let done = interface_request(fd, libc::SIOCETHTOOL, "SIOCETHTOOL", &mut request);
        known(done, libc::EOPNOTSUPP).map(drop)
    }

    /// Sets how many frames wait for whoever sends them on, at most.
    pub(crate) fn set_queue_frames(self, fd: impl AsFd, frames: u32) -> Result<()> {
        let mut request = request_for(self.0);
        request.ifr_ifru.ifru_metric = c_int::try_from(frames).unwrap_or(c_int::MAX);
        interface_request(&fd, libc::SIOCSIFTXQLEN, "SIOCSIFTXQLEN", &mut request)
    }
}

/// Whether a request succeeded. One error means that the interface is gone.
fn known(found: Result<()>, gone: c_int) -> Result<bool> {
    match found {
        Ok(()) => Ok(true),
        Err(NicError::System { source, .. }) if source.raw_os_error() == Some(gone) => Ok(false),
        Err(error) => Err(error),
    }
}

fn named(text: &str) -> Name {
    let mut name = [0; libc::IFNAMSIZ];
    // The last byte ends it.
    for (to, from) in name.iter_mut().take(libc::IFNAMSIZ - 1).zip(text.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    name
}

fn request_for(name: Name) -> libc::ifreq {
    libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_ifindex: 0 } }
}

fn interface_request(
    fd: impl AsFd,
    request: libc::Ioctl,
    call: &'static str,
    argument: &mut libc::ifreq,
) -> Result<()> {
    // SAFETY: these requests read and write an `ifreq`, and one of them the two numbers that it points to.
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
