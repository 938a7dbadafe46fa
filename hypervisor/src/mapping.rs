//! A shared mapping that is undone when dropped.

use std::os::fd::AsFd;

use rustix::mm::{MapFlags, ProtFlags};

use crate::{Error, Result};

/// Shared, readable and writable memory. Others may change it at any time, so it is only reached by pointer.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: *mut u8,
    bytes: usize,
}

// SAFETY: the memory belongs to no thread; the pointer is only used by accessors that are atomic or volatile.
unsafe impl Send for Mapping {}
// SAFETY: as above; no accessor hands out a reference to plain memory.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` of `file` from `offset`.
    pub(crate) fn of_file(file: impl AsFd, offset: u64, bytes: usize, what: &'static str) -> Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel picks an unused address range, so no memory of ours is replaced.
        let start = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, file, offset)
        }
        .map_err(Error::system(what))?;
        Ok(Self { start: start.cast(), bytes })
    }

    /// Maps `bytes` of new memory that only this process and its children share.
    pub(crate) fn anonymous(bytes: usize) -> Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel picks an unused address range, so no memory of ours is replaced.
        let start =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED) }
                .map_err(Error::system("map anonymous memory"))?;
        Ok(Self { start: start.cast(), bytes })
    }

    /// As [`Self::anonymous`], locked in memory.
    pub(crate) fn locked(bytes: usize) -> Result<Self> {
        let mapping = Self::anonymous(bytes)?;
        // SAFETY: the range is mapped by `mapping`.
        unsafe { rustix::mm::mlock(mapping.start.cast(), bytes) }.map_err(Error::system("lock memory"))?;
        Ok(mapping)
    }

    /// First byte; page-aligned.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start
    }

    /// Length.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `self` and no reference into it outlives `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.start.cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "munmap of a whole own mapping cannot fail");
    }
}
