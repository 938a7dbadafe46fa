//! Numbers and layouts of the kernel's and the hypervisor's interfaces, on x86-64.

use std::ffi::c_ulong;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

pub(super) const EVTCHN_PATH: &str = "/dev/xen/evtchn";
pub(super) const GNTDEV_PATH: &str = "/dev/xen/gntdev";
pub(super) const PRIVCMD_PATH: &str = "/dev/xen/privcmd";
pub(super) const HYPERCALL_PATH: &str = "/dev/xen/hypercall";
pub(super) const XSD_KVA_PATH: &str = "/proc/xen/xsd_kva";
pub(super) const XSD_PORT_PATH: &str = "/proc/xen/xsd_port";

/// `_IOC(_IOC_NONE, group, number, size)` of Linux.
const fn ioc(group: u8, number: u8, size: usize) -> c_ulong {
    (size as c_ulong) << 16 | (group as c_ulong) << 8 | number as c_ulong
}

pub(super) const IOCTL_EVTCHN_BIND_VIRQ: c_ulong = ioc(b'E', 0, size_of::<u32>());
pub(super) const IOCTL_EVTCHN_BIND_INTERDOMAIN: c_ulong = ioc(b'E', 1, size_of::<BindInterdomain>());
pub(super) const IOCTL_EVTCHN_BIND_UNBOUND_PORT: c_ulong = ioc(b'E', 2, size_of::<u32>());
pub(super) const IOCTL_EVTCHN_UNBIND: c_ulong = ioc(b'E', 3, size_of::<u32>());
pub(super) const IOCTL_EVTCHN_NOTIFY: c_ulong = ioc(b'E', 4, size_of::<u32>());
pub(super) const IOCTL_GNTDEV_MAP_GRANT_REF: c_ulong = ioc(b'G', 0, size_of::<MapGrantRef>());
pub(super) const IOCTL_GNTDEV_UNMAP_GRANT_REF: c_ulong = ioc(b'G', 1, size_of::<UnmapGrantRef>());
pub(super) const IOCTL_GNTDEV_GRANT_COPY: c_ulong = ioc(b'G', 8, size_of::<GrantCopies>());
pub(super) const IOCTL_PRIVCMD_HYPERCALL: c_ulong = ioc(b'P', 0, size_of::<Hypercall>());

/// `struct ioctl_evtchn_bind_interdomain`
#[repr(C)]
pub(super) struct BindInterdomain {
    pub(super) remote_domain: u32,
    pub(super) remote_port: u32,
}

/// `struct ioctl_gntdev_map_grant_ref` for one grant
#[repr(C)]
#[derive(Default)]
pub(super) struct MapGrantRef {
    pub(super) count: u32,
    pub(super) pad: u32,
    /// Out: offset for `mmap`.
    pub(super) index: u64,
    pub(super) domid: u32,
    pub(super) gref: u32,
}

/// `struct ioctl_gntdev_unmap_grant_ref`
#[repr(C)]
pub(super) struct UnmapGrantRef {
    pub(super) index: u64,
    pub(super) count: u32,
    pub(super) pad: u32,
}

/// `struct ioctl_gntdev_grant_copy`
#[repr(C)]
pub(super) struct GrantCopies {
    pub(super) count: u32,
    pub(super) pad: u32,
    /// Address of [`CopySegment`]s.
    pub(super) segments: u64,
}

/// `struct gntdev_grant_copy_segment`; each end is an address, or grant, offset and domid.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct CopySegment {
    pub(super) source: [u8; 8],
    pub(super) destination: [u8; 8],
    pub(super) length_bytes: u16,
    pub(super) flags: u16,
    pub(super) status: i16,
    pub(super) pad: u16,
}

/// The source is a grant.
pub(super) const GNTCOPY_SOURCE_GREF: u16 = 1 << 0;
/// The destination is a grant.
pub(super) const GNTCOPY_DEST_GREF: u16 = 1 << 1;

/// `struct privcmd_hypercall`
#[repr(C)]
pub(super) struct Hypercall {
    pub(super) op: u64,
    pub(super) arg: [u64; 5],
}

pub(super) const HYPERVISOR_SYSCTL: u64 = 35;
pub(super) const HYPERVISOR_DOMCTL: u64 = 36;
pub(super) const DOMCTL_GETDOMAININFO: u32 = 5;
pub(super) const SYSCTL_GETDOMAININFOLIST: u32 = 6;

/// Interface versions whose layout of [`DomainInfo`] was compared with the headers and found the same:
/// 0x15 Xen 4.17, 0x16 4.18, 0x17 4.19 to 4.21, 0x18 4.22. Other architectures have another tail: not claimed.
pub(super) const DOMCTL_VERSIONS: &[u32] =
    if cfg!(target_arch = "x86_64") { &[0x15, 0x16, 0x17, 0x18] } else { &[] };
/// The same for [`DomainInfoList`]: 0x15 Xen 4.17 to 4.20, 0x16 from 4.21 on.
pub(super) const SYSCTL_VERSIONS: &[u32] = if cfg!(target_arch = "x86_64") { &[0x15, 0x16] } else { &[] };

pub(super) const DOMINF_DYING: u32 = 1 << 0;
pub(super) const DOMINF_SHUTDOWN: u32 = 1 << 2;
pub(super) const DOMINF_SHUTDOWN_SHIFT: u32 = 16;

/// `struct xen_domctl_getdomaininfo`
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DomainInfo {
    pub(super) domain: u16,
    pub(super) pad1: u16,
    pub(super) flags: u32,
    pub(super) pages_and_time: [u64; 7],
    pub(super) nr_online_vcpus: u32,
    pub(super) max_vcpu_id: u32,
    pub(super) ssidref: u32,
    pub(super) handle: [u8; 16],
    pub(super) cpupool: u32,
    pub(super) gpaddr_bits: u8,
    pub(super) pad2: [u8; 7],
    pub(super) arch_config: [u32; 2],
}

/// The unions in `struct xen_domctl` and `struct xen_sysctl` are 128 bytes.
const UNION_BYTES: usize = 128;
/// What follows the information in the union.
pub(super) const DOMCTL_REST_BYTES: usize = UNION_BYTES - size_of::<DomainInfo>();
/// What follows the list in the union.
pub(super) const SYSCTL_REST_BYTES: usize = UNION_BYTES - size_of::<DomainInfoList>();

/// `struct xen_domctl` for `getdomaininfo`
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Domctl {
    pub(super) cmd: u32,
    pub(super) interface_version: u32,
    pub(super) domain: u16,
    pub(super) pad: [u16; 3],
    pub(super) info: DomainInfo,
    pub(super) rest: [u8; DOMCTL_REST_BYTES],
}

/// `struct xen_sysctl_getdomaininfolist`
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct DomainInfoList {
    pub(super) first_domain: u16,
    pub(super) pad: u16,
    pub(super) max_domains: u32,
    /// Address of [`DomainInfo`]s.
    pub(super) buffer: u64,
    pub(super) num_domains: u32,
    pub(super) pad2: u32,
}

/// `struct xen_sysctl` for `getdomaininfolist`
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Sysctl {
    pub(super) cmd: u32,
    pub(super) interface_version: u32,
    pub(super) list: DomainInfoList,
    pub(super) rest: [u8; SYSCTL_REST_BYTES],
}

const _: () = {
    // Both ends are aligned as addresses are: 24 bytes, with the padding at the end.
    assert!(size_of::<CopySegment>() == 24 && offset_of!(CopySegment, status) == 20);
    assert!(size_of::<DomainInfo>() == 112 && offset_of!(DomainInfo, handle) == 76);
    assert!(size_of::<Domctl>() == 144 && offset_of!(Domctl, info) == 16);
    assert!(size_of::<Sysctl>() == 136 && offset_of!(Sysctl, list) == 8);
};

/// Calls `ioctl` with a pointer to `argument`, which the kernel may change, and gives its non-negative result.
///
/// # Safety
/// `request` must take a pointer to a `T`, and what `argument` points to must be as the request asks.
pub(super) unsafe fn ioctl<T>(fd: impl AsFd, request: c_ulong, argument: &mut T) -> Result<u32, Errno> {
    loop {
        // SAFETY: the caller's promise; the descriptor is open as long as it is borrowed.
        let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, &raw mut *argument) };
        match u32::try_from(result) {
            Ok(result) => return Ok(result),
            Err(_) => {
                let error = std::io::Error::last_os_error();
                let error = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                if error != Errno::INTR {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "sys_tests.rs"]
mod tests;
