//! Hypercalls by `/dev/xen/privcmd`, with memory that the hypervisor can reach.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::sys::{self, Hypercall, ioctl};
use crate::mapping::Mapping;
use crate::{Error, Result};

/// The device.
#[derive(Debug)]
pub(super) struct Privcmd {
    device: OwnedFd,
}

/// Memory for arguments, which stays where it is.
#[derive(Debug)]
pub(super) struct Buffer {
    mapping: Mapping,
}

impl Privcmd {
    pub(super) fn open() -> Result<Self> {
        let device = rustix::fs::open(sys::PRIVCMD_PATH, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::system("open /dev/xen/privcmd"))?;
        Ok(Self { device })
    }

    /// Makes a hypercall with one argument.
    ///
    /// # Safety
    /// The hypercall must take `address`, and all that is reached from there must be in a [`Buffer`].
    pub(super) unsafe fn call(&self, op: u64, address: u64) -> Result<u32, Errno> {
        let mut call = Hypercall { op, arg: [address, 0, 0, 0, 0] };
        // SAFETY: the request takes this struct; the caller promises the rest.
        unsafe { ioctl(&self.device, sys::IOCTL_PRIVCMD_HYPERCALL, &mut call) }
    }
}

impl Buffer {
    /// `bytes` of memory, from `/dev/xen/hypercall` if there is one (Linux 4.18), else locked.
    pub(super) fn new(bytes: usize) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let mapping = match rustix::fs::open(sys::HYPERCALL_PATH, flags, Mode::empty()) {
            Ok(device) => Mapping::of_file(device, 0, bytes, "map /dev/xen/hypercall")?,
            Err(Errno::NOENT) => Mapping::locked(bytes)?,
            Err(source) => return Err(Error::System { what: "open /dev/xen/hypercall", source }),
        };
        Ok(Self { mapping })
    }

    /// Address of the byte at `offset`.
    pub(super) fn address(&self, offset: usize) -> u64 {
        self.mapping.start().wrapping_add(offset) as u64
    }

    /// Puts `value` at `offset`.
    pub(super) fn put<T: Copy>(&mut self, offset: usize, value: T) {
        let place = self.place::<T>(offset);
        // SAFETY: in range and aligned as `place` checked; the memory is ours alone outside of hypercalls.
        unsafe { place.write_volatile(value) }
    }

    /// Copies the `T` at `offset`.
    ///
    /// # Safety
    /// `T` must be valid for every bit pattern.
    pub(super) unsafe fn get<T: Copy>(&self, offset: usize) -> T {
        let place = self.place::<T>(offset);
        // SAFETY: in range and aligned as `place` checked; the caller promises that every bit pattern is valid.
        unsafe { place.read_volatile() }
    }

    fn place<T>(&self, offset: usize) -> *mut T {
        let end = offset.checked_add(size_of::<T>());
        assert!(end.is_some_and(|end| end <= self.mapping.bytes()), "out of the hypercall buffer");
        let place = self.mapping.start().wrapping_add(offset).cast::<T>();
        assert!(place.is_aligned(), "offset {offset} is not aligned");
        place
    }
}
